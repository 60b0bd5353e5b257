"""Excluded objects in the database: held back while the rules leave their event type out."""

from collections.abc import Collection

from sqlalchemy import Connection, func, select, update

from currents_bridge.ledger.bulk import among
from currents_bridge.ledger.schema import NOT_DELIVERED, objects, totals
from currents_bridge.model import ObjectState, Undelivered

_WAITS = objects.c.state.in_([ObjectState.PENDING, ObjectState.FAILED])
_EXCLUDED = objects.c.state == ObjectState.EXCLUDED


def undelivered(connection: Connection, connector: str) -> list[Undelivered]:
    """Return what waits and what is excluded, by event type."""
    waiting = totals.c.state.in_([ObjectState.PENDING, ObjectState.FAILED])
    counts = (
        func.coalesce(func.sum(totals.c.objects).filter(which), 0)
        for which in (waiting, totals.c.state == ObjectState.EXCLUDED)
    )
    of_type = (
        select(totals.c.event_type, *counts)
        .where(
            totals.c.connector == connector,
            totals.c.state.in_([ObjectState.PENDING, ObjectState.FAILED, ObjectState.EXCLUDED]),
            totals.c.objects > 0,
        )
        .group_by(totals.c.event_type)
        .order_by(totals.c.event_type)
    )
    return [Undelivered(*row) for row in connection.execute(of_type)]


def exclude(connection: Connection, connector: str, event_types: Collection[str]) -> None:
    """Hold back what waits of these types, and let go what was held back of others, as if it were new."""
    held = update(objects).where(NOT_DELIVERED, objects.c.connector == connector)
    left_out = among(objects.c.event_type, sorted(event_types))
    as_new = {"attempts": 0, "retry_at": None, "reason": None}
    connection.execute(held.where(_EXCLUDED, ~left_out).values(state=ObjectState.PENDING))
    connection.execute(held.where(_WAITS, left_out).values(as_new | {"state": ObjectState.EXCLUDED}))
