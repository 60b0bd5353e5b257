"""How batches leave: the body of a request, the pace, and the sender that repeats what may pass later."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Self

import polars as pl
from tenacity import RetryCallState, Retrying, retry_if_exception_type, stop_after_attempt

from currents_bridge.errors import CredentialError, RetryLaterError, Side
from currents_bridge.model import Batch, Refusal
from currents_bridge.ports import Transport


def request_body(messages: Sequence[pl.Series], sent_at: datetime) -> bytes:
    """Return the JSON body of one request: ENVELOPE_BYTES, the messages, and the commas between them.

    Args:
        messages: at least one series of JSON objects (str), in order.
        sent_at: aware time of this attempt; Segment corrects every event's timestamp by it.
    """
    joined = pl.concat(messages).str.join(",", ignore_nulls=False).cast(pl.Binary).item()
    return _wrap(joined, sent_at)


def _wrap(joined: bytes, sent_at: datetime) -> bytes:
    stamp = sent_at.astimezone(UTC).replace(tzinfo=None).isoformat(timespec="milliseconds")
    return b'{"batch":[%b],"sentAt":"%bZ"}' % (joined, stamp.encode())


ENVELOPE_BYTES = len(_wrap(b"", datetime.now(UTC)))  # of a request body around its messages and their commas


class Pace:
    """Spaces the requests to one destination and keeps its pauses. Thread-safe.

    Every request takes the next free slot; a slot is as long as the request's events or the request itself need at
    the given rates, so that no span of time sees more than its share. None means no limit.

    Args:
        requests_per_second: at most so many requests.
        events_per_second: at most so many events.
        stop: set when the program stops; ends a pause, but not the short wait for a slot.
        clock: monotonic seconds.
        sleep: waits so many seconds.
    """

    def __init__(
        self,
        requests_per_second: float | None,
        events_per_second: float | None,
        *,
        stop: threading.Event,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._request_s = 1 / requests_per_second if requests_per_second else 0.0
        self._event_s = 1 / events_per_second if events_per_second else 0.0
        self._stop = stop
        self.clock = clock
        self._sleep = sleep
        self._lock = threading.Lock()
        self._next_s = clock()
        self._held_until_s = clock()

    def wait(self, events: int) -> None:
        """Return when a request with so many events may go; raises RetryLaterError if stopped in a pause."""
        while True:
            while (pause_s := self._held_until_s - self.clock()) > 0:
                if self._stop.wait(pause_s):
                    raise RetryLaterError("stopped while Segment asks for a pause", wait_s=pause_s)
            slot_s = self._reserve(events)
            if (delay_s := slot_s - self.clock()) > 0:
                self._sleep(delay_s)
            if slot_s >= self._held_until_s:  # else a pause began in the meantime, and the slot is void
                return

    def hold_until(self, instant_s: float) -> None:
        """Let no request go before the instant (on `clock`); an earlier one than already known changes nothing."""
        with self._lock:
            self._held_until_s = max(self._held_until_s, instant_s)

    def _reserve(self, events: int) -> float:
        with self._lock:
            slot_s = max(self.clock(), self._next_s)
            self._next_s = slot_s + max(self._request_s, events * self._event_s)
            return slot_s


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
    batches: int = 0  # acknowledged ones
    bytes: int = 0  # of their bodies, before compression


class Sender:
    """Sends batches of one connector: several at once, paced, each repeated while that can help. Thread-safe.

    RetryLaterError is retried; a wait that Segment asked for becomes a pause of the whole destination, all else waits
    by `retries`. After a CredentialError every further batch fails with the same error, without a request.
    When `stop` is set, batches that wait for a repetition or in a pause give up with RetryLaterError; all others are
    still sent, so that what was begun can be settled.

    The transport stays the caller's to close.
    """

    def __init__(  # noqa: PLR0913 - the settings each have their own reason
        self,
        transport: Transport,
        *,
        max_in_flight: int,
        pace: Pace,
        stop: threading.Event,
        retries: Retries = Retries(),
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self._transport = transport
        self._pace = pace
        self._stop = stop
        self._retries = retries
        self._jitter = jitter
        self._pool = ThreadPoolExecutor(max_in_flight, thread_name_prefix="send")
        self._places = threading.BoundedSemaphore(max_in_flight)
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
        """Send the batch in the background, once fewer than `max_in_flight` are under way; blocks until then.

        The future holds the refused messages, or raises RetryLaterError, RefusedError or CredentialError as
        Transport.send does; then none of the batch counts as acknowledged.
        """
        self._places.acquire()
        try:
            return self._pool.submit(self._send, batch)
        except BaseException:
            self._places.release()
            raise

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
            return self._retrying(self._attempt, batch)
        finally:
            self._places.release()

    def _attempt(self, batch: Batch) -> Sequence[Refusal]:
        self._raise_if_denied()
        self._pace.wait(batch.events)
        self._raise_if_denied()
        with self._lock:
            self._requests += 1
        try:
            refusals = self._transport.send(batch)
        except CredentialError as error:
            self._denied = (error.side, error.message, error.hint)
            raise
        except RetryLaterError as error:
            if error.wait_s:
                self._pace.hold_until(self._pace.clock() + error.wait_s)
            raise
        with self._lock:
            self._batches += 1
            self._bytes += batch.size_bytes
        return refusals

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
