"""Claims: what is due, what one process may take at once, and what becomes of the claims of the dead."""

from collections.abc import Iterable, Iterator
from datetime import datetime
from functools import lru_cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    and_,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    true,
    update,
)

from currents_bridge.adapters.ledger_schema import BOOKS, NOT_DELIVERED, OWNED, UtcTime, objects, owners, selected
from currents_bridge.model import (
    Books,
    Checkpoint,
    ClaimedObject,
    CurrentsObject,
    GroupLimits,
    ObjectState,
    Selection,
    parse_hour,
)

MOST_CRASHES = 3  # one that nobody saw, then two trials that ended at the same row: then it is set aside
TOO_MANY_CRASHES = f"took the process down {MOST_CRASHES} times"

_BOOKS = len(BOOKS)
_WAITING = case((objects.c.attempts > 0, ObjectState.FAILED), else_=ObjectState.PENDING)
_hour = lru_cache(1024)(parse_hour)  # a group has few hours
UNCLAIMED = {"state": _WAITING, "owner": None}
CLAIMED = tuple(  # as `claimed_object` unpacks them
    objects.c[name]
    for name in (
        *("id", "key", "etag", "size_bytes", "last_modified", "event_type", "hour"),
        *("attempts", "crashes", "trial_row", "rewinds", "restarted_at", "resend", "checkpoint_rows", *BOOKS),
    )
)


def next_group(
    connection: Connection, connector: str, selection: Selection, limits: GroupLimits, now: datetime
) -> list[ClaimedObject]:
    """Return the objects that are to be claimed next, as they are before."""
    due = or_(
        objects.c.state == ObjectState.PENDING,
        and_(objects.c.state == ObjectState.FAILED, objects.c.retry_at <= now),
    )
    next_due = (
        select(*CLAIMED)
        .where(NOT_DELIVERED, due, open_to(selection), *selected(objects, connector, selection))
        .order_by(objects.c.hour, objects.c.event_type, objects.c.key)
        .limit(limits.max_objects)
    )
    return list(_group(connection.execute(next_due), limits.max_bytes))


def open_to(selection: Selection) -> ColumnElement[bool]:
    """Return what holds of objects that may be claimed: what a living backfill sends again is left to such ones."""
    return (
        true()
        if selection.resend
        else or_(objects.c.resender.is_(None), objects.c.resender.not_in(select(owners.c.id)))
    )


def take_away(connection: Connection, *which: ColumnElement[bool]) -> None:
    """Give the claimed objects new ids, so that nothing their owner says of the old ones can count; the rest stays.

    The owner may live after all, and claim the same objects anew while its threads still work on the lost claims.
    """
    lost = connection.execute(delete(objects).where(OWNED, *which).returning(*objects.c)).mappings().all()
    renewed = [{**row, "id": None} for row in sorted(lost, key=lambda row: row["id"])]
    if renewed:
        connection.execute(insert(objects), renewed)


def free_orphans(connection: Connection, owner: str, now: datetime) -> int:
    """Free each claim of others whose owner is not known, and set aside what ended too many; returns how many."""
    too_many = objects.c.crashes >= MOST_CRASHES
    of_unknown = (objects.c.owner != owner, objects.c.owner.not_in(select(owners.c.id)))
    take_away(connection, *of_unknown)
    orphaned = update(objects).where(OWNED, *of_unknown)
    freed = {
        "owner": None,
        "state": case((too_many, ObjectState.QUARANTINED), else_=_WAITING),
        "crashes": case((too_many, 0), else_=func.max(objects.c.crashes, 1)),
        "reason": case((too_many, TOO_MANY_CRASHES), else_=objects.c.reason),
        "settled_at": case((too_many, literal(now, UtcTime())), else_=objects.c.settled_at),
        "checkpoint_rows": case((too_many, 0), else_=objects.c.checkpoint_rows),
    }
    return connection.execute(orphaned.values(freed)).rowcount


def _group(rows: Iterable[Row[*tuple[Any, ...]]], max_bytes: int) -> Iterator[ClaimedObject]:
    """Yield objects while they fit, and the first one in any case.

    A suspect, and what has failed before, comes first or not at all, and alone: so what is wrong with it is its own.
    """
    total_bytes = 0
    for number, row in enumerate(rows):
        claimed = claimed_object(row)
        total_bytes += claimed.object.size_bytes
        alone = claimed.suspect or claimed.attempts > 0
        if number and (total_bytes > max_bytes or alone):
            return
        yield claimed
        if alone:
            return


def claimed_object(row: Row[*tuple[Any, ...]]) -> ClaimedObject:
    """Return the object of a row of CLAIMED."""
    # All columns at once: one by one, by their names, they take 5 us an object.
    id_, key, etag, size_bytes, last_modified, event_type, hour, *tried, rows = row[:-_BOOKS]
    attempts, crashes, trial_row, rewinds, restarted_at, resend = tried
    return ClaimedObject(
        id_,
        CurrentsObject(key, etag, size_bytes, last_modified, event_type, _hour(hour)),
        attempts,
        Checkpoint(rows, Books(*row[-_BOOKS:])),
        crashes=crashes,
        trial_row=trial_row,
        rewinds=rewinds,
        restarted_at=restarted_at,
        resend=resend,
    )
