"""Connectors that are opened each by itself, so that a secret of one that cannot be read leaves the others alone."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime

from currents_bridge.connector import Connector
from currents_bridge.errors import ConfigError
from currents_bridge.logs import get_logger
from currents_bridge.ports import Ledger

OPEN = "open"  # the job of it
Open = Callable[[], Connector]  # raises ConfigError, LedgerError

log = get_logger()


@dataclass(frozen=True, slots=True)
class Unopened:
    """A connector that could not be opened."""

    open: Open  # another try
    error: ConfigError


def open_each(connectors: Mapping[str, Open]) -> tuple[list[Connector], dict[str, Unopened]]:
    """Open connectors by their names; returns those that could be, and the others.

    Raises ConfigError with the problems of all where none could be: then nothing is left to do.
    """
    opened: list[Connector] = []
    unopened: dict[str, Unopened] = {}
    for name, open_one in connectors.items():
        try:
            opened.append(open_one())
        except ConfigError as error:
            unopened[name] = Unopened(open_one, error)
    if unopened and not opened:
        errors = [one.error for one in unopened.values()]
        raise ConfigError([problem for error in errors for problem in error.problems], errors[0].hint)
    for name, one in unopened.items():
        log.error("connector_not_opened", connector=name, error=one.error.message)
    return opened, unopened


def keep_outcome(ledger: Ledger, names: Collection[str], error: str | None, now: datetime) -> None:
    """Record whether connectors could be opened at the start, as a job's runs are; raises LedgerError.

    Nothing is written for those that could be, now and the last time.
    """
    failing = {job.connector for job in ledger.failing_jobs() if job.job == OPEN}
    for name in names:
        if error is not None or name in failing:
            ledger.job_ended(name, OPEN, error, now)
