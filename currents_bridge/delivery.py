"""How a group of claimed objects becomes acknowledged messages: the one-page story.

fetch -> decode -> map -> leave out repeats -> pack -> send -> settle. An object is settled only after every batch that
carries its messages was acknowledged; whatever goes wrong costs the object a later try, never an event. Large objects
leave checkpoints on the way, so that a later try goes on where this one ended.
"""

import shutil
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import BinaryIO, cast

import polars as pl

from currents_bridge.acknowledgements import Acknowledgements
from currents_bridge.catalogue import EventType, canonical_name
from currents_bridge.decode import Container
from currents_bridge.errors import (
    ClaimLostError,
    CredentialError,
    ObjectGoneError,
    QuarantineObjectError,
    RetryLaterError,
    Side,
)
from currents_bridge.fetching import FetchAhead
from currents_bridge.logs import get_logger
from currents_bridge.mapping import Mapped, Mapper
from currents_bridge.model import (
    Books,
    Checkpoint,
    ClaimedObject,
    Failed,
    Part,
    Settlement,
)
from currents_bridge.packing import Packer
from currents_bridge.ports import Ledger, ObjectStore
from currents_bridge.sending import Sender
from currents_bridge.work import Piece, Repeats, Work, gathered

FIRST_RETRY = timedelta(minutes=1)
LAST_RETRY = timedelta(hours=6)
SETTLE_BYTES = 1024 * 1024  # of objects that have arrived: settled while their group goes on
SPOOL_BYTES = 16 * 1024 * 1024  # of a suspect in memory; what is more goes to a temporary file
CHECKPOINT_EVENTS = 2_500  # read since the last checkpoint; a commit for so many costs 0.3 us an event

log = get_logger()


def retry_at(now: datetime, attempts: int) -> datetime:
    """Return when an object that failed `attempts` times before is due again: one minute, doubling up to six hours."""
    return now + min(FIRST_RETRY * (1 << min(attempts, 16)), LAST_RETRY)


@dataclass(slots=True)
class GroupReport:
    """What became of one group."""

    settlements: list[Settlement] = field(default_factory=list)
    batches: int = 0
    batch_bytes: int = 0  # serialised, before compression, acknowledged ones only
    credential_error: CredentialError | None = None  # what it hit was released, all else settled
    destination_down: bool = False  # batches failed and none was acknowledged


