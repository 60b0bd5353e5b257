"""What the program does for people: schedules, backfills, proofs, checks, replays, reports."""
