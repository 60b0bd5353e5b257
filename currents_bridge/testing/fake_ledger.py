"""A ledger in memory: plain lists, one lock, nothing clever; SqlLedger must answer as this does."""

from collections.abc import Sequence
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta

import polars as pl

from currents_bridge.errors import ClaimLostError
from currents_bridge.model import (
    Books,
    Checkpoint,
    ClaimedObject,
    CurrentsObject,
    DeadLetter,
    Delivered,
    Failed,
    GroupLimits,
    LetterFilter,
    ObjectState,
    Quarantined,
    QuarantinedObject,
    Recorded,
    Rewound,
    Selection,
    Settlement,
    StoredDeadLetter,
)
from currents_bridge.testing.fake_ledger_connectors import FakeConnectors
from currents_bridge.testing.fake_ledger_memory import Record, is_meant

LEASE = timedelta(seconds=90)
MOST_CRASHES = 3
NEVER = datetime.min.replace(tzinfo=UTC)


class FakeLedger(FakeConnectors):
    """One owner of a ledger in memory; fulfils `ports.Ledger`.

    Another owner of the same ledger is made with its `memory`. Of an owner, only the heartbeat is known.
    """

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
                    record = known[item.key] = Record(self.memory.next_id, connector, item)
                    self.memory.records.append(record)
                    self.memory.next_id += 1
                    new += 1
                elif record.object.etag == item.etag:
                    continue
                elif record.state in (ObjectState.PENDING, ObjectState.FAILED):
                    record.object, record.checkpoint_rows, record.books = item, 0, Books()
                    record.rewound_events = 0
                else:
                    changed.append(item)
        return new, changed

    def claim(
        self, connector: str, selection: Selection, limits: GroupLimits, now: datetime
    ) -> Sequence[ClaimedObject]:
        """Take the next group of due objects."""
        with self.memory.lock:
            self.memory.heartbeats[self] = now
            group: list[Record] = []
            due = [record for record in self.memory.selected(connector, selection) if record.is_due(now)]
            for record in sorted(due, key=lambda r: (r.object.hour, r.object.event_type, r.object.key)):
                total_bytes = sum(taken.object.size_bytes for taken in group) + record.object.size_bytes
                full = len(group) == limits.max_objects or total_bytes > limits.max_bytes
                if group and (full or record.crashes or group[0].crashes):
                    break
                group.append(record)
            for record in group:
                record.state, record.owner = ObjectState.CLAIMED, self
            return [
                ClaimedObject(
                    record.id,
                    record.object,
                    record.attempts,
                    Checkpoint(record.checkpoint_rows, record.books),
                    suspect=record.crashes > 0,
                    rewinds=record.rewinds,
                )
                for record in group
            ]

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record all outcomes, or none; lost claims are left out."""
        for settlement in settlements:
            if not isinstance(settlement, Failed):
                _check_balanced(settlement.id, settlement.books)
        ids = [settlement.id for settlement in settlements]
        if len(set(ids)) != len(ids):
            raise ValueError(f"objects are settled twice at once: {ids}")
        with self.memory.lock:
            mine = self._mine()
            for settlement in settlements:
                if record := mine.get(settlement.id):
                    self._settle(record, settlement, now)
            self._raise_if_lost(ids, mine)

    def _settle(self, record: Record, settlement: Settlement, now: datetime) -> None:
        record.owner = record.retry_at = record.reason = None
        record.crashes, record.settled_at = 0, now
        match settlement:
            case Failed(reason=reason, retry_at=retry_at):
                record.state, record.reason, record.retry_at = ObjectState.FAILED, reason, retry_at
                record.attempts += 1
                return
            case Delivered():
                record.state = ObjectState.DELIVERED
            case Quarantined(reason=reason):
                record.state, record.reason = ObjectState.QUARANTINED, reason
        record.books = settlement.books
        self.memory.keep(record, settlement.dead_letters, now)
        self.memory.remember(record.connector, settlement.message_ids, now)
        record.checkpoint_rows = record.rewound_events = 0

    def checkpoint(
        self,
        id_: int,
        checkpoint: Checkpoint,
        dead_letters: Sequence[DeadLetter],
        now: datetime,
        message_ids: pl.Series | None = None,
    ) -> None:
        """Record how far an object has come."""
        _check_balanced(id_, checkpoint.books)
        with self.memory.lock:
            mine = self._mine()
            self._raise_if_lost([id_], mine)
            record = mine[id_]
            if checkpoint.rows > record.checkpoint_rows:
                self.memory.keep(record, dead_letters, now)
                self.memory.remember(record.connector, message_ids, now)
                record.checkpoint_rows, record.books, record.crashes = checkpoint.rows, checkpoint.books, 0

    def begin_trial(self, id_: int) -> None:
        """Count a crash in advance."""
        with self.memory.lock:
            if record := self._mine().get(id_):
                record.crashes += 1

    def clear_suspicion(self, id_: int) -> None:
        """Count the crashes of an object of this owner from none again."""
        with self.memory.lock:
            if record := self._mine().get(id_):
                record.crashes = 0

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
            self.memory.take_away(orphans)
            for record in orphans:
                record.free()
                record.crashes = max(record.crashes, 1)
                if record.crashes >= MOST_CRASHES:
                    record.state, record.reason = ObjectState.QUARANTINED, "took the process down 3 times"
                    record.crashes, record.checkpoint_rows, record.settled_at = 0, 0, now
            return len(orphans)

    def outstanding(self, connector: str, listed: Sequence[CurrentsObject]) -> list[CurrentsObject]:
        """Return the objects that are neither delivered nor quarantined."""
        done = {ObjectState.DELIVERED, ObjectState.QUARANTINED}
        with self.memory.lock:
            settled = {r.object.key for r in self.memory.records if r.connector == connector and r.state in done}
        return [item for item in listed if item.key not in settled]

    def recorded(self, connector: str, listed: Sequence[CurrentsObject]) -> list[Recorded]:
        """Compare key, ETag and size."""
        with self.memory.lock:
            known = {record.object.key: record for record in self.memory.records if record.connector == connector}
            return [known[item.key].recorded(item) if item.key in known else Recorded.UNKNOWN for item in listed]

    def remembered(self, connector: str, message_ids: pl.Series, now: datetime) -> pl.Series:  # noqa: ARG002
        """Look the message ids up."""
        with self.memory.lock:
            known = self.memory.sent.get(connector, {})
            return pl.Series(message_ids.name, [id_ in known for id_ in message_ids], dtype=pl.Boolean)

    def forget(self, connector: str, before: datetime) -> int:
        """Forget old message ids."""
        with self.memory.lock:
            known = self.memory.sent.get(connector, {})
            self.memory.sent[connector] = {id_: at for id_, at in known.items() if at >= before}
            return len(known) - len(self.memory.sent[connector])

    def dead_letters(self, which: LetterFilter, limit: int | None = None) -> list[StoredDeadLetter]:
        """Return dead letters by id."""
        with self.memory.lock:
            return [stored for stored in self.memory.open_letters() if is_meant(stored, which)][:limit]

    def replayed(self, letter_id: int, refusal: str | None, now: datetime) -> bool:
        """Record the replay of a dead letter."""
        with self.memory.lock:
            for at, stored in enumerate(self.memory.letters):
                if stored.id != letter_id or stored.id in self.memory.sent_at:
                    continue
                if refusal is None:
                    self.memory.sent_at[stored.id] = now
                    self.memory.move(stored, "dead_lettered", "sent")
                else:
                    letter = replace(stored.letter, reason=refusal)
                    self.memory.letters[at] = replace(stored, letter=letter, attempts=stored.attempts + 1)
                return True
            return False

    def purge(self, which: LetterFilter) -> int:
        """Delete dead letters."""
        with self.memory.lock:
            purged = [stored for stored in self.memory.open_letters() if is_meant(stored, which)]
            self.memory.letters = [stored for stored in self.memory.letters if stored not in purged]
            return len(purged)

    def quarantined(self, connector: str | None) -> list[QuarantinedObject]:
        """Return quarantined objects by time."""
        with self.memory.lock:
            found = [
                QuarantinedObject(r.id, r.connector, r.object, r.reason or "", r.books, r.settled_at)
                for r in self.memory.records
                if r.state == ObjectState.QUARANTINED and connector in (None, r.connector) and r.settled_at
            ]
            return sorted(found, key=lambda item: (item.settled_at, item.id))

    def replay_quarantined(self, ids: Sequence[int]) -> int:
        """Make quarantined objects as new."""
        with self.memory.lock:
            found = [r for r in self.memory.records if r.id in ids and r.state == ObjectState.QUARANTINED]
            for record in found:
                self.memory.forget_letters(record)
                record.state, record.attempts, record.books = ObjectState.PENDING, 0, Books()
                record.reason = None
            return len(found)

    def reopen(self, connector: str, selection: Selection) -> int:
        """Make delivered objects pending; folded ones are forgotten and not counted."""
        with self.memory.lock:
            delivered = [r for r in self.memory.selected(connector, selection) if r.state == ObjectState.DELIVERED]
            forgotten = [record.id for record in delivered if record.folded]
            self.memory.records = [record for record in self.memory.records if record.id not in forgotten]
            for record in delivered:
                record.state, record.attempts, record.books = ObjectState.PENDING, 0, Books()
            return len(delivered) - len(forgotten)

    def hasten(self, connector: str, selection: Selection) -> int:
        """Move the retry time of failed objects to the past."""
        with self.memory.lock:
            failed = [r for r in self.memory.selected(connector, selection) if r.state == ObjectState.FAILED]
            for record in failed:
                record.retry_at = datetime.fromtimestamp(0, UTC)
            return len(failed)

    def fold(self, connector: str, before_hour: datetime, settled_before: datetime) -> int:
        """Mark delivered objects of complete hours as folded."""
        with self.memory.lock:
            old = [r for r in self.memory.records if r.connector == connector and r.object.hour < before_hour]
            unfinished = {
                (record.object.hour, record.object.event_type)
                for record in old
                if record.state != ObjectState.DELIVERED
                or (not record.folded and record.settled_at and record.settled_at >= settled_before)
            }
            folded = [
                record
                for record in old
                if not record.folded and (record.object.hour, record.object.event_type) not in unfinished
            ]
            for record in folded:
                record.folded = True
            self.memory.letters = [
                stored
                for stored in self.memory.letters
                if stored.connector != connector or self.memory.sent_at.get(stored.id, settled_before) >= settled_before
            ]
            return len(folded)

    def rewind(self, connector: str, since: datetime, now: datetime) -> Rewound:  # noqa: ARG002
        """Make pending again what was acknowledged."""
        with self.memory.lock:
            of_connector = [record for record in self.memory.records if record.connector == connector]
            meant = [record for record in of_connector if record.acknowledged_since(since)]
            self.memory.take_away([record for record in meant if record.owner])
            events = sum(record.books.sent for record in meant)
            for record in meant:
                record.rewinds, record.rewound_events = (
                    record.rewinds + 1,
                    max(record.rewound_events, record.books.sent),
                )
                self.memory.forget_letters(record)
                record.state, record.owner, record.attempts, record.reason = ObjectState.PENDING, None, 0, None
                record.checkpoint_rows, record.books, record.settled_at = 0, Books(), None
            known = self.memory.sent.get(connector, {})
            self.memory.sent[connector] = {id_: at for id_, at in known.items() if at < since}
            rewound = Rewound(len(meant), events, self._take_letters_back(connector, since))
            before = self.memory.rewound.get(connector, Rewound())
            self.memory.rewound[connector] = Rewound(*map(sum, zip(astuple(before), astuple(rewound), strict=True)))
            return rewound

    def _take_letters_back(self, connector: str, since: datetime) -> int:
        taken = 0
        for at, stored in enumerate(self.memory.letters):
            if stored.connector == connector and self.memory.sent_at.get(stored.id, NEVER) >= since:
                del self.memory.sent_at[stored.id]
                letter = replace(stored.letter, reason="sent again by hand under a write key that was dead")
                self.memory.letters[at] = replace(stored, letter=letter)
                self.memory.move(stored, "sent", "dead_lettered")
                taken += 1
        return taken

    def set_aside(self, connector: str, modified_before: datetime, reason: str, now: datetime) -> int:
        """Quarantine what waits and is old."""
        with self.memory.lock:
            old = [
                record
                for record in self.memory.records
                if record.connector == connector
                and record.state in (ObjectState.PENDING, ObjectState.FAILED)
                and record.object.last_modified < modified_before
            ]
            for record in old:
                record.state, record.reason, record.settled_at = ObjectState.QUARANTINED, reason, now
                record.crashes = record.checkpoint_rows = 0
            return len(old)

    def close(self) -> None:
        """Give back all claims of this owner."""
        with self.memory.lock:
            for record in self.memory.records:
                if record.owner is self:
                    record.free()
            self.memory.heartbeats.pop(self, None)

    def _mine(self) -> dict[int, Record]:
        return {record.id: record for record in self.memory.records if record.owner is self}

    def _raise_if_lost(self, ids: Sequence[int], mine: dict[int, Record]) -> None:
        if lost := [id_ for id_ in ids if id_ not in mine]:
            raise ClaimLostError(lost, sorted(r.object.key for r in self.memory.records if r.id in lost))


def _check_balanced(id_: int, books: Books) -> None:
    if not books.balanced:
        raise ValueError(f"the books of object {id_} do not balance: {books}")
