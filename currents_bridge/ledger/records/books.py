"""The books: sums over what was delivered and what could be read of quarantined objects."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Connection, Row, Subquery, func, literal, or_, select, union, union_all

from currents_bridge.errors import Side
from currents_bridge.ledger.records import acknowledged
from currents_bridge.ledger.schema import (
    BOOKS,
    CREDENTIAL,
    NOT_DELIVERED,
    READ_QUARANTINED,
    connectors,
    credentials,
    hour_from,
    hours,
    notices,
    objects,
    reasons,
    selected,
)
from currents_bridge.ledger.schema import totals as totals_table
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
_WAITING = (ObjectState.PENDING, ObjectState.CLAIMED, ObjectState.FAILED)


def by_type(connection: Connection, connector: str) -> dict[str, Books]:
    """Return the books of each event type of which anything was delivered, or could be read of what is quarantined."""
    held = totals_table.c.objects > 0, or_(totals_table.c.state == ObjectState.DELIVERED, totals_table.c.read > 0)
    sums = select(totals_table.c.event_type, *(func.sum(totals_table.c[name]) for name in BOOKS)).where(
        totals_table.c.connector == connector, *held
    )
    return {name: Books(*books) for name, *books in connection.execute(sums.group_by(totals_table.c.event_type))}


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
    """Return what is held, by the totals that are kept as they change: it costs the same after years."""
    names = ("state", "objects", "size_bytes", "rewound_events", *BOOKS)
    kept = select(*(totals_table.c[name] for name in names)).where(totals_table.c.connector == connector)
    counts, books, waiting = dict.fromkeys(ObjectState, 0), Books(), Waiting()
    for state, count, size_bytes, events, *of_books in connection.execute(kept):
        counts[ObjectState(state)] += count
        books += Books(*of_books)
        if state in _WAITING:
            waiting = replace(
                waiting,
                objects=waiting.objects + count,
                size_bytes=waiting.size_bytes + size_bytes,
                events=waiting.events + events,
            )
    noted = (
        select(notices.c.kind, notices.c.subject, notices.c.detail, notices.c["count"], notices.c.noted_at)
        .where(notices.c.connector == connector)
        .order_by(notices.c.kind, notices.c.subject)
    )
    causes = select(reasons.c.cause, reasons.c.objects).where(reasons.c.connector == connector)
    known = connection.execute(select(connectors).where(connectors.c.name == connector)).one_or_none()
    return ConnectorTotals(
        objects=counts,
        books=books,
        waiting=replace(waiting, oldest_at=_oldest(connection, connector, [s for s in _WAITING if counts[s]])),
        credentials=credentials_of(connection, connector),
        rewound=Rewound(known.rewound_objects, known.rewound_events, known.rewound_letters) if known else Rewound(),
        notices=[Notice(NoticeKind(kind), *rest) for kind, *rest in connection.execute(noted)],
        progress=_progress(known),
        unproven_events=acknowledged.count(connection, connector),
        failed_reasons={row.cause: row.objects for row in connection.execute(causes)},
        expiry_rules=EXPIRY_RULES.validate_json(known.expiry_rules) if known and known.expiry_rules else (),
    )


def _oldest(connection: Connection, connector: str, states: Sequence[ObjectState]) -> datetime | None:
    """Return the last_modified of the oldest object in these states, by one step in the index for each."""
    found = (
        connection.execute(
            select(objects.c.last_modified)
            .where(NOT_DELIVERED, objects.c.connector == connector, objects.c.state == state)
            .order_by(objects.c.last_modified)
            .limit(1)
        ).scalar_one()
        for state in states
    )
    return min(found, default=None)


def newest_hour(connection: Connection, connector: str, event_types: frozenset[str], until: datetime) -> str | None:
    """Return the newest hour of these types, by a step back from `until` in each index."""
    last = format_hour(until)
    newest = (
        connection.scalar(
            select(table.c.hour)
            .where(*state, *selected(table, connector, Selection(event_types)), table.c.hour <= last)
            .order_by(table.c.hour.desc())
            .limit(1)
        )
        for table, state in ((hours, ()), (objects, (NOT_DELIVERED,)))
    )
    return max((hour for hour in newest if hour), default=None)


def activity(connection: Connection, connector: str, since: datetime, until: datetime) -> list[TypeActivity]:
    """Return when files of each event type came, by the hours that hold any and by what is not delivered."""
    first, last = hour_from(since), format_hour(until)
    held = union(
        *(
            select(table.c.event_type, table.c.hour).where(
                *state, table.c.connector == connector, table.c.hour >= first, table.c.hour <= last
            )
            for table, state in ((hours, ()), (objects, (NOT_DELIVERED,)))
        )
    ).subquery()
    by_type = select(held.c.event_type, func.max(held.c.hour), func.count()).group_by(held.c.event_type)
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
        cause, proven_by = (kind and EvidenceKind(kind) for kind in (found.cause, found.proven_by))
        state = CredentialState(found.state)
        known[Side(side)] = replace(found, state=state, cause=cause, proven_by=proven_by)
    return known


def progress(connection: Connection, connector: str) -> Progress:
    """Return how far discovery has come."""
    return _progress(connection.execute(select(connectors).where(connectors.c.name == connector)).one_or_none())


def _held(connector: str, selection: Selection) -> Subquery:
    """Return rows of hour, event type, delivered objects and books, several for one hour and type."""
    names = ("hour", "event_type")
    books_of_hours = select(*(hours.c[name] for name in (*names, "objects", *BOOKS)))
    books_of_objects = select(
        *(objects.c[name] for name in names), literal(0).label("objects"), *(objects.c[name] for name in BOOKS)
    )
    return union_all(
        books_of_hours.where(*selected(hours, connector, selection)),
        books_of_objects.where(READ_QUARANTINED, *selected(objects, connector, selection)),
    ).subquery()


def _sums(held: Subquery, names: Sequence[str]) -> list[Any]:
    return [func.coalesce(func.sum(held.c[name]), 0) for name in names]


def _progress(row: Row[Any] | None) -> Progress:
    if row is None:
        return Progress()
    findings = None if row.findings is None else FINDINGS.validate_json(row.findings)
    return Progress(row.polled_at, row.audited_at, row.started_at, row.looked_at, row.poll_error, findings)
