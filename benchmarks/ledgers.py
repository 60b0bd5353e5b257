"""Ledgers with a history, made cheaply: the ledger's own methods record one day, and its folded rows are copied."""

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy import create_engine, select
from sqlalchemy import func as sql

from currents_bridge.adapters.ledger import SqlLedger
from currents_bridge.adapters.ledger_schema import hours
from currents_bridge.discovery import hour_of
from currents_bridge.model import Books, CurrentsObject, Delivered, GroupLimits, ObjectState, Selection, format_hour
from currents_bridge.testing.currents_files import object_key

BOOKS = Books(read=100, sent=100)
DAY_HOURS = 24
AT_ONCE = GroupLimits(max_bytes=10**12, max_objects=20_000)


def fill(  # noqa: PLR0913 - each says another thing about the history
    path: Path,
    connector: str,
    event_types: Sequence[str],
    *,
    objects: int,
    now: datetime,
    days: int,
    unfolded_days: int,
) -> int:
    """Record so many delivered objects or a few more, evenly over the types and hours of the last days.

    Those of the last `unfolded_days` keep rows of their own, as in a daemon's ledger, which folds after 8 days; older
    ones are folded, which must be one day at least. Returns how many objects the ledger holds then.
    """
    end = hour_of(now)
    per_slot = -(-objects // (days * DAY_HOURS * len(event_types)))
    ledger = SqlLedger(f"sqlite:///{path}", now=now)
    selection = Selection(frozenset(event_types))
    rows_from = end - timedelta(days=unfolded_days)
    try:
        _deliver(ledger, connector, _day(event_types, rows_from, per_slot), selection, now)
        ledger.fold(connector, rows_from)
        for day in range(unfolded_days):
            _deliver(ledger, connector, _day(event_types, end - timedelta(days=day), per_slot), selection, now)
        _copy_folds(path, connector, rows_from - timedelta(days=1), rows_from, days - unfolded_days)
        return ledger.totals(connector).objects[ObjectState.DELIVERED]
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
    ledger: SqlLedger, connector: str, objects: Iterator[CurrentsObject], selection: Selection, now: datetime
) -> None:
    ledger.admit(connector, list(objects), now)
    while group := ledger.claim(connector, selection, AT_ONCE, now):
        ledger.settle([Delivered(claimed.id, BOOKS) for claimed in group], now)


def _copy_folds(path: Path, connector: str, first: datetime, end: datetime, days: int) -> None:
    """Copy the folded rows of one day to the days before, where there are none; a day takes as much room as another."""
    copied = [column for column in hours.c if column.name != "hour"]
    of_day = (hours.c.connector == connector, hours.c.hour >= format_hour(first), hours.c.hour < format_hour(end))
    engine = create_engine(f"sqlite:///{path}")
    with engine.begin() as connection:
        for day in range(1, days):
            date, hour = sql.substr(hours.c.hour, 1, 10), sql.substr(hours.c.hour, 11)
            rows = select(sql.date(date, f"-{day} days").concat(hour), *copied).where(*of_day)
            into = ["hour", *(column.name for column in copied)]
            connection.execute(hours.insert().prefix_with("OR IGNORE").from_select(into, rows))
    engine.dispose()
