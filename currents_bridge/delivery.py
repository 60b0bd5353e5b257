"""How a group of claimed objects becomes acknowledged messages: the one-page story.

fetch -> decode -> map -> leave out repeats -> pack -> send -> settle. An object is settled only after every batch that
carries its messages was acknowledged; whatever goes wrong costs the object a later try, never an event.
"""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import polars as pl

from currents_bridge.catalogue import EventType, canonical_name
from currents_bridge.decode import Container, Slice
from currents_bridge.errors import (
    BridgeError,
    CredentialError,
    QuarantineObjectError,
    RefusedError,
    RetryLaterError,
)
from currents_bridge.logs import get_logger
from currents_bridge.mapping import Mapper
from currents_bridge.model import (
    Batch,
    Books,
    ClaimedObject,
    DeadLetter,
    Delivered,
    Failed,
    Quarantined,
    Refusal,
    Settlement,
)
from currents_bridge.packing import Packer
from currents_bridge.ports import Ledger, ObjectStore
from currents_bridge.sending import Sender

FIRST_RETRY = timedelta(minutes=1)
LAST_RETRY = timedelta(hours=6)

log = get_logger()


def retry_at(now: datetime, attempts: int) -> datetime:
    """Return when an object that failed `attempts` times before is due again: one minute, doubling up to six hours."""
    return now + min(FIRST_RETRY * (1 << min(attempts, 16)), LAST_RETRY)


@dataclass(frozen=True, slots=True)
class GroupReport:
    """What became of one group."""

    settlements: Sequence[Settlement] = ()
    batches: int = 0
    batch_bytes: int = 0  # serialised, before compression, acknowledged ones only
    credential_error: CredentialError | None = None  # what it hit was released, all else settled
    destination_down: bool = False  # batches failed and none was acknowledged


@dataclass(slots=True)
class _Work:
    """One object of the group while it is worked on."""

    claimed: ClaimedObject
    books: Books = field(default_factory=Books)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    failure: BridgeError | None = None


class Delivery:
    """Delivers groups of one connector's objects. Thread-safe: each call works on its own group."""

    def __init__(  # noqa: PLR0913 - the composition root hands in each collaborator by name
        self,
        *,
        store: ObjectStore,
        ledger: Ledger,
        sender: Sender,
        mapper: Mapper,
        event_type: Callable[[str], EventType],
        packer: Callable[[], Packer],
        now: Callable[[], datetime],
        stop: threading.Event,
    ) -> None:
        self._store = store
        self._ledger = ledger
        self._sender = sender
        self._mapper = mapper
        self._event_type = event_type
        self._packer = packer
        self._now = now
        self._stop = stop

    def deliver(self, group: Sequence[ClaimedObject]) -> GroupReport:
        """Deliver the group and settle each of its objects.

        Objects that a stop left untouched, or that a CredentialError hit, are released. Raises LedgerError where the
        outcome cannot be recorded: then the claims stay the caller's to release, and a later run sends again with
        the same message ids.
        """
        works = {claimed.id: _Work(claimed) for claimed in group}
        sent = _Acknowledgements()
        packer = self._packer()
        repeats = _Repeats()
        for work in works.values():
            if self._stop.is_set() or sent.credential_error:
                work.failure = RetryLaterError("stopped before the object was begun")
                continue
            for messages in self._messages(work, repeats):
                for batch in packer.add(work.claimed.id, messages):
                    sent.expect(batch, self._sender.submit(batch))
        for batch in packer.flush():
            sent.expect(batch, self._sender.submit(batch))
        sent.wait()
        return self._settle(works, sent)

    def _messages(self, work: _Work, repeats: "_Repeats") -> Iterator[pl.DataFrame]:
        """Yield the messages that the object owes, keeping its books; what stops it is kept as its failure."""
        obj = work.claimed.object
        event_type = self._event_type(obj.event_type)
        try:
            for piece in self._slices(work):
                mapped = self._mapper.map(piece, event_type, obj.key)
                messages = repeats.leave_out(mapped.messages)
                work.dead_letters += mapped.dead_letters
                work.books += Books(
                    read=piece.events.height,
                    sent=messages.height,
                    skipped_anonymous=mapped.skipped_anonymous,
                    deduplicated=mapped.messages.height - messages.height,
                    dead_lettered=len(mapped.dead_letters),
                )
                yield messages
        except (RetryLaterError, QuarantineObjectError, CredentialError) as error:
            work.failure = error
        except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            # a column that no rule of ours foresaw costs its object only
            reason, _, _ = str(error).strip().partition("\n")
            work.failure = QuarantineObjectError(f"cannot be mapped: {reason or type(error).__name__}")

    def _slices(self, work: _Work) -> Iterator[Slice]:
        obj = work.claimed.object
        with self._store.open(obj.key, obj.etag) as stream:
            container = Container(stream)
            check_witness(container.record_name, obj.event_type)
            yield from container.slices()

    def _settle(self, works: dict[int, _Work], sent: "_Acknowledgements") -> GroupReport:
        now = self._now()
        settlements: list[Settlement] = []
        released: list[int] = []
        credential_error = sent.credential_error
        for work in works.values():
            failure = work.failure or sent.failure_of(work.claimed.id, alone=not work.books.deduplicated)
            match failure:
                case None:
                    settlements.append(_delivered(work, sent.refusals_of(work.claimed.id)))
                case QuarantineObjectError():
                    log.warning("object_quarantined", key=work.claimed.object.key, reason=failure.reason)
                    settlements.append(Quarantined(work.claimed.id, failure.reason))
                case CredentialError():
                    credential_error = credential_error or failure
                    released.append(work.claimed.id)
                case RetryLaterError() if self._stop.is_set() or sent.credential_error:
                    released.append(work.claimed.id)
                case _:
                    at = retry_at(now, work.claimed.attempts)
                    log.warning("object_failed", key=work.claimed.object.key, reason=failure.message, retry_at=at)
                    settlements.append(Failed(work.claimed.id, failure.message, at))
        self._ledger.settle(settlements, now)
        if released:
            self._ledger.release(released)
        return GroupReport(settlements, sent.batches, sent.batch_bytes, credential_error, sent.destination_down)


