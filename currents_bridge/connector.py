"""One source with its destination and its rules, ready to work: what every job is made of."""

import threading
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

from currents_bridge import discovery
from currents_bridge.catalogue import EventType, catalogue, general_event_type
from currents_bridge.config import DeliverySettings
from currents_bridge.delivery import Delivery, GroupReport
from currents_bridge.discovery import Discovery, HourRange, Source
from currents_bridge.errors import BridgeError, CredentialError, RetryLaterError
from currents_bridge.logs import get_logger
from currents_bridge.mapping import Mapper
from currents_bridge.model import CredentialReport, GroupLimits, ObjectState, Quarantined, Selection
from currents_bridge.packing import Packer
from currents_bridge.ports import Ledger, Transport
from currents_bridge.sending import ENVELOPE_BYTES, Pace, Proof, Sender
from currents_bridge.transfer import Transfer, TransferReport

FOLD_AFTER = max(discovery.SWEEP_AGES) + timedelta(days=1)  # the sweep has seen such hours for the last time

OnGroup = Callable[[TransferReport], None]
log = get_logger()


def event_type_of(name: str) -> EventType:
    """Return how events of the type are mapped: as the catalogue says, or by the general rules."""
    listed = catalogue().get(name)
    return listed if listed and listed.mapped else general_event_type(name)


