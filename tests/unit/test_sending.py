import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import pairwise, repeat
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.errors import BridgeError, CredentialError, RefusedError, RetryLaterError, Side
from currents_bridge.model import Batch, Part, Refusal
from currents_bridge.ports import Transport
from currents_bridge.sending import ENVELOPE_BYTES, Pace, Retries, SendCounts, Sender, request_body
from currents_bridge.testing.fake_transport import FakeTransport

DENIED = CredentialError(Side.DESTINATION, "segment answered 401", "check the write key")


class FakeTime:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits_s: list[float] = []

    def clock(self) -> float:
        """Return the time."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.waits_s.append(seconds)
        self.now_s += seconds


class FakeStop(threading.Event):
    """A stop event whose waits move the fake clock."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__()
        self._time = time

    def wait(self, timeout: float | None = None) -> bool:
        """Let time pass unless the event is set."""
        if not self.is_set():
            self._time.sleep(timeout or 0.0)
        return self.is_set()


@pytest.fixture
def time() -> FakeTime:
    """Time of the test."""
    return FakeTime()


@pytest.fixture
def stop(time: FakeTime) -> FakeStop:
    """The program's stop event."""
    return FakeStop(time)


def make_batch(events: int = 1, object_id: int = 1) -> Batch:
    """Make a batch of one object's messages."""
    messages = [f'{{"messageId":"{object_id}-{row}"}}' for row in range(events)]
    frame = pl.DataFrame(
        {"row": range(events), "message_id": [f"{object_id}-{row}" for row in range(events)], "message": messages},
        schema_overrides={"row": pl.UInt32},
    )
    return Batch((Part(object_id, frame),), events, ENVELOPE_BYTES + sum(map(len, messages)) + events - 1)


def make_sender(transport: Transport, time: FakeTime, stop: FakeStop, **options: Any) -> Sender:
    """Make a sender without limits whose waits are as long as they can be."""
    pace = Pace(None, None, stop=stop, clock=time.clock, sleep=time.sleep)
    settings: dict[str, Any] = {
        "max_in_flight": 1,
        "pace": pace,
        "stop": stop,
        "jitter": lambda _, high: high,
    } | options
    return Sender(transport, **settings)


def error_of(future: Future[Sequence[Refusal]]) -> BaseException | None:
    """Return what the future raises."""
    return future.exception(timeout=10)


@given(st.lists(st.lists(st.text(), min_size=1), min_size=1))
def test_body_holds_every_message_in_order_and_has_the_size_that_packing_counts(parts: list[list[str]]) -> None:
    """A body is the envelope, the messages, and a comma between each two, in UTF-8."""
    texts = [json.dumps({"event": event}, ensure_ascii=False) for events in parts for event in events]
    series = [pl.Series([json.dumps({"event": event}, ensure_ascii=False) for event in events]) for events in parts]

    body = request_body(series, datetime(2026, 1, 2, tzinfo=UTC))

    assert json.loads(body)["batch"] == [json.loads(text) for text in texts]
    assert len(body) == ENVELOPE_BYTES + sum(len(text.encode()) for text in texts) + len(texts) - 1


def test_body_says_when_it_was_sent_in_utc_with_milliseconds() -> None:
    """Segment refuses some finer times, so `sentAt` has exactly three digits."""
    body = request_body([pl.Series(["{}"])], datetime.fromisoformat("2026-01-02T05:04:05.678901+02:00"))

    assert body == b'{"batch":[{}],"sentAt":"2026-01-02T03:04:05.678Z"}'


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


def test_a_pause_voids_the_slots_that_were_taken_before_it(time: FakeTime, stop: FakeStop) -> None:
    """A request that waits for its slot while a pause begins waits for the pause, too."""

    def sleep(seconds: float) -> None:
        if not time.waits_s:
            pace.hold_until(200)
        time.sleep(seconds)

    pace = Pace(1, None, stop=stop, clock=time.clock, sleep=sleep)
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


def test_stop_does_not_hurry_requests_that_wait_for_their_slot(time: FakeTime, stop: FakeStop) -> None:
    """What was begun is sent at the agreed rate while the program drains."""
    pace = Pace(2, None, stop=stop, clock=time.clock, sleep=time.sleep)
    stop.set()

    pace.wait(1)
    pace.wait(1)

    assert time.now_s == 100.5


def test_sender_returns_what_the_transport_returns(time: FakeTime, stop: FakeStop) -> None:
    """Refused messages reach the caller."""
    refusal = Refusal(1, 0, "1-0", "too large")

    with make_sender(FakeTransport([[refusal]]), time, stop) as sender:
        assert sender.submit(make_batch()).result(timeout=10) == [refusal]


def test_sender_repeats_with_full_jitter_up_to_its_attempts(time: FakeTime, stop: FakeStop) -> None:
    """The longest possible waits double from the first one to the cap; then the last error reaches the caller."""
    errors = [RetryLaterError(f"attempt {n}") for n in range(1, 7)]
    transport = FakeTransport(errors)

    with make_sender(transport, time, stop, retries=Retries(longest_wait_s=5)) as sender:
        error = error_of(sender.submit(make_batch()))

    assert error is errors[-1]
    assert time.waits_s == [1, 2, 4, 5, 5]


def test_backoff_is_drawn_between_nothing_and_the_longest_wait(time: FakeTime, stop: FakeStop) -> None:
    """Full jitter: the whole span is possible, so that senders do not come back together."""
    drawn: list[tuple[float, float]] = []

    def jitter(low: float, high: float) -> float:
        drawn.append((low, high))
        return 0.25

    with make_sender(FakeTransport([RetryLaterError("503")] * 2), time, stop, jitter=jitter) as sender:
        sender.submit(make_batch()).result(timeout=10)

    assert drawn == [(0, 1), (0, 2)]
    assert time.waits_s == [0.25, 0.25]


