"""Rewinding: what was acknowledged under a dead key goes back to be sent again, in one transaction."""

from dataclasses import asdict, astuple
from datetime import datetime

from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Connection,
    TextClause,
    bindparam,
    delete,
    func,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.ledger.records import letters
from currents_bridge.ledger.schema import (
    BEGUN,
    BOOKS,
    DELIVERED,
    OWNED,
    QUARANTINED,
    connectors,
    dead_letters,
    hours,
    objects,
    sent_messages,
)
from currents_bridge.ledger.work.claims import take_away
from currents_bridge.ledger.work.seen_ids import restart_at, settled_since
from currents_bridge.ledger.work.settle import add_to_hours
from currents_bridge.model import Books, ObjectState, Rewound

Conditions = tuple[ColumnElement[bool] | TextClause, ...]


def rewind(
    connection: Connection, connector: str, since: datetime, now: datetime, spare_since: datetime | None = None
) -> Rewound:
    """Take back all that was acknowledged since; returns what that was."""
    take_away(connection, objects.c.connector == connector)
    delivered = _delivered_since(connector, since, spare_since)
    meant = objects.c.id.in_(_meant(connector, since, delivered))
    take_from_hours(connection, connector, *delivered)
    of_meant = dead_letters.c.object_key.in_(select(objects.c.key).where(meant))
    connection.execute(delete(dead_letters).where(dead_letters.c.connector == connector, of_meant))
    count, events = connection.execute(
        select(func.count(), func.coalesce(func.sum(objects.c.sent), 0)).where(meant)
    ).one()
    connection.execute(
        update(objects)
        .where(meant)
        .values(
            {"state": ObjectState.PENDING, "owner": None, "attempts": 0, "retry_at": None, "reason": None}
            | {"settled_at": None, "checkpoint_rows": 0, "rewinds": objects.c.rewinds + 1}
            | {"restarted_at": restart_at(now)}
            | {"rewound_events": func.max(objects.c.rewound_events, objects.c.sent)}
            | asdict(Books())
        )
    )
    connection.execute(delete(sent_messages).where(*settled_since(connector, since)))
    rewound = Rewound(count, events, letters.take_back(connection, connector, since))
    _add_up(connection, connector, rewound)
    return rewound


def _delivered_since(connector: str, since: datetime, spare_since: datetime | None) -> Conditions:
    """Return what holds of the delivered objects that are meant."""
    all_of_them = (DELIVERED, objects.c.connector == connector, objects.c.settled_at >= since)
    if spare_since is None:
        return all_of_them
    return *all_of_them, or_(objects.c.restarted_at.is_(None), objects.c.restarted_at <= spare_since)


def _meant(connector: str, since: datetime, delivered: Conditions) -> CompoundSelect[int]:
    """Return the ids of objects of which anything was acknowledged, or may be by now; each part has its index."""
    ids = select(objects.c.id).where(objects.c.connector == connector)
    return union(
        select(objects.c.id).where(*delivered),
        ids.where(QUARANTINED, objects.c.settled_at >= since, objects.c.read > 0),
        ids.where(BEGUN),
        ids.where(OWNED),
    )


def take_from_hours(connection: Connection, connector: str, *which: ColumnElement[bool] | TextClause) -> None:
    """Take delivered objects, which the caller makes pending, out of the sums of their hours."""
    slot = (objects.c.connector, objects.c.hour, objects.c.event_type)
    lost = (-func.count()).label("objects"), *((-func.sum(objects.c[name])).label(name) for name in BOOKS)
    sums = [dict(row) for row in connection.execute(select(*slot, *lost).where(*which).group_by(*slot)).mappings()]
    if not sums:
        return
    add_to_hours(connection, sums)
    connection.execute(
        delete(hours).where(
            hours.c.connector == connector,
            hours.c.hour == bindparam("of_hour"),
            hours.c.event_type == bindparam("of_type"),
            hours.c.objects == 0,
        ),
        [{"of_hour": of["hour"], "of_type": of["event_type"]} for of in sums],
    )


def _add_up(connection: Connection, connector: str, rewound: Rewound) -> None:
    names = ("rewound_objects", "rewound_events", "rewound_letters")
    add = insert(connectors).values(name=connector, **dict(zip(names, astuple(rewound), strict=True)))
    summed = {name: connectors.c[name] + add.excluded[name] for name in names}
    connection.execute(add.on_conflict_do_update(set_=summed))
