"""One connector's core: a bucket and a Segment source in memory, a real ledger, and a clock that stands still."""

import io
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, BinaryIO

import polars as pl
from pydantic import SecretStr

from currents_bridge.alerts.rules import Limits
from currents_bridge.alerts.service import Alerts
from currents_bridge.bridge import Bridge
from currents_bridge.config import DeliverySettings, Settings
from currents_bridge.connector import Connector, event_type_of
from currents_bridge.credentials.monitor import CredentialWatch
from currents_bridge.credentials.state import LossPolicy
from currents_bridge.delivery.group import Delivery, GroupReport
from currents_bridge.delivery.witnesses import Witnesses
from currents_bridge.delivery.workers import Transfer, TransferReport
from currents_bridge.errors import CredentialError, RetryLaterError, Side
from currents_bridge.events import catalogue
from currents_bridge.events.drift import Drifts
from currents_bridge.events.mapping import Mapper, MappingRules
from currents_bridge.model import (
    Batch,
    Checkpoint,
    ClaimedObject,
    ConnectorTotals,
    Credential,
    DeadLetter,
    GroupLimits,
    ObjectState,
    Progress,
    Refusal,
    Selection,
    Settlement,
)
from currents_bridge.ports import Probe
from currents_bridge.sending.packing import Packer
from currents_bridge.sending.sender import ENVELOPE_BYTES, Pace, Sender
from currents_bridge.sources.discovery import Source
from currents_bridge.testing.currents_files import Event, make_events, object_key, schema_of, write_container
from currents_bridge.testing.fake_store import FakeObjectStore
from currents_bridge.testing.fake_transport import FakeTransport
from tests.ledgers import LedgerOnFile

CLICK = "users.messages.email.Click"
OPEN = "users.messages.email.Open"
HOUR = datetime(2026, 1, 2, 3, tzinfo=UTC)
NAME = "production"
DENIED = CredentialError(Side.DESTINATION, "segment answered 401", "check the write key")
UNWELL = RetryLaterError("segment answered 503")


class Stop(threading.Event):
    """A stop event that nobody waits for: a wait is over at once, and kept."""

    def __init__(self) -> None:
        super().__init__()
        self.waits_s: list[float] = []

    def wait(self, timeout: float | None = None) -> bool:
        """Return whether the event is set."""
        self.waits_s.append(timeout or 0)
        return self.is_set()


class BreakingStore(FakeObjectStore):
    """A bucket whose streams may break: `breaks` holds, by key, what is raised 200 bytes before the end.

    `opened` are the keys of all objects that were opened.
    """

    def __init__(self) -> None:
        super().__init__()
        self.breaks: dict[str, Exception] = {}
        self.opened: list[str] = []

    def open(self, key: str, etag: str, size_bytes: int) -> BinaryIO:
        """Open an object, for as far as it can be read."""
        self.opened.append(key)
        stream = super().open(key, etag, size_bytes)
        return _Breaking(stream.read(), self.breaks[key]) if key in self.breaks else stream


class _Breaking(io.BytesIO):
    def __init__(self, content: bytes, error: Exception) -> None:
        super().__init__(content)
        self._good_bytes, self._error = len(content) - 200, error

    def read(self, size: int | None = -1, /) -> bytes:
        content = super().read(size)
        if self.tell() > self._good_bytes:
            raise self._error
        return content


