"""Canaries: objects that go ahead to see whether a side works, and what proves that it did."""

from collections.abc import Collection
from dataclasses import asdict
from datetime import datetime

from sqlalchemy import Connection, delete, select, tuple_, update
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.ledger.schema import CANARIES, DELIVERED, NOT_DELIVERED, canary_messages, objects, selected
from currents_bridge.ledger.work.claims import CLAIMED, claimed_object, open_to
from currents_bridge.model import Canary, ClaimedObject, CurrentsObject, ObjectState, Selection, parse_hour

_RECENT = 50  # delivered objects, among which witnesses of different hours and types are looked for

_WITNESS = tuple(
    objects.c[name] for name in ("key", "etag", "size_bytes", "last_modified", "event_type", "hour", "settled_at")
)


def next_canary(
    connection: Connection, connector: str, selection: Selection, now: datetime, but: Collection[int]
) -> list[ClaimedObject]:
    """Choose the object that goes ahead, and note that it did; at most one."""
    tried = select(objects.c.hour, objects.c.event_type).where(
        objects.c.connector == connector, NOT_DELIVERED, CANARIES
    )
    waiting = (
        select(*CLAIMED)
        .where(
            NOT_DELIVERED,
            objects.c.state.in_([ObjectState.PENDING, ObjectState.FAILED]),
            open_to(selection),
            objects.c.id.not_in(but),
            *selected(objects, connector, selection),
        )
        .limit(1)
    )
    newest = waiting.where(
        objects.c.state == ObjectState.PENDING, objects.c.canary_at.is_(None), objects.c.crashes == 0
    ).order_by(objects.c.rewinds > 0, objects.c.hour.desc(), objects.c.key.desc())
    elsewhere = newest.where(tuple_(objects.c.hour, objects.c.event_type).not_in(tried))
    for choice in (elsewhere, newest, waiting.order_by(objects.c.canary_at, objects.c.hour.desc())):
        if row := connection.execute(choice).one_or_none():
            chosen = claimed_object(row)
            connection.execute(update(objects).where(objects.c.id == chosen.id).values(canary_at=now))
            return [chosen]
    return []


def witnesses(connection: Connection, connector: str, limit: int) -> list[tuple[CurrentsObject, datetime]]:
    """Return objects that were delivered last, each of another hour or type."""
    latest = (
        select(*_WITNESS)
        .where(DELIVERED, objects.c.connector == connector)
        .order_by(objects.c.settled_at.desc())
        .limit(_RECENT)
    )
    found: dict[tuple[str, str], tuple[CurrentsObject, datetime]] = {}
    for key, etag, size_bytes, last_modified, event_type, hour, settled_at in connection.execute(latest):
        witness = CurrentsObject(key, etag, size_bytes, last_modified, event_type, parse_hour(hour))
        found.setdefault((event_type, hour), (witness, settled_at))
    return list(found.values())[:limit]


def message(connection: Connection, connector: str, since: datetime, until: datetime) -> Canary | None:
    """Return the message that is kept, if it was acknowledged in that time."""
    kept = select(canary_messages.c.message_id, canary_messages.c.message).where(
        canary_messages.c.connector == connector, canary_messages.c.acknowledged_at.between(since, until)
    )
    row = connection.execute(kept).one_or_none()
    return Canary(*row) if row else None


def keep_message(connection: Connection, connector: str, canary: Canary | None, now: datetime) -> None:
    """Keep the message that was acknowledged last, or forget it."""
    if canary is None:
        connection.execute(delete(canary_messages).where(canary_messages.c.connector == connector))
        return
    values = asdict(canary) | {"acknowledged_at": now}
    keep = insert(canary_messages).values(connector=connector, **values)
    connection.execute(keep.on_conflict_do_update(set_=values))
