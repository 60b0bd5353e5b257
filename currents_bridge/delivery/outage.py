"""Outages: a side of which nothing comes through costs no object an attempt, and at its end all that waited is due."""

from collections.abc import Callable, Collection, Sequence

from currents_bridge.errors import RetryLaterError, Side
from currents_bridge.logs import get_logger
from currents_bridge.model import Failed, Selection
from currents_bridge.ports import Ledger

_NOTHING = {Side.SOURCE: "S3 gives out nothing now", Side.DESTINATION: "Segment takes nothing now"}

Works = Callable[[Side, Collection[int]], bool]  # whether a side takes or gives out anything, but for some objects
log = get_logger()


class Outages:
    """Which sides of one connector are unreachable, as far as this process knows. Used by one thread at a time.

    A failure does not show whether it is the object's or the side's. So something else is tried after it: where that
    works it was the object, else what failed does not count, and from then on something is tried before all else.

    Args:
        connector: its name.
        ledger: knows its objects.
    """

    def __init__(self, connector: str, ledger: Ledger) -> None:
        self._connector = connector
        self._ledger = ledger
        self._answers: dict[Side, str] = {}  # of the sides that are unreachable

    @property
    def error(self) -> RetryLaterError | None:
        """What to tell of a side that is unreachable, if there is one."""
        for side, answer in self._answers.items():
            return RetryLaterError(f"{_NOTHING[side]}: {answer}", "nothing is lost: each poll tries again")
        return None

    def are_over(self, selection: Selection, works: Works) -> bool:
        """Return whether all sides can be reached; makes what waited due, once that is so. Raises LedgerError."""
        if not self._answers:
            return True
        for side in list(self._answers):
            if not works(side, ()):
                return False
            del self._answers[side]
            log.info("reachable_again", connector=self._connector, side=side)
        self._ledger.hasten(self._connector, selection)
        return True

    def explain(self, failures: Sequence[Failed], works: Works) -> bool:
        """Return whether an outage explains failures that name a side; then they do not count. Raises LedgerError."""
        for side in sorted({failure.side for failure in failures if failure.side}):
            ids = [failure.id for failure in failures if failure.side is side]
            if not works(side, ids):
                self._answers[side] = next(failure.reason for failure in failures if failure.side is side)
                self._ledger.spare(ids)
                log.warning("unreachable", connector=self._connector, side=side, reason=self._answers[side])
        return bool(self._answers)
