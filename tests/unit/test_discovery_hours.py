"""Discovery: which hours are listed when."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.discovery import SWEEP_AGES, StartFrom, resolve_start, sweep_hours, window_start
from currents_bridge.model import Progress

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOW = datetime(2024, 3, 9, 17, 20, tzinfo=UTC)
THIS_HOUR = datetime(2024, 3, 9, 17, tzinfo=UTC)


class TestWindowStart:
    """The first hour of the hot window."""

    @pytest.mark.parametrize(
        ("polled_at", "start_from", "expected"),
        [
            pytest.param(None, None, None, id="first poll, from the earliest"),
            pytest.param(None, NOW, THIS_HOUR, id="first poll, from a time: its whole hour"),
            pytest.param(NOW, None, THIS_HOUR - 6 * HOUR, id="a minute ago"),
            pytest.param(NOW - 3 * DAY, None, THIS_HOUR - 3 * DAY - 6 * HOUR, id="three days ago"),
            pytest.param(NOW, NOW - 2 * HOUR, THIS_HOUR - 2 * HOUR, id="never before the start"),
            pytest.param(NOW, NOW - DAY, THIS_HOUR - 6 * HOUR, id="start long ago"),
            pytest.param(NOW + DAY, None, THIS_HOUR - 6 * HOUR, id="the clock was set back"),
        ],
    )
    def test_window_start(
        self, polled_at: datetime | None, start_from: datetime | None, expected: datetime | None
    ) -> None:
        """It lies `lookback` before the last complete poll."""
        assert window_start(Progress(polled_at=polled_at), NOW, 6 * HOUR, start_from) == expected

    @pytest.mark.parametrize(
        ("start_from", "expected"), [("earliest", None), ("now", NOW - DAY), (NOW - HOUR, NOW - HOUR)]
    )
    def test_now_stays_the_start_of_the_first_poll(self, start_from: StartFrom, expected: datetime | None) -> None:
        """`start_from: now` does not move on with the clock."""
        assert resolve_start(start_from, Progress(started_at=NOW - DAY, polled_at=NOW)) == expected


class TestSweepHours:
    """The closed hours that are due for another look."""

    def test_an_hour_is_due_when_it_reaches_each_age(self) -> None:
        """One hour of sweeping looks at one hour of each age outside the hot window."""
        progress = Progress(started_at=NOW - 30 * DAY, polled_at=NOW, swept_at=NOW - HOUR)

        assert sweep_hours(progress, NOW, 2 * HOUR, None) == [
            (THIS_HOUR - age - HOUR, THIS_HOUR - age) for age in (7 * DAY, DAY, 6 * HOUR)
        ]

    def test_due_hours_that_touch_become_one_range(self) -> None:
        """After three days' stop the hours of the younger ages overlap."""
        progress = Progress(started_at=NOW - 30 * DAY, polled_at=NOW, swept_at=NOW - 3 * DAY)

        assert sweep_hours(progress, NOW, 6 * HOUR, None) == [
            (THIS_HOUR - 10 * DAY, THIS_HOUR - 7 * DAY),
            (THIS_HOUR - 4 * DAY, THIS_HOUR - 6 * HOUR),
        ]

    @pytest.mark.parametrize(
        ("progress", "start_from"),
        [
            pytest.param(Progress(), None, id="never polled"),
            pytest.param(Progress(started_at=NOW - DAY), None, id="no poll was complete"),
            pytest.param(Progress(NOW, NOW, NOW - DAY), None, id="swept just now"),
            pytest.param(Progress(NOW, NOW - 9 * DAY, NOW - 9 * DAY), NOW - HOUR, id="all before the start"),
            pytest.param(Progress(NOW, NOW + DAY, NOW - DAY), None, id="the clock was set back"),
        ],
    )
    def test_nothing_is_due(self, progress: Progress, start_from: datetime | None) -> None:
        """Hours that polls list, or that nobody wants, are not swept."""
        assert sweep_hours(progress, NOW, 6 * HOUR, start_from) == []

    @given(
        gaps=st.lists(st.integers(1, 5 * 24 * 60), min_size=1, max_size=6),
        lookback_h=st.integers(1, 48),
        start_h=st.none() | st.integers(0, 240),
    )
    def test_no_look_at_an_hour_is_left_out(self, gaps: list[int], lookback_h: int, start_h: int | None) -> None:
        """Whenever sweeps run, each hour is looked at when it reaches an age, unless the hot window holds it."""
        start = None if start_h is None else NOW - start_h * HOUR
        progress, now = Progress(NOW, NOW, NOW), NOW
        for gap in gaps:
            swept_at, now = now, now + timedelta(minutes=gap)
            progress = replace(progress, polled_at=now, swept_at=swept_at)
            ranges = sweep_hours(progress, now, lookback_h * HOUR, start)
            hot = window_start(progress, now, lookback_h * HOUR, start)
            assert hot is not None
            hours = [THIS_HOUR + n * HOUR for n in range(-9 * 24, 31 * 24)]
            due = {
                hour
                for hour in hours
                for age in SWEEP_AGES
                if swept_at < hour + HOUR + age <= now and hour < hot and (start is None or hour + HOUR > start)
            }
            assert {hour for hour in hours if any(first <= hour < end for first, end in ranges)} == due
            assert all(end < next_first for (_, end), (next_first, _) in pairwise(ranges))
