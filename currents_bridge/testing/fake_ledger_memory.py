"""What the owners of a ledger in memory share: plain records, letters and ids, to be looked at by tests."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import polars as pl

from currents_bridge.model import (
    Books,
    CredentialReport,
    CurrentsObject,
    DeadLetter,
    LetterFilter,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Recorded,
    StoredDeadLetter,
)


@dataclass
class Record:
    """One object."""

    id: int
    connector: str
    object: CurrentsObject
    state: ObjectState = ObjectState.PENDING
    attempts: int = 0
    retry_at: datetime | None = None
    owner: Any = None  # a FakeLedger
    reason: str | None = None
    crashes: int = 0
    checkpoint_rows: int = 0
    books: Books = field(default_factory=Books)  # of the rows before the checkpoint, until it is settled
    settled_at: datetime | None = None
    folded: bool = False

    def is_due(self, now: datetime) -> bool:
        """Whether it can be claimed."""
        waited = self.state == ObjectState.FAILED and self.retry_at is not None and self.retry_at <= now
        return self.state == ObjectState.PENDING or waited

    def free(self) -> None:
        """End the claim."""
        self.state = ObjectState.FAILED if self.attempts else ObjectState.PENDING
        self.owner = None

    def recorded(self, item: CurrentsObject) -> Recorded:
        """Compare it with an object of a listing; the size is no longer known of a folded one."""
        if self.state == ObjectState.QUARANTINED:
            return Recorded.QUARANTINED
        if self.state != ObjectState.DELIVERED:
            return Recorded.WAITING
        same = self.object.etag == item.etag and (self.folded or self.object.size_bytes == item.size_bytes)
        return Recorded.DELIVERED if same else Recorded.CHANGED


@dataclass
class LedgerMemory:
    """What all owners of one ledger share; `lock` is held around every use."""

    lock: threading.Lock = field(default_factory=threading.Lock)
    records: list[Record] = field(default_factory=list)
    letters: list[StoredDeadLetter] = field(default_factory=list)  # in the order of their ids
    sent: dict[str, dict[str, datetime]] = field(default_factory=dict)  # connector -> message id -> settled at
    notices: dict[tuple[str, NoticeKind, str], Notice] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    credentials: dict[str, CredentialReport] = field(default_factory=dict)
    heartbeats: dict[Any, datetime] = field(default_factory=dict)
    next_id: int = 1
    next_letter_id: int = 1

    def keep(self, record: Record, letters: Sequence[DeadLetter], now: datetime) -> None:
        """Let the letters follow those of the object that stand before its checkpoint."""
        self.forget_letters(record, record.checkpoint_rows)
        of_object = record.connector, record.object.key
        known = {
            stored.letter.row: at
            for at, stored in enumerate(self.letters)
            if (stored.connector, stored.object_key) == of_object
        }
        for letter in letters:
            if (at := known.get(letter.row)) is not None:
                self.letters[at] = replace(self.letters[at], letter=letter, created_at=now)
                continue
            self.letters.append(
                StoredDeadLetter(self.next_letter_id, *of_object, record.object.event_type, letter, 0, now)
            )
            self.next_letter_id += 1

    def forget_letters(self, record: Record, from_row: int = 0) -> None:
        """Delete the object's letters from a row on."""
        self.letters = [
            stored
            for stored in self.letters
            if (stored.connector, stored.object_key) != (record.connector, record.object.key)
            or stored.letter.row < from_row
        ]

    def remember(self, connector: str, message_ids: pl.Series | None, now: datetime) -> None:
        """Keep message ids."""
        if message_ids is not None:
            self.sent.setdefault(connector, {}).update(dict.fromkeys(message_ids, now))

    def move_to_sent(self, stored: StoredDeadLetter) -> None:
        """Move one event from dead_lettered to sent where the object's books hold the letter."""
        for record in self.records:
            if (record.connector, record.object.key) != (stored.connector, stored.object_key):
                continue
            settled = record.state in (ObjectState.DELIVERED, ObjectState.QUARANTINED)
            books = record.books
            if (settled or stored.letter.row < record.checkpoint_rows) and books.dead_lettered:
                record.books = replace(books, sent=books.sent + 1, dead_lettered=books.dead_lettered - 1)


def is_meant(stored: StoredDeadLetter, which: LetterFilter) -> bool:
    """Whether the filter lets the letter through."""
    return (
        which.connector in (None, stored.connector)
        and (which.event_type is None or fnmatchcase(stored.event_type, which.event_type))
        and (which.reason is None or which.reason.lower() in stored.letter.reason.lower())
        and (which.since is None or which.since <= stored.created_at)
        and (which.until is None or stored.created_at < which.until)
        and (which.ids is None or stored.id in which.ids)
    )
