import json
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import UTC, datetime
from itertools import repeat
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.errors import BridgeError, CredentialError, RefusedError, RetryLaterError, Side
from currents_bridge.model import Batch, Part, Refusal
from currents_bridge.ports import Transport
from currents_bridge.sending.bisect import Proof
from currents_bridge.sending.rate_limit import Pace
from currents_bridge.sending.sender import ENVELOPE_BYTES, Retries, SendCounts, Sender, request_body
from currents_bridge.testing.fake_transport import FakeTransport
from tests.fake_time import FakeStop, FakeTime

DENIED = CredentialError(Side.DESTINATION, "segment answered 401", "check the write key")


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
    size_bytes = ENVELOPE_BYTES + sum(map(len, messages)) + events - 1
    return Batch((Part(object_id, frame),), events, size_bytes, ENVELOPE_BYTES)


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


@pytest.mark.parametrize("error", [DENIED, ZeroDivisionError("a mistake of ours")])
def test_sender_repeats_nothing_but_what_may_pass_later(error: Exception, time: FakeTime, stop: FakeStop) -> None:
    """Bad credentials and plain exceptions reach the caller at once."""

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


def test_submit_blocks_while_as_many_batches_are_held_as_may_be(time: FakeTime, stop: FakeStop) -> None:
    """No more than `max_in_flight` batches are held, wherever they wait."""
    go_on = threading.Event()

    class Slow(FakeTransport):
        def send(self, batch: Batch) -> Sequence[Refusal]:
            assert go_on.wait(10)
            return super().send(batch)

    transport = Slow([RetryLaterError("503")])
    second_submitted, third_submitted = threading.Event(), threading.Event()

    def submit_three() -> None:
        sender.submit(make_batch())
        sender.submit(make_batch())
        second_submitted.set()
        sender.submit(make_batch())
        third_submitted.set()

    with make_sender(transport, time, stop, max_in_flight=2) as sender:
        submitter = threading.Thread(target=submit_three)
        submitter.start()
        assert second_submitted.wait(10)
        assert not third_submitted.wait(0.05)
        go_on.set()
        submitter.join(10)

    assert len(transport.batches) == 3


def test_a_batch_that_waits_for_its_repetition_lets_another_go(time: FakeTime) -> None:
    """The wait between two attempts holds no place of the adaptive limit, which starts at one."""
    other_sent = threading.Event()

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:  # noqa: ARG002 - nobody waits so long
            assert other_sent.wait(10)
            return False

    class Failing(FakeTransport):
        def send(self, batch: Batch) -> Sequence[Refusal]:
            refused = super().send(batch)
            other_sent.set()
            return refused

    transport = Failing([RetryLaterError("503")])
    pace = Pace(None, None, stop=Stop(), clock=time.clock)
    with Sender(transport, max_in_flight=2, pace=pace, stop=pace._stop, jitter=lambda _, high: high) as sender:
        first, second = sender.submit(make_batch(object_id=1)), sender.submit(make_batch(object_id=2))
        assert (first.result(20), second.result(20)) == ([], [])

    assert transport.attempts == 3


def test_a_named_wait_holds_every_sender_of_the_destination(time: FakeTime, stop: FakeStop) -> None:
    """After a 429 to one of several senders none makes a request before its end."""
    began_s: list[float] = []

    class Noting(FakeTransport):
        def send(self, batch: Batch) -> Sequence[Refusal]:
            began_s.append(time.now_s)
            return super().send(batch)

    transport = Noting([RetryLaterError("429", wait_s=30)])
    pace = Pace(None, None, stop=stop, clock=time.clock, sleep=time.sleep)
    with (
        make_sender(transport, time, stop, pace=pace, max_in_flight=4) as one,
        make_sender(transport, time, stop, pace=pace, max_in_flight=4) as other,
    ):
        one.submit(make_batch(object_id=1)).exception(10)
        for object_id in range(2, 10):
            (one if object_id % 2 else other).submit(make_batch(object_id=object_id))

    assert began_s[0] == 100
    assert min(began_s[1:]) >= 130
    assert len(transport.batches) == 9


class Picky(FakeTransport):
    """Refuses each request that holds one of the bad messages."""

    def __init__(self, bad: set[str]) -> None:
        super().__init__()
        self.bad = bad

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Take the batch or refuse it as a whole."""
        if self.bad & {message_id for part in batch.parts for message_id in part.messages["message_id"]}:
            self.attempts += 1
            raise RefusedError("segment answered 400")
        return super().send(batch)


def test_a_bad_message_costs_itself(time: FakeTime, stop: FakeStop) -> None:
    """A refused batch is halved until the bad message stands alone; it is returned with Segment's answer."""
    transport = Picky({"1-70"})

    with make_sender(transport, time, stop) as sender:
        refusals = sender.submit(make_batch(100)).result(timeout=10)

    assert refusals == [Refusal(1, 70, "1-70", "segment answered 400")]
    assert {message["messageId"] for message in transport.messages} == {f"1-{n}" for n in range(100)} - {"1-70"}


def test_a_key_that_goes_bad_under_way_sets_nothing_aside(time: FakeTime, stop: FakeStop) -> None:
    """Where even a message that was taken before is refused, all batches fail as for a bad credential."""
    transport = Picky(set())

    with make_sender(transport, time, stop) as sender:
        sender.submit(make_batch(10, 1)).result(timeout=10)
        transport.bad = {f"{n}-{row}" for n in (1, 2) for row in range(1000)}
        first = error_of(sender.submit(make_batch(1000, 2)))
        attempts = transport.attempts
        second = error_of(sender.submit(make_batch(1, 3)))

    assert isinstance(first, CredentialError)
    assert first.side is Side.DESTINATION
    assert isinstance(second, CredentialError)
    assert transport.attempts == attempts


def test_what_the_destination_has_shown_outlasts_a_sender(time: FakeTime, stop: FakeStop) -> None:
    """With a shared proof, the first batch of a new sender is judged by what an earlier one saw acknowledged."""
    proof = Proof()
    with make_sender(FakeTransport(), time, stop, proof=proof) as sender:
        sender.submit(make_batch(object_id=1)).result(timeout=10)

    with make_sender(Picky({"2-0"}), time, stop, proof=proof) as sender:
        assert [refusal.message_id for refusal in sender.submit(make_batch(object_id=2)).result(timeout=10)] == ["2-0"]


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
    outcomes: list[BridgeError | list[Refusal]] = [RetryLaterError("503"), [], DENIED, DENIED]

    with make_sender(FakeTransport(outcomes), time, stop) as sender:
        sender.submit(batch).result(timeout=10)
        error_of(sender.submit(batch))

    assert sender.counts == SendCounts(requests=4, batches=1, bytes=batch.size_bytes)


def test_close_waits_for_what_is_under_way(time: FakeTime, stop: FakeStop) -> None:
    """After close every submitted batch has its outcome."""
    sender = make_sender(FakeTransport(), time, stop, max_in_flight=4)
    futures = [sender.submit(make_batch()) for _ in range(4)]

    sender.close()
    sender.close()

    assert all(future.done() for future in futures)
