"""Quarantined objects in the database: set aside for their age, found again, and given back."""

from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, select, update

from currents_bridge.ledger.bulk import among
from currents_bridge.ledger.schema import BOOKS, NOT_DELIVERED, QUARANTINED, dead_letters, objects
from currents_bridge.ledger.work.seen_ids import restart_at
from currents_bridge.model import Books, CurrentsObject, ObjectState, QuarantinedObject, parse_hour
from currents_bridge.text import cause_of


def find(connection: Connection, connector: str | None, ids: Sequence[int] | None = None) -> list[QuarantinedObject]:
    """Return quarantined objects, those that were set aside first at the beginning; of these ids only, if any."""
    chosen = select(objects).where(QUARANTINED).order_by(objects.c.settled_at, objects.c.id)
    if connector is not None:
        chosen = chosen.where(objects.c.connector == connector)
    if ids is not None:
        chosen = chosen.where(among(objects.c.id, ids))
    return [
        QuarantinedObject(
            row.id,
            row.connector,
            CurrentsObject(row.key, row.etag, row.size_bytes, row.last_modified, row.event_type, parse_hour(row.hour)),
            row.reason,
            Books(*(getattr(row, name) for name in BOOKS)),
            row.settled_at,
        )
        for row in connection.execute(chosen)
    ]


def replay(connection: Connection, ids: Sequence[int], now: datetime) -> int:
    """Make a few hundred quarantined objects as new; returns how many of the ids were quarantined."""
    found = connection.execute(
        select(objects.c.id, objects.c.connector, objects.c.key, objects.c.restarted_at).where(
            QUARANTINED, among(objects.c.id, ids)
        )
    ).all()
    if not found:
        return 0
    connection.execute(
        delete(dead_letters).where(
            dead_letters.c.connector == bindparam("of_connector"), dead_letters.c.object_key == bindparam("of_key")
        ),
        [{"of_connector": row.connector, "of_key": row.key} for row in found],
    )
    as_new = {"state": ObjectState.PENDING, "attempts": 0, "reason": None, "settled_at": None} | asdict(Books())
    connection.execute(
        update(objects).where(objects.c.id == bindparam("of_id")).values(as_new),
        [{"of_id": row.id, "restarted_at": restart_at(now, row.restarted_at)} for row in found],
    )
    return len(found)


def set_aside(connection: Connection, connector: str, modified_before: datetime, reason: str, now: datetime) -> int:
    """Quarantine what waits, is not claimed, and was last modified before; returns how many objects that are."""
    old = update(objects).where(
        NOT_DELIVERED,
        objects.c.connector == connector,
        objects.c.state.in_([ObjectState.PENDING, ObjectState.FAILED]),
        objects.c.last_modified < modified_before,
    )
    aside = {"state": ObjectState.QUARANTINED, "reason": reason, "cause": cause_of(reason), "settled_at": now}
    aside |= {"retry_at": None, "crashes": 0, "checkpoint_rows": 0}
    return connection.execute(old.values(aside)).rowcount
