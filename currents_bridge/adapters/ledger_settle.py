"""What a settlement writes: the object's row, the sums of its hour, its dead letters."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, update
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.adapters.ledger_schema import BOOKS, dead_letters, hours, objects
from currents_bridge.model import Books, Delivered, Failed, ObjectState, Quarantined, Settlement


def write(connection: Connection, settled: Sequence[tuple[Row[Any], Settlement]], now: datetime) -> None:
    """Write at least one settlement; each comes with the row of its object, which the caller owns."""
    connection.execute(
        update(objects).where(objects.c.id == bindparam("of_id")),
        [_outcome(settlement, row.attempts, now) for row, settlement in settled],
    )
    delivered = [(row, settlement) for row, settlement in settled if isinstance(settlement, Delivered)]
    if delivered:
        _add_to_hours(connection, delivered)
        _replace_dead_letters(connection, delivered, now)


def _outcome(settlement: Settlement, attempts: int, now: datetime) -> dict[str, Any]:
    """Return the new values of the object's row; the same columns for each kind, as one statement sets them all."""
    values: dict[str, Any] = {"of_id": settlement.id, "owner": None, "settled_at": now, "attempts": attempts}
    values |= {"reason": None, "retry_at": None} | asdict(Books())
    match settlement:
        case Delivered(books=books):
            return values | {"state": ObjectState.DELIVERED} | asdict(books)
        case Failed(reason=reason, retry_at=at):
            return values | {"state": ObjectState.FAILED, "attempts": attempts + 1, "reason": reason, "retry_at": at}
        case Quarantined(reason=reason):
            return values | {"state": ObjectState.QUARANTINED, "reason": reason}


def _add_to_hours(connection: Connection, delivered: Sequence[tuple[Row[Any], Delivered]]) -> None:
    add = insert(hours)
    summed = {name: hours.c[name] + add.excluded[name] for name in ("objects", *BOOKS)}
    connection.execute(
        add.on_conflict_do_update(set_=summed),
        [
            {"connector": row.connector, "hour": row.hour, "event_type": row.event_type, "objects": 1}
            | asdict(settled.books)
            for row, settled in delivered
        ],
    )


def _replace_dead_letters(
    connection: Connection, delivered: Sequence[tuple[Row[Any], Delivered]], now: datetime
) -> None:
    connection.execute(
        delete(dead_letters).where(
            dead_letters.c.connector == bindparam("of_connector"), dead_letters.c.object_key == bindparam("of_key")
        ),
        [{"of_connector": row.connector, "of_key": row.key} for row, _ in delivered],
    )
    letters = [
        {"connector": row.connector, "object_key": row.key, "event_type": row.event_type, "created_at": now}
        | asdict(letter)
        for row, settled in delivered
        for letter in settled.dead_letters
    ]
    if letters:
        connection.execute(insert(dead_letters), letters)
