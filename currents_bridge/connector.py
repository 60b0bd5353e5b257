"""One source with its destination and its rules, ready to work: what every job is made of."""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from currents_bridge.config import DeliverySettings
from currents_bridge.credentials import state as credentials
from currents_bridge.credentials.monitor import CredentialWatch
from currents_bridge.credentials.state import LossPolicy, Sending
from currents_bridge.delivery.acks import Acknowledgements
from currents_bridge.delivery.group import Delivery, GroupReport
from currents_bridge.delivery.outage import Outages
from currents_bridge.delivery.witnesses import Witnesses
from currents_bridge.delivery.workers import Transfer, TransferReport
from currents_bridge.due import lately, retry_at
from currents_bridge.errors import BridgeError, CredentialError, RetryLaterError, Side, StoppedError
from currents_bridge.events.catalogue import EventType, catalogue, general_event_type
from currents_bridge.events.drift import Drifts
from currents_bridge.events.mapping import Mapper
from currents_bridge.logs import get_logger
from currents_bridge.model import (
    Canary,
    ClaimedObject,
    CredentialState,
    ExpiryRule,
    Failed,
    GroupLimits,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Quarantined,
    Selection,
)
from currents_bridge.ports import Ledger
from currents_bridge.sending.bisect import batch_of
from currents_bridge.sending.packing import Packer
from currents_bridge.sending.sender import ENVELOPE_BYTES, Pace, Proof, Sender, key_in_body
from currents_bridge.sources import discovery
from currents_bridge.sources.audit import audit
from currents_bridge.sources.coverage import HourRange, hour_of
from currents_bridge.sources.discovery import Discovery, Source
from currents_bridge.sources.expiry import rules_under
from currents_bridge.sources.stoppable import StoppableStore

AUDIT_LISTINGS_PER_SECOND = 50  # so that an audit of any bucket leaves S3 and this process time for others
FOLD_AFTER = timedelta(days=8)  # late files come within hours; what is folded stays known
CANARIES = 3  # at most in a row, where one says nothing, as an unreadable file
CANARY_GOOD_FOR = timedelta(hours=20)  # a message sent once more; Segment drops repeats for about a day
EXCLUDED = "left out by events.include and events.exclude; what waited of it is kept, and sent once it is included"

OnGroup = Callable[[TransferReport], None]
log = get_logger()


@dataclass(frozen=True, slots=True)
class _Denial:
    """What Segment denied."""

    error: CredentialError
    unproven: frozenset[int]  # objects that it refuses, while nothing shows yet whether the key works


@dataclass(frozen=True, slots=True)
class _Job:
    """What one call of `deliver` is to do."""

    report: TransferReport
    selection: Selection
    pace: Pace | None
    on_group: OnGroup


def event_type_of(name: str) -> EventType:
    """Return how events of the type are mapped: as the catalogue says, or by the general rules."""
    listed = catalogue().get(name)
    return listed if listed and listed.mapped else general_event_type(name)


