"""Dead letters in the database: kept with a settlement, found again, replayed, purged."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, Table, TextClause, bindparam, delete, func, select, update
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.ledger.bulk import among
from currents_bridge.ledger.inventory import digests
from currents_bridge.ledger.inventory import folds as ledger_fold
from currents_bridge.ledger.schema import NOT_SENT, SENT, dead_letters, hours, objects, totals
from currents_bridge.ledger.work import seen_ids
from currents_bridge.model import DeadLetter, LetterFilter, ObjectState, StoredDeadLetter

UNDER_A_DEAD_KEY = "sent again by hand under a write key that was dead"

PURGED_AT_ONCE = 5_000  # in one transaction
_SETTLED = {ObjectState.DELIVERED, ObjectState.QUARANTINED}
_REPLACED = ("message_id", "reason", "event", "message", "created_at", "sent_at")


def replace(connection: Connection, letters: Sequence[tuple[Row[Any], Sequence[DeadLetter]]], now: datetime) -> None:
    """Let the letters of each object (given by its row as it was, and whether it has any) follow its checkpoint."""
    old = [
        {"of_connector": row.connector, "of_key": row.key, "from_row": row.checkpoint_rows}
        for row, _ in letters
        if row.has_letters
    ]
    if old:
        connection.execute(
            delete(dead_letters).where(
                dead_letters.c.connector == bindparam("of_connector"),
                dead_letters.c.object_key == bindparam("of_key"),
                dead_letters.c.row >= bindparam("from_row"),
            ),
            old,
        )
    added = [
        {"connector": row.connector, "object_key": row.key, "hour": row.hour, "event_type": row.event_type}
        | {"created_at": now}
        | asdict(letter)
        for row, of_object in letters
        for letter in of_object
    ]
    if added:
        # Where a claim was lost and taken again by one owner, two of its threads set the same events aside.
        add = insert(dead_letters)
        connection.execute(add.on_conflict_do_update(set_={name: add.excluded[name] for name in _REPLACED}), added)


def find(connection: Connection, which: LetterFilter, limit: int | None, after: int) -> list[StoredDeadLetter]:
    """Return letters in the order of their ids, which is that of their creation."""
    chosen = select(dead_letters).where(*_chosen(connection, which, after)).order_by(dead_letters.c.id)
    return [
        StoredDeadLetter(
            id=row.id,
            connector=row.connector,
            object_key=row.object_key,
            event_type=row.event_type,
            letter=DeadLetter(row.row, row.message_id, row.reason, row.event, row.message),
            attempts=row.attempts,
            created_at=row.created_at,
        )
        for row in connection.execute(chosen.limit(limit))
    ]


def find_ids(connection: Connection, which: LetterFilter, limit: int, after: int) -> Sequence[int]:
    """Return the ids of letters, in their order."""
    chosen = select(dead_letters.c.id).where(*_chosen(connection, which, after)).order_by(dead_letters.c.id)
    return connection.execute(chosen.limit(limit)).scalars().all()


def purge(connection: Connection, ids: Sequence[int]) -> int:
    """Delete letters and nothing else."""
    return connection.execute(delete(dead_letters).where(among(dead_letters.c.id, ids))).rowcount


def count(connection: Connection, which: LetterFilter) -> int:
    """Return how many letters there are."""
    chosen = select(func.count()).select_from(dead_letters).where(*_chosen(connection, which))
    return connection.execute(chosen).scalar_one()


def refused_again(connection: Connection, reasons: Mapping[int, str]) -> Sequence[int]:
    """Keep the letters, by id, with their new reasons; returns which are there."""
    there = select(dead_letters.c.id).where(NOT_SENT, among(dead_letters.c.id, reasons))
    ids = connection.execute(there).scalars().all()
    if ids:
        again = update(dead_letters).where(dead_letters.c.id == bindparam("of_id"))
        values = {"reason": bindparam("why"), "attempts": dead_letters.c.attempts + 1}
        connection.execute(again.values(values), [{"of_id": id_, "why": reasons[id_]} for id_ in ids])
    return ids


def sent(connection: Connection, ids: Collection[int], now: datetime, *, remember: bool) -> Sequence[int]:
    """Keep letters for a rewind only, and move their events in all books that hold them; returns which are there."""
    letters = update(dead_letters).where(NOT_SENT, among(dead_letters.c.id, ids)).values(sent_at=now)
    found = connection.execute(letters.returning(*dead_letters.c)).all()
    _move_all(connection, found, "dead_lettered", "sent")
    if remember:
        replayed = [seen_ids.Sent(row.connector, row.object_key, [row.message_id]) for row in found]
        seen_ids.remember(connection, replayed, now)
    return [row.id for row in found]


def take_back(connection: Connection, connector: str, since: datetime) -> int:
    """Make dead letters of those that were sent since, and move their events back; returns how many."""
    letters = update(dead_letters).where(SENT, dead_letters.c.connector == connector, dead_letters.c.sent_at >= since)
    again = letters.values(sent_at=None, reason=UNDER_A_DEAD_KEY).returning(*dead_letters.c)
    taken = connection.execute(again).all()
    _move_all(connection, taken, "sent", "dead_lettered")
    return len(taken)


def forget_sent(connection: Connection, connector: str, before: datetime) -> None:
    """Delete letters that were sent before."""
    old = (SENT, dead_letters.c.connector == connector, dead_letters.c.sent_at < before)
    connection.execute(delete(dead_letters).where(*old))


def _move_all(connection: Connection, letters: Iterable[Row[Any]], source: str, target: str) -> None:
    """Move the letters' events from one count to another in all books that hold them, object by object."""
    of_object: defaultdict[tuple[str, str], list[Row[Any]]] = defaultdict(list)
    for letter in letters:
        of_object[letter.connector, letter.object_key].append(letter)
    for found in of_object.values():
        _move(connection, found, source, target)


