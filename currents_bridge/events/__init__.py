"""Braze's events: what is known of each type, and how one becomes a Segment track message."""
