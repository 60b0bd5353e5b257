"""A ledger in memory: plain lists, one lock, nothing clever; SqlLedger must answer as this does."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime, timedelta

from currents_bridge.model import (
    Books,
    ClaimedObject,
    ConnectorTotals,
    CredentialReport,
    CurrentsObject,
    DeadLetter,
    Delivered,
    Failed,
    GroupLimits,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Quarantined,
    Selection,
    Settlement,
)

LEASE = timedelta(seconds=90)


@dataclass
class _Record:
    id: int
    connector: str
    object: CurrentsObject
    state: ObjectState = ObjectState.PENDING
    attempts: int = 0
    retry_at: datetime | None = None
    owner: "FakeLedger | None" = None
    reason: str | None = None
    books: Books = field(default_factory=Books)
    folded: bool = False

    def is_due(self, now: datetime) -> bool:
        waited = self.state == ObjectState.FAILED and self.retry_at is not None and self.retry_at <= now
        return self.state == ObjectState.PENDING or waited

    def free(self) -> None:
        self.state = ObjectState.FAILED if self.attempts else ObjectState.PENDING
        self.owner = None


@dataclass
class LedgerMemory:
    """What all owners of one ledger share."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    records: list[_Record] = field(default_factory=list)
    letters: dict[tuple[str, str], list[DeadLetter]] = field(default_factory=dict)
    notices: dict[tuple[str, NoticeKind, str], Notice] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    credentials: dict[str, CredentialReport] = field(default_factory=dict)
    heartbeats: dict["FakeLedger", datetime] = field(default_factory=dict)
    next_id: int = 1


