"""`backfill`: any span, resumable, repeatable, at its own pace."""

import signal
from datetime import UTC, datetime, timedelta

import pytest

from tests.installation import HOUR, TIMEOUT_S, Site, until

DAY = datetime(2026, 3, 1, tzinfo=UTC)
CLICK = "users.messages.email.Click"
OPEN = "users.messages.email.Open"
SPAN = ("--from", "2026-03-01", "--to", "2026-03-02")


@pytest.fixture
def history(site: Site) -> Site:
    """An installation that starts now, with one file of clicks in each hour of a day, and one before and after."""
    site.connector["source"]["start_from"] = "now"
    for number in range(-1, 25):
        site.put_sample(CLICK, 10, hour=DAY + number * HOUR, seed=number + 1)
    return site


def backfill(site: Site, *options: str, exit_code: int = 0) -> dict[str, dict[str, int]]:
    """Run `backfill --json` over the day and return the connector's part."""
    document = site.json("backfill", *SPAN, *options, exit_code=exit_code)
    part: dict[str, dict[str, int]] = document["connectors"]["production"]
    return part


def test_only_hours_in_the_span_are_delivered_and_only_once(history: Site) -> None:
    """From is in, to is out; a second backfill sends nothing."""
    assert backfill(history)["objects"]["delivered"] == 24
    assert backfill(history)["objects"]["delivered"] == 0
    assert (len(history.collector.by_id), history.collector.duplicates) == (240, 0)


def test_resend_sends_again_with_the_same_message_ids(history: Site) -> None:
    """For a destination that lost them; the books count each event once."""
    backfill(history)
    assert backfill(history, "--resend")["events"]["sent"] == 240
    assert (len(history.collector.by_id), history.collector.duplicates) == (240, 240)
    assert history.json("status")["connectors"]["production"]["events"]["sent"] == 240


def test_resend_beside_a_daemon_sends_everything_at_its_own_pace(history: Site) -> None:
    """The daemon remembers what was sent, and would send without a limit."""
    history.connector["dedup"] = "7d"
    history.config["schedule"] = {"poll": "1s"}
    history.config["delivery"] |= {"max_batch_events": 20}
    assert backfill(history)["objects"]["delivered"] == 24
    daemon = history.start("run")

    report = backfill(history, "--resend", "--requests-per-second", "4")

    assert daemon.poll() is None
    daemon.send_signal(signal.SIGTERM)
    daemon.communicate(timeout=TIMEOUT_S)
    assert (report["events"]["sent"], report["objects"]["delivered"]) == (240, 24)
    assert report["seconds"] >= 11 / 4  # type: ignore[operator]
    assert (len(history.collector.by_id), history.collector.duplicates) == (240, 240)
    assert history.json("status")["connectors"]["production"]["events"]["sent"] == 240


def test_event_types_are_chosen_by_glob(history: Site) -> None:
    """Only included types that match."""
    history.put_sample(OPEN, 7, hour=DAY + HOUR)
    assert backfill(history, "--event-type", "users.messages.*.Open")["events"]["sent"] == 7


def test_a_dry_run_counts_objects_bytes_and_requests_and_sends_nothing(history: Site) -> None:
    """The estimate of requests comes from one object of each type."""
    plan = history.json("backfill", *SPAN, "--dry-run")["connectors"]["production"]
    assert (plan["objects"], plan["requests"]) == (24, 1)
    assert plan["bytes"] > 24 * 10 * 300
    assert history.collector.request_count == 0
    assert backfill(history)["objects"]["delivered"] == 24
    assert history.json("backfill", *SPAN, "--dry-run")["connectors"]["production"]["objects"] == 0
    assert history.json("backfill", *SPAN, "--dry-run", "--resend")["connectors"]["production"]["objects"] == 24


def test_an_interrupted_backfill_is_resumed_by_running_it_again(site: Site) -> None:
    """What was settled is not sent again."""
    site.connector["source"]["start_from"] = "now"
    for offset in range(40):
        site.put_sample(CLICK, 400, hour=DAY, seed=offset, offset=offset)
    site.config["delivery"] |= {"workers": 1, "max_in_flight": 1}
    process = site.start("backfill", *SPAN, "--requests-per-second", "20")
    until(lambda: site.collector.request_count >= 2, process)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert "run the same command" in err
    arrived = len(site.collector.by_id)
    assert 0 < arrived < 16_000
    assert backfill(site)["events"]["sent"] == 16_000 - arrived
    assert (len(site.collector.by_id), site.collector.duplicates) == (16_000, 0)


def test_a_backfill_has_a_pace_of_its_own(site: Site) -> None:
    """Requests are spaced as asked, whatever the settings say."""
    site.connector["source"]["start_from"] = "now"
    site.put_sample(CLICK, 1200, hour=DAY)
    site.config["delivery"] |= {"max_batch_events": 100}
    report = site.json("backfill", *SPAN, "--requests-per-second", "20")["connectors"]["production"]
    assert report["batches"] >= 12
    assert report["seconds"] >= 11 / 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--from", "2026-03-02", "--to", "2026-03-02"), "no hour lies in [2026-03-02, 2026-03-02)"),
        (("--from", "yesterday", "--to", "2026-03-02"), "--from yesterday is no time"),
        ((*SPAN, "--connector", "other"), "there is no connector other"),
        ((*SPAN, "--event-type", "users.messages.sms.*"), ""),
        ((*SPAN, "--event-type", "nonsense.*"), "no event type of production matches nonsense.*"),
    ],
)
def test_a_span_or_name_that_means_nothing_is_bad_usage(history: Site, options: tuple[str, ...], message: str) -> None:
    """Exit 2, and what to write instead."""
    done = history.run("backfill", *options)
    assert done.returncode == (2 if message else 0), done.stderr
    assert message in done.stderr
    assert history.collector.request_count == 0


def test_progress_lines_are_logged_where_there_is_no_terminal(history: Site) -> None:
    """And the final report says what was done."""
    done = history.run("backfill", *SPAN)
    assert "production" in done.stdout
    assert "240" in done.stdout


def test_the_last_hour_is_covered_when_the_span_ends_within_it(history: Site) -> None:
    """Hours are delivered whole."""
    end = (DAY + timedelta(hours=2, minutes=30)).isoformat()
    document = history.json("backfill", "--from", DAY.isoformat(), "--to", end)
    assert document["connectors"]["production"]["objects"]["delivered"] == 3
