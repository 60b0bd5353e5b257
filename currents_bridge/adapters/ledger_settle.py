"""What a settlement writes: the object's row, the sums of its hour, its dead letters, what was sent."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, update
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.adapters import ledger_letters, ledger_memory
from currents_bridge.adapters.ledger_schema import BOOKS, hours, objects
from currents_bridge.model import (
    Books,
    Checkpoint,
    Delivered,
    Failed,
    ObjectState,
    Quarantined,
    Settlement,
)


def write(connection: Connection, settled: Sequence[tuple[Row[Any], Settlement]], now: datetime) -> None:
    """Write at least one settlement; each comes with the row of its object, which the caller owns."""
    connection.execute(
        update(objects).where(objects.c.id == bindparam("of_id")),
        [_outcome(settlement, row, now) for row, settlement in settled],
    )
    delivered = [(row, settlement) for row, settlement in settled if isinstance(settlement, Delivered)]
    if delivered:
        add_to_hours(connection, _sums(delivered))
    ended = [(row, settlement) for row, settlement in settled if not isinstance(settlement, Failed)]
    if ended:
        ledger_letters.replace(connection, [(row, settlement.dead_letters) for row, settlement in ended], now)
        ledger_memory.remember(connection, [(row.connector, settlement.message_ids) for row, settlement in ended], now)


def advance(connection: Connection, id_: int, checkpoint: Checkpoint) -> None:
    """Write how far the object has come."""
    values = {"checkpoint_rows": checkpoint.rows, "crashes": 0} | _columns(checkpoint.books)
    connection.execute(update(objects).where(objects.c.id == id_).values(values))


def add_to_hours(connection: Connection, sums: Sequence[dict[str, Any]]) -> None:
    """Add objects and books to those of an hour and type; each of the sums names all columns but the digests."""
    add = insert(hours)
    summed = {name: hours.c[name] + add.excluded[name] for name in ("objects", *BOOKS)}
    connection.execute(add.on_conflict_do_update(set_=summed), sums)


def checkpoint_of(row: Row[Any]) -> Checkpoint:
    """Return how far an object that waits has come."""
    return Checkpoint(row.checkpoint_rows, Books(*(getattr(row, name) for name in BOOKS)))


def _outcome(settlement: Settlement, row: Row[Any], now: datetime) -> dict[str, Any]:
    """Return the new values of the object's row; the same columns for each kind, as one statement sets them all."""
    values: dict[str, Any] = {"of_id": settlement.id, "owner": None, "settled_at": now, "crashes": 0}
    values |= {"attempts": row.attempts, "reason": None, "retry_at": None, "checkpoint_rows": 0, "rewound_events": 0}
    match settlement:
        case Delivered(books=books):
            return values | {"state": ObjectState.DELIVERED} | _columns(books)
        case Quarantined(reason=reason, books=books):
            return values | {"state": ObjectState.QUARANTINED, "reason": reason} | _columns(books)
        case Failed(reason=reason, retry_at=at):
            kept = checkpoint_of(row)
            values |= {"state": ObjectState.FAILED, "attempts": row.attempts + 1, "reason": reason, "retry_at": at}
            values |= {"checkpoint_rows": kept.rows, "rewound_events": row.rewound_events}
            return values | _columns(kept.books)


def _sums(delivered: Sequence[tuple[Row[Any], Delivered]]) -> list[dict[str, Any]]:
    """Add up objects and books first: one row for each hour and type."""
    added: dict[tuple[str, str, str], Counter[str]] = defaultdict(Counter)
    for row, settled in delivered:
        added[row.connector, row.hour, row.event_type].update(_columns(settled.books), objects=1)
    return [
        {"connector": connector, "hour": hour, "event_type": event_type} | counts
        for (connector, hour, event_type), counts in added.items()
    ]


def _columns(books: Books) -> dict[str, int]:
    return {name: getattr(books, name) for name in BOOKS}  # dataclasses.asdict takes ten times as long
