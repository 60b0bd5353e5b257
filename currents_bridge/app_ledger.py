"""The part of the composition root that opens the ledger alone, for commands that are quick without the rest."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from currents_bridge.adapters.ledger import SqlLedger
from currents_bridge.config import Settings


def utc_now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)


@contextmanager
def open_ledger(settings: Settings, now: Callable[[], datetime] = utc_now) -> Iterator[SqlLedger]:
    """Open the ledger alone; raises LedgerError."""
    ledger = SqlLedger(settings.ledger.url, now=now())
    try:
        yield ledger
    finally:
        ledger.close()
