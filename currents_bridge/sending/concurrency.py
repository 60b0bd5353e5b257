"""How many requests are best in flight at once, found by watching the destination.

The rule is that of Vector's adaptive request concurrency, https://vector.dev/blog/adaptive-request-concurrency/, with
three additions. As TCP does, it doubles with each round trip until the destination shows load for the first time: one
step a round trip would take seconds to reach a healthy destination's 16. It remembers the round trip of an idle
destination: the moving average alone follows a latency that grows with each step, up to the limit. And it takes no
round trip of a few milliseconds for load: what varies there is our own threads' waiting for each other.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf, sqrt

from currents_bridge.errors import RetryLaterError

SMOOTHING = 0.4  # weight of the latest window in the moving average
DEVIATIONS = 2.5  # a window so far above the average shows load
LOADED = 2.5  # so does a window so many times the idle destination's round trip
NEGLIGIBLE_S = 0.025  # a round trip over the internet takes longer
DECREASE = 0.9


class LimitRule:
    """The rule alone: takes what became of each request, says how many may be in flight. Not thread-safe.

    Once per mean round trip: one more if the limit was reached and round trips are not above their average; a tenth
    less if they show load, or the destination said that it is overloaded. In the beginning: one more per answer.
    """

    def __init__(self, max_limit: int) -> None:
        self.limit = 1
        self._max_limit = max_limit
        self._doubling = True
        self._average_s: float | None = None  # of the windows' means, once there is one
        self._variance = 0.0
        self._idle_s = inf
        self._window_ends_s = -inf
        self._sum_s, self._count = 0.0, 0
        self._reached = self._overloaded = False

    def began(self, in_flight: int) -> None:
        """Take in that a request began, with so many in flight, itself included."""
        self._reached = self._reached or in_flight >= self.limit

    def answered(self, now_s: float, round_trip_s: float) -> None:
        """Take in a request that was acknowledged."""
        self._sum_s += round_trip_s
        self._count += 1
        if self._doubling and self._reached:
            self.limit = min(self._max_limit, self.limit + 1)
        self._end_window(now_s)

    def overloaded(self, now_s: float) -> None:
        """Take in a request that the destination was too busy for, or that it did not answer."""
        self._overloaded = True
        self._end_window(now_s)

    def _end_window(self, now_s: float) -> None:
        if now_s < self._window_ends_s:
            return
        mean_s = self._sum_s / self._count if self._count else None
        if self._overloaded or (mean_s is not None and self._shows_load(mean_s)):
            self.limit = max(1, int(self.limit * DECREASE))
            self._doubling = False
        elif self._reached and not self._doubling and mean_s is not None and mean_s <= (self._average_s or 0.0):
            self.limit = min(self._max_limit, self.limit + 1)
        if mean_s is not None:
            self._learn(mean_s)
        self._window_ends_s = now_s + (self._average_s or 0.0)
        self._sum_s, self._count = 0.0, 0
        self._reached = self._overloaded = False

    def _shows_load(self, mean_s: float) -> bool:
        if mean_s < NEGLIGIBLE_S:
            return False
        if self._doubling or not self._variance:
            return mean_s > LOADED * self._idle_s
        usual_s = (self._average_s or 0.0) + DEVIATIONS * sqrt(self._variance)
        return mean_s >= min(usual_s, LOADED * self._idle_s)

    def _learn(self, mean_s: float) -> None:
        if self._average_s is None:
            self._average_s = mean_s
        else:
            difference_s = mean_s - self._average_s
            self._average_s += SMOOTHING * difference_s
            self._variance = (1 - SMOOTHING) * (self._variance + SMOOTHING * difference_s**2)
        if self.limit == 1:  # alone, a request sees the destination as it is without our load
            self._idle_s = self._average_s
        self._idle_s = min(self._idle_s, self._average_s)


class AdaptiveLimit:
    """A semaphore whose size, from 1 to `max_limit`, follows what the destination can take. Thread-safe.

    Args:
        max_limit: never more in flight than this.
        clock: monotonic seconds.
    """

    def __init__(self, max_limit: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._rule = LimitRule(max_limit)
        self._clock = clock
        self._changed = threading.Condition()
        self._taken = self._in_flight = 0

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        return self._rule.limit

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold one of the places; blocks until one is free."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken < self._rule.limit)
            self._taken += 1
        try:
            yield
        finally:
            with self._changed:
                self._taken -= 1
                self._changed.notify(max(0, self._rule.limit - self._taken))  # the limit may have grown, or shrunk

    @contextmanager
    def request(self) -> Iterator[None]:
        """Watch one request, made in a place: RetryLaterError means overload, other errors mean nothing."""
        with self._changed:
            self._in_flight += 1
            self._rule.began(self._in_flight)
            began_s = self._clock()
        try:
            yield
        except RetryLaterError:
            with self._changed:
                self._rule.overloaded(self._clock())
            raise
        else:
            with self._changed:
                self._rule.answered(self._clock(), self._clock() - began_s)
        finally:
            with self._changed:
                self._in_flight -= 1