class FaultyLedger(LedgerOnFile):
    """A ledger some of whose methods raise what `faults` names for them; `checkpoints` are those it recorded."""

    def __init__(self, path: Path | None = None) -> None:
        self.faults: dict[str, Exception] = {}
        self.checkpoints: list[Checkpoint] = []
        super().__init__(path)

    def _check(self, method: str) -> None:
        if fault := self.faults.get(method):
            raise fault

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Settle, or raise."""
        self._check("settle")
        super().settle(settlements, now)

    def checkpoint(
        self,
        id_: int,
        checkpoint: Checkpoint,
        dead_letters: Sequence[DeadLetter],
        now: datetime,
        message_ids: pl.Series | None = None,
    ) -> None:
        """Record how far an object has come, or raise."""
        self._check("checkpoint")
        super().checkpoint(id_, checkpoint, dead_letters, now, message_ids)
        self.checkpoints.append(checkpoint)

    def release(self, ids: Sequence[int]) -> None:
        """Release, or raise."""
        self._check("release")
        super().release(ids)

    def fold(self, connector: str, before_hour: datetime, settled_before: datetime) -> int:
        """Fold, or raise."""
        self._check("fold")
        return super().fold(connector, before_hour, settled_before)

    def progress(self, connector: str) -> Progress:
        """Return the progress, or raise."""
        self._check("progress")
        return super().progress(connector)

    def save_credential(self, connector: str, side: Side, credential: Credential) -> None:
        """Keep a credential, or raise."""
        self._check("save_credential")
        super().save_credential(connector, side, credential)

    def totals(self, connector: str) -> ConnectorTotals:
        """Add up, or raise."""
        self._check("totals")
        return super().totals(connector)


class PromptSender(Sender):
    """A sender whose batches are answered before `submit` returns, so that what a test sees does not depend on time."""

    def submit(self, batch: Batch) -> Future[Sequence[Refusal]]:
        """Send the batch."""
        future = super().submit(batch)
        wait([future])
        return future


class PickyMapper(Mapper):
    """Raises what `faults` names for an object's key; `runs` are how many objects were mapped together each time."""

    def __init__(self) -> None:
        super().__init__(MappingRules(library_version="1"))
        self.faults: dict[str, BaseException] = {}
        self.runs: list[int] = []

    def map_together(self, events: Any, event_type: Any, origins: Any, **told: Any) -> Any:
        """Map, or raise."""
        for origin in origins:
            if origin.object_key in self.faults:
                raise self.faults[origin.object_key]
        self.runs.append(len(origins))
        return super().map_together(events, event_type, origins, **told)