def check_witness(record_name: str, event_type: str) -> None:
    """Compare the key's event type with the record's name; raises QuarantineObjectError where they disagree.

    Braze names the record by the type: `dataexport.S3.inner.users.messages.email.Click`. A record whose name is of
    another kind is no witness.
    """
    _, marker, named = record_name.partition(".inner.")
    if marker and canonical_name(named) != event_type:
        raise QuarantineObjectError(f"the key says {event_type}, the records in the file are {named}")


def _delivered(work: _Work, refusals: Iterable[tuple[Refusal, str]]) -> Delivered:
    refused = [DeadLetter(r.row, r.message_id, r.reason, message) for r, message in refusals]
    books = replace(
        work.books,
        sent=work.books.sent - len(refused),
        dead_lettered=work.books.dead_lettered + len(refused),
    )
    return Delivered(work.claimed.id, books, [*work.dead_letters, *refused])


class _Repeats:
    """The message ids of one group, so that an event that stands in it twice is sent once."""

    def __init__(self) -> None:
        self._seen: set[str] = set()  # grows in place; a join would look at all of them again for each small object

    def leave_out(self, messages: pl.DataFrame) -> pl.DataFrame:
        """Return the messages whose id the group has not had yet, in order."""
        ids = set(messages["message_id"].to_list())
        again = ids & self._seen
        self._seen |= ids
        if len(ids) == messages.height and not again:
            return messages
        fresh = pl.col("message_id").is_first_distinct() & ~pl.col("message_id").is_in(list(again))
        return messages.filter(fresh)


class _Acknowledgements:
    """The batches under way for one group, and what came back; used by one thread."""

    def __init__(self) -> None:
        self.batches = 0
        self.batch_bytes = 0
        self.credential_error: CredentialError | None = None
        self._under_way: list[tuple[Batch, Future[Sequence[Refusal]]]] = []
        self._failures: dict[int, BridgeError] = {}  # object id -> why one of its batches failed
        self._refusals: dict[int, list[tuple[Refusal, str]]] = {}

    def expect(self, batch: Batch, future: "Future[Sequence[Refusal]]") -> None:
        """Add a batch that was submitted, and let go of those that are done."""
        self._under_way.append((batch, future))
        self._collect(lambda f: f.done())

    def wait(self) -> None:
        """Return once every batch was acknowledged or given up."""
        self._collect(lambda _: True)

    @property
    def destination_down(self) -> bool:
        """Whether batches failed and none was acknowledged."""
        return bool(self._failures) and not self.batches

    def failure_of(self, object_id: int, *, alone: bool) -> BridgeError | None:
        """Return why the object cannot be settled; not alone: it also leans on the batches of others.

        An object with repeats owes events that another object's batch carries, so any failed batch holds it back.
        """
        if alone:
            return self._failures.get(object_id)
        return next(iter(self._failures.values()), None)

    def refusals_of(self, object_id: int) -> Sequence[tuple[Refusal, str]]:
        """Return the object's refused messages, each with its text."""
        return self._refusals.get(object_id, ())

    def _collect(self, ready: "Callable[[Future[Sequence[Refusal]]], bool]") -> None:
        waiting = []
        for batch, future in self._under_way:
            if not ready(future):
                waiting.append((batch, future))
                continue
            try:
                refusals = future.result()
            except (RetryLaterError, RefusedError, CredentialError) as error:
                if isinstance(error, CredentialError):
                    self.credential_error = error
                self._failures |= {part.object_id: error for part in batch.parts}
            else:
                self.batches += 1
                self.batch_bytes += batch.size_bytes
                for refusal in refusals:
                    self._refusals.setdefault(refusal.object_id, []).append((refusal, _message_of(batch, refusal)))
        self._under_way = waiting


def _message_of(batch: Batch, refusal: Refusal) -> str:
    rows = (
        part.messages.filter(pl.col("row") == refusal.row)
        for part in batch.parts
        if part.object_id == refusal.object_id
    )
    return next(str(found["message"][0]) for found in rows if found.height)
