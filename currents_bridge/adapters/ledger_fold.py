"""Folding: the rows of an hour's delivered objects become digests beside the sums that hold them already."""

from collections import defaultdict
from datetime import datetime

from sqlalchemy import Connection, bindparam, delete, except_, func, select, update

from currents_bridge.adapters.ledger_digests import merge
from currents_bridge.adapters.ledger_schema import DELIVERED, NOT_DELIVERED, hours, objects


def fold_hour(connection: Connection, connector: str, hour: str, settled_before: datetime) -> int:
    """Fold the event types of the hour of which every object was delivered before; return how many that were."""
    of_hour = (objects.c.connector == connector, objects.c.hour == hour)
    complete = except_(
        select(objects.c.event_type)
        .where(DELIVERED, *of_hour)
        .group_by(objects.c.event_type)
        .having(func.max(objects.c.settled_at) < settled_before),
        select(objects.c.event_type).where(NOT_DELIVERED, *of_hour),
    )
    types = connection.execute(complete).scalars().all()
    if not types:
        return 0
    rows = (DELIVERED, *of_hour, objects.c.event_type.in_(types))
    found = defaultdict(list)
    for event_type, key, etag in connection.execute(
        select(objects.c.event_type, objects.c.key, objects.c.etag).where(*rows)
    ):
        found[event_type].append((key, etag))
    into = (hours.c.connector == connector, hours.c.hour == hour)
    folds = connection.execute(
        select(hours.c.event_type, hours.c.digests).where(*into, hours.c.event_type.in_(types))
    ).all()
    connection.execute(
        update(hours).where(*into, hours.c.event_type == bindparam("of_type")),
        [{"of_type": of_type, "digests": merge(fold or b"", found[of_type])} for of_type, fold in folds],
    )
    return connection.execute(delete(objects).where(*rows)).rowcount