def _move(connection: Connection, letters: Sequence[Row[Any]], source: str, target: str) -> None:
    """Move the events of one object's letters."""
    letter, count = letters[0], len(letters)
    row = connection.execute(
        select(objects.c.id, objects.c.state, objects.c.checkpoint_rows).where(
            objects.c.connector == letter.connector, objects.c.key == letter.object_key
        )
    ).one_or_none()
    of_hour = (
        hours.c.connector == letter.connector,
        hours.c.hour == letter.hour,
        hours.c.event_type == letter.event_type,
    )
    if row is None:
        folds = ledger_fold.load(connection, *of_hour).values()
        in_hour = any(digests.knows(fold, letter.object_key) for fold in folds)  # else reopened and forgotten
    else:
        # Other books begin anew with the object's next delivery.
        count = count if row.state in _SETTLED else sum(one.row < row.checkpoint_rows for one in letters)
        count = _move_in(connection, count, source, target, objects, objects.c.id == row.id)
        in_hour = row.state == ObjectState.DELIVERED
    if in_hour:
        _move_in(connection, count, source, target, hours, *of_hour)


def _move_in(
    connection: Connection, count: int, source: str, target: str, table: Table, *where: ColumnElement[bool]
) -> int:
    """Move events in the books of a row, as far as they hold them; returns how many they did."""
    held = connection.scalar(select(table.c[source]).where(*where)) or 0
    if moved := min(count, held):
        values = {source: table.c[source] - moved, target: table.c[target] + moved}
        connection.execute(update(table).where(*where).values(values))
    return moved


def _chosen(
    connection: Connection, which: LetterFilter, after: int | None = None
) -> Iterator[ColumnElement[bool] | TextClause]:
    """Yield what holds of the letters; those of a page, from an id on, are found in the order of ids.

    By their connector's index, all of them would be read and sorted for each page.
    """
    yield NOT_SENT
    connector: ColumnElement[str] = dead_letters.c.connector
    if after is not None:
        connector = connector.concat("")  # no index
        yield dead_letters.c.id > after
    if which.connector is not None:
        yield connector == which.connector
    if which.event_type is not None:
        # Databases have globs of their own; the program has one kind. All types that were met have totals: a few rows.
        met = set(connection.execute(select(totals.c.event_type)).scalars())
        yield among(dead_letters.c.event_type, [n for n in sorted(met) if fnmatchcase(n, which.event_type)])
    if which.reason is not None:
        yield dead_letters.c.reason.icontains(which.reason, autoescape=True)
    if which.since is not None:
        yield dead_letters.c.created_at >= which.since
    if which.until is not None:
        yield dead_letters.c.created_at < which.until
    if which.ids is not None:
        yield among(dead_letters.c.id, which.ids)
