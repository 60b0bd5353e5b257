"""How the runs of each connector's jobs end: what fails twice in a row is told, whatever it is."""

from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

from currents_bridge.delivery.workers import TransferReport
from currents_bridge.errors import CredentialError, LedgerError, LedgerLostError, StoppedError
from currents_bridge.logs import get_logger
from currents_bridge.mistakes import MISTAKES, described
from currents_bridge.ports import Ledger

T = TypeVar("T")
log = get_logger()


class JobRecords:
    """Runs jobs and records how that ends, for every process to see. Thread-safe.

    Args:
        ledger: keeps the records.
        now: the time, aware.
    """

    def __init__(self, ledger: Ledger, now: Callable[[], datetime]) -> None:
        self._ledger = ledger
        self._now = now

    def run(self, connector: str, job: str, work: Callable[[], T]) -> T:
        """Run a job and return its result; an error is recorded and raised.

        A report fails by its error, unless that is of a credential: such has alerts of its own. Raises LedgerLostError
        also where a report holds it, since no job can do anything after that.
        """
        try:
            result = work()
        except StoppedError:
            raise
        except MISTAKES as error:
            self._ended(connector, job, described(error))
            raise
        failure = result.error if isinstance(result, TransferReport) else None
        if isinstance(failure, LedgerLostError):
            raise failure
        if isinstance(failure, StoppedError):
            return result  # neither well nor wrong
        if failure is None or isinstance(failure, CredentialError):
            self._ended(connector, job, None)
        else:
            self._ended(connector, job, failure.message)
        return result

    def _ended(self, connector: str, job: str, error: str | None) -> None:
        try:
            self._ledger.job_ended(connector, job, error, self._now())
        except LedgerError as failure:
            log.warning("job_not_recorded", connector=connector, job=job, error=failure.message)
