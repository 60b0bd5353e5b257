"""The part of the composition root that opens the ledger alone, for commands that are quick without the rest."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime

from currents_bridge.adapters.ledger import SqlLedger
from currents_bridge.config import Settings
from currents_bridge.ports import Ledger


def utc_now() -> datetime:
    """Return the time, aware."""
    return datetime.now(UTC)


@contextmanager
def open_ledger(settings: Settings) -> Iterator[Ledger]:
    """Open the ledger alone; raises LedgerError."""
    ledger = SqlLedger(settings.ledger.url, now=utc_now())
    try:
        yield ledger
    finally:
        ledger.close()
