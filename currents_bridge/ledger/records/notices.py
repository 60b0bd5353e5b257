"""Notices in the database: bounded in number, and over once nothing meets them any more."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import datetime

from sqlalchemy import ColumnElement, Connection, delete, exists, func, or_, select
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.ledger.bulk import among
from currents_bridge.ledger.schema import notices
from currents_bridge.model import MORE, MOST_NOTICES, Notice, NoticeKind


def note(
    connection: Connection, connector: str, noted: Sequence[Notice], now: datetime, *, exact: bool = False
) -> None:
    """Keep notices: with their counts, or with the larger ones that they had before."""
    of_kind = defaultdict[NoticeKind, list[Notice]](list)
    for notice in noted:
        of_kind[notice.kind].append(notice)
    rows = [
        {"connector": connector, "kind": kind, "subject": one.subject, "detail": one.detail, "count": one.count}
        | {"noted_at": now, "met_at": now}
        for kind, of_one in of_kind.items()
        for one in _bounded(_subjects(connection, connector, kind), kind, of_one)
    ]
    if rows:
        add = insert(notices)
        count = add.excluded["count"] if exact else func.max(notices.c["count"], add.excluded["count"])
        replaced = {"detail": add.excluded.detail, "count": count, "met_at": add.excluded.met_at}
        connection.execute(add.on_conflict_do_update(set_=replaced), rows)


def drop(
    connection: Connection, connector: str, kind: NoticeKind, but: Sequence[Notice], *old: ColumnElement[bool]
) -> None:
    """Delete the notices of a kind but these; of the others only what is `old`."""
    gone = _subjects(connection, connector, kind) - {notice.subject for notice in but}
    others = notices.c.connector == connector, notices.c.kind == kind, among(notices.c.subject, gone)
    connection.execute(delete(notices).where(*others, *old))


def met_before(time: datetime, now: datetime) -> ColumnElement[bool]:
    """Return what holds of notices that were met last before a time, or by a clock that ran ahead."""
    return or_(notices.c.met_at.is_(None), notices.c.met_at < time, notices.c.met_at > now)


def has_any(connection: Connection, connector: str, kind: NoticeKind) -> bool:
    """Return whether there is any notice of a kind."""
    return bool(connection.scalar(select(exists().where(notices.c.connector == connector, notices.c.kind == kind))))


def _subjects(connection: Connection, connector: str, kind: NoticeKind) -> set[str]:
    of_kind = select(notices.c.subject).where(notices.c.connector == connector, notices.c.kind == kind)
    return set(connection.scalars(of_kind))


def _bounded(known: set[str], kind: NoticeKind, noted: Sequence[Notice]) -> Iterator[Notice]:
    """Yield the notices that have a row or may have one, and at the end one that counts the others."""
    rows, more = len(known - {MORE}), 0
    for notice in noted:
        if notice.subject in known:
            yield notice
        elif rows < MOST_NOTICES:
            rows += 1
            yield notice
        else:
            more += 1
    if more:
        yield Notice(kind, MORE, f"{MOST_NOTICES} are named, others are only counted", more)
