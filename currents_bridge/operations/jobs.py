"""How the runs of each connector's jobs end: what fails twice in a row, or does not end, is told, whatever it is."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import TypeVar

from currents_bridge.delivery.workers import TransferReport
from currents_bridge.due import lately
from currents_bridge.errors import CredentialError, LedgerError, LedgerLostError, StoppedError
from currents_bridge.logs import get_logger
from currents_bridge.mistakes import MISTAKES, described
from currents_bridge.model import HANGS, FailingJob
from currents_bridge.phrases import when
from currents_bridge.ports import Ledger

LIFE = timedelta(hours=1)  # without a sign of it, at least, a job hangs
PATIENCE = {"audit": timedelta(days=1)}  # of jobs that may be silent for longer

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
        self._running: dict[tuple[str, str], datetime] = {}  # connector and job -> when this run of it began
        self._hangs: set[tuple[str, str]] = set()  # of these, what is recorded as hanging

    def run(self, connector: str, job: str, work: Callable[[], T]) -> T:
        """Run a job and return its result; an error is recorded and raised.

        A report fails by its error, unless that is of a credential: such has alerts of its own. Raises LedgerLostError
        also where a report holds it, since no job can do anything after that.
        """
        this = connector, job
        self._running[this] = self._now()
        try:
            result = work()
        except StoppedError:
            raise
        except MISTAKES as error:
            self._ended(connector, job, described(error))
            raise
        finally:
            self._running.pop(this, None)
            self._hangs.discard(this)
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

    def hanging(self, active_at: Mapping[str, datetime | None], span: timedelta) -> list[FailingJob]:
        """Return the jobs of this process that have begun, have not ended, and show no sign of life; records them.

        Args:
            active_at: the latest sign of life of each connector; one that it lacks is not judged.
            span: how long a job may show none.
        """
        found = []
        for (connector, job), began_at in list(self._running.items()):
            since = max(began_at, active_at.get(connector) or began_at)
            if connector not in active_at or lately(since, self._now(), max(span, PATIENCE.get(job, span))):
                continue
            error = f"it began on {when(began_at)}, has not ended, and nothing has moved since {when(since)}"
            if (connector, job) not in self._hangs:
                self._hangs.add((connector, job))
                self._ended(connector, job, error)
            found.append(FailingJob(connector, job, HANGS, since, error))
        return found

    def _ended(self, connector: str, job: str, error: str | None) -> None:
        try:
            self._ledger.job_ended(connector, job, error, self._now())
        except LedgerError as failure:
            log.warning("job_not_recorded", connector=connector, job=job, error=failure.message)
