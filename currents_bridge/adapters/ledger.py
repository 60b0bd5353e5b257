"""The ledger in a database: the port `Ledger` on SQLAlchemy Core, over SQLite."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Connection,
    Row,
    Table,
    and_,
    bindparam,
    case,
    delete,
    func,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.adapters import ledger_fold, ledger_settle
from currents_bridge.adapters.ledger_admit import Sorter
from currents_bridge.adapters.ledger_owner import ProcessIdentity, has_ended, this_process
from currents_bridge.adapters.ledger_schema import (
    BOOKS,
    DELIVERED,
    NOT_DELIVERED,
    OWNED,
    connectors,
    hours,
    notices,
    objects,
    owners,
)
from currents_bridge.adapters.ledger_store import SqliteStore
from currents_bridge.model import (
    Books,
    ClaimedObject,
    ConnectorTotals,
    CredentialReport,
    CurrentsObject,
    Delivered,
    GroupLimits,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Selection,
    Settlement,
    format_hour,
    parse_hour,
)

LEASE_S = 90.0  # an owner that has not said for so long that it lives is dead
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)
_CHUNK_OBJECTS = 500  # in one query; SQLite takes 32,766 parameters

_UNCLAIMED = {"state": case((objects.c.attempts > 0, ObjectState.FAILED), else_=ObjectState.PENDING), "owner": None}


class SqlLedger:
    """A ledger in the SQLite file that `url` names (`sqlite:///relative` or `sqlite:////absolute`).

    Fulfils `ports.Ledger`, which says what each method promises. Each instance is an owner of claims of its own, in
    the name of `process` (default: this one). Raises LedgerError where the file cannot be used or is too new.
    """

    def __init__(self, url: str, *, now: datetime, process: ProcessIdentity | None = None) -> None:
        self._id = uuid.uuid4().hex
        self._process = process or this_process()
        self._closed = False
        self._store = SqliteStore(url)
        self.heartbeat(now)

    def admit(
        self, connector: str, listed: Sequence[CurrentsObject], now: datetime
    ) -> tuple[int, list[CurrentsObject]]:
        """Record new objects as pending; costs the listing, whatever the history."""
        new, changed = 0, []
        retake = update(objects).where(objects.c.connector == connector, objects.c.key == bindparam("of_key"))
        with self._store.writing() as connection:
            sorter = Sorter(connection, connector)
            for start in range(0, len(listed), _CHUNK_OBJECTS):
                found = sorter.sort(listed[start : start + _CHUNK_OBJECTS])
                if found.new:
                    fixed = {"connector": connector, "state": ObjectState.PENDING, "admitted_at": now}
                    connection.execute(insert(objects), [fixed | _recorded(item) for item in found.new])
                if found.retaken:
                    connection.execute(retake, [{"of_key": item.key} | _recorded(item) for item in found.retaken])
                new += len(found.new)
                changed += found.changed
        return new, changed

    def claim(
        self, connector: str, selection: Selection, limits: GroupLimits, now: datetime
    ) -> Sequence[ClaimedObject]:
        """Take the next group of due objects, and say that this owner lives."""
        due = or_(
            objects.c.state == ObjectState.PENDING,
            and_(objects.c.state == ObjectState.FAILED, objects.c.retry_at <= now),
        )
        next_due = (
            select(objects)
            .where(NOT_DELIVERED, due, *_selected(objects, connector, selection))
            .order_by(objects.c.hour, objects.c.event_type, objects.c.key)
            .limit(limits.max_objects)
        )
        with self._store.writing() as connection:
            self._say_alive(connection, now)
            group = list(_group(connection.execute(next_due), limits.max_bytes))
            mine = update(objects).where(objects.c.id.in_([claimed.id for claimed in group]))
            connection.execute(mine.values(state=ObjectState.CLAIMED, owner=self._id))
        return group

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record all outcomes in one transaction; a settlement that is refused leaves every object as it was."""
        for settlement in settlements:
            if isinstance(settlement, Delivered) and not settlement.books.balanced:
                raise ValueError(f"the books of object {settlement.id} do not balance: {settlement.books}")
        if not settlements:
            return
        with self._store.writing() as connection:
            mine = {
                row.id: row
                for row in connection.execute(
                    select(objects).where(
                        objects.c.id.in_([settlement.id for settlement in settlements]), objects.c.owner == self._id
                    )
                )
            }
            if len(mine) != len(settlements):
                strange = [settlement.id for settlement in settlements if settlement.id not in mine]
                raise RuntimeError(f"cannot settle objects that are not claimed, or twice at once: {strange}")
            ledger_settle.write(connection, [(mine[settlement.id], settlement) for settlement in settlements], now)

    def release(self, ids: Sequence[int]) -> None:
        """Give back those of the objects that are claimed by this owner."""
        mine = update(objects).where(objects.c.id.in_(ids), objects.c.owner == self._id)
        with self._store.writing() as connection:
            connection.execute(mine.values(_UNCLAIMED))

    def heartbeat(self, now: datetime) -> None:
        """Say that this owner lives, also where another one has already declared it dead."""
        with self._store.writing() as connection:
            self._say_alive(connection, now)

    def reclaim(self, now: datetime) -> int:
        """Forget dead owners, then free each claim whose owner is not known."""
        expired = now - timedelta(seconds=LEASE_S)
        with self._store.writing() as connection:
            others = connection.execute(select(owners).where(owners.c.id != self._id)).all()
            dead = [
                other.id
                for other in others
                if other.heartbeat_at < expired
                or has_ended(ProcessIdentity(other.host, other.pid, other.started_s), self._process.host)
            ]
            connection.execute(delete(owners).where(owners.c.id.in_(dead)))
            orphaned = update(objects).where(
                OWNED, objects.c.owner != self._id, objects.c.owner.not_in(select(owners.c.id))
            )
            return connection.execute(orphaned.values(_UNCLAIMED)).rowcount

    def outstanding(self, connector: str, listed: Sequence[CurrentsObject]) -> list[CurrentsObject]:
        """Return the objects that are new or wait; costs the listing, whatever the history."""
        waiting = select(objects.c.key).where(
            objects.c.connector == connector, NOT_DELIVERED, objects.c.state != ObjectState.QUARANTINED
        )
        found: list[CurrentsObject] = []
        with self._store.reading() as connection:
            sorter = Sorter(connection, connector)
            for start in range(0, len(listed), _CHUNK_OBJECTS):
                chunk = listed[start : start + _CHUNK_OBJECTS]
                of_chunk = waiting.where(objects.c.key.in_([item.key for item in chunk]))
                keys = {item.key for item in sorter.sort(chunk).new}.union(connection.execute(of_chunk).scalars())
                found += [item for item in chunk if item.key in keys]
        return found

    def books_by_type(self, connector: str) -> dict[str, Books]:
        """Add up what each hour holds."""
        sums = select(hours.c.event_type, *(func.sum(hours.c[name]) for name in BOOKS))
        with self._store.reading() as connection:
            rows = connection.execute(sums.where(hours.c.connector == connector).group_by(hours.c.event_type))
            return {event_type: Books(*books) for event_type, *books in rows}

    def hasten(self, connector: str, selection: Selection) -> int:
        """Make failed objects pending in all but their count of attempts."""
        failed = update(objects).where(
            NOT_DELIVERED, objects.c.state == ObjectState.FAILED, *_selected(objects, connector, selection)
        )
        with self._store.writing() as connection:
            return connection.execute(failed.values(retry_at=_LONG_AGO)).rowcount

    def reopen(self, connector: str, selection: Selection) -> int:
        """Make delivered objects pending; folded ones are forgotten and not counted."""
        delivered = update(objects).where(DELIVERED, *_selected(objects, connector, selection))
        pending = {"state": ObjectState.PENDING, "attempts": 0, "settled_at": None} | asdict(Books())
        with self._store.writing() as connection:
            # The sums of an hour hold delivered objects only, and none of the selection is delivered after this.
            connection.execute(delete(hours).where(*_selected(hours, connector, selection)))
            return connection.execute(delivered.values(pending)).rowcount

    def fold(self, connector: str, before_hour: datetime) -> int:
        """Fold hour by hour, each in a transaction of its own, so that a long history keeps no other writer waiting."""
        old = select(objects.c.hour).where(
            DELIVERED, objects.c.connector == connector, objects.c.hour < _hour_from(before_hour)
        )
        with self._store.reading() as connection:
            due = connection.execute(old.distinct().order_by(objects.c.hour)).scalars().all()
        folded = 0
        for hour in due:
            with self._store.writing() as connection:
                folded += ledger_fold.fold_hour(connection, connector, hour)
        return folded

    def progress(self, connector: str) -> Progress:
        """Return how far discovery has come."""
        with self._store.reading() as connection:
            return _progress(_connector(connection, connector))

    def save_progress(self, connector: str, progress: Progress) -> None:
        """Keep the fields that are not None."""
        self._save_connector(connector, {name: at for name, at in asdict(progress).items() if at is not None})

    def note(self, connector: str, notices_: Sequence[Notice], now: datetime) -> None:
        """Keep notices, the latest of each kind and subject."""
        if not notices_:
            return
        add = insert(notices)
        replaced = {name: add.excluded[name] for name in ("detail", "count", "noted_at")}
        with self._store.writing() as connection:
            connection.execute(
                add.on_conflict_do_update(set_=replaced),
                [{"connector": connector, "noted_at": now} | asdict(notice) for notice in notices_],
            )

    def save_credential(self, connector: str, report: CredentialReport) -> None:
        """Keep what is known of the connector's credentials."""
        self._save_connector(connector, {f"credential_{name}": value for name, value in asdict(report).items()})

    def totals(self, connector: str) -> ConnectorTotals:
        """Add up what waits and what each hour holds; delivered objects are not looked at."""
        waiting = select(objects.c.state, func.count(), func.min(objects.c.last_modified)).where(
            objects.c.connector == connector, NOT_DELIVERED
        )
        troubled = select(objects.c.reason, func.count()).where(
            objects.c.connector == connector,
            NOT_DELIVERED,
            objects.c.state.in_([ObjectState.FAILED, ObjectState.QUARANTINED]),
        )
        sums = select(*(func.coalesce(func.sum(hours.c[name]), 0) for name in ("objects", *BOOKS)))
        noted = (
            select(notices.c.kind, notices.c.subject, notices.c.detail, notices.c["count"])
            .where(notices.c.connector == connector)
            .order_by(notices.c.kind, notices.c.subject)
        )
        with self._store.reading() as connection:
            by_state = {row[0]: row for row in connection.execute(waiting.group_by(objects.c.state))}
            reasons = {row[0]: row[1] for row in connection.execute(troubled.group_by(objects.c.reason))}
            delivered, *books = connection.execute(sums.where(hours.c.connector == connector)).one()
            seen = [
                Notice(NoticeKind(kind), subject, detail, count)
                for kind, subject, detail, count in connection.execute(noted)
            ]
            known = _connector(connection, connector)
        counts = {state: by_state[state][1] if state in by_state else 0 for state in ObjectState}
        return ConnectorTotals(
            objects=counts | {ObjectState.DELIVERED: delivered},
            books=Books(*books),
            oldest_pending_at=min(
                (oldest for state, _, oldest in by_state.values() if state != ObjectState.QUARANTINED), default=None
            ),
            credential=_credential(known),
            notices=seen,
            progress=_progress(known),
            failed_reasons=reasons,
        )

    def close(self) -> None:
        """Give back all claims of this owner and close the file; no claim is possible afterwards."""
        if self._closed:
            return
        try:
            with self._store.writing() as connection:
                self._closed = True
                mine = update(objects).where(OWNED, objects.c.owner == self._id)
                connection.execute(mine.values(_UNCLAIMED))
                connection.execute(delete(owners).where(owners.c.id == self._id))
        finally:
            self._store.close()

    def _say_alive(self, connection: Connection, now: datetime) -> None:
        if self._closed:
            raise RuntimeError("the ledger is closed")
        owner = insert(owners).values(id=self._id, heartbeat_at=now, **asdict(self._process))
        connection.execute(owner.on_conflict_do_update(set_={"heartbeat_at": now}))

    def _save_connector(self, name: str, values: dict[str, Any]) -> None:
        if not values:
            return
        with self._store.writing() as connection:
            connection.execute(insert(connectors).values(name=name, **values).on_conflict_do_update(set_=values))


