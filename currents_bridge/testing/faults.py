"""A seeded schedule of faults for the collector: what a network and a Segment on a bad day do to requests."""

import threading
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import replace
from enum import StrEnum
from random import Random

import orjson

from currents_bridge.testing.collector import Answer, Message, RequestInfo


class Fault(StrEnum):
    """What may become of a request."""

    RATE_LIMITED = "rate_limited"  # 429 with Retry-After or X-RateLimit-Reset
    SERVER_ERROR = "server_error"  # 500, 502, 503, 504
    TIMED_OUT = "timed_out"  # 408
    SLOW = "slow"  # taken, and answered late
    RESET_BEFORE = "reset_before"  # the connection is cut, nothing was taken
    RESET_AFTER = "reset_after"  # taken, but the acknowledgement is lost on the way back
    DROPPED = "dropped"  # 200, and the events are gone: no sender can see it


_BAD_REQUEST = Answer(400, body="Bad Request")
PASSING = tuple(fault for fault in Fault if fault is not Fault.DROPPED)  # what a sender can get over


class FaultSchedule:
    """A script for `Collector.answer_with`. Thread-safe.

    What becomes of a request depends on the seed and the request's number only.

    Args:
        seed: of the schedule.
        share: of the requests that meet a fault, from 0 to 1.
        kinds: the faults to choose from, all equally often.
        refuse: which messages are bad; a request that holds one gets 400, also in calm weather.
        longest_wait_s: the longest wait that a 429 names.
        longest_delay_s: of a slow answer.

    Attributes:
        counts: how many requests met each fault so far.
    """

    def __init__(  # noqa: PLR0913 - a schedule is its settings
        self,
        seed: int,
        *,
        share: float = 0.3,
        kinds: Collection[Fault] = PASSING,
        refuse: Callable[[Message], bool] | None = None,
        longest_wait_s: float = 1.0,
        longest_delay_s: float = 0.5,
    ) -> None:
        self.counts: Counter[Fault] = Counter()
        self._lock = threading.Lock()
        self._seed = seed
        self._share = share
        self._kinds = sorted(kinds)
        self._refuse = refuse
        self._longest_wait_s = longest_wait_s
        self._longest_delay_s = longest_delay_s

    def calm(self) -> None:
        """End all faults, for good; bad messages stay bad."""
        self._share = 0.0

    def __call__(self, request: RequestInfo) -> Answer | None:
        """Return the answer to a request; None: as usual."""
        dice = Random(f"{self._seed}/{request.number}")
        if dice.random() < self._share:
            fault = dice.choice(self._kinds)
            with self._lock:
                self.counts[fault] += 1
            return self._answer(fault, dice, request.body)
        return _BAD_REQUEST if self._is_refused(request.body) else None

    def _is_refused(self, body: bytes) -> bool:
        return self._refuse is not None and any(map(self._refuse, orjson.loads(body)["batch"]))

    def _answer(self, fault: Fault, dice: Random, body: bytes) -> Answer:
        taken = _BAD_REQUEST if self._is_refused(body) else Answer()
        header = dice.choice(["Retry-After", "X-RateLimit-Reset"])
        answers = {
            Fault.RATE_LIMITED: Answer(429, {header: f"{dice.uniform(0, self._longest_wait_s):.3f}"}),
            Fault.SERVER_ERROR: Answer(dice.choice([500, 502, 503, 504])),
            Fault.TIMED_OUT: Answer(408),
            Fault.SLOW: replace(taken, delay_s=dice.uniform(0, self._longest_delay_s)),
            Fault.RESET_BEFORE: Answer(reset="before"),
            Fault.RESET_AFTER: replace(taken, reset="after"),
            Fault.DROPPED: replace(taken, drop=True),
        }
        return answers[fault]
