"""Coverage: which hours of a folder are listed when."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.model import Coverage, Progress
from currents_bridge.sources.coverage import HourRange, covered_by_look, hours_to_list
from currents_bridge.sources.discovery import StartFrom, resolve_start

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOW = datetime(2024, 3, 9, 17, 20, tzinfo=UTC)
THIS_HOUR = datetime(2024, 3, 9, 17, tzinfo=UTC)
LOOKBACK = 6 * HOUR
HOT = THIS_HOUR - LOOKBACK
ALL = Coverage(None, NOW)
WEEK = Coverage(THIS_HOUR - 7 * DAY, NOW)

times = st.integers(0, 19 * 24 * 60).map(lambda minutes: datetime(2024, 3, 1, tzinfo=UTC) + timedelta(minutes=minutes))


@pytest.mark.parametrize(
    ("covered", "start", "expected"),
    [
        pytest.param(None, None, [(None, None)], id="never listed, from the earliest"),
        pytest.param(None, NOW, [(THIS_HOUR, None)], id="never listed, from a time: its whole hour"),
        pytest.param(ALL, None, [(HOT, None)], id="listed a moment ago"),
        pytest.param(Coverage(None, NOW - 3 * DAY), None, [(HOT - 3 * DAY, None)], id="listed three days ago"),
        pytest.param(ALL, NOW - 2 * HOUR, [(THIS_HOUR - 2 * HOUR, None)], id="never before the start"),
        pytest.param(ALL, NOW - DAY, [(HOT, None)], id="started long ago"),
        pytest.param(Coverage(None, NOW + DAY), None, [(None, None)], id="listed by a clock that ran ahead"),
        pytest.param(WEEK, None, [(None, THIS_HOUR - 7 * DAY), (HOT, None)], id="start moved to the earliest"),
        pytest.param(
            WEEK, NOW - 9 * DAY, [(THIS_HOUR - 9 * DAY, THIS_HOUR - 7 * DAY), (HOT, None)], id="start moved back"
        ),
        pytest.param(Coverage(THIS_HOUR, NOW), NOW - DAY, [(THIS_HOUR - DAY, None)], id="the gap meets the window"),
    ],
)
def test_hours_to_list(covered: Coverage | None, start: datetime | None, expected: list[HourRange]) -> None:
    """The window since the last look, the lookback before it, and what was never listed."""
    assert hours_to_list(covered, start, LOOKBACK, NOW) == expected


@given(st.lists(st.tuples(st.none() | times, times), min_size=1, max_size=6), st.integers(0, 1_000))
def test_after_any_looks_every_wanted_hour_was_listed_since_it_could_change(
    looks: list[tuple[datetime | None, datetime]], wanted: int
) -> None:
    """The law: an hour from the latest start on was listed by some look that was no earlier than the last change."""
    covered: Coverage | None = None
    listed_at: dict[datetime, datetime] = {}
    hours = [datetime(2024, 2, 20, tzinfo=UTC) + n * HOUR for n in range(24 * 30)]
    for start, now in sorted(looks, key=lambda look: look[1]):
        for first, end in hours_to_list(covered, start, LOOKBACK, now):
            listed_at |= {h: now for h in hours if (first is None or first <= h) and (end is None or h < end)}
        covered = covered_by_look(covered, start, LOOKBACK, now)
    start, now = max(looks, key=lambda look: look[1])
    hour = hours[wanted % len(hours)]
    if start is None or hour + HOUR > start:
        assert hour in listed_at
        assert listed_at[hour] >= min(now, hour + LOOKBACK)


@pytest.mark.parametrize(("start_from", "expected"), [("earliest", None), ("now", NOW - DAY), (NOW - HOUR, NOW - HOUR)])
def test_now_stays_the_start_of_the_first_poll(start_from: StartFrom, expected: datetime | None) -> None:
    """`start_from: now` does not move on with the clock."""
    assert resolve_start(start_from, Progress(started_at=NOW - DAY, polled_at=NOW)) == expected
