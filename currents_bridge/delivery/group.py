"""How a group of claimed objects becomes acknowledged messages: the one-page story.

fetch -> decode -> map -> leave out repeats -> pack -> send -> settle. An object is settled only after every batch that
carries its messages was acknowledged; whatever goes wrong costs the object a later try, never an event. Large objects
leave checkpoints on the way, so that a later try goes on where this one ended.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime

import polars as pl

from currents_bridge.credentials.state import Sending
from currents_bridge.delivery.acks import Acknowledgements
from currents_bridge.delivery.progress import Repeats, Run, Share, Work
from currents_bridge.delivery.reading import Reader, failure_of
from currents_bridge.delivery.witnesses import Witnesses
from currents_bridge.due import retry_at
from currents_bridge.errors import (
    BridgeError,
    ClaimLostError,
    CredentialError,
    ObjectChangedError,
    OneObjectError,
    QuarantineObjectError,
    RetryLaterError,
    Side,
)
from currents_bridge.events.catalogue import EventType
from currents_bridge.events.drift import Drifts
from currents_bridge.events.mapping import Mapped, Mapper, Origin
from currents_bridge.logs import get_logger
from currents_bridge.mistakes import MISTAKES, described
from currents_bridge.model import (
    Books,
    Checkpoint,
    ClaimedObject,
    CurrentsObject,
    Failed,
    Part,
    Quarantined,
    Settlement,
)
from currents_bridge.ports import Ledger, ObjectStore
from currents_bridge.sending.bisect import ObjectsDeniedError
from currents_bridge.sending.packing import Packer
from currents_bridge.sending.sender import Sender

SETTLE_BYTES = 1024 * 1024  # of objects that have arrived: settled while their group goes on
CHECKPOINT_EVENTS = 2_500  # read since the last checkpoint; a commit for so many costs 0.3 us an event

log = get_logger()


@dataclass(slots=True)
class GroupReport:
    """What became of one group."""

    settlements: list[Settlement] = field(default_factory=list)
    batches: int = 0
    batch_bytes: int = 0  # serialised, before compression, acknowledged ones only
    credential_error: CredentialError | None = None  # what it hit was released, all else settled
    tried_events: int = 0  # acknowledged on trial
    changed: list[CurrentsObject] = field(default_factory=list)  # failed, since they were written again

    @property
    def nothing_through(self) -> bool:
        """Whether a side may be unreachable: something failed, and Segment took nothing."""
        return not self.batches and any(isinstance(s, Failed) and s.side for s in self.settlements)


class Delivery:
    """Delivers groups of one connector's objects. Thread-safe: each call works on its own group.

    With `remember`, message ids that were sent before are left out, and those that are sent are remembered: what other
    objects sent is a repeat, what the object itself sent in an earlier delivery counts as sent. A canary that fails
    costs no attempt; on trial, what is acknowledged counts for nothing either: no object is settled for it. A denial by
    S3 is the object's own where one of the `witnesses` can be read.
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
        drifts: Drifts,
        witnesses: Witnesses,
        sending: Sending = Sending.ALL,
        now: Callable[[], datetime],
        stop: threading.Event,
    ) -> None:
        self._connector = connector
        self._reader = Reader(store=store, ledger=ledger, mapper=mapper, event_type=event_type, stop=stop)
        self._ledger = ledger
        self._sender = sender
        self._mapper = mapper
        self._packer = packer
        self._remember = remember
        self._drifts = drifts
        self._witnesses = witnesses
        self._sending = sending
        self._now = now
        self._stop = stop

    def deliver(self, group: Sequence[ClaimedObject]) -> GroupReport:
        """Deliver the group and settle each of its objects.

        Objects that a stop left untouched, or that a CredentialError hit, are released. Raises LedgerError where the
        outcome cannot be recorded: then the claims stay the caller's to release, and a later run sends again with
        the same message ids.
        """
        # by type, in the order given: small objects that are alike are read and mapped together
        in_order = sorted(group, key=lambda claimed: claimed.object.event_type)
        works = [Work.of(claimed, alone=len(group) == 1) for claimed in in_order]
        report = GroupReport()
        sent = Acknowledgements(max_ahead=self._sender.max_in_flight)
        packer = self._packer()
        repeats = Repeats()
        with closing(self._reader.runs(works, sent)) as runs:  # at once, whatever happens: others wait for their turn
            for run in runs:
                with sent.at_the_cost_of({share.work.claimed.id for share in run.shares}):
                    self._send_run(run, packer, repeats, sent)
                self._settle_behind(works, sent, report)
        with sent.at_the_cost_of({work.claimed.id for work in works if work.last_batch > sent.submitted}):
            for batch in packer.flush():
                sent.expect(batch, self._sender.submit(batch))
        sent.wait()
        for work in works:
            if not (work.settled or work.ended or isinstance(work.failure, QuarantineObjectError)):
                with sent.at_the_cost_of({work.claimed.id}):
                    self._leave_checkpoint(work, sent, 1)  # a later try goes on where this one ended
        self._settle([work for work in works if not work.settled], sent, report)
        report.changed = [work.claimed.object for work in works if isinstance(work.failure, ObjectChangedError)]
        report.batches, report.batch_bytes = sent.batches, sent.batch_bytes
        return report

    def _send_run(self, run: Run, packer: Packer, repeats: Repeats, sent: Acknowledgements) -> None:
        mapped = self._mapped(run)
        if mapped:
            self._drifts.saw(run.event_type, run.events.schema, self._hour_of(mapped), run.json_fields)
        owed: list[tuple[Work, Part]] = []
        for share, messages in mapped:
            with sent.at_the_cost_of({share.work.claimed.id}):
                owed.append((share.work, self._owed(share, messages, repeats)))
        for batch in packer.add_all([part for _, part in owed]):
            sent.expect(batch, self._sender.submit(batch))
        for work, _ in owed:
            with sent.at_the_cost_of({work.claimed.id}):
                work.put_fence(sent.submitted + packer.pending)
                self._leave_checkpoint(work, sent, CHECKPOINT_EVENTS)

    def _mapped(self, run: Run) -> list[tuple[Share, Mapped]]:
        """Map the run; where that fails each object's share alone, so that a bad one costs itself only."""
        origins = [_origin(share) for share in run.shares]
        try:
            mapped = self._mapper.map_together(
                run.events, run.event_type, origins, json_fields=run.json_fields, unreadable=run.unreadable
            )
        except MISTAKES as error:
            if len(run.shares) > 1:
                return [pair for alone in run.each_alone() for pair in self._mapped(alone)]
            work = run.shares[0].work
            work.failure = failure_of(error, work.claimed.object.key)
            return []
        return list(zip(run.shares, mapped, strict=True))

    def _hour_of(self, mapped: Sequence[tuple[Share, Mapped]]) -> datetime:
        """Return the hour of the run's last object; one that lies ahead counts as now, so that later files still do."""
        share, _ = mapped[-1]
        return min(share.work.claimed.object.hour, self._now())

    def _owed(self, share: Share, mapped: Mapped, repeats: Repeats) -> Part:
        """Return the messages that the object owes, keeping its books."""
        work = share.work
        messages, sent_before = mapped.messages, 0
        if self._remember:
            messages, sent_before = self._without_known(work, messages, repeats)
        messages = repeats.leave_out(messages)
        if self._remember:
            work.message_ids.append((share.first_row, messages["message_id"]))
        work.damaged = share.damaged
        work.rows = share.first_row + share.height
        work.dead_letters += mapped.dead_letters
        work.books += Books(
            read=share.height,
            sent=messages.height + sent_before,
            skipped_anonymous=mapped.skipped_anonymous,
            deduplicated=mapped.messages.height - messages.height - sent_before,
            dead_lettered=len(mapped.dead_letters),
        )
        work.check_letters()
        return Part(work.claimed.id, messages)

    def _without_known(self, work: Work, messages: pl.DataFrame, repeats: Repeats) -> tuple[pl.DataFrame, int]:
        """Return the messages that were not sent before, and how many the object sent itself in earlier deliveries."""
        known = self._ledger.known(self._connector, work.claimed, messages["message_id"])
        if not (known.before.any() or known.repeats.any()):
            return messages, 0
        sent_before = repeats.leave_out(messages.filter(known.before)).height
        return messages.filter(~(known.before | known.repeats)), sent_before

    def _leave_checkpoint(self, work: Work, sent: Acknowledgements, events: int) -> None:
        """Record how many rows are behind by now, if these are so many events more than the last time."""
        reached = work.reached(sent)
        if self._sending is Sending.TRIAL or reached is None or reached.rows - work.behind < events:
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
        read = [work.claimed.object.key for work in works if work.rows > work.claimed.checkpoint.rows]
        self._witnesses.note_read(*read)
        for work in works:
            work.settled = True
            ending = None
            with sent.at_the_cost_of({work.claimed.id}):
                ending = work.ending(sent)
            if ending and self._sending is Sending.TRIAL:
                report.tried_events += work.books.sent
                released.append(work.claimed.id)
                continue
            if ending:
                if isinstance(ending, Quarantined):
                    log.warning("object_quarantined", key=work.claimed.object.key, reason=ending.reason)
                settlements.append(ending)
                continue
            failure = work.failure_with(sent)
            match failure:
                case ClaimLostError():
                    pass
                case CredentialError() if not self._is_its_own_trouble(failure, work):
                    report.credential_error = report.credential_error or failure
                    released.append(work.claimed.id)
                case None:  # it has an ending
                    released.append(work.claimed.id)
                case _ if self._stop.is_set() or sent.credential_error or self._sending is not Sending.ALL:
                    released.append(work.claimed.id)
                case _:
                    settlements.append(failed := _failed(work, failure, now))
                    key, at = work.claimed.object.key, failed.retry_at
                    log.warning("object_failed", key=key, reason=failed.reason, retry_at=at)
        report.settlements += self._recorded(settlements, now)
        if released:
            self._ledger.release(released)

    def _recorded(self, settlements: Sequence[Settlement], now: datetime) -> Sequence[Settlement]:
        """Record what became of objects; return what was recorded. One that cannot be settled costs itself."""
        try:
            self._ledger.settle(settlements, now)
        except ClaimLostError as error:
            log.warning("claims_lost", reason=error.message)
            return [settlement for settlement in settlements if settlement.id not in error.ids]
        except BridgeError:
            raise
        except Exception as error:
            if len(settlements) > 1:
                return [recorded for alone in settlements for recorded in self._recorded([alone], now)]
            log.exception("settlement_bug", id=settlements[0].id)
            aside = Quarantined(settlements[0].id, described(error))
            self._ledger.settle([aside], now)
            return [aside]
        return settlements

    def _is_its_own_trouble(self, denial: CredentialError, work: Work) -> bool:
        """Return whether a denial says nothing of the credential, since S3 gives out other objects."""
        return denial.side is Side.SOURCE and self._witnesses.one_is_readable(work.claimed.object.key)


def _failed(work: Work, failure: BridgeError, now: datetime) -> Failed:
    """Return that an object waits. What may have failed for others of its group is due at once: it comes alone then."""
    side = _side_in_doubt(work, failure)
    at = retry_at(now, work.claimed.attempts) if work.alone or side is None else now
    return Failed(work.claimed.id, failure.message, at, side)


def _side_in_doubt(work: Work, failure: BridgeError) -> Side | None:
    if not isinstance(failure, RetryLaterError) or isinstance(failure, OneObjectError | ObjectsDeniedError):
        return None
    return Side.SOURCE if failure is work.failure else Side.DESTINATION


def _origin(share: Share) -> Origin:
    claimed = share.work.claimed
    return Origin(claimed.object.key, share.first_row, share.height, claimed.rewinds)
