"""The ledger in a database: the port `Ledger` on SQLAlchemy Core, over SQLite."""

import uuid
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from sqlalchemy import ColumnElement, Connection, TextClause, bindparam, delete, exists, select, text, update
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.errors import ClaimLostError, LedgerLostError
from currents_bridge.ledger.bulk import among, as_json, execute_many
from currents_bridge.ledger.database import BUSY_TIMEOUT_S, SqliteStore
from currents_bridge.ledger.inventory import admit as ledger_admit
from currents_bridge.ledger.inventory import changed as ledger_changed
from currents_bridge.ledger.inventory import exclude as ledger_exclude
from currents_bridge.ledger.inventory import folds
from currents_bridge.ledger.inventory.admit import Sorter, columns_of
from currents_bridge.ledger.inventory.known_pages import KnownPages
from currents_bridge.ledger.owner import ProcessIdentity, has_ended, this_process
from currents_bridge.ledger.records import letters, quarantine, resend
from currents_bridge.ledger.records import rewind as ledger_rewind
from currents_bridge.ledger.records.alert_book import SqlAlertBook
from currents_bridge.ledger.records.connectors import SqlConnectors
from currents_bridge.ledger.schema import (
    DELIVERED,
    NOT_DELIVERED,
    OWNED,
    hour_from,
    objects,
    owners,
    selected,
    time_text,
)
from currents_bridge.ledger.work import canaries, claims, seen_ids
from currents_bridge.ledger.work import settle as ledger_settle
from currents_bridge.ledger.work.claims import UNCLAIMED
from currents_bridge.model import (
    Books,
    Checkpoint,
    ClaimedObject,
    CurrentsObject,
    DeadLetter,
    Failed,
    GroupLimits,
    Known,
    LetterFilter,
    ObjectState,
    OwedObject,
    QuarantinedObject,
    Reclaimed,
    Recorded,
    Rewound,
    Selection,
    Settlement,
    StoredDeadLetter,
    Undelivered,
)

if TYPE_CHECKING:
    import polars as pl

LEASE_S = 90.0  # an owner that has not said for so long that it lives is dead
_CHUNK = 500  # in one query; SQLite takes 32,766 parameters

_ONE = GroupLimits(max_objects=1)
_LONG_AGO = datetime(1970, 1, 1, tzinfo=UTC)

# Made once, since SQLAlchemy takes longer to make a statement than SQLite to execute it.
_ADMIT = insert(objects).values(state=text(f"'{ObjectState.PENDING}'"))
_CLAIM = update(objects).where(among(objects.c.id, bindparam("ids"))).values(state=text(f"'{ObjectState.CLAIMED}'"))
_new_owner = insert(owners)
_SAY_ALIVE = _new_owner.on_conflict_do_update(set_={"heartbeat_at": _new_owner.excluded.heartbeat_at})

T = TypeVar("T")


