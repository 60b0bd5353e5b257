"""What the owners of a ledger in memory share: plain records, letters and ids, to be looked at by tests."""

import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

import polars as pl

from currents_bridge.errors import Side
from currents_bridge.model import (
    Books,
    Credential,
    CurrentsObject,
    DeadLetter,
    ExpiryRule,
    LetterFilter,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Recorded,
    Rewound,
    Selection,
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
    rewinds: int = 0
    rewound_events: int = 0  # known to wait

    def is_due(self, now: datetime) -> bool:
        """Whether it can be claimed."""
        waited = self.state == ObjectState.FAILED and self.retry_at is not None and self.retry_at <= now
        return self.state == ObjectState.PENDING or waited

    def free(self) -> None:
        """End the claim."""
        self.state = ObjectState.FAILED if self.attempts else ObjectState.PENDING
        self.owner = None

    @property
    def waits(self) -> bool:
        """Whether it is neither delivered nor quarantined."""
        return self.state not in (ObjectState.DELIVERED, ObjectState.QUARANTINED)

    def acknowledged_since(self, since: datetime) -> bool:
        """Whether anything of it was acknowledged since, or may be by now."""
        if self.waits:
            return self.state == ObjectState.CLAIMED or self.checkpoint_rows > 0
        late = self.settled_at is not None and self.settled_at >= since
        return late and not self.folded and (self.state == ObjectState.DELIVERED or self.books.read > 0)

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
    sent_at: dict[int, datetime] = field(default_factory=dict)  # id of a letter -> acknowledged replay
    sent: dict[str, dict[str, datetime]] = field(default_factory=dict)  # connector -> message id -> settled at
    notices: dict[tuple[str, NoticeKind, str], Notice] = field(default_factory=dict)
    progress: dict[str, Progress] = field(default_factory=dict)
    credentials: dict[tuple[str, Side], Credential] = field(default_factory=dict)
    expiry_rules: dict[str, tuple[ExpiryRule, ...]] = field(default_factory=dict)
    rewound: dict[str, Rewound] = field(default_factory=dict)
    heartbeats: dict[Any, datetime] = field(default_factory=dict)
    next_id: int = 1
    next_letter_id: int = 1

    def selected(self, connector: str, selection: Selection) -> Iterator[Record]:
        """Yield the objects that are meant."""
        for record in self.records:
            if (
                record.connector == connector
                and record.object.event_type in selection.event_types
                and (selection.first_hour is None or selection.first_hour <= record.object.hour)
                and (selection.end_hour is None or record.object.hour < selection.end_hour)
            ):
                yield record

    def open_letters(self) -> list[StoredDeadLetter]:
        """Return the letters that were not sent."""
        return [stored for stored in self.letters if stored.id not in self.sent_at]

    def take_away(self, claimed: Sequence[Record]) -> None:
        """Give objects new ids, so that nothing their owners say of the old ones counts."""
        for record in sorted(claimed, key=lambda record: record.id):
            record.id = self.next_id
            self.next_id += 1

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
                self.sent_at.pop(self.letters[at].id, None)
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

    def move(self, stored: StoredDeadLetter, source: str, target: str) -> None:
        """Move one event from one count to another where the object's books hold the letter."""
        for record in self.records:
            if (record.connector, record.object.key) != (stored.connector, stored.object_key):
                continue
            held = getattr(record.books, source)
            if held and (not record.waits or stored.letter.row < record.checkpoint_rows):
                moved = {source: held - 1, target: getattr(record.books, target) + 1}
                record.books = replace(record.books, **moved)


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
