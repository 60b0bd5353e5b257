"""How batches leave: the body of a request, and the sender that repeats, paces and halves."""

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import orjson
import polars as pl
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from currents_bridge.errors import CredentialError, RetryLaterError, Side
from currents_bridge.model import Batch, Refusal
from currents_bridge.ports import Transport
from currents_bridge.sending import bisect
from currents_bridge.sending.bisect import Proof
from currents_bridge.sending.concurrency import AdaptiveLimit
from currents_bridge.sending.rate_limit import Pace

__all__ = ["ENVELOPE_BYTES", "Pace", "Proof", "Retries", "SendCounts", "Sender", "request_body"]


def request_body(messages: Sequence[pl.Series], sent_at: datetime) -> bytes:
    """Return the JSON body of one request: ENVELOPE_BYTES, the messages, and the commas between them.

    Args:
        messages: at least one series of JSON objects (str), in order.
        sent_at: aware time of this attempt; Segment corrects every event's timestamp by it.
    """
    return _wrap(b",".join([message for some in messages for message in some.cast(pl.Binary).to_list()]), sent_at)


def _wrap(joined: bytes, sent_at: datetime) -> bytes:
    stamp = sent_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    return b'{"batch":[%b],"sentAt":"%bZ"}' % (joined, stamp.encode())


ENVELOPE_BYTES = len(_wrap(b"", datetime.now(UTC)))  # of a request body around its messages and their commas


def key_in_body(write_key: str) -> bytes:
    """Return what takes the place of a body's last brace, where the key does not stand in a header."""
    return b',"writeKey":%b}' % orjson.dumps(write_key)


@dataclass(frozen=True, slots=True)
class Retries:
    """How often a batch is tried, with exponential backoff and full jitter between the attempts."""

    max_attempts: int = 6
    first_wait_s: float = 1.0  # doubles with each attempt; the actual wait is anything between 0 and that
    longest_wait_s: float = 60.0


@dataclass(frozen=True, slots=True)
class SendCounts:
    """What a sender did so far."""

    requests: int = 0  # attempts, whatever became of them
    batches: int = 0  # acknowledged requests, also with parts of a batch
    bytes: int = 0  # of their bodies, before compression


class Sender:
    """Sends batches of one connector: several at once, paced, each repeated while that can help. Thread-safe.

    Each attempt holds one of the places of an AdaptiveLimit; the wait for the next attempt holds none.

    RetryLaterError is retried; a wait that Segment asked for becomes a pause of the whole destination, all else waits
    by `retries`. A refused batch is sent in ever smaller parts, see `refusals.deliver`. After a CredentialError every
    further batch fails with the same error, without a request.
    When `stop` is set, batches that wait for a repetition or in a pause give up with RetryLaterError; all others are
    still sent, so that what was begun can be settled.

    The transport stays the caller's to close.

    Args:
        transport: the way to the destination.
        max_in_flight: so many batches are held at once, and at most so many requests are under way.
        pace: of the destination.
        stop: set when the program stops.
        proof: what the destination has shown before; None: nothing.
        on_acknowledged: called in threads after each acknowledged request.
        retries: how often a batch is tried.
        jitter: draws a number between two.
    """

    def __init__(  # noqa: PLR0913 - the settings each have their own reason
        self,
        transport: Transport,
        *,
        max_in_flight: int,
        pace: Pace,
        stop: threading.Event,
        proof: Proof | None = None,
        on_acknowledged: Callable[[], object] = lambda: None,
        retries: Retries = Retries(),
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._transport = transport
        self._max_in_flight = max_in_flight
        self._pace = pace
        self._stop = stop
        self._proof = proof or Proof()
        self._on_acknowledged = on_acknowledged
        self._retries = retries
        self._jitter = jitter
        self._pool = ThreadPoolExecutor(max_in_flight, thread_name_prefix="send")
        self._held = threading.BoundedSemaphore(max_in_flight)
        self._limit = AdaptiveLimit(max_in_flight, pace.clock)
        self._lock = threading.Lock()
        self._requests = self._batches = self._bytes = 0
        self._denied: tuple[Side, str, str] | None = None
        self._retrying = Retrying(
            retry=retry_if_exception_type(RetryLaterError),
            stop=stop_after_attempt(retries.max_attempts),
            wait=self._backoff_s,
            sleep=self._wait_for_repetition,
            reraise=True,
        )

    def submit(self, batch: Batch) -> Future[Sequence[Refusal]]:
        """Send the batch in the background, once fewer than `max_in_flight` are held; blocks until then.

        The future holds the messages that were refused for what they are, or raises RetryLaterError or
        CredentialError; then none of the batch counts as acknowledged or refused.
        """
        self._held.acquire()
        try:
            return self._pool.submit(self._send, batch)
        except BaseException:
            self._held.release()
            raise

    @property
    def max_in_flight(self) -> int:
        """How many batches may be under way at once."""
        return self._max_in_flight

    @property
    def counts(self) -> SendCounts:
        """What was done so far."""
        with self._lock:
            return SendCounts(self._requests, self._batches, self._bytes)

    def close(self) -> None:
        """Return once every submitted batch was acknowledged or given up; idempotent."""
        self._pool.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, batch: Batch) -> Sequence[Refusal]:
        try:
            return bisect.deliver(batch, self._repeat, self._proof)
        except CredentialError as error:
            self._denied = (error.side, error.message, error.hint)
            raise
        finally:
            self._held.release()

    def _repeat(self, batch: Batch) -> Sequence[Refusal]:
        return self._retrying(self._attempt, batch)

    def _attempt(self, batch: Batch) -> Sequence[Refusal]:
        self._raise_if_denied()
        with self._limit.place():
            self._pace.wait(batch.events)
            self._raise_if_denied()
            with self._lock:
                self._requests += 1
            refused = self._request(batch)
        with self._lock:
            self._batches += 1
            self._bytes += batch.size_bytes
        self._on_acknowledged()
        return refused

    def _request(self, batch: Batch) -> Sequence[Refusal]:
        try:
            with self._limit.request():
                return self._transport.send(batch)
        except RetryLaterError as error:
            if error.wait_s:
                self._pace.hold_until(self._pace.clock() + error.wait_s)
            raise

    def _raise_if_denied(self) -> None:
        if self._denied:  # a new error each time: a kept one would gather the frames, and the batches, of all threads
            raise CredentialError(*self._denied)

    def _backoff_s(self, state: RetryCallState) -> float:
        error = state.outcome.exception() if state.outcome else None
        if isinstance(error, RetryLaterError) and error.wait_s:
            return 0.0  # the pause of the whole destination is this batch's wait, too
        longest_s = self._retries.first_wait_s * 2 ** (state.attempt_number - 1)
        return self._jitter(0.0, min(longest_s, self._retries.longest_wait_s))

    def _wait_for_repetition(self, wait_s: float) -> None:
        if self._stop.wait(wait_s):
            raise RetryLaterError("stopped before the batch could be sent again")