class SqlLedger(SqlConnectors):
    """A ledger in the SQLite file that `url` names (`sqlite:///relative` or `sqlite:////absolute`).

    Fulfils `ports.Ledger`, which says what each method promises. Each instance is an owner of claims of its own, in
    the name of `process` (default: this one). Each transaction waits up to `busy_timeout_s` for those of other
    processes. Raises LedgerError where the file cannot be used or is too new, NoLedgerError where there is none and
    `make` does not say that one shall be made, LedgerLostError from any method once it was removed or replaced.
    """

    def __init__(
        self,
        url: str,
        *,
        now: datetime,
        process: ProcessIdentity | None = None,
        busy_timeout_s: float = BUSY_TIMEOUT_S,
        make: bool = True,
    ) -> None:
        self._id = uuid.uuid4().hex
        self._process = process or this_process()
        self._closed = False
        self._known_pages = KnownPages()
        super().__init__(SqliteStore(url, busy_timeout_s, make=make))
        self.heartbeat(now)

    def admit(
        self, connector: str, listed: Sequence[CurrentsObject], now: datetime
    ) -> tuple[int, list[CurrentsObject]]:
        """Record new objects as pending; costs the listing, whatever the history, and no lock where none is new."""
        mark = self._known_pages.mark(connector, listed)
        if self._known_pages.holds(mark):
            return 0, []
        fixed = {"connector": connector, "admitted_at": time_text(now)}
        with self._store.reading() as connection:
            sorter = Sorter(connection, connector)
            sorted_ = list(map(sorter.sort, _chunks(listed)))
        if all(found.known for found in sorted_):
            self._known_pages.add(mark)
        changed = [item for found in sorted_ for item in found.changed]
        unsettled = [item for found in sorted_ for item in (*found.new, *found.retaken)]
        if not unsettled:
            return 0, changed
        new, retaken = 0, 0
        with self._store.writing() as connection:
            sorter = Sorter(connection, connector)
            for chunk in _chunks(unsettled):
                found = sorter.sort(chunk)
                execute_many(connection, _ADMIT, [fixed | columns_of(item, now) for item in found.new])
                ledger_changed.retake(connection, connector, [columns_of(item, now) for item in found.retaken], now)
                new += len(found.new)
                retaken += len(found.retaken)
                changed += found.changed
        if retaken:
            self._known_pages.forget()
        return new, changed

    def redeliver(
        self, connector: str, changed: Sequence[CurrentsObject], since: datetime, now: datetime
    ) -> list[CurrentsObject]:
        """Take back what was settled since; costs the objects given."""
        taken: set[str] = set()
        with self._store.writing() as connection:
            for chunk in _chunks(changed):
                recorded = {item.key: columns_of(item, now) for item in chunk}
                taken |= ledger_changed.redeliver(connection, connector, recorded, since, now)
        self._known_pages.forget()
        return [item for item in changed if item.key not in taken]

    def claim(
        self, connector: str, selection: Selection, limits: GroupLimits, now: datetime
    ) -> Sequence[ClaimedObject]:
        """Take the next group of due objects, and say that this owner lives; where none is due, only look."""
        self._check_open()
        with self._store.reading() as connection:
            if not claims.next_group(connection, connector, selection, _ONE, now):
                return []
        with self._store.writing() as connection:
            self._say_alive(connection, now)
            group = claims.next_group(connection, connector, selection, limits, now)
            if group:
                connection.execute(_CLAIM, {"ids": as_json(claimed.id for claimed in group), "owner": self._id})
        return group

    def claim_canary(
        self, connector: str, selection: Selection, now: datetime, but: Collection[int] = ()
    ) -> Sequence[ClaimedObject]:
        """Take the object that goes ahead."""
        with self._store.writing() as connection:
            self._say_alive(connection, now)
            chosen = canaries.next_canary(connection, connector, selection, now, but)
            if chosen:
                connection.execute(_CLAIM, {"ids": as_json([chosen[0].id]), "owner": self._id})
        return chosen

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record all outcomes in one transaction, but for those of lost claims."""
        for settlement in settlements:
            if not isinstance(settlement, Failed):
                _check_balanced(settlement.id, settlement.books)
        ids = [settlement.id for settlement in settlements]
        if len(set(ids)) < len(ids):
            raise ValueError(f"objects are settled twice at once: {ids}")
        if not settlements:
            return
        with self._store.writing() as connection:
            mine = ledger_settle.owned(connection, ids, self._id)
            if mine:
                kept = [(mine[settlement.id], settlement) for settlement in settlements if settlement.id in mine]
                ledger_settle.write(connection, kept, now)
            lost = [id_ for id_ in ids if id_ not in mine]
            error = _claim_lost(connection, lost) if lost else None
        if error:
            raise error

    def checkpoint(
        self,
        id_: int,
        checkpoint: Checkpoint,
        dead_letters: Sequence[DeadLetter],
        now: datetime,
        message_ids: "pl.Series | None" = None,
    ) -> None:
        """Record how far an object has come, unless it has come farther."""
        _check_balanced(id_, checkpoint.books)
        with self._store.writing() as connection:
            row = ledger_settle.owned(connection, [id_], self._id).get(id_)
            if row is None:
                raise _claim_lost(connection, [id_])
            if checkpoint.rows > row.checkpoint_rows:
                ledger_settle.advance(connection, id_, checkpoint)
                letters.replace(connection, [(row, dead_letters)], now)
                ledger_settle.remember(connection, [(row, message_ids)], now)

    def begin_trial(self, claimed: ClaimedObject, row: int) -> None:
        """Count a crash in advance, on top of those before where the latest one was at this row, too."""
        before = claimed.crashes if row == claimed.trial_row else 1
        with self._store.writing() as connection:
            mine = update(objects).where(*self._mine([claimed.id]))
            connection.execute(mine.values(crashes=before + 1, trial_row=row))

    def clear_suspicion(self, id_: int) -> None:
        """Count the crashes of an object of this owner from none again."""
        with self._store.writing() as connection:
            connection.execute(update(objects).where(*self._mine([id_])).values(crashes=0))

    def release(self, ids: Sequence[int]) -> None:
        """Give back those of the objects that are claimed by this owner."""
        with self._store.writing() as connection:
            connection.execute(update(objects).where(*self._mine(ids)).values(UNCLAIMED))

    def heartbeat(self, now: datetime) -> None:
        """Say that this owner lives, also where another one has already declared it dead."""
        with self._store.writing() as connection:
            self._say_alive(connection, now)

    def reclaim(self, connector: str, now: datetime) -> Reclaimed:
        """Forget dead owners, then free what is claimed or reopened by owners who are not known; mostly: look only."""
        of_dead = claims.orphans(connector), resend.of_unknown(connector)
        with self._store.reading() as connection:
            dead = self._dead_owners(connection, now)
            if not dead and not any(connection.scalar(select(exists().where(*which))) for which in of_dead):
                return Reclaimed()
        with self._store.writing() as connection:
            connection.execute(delete(owners).where(among(owners.c.id, self._dead_owners(connection, now))))
            self._say_alive(connection, now)
            reclaimed = claims.free_orphans(connection, connector, now)
        self._leave(*of_dead[1])
        return reclaimed

    def _dead_owners(self, connection: Connection, now: datetime) -> list[str]:
        others = connection.execute(select(owners).where(owners.c.id != self._id)).all()
        return [
            other.id
            for other in others
            if abs(now - other.heartbeat_at) > timedelta(seconds=LEASE_S)  # else of a clock that ran ahead
            or has_ended(ProcessIdentity(other.host, other.pid, other.started_s), self._process.host)
        ]

    def outstanding(self, connector: str, listed: Sequence[CurrentsObject]) -> list[CurrentsObject]:
        """Return the objects that are new or wait; costs the listing, whatever the history."""
        waiting = select(objects.c.key).where(
            objects.c.connector == connector, NOT_DELIVERED, objects.c.state != ObjectState.QUARANTINED
        )
        found: list[CurrentsObject] = []
        with self._store.reading() as connection:
            sorter = Sorter(connection, connector)
            for chunk in _chunks(listed):
                of_chunk = waiting.where(among(objects.c.key, [item.key for item in chunk]))
                keys = {item.key for item in sorter.sort(chunk).new}.union(connection.execute(of_chunk).scalars())
                found += [item for item in chunk if item.key in keys]
        return found

    def recorded(self, connector: str, listed: Sequence[CurrentsObject]) -> list[Recorded]:
        """Return what is recorded of each object; costs the listing, whatever the history."""
        with self._store.reading() as connection:
            sorter = Sorter(connection, connector)
            return [recorded for chunk in _chunks(listed) for recorded in sorter.recorded(chunk)]

    def owed(self, connector: str, after: str, before: str, limit: int) -> list[OwedObject]:
        """Look at a range of keys; costs what the range holds that is not folded."""
        with self._store.reading() as connection:
            return ledger_admit.owed(connection, connector, after, before, limit)

    def known(self, connector: str, of: ClaimedObject, message_ids: "pl.Series") -> Known:
        """Look up the digests of the message ids."""
        with self._store.reading() as connection:
            return seen_ids.lookup(connection, connector, of, message_ids)

    def forget(self, connector: str, before: datetime) -> int:
        """Forget step by step, each in a transaction of its own, so that no other writer is kept waiting for long."""
        return self._forget(seen_ids.settled_before(connector, before))

    def dead_letters(self, which: LetterFilter, limit: int | None = None, after: int = 0) -> list[StoredDeadLetter]:
        """Return dead letters by id, which is by age."""
        with self._store.reading() as connection:
            return letters.find(connection, which, limit, after)

    def count_dead_letters(self, which: LetterFilter) -> int:
        """Count in the database."""
        with self._store.reading() as connection:
            return letters.count(connection, which)

    def replayed(self, refusals: Mapping[int, str | None], now: datetime, *, remember: bool = False) -> Collection[int]:
        """Record the replays in the letters' rows, and in the books."""
        taken = [letter_id for letter_id, refusal in refusals.items() if refusal is None]
        reasons = {letter_id: refusal for letter_id, refusal in refusals.items() if refusal is not None}
        with self._store.writing() as connection:
            return [
                *letters.sent(connection, taken, now, remember=remember),
                *letters.refused_again(connection, reasons),
            ]

    def purge(self, which: LetterFilter) -> int:
        """Delete dead letters, and nothing else, step by step, so that no other writer is kept waiting for long."""
        purged, after = 0, 0
        while True:
            with self._store.writing() as connection:
                ids = letters.find_ids(connection, which, letters.PURGED_AT_ONCE, after)
                purged += letters.purge(connection, ids)
            if len(ids) < letters.PURGED_AT_ONCE:
                return purged
            after = ids[-1]

    def quarantined(self, connector: str | None) -> list[QuarantinedObject]:
        """Return quarantined objects."""
        with self._store.reading() as connection:
            return quarantine.find(connection, connector)

    def replay_quarantined(self, ids: Sequence[int], now: datetime) -> int:
        """Make quarantined objects as new."""
        with self._store.writing() as connection:
            return sum(quarantine.replay(connection, chunk, now) for chunk in _chunks(ids))

    def reopen(self, connector: str, listed: Sequence[CurrentsObject], now: datetime) -> int:
        """Make the objects pending again, by chunks that each leave the books whole, and say that this owner lives."""
        reopened = 0
        for chunk in _chunks(listed):
            with self._store.writing() as connection:
                self._say_alive(connection, now)
                reopened += resend.reopen(connection, connector, chunk, self._id, now)
            self._known_pages.forget()
        return reopened

    def leave_resent(self, connector: str) -> None:
        """Leave what this owner has reopened."""
        self._leave(objects.c.connector == connector, objects.c.resender == self._id)

    def _leave(self, *which: ColumnElement[bool] | TextClause) -> None:
        """Leave it step by step, so that no other writer is kept waiting for long."""
        left = resend.LEFT_AT_ONCE
        while left == resend.LEFT_AT_ONCE:
            with self._store.writing() as connection:
                left = resend.leave(connection, *which)

    def spare(self, ids: Sequence[int]) -> None:
        """Take back attempts, so that what has none left is as new."""
        with self._store.writing() as connection:
            ledger_settle.spare(connection, ids, _LONG_AGO)

    def hasten(self, connector: str, selection: Selection) -> int:
        """Move the retry time of failed objects to the past."""
        failed = (NOT_DELIVERED, objects.c.state == ObjectState.FAILED)
        waiting = update(objects).where(*failed, *selected(objects, connector, selection))
        with self._store.writing() as connection:
            return connection.execute(waiting.values(retry_at=_LONG_AGO)).rowcount

    def fold(self, connector: str, before_hour: datetime, settled_before: datetime) -> int:
        """Fold hour by hour, each in a transaction of its own, so that a long history keeps no other writer waiting."""
        old = select(objects.c.hour).where(
            DELIVERED, objects.c.connector == connector, objects.c.hour < hour_from(before_hour)
        )
        with self._store.reading() as connection:
            due = connection.execute(old.distinct().order_by(objects.c.hour)).scalars().all()
        folded = 0
        for hour in due:
            with self._store.writing() as connection:
                folded += folds.fold_hour(connection, connector, hour, settled_before)
            self._store.shrink()  # at once, since the more pages are free, the longer SQLite takes for each
        with self._store.writing() as connection:
            letters.forget_sent(connection, connector, settled_before)
        return folded

    def rewind(self, connector: str, since: datetime, now: datetime, *, spare_since: datetime | None = None) -> Rewound:
        """Take back what was acknowledged; costs what that is, whatever else is held.

        Most message ids are forgotten before, step by step: without them some repeats are sent once more, no worse.
        """
        self._forget(seen_ids.settled_since(connector, since))
        with self._store.writing() as connection:
            return ledger_rewind.rewind(connection, connector, since, now, spare_since)

    def undelivered(self, connector: str) -> list[Undelivered]:
        """Count what waits and what is excluded."""
        with self._store.reading() as connection:
            return ledger_exclude.undelivered(connection, connector)

    def exclude(self, connector: str, event_types: frozenset[str]) -> None:
        """Hold back what waits of these types, and nothing else."""
        with self._store.writing() as connection:
            ledger_exclude.exclude(connection, connector, event_types)

    def set_aside(self, connector: str, modified_before: datetime, reason: str, now: datetime) -> int:
        """Quarantine what waits and is old, with the books of its checkpoint."""
        with self._store.writing() as connection:
            return quarantine.set_aside(connection, connector, modified_before, reason, now)

    def alert_book(self) -> SqlAlertBook:
        """Return the alerts that are kept in the same file, for as long as the ledger is open."""
        return SqlAlertBook(self._store)

    def close(self) -> None:
        """Give back all claims of this owner and close the file; no claim is possible afterwards."""
        if self._closed:
            return
        try:
            self._leave(objects.c.resender == self._id)
            with self._store.writing() as connection:
                self._closed = True
                mine = update(objects).where(OWNED, objects.c.owner == self._id)
                connection.execute(mine.values(UNCLAIMED))
                connection.execute(delete(owners).where(owners.c.id == self._id))
        except LedgerLostError:
            self._closed = True  # nobody will look for what was claimed there
        finally:
            self._store.close()

    def _mine(self, ids: Sequence[int]) -> tuple[ColumnElement[bool], ...]:
        return among(objects.c.id, ids), objects.c.owner == self._id

    def _forget(self, which: Sequence[ColumnElement[bool]]) -> int:
        forgotten = 0
        while True:
            with self._store.writing() as connection:
                some = seen_ids.forget_some(connection, which)
            forgotten += some
            if some < seen_ids.FORGOTTEN_AT_ONCE:
                return forgotten

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the ledger is closed")

    def _say_alive(self, connection: Connection, now: datetime) -> None:
        self._check_open()
        connection.execute(_SAY_ALIVE, {"id": self._id, "heartbeat_at": now, **asdict(self._process)})


def _chunks(items: Sequence[T]) -> Iterator[Sequence[T]]:
    return (items[start : start + _CHUNK] for start in range(0, len(items), _CHUNK))


def _check_balanced(id_: int, books: Books) -> None:
    if not books.balanced:
        raise ValueError(f"the books of object {id_} do not balance: {books}")


def _claim_lost(connection: Connection, ids: Sequence[int]) -> ClaimLostError:
    keys = connection.execute(select(objects.c.key).where(among(objects.c.id, ids)).order_by(objects.c.key))
    return ClaimLostError(ids, keys.scalars().all())