def _recorded(listed: CurrentsObject) -> dict[str, Any]:
    # Spelled out because `asdict` copies each value deeply, and millions of objects pass here.
    return {
        "key": listed.key,
        "etag": listed.etag,
        "size_bytes": listed.size_bytes,
        "last_modified": listed.last_modified,
        "event_type": listed.event_type,
        "hour": format_hour(listed.hour),
    }


def _connector(connection: Connection, name: str) -> Row[Any] | None:
    return connection.execute(select(connectors).where(connectors.c.name == name)).one_or_none()


def _progress(row: Row[Any] | None) -> Progress:
    return Progress(row.polled_at, row.swept_at, row.started_at) if row else Progress()


def _credential(row: Row[Any] | None) -> CredentialReport:
    if row is None or row.credential_state is None:
        return CredentialReport()
    return CredentialReport(row.credential_state, row.credential_since, row.credential_evidence)


def _hour_from(time: datetime) -> str:
    """Return the first whole hour at or after `time`, as the tables hold it."""
    return format_hour(time + timedelta(hours=1, microseconds=-1))


def _selected(table: Table, connector: str, selection: Selection) -> Iterator[ColumnElement[bool]]:
    yield table.c.connector == connector
    yield table.c.event_type.in_(sorted(selection.event_types))
    if selection.first_hour is not None:
        yield table.c.hour >= _hour_from(selection.first_hour)
    if selection.end_hour is not None:
        yield table.c.hour < _hour_from(selection.end_hour)


def _group(rows: Iterator[Row[Any]], max_bytes: int) -> Iterator[ClaimedObject]:
    """Yield objects while they fit, and the first one in any case."""
    total_bytes = 0
    for row in rows:
        total_bytes += row.size_bytes
        if total_bytes > max_bytes and total_bytes > row.size_bytes:
            return
        item = CurrentsObject(
            row.key, row.etag, row.size_bytes, row.last_modified, row.event_type, parse_hour(row.hour)
        )
        yield ClaimedObject(row.id, item, row.attempts)
