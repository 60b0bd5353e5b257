"""Ledgers with a history, made cheaply: the ledger records one day itself, and folds copies of that for the others."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import ColumnElement, Connection, Table, create_engine, select
from sqlalchemy import func as sql
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.ledger.schema import BOOKS, hours, objects
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import Books, CurrentsObject, Delivered, GroupLimits, ObjectState, Selection, format_hour
from currents_bridge.sources.coverage import hour_of
from currents_bridge.testing.currents_files import object_key

DELIVERED = Books(read=100, sent=100)
DAY_HOURS = 24
AT_ONCE = GroupLimits(max_bytes=10**12, max_objects=20_000)


def fill(  # noqa: PLR0913 - each says another thing about the history
    path: Path,
    connector: str,
    event_types: Sequence[str],
    *,
    count: int,
    now: datetime,
    days: int,
    unfolded_days: int,
) -> int:
    """Record so many delivered objects or a few more, evenly over the types and hours of the last days.

    Those of the last `unfolded_days` keep rows of their own, as in a daemon's ledger, which folds after 8 days; older
    ones are folded, which must be one day at least. Returns how many objects the ledger holds then.
    """
    end = hour_of(now)
    per_slot = -(-count // (days * DAY_HOURS * len(event_types)))
    ledger = SqlLedger(f"sqlite:///{path}", now=now)
    engine = create_engine(f"sqlite:///{path}")
    selection = Selection(frozenset(event_types))
    rows_from = end - timedelta(days=unfolded_days)
    pattern_from = rows_from - timedelta(days=1)
    settled_before = now + timedelta(days=1)  # all of it
    try:
        _deliver(ledger, connector, _day(event_types, rows_from, per_slot), selection, now)
        for day in range(1, days - unfolded_days):
            with engine.begin() as connection:
                _copy_day(connection, connector, pattern_from, rows_from, day)
            ledger.fold(connector, pattern_from, settled_before)  # daily, so that the file holds few rows
        ledger.fold(connector, rows_from, settled_before)
        for day in range(unfolded_days):
            _deliver(ledger, connector, _day(event_types, end - timedelta(days=day), per_slot), selection, now)
        return ledger.totals(connector).objects[ObjectState.DELIVERED]
    finally:
        engine.dispose()
        ledger.close()


def record(path: Path, connector: str, listed: Sequence[CurrentsObject], now: datetime) -> None:
    """Record objects as delivered and folded."""
    ledger = SqlLedger(f"sqlite:///{path}", now=now)
    try:
        for start in range(0, len(listed), AT_ONCE.max_objects):
            some = listed[start : start + AT_ONCE.max_objects]
            _deliver(ledger, connector, iter(some), Selection(frozenset(item.event_type for item in some)), now)
        ledger.fold(connector, now, now + timedelta(days=1))
    finally:
        ledger.close()


def _day(event_types: Sequence[str], end: datetime, per_slot: int) -> Iterator[CurrentsObject]:
    """Yield the objects of the day before `end`."""
    for hours_before in range(DAY_HOURS, 0, -1):
        hour = end - timedelta(hours=hours_before)
        for event_type in event_types:
            for number in range(per_slot):
                key = object_key(event_type, hour, partition=9, offset=number)
                yield CurrentsObject(key, f"{number:032x}", 10_000, hour, event_type, hour)


def _deliver(
    ledger: SqlLedger, connector: str, listed: Iterator[CurrentsObject], selection: Selection, now: datetime
) -> None:
    ledger.admit(connector, list(listed), now)
    while group := ledger.claim(connector, selection, AT_ONCE, now):
        ledger.settle([Delivered(claimed.id, DELIVERED) for claimed in group], now)


def _copy_day(connection: Connection, connector: str, first: datetime, end: datetime, days_back: int) -> None:
    """Copy the delivered objects of [first, end) to the same hours of an earlier day, under other keys."""
    copied = [column for column in objects.c if column.name not in {"id", "key", "hour"}]
    keys_and_hours = objects.c.key.concat(f"-{days_back}"), _earlier(objects, days_back)
    rows = select(*keys_and_hours, *copied).where(*_of_hours(objects, connector, first, end))
    connection.execute(insert(objects).from_select(["key", "hour", *(column.name for column in copied)], rows))
    names = ["connector", "event_type", "objects", *BOOKS]
    sums = select(_earlier(hours, days_back), *(hours.c[name] for name in names))
    add = insert(hours).from_select(["hour", *names], sums.where(*_of_hours(hours, connector, first, end)))
    summed = {name: hours.c[name] + add.excluded[name] for name in ("objects", *BOOKS)}
    connection.execute(add.on_conflict_do_update(set_=summed))


def _earlier(table: Table, days_back: int) -> ColumnElement[str]:
    hour = table.c.hour
    return sql.date(sql.substr(hour, 1, 10), f"-{days_back} days").concat(sql.substr(hour, 11))


def _of_hours(table: Table, connector: str, first: datetime, end: datetime) -> Iterator[ColumnElement[bool]]:
    yield table.c.connector == connector
    yield table.c.hour >= format_hour(first)
    yield table.c.hour < format_hour(end)
