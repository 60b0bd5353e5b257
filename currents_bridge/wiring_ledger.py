"""The part of the composition root that opens the ledger alone, for commands that are quick without the rest."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from currents_bridge.config import Settings
from currents_bridge.ledger import backup
from currents_bridge.ledger.database import is_missing, ledger_path
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.logs import get_logger

# What to do where there is no ledger yet: in the wrong folder a new one looks as if all were well. "scratch" is for
# commands that can do without: what they write is thrown away.
Missing = Literal["make", "refuse", "scratch"]

log = get_logger()


def utc_now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)


@contextmanager
def open_ledger(
    settings: Settings, now: Callable[[], datetime] = utc_now, *, missing: Missing = "refuse"
) -> Iterator[SqlLedger]:
    """Open the ledger alone; raises LedgerError."""
    path = ledger_path(settings.ledger.url)
    is_new = missing != "refuse" and is_missing(path)
    with ExitStack() as stack:
        url = settings.ledger.url
        if is_new and missing == "scratch":
            url = f"sqlite:///{stack.enter_context(TemporaryDirectory(prefix='currents-bridge-'))}/ledger.sqlite3"
        ledger = SqlLedger(url, now=now(), make=missing == "make" or is_new)
        stack.callback(ledger.close)
        if is_new and missing == "make":
            log.info("ledger_made", path=str(path))
        yield ledger


def back_up(settings: Settings, target: Path) -> int:
    """Copy the ledger to a new file; returns its size in bytes. Raises UsageError, LedgerError."""
    return backup.back_up(settings.ledger.url, target)
