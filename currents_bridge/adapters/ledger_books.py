"""The books: sums over what was delivered and what could be read of quarantined objects."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, Subquery, Table, func, literal, select, union, union_all

from currents_bridge.adapters import ledger_acknowledged
from currents_bridge.adapters.ledger_schema import (
    BOOKS,
    CREDENTIAL,
    NOT_DELIVERED,
    QUARANTINED,
    connectors,
    credentials,
    hour_from,
    hours,
    notices,
    objects,
    selected,
)
from currents_bridge.errors import Side
from currents_bridge.model import (
    Books,
    ConnectorTotals,
    Credential,
    CredentialState,
    EvidenceKind,
    ExpiryRule,
    HourBooks,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Rewound,
    Selection,
    TypeActivity,
    Waiting,
    format_hour,
    parse_hour,
)

EXPIRY_RULES = TypeAdapter(tuple[ExpiryRule, ...])
FINDINGS = TypeAdapter(dict[str, int])


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
    # Nothing but columns of the index, so that a long backlog is read from it alone.
    held_back = select(
        objects.c.state,
        func.count().label("objects"),
        func.sum(objects.c.size_bytes).label("size_bytes"),
        func.sum(objects.c.rewound_events).label("events"),
        func.min(objects.c.last_modified).label("oldest_at"),
    ).where(objects.c.connector == connector, NOT_DELIVERED)
    troubled = select(objects.c.reason, func.count()).where(
        objects.c.connector == connector,
        NOT_DELIVERED,
        objects.c.state.in_([ObjectState.FAILED, ObjectState.QUARANTINED]),
    )
    noted = (
        select(notices.c.kind, notices.c.subject, notices.c.detail, notices.c["count"], notices.c.noted_at)
        .where(notices.c.connector == connector)
        .order_by(notices.c.kind, notices.c.subject)
    )
    by_state = connection.execute(held_back.group_by(objects.c.state)).all()
    waiting = [row for row in by_state if row.state not in {ObjectState.QUARANTINED, ObjectState.EXCLUDED}]
    delivered, *books = connection.execute(select(*_sums(_held(connector), ("objects", *BOOKS)))).one()
    counts = dict.fromkeys(ObjectState, 0) | {ObjectState(row.state): row.objects for row in by_state}
    known = connection.execute(select(connectors).where(connectors.c.name == connector)).one_or_none()
    return ConnectorTotals(
        objects=counts | {ObjectState.DELIVERED: delivered},
        books=Books(*books),
        waiting=Waiting(
            objects=sum(row.objects for row in waiting),
            size_bytes=sum(row.size_bytes for row in waiting),
            events=sum(row.events for row in waiting),
            oldest_at=min((row.oldest_at for row in waiting), default=None),
        ),
        credentials=credentials_of(connection, connector),
        rewound=Rewound(known.rewound_objects, known.rewound_events, known.rewound_letters) if known else Rewound(),
        notices=[Notice(NoticeKind(kind), *rest) for kind, *rest in connection.execute(noted)],
        progress=_progress(known),
        unproven_events=ledger_acknowledged.count(connection, connector),
        failed_reasons={row[0]: row[1] for row in connection.execute(troubled.group_by(objects.c.reason))},
        expiry_rules=EXPIRY_RULES.validate_json(known.expiry_rules) if known and known.expiry_rules else (),
    )


def activity(connection: Connection, connector: str, since: datetime, until: datetime) -> list[TypeActivity]:
    """Return when files of each event type came, by the hours that hold any and by what is not delivered."""
    names, last = ("event_type", "hour"), format_hour(until)
    held = union(
        select(*(hours.c[name] for name in names)).where(hours.c.connector == connector, hours.c.hour <= last),
        select(*(objects.c[name] for name in names)).where(
            objects.c.connector == connector, NOT_DELIVERED, objects.c.hour <= last
        ),
    ).subquery()
    asked_for = func.count().filter(held.c.hour >= hour_from(since))
    by_type = select(held.c.event_type, func.max(held.c.hour), asked_for).group_by(held.c.event_type)
    return [
        TypeActivity(event_type, parse_hour(latest), active)
        for event_type, latest, active in connection.execute(by_type.order_by(held.c.event_type))
    ]


def credentials_of(connection: Connection, connector: str) -> dict[Side, Credential]:
    """Return what is known of both credentials."""
    known = {side: Credential() for side in Side}
    columns = (credentials.c[name] for name in ("side", *CREDENTIAL))
    for side, *values in connection.execute(select(*columns).where(credentials.c.connector == connector)):
        found = Credential(*values)
        cause = None if found.cause is None else EvidenceKind(found.cause)
        known[Side(side)] = replace(found, state=CredentialState(found.state), cause=cause)
    return known


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
    if row is None:
        return Progress()
    findings = None if row.findings is None else FINDINGS.validate_json(row.findings)
    return Progress(row.polled_at, row.audited_at, row.started_at, row.looked_at, row.poll_error, findings)
