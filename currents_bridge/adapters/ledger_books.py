"""The books: sums over what was delivered and what could be read of quarantined objects."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, Subquery, Table, func, literal, select, union_all

from currents_bridge.adapters.ledger_schema import (
    BOOKS,
    NOT_DELIVERED,
    QUARANTINED,
    connectors,
    hours,
    notices,
    objects,
    selected,
)
from currents_bridge.model import (
    Books,
    ConnectorTotals,
    CredentialReport,
    HourBooks,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Selection,
    parse_hour,
)


def by_type(connection: Connection, connector: str) -> dict[str, Books]:
    """Add up the books of each event type."""
    held = _held(connector)
    sums = select(held.c.event_type, *_sums(held, BOOKS)).group_by(held.c.event_type)
    return {event_type: Books(*books) for event_type, *books in connection.execute(sums)}


def by_hour(connection: Connection, connector: str, selection: Selection) -> list[HourBooks]:
    """Add up the books of each hour and event type of the selection."""
    held = _held(connector, selection)
    slot = (held.c.hour, held.c.event_type)
    sums = select(*slot, *_sums(held, ("objects", *BOOKS))).group_by(*slot).order_by(*slot)
    return [
        HourBooks(event_type, parse_hour(hour), count, Books(*books))
        for hour, event_type, count, *books in connection.execute(sums)
    ]


def totals(connection: Connection, connector: str) -> ConnectorTotals:
    """Add up what waits and what each hour holds; delivered objects are not looked at."""
    waiting = select(objects.c.state, func.count(), func.min(objects.c.last_modified)).where(
        objects.c.connector == connector, NOT_DELIVERED
    )
    troubled = select(objects.c.reason, func.count()).where(
        objects.c.connector == connector,
        NOT_DELIVERED,
        objects.c.state.in_([ObjectState.FAILED, ObjectState.QUARANTINED]),
    )
    noted = (
        select(notices.c.kind, notices.c.subject, notices.c.detail, notices.c["count"])
        .where(notices.c.connector == connector)
        .order_by(notices.c.kind, notices.c.subject)
    )
    by_state = {row[0]: row for row in connection.execute(waiting.group_by(objects.c.state))}
    delivered, *books = connection.execute(select(*_sums(_held(connector), ("objects", *BOOKS)))).one()
    counts = {state: by_state[state][1] if state in by_state else 0 for state in ObjectState}
    known = connection.execute(select(connectors).where(connectors.c.name == connector)).one_or_none()
    return ConnectorTotals(
        objects=counts | {ObjectState.DELIVERED: delivered},
        books=Books(*books),
        oldest_pending_at=min(
            (oldest for state, _, oldest in by_state.values() if state != ObjectState.QUARANTINED), default=None
        ),
        credential=_credential(known),
        notices=[Notice(NoticeKind(kind), *rest) for kind, *rest in connection.execute(noted)],
        progress=_progress(known),
        failed_reasons={row[0]: row[1] for row in connection.execute(troubled.group_by(objects.c.reason))},
    )


def progress(connection: Connection, connector: str) -> Progress:
    """Return how far discovery has come."""
    return _progress(connection.execute(select(connectors).where(connectors.c.name == connector)).one_or_none())


def _held(connector: str, selection: Selection | None = None) -> Subquery:
    """Return rows of hour, event type, delivered objects and books, several for one hour and type."""

    def of(table: Table) -> Sequence[Any]:
        return tuple(selected(table, connector, selection)) if selection else (table.c.connector == connector,)

    names = ("hour", "event_type")
    books_of_hours = select(*(hours.c[name] for name in (*names, "objects", *BOOKS))).where(*of(hours))
    books_of_objects = select(
        *(objects.c[name] for name in names), literal(0).label("objects"), *(objects.c[name] for name in BOOKS)
    ).where(QUARANTINED, objects.c.read > 0, *of(objects))
    return union_all(books_of_hours, books_of_objects).subquery()


def _sums(held: Subquery, names: Sequence[str]) -> list[Any]:
    return [func.coalesce(func.sum(held.c[name]), 0) for name in names]


def _progress(row: Row[Any] | None) -> Progress:
    return Progress(row.polled_at, row.swept_at, row.started_at) if row else Progress()


def _credential(row: Row[Any] | None) -> CredentialReport:
    if row is None or row.credential_state is None:
        return CredentialReport()
    return CredentialReport(row.credential_state, row.credential_since, row.credential_evidence)
