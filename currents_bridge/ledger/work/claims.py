"""Claims: what is due, what one process may take at once, and what becomes of the claims of the dead."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from itertools import islice, takewhile
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    TextClause,
    case,
    delete,
    func,
    insert,
    literal,
    select,
    true,
    update,
)

from currents_bridge.due import LAST_RETRY
from currents_bridge.ledger.records import quarantine
from currents_bridge.ledger.schema import (
    BOOKS,
    FAILED,
    OWNED,
    PENDING,
    PENDING_RESENT,
    UtcTime,
    objects,
    owners,
    selected,
)
from currents_bridge.model import (
    Books,
    Checkpoint,
    ClaimedObject,
    CurrentsObject,
    GroupLimits,
    ObjectState,
    Reclaimed,
    Selection,
    parse_hour,
)

MOST_TRIALS = 3  # that ended with the process, at the same row: then it is set aside
MOST_CRASHES = 1 + MOST_TRIALS  # the first one was before any trial
TOO_MANY_CRASHES = (
    f"the process ended in {MOST_TRIALS} trials of this file, each at the same row; if something else ended it,"
    " `currents-bridge quarantine replay` delivers it"
)

_BOOKS = len(BOOKS)
_WAITING = case((objects.c.attempts > 0, ObjectState.FAILED), else_=ObjectState.PENDING)
_hour = lru_cache(1024)(parse_hour)  # a group has few hours
_ORDER = (objects.c.hour, objects.c.event_type, objects.c.key)
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
    """Return the objects that are to be claimed next, as they are before.

    Each lane is read in the order of its index and no further than the group, however much waits in it. Of what failed
    only the one that has been due for longest can be next: it goes alone, before all that is of no older hour.
    """
    meant = tuple(selected(objects, connector, selection))
    failed = select(*CLAIMED).where(FAILED, *meant).order_by(objects.c.retry_at, objects.c.id).limit(1)
    came, of_no_clock = objects.c.retry_at <= now, objects.c.retry_at > now + LAST_RETRY
    row = connection.execute(failed.where(came)).first() or connection.execute(failed.where(of_no_clock)).first()
    due = [claimed_object(row)] if row else []
    lanes = [PENDING, PENDING_RESENT] if selection.resend else [PENDING]
    rows = [
        connection.execute(select(*CLAIMED).where(lane, *meant).order_by(*_ORDER).limit(limits.max_objects))
        for lane in lanes
    ]
    pending = islice(map(claimed_object, _merged(rows)), limits.max_objects)
    before = takewhile(lambda item: not due or _place(item) < _place(due[0]), pending)
    return list(_group(before, limits.max_bytes)) or due


def open_to(selection: Selection) -> ColumnElement[bool]:
    """Return what holds of objects that may be claimed: what a backfill at work sends again is left to such ones."""
    return true() if selection.resend else objects.c.resender.is_(None)


def take_away(connection: Connection, *which: ColumnElement[bool] | TextClause) -> None:
    """Give the claimed objects new ids, so that nothing their owner says of the old ones can count; the rest stays.

    The owner may live after all, and claim the same objects anew while its threads still work on the lost claims.
    """
    lost = connection.execute(delete(objects).where(OWNED, *which).returning(*objects.c)).mappings().all()
    renewed = [{**row, "id": None} for row in sorted(lost, key=lambda row: row["id"])]
    if renewed:
        connection.execute(insert(objects), renewed)


def orphans(connector: str) -> tuple[ColumnElement[bool] | TextClause, ...]:
    """Return what holds of the connector's objects that are claimed by an owner who is not known."""
    return OWNED, objects.c.connector == connector, objects.c.owner.not_in(select(owners.c.id))


def free_orphans(connection: Connection, connector: str, now: datetime) -> Reclaimed:
    """Free each claim whose owner is not known, and set aside what ended too many."""
    too_many = objects.c.crashes >= MOST_CRASHES
    of_unknown = orphans(connector)
    take_away(connection, *of_unknown)
    blamed = connection.execute(select(objects.c.id).where(too_many, *of_unknown)).scalars().all()
    orphaned = update(objects).where(*of_unknown)
    freed = {
        "owner": None,
        "state": case((too_many, ObjectState.QUARANTINED), else_=_WAITING),
        "crashes": case((too_many, 0), else_=func.max(objects.c.crashes, 1)),
        "reason": case((too_many, TOO_MANY_CRASHES), else_=objects.c.reason),
        "cause": case((too_many, TOO_MANY_CRASHES), else_=objects.c.cause),
        "settled_at": case((too_many, literal(now, UtcTime())), else_=objects.c.settled_at),
        "checkpoint_rows": case((too_many, 0), else_=objects.c.checkpoint_rows),
    }
    count = connection.execute(orphaned.values(freed)).rowcount
    return Reclaimed(count, quarantine.find(connection, connector, blamed) if blamed else ())


def _merged(lanes: Sequence[Iterable[Row[*tuple[Any, ...]]]]) -> Iterable[Row[*tuple[Any, ...]]]:
    return lanes[0] if len(lanes) == 1 else heapq.merge(*lanes, key=lambda row: (row.hour, row.event_type, row.key))


def _place(claimed: ClaimedObject) -> tuple[datetime, str, str]:
    return claimed.object.hour, claimed.object.event_type, claimed.object.key


def _group(due: Iterable[ClaimedObject], max_bytes: int) -> Iterator[ClaimedObject]:
    """Yield objects while they fit, and the first one in any case.

    A suspect, and what has failed before, comes first or not at all, and alone: so what is wrong with it is its own.
    """
    total_bytes = 0
    for number, claimed in enumerate(due):
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