class Connector:
    """A connector at work. Its methods keep trouble in their report instead of raising it, except our own mistakes.

    `active_at` is when Segment last took something of it, in this process.

    Args:
        source: where its objects are, and which are known.
        watch: its credentials, and the way to its destination; the caller closes it.
        mapper: its rules.
        settings: how much at once and how fast.
        loss: what a failing credential may cost.
        audit_depth: how far back an audit lists; None: to the beginning.
        now: the time, aware.
        stop: set when the program stops; work that was begun is settled, nothing more is begun.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands in each collaborator by name
        self,
        *,
        source: Source,
        watch: CredentialWatch,
        mapper: Mapper,
        settings: DeliverySettings,
        loss: LossPolicy,
        audit_depth: timedelta | None = None,
        now: Callable[[], datetime],
        stop: threading.Event,
    ) -> None:
        self.name = source.connector
        self.source = source = replace(source, store=StoppableStore(source.store, stop))
        self.mapper = mapper
        self.watch = watch
        self.loss = loss
        self._settings = settings
        self._remember = source.remember
        self._audit_depth = audit_depth
        self.now = now
        self._stop = stop
        self._witnesses = Witnesses(source.connector, source.store, source.ledger, self._everything, now)
        self._pace = self.pace(settings.requests_per_second)
        self._drifts = Drifts()
        self._outages = Outages(source.connector, source.ledger)
        self._seen_types: frozenset[str] = frozenset()
        self._held_types: frozenset[str] = frozenset()
        self._unreleased: list[int] = []
        self.active_at: datetime | None = None

    @property
    def ledger(self) -> Ledger:
        """What became of the connector's objects."""
        return self.source.ledger

    @property
    def remembers(self) -> bool:
        """Whether message ids that were sent are remembered."""
        return self._remember is not None

    def pace(self, requests_per_second: float | None) -> Pace:
        """Return a pace of so many requests a second, and of the settings' events a second."""
        return Pace(requests_per_second, self._settings.events_per_second, stop=self._stop)

    def poll(self, on_group: OnGroup = lambda _: None) -> TransferReport:
        """Look for new objects in the hot window, then deliver all that is due and may be sent."""
        report = TransferReport()
        with kept(report):
            self.watch.renew()
        if self._look(report, discovery.poll):
            self._try_to_read(report)
        if report.error is None or isinstance(report.error, RetryLaterError):
            # a listing that fails now and then must not hold back what is known already
            self._set_aside_expired(report)
            self.deliver(report, self._everything(), on_group=on_group)
            self._note_drifts(report)
        return self._finished(report, "poll_finished")

    def probe(self, every: timedelta = timedelta(0)) -> None:
        """Ask about the write key, unless that was done less than `every` ago; raises LedgerError."""
        self.watch.probe(every)

    def audit(self) -> TransferReport:
        """Compare the whole bucket with ledger and books, admit what is missing, and fold hours that are long past."""
        report = TransferReport()
        pace = Pace(AUDIT_LISTINGS_PER_SECOND, None, stop=self._stop)

        def wait() -> None:
            if self._stop.is_set():
                raise StoppedError("the audit ended")
            pace.wait(0)

        with kept(report):
            if (rules := self.source.store.expiry_rules()) is not None:
                self.keep_expiry_rules(rules)
            kept_from = credentials.provable_before(self.watch.credential(Side.DESTINATION), self.now())
            self.ledger.fold(self.name, hour_of(self.now() - FOLD_AFTER), kept_from)
            self.ledger.forget(self.name, self.now() - (self._remember or timedelta(0)))
            found = audit(self.source, self.now(), self._audit_depth, wait)
            report.discovered = found.discovered
            report.findings = found.findings
            report.error = discovery.problem_with(self.source, found.tree)
            self._seen_types = found.tree.types
        self._take_in_denial(report)
        return self._finished(report, "audit_finished")

    def audit_when_due(self, every: timedelta) -> TransferReport | None:
        """Audit if the last one is so long ago. The very first look is left to `poll`, which does not dawdle."""
        progress = self.ledger.progress(self.name)
        return self.audit() if progress.looked_at and self._is_due(progress, every) else None

    def _is_due(self, progress: Progress, every: timedelta) -> bool:
        return not lately(progress.audited_at, self.now(), every)

    def keep_expiry_rules(self, rules: Sequence[ExpiryRule]) -> None:
        """Keep those of the bucket's lifecycle rules that may delete the connector's objects; raises LedgerError."""
        self.ledger.save_expiry_rules(self.name, rules_under(self.source.prefix, rules))

    def forget_rewritten(self, selection: Selection) -> None:
        """Say no longer of a selection's types that objects changed: they were sent again; raises LedgerError.

        What changed in other hours is found again by the next audit.
        """
        notices = self.ledger.totals(self.name).notices
        left = [n for n in notices if n.kind is NoticeKind.OBJECT_CHANGED and n.subject not in selection.event_types]
        self.ledger.replace_notices(self.name, NoticeKind.OBJECT_CHANGED, left, self.now())

    def once(self, audit_every: timedelta, on_group: OnGroup = lambda _: None) -> TransferReport:
        """Poll, then audit if that is due, and deliver what the audit found; the report is that of all."""
        report = self.poll(on_group)
        audited = TransferReport()
        with kept(audited):
            if self._is_due(self.ledger.progress(self.name), audit_every):
                audited = self.audit()
        report.discovered += audited.discovered
        report.findings = audited.findings
        report.error = report.error or audited.error
        if audited.discovered:
            self.deliver(report, self._everything(), on_group=on_group)
        return report

    def discover(self, report: TransferReport, selection: Selection) -> bool:
        """Look for objects of a selection; returns whether that succeeded."""
        hours: list[HourRange] = [(selection.first_hour, selection.end_hour)]
        source = replace(self.source, event_types=lambda _: selection.event_types)

        return self._look(report, lambda _, now: discovery.discover(source, lambda _: hours, now, counted=hours))

    def deliver(
        self,
        report: TransferReport,
        selection: Selection,
        *,
        pace: Pace | None = None,
        on_group: OnGroup = lambda _: None,
    ) -> None:
        """Deliver all of the selection that is due, adding to the report.

        While the write key is failing, one object goes ahead to see whether it is taken, or nothing at all. So it does
        where the first denial comes: whatever was denied may be the trouble of what was sent.
        """
        job = _Job(report, selection, pace, on_group)
        with kept(report):
            self.watch.begin()
            if self._unreleased:
                self.ledger.release(self._unreleased)
                self._unreleased = []
            self._reclaim(report)
            allowed, denial = self.watch.sending(), None
            if allowed is Sending.ALL:
                denial = self._send_all(job)
            if denial or allowed in {Sending.CANARY, Sending.TRIAL}:
                denial = self._send_canary(job, Sending.CANARY if denial else allowed, denial)
                if denial and allowed is Sending.ALL and denial.unproven and self._fail_alone(job, denial):
                    denial = None
                elif denial is None and self.watch.sending() is Sending.ALL:
                    denial = self._send_all(job)
            if denial:
                report.error = denial.error
                self.ledger.keep_canary(self.name, None, self.now())
                self.watch.denied(denial.error)
            self.raise_if_paused()
        report.error = report.error or self._outages.error
        if report.changed:
            with kept(report):
                discovery.look_again(self.source, report.changed, self.now())

    def _send_all(self, job: "_Job") -> "_Denial | None":
        """Deliver all that is due, unless a side is unreachable; returns what Segment denied."""

        def claim() -> Sequence[ClaimedObject]:
            return self.ledger.claim(self.name, job.selection, GroupLimits(), self.now())

        def go_on() -> bool:
            return self.watch.sending() is Sending.ALL

        def works(side: Side, but: Collection[int]) -> bool:
            return self._comes_through(job, but) if side is Side.DESTINATION else self._witnesses.any_is_reachable()

        if not self._outages.are_over(job.selection, works):
            return None
        while True:
            denial = self._send(job, Sending.ALL, claim, self._settings.workers, go_on)
            failures = job.report.take_in_doubt()
            if denial or not failures or self._stop.is_set() or self._outages.explain(failures, works):
                return denial

    def _comes_through(self, job: "_Job", but: Collection[int]) -> bool:
        """Return whether Segment answers for anything, be it by a denial, or there is nothing to try.

        Tried are some objects; where none waits but those, a message that was taken before; at last those themselves.
        """
        for _ in range(CANARIES):
            group, batches = self.ledger.claim_canary(self.name, job.selection, self.now(), but), job.report.batches
            if not group:
                break
            if self._send_one(job, Sending.CANARY, group) or job.report.batches > batches:
                return True
        else:
            return False
        if but and (canary := self._canary()):
            return self._is_answered(job, canary)
        return self._comes_through(job, ()) if but else True

    def _is_answered(self, job: "_Job", canary: Canary) -> bool:
        with self.sender(job.pace) as sender:
            sent = Acknowledgements(max_ahead=1)
            batch = batch_of(canary)
            sent.expect(batch, sender.submit(batch))
            sent.wait()
        return bool(sent.batches or sent.credential_error)  # a denial comes again with whatever is sent next

    def _send_canary(self, job: "_Job", sending: Sending, denial: "_Denial | None") -> "_Denial | None":
        """Let one object go ahead, another where it says nothing; returns None where it was taken, else the denial."""
        but = denial.unproven if denial else ()
        for _ in range(CANARIES):
            group = self.ledger.claim_canary(self.name, job.selection, self.now(), but)
            if not group:
                break
            batches = job.report.batches
            denied = self._send_one(job, sending, group)
            if denied or job.report.batches > batches or isinstance(job.report.error, CredentialError):
                return denied
        return denial

    def _send_one(self, job: "_Job", sending: Sending, group: Sequence[ClaimedObject]) -> "_Denial | None":
        """Deliver one group, which is claimed already; returns what Segment denied."""
        claims = iter([group])
        return self._send(job, sending, lambda: next(claims, ()), 1, lambda: True)

    def _send(
        self,
        job: "_Job",
        sending: Sending,
        claim: Callable[[], Sequence[ClaimedObject]],
        workers: int,
        go_on: Callable[[], bool],
    ) -> "_Denial | None":
        """Deliver what is claimed; returns what Segment denied. A denial by S3 is taken in here."""
        report, proof = job.report, self._begin_proof()
        canary = proof.canary
        before, batches = report.error, report.batches
        counted = report.sent_first, report.sent_again

        def after_group(so_far: TransferReport) -> None:
            nonlocal counted
            self.watch.acknowledged(so_far.sent_first - counted[0], so_far.sent_again - counted[1])
            counted = so_far.sent_first, so_far.sent_again
            job.on_group(so_far)

        with self.sender(job.pace, proof) as sender:
            delivery = Delivery(
                connector=self.name,
                store=self.source.store,
                ledger=self.ledger,
                sender=sender,
                mapper=self.mapper,
                event_type=event_type_of,
                drifts=self._drifts,
                packer=self.packer,
                remember=self.remembers,
                witnesses=self._witnesses,
                sending=sending,
                now=self.now,
                stop=self._stop,
            )
            transfer = Transfer(
                connector=self.name,
                ledger=self.ledger,
                delivery=delivery,
                claim=claim,
                workers=workers,
                stop=self._stop,
                go_on=go_on,
            )
            try:
                transfer.run(report, after_group)
            finally:
                self._unreleased = transfer.unreleased
        if report.batches > batches:
            if proof.canary is not canary:
                self.ledger.keep_canary(self.name, proof.canary, self.now())
            self.watch.worked(Side.DESTINATION, "Segment answers 2xx")
        denial = report.error if report.error is not before else None
        if isinstance(denial, CredentialError) and denial.side is Side.SOURCE:
            self.watch.denied(denial)
        if not isinstance(denial, CredentialError) or denial.side is Side.SOURCE:
            return None
        report.error = before  # another object may show that it is the trouble of what was sent
        return _Denial(denial, proof.unproven)

    def _fail_alone(self, job: "_Job", denial: "_Denial") -> bool:
        """Fail what was refused where nothing else waits, and nothing is known; returns whether that is so.

        It may be the message or the key: nothing is set aside, and the key is not blamed for one object.
        """
        others = self.ledger.claim_canary(self.name, job.selection, self.now(), denial.unproven)
        self.ledger.release([item.id for item in others])
        if others:
            return False
        alone = self.ledger.claim(self.name, job.selection, GroupLimits(), self.now())
        failed = [Failed(item.id, denial.error.message, retry_at(self.now(), item.attempts)) for item in alone]
        self.ledger.settle(failed, self.now())
        job.report.add(GroupReport(list(failed)))
        return True

    def _canary(self) -> Canary | None:
        """Return the last acknowledged message, while Segment would drop it as a repeat."""
        return self.ledger.canary(self.name, self.now() - CANARY_GOOD_FOR, self.now())

    def _begin_proof(self, *, needed: bool = True) -> Proof:
        """Return what is known of the destination at the start of a pass."""
        return Proof(self._canary(), needed=needed)

    def _try_to_read(self, report: TransferReport) -> None:
        """Take in that S3 can be listed; where it was failing, only if some object can be read as well."""
        with kept(report):
            if self.watch.credential(Side.SOURCE).state is CredentialState.FAILING:
                try:
                    self._witnesses.read_one()
                except CredentialError as error:
                    self.watch.denied(error)
                    raise
            self.watch.worked(Side.SOURCE, "S3 answers")

    def _note_drifts(self, report: TransferReport) -> None:
        """Keep what the newest files have of drift; a backfill says nothing of it."""
        with kept(report):
            for event_type, words in self._drifts.changed().items():
                if words:
                    notice = Notice(NoticeKind.SCHEMA_DRIFT, event_type, words)
                    self.ledger.note(self.name, [notice], self.now())
                else:
                    self.ledger.forget_notice(self.name, NoticeKind.SCHEMA_DRIFT, event_type)

    def _set_aside_expired(self, report: TransferReport) -> None:
        """Where that is wanted, set aside what Braze's connector would have lost by now; S3 still has it."""
        if not self.loss.drop:
            return
        with kept(report):
            state = credentials.state_at(self.watch.credential(Side.DESTINATION), self.now(), self.loss.window)
            if state is CredentialState.EXPIRED:
                reason = (
                    "waited for longer than the loss window (after_loss_window: drop); `quarantine replay` sends it"
                )
                count = self.ledger.set_aside(self.name, self.now() - self.loss.window, reason, self.now())
                if count:
                    log.warning("objects_dropped", connector=self.name, objects=count)

    def raise_if_paused(self) -> None:
        """Raise CredentialError while the write key is failing; raises LedgerError."""
        self.watch.begin()
        known = self.watch.credential(Side.DESTINATION)
        if known.state is CredentialState.FAILING:
            raise CredentialError(Side.DESTINATION, f"sending is paused: {known.evidence}", known.hint or "")

    def _reclaim(self, report: TransferReport) -> None:
        """Take back what dead processes held, and report what took them down."""
        for item in self.ledger.reclaim(self.name, self.now()).set_aside:
            log.warning("object_quarantined", key=item.object.key, reason=item.reason)
            report.add(GroupReport([Quarantined(item.id, item.reason)]))

    def sender(self, pace: Pace | None = None, proof: Proof | None = None) -> Sender:
        """Return a sender to the destination, at the settings' pace unless told otherwise; the caller closes it.

        Without a `proof` it is for what was set aside before: a refusal is told as one where nothing can prove it.
        """
        return Sender(
            self.watch.transport,
            max_in_flight=self._settings.max_in_flight,
            pace=pace or self._pace,
            stop=self._stop,
            on_acknowledged=self._is_active,
            proof=proof or self._begin_proof(needed=False),
        )

    def _is_active(self) -> None:
        self.active_at = self.now()

    def packer(self) -> Packer:
        """Return an empty packer with the settings' limits, and room for the write key, which may be in the body."""
        return Packer(
            max_bytes=self._settings.max_batch_bytes - len(key_in_body(self.watch.key.get_secret_value())),
            max_events=self._settings.max_batch_events,
            envelope_bytes=ENVELOPE_BYTES,
        )

    def waiting_objects(self) -> int:
        """Return how many objects wait for their first attempt or are worked on; raises LedgerError."""
        states = self.ledger.totals(self.name).objects
        return states[ObjectState.PENDING] + states[ObjectState.CLAIMED]

    def included_types(self) -> frozenset[str]:
        """Return the event types that the rules include, also unknown ones that the latest look saw or that wait."""
        return self.source.event_types(self._seen_types | self._held_types)

    def _everything(self) -> Selection:
        return Selection(self.included_types())

    def _look(self, report: TransferReport, look: Callable[[Source, datetime], Discovery]) -> bool:
        """Look for objects; returns whether the bucket could be listed, be it without some folders or in vain."""
        problem = None
        with kept(report):
            found = look(self.source, self.now())
            report.discovered += found.discovered
            report.denied_folders = len(found.denied)
            self._seen_types = found.seen_types
            problem = found.problem
        self._take_in_denial(report)
        with kept(report):
            self._apply_rules()
        could = report.error is None
        report.error = report.error or problem
        return could

    def _take_in_denial(self, report: TransferReport) -> None:
        if isinstance(report.error, CredentialError):
            with kept(report):
                self.watch.denied(report.error)

    def _apply_rules(self) -> None:
        """Hold back what waits of event types that the rules leave out by now, and let go what they include again."""
        undelivered = self.ledger.undelivered(self.name)
        self._held_types = frozenset(of.event_type for of in undelivered)
        included = self.included_types()
        if any(of.waiting if of.event_type not in included else of.excluded for of in undelivered):
            self.ledger.exclude(self.name, self._held_types - included)
        notices = [
            Notice(NoticeKind.EXCLUDED, of.event_type, EXCLUDED, of.waiting + of.excluded)
            for of in undelivered
            if of.event_type not in included
        ]
        self.ledger.replace_notices(self.name, NoticeKind.EXCLUDED, notices, self.now())

    def _finished(self, report: TransferReport, action: str) -> TransferReport:
        counts = {
            "discovered": report.discovered,
            "delivered": report.delivered,
            "failed": report.failed,
            "quarantined": report.quarantined,
            "sent": report.books.sent,
            "seconds": round(report.seconds, 3),
        }
        if isinstance(report.error, StoppedError):
            log.info(action, connector=self.name, stopped=True, **counts)
        elif report.error:
            log.error(action, connector=self.name, error=report.error.message, **counts)
        elif report.reasons:
            log.warning(action, connector=self.name, reasons=dict(report.reasons.most_common(5)), **counts)
        else:
            log.info(action, connector=self.name, **counts)
        return report


class kept:  # noqa: N801 - reads as a statement
    """Keeps a BridgeError as the report's error, the first one; anything else is a mistake of ours and passes."""

    def __init__(self, report: TransferReport) -> None:
        self._report = report

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, BridgeError):
            return False
        self._report.error = self._report.error or error
        return True
