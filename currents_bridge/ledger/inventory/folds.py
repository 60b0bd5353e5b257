"""Folding: the rows of an hour's delivered objects become digests beside the sums that hold them already."""

from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, bindparam, delete, except_, func, insert, select, update

from currents_bridge.ledger.bulk import among, pair_among
from currents_bridge.ledger.inventory.digests import merge, parts
from currents_bridge.ledger.schema import DELIVERED, NOT_DELIVERED, folds, hours, objects

Slot = tuple[str, str]  # hour as text, event type


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
    rows = (DELIVERED, *of_hour, among(objects.c.event_type, types))
    found = defaultdict(list)
    for event_type, key, etag in connection.execute(
        select(objects.c.event_type, objects.c.key, objects.c.etag).where(*rows)
    ):
        found[event_type].append((key, etag))
    known = load(connection, hours.c.connector == connector, hours.c.hour == hour, among(hours.c.event_type, types))
    replace(
        connection,
        connector,
        {(hour, of_type): merge(known.get((hour, of_type), b""), listed) for of_type, listed in found.items()},
    )
    return connection.execute(delete(objects).where(*rows)).rowcount


def load(connection: Connection, *of_hours: ColumnElement[bool]) -> dict[Slot, bytes]:
    """Return the folds of the chosen rows of `hours`, of those that have one."""
    found: defaultdict[Slot, list[bytes]] = defaultdict(list)
    for hour, event_type, digests in connection.execute(
        select(hours.c.hour, hours.c.event_type, folds.c.digests)
        .join(folds, folds.c.id == hours.c.fold)
        .where(*of_hours)
        .order_by(folds.c.id, folds.c.part)
    ):
        found[hour, event_type].append(digests)
    return {slot: b"".join(of_slot) for slot, of_slot in found.items()}


def replace(connection: Connection, connector: str, new: Mapping[Slot, bytes]) -> None:
    """Give these hours and types new folds in place of those that they have; an empty one is none."""
    slots = pair_among(hours.c.hour, hours.c.event_type, new)
    old = select(hours.c.fold).where(hours.c.connector == connector, slots)
    connection.execute(delete(folds).where(folds.c.id.in_(old)))
    first = connection.execute(select(func.coalesce(func.max(folds.c.id), 0))).scalar_one() + 1
    numbered = [(number if fold else None, slot, fold) for number, (slot, fold) in enumerate(new.items(), first)]
    rows = [
        {"id": number, "part": part, "digests": digests}
        for number, _, fold in numbered
        for part, digests in enumerate(parts(fold))
    ]
    if rows:
        connection.execute(insert(folds), rows)
    connection.execute(
        update(hours).where(
            hours.c.connector == connector,
            hours.c.hour == bindparam("of_hour"),
            hours.c.event_type == bindparam("of_type"),
        ),
        [{"of_hour": hour, "of_type": of_type, "fold": number} for number, (hour, of_type), _ in numbered],
    )
