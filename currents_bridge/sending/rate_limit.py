"""The pace of one destination: how fast requests may go, and until when none may."""

import threading
import time
from collections.abc import Callable

from currents_bridge.errors import RetryLaterError

DRAIN_S = 2.0  # after a stop, of which Ctrl-C leaves 5


class Pace:
    """Spaces the requests to one destination and keeps its pauses. Thread-safe.

    When the program stops, a pause ends, and no slot is waited for that lies more than DRAIN_S after the stop: what
    comes earlier is still sent at the agreed rate, so that what was begun can be settled.

    Every request takes the next free slot; a slot is as long as the request's events or the request itself need at
    the given rates, so that no span of time sees more than its share. None means no limit.

    Args:
        requests_per_second: at most so many requests.
        events_per_second: at most so many events.
        stop: set when the program stops.
        clock: monotonic seconds.
        sleep: waits so many seconds, once the program stops.
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
        self._drained_s: float | None = None  # when the stop ends all waits

    def wait(self, events: int) -> None:
        """Return when a request with so many events may go; raises RetryLaterError if the stop comes first."""
        while True:
            while (pause_s := self._held_until_s - self.clock()) > 0:
                if self._stop.wait(pause_s):
                    raise RetryLaterError("stopped while Segment asks for a pause", wait_s=pause_s)
            slot_s = self._reserve(events)
            if (delay_s := slot_s - self.clock()) > 0 and self._stop.wait(delay_s):
                self._drain(slot_s)
            if slot_s >= self._held_until_s:  # else a pause began in the meantime, and the slot is void
                return

    def hold_until(self, instant_s: float) -> None:
        """Let no request go before the instant (on `clock`); an earlier one than already known changes nothing."""
        with self._lock:
            self._held_until_s = max(self._held_until_s, instant_s)

    def _drain(self, slot_s: float) -> None:
        now_s = self.clock()
        with self._lock:
            self._drained_s = now_s + DRAIN_S if self._drained_s is None else self._drained_s
        if slot_s > self._drained_s:
            raise RetryLaterError("stopped before its turn came")
        self._sleep(max(0.0, slot_s - now_s))

    def _reserve(self, events: int) -> float:
        with self._lock:
            slot_s = max(self.clock(), self._next_s)
            self._next_s = slot_s + max(self._request_s, events * self._event_s)
            return slot_s