@dataclass
class Bench:
    """The collaborators, and what is made of them."""

    store: BreakingStore = field(default_factory=BreakingStore)
    ledger: FaultyLedger = field(default_factory=FaultyLedger)
    transport: FakeTransport = field(default_factory=FakeTransport)
    mapper: PickyMapper = field(default_factory=PickyMapper)
    stop: Stop = field(default_factory=Stop)
    now: datetime = HOUR + timedelta(minutes=10)
    prefix: str = ""
    include: tuple[str, ...] = ("supported",)
    write_key: str = "a" * 32
    probes: Sequence[Probe] = ()
    loss: LossPolicy = field(default_factory=LossPolicy)
    unreachable: RetryLaterError | None = None

    def put(self, events: int | Sequence[Event] = 3, *, offset: int = 0, cut_bytes: int = 0, **options: Any) -> str:
        """Put a file of so many events, or of these, into the bucket, a block for each event; return its key.

        `cut_bytes` are missing at its end. Options: event_type, hour, record_type, if that is another, and overrides
        of the schema's fields.
        """
        event_type, hour = options.get("event_type", CLICK), options.get("hour", HOUR)
        records = clicks(events, offset, event_type=event_type, hour=hour) if isinstance(events, int) else events
        key = object_key(event_type, hour, prefix=self.prefix, offset=offset)
        schema = schema_of(options.get("record_type", event_type), overrides=options.get("overrides"))
        body = write_container(schema, records, sync_interval=1)
        self.store.put(key, body[: len(body) - cut_bytes], last_modified=hour)
        return key

    def source(self) -> Source:
        """Return the bucket, and what of it is included."""
        return Source(
            store=self.store,
            ledger=self.ledger,
            connector=NAME,
            prefix=self.prefix,
            event_types=lambda seen: catalogue.select(self.include, (), known=seen),
            catalogue_types=frozenset(catalogue.catalogue()),
        )

    def connector(
        self, *, remember: timedelta | None = None, audit_depth: timedelta | None = None, **settings: Any
    ) -> Connector:
        """Return a connector without a limit on its pace, with one worker and one request at a time by default."""
        chosen = {"requests_per_second": None, "workers": 1, "max_in_flight": 1} | settings
        return Connector(
            source=replace(self.source(), remember=remember),
            watch=self.watch(),
            mapper=self.mapper,
            settings=DeliverySettings.model_validate(chosen),
            loss=self.loss,
            audit_depth=audit_depth,
            now=lambda: self.now,
            stop=self.stop,
        )

    def bridge(self, settings: Settings) -> Bridge:
        """Return the connector as an open program, whose alerts go nowhere."""
        limits = Limits(backlog_age=timedelta(hours=6), dead_letters_per_hour=100, silence=timedelta(hours=24))
        alerts = Alerts(book=self.ledger.alert_book(), channels=(), limits=limits, repeat=timedelta(hours=12))
        return Bridge(settings, self.ledger, [self.connector()], alerts, lambda: self.now, self.stop)

    def watch(self) -> CredentialWatch:
        """Return the watch over one write key, which is about to be used."""
        watch = CredentialWatch(
            connector=NAME,
            ledger=self.ledger,
            read_keys=lambda: [SecretStr(self.write_key)],
            open_transport=lambda _: self.transport,
            probes=self.probes,
            endpoint_url="https://api.segment.io",
            now=lambda: self.now,
        )
        watch.begin()
        return watch

    def reach(self) -> None:
        """Answer as the destination would."""
        if self.unreachable:
            raise self.unreachable

    def admit(self) -> Selection:
        """Make every object of the bucket known; return a selection of all of them."""
        self.connector().discover(TransferReport(), selection := everything())
        return selection

    def claim(self) -> Sequence[ClaimedObject]:
        """Make every object of the bucket known, and claim what is due as one group."""
        return self.ledger.claim(NAME, self.admit(), GroupLimits(), self.now)

    def deliver(
        self, group: Sequence[ClaimedObject] | None = None, *, max_batch_events: int = 2500, remember: bool = False
    ) -> GroupReport:
        """Deliver a group, by default all that is due; each batch is answered before anything else is done."""
        with self.sender(kind=PromptSender) as sender:
            delivery = self.delivery(sender, max_batch_events, remember=remember)
            return delivery.deliver(self.claim() if group is None else group)

    def transfer(self, report: TransferReport, *, workers: int = 1, max_objects: int = 500, **options: Any) -> Transfer:
        """Run a transfer of everything in the bucket, adding to the report."""
        selection = self.admit()
        with self.sender(options.pop("max_in_flight", 1)) as sender:
            transfer = Transfer(
                connector=NAME,
                ledger=self.ledger,
                delivery=self.delivery(sender, options.pop("max_batch_events", 2500)),
                claim=lambda: self.ledger.claim(NAME, selection, GroupLimits(max_objects=max_objects), self.now),
                workers=workers,
                stop=self.stop,
            )
            transfer.run(report, **options)
            return transfer

    def sender(self, max_in_flight: int = 1, kind: Callable[..., Sender] = Sender) -> Sender:
        """Return a sender without a limit on its pace."""
        return kind(self.transport, max_in_flight=max_in_flight, pace=Pace(None, None, stop=self.stop), stop=self.stop)

    def delivery(self, sender: Sender, max_batch_events: int = 2500, *, remember: bool = False) -> Delivery:
        """Return the delivery."""
        return Delivery(
            connector=NAME,
            store=self.store,
            ledger=self.ledger,
            sender=sender,
            mapper=self.mapper,
            event_type=event_type_of,
            packer=lambda: Packer(max_bytes=475_000, max_events=max_batch_events, envelope_bytes=ENVELOPE_BYTES),
            remember=remember,
            drifts=Drifts(),
            witnesses=Witnesses(NAME, self.store, self.ledger, everything, lambda: self.now),
            now=lambda: self.now,
            stop=self.stop,
        )

    def states(self) -> dict[ObjectState, int]:
        """Return how many objects are in each state, without the states that none is in."""
        return {state: count for state, count in self.ledger.totals(NAME).objects.items() if count}

    def states_by_key(self) -> dict[str, ObjectState]:
        """Return the state of each object."""
        return {row["key"]: ObjectState(row["state"]) for row in self.ledger.rows()}

    def sent_ids(self) -> list[str]:
        """Return the message ids that the destination took, in order."""
        return [message["messageId"] for message in self.transport.messages]


def everything() -> Selection:
    """Return a selection of all supported types and hours."""
    return Selection(frozenset(catalogue.supported_types()))


def clicks(count: int, seed: int = 0, *, event_type: str = CLICK, hour: datetime = HOUR) -> list[Event]:
    """Return events of known users."""
    return make_events(event_type, count, seed=seed, hour=hour, anonymous_share=0)


def of_kind(settlements: Sequence[Settlement], kind: type) -> list[Any]:
    """Return the settlements of one kind."""
    return [settlement for settlement in settlements if isinstance(settlement, kind)]
