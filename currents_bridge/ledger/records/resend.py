"""Sending again what was delivered, for `backfill --resend`: object by object, as the bucket shows them."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Connection, TextClause, delete, func, insert, select, text, update

from currents_bridge.ledger.bulk import among, execute_many, pair_among
from currents_bridge.ledger.inventory import digests
from currents_bridge.ledger.inventory import folds as ledger_fold
from currents_bridge.ledger.inventory.admit import columns_of
from currents_bridge.ledger.inventory.changed import AS_NEW
from currents_bridge.ledger.inventory.folds import Slot
from currents_bridge.ledger.records.rewind import take_from_hours
from currents_bridge.ledger.schema import BOOKS, DELIVERED, RESENT, hours, objects, owners, time_text
from currents_bridge.ledger.work.seen_ids import restart_at
from currents_bridge.ledger.work.settle import add_to_hours
from currents_bridge.model import CurrentsObject, ObjectState, format_hour

LEFT_AT_ONCE = 20_000  # objects in one transaction

_REOPENED = {ObjectState.PENDING, ObjectState.FAILED, ObjectState.DELIVERED}
_ROW = (objects.c.id, objects.c.key, objects.c.state, objects.c.restarted_at)
_UNFOLDED = insert(objects).values(state=text(f"'{ObjectState.PENDING}'"), summed=text("1"))


def reopen(
    connection: Connection, connector: str, listed: Sequence[CurrentsObject], resender: str, now: datetime
) -> int:
    """Make a few hundred listed objects pending that were delivered or wait; returns how many were delivered.

    The sums of an hour lose what rows say of the delivered objects. Of a folded one nobody knows its share: the sums
    keep it until the last folded object of the hour and type is reopened, or for good where the bucket has lost one.
    """
    by_key = {item.key: item for item in listed}
    rows = {
        row.key: row
        for row in connection.execute(
            select(*_ROW).where(objects.c.connector == connector, among(objects.c.key, by_key))
        )
    }
    delivered = [row.id for row in rows.values() if row.state == ObjectState.DELIVERED]
    take_from_hours(connection, connector, DELIVERED, among(objects.c.id, delivered))
    fixed = {"resend": True, "resender": resender}
    again = [
        {"of_connector": connector, "of_key": key}
        | fixed
        | _restart(now, row.restarted_at)
        | columns_of(by_key[key], now)
        for key, row in rows.items()
        if row.state in _REOPENED
    ]
    execute_many(connection, AS_NEW, again)
    folded = _unfold(connection, connector, [item for key, item in by_key.items() if key not in rows])
    fixed |= _restart(now) | {"connector": connector, "admitted_at": time_text(now)}
    execute_many(connection, _UNFOLDED, [fixed | columns_of(item, now) for item in folded])
    _add_up(connection, connector, set(map(_slot, folded)))
    return len(delivered) + len(folded)


def leave(connection: Connection, *which: ColumnElement[bool] | TextClause) -> int:
    """Leave at most LEFT_AT_ONCE of what a backfill did not come to send to everybody; returns how many."""
    some = select(objects.c.id).where(RESENT, *which).limit(LEFT_AT_ONCE)
    left = update(objects).where(objects.c.id.in_(some))
    return connection.execute(left.values(resender=None)).rowcount


def of_unknown(connector: str) -> tuple[ColumnElement[bool] | TextClause, ...]:
    """Return what holds of the connector's objects that were reopened by an owner who is not known."""
    return RESENT, objects.c.connector == connector, objects.c.resender.not_in(select(owners.c.id))


def _unfold(connection: Connection, connector: str, listed: Iterable[CurrentsObject]) -> list[CurrentsObject]:
    """Take those of the objects out of their folds that are in one, and return them."""
    of_slot: dict[Slot, list[CurrentsObject]] = defaultdict(list)
    for item in listed:
        of_slot[_slot(item)].append(item)
    if not of_slot:
        return []
    slots = (hours.c.connector == connector, pair_among(hours.c.hour, hours.c.event_type, of_slot))
    folds = ledger_fold.load(connection, *slots)
    found = {slot: [item for item in of_slot[slot] if digests.knows(fold, item.key)] for slot, fold in folds.items()}
    found = {slot: items for slot, items in found.items() if items}
    if not found:
        return []
    kept = {slot: digests.without(folds[slot], [item.key for item in items]) for slot, items in found.items()}
    ledger_fold.replace(connection, connector, kept)
    none = dict.fromkeys(BOOKS, 0)
    taken = [_of_hour(connector, slot) | {"objects": -len(items)} | none for slot, items in found.items()]
    add_to_hours(connection, taken)
    return [item for items in found.values() for item in items]


def _add_up(connection: Connection, connector: str, slots: Iterable[Slot]) -> None:
    """Sum up anew, from the rows, the hours and types that have nothing folded any more, and drop those without any."""
    of_slots = pair_among(hours.c.hour, hours.c.event_type, slots)
    whole = connection.execute(
        select(hours.c.hour, hours.c.event_type).where(hours.c.connector == connector, of_slots, hours.c.fold.is_(None))
    ).all()
    for hour, event_type in whole:
        rows = (objects.c.connector == connector, objects.c.hour == hour, objects.c.event_type == event_type)
        row = (hours.c.connector == connector, hours.c.hour == hour, hours.c.event_type == event_type)
        sums = connection.execute(
            select(*(func.coalesce(func.sum(objects.c[name]), 0).label(name) for name in BOOKS)).where(DELIVERED, *rows)
        ).mappings()
        connection.execute(update(hours).where(*row).values(dict(sums.one())))
        connection.execute(update(objects).where(objects.c.summed, *rows).values(summed=False))
        connection.execute(delete(hours).where(*row, hours.c.objects == 0))


def _restart(now: datetime, before: datetime | None = None) -> dict[str, str]:
    return {"restarted_at": time_text(restart_at(now, before))}


def _of_hour(connector: str, slot: Slot) -> dict[str, Any]:
    hour, event_type = slot
    return {"connector": connector, "hour": hour, "event_type": event_type}


def _slot(item: CurrentsObject) -> Slot:
    return format_hour(item.hour), item.event_type
