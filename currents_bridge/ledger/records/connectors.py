"""What the ledger says of a connector as a whole: sums, progress, notices, credentials."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.errors import Side
from currents_bridge.ledger.database import SqliteStore
from currents_bridge.ledger.records import acknowledged as ledger_acknowledged
from currents_bridge.ledger.records import books, letters
from currents_bridge.ledger.records import notices as ledger_notices
from currents_bridge.ledger.records.books import EXPIRY_RULES, FINDINGS
from currents_bridge.ledger.schema import connectors, coverage, credentials, jobs, notices
from currents_bridge.ledger.work import canaries
from currents_bridge.model import (
    Acknowledged,
    Books,
    Canary,
    ConnectorTotals,
    Coverage,
    Credential,
    CurrentsObject,
    ExpiryRule,
    FailingJob,
    HourBooks,
    LetterFilter,
    Notice,
    NoticeKind,
    Progress,
    Selection,
    TypeActivity,
    format_hour,
    parse_hour,
)
from currents_bridge.sources.keys import READER


class SqlConnectors:
    """The part of `ports.Ledger` that needs no claims and touches no object."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def books_by_type(self, connector: str) -> dict[str, Books]:
        """Add up the books of each type."""
        with self._store.reading() as connection:
            return books.by_type(connection, connector)

    def hour_books(self, connector: str, selection: Selection) -> list[HourBooks]:
        """Add up the books of each hour and type."""
        with self._store.reading() as connection:
            return books.by_hour(connection, connector, selection)

    def totals(self, connector: str) -> ConnectorTotals:
        """Add up what waits and what each hour holds; delivered objects are not looked at."""
        with self._store.reading() as connection:
            return books.totals(connection, connector)

    def newest_hour(self, connector: str, event_types: frozenset[str], until: datetime) -> datetime | None:
        """Look for it from the end."""
        with self._store.reading() as connection:
            hour = books.newest_hour(connection, connector, event_types, until)
        return parse_hour(hour) if hour else None

    def activity(self, connector: str, since: datetime, until: datetime) -> list[TypeActivity]:
        """Look at the hours that hold something delivered, and at what is not delivered."""
        with self._store.reading() as connection:
            return books.activity(connection, connector, since, until)

    def dead_lettered(self, connector: str, since: datetime, until: datetime) -> int:
        """Count dead letters by their age."""
        with self._store.reading() as connection:
            return letters.count(connection, LetterFilter(connector, since=since, until=until + datetime.resolution))

    def coverage(self, connector: str, place: str) -> dict[str, Coverage]:
        """Return the folders listed by a reader of today."""
        of_place = (coverage.c.connector == connector, coverage.c.place == place, coverage.c.reader == READER)
        rows = select(coverage.c.folder, coverage.c.since, coverage.c.until).where(*of_place)
        with self._store.reading() as connection:
            return {
                folder: Coverage(parse_hour(since) if since else None, until)
                for folder, since, until in connection.execute(rows)
            }

    def save_coverage(self, connector: str, place: str, folders: Mapping[str, Coverage]) -> None:
        """Keep one row a folder."""
        if not folders:
            return
        add = insert(coverage)
        keep = add.on_conflict_do_update(set_={name: add.excluded[name] for name in ("since", "until", "reader")})
        rows = [
            {"connector": connector, "place": place, "folder": folder, "reader": READER}
            | {"since": format_hour(known.since) if known.since else None, "until": known.until}
            for folder, known in folders.items()
        ]
        with self._store.writing() as connection:
            connection.execute(keep, rows)

    def progress(self, connector: str) -> Progress:
        """Return how far discovery has come."""
        with self._store.reading() as connection:
            return books.progress(connection, connector)

    def save_progress(self, connector: str, progress: Progress) -> None:
        """Keep the fields that are not None."""
        values = {name: value for name, value in asdict(progress).items() if value is not None}
        if progress.findings is not None:
            values["findings"] = FINDINGS.dump_json(dict(progress.findings)).decode()
        self._save(connector, values)

    def save_expiry_rules(self, connector: str, rules: Sequence[ExpiryRule]) -> None:
        """Keep the rules as one text."""
        self._save(connector, {"expiry_rules": EXPIRY_RULES.dump_json(tuple(rules)).decode()})

    def note(self, connector: str, notices_: Sequence[Notice], now: datetime) -> None:
        """Keep notices, the latest of each kind and subject, with the time of the first."""
        if notices_:
            with self._store.writing() as connection:
                ledger_notices.note(connection, connector, notices_, now)

    def replace_notices(
        self,
        connector: str,
        kind: NoticeKind,
        notices_: Sequence[Notice],
        now: datetime,
        *,
        met_before: datetime | None = None,
    ) -> None:
        """Delete what is not among them, then keep them; the time of the first stays."""
        with self._store.reading() as connection:
            if not notices_ and not ledger_notices.has_any(connection, connector, kind):
                return  # as nearly always
        with self._store.writing() as connection:
            old = [ledger_notices.met_before(met_before, now)] if met_before else []
            ledger_notices.drop(connection, connector, kind, notices_, *old)
            ledger_notices.note(connection, connector, notices_, now, exact=True)

    def forget_notice(self, connector: str, kind: NoticeKind, subject: str) -> None:
        """Delete a notice."""
        it = (notices.c.connector == connector, notices.c.kind == kind, notices.c.subject == subject)
        with self._store.writing() as connection:
            connection.execute(delete(notices).where(*it))

    def credential(self, connector: str, side: Side) -> Credential:
        """Return what is known of one credential."""
        with self._store.reading() as connection:
            return books.credentials_of(connection, connector)[side]

    def save_credential(self, connector: str, side: Side, credential: Credential) -> None:
        """Keep what is known of one credential."""
        values = asdict(credential)
        keep = insert(credentials).values(connector=connector, side=side, **values)
        with self._store.writing() as connection:
            connection.execute(keep.on_conflict_do_update(set_=values))

    def acknowledge(self, connector: str, events: Acknowledged) -> None:
        """Add to the counts of a minute."""
        with self._store.writing() as connection:
            ledger_acknowledged.add(connection, connector, events)

    def acknowledged(self, connector: str) -> list[Acknowledged]:
        """Return a row a minute."""
        with self._store.reading() as connection:
            return ledger_acknowledged.read(connection, connector)

    def forget_acknowledged(self, connector: str, until: datetime | None = None) -> None:
        """Delete rows."""
        with self._store.writing() as connection:
            ledger_acknowledged.forget(connection, connector, until)

    def witnesses(self, connector: str, limit: int) -> list[tuple[CurrentsObject, datetime]]:
        """Look at the objects that were delivered last."""
        with self._store.reading() as connection:
            return canaries.witnesses(connection, connector, limit)

    def canary(self, connector: str, since: datetime, until: datetime) -> Canary | None:
        """Return the message that was acknowledged last, if it is new enough."""
        with self._store.reading() as connection:
            return canaries.message(connection, connector, since, until)

    def keep_canary(self, connector: str, canary: Canary | None, now: datetime) -> None:
        """Keep one message for each connector."""
        with self._store.writing() as connection:
            canaries.keep_message(connection, connector, canary, now)

    def job_ended(self, connector: str, job: str, error: str | None, now: datetime) -> None:
        """Count failures in a row; a run that ends well after one that did is only looked up."""
        it = (jobs.c.connector == connector, jobs.c.job == job)
        if error is None:
            with self._store.reading() as connection:
                if connection.execute(select(jobs.c.job).where(*it)).one_or_none() is None:
                    return
            with self._store.writing() as connection:
                connection.execute(delete(jobs).where(*it))
            return
        first = insert(jobs).values(connector=connector, job=job, failures=1, since=now, error=error)
        again = {"failures": jobs.c.failures + 1, "error": error}
        with self._store.writing() as connection:
            connection.execute(first.on_conflict_do_update(set_=again))

    def failing_jobs(self) -> list[FailingJob]:
        """Return what is recorded."""
        columns = (jobs.c[name] for name in ("connector", "job", "failures", "since", "error"))
        with self._store.reading() as connection:
            return [
                FailingJob(*row) for row in connection.execute(select(*columns).order_by(jobs.c.connector, jobs.c.job))
            ]

    def _save(self, name: str, values: dict[str, Any]) -> None:
        if not values:
            return
        with self._store.writing() as connection:
            connection.execute(insert(connectors).values(name=name, **values).on_conflict_do_update(set_=values))
