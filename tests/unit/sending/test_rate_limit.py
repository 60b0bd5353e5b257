from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.errors import RetryLaterError
from currents_bridge.sending.rate_limit import DRAIN_S, Pace
from tests.fake_time import FakeStop, FakeTime


@pytest.fixture
def time() -> FakeTime:
    """Time of the test."""
    return FakeTime()


@pytest.fixture
def stop(time: FakeTime) -> FakeStop:
    """The program's stop event."""
    return FakeStop(time)


RATES = st.none() | st.floats(0.01, 1000)


@given(RATES, RATES, st.lists(st.tuples(st.floats(0, 5), st.integers(1, 2500)), min_size=2))
def test_pace_never_starts_the_next_request_before_its_predecessor_has_used_its_share(
    requests_per_second: float | None, events_per_second: float | None, arrivals: list[tuple[float, int]]
) -> None:
    """Between two starts lie at least one request's and its events' time at the given rates, whoever comes when."""
    time = FakeTime()
    pace = Pace(requests_per_second, events_per_second, stop=FakeStop(time), clock=time.clock, sleep=time.sleep)
    starts = []
    for idle_s, events in arrivals:
        time.now_s += idle_s
        pace.wait(events)
        starts.append((time.now_s, events))

    for (start_s, events), (next_s, _) in pairwise(starts):
        due_s = max(1 / requests_per_second if requests_per_second else 0, events / (events_per_second or float("inf")))
        assert next_s - start_s >= due_s * (1 - 1e-6) - 1e-6


def test_pace_wastes_no_time_between_slots(time: FakeTime, stop: FakeStop) -> None:
    """Requests that are always ready go exactly at the rate."""
    pace = Pace(50, None, stop=stop, clock=time.clock, sleep=time.sleep)

    for _ in range(101):
        pace.wait(1)

    assert time.now_s == pytest.approx(102)


def test_pace_without_limits_never_waits(time: FakeTime, stop: FakeStop) -> None:
    """None means no limit."""
    pace = Pace(None, None, stop=stop, clock=time.clock, sleep=time.sleep)

    for _ in range(10):
        pace.wait(2500)

    assert time.waits_s == []


def test_no_request_goes_during_a_pause(time: FakeTime, stop: FakeStop) -> None:
    """A pause holds every sender until its end, and a shorter one does not cut it short."""
    pace = Pace(1, None, stop=stop, clock=time.clock, sleep=time.sleep)
    pace.hold_until(130)
    pace.hold_until(110)

    pace.wait(1)

    assert time.now_s == 130


def test_a_pause_voids_the_slots_that_were_taken_before_it(time: FakeTime) -> None:
    """A request that waits for its slot while a pause begins waits for the pause, too."""

    class PauseMeanwhile(FakeStop):
        def wait(self, timeout: float | None = None) -> bool:
            if not time.waits_s:
                pace.hold_until(200)
            return super().wait(timeout)

    pace = Pace(1, None, stop=PauseMeanwhile(time), clock=time.clock, sleep=time.sleep)
    pace.wait(1)

    pace.wait(1)

    assert time.now_s == 200


def test_stop_ends_a_pause(time: FakeTime, stop: FakeStop) -> None:
    """A request that waits in a pause gives up when the program stops, and says how long the pause still is."""
    pace = Pace(None, None, stop=stop, clock=time.clock, sleep=time.sleep)
    pace.hold_until(400)
    stop.set()

    with pytest.raises(RetryLaterError) as caught:
        pace.wait(1)

    assert caught.value.wait_s == 300


def test_after_a_stop_no_slot_is_waited_for_that_comes_late(time: FakeTime, stop: FakeStop) -> None:
    """At a request in 20 s, 16 requests would hold the program for five minutes."""
    pace = Pace(1 / 20, None, stop=stop, clock=time.clock, sleep=time.sleep)
    pace.wait(1)
    stop.set()

    with pytest.raises(RetryLaterError, match="stopped before its turn"):
        pace.wait(1)

    assert time.now_s == 100


def test_the_stop_bounds_all_waits_together(time: FakeTime, stop: FakeStop) -> None:
    """However short each of them is."""
    pace = Pace(1, None, stop=stop, clock=time.clock, sleep=time.sleep)
    stop.set()

    in_time = 3
    for _ in range(in_time):
        pace.wait(1)

    assert time.now_s == 100 + DRAIN_S
    with pytest.raises(RetryLaterError):
        pace.wait(1)


def test_a_stop_ends_a_wait_that_has_begun(time: FakeTime) -> None:
    """The slot may be minutes away."""

    class StopsMeanwhile(FakeStop):
        def wait(self, timeout: float | None = None) -> bool:
            self.set()
            return super().wait(timeout)

    pace = Pace(1 / 75, None, stop=StopsMeanwhile(time), clock=time.clock, sleep=time.sleep)
    pace.wait(1)

    with pytest.raises(RetryLaterError):
        pace.wait(1)


def test_stop_does_not_hurry_requests_that_wait_for_their_slot(time: FakeTime, stop: FakeStop) -> None:
    """What was begun is sent at the agreed rate while the program drains."""
    pace = Pace(2, None, stop=stop, clock=time.clock, sleep=time.sleep)
    stop.set()

    pace.wait(1)
    pace.wait(1)

    assert time.now_s == 100.5