def test_sender_acknowledges_after_a_repetition(time: FakeTime, stop: FakeStop) -> None:
    """A failure that passes costs time only."""
    transport = FakeTransport([RetryLaterError("503"), RetryLaterError("timeout")])

    with make_sender(transport, time, stop) as sender:
        sender.submit(make_batch(3)).result(timeout=10)

    assert len(transport.messages) == 3


def test_a_named_wait_pauses_the_whole_destination(time: FakeTime, stop: FakeStop) -> None:
    """A 429 holds the batch that got it and every other sender of the same pace for as long as Segment says."""
    transport = FakeTransport([RetryLaterError("429", wait_s=30)])
    pace = Pace(None, None, stop=stop, clock=time.clock, sleep=time.sleep)

    with make_sender(transport, time, stop, pace=pace) as sender:
        sender.submit(make_batch()).result(timeout=10)
    pace.wait(1)

    assert time.now_s == 130


@pytest.mark.parametrize("error", [RefusedError("400"), DENIED, ZeroDivisionError("a mistake of ours")])
def test_sender_repeats_nothing_but_what_may_pass_later(error: Exception, time: FakeTime, stop: FakeStop) -> None:
    """Refused batches, bad credentials and plain exceptions reach the caller at once."""

    class Failing(FakeTransport):
        def send(self, batch: Batch) -> Sequence[Refusal]:
            super().send(batch)
            raise error

    transport = Failing()
    with make_sender(transport, time, stop) as sender:
        assert error_of(sender.submit(make_batch())) is error

    assert transport.attempts == 1


def test_after_a_credential_error_no_request_is_made(time: FakeTime, stop: FakeStop) -> None:
    """Further batches fail with the same words, without a request that could only fail."""
    transport = FakeTransport([DENIED])

    with make_sender(transport, time, stop) as sender:
        error_of(sender.submit(make_batch()))
        error = error_of(sender.submit(make_batch()))

    assert isinstance(error, CredentialError)
    assert (error.side, error.message, error.hint) == (DENIED.side, DENIED.message, DENIED.hint)
    assert transport.attempts == 1


def test_stop_ends_the_wait_for_a_repetition(time: FakeTime, stop: FakeStop) -> None:
    """A batch that waits gives up with RetryLaterError, and is not sent again."""
    transport = FakeTransport(repeat(RetryLaterError("503"), 6))
    stop.set()

    with make_sender(transport, time, stop) as sender:
        error = error_of(sender.submit(make_batch()))

    assert isinstance(error, RetryLaterError)
    assert transport.attempts == 1


def test_batches_submitted_during_a_drain_are_sent(time: FakeTime, stop: FakeStop) -> None:
    """A group that was begun when the program was asked to stop can still be settled."""
    transport = FakeTransport()
    stop.set()

    with make_sender(transport, time, stop) as sender:
        sender.submit(make_batch()).result(timeout=10)

    assert len(transport.batches) == 1


def test_submit_blocks_while_all_places_are_taken(time: FakeTime, stop: FakeStop) -> None:
    """No more than `max_in_flight` batches are held, also when one of them waits for a repetition."""
    go_on = threading.Event()
    begun = threading.Semaphore(0)

    class Slow(FakeTransport):
        def send(self, batch: Batch) -> Sequence[Refusal]:
            begun.release()
            assert go_on.wait(10)
            return super().send(batch)

    transport = Slow([RetryLaterError("503")])
    third_submitted = threading.Event()

    def submit_three() -> None:
        for _ in range(3):
            sender.submit(make_batch())
        third_submitted.set()

    with make_sender(transport, time, stop, max_in_flight=2) as sender:
        submitter = threading.Thread(target=submit_three)
        submitter.start()
        assert begun.acquire(timeout=10)
        assert begun.acquire(timeout=10)
        assert not third_submitted.wait(0.05)
        go_on.set()
        submitter.join(10)

    assert len(transport.batches) == 3


def test_many_threads_may_submit(time: FakeTime, stop: FakeStop) -> None:
    """Every batch of every thread is acknowledged exactly once."""
    transport = FakeTransport()

    with make_sender(transport, time, stop, max_in_flight=3) as sender:
        threads = [
            threading.Thread(target=lambda n=n: [sender.submit(make_batch(2, 10 * n + i)) for i in range(10)])
            for n in range(4)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)

    assert sorted(batch.parts[0].object_id for batch in transport.batches) == list(range(40))


def test_counts_tell_requests_from_acknowledged_batches(time: FakeTime, stop: FakeStop) -> None:
    """A failed attempt is a request; only acknowledged bodies count as batches and bytes."""
    batch = make_batch(5)
    outcomes: list[BridgeError | list[Refusal]] = [RetryLaterError("503"), [], RefusedError("400")]

    with make_sender(FakeTransport(outcomes), time, stop) as sender:
        sender.submit(batch).result(timeout=10)
        error_of(sender.submit(batch))

    assert sender.counts == SendCounts(requests=3, batches=1, bytes=batch.size_bytes)


def test_close_waits_for_what_is_under_way(time: FakeTime, stop: FakeStop) -> None:
    """After close every submitted batch has its outcome."""
    sender = make_sender(FakeTransport(), time, stop, max_in_flight=4)
    futures = [sender.submit(make_batch()) for _ in range(4)]

    sender.close()
    sender.close()

    assert all(future.done() for future in futures)