class Delivery:
    """Delivers groups of one connector's objects. Thread-safe: each call works on its own group.

    With `remember`, message ids that were sent before, by whatever object, are left out, and those that are sent are
    remembered.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands in each collaborator by name
        self,
        *,
        connector: str,
        store: ObjectStore,
        ledger: Ledger,
        sender: Sender,
        mapper: Mapper,
        event_type: Callable[[str], EventType],
        packer: Callable[[], Packer],
        remember: bool,
        now: Callable[[], datetime],
        stop: threading.Event,
    ) -> None:
        self._connector = connector
        self._store = store
        self._ledger = ledger
        self._sender = sender
        self._mapper = mapper
        self._event_type = event_type
        self._packer = packer
        self._remember = remember
        self._now = now
        self._stop = stop

    def deliver(self, group: Sequence[ClaimedObject]) -> GroupReport:
        """Deliver the group and settle each of its objects.

        Objects that a stop left untouched, or that a CredentialError hit, are released. Raises LedgerError where the
        outcome cannot be recorded: then the claims stay the caller's to release, and a later run sends again with
        the same message ids.
        """
        # by type, in the order given: what is alike is mapped together
        works = [Work.of(claimed) for claimed in sorted(group, key=lambda claimed: claimed.object.event_type)]
        report = GroupReport()
        sent = Acknowledgements(max_ahead=self._sender.max_in_flight)
        packer = self._packer()
        repeats = Repeats()
        with FetchAhead(self._store, [work.claimed.object for work in works]) as fetch:
            for pieces in gathered(self._pieces(works, fetch, sent)):
                mapped = self._mapped(pieces, sent)
                owed = [self._owed(piece, messages, repeats) for piece, messages in mapped]
                for batch in packer.add_all(owed):
                    sent.expect(batch, self._sender.submit(batch))
                for piece, _ in mapped:
                    self._leave_checkpoint(piece.work, sent, batch=sent.submitted + packer.pending)
                self._settle_behind(works, sent, report)
        for batch in packer.flush():
            sent.expect(batch, self._sender.submit(batch))
        sent.wait()
        self._settle([work for work in works if not work.settled], sent, report)
        report.batches, report.batch_bytes = sent.batches, sent.batch_bytes
        report.destination_down = sent.destination_down
        return report

    def _pieces(self, works: Sequence[Work], fetch: FetchAhead, sent: Acknowledgements) -> Iterator[Piece]:
        """Yield the slices of each object; what stops it is kept as its trouble."""
        for work in works:
            if self._stop.is_set() or sent.credential_error:
                work.trouble = RetryLaterError("stopped before the object was begun")
                continue
            try:
                for piece in self._read(work, fetch.open(work.claimed.object)):
                    yield piece
                    if given_up(work, sent):
                        break
                work.ended = True
            except (RetryLaterError, QuarantineObjectError, CredentialError) as error:
                work.trouble = error
            except ObjectGoneError as error:
                log.warning("object_gone", reason=error.message)
                work.trouble = QuarantineObjectError("the object is gone from the bucket")

    def _read(self, work: Work, stream: BinaryIO) -> Iterator[Piece]:
        with stream:
            if not work.claimed.suspect:
                yield from self._decoded(work, stream)
                return
            with self._tried(work, stream) as fetched:
                yield from self._decoded(work, fetched)

    def _decoded(self, work: Work, stream: BinaryIO) -> Iterator[Piece]:
        obj = work.claimed.object
        event_type = self._event_type(obj.event_type)
        container = Container(stream)
        check_witness(container.record_name, obj.event_type)
        for piece in container.slices(skip_rows=work.claimed.checkpoint.rows):
            yield Piece(work, event_type, container.schema, piece, damaged=bool(container.damage))

    def _mapped(self, pieces: Sequence[Piece], sent: Acknowledgements) -> list[tuple[Piece, Mapped]]:
        """Map pieces together; where that fails each alone, so that a bad one costs its object only."""
        going_on = [piece for piece in pieces if not given_up(piece.work, sent)]
        if not going_on:
            return []
        try:
            mapped = self._mapper.map_together(
                [piece.slice for piece in going_on],
                going_on[0].event_type,
                [piece.work.claimed.object.key for piece in going_on],
            )
        except (QuarantineObjectError, pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
            if len(going_on) > 1:
                return [pair for piece in going_on for pair in self._mapped([piece], sent)]
            going_on[0].work.failure = not_mapped(error)
            return []
        return list(zip(going_on, mapped, strict=True))

    def _owed(self, piece: Piece, mapped: Mapped, repeats: Repeats) -> Part:
        """Return the messages that the object owes, keeping its books."""
        work, events = piece.work, piece.slice.events
        messages = repeats.leave_out(mapped.messages)
        if self._remember:
            messages = self._leave_out_remembered(messages)
            work.message_ids.append((piece.slice.first_row, messages["message_id"]))
        work.damaged = piece.damaged
        work.rows = piece.slice.first_row + events.height
        work.dead_letters += mapped.dead_letters
        work.books += Books(
            read=events.height,
            sent=messages.height,
            skipped_anonymous=mapped.skipped_anonymous,
            deduplicated=mapped.messages.height - messages.height,
            dead_lettered=len(mapped.dead_letters),
        )
        return Part(work.claimed.id, messages)

    @contextmanager
    def _tried(self, work: Work, stream: BinaryIO) -> Iterator[BinaryIO]:
        """Give a suspect's bytes once they were decoded and mapped without harm to the process; sends nothing.

        The bytes are fetched before the trial, so that it is short and nothing but the object can end it.
        """
        with tempfile.SpooledTemporaryFile(max_size=SPOOL_BYTES) as spool:
            fetched = cast("BinaryIO", spool)
            shutil.copyfileobj(stream, fetched)
            fetched.seek(0)
            self._ledger.begin_trial(work.claimed.id)
            # whatever it is, it comes again when the object is delivered; what counts is to be alive
            with suppress(Exception, pl.exceptions.PanicException):
                for piece in self._decoded(work, fetched):
                    self._mapper.map(piece.slice, piece.event_type, work.claimed.object.key)
            self._ledger.clear_suspicion(work.claimed.id)
            fetched.seek(0)
            yield fetched

    def _leave_out_remembered(self, messages: pl.DataFrame) -> pl.DataFrame:
        known = self._ledger.remembered(self._connector, messages["message_id"], self._now())
        return messages.filter(~known) if known.any() else messages

    def _leave_checkpoint(self, work: Work, sent: Acknowledgements, batch: int) -> None:
        """Record how many rows are behind by now; those of the latest slice will be once `batch` has arrived."""
        work.put_fence(batch)
        reached = work.reached(sent)
        if reached is None or reached.rows - work.behind < CHECKPOINT_EVENTS:
            return
        checkpoint = Checkpoint(reached.rows, work.books_at(reached, sent))
        letters, ids = work.letters(sent, reached.rows), work.ids(sent, reached.rows)
        try:
            self._ledger.checkpoint(work.claimed.id, checkpoint, letters, self._now(), ids)
        except ClaimLostError as error:
            work.failure = error
        work.pass_by(reached.rows)

    def _settle_behind(self, works: Sequence[Work], sent: Acknowledgements, report: GroupReport) -> None:
        """Settle what has arrived while the group goes on, so that a crash repeats little; some objects at a time."""
        behind = [w for w in works if w.ended and not w.settled and not w.failure and w.last_batch <= sent.through]
        if sum(work.claimed.object.size_bytes for work in behind) >= SETTLE_BYTES:
            self._settle(behind, sent, report)

    def _settle(self, works: Sequence[Work], sent: Acknowledgements, report: GroupReport) -> None:
        now = self._now()
        settlements: list[Settlement] = []
        released: list[int] = []
        report.credential_error = report.credential_error or sent.credential_error
        read = report.settlements or any(work.rows > work.claimed.checkpoint.rows for work in works)
        for work in works:
            work.settled = True
            failure = work.failure_with(sent)
            match failure:
                case None:
                    settlements.append(work.delivered(sent))
                case QuarantineObjectError():
                    log.warning("object_quarantined", key=work.claimed.object.key, reason=failure.reason)
                    settlements.append(work.quarantined(sent, failure.reason))
                case ClaimLostError():
                    pass
                case CredentialError() if failure.side is Side.DESTINATION or not read:
                    # with others of the group read, a denial is about this object, not about the credential
                    report.credential_error = report.credential_error or failure
                    released.append(work.claimed.id)
                case RetryLaterError() if self._stop.is_set() or sent.credential_error:
                    released.append(work.claimed.id)
                case _:
                    at = retry_at(now, work.claimed.attempts)
                    log.warning("object_failed", key=work.claimed.object.key, reason=failure.message, retry_at=at)
                    settlements.append(Failed(work.claimed.id, failure.message, at))
        try:
            self._ledger.settle(settlements, now)
        except ClaimLostError as error:
            log.warning("claims_lost", reason=error.message)
            settlements = [settlement for settlement in settlements if settlement.id not in error.ids]
        report.settlements += settlements
        if released:
            self._ledger.release(released)


def given_up(work: Work, sent: Acknowledgements) -> bool:
    """Whether more of the object would only be sent for the first of several times: behind a batch that failed."""
    return bool(work.failure or sent.failure_of(work.claimed.id, alone=True))


def not_mapped(error: BaseException) -> QuarantineObjectError:
    """Return why an object is set aside that has a column which no rule of ours foresaw."""
    if isinstance(error, QuarantineObjectError):
        return error
    reason, _, _ = str(error).strip().partition("\n")
    return QuarantineObjectError(f"cannot be mapped: {reason or type(error).__name__}")


def check_witness(record_name: str, event_type: str) -> None:
    """Compare the key's event type with the record's name; raises QuarantineObjectError where they disagree.

    Braze names the record by the type: `dataexport.S3.inner.users.messages.email.Click`. A record whose name is of
    another kind is no witness.
    """
    _, marker, named = record_name.partition(".inner.")
    if marker and canonical_name(named) != event_type:
        raise QuarantineObjectError(f"the key says {event_type}, the records in the file are {named}")