class FakeLedger:
    """One owner of a ledger in memory; fulfils `ports.Ledger`.

    Another owner of the same ledger is made with its `memory`. Of an owner, only the heartbeat is known.
    """

    def __init__(self, memory: LedgerMemory | None = None) -> None:
        self.memory = memory or LedgerMemory()

    def dead_letters(self, connector: str) -> list[tuple[str, DeadLetter]]:
        """Return all dead letters of the connector, each with the key of its object, by key and row."""
        with self.memory.lock:
            return [
                (key, letter)
                for (of, key), letters in sorted(self.memory.letters.items())
                if of == connector
                for letter in sorted(letters, key=lambda letter: letter.row)
            ]

    def admit(
        self,
        connector: str,
        listed: Sequence[CurrentsObject],
        now: datetime,  # noqa: ARG002
    ) -> tuple[int, list[CurrentsObject]]:
        """Record new objects as pending."""
        new, changed = 0, []
        with self.memory.lock:
            known = {record.object.key: record for record in self.memory.records if record.connector == connector}
            for item in listed:
                record = known.get(item.key)
                if record is None:
                    record = known[item.key] = _Record(self.memory.next_id, connector, item)
                    self.memory.records.append(record)
                    self.memory.next_id += 1
                    new += 1
                elif record.object.etag == item.etag:
                    continue
                elif record.state in (ObjectState.PENDING, ObjectState.FAILED):
                    record.object = item
                else:
                    changed.append(item)
        return new, changed

    def claim(
        self, connector: str, selection: Selection, limits: GroupLimits, now: datetime
    ) -> Sequence[ClaimedObject]:
        """Take the next group of due objects."""
        with self.memory.lock:
            self.memory.heartbeats[self] = now
            group: list[_Record] = []
            due = [record for record in self._selected(connector, selection) if record.is_due(now)]
            for record in sorted(due, key=lambda r: (r.object.hour, r.object.event_type, r.object.key)):
                total_bytes = sum(taken.object.size_bytes for taken in group) + record.object.size_bytes
                if group and (len(group) == limits.max_objects or total_bytes > limits.max_bytes):
                    break
                group.append(record)
            for record in group:
                record.state, record.owner = ObjectState.CLAIMED, self
            return [ClaimedObject(record.id, record.object, record.attempts) for record in group]

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:  # noqa: ARG002
        """Record all outcomes, or none."""
        for settlement in settlements:
            if isinstance(settlement, Delivered) and not settlement.books.balanced:
                raise ValueError(f"the books of object {settlement.id} do not balance: {settlement.books}")
        with self.memory.lock:
            mine = {record.id: record for record in self.memory.records if record.owner is self}
            ids = [settlement.id for settlement in settlements]
            if not mine.keys() >= set(ids) or len(set(ids)) != len(ids):
                raise RuntimeError(f"cannot settle objects that are not claimed, or twice at once: {ids}")
            for settlement in settlements:
                record = mine[settlement.id]
                record.owner = record.retry_at = record.reason = None
                match settlement:
                    case Delivered(books=books, dead_letters=letters):
                        record.state, record.books = ObjectState.DELIVERED, books
                        self.memory.letters[record.connector, record.object.key] = list(letters)
                    case Failed(reason=reason, retry_at=retry_at):
                        record.state, record.reason, record.retry_at = ObjectState.FAILED, reason, retry_at
                        record.attempts += 1
                    case Quarantined(reason=reason):
                        record.state, record.reason = ObjectState.QUARANTINED, reason

    def release(self, ids: Sequence[int]) -> None:
        """Give back those of the objects that are claimed by this owner."""
        with self.memory.lock:
            for record in self.memory.records:
                if record.owner is self and record.id in ids:
                    record.free()

    def heartbeat(self, now: datetime) -> None:
        """Say that this owner lives."""
        with self.memory.lock:
            self.memory.heartbeats[self] = now

    def reclaim(self, now: datetime) -> int:
        """Free the claims of every other owner without a heartbeat in the last 90 s."""
        with self.memory.lock:
            live = {owner for owner, at in self.memory.heartbeats.items() if at >= now - LEASE} | {self}
            orphans = [record for record in self.memory.records if record.owner and record.owner not in live]
            for record in orphans:
                record.free()
            return len(orphans)

    def outstanding(self, connector: str, listed: Sequence[CurrentsObject]) -> list[CurrentsObject]:
        """Return the objects that are neither delivered nor quarantined."""
        done = {ObjectState.DELIVERED, ObjectState.QUARANTINED}
        with self.memory.lock:
            settled = {r.object.key for r in self.memory.records if r.connector == connector and r.state in done}
        return [item for item in listed if item.key not in settled]

    def books_by_type(self, connector: str) -> dict[str, Books]:
        """Add up the books of delivered objects."""
        books: dict[str, Books] = {}
        with self.memory.lock:
            for record in self.memory.records:
                if record.connector == connector and record.state == ObjectState.DELIVERED:
                    of_type = record.object.event_type
                    books[of_type] = books.get(of_type, Books()) + record.books
        return books

    def hasten(self, connector: str, selection: Selection) -> int:
        """Make failed objects due at once."""
        with self.memory.lock:
            failed = [r for r in self._selected(connector, selection) if r.state == ObjectState.FAILED]
            for record in failed:
                record.retry_at = datetime.min.replace(tzinfo=UTC)
            return len(failed)

    def reopen(self, connector: str, selection: Selection) -> int:
        """Make delivered objects pending; folded ones are forgotten and not counted."""
        with self.memory.lock:
            delivered = [r for r in self._selected(connector, selection) if r.state == ObjectState.DELIVERED]
            forgotten = [record.id for record in delivered if record.folded]
            self.memory.records = [record for record in self.memory.records if record.id not in forgotten]
            for record in delivered:
                record.state, record.attempts, record.books = ObjectState.PENDING, 0, Books()
            return len(delivered) - len(forgotten)

    def fold(self, connector: str, before_hour: datetime) -> int:
        """Mark delivered objects of complete hours as folded."""
        with self.memory.lock:
            old = [r for r in self.memory.records if r.connector == connector and r.object.hour < before_hour]
            unfinished = {
                (record.object.hour, record.object.event_type)
                for record in old
                if record.state != ObjectState.DELIVERED
            }
            folded = [
                record
                for record in old
                if not record.folded and (record.object.hour, record.object.event_type) not in unfinished
            ]
            for record in folded:
                record.folded = True
            return len(folded)

    def progress(self, connector: str) -> Progress:
        """Return how far discovery has come."""
        with self.memory.lock:
            return self.memory.progress.get(connector, Progress())

    def save_progress(self, connector: str, progress: Progress) -> None:
        """Keep the fields that are not None."""
        with self.memory.lock:
            known = self.memory.progress.get(connector, Progress())
            given = {name: at for name, at in asdict(progress).items() if at is not None}
            self.memory.progress[connector] = replace(known, **given)

    def note(self, connector: str, notices: Sequence[Notice], now: datetime) -> None:  # noqa: ARG002
        """Keep notices, the latest of each kind and subject."""
        with self.memory.lock:
            self.memory.notices.update({(connector, notice.kind, notice.subject): notice for notice in notices})

    def save_credential(self, connector: str, report: CredentialReport) -> None:
        """Keep what is known of the connector's credentials."""
        with self.memory.lock:
            self.memory.credentials[connector] = report

    def totals(self, connector: str) -> ConnectorTotals:
        """Add up everything."""
        with self.memory.lock:
            records = [record for record in self.memory.records if record.connector == connector]
            states = Counter(record.state for record in records)
            settled = (ObjectState.DELIVERED, ObjectState.QUARANTINED)
            return ConnectorTotals(
                objects={state: states[state] for state in ObjectState},
                books=sum((record.books for record in records), Books()),
                oldest_pending_at=min(
                    (r.object.last_modified for r in records if r.state not in settled), default=None
                ),
                credential=self.memory.credentials.get(connector, CredentialReport()),
                notices=[notice for (of, *_), notice in sorted(self.memory.notices.items()) if of == connector],
                progress=self.memory.progress.get(connector, Progress()),
                failed_reasons=dict(
                    Counter(
                        record.reason
                        for record in records
                        if record.reason is not None and record.state in (ObjectState.FAILED, ObjectState.QUARANTINED)
                    )
                ),
            )

    def close(self) -> None:
        """Give back all claims of this owner."""
        with self.memory.lock:
            for record in self.memory.records:
                if record.owner is self:
                    record.free()
            self.memory.heartbeats.pop(self, None)

    def _selected(self, connector: str, selection: Selection) -> Iterator[_Record]:
        for record in self.memory.records:
            if (
                record.connector == connector
                and record.object.event_type in selection.event_types
                and (selection.first_hour is None or selection.first_hour <= record.object.hour)
                and (selection.end_hour is None or record.object.hour < selection.end_hour)
            ):
                yield record