class Connector:
    """A connector at work. Its methods keep trouble in their report instead of raising it, except our own mistakes.

    Args:
        source: where its objects are, and which are known.
        transport: the way to its destination; the caller closes it.
        mapper: its rules.
        settings: how much at once and how fast.
        remember: for how long message ids that were sent are left out; None: only repeats within a group are.
        now: the time, aware.
        stop: set when the program stops; work that was begun is settled, nothing more is begun.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands in each collaborator by name
        self,
        *,
        source: Source,
        transport: Transport,
        mapper: Mapper,
        settings: DeliverySettings,
        remember: timedelta | None = None,
        now: Callable[[], datetime],
        stop: threading.Event,
    ) -> None:
        self.name = source.connector
        self.source = source
        self.mapper = mapper
        self._transport = transport
        self._settings = settings
        self._remember = remember
        self._now = now
        self._stop = stop
        self._proof = Proof()  # of all passes: one batch a poll must do to find out that a key is at fault
        self._pace = self.pace(settings.requests_per_second)
        self._seen_types: frozenset[str] = frozenset()
        self._unreleased: list[int] = []

    @property
    def ledger(self) -> Ledger:
        """What became of the connector's objects."""
        return self.source.ledger

    def pace(self, requests_per_second: float | None) -> Pace:
        """Return a pace of so many requests a second, and of the settings' events a second."""
        return Pace(requests_per_second, self._settings.events_per_second, stop=self._stop)

    def poll(self, on_group: OnGroup = lambda _: None) -> TransferReport:
        """Look for new objects in the hot window, then deliver all that is due."""
        report = TransferReport()
        if self._look(report, discovery.poll) or isinstance(report.error, RetryLaterError):
            # a listing that fails now and then must not hold back what is known already
            self.deliver(report, self._everything(), on_group=on_group)
        return self._finished(report, "poll_finished")

    def sweep(self) -> TransferReport:
        """Look for objects that came late into older hours, and fold what no sweep will look at again."""
        report = TransferReport()
        if self._look(report, discovery.sweep):
            with _kept(report):
                self.ledger.fold(self.name, discovery.hour_of(self._now() - FOLD_AFTER))
                self.ledger.forget(self.name, self._now() - (self._remember or timedelta(0)))
        return self._finished(report, "sweep_finished")

    def once(self, sweep_every: timedelta, on_group: OnGroup = lambda _: None) -> TransferReport:
        """Sweep if that is due, then poll, whatever became of the sweep; the report is that of both."""
        swept = TransferReport()
        with _kept(swept):
            swept_at = self.ledger.progress(self.name).swept_at
            if swept_at is None or swept_at <= self._now() - sweep_every:
                swept = self.sweep()
        report = self.poll(on_group)
        report.discovered += swept.discovered
        report.error = report.error or swept.error
        return report

    def discover(self, report: TransferReport, selection: Selection) -> bool:
        """Look for objects of a selection; returns whether that succeeded."""
        hours: list[HourRange] = [(selection.first_hour, selection.end_hour)]
        source = replace(self.source, event_types=lambda _: selection.event_types)
        return self._look(report, lambda _, now: discovery.discover(source, hours, now))

    def deliver(
        self,
        report: TransferReport,
        selection: Selection,
        *,
        pace: Pace | None = None,
        again: bool = False,
        on_group: OnGroup = lambda _: None,
    ) -> None:
        """Deliver all of the selection that is due, adding to the report; `again` also what is remembered as sent."""
        with self.sender(pace) as sender:
            delivery = Delivery(
                connector=self.name,
                store=self.source.store,
                ledger=self.ledger,
                sender=sender,
                mapper=self.mapper,
                event_type=event_type_of,
                packer=self.packer,
                remember=self._remember is not None and not again,
                now=self._now,
                stop=self._stop,
            )
            transfer = Transfer(
                connector=self.name,
                ledger=self.ledger,
                delivery=delivery,
                workers=self._settings.workers,
                limits=GroupLimits(),
                now=self._now,
                stop=self._stop,
            )
            with _kept(report):
                if self._unreleased:
                    self.ledger.release(self._unreleased)
                self._unreleased = transfer.unreleased  # the run fills it
                self._reclaim(report)
                transfer.run(selection, report, on_group)
        self._keep_credential(report)

    def _reclaim(self, report: TransferReport) -> None:
        """Take back what dead processes held, and report what took them down."""
        before = {item.id for item in self.ledger.quarantined(self.name)}
        self.ledger.reclaim(self._now())
        for item in self.ledger.quarantined(self.name):
            if item.id not in before:
                log.warning("object_quarantined", key=item.object.key, reason=item.reason)
                report.add(GroupReport([Quarantined(item.id, item.reason)]))

    def sender(self, pace: Pace | None = None) -> Sender:
        """Return a sender to the destination, at the settings' pace unless told otherwise; the caller closes it."""
        return Sender(
            self._transport,
            max_in_flight=self._settings.max_in_flight,
            pace=pace or self._pace,
            stop=self._stop,
            proof=self._proof,
        )

    def packer(self) -> Packer:
        """Return an empty packer with the settings' limits."""
        return Packer(
            max_bytes=self._settings.max_batch_bytes,
            max_events=self._settings.max_batch_events,
            envelope_bytes=ENVELOPE_BYTES,
        )

    def waiting_objects(self) -> int:
        """Return how many objects wait for their first attempt or are worked on; raises LedgerError."""
        states = self.ledger.totals(self.name).objects
        return states[ObjectState.PENDING] + states[ObjectState.CLAIMED]

    def included_types(self) -> frozenset[str]:
        """Return the event types that the rules include, also unknown ones that the latest look saw."""
        return self.source.event_types(self._seen_types)

    def _everything(self) -> Selection:
        return Selection(self.included_types())

    def _look(self, report: TransferReport, look: Callable[[Source, datetime], Discovery]) -> bool:
        with _kept(report):
            found = look(self.source, self._now())
            report.discovered += found.discovered
            self._seen_types = found.seen_types
        self._keep_credential(report)
        return report.error is None

    def _keep_credential(self, report: TransferReport) -> None:
        """Record what the work said about the credentials: a refusal since when, or that Segment answers 200."""
        with _kept(report):
            known = self.ledger.totals(self.name).credential
            if isinstance(report.error, CredentialError):
                since = known.since if known.state == "failing" else self._now()
                self.ledger.save_credential(self.name, CredentialReport("failing", since, report.error.message))
            elif report.batches and known.state == "failing":
                self.ledger.save_credential(
                    self.name, CredentialReport("unverified", self._now(), "Segment answers 2xx")
                )

    def _finished(self, report: TransferReport, action: str) -> TransferReport:
        counts = {
            "discovered": report.discovered,
            "delivered": report.delivered,
            "failed": report.failed,
            "quarantined": report.quarantined,
            "sent": report.books.sent,
            "seconds": round(report.seconds, 3),
        }
        if report.error:
            log.error(action, connector=self.name, error=report.error.message, **counts)
        elif report.reasons:
            log.warning(action, connector=self.name, reasons=dict(report.reasons.most_common(5)), **counts)
        else:
            log.info(action, connector=self.name, **counts)
        return report


class _kept:  # noqa: N801 - reads as a statement
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
