"""How long something that is asked of others may take in all, whatever they do: also if they send a byte now and then.

`with within(30.0):` around a request bounds all of it: connecting, sending and the last byte of the answer. What is
asked by way of urllib3 keeps to it (see `wire`); for others, hand `left_s` to them.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from currents_bridge.errors import RetryLaterError

_end_s: ContextVar[float] = ContextVar("end_s", default=math.inf)
_last_end_s = math.inf  # of everything in this process


class TooLateError(RetryLaterError):
    """There was no whole answer by the deadline."""

    def __init__(self) -> None:
        super().__init__("there was no whole answer in time")


@contextmanager
def within(seconds: float) -> Iterator[None]:
    """Have everything that is asked inside end in so many seconds, by a TooLateError; the shorter of two counts."""
    token = _end_s.set(min(_end_s.get(), time.monotonic() + seconds))
    try:
        yield
    finally:
        _end_s.reset(token)


def hasten(seconds: float) -> None:
    """Have everything that this process asks of others, now and later, end in so many seconds: it is to stop.

    `math.inf` takes that back.
    """
    global _last_end_s  # noqa: PLW0603 - a process stops once, as a whole
    _last_end_s = time.monotonic() + seconds


def left_s(most: float) -> float:
    """Return the seconds that are left, or `most` where that is less; raises TooLateError where there are none."""
    left = min(_end_s.get(), _last_end_s) - time.monotonic()
    if left <= 0:
        raise TooLateError
    return min(left, most)
