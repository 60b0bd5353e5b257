"""Who may be at work while a suspect is on trial: nobody, so that an end of the process can be held against it."""

import faulthandler
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LONGEST_PART_S = 600.0  # of a trial; the bounds of a file allow for a fraction of a second


class Court:
    """Many may read objects at once, or one suspect may be tried with nobody beside it. Thread-safe.

    A suspect keeps its turn until it was read, not only tried: large files that were too much together, as in a tight
    container, are so delivered one after the other.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._changed = threading.Condition()
        self._readers = 0
        self._trial = False  # under way, or waiting for the readers to end

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Wait until no other suspect is tried or read; hold it around `trial` and `reading`."""
        with self._turn:
            yield

    @contextmanager
    def trial(self) -> Iterator[Callable[[], None]]:
        """Wait until nobody reads, and let nobody begin meanwhile; within a `turn`.

        Yields what is to be called before each part of the trial: one that takes longer than LONGEST_PART_S hangs, and
        ends the process, since nothing else could stop it.
        """
        with self._changed:
            self._trial = True
            self._changed.wait_for(lambda: not self._readers)
        try:
            yield _watch
        finally:
            faulthandler.cancel_dump_traceback_later()
            with self._changed:
                self._trial = False
                self._changed.notify_all()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Wait until nobody is on trial, or is about to be. Not to be nested."""
        with self._changed:
            self._changed.wait_for(lambda: not self._trial)
            self._readers += 1
        try:
            yield
        finally:
            with self._changed:
                self._readers -= 1
                self._changed.notify_all()


def _watch() -> None:
    """Give the process so long until the next call; needs no interpreter lock, which a decoder may hold."""
    faulthandler.dump_traceback_later(LONGEST_PART_S, exit=True, file=sys.__stderr__ or 2)


COURT = Court()  # of all connectors: what a trial may end is the process
