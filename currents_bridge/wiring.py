"""The composition root: settings become connectors at work. Nothing else knows every adapter."""

import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime
from functools import partial
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from pydantic import SecretStr

from currents_bridge import __version__
from currents_bridge.alerts.rules import Limits
from currents_bridge.alerts.service import Alerts
from currents_bridge.bridge import Bridge
from currents_bridge.config import ConnectorSettings, DeliverySettings, Settings, SourceSettings
from currents_bridge.config.secrets import SecretReader, connector_write_keys, read_write_keys
from currents_bridge.connector import Connector
from currents_bridge.credentials.monitor import CredentialWatch
from currents_bridge.destinations.segment.batch import SegmentBatchTransport
from currents_bridge.destinations.segment.endpoint import reach, segment_url
from currents_bridge.destinations.segment.probes import PUBLIC_API_URLS, PublicApiProbe, SettingsProbe
from currents_bridge.errors import (
    BridgeError,
    ConfigError,
    UsageError,
)
from currents_bridge.events import catalogue
from currents_bridge.events.mapping import AnonymousUsers, Mapper, MappingRules, Properties
from currents_bridge.ledger.database import is_missing, ledger_path
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.logs import get_logger
from currents_bridge.network.deadline import hasten
from currents_bridge.operations import check
from currents_bridge.operations.opening import keep_outcome, open_each
from currents_bridge.ports import Channel, Ledger, Probe, Transport
from currents_bridge.process.signals import Listener
from currents_bridge.sources.discovery import Source
from currents_bridge.sources.listing import find_object
from currents_bridge.sources.s3.store import S3ObjectStore
from currents_bridge.wiring_ledger import Missing, open_ledger, utc_now

if TYPE_CHECKING:
    from currents_bridge.destinations.segment.oauth import OAuth

HEARTBEAT_S = 20.0

log = get_logger()


@contextmanager
def open_bridge(
    settings: Settings,
    environ: Mapping[str, str],
    stop: threading.Event | None = None,
    now: Callable[[], datetime] = utc_now,
    missing: Missing = "make",
) -> Iterator[Bridge]:
    """Open the ledger and make the connectors; closes all of it at the end.

    A connector whose secrets cannot be read leaves the others alone, and is tried again by every job of it. Raises
    ConfigError where that holds of all of them, which is told as a failing job if that was so the time before, too;
    LedgerError for a ledger that cannot be used.
    """
    stop = stop or threading.Event()
    reader = SecretReader(environ)
    if is_missing(ledger_path(settings.ledger.url)):
        read_write_keys(settings, reader)  # before a ledger is made
    with ExitStack() as stack:
        ledger = stack.enter_context(open_ledger(settings, now, missing=missing))
        alerts = make_alerts(settings, reader, ledger)

        def open_one(connector: ConnectorSettings) -> Connector:
            watch = make_watch(connector, settings.delivery, ledger, reader, now)
            stack.callback(watch.close)
            return Connector(
                source=make_source(connector, ledger),
                watch=watch,
                mapper=make_mapper(connector),
                settings=settings.delivery,
                loss=connector.loss,
                audit_depth=connector.source.audit_depth,
                now=now,
                stop=stop,
            )

        names = [one.name for one in settings.connectors]
        try:
            opened, unopened = open_each({one.name: partial(open_one, one) for one in settings.connectors})
        except ConfigError as error:
            if missing == "make":
                keep_outcome(ledger, names, error.message, now())
                alerts.look_at_jobs(ledger.failing_jobs(), names, now())
                alerts.post(now())
            raise
        if missing == "make":
            keep_outcome(ledger, [one.name for one in opened], None, now())
        stack.enter_context(_heartbeat(ledger))
        yield Bridge(settings, ledger, opened, alerts, now, stop, unopened)


@contextmanager
def ended_by(signals: Listener) -> Iterator[None]:
    """Have a stop end all that is asked of others, early enough to settle what was begun."""
    signals.on_stop = lambda grace_s: hasten(grace_s / 2)
    try:
        yield
    finally:
        hasten(math.inf)


@contextmanager
def open_alerts(settings: Settings, environ: Mapping[str, str], missing: Missing = "refuse") -> Iterator[Alerts]:
    """Open the alerts alone; raises ConfigError, LedgerError."""
    with open_ledger(settings, missing=missing) as ledger:
        yield make_alerts(settings, SecretReader(environ), ledger)


def make_alerts(settings: Settings, reader: SecretReader, ledger: SqlLedger) -> Alerts:
    """Return who is told, and of what; raises ConfigError for addresses that cannot be read or used."""
    wanted = settings.alerts
    channels: Sequence[Channel] = ()
    ping = None
    if wanted.urls or wanted.sns_topic_arn or wanted.heartbeat_url:
        from currents_bridge.alerts.channels import Watchdog, make_channels  # noqa: PLC0415 - Apprise takes its time

        addresses = [reader.read_address(url, f"alerts.urls.{n}") for n, url in enumerate(wanted.urls)]
        channels = make_channels(addresses, wanted.sns_topic_arn)
        if wanted.heartbeat_url:
            ping = Watchdog(reader.read_address(wanted.heartbeat_url, "alerts.heartbeat_url")).ping
    return Alerts(
        book=ledger.alert_book(),
        channels=channels,
        limits=Limits(wanted.backlog_age, wanted.dead_letters_per_hour, wanted.silence),
        repeat=wanted.repeat,
        ping=ping,
    )


def make_watch(
    connector: ConnectorSettings,
    delivery: DeliverySettings,
    ledger: Ledger,
    reader: SecretReader,
    now: Callable[[], datetime],
) -> CredentialWatch:
    """Return the watch over a connector's credentials; raises ConfigError, LedgerError."""
    return CredentialWatch(
        connector=connector.name,
        ledger=ledger,
        read_keys=lambda: connector_write_keys(connector, reader),
        key_references=connector.destination.write_key_references,
        open_transport=lambda key: make_transport(connector, delivery, key, reader),
        probes=make_probes(connector, reader),
        endpoint_url=segment_url(connector.destination.region, connector.destination.endpoint_url),
        now=now,
    )


def make_probes(connector: ConnectorSettings, reader: SecretReader) -> list[Probe]:
    """Return the ways to ask about a connector's write key, the strongest first; raises ConfigError."""
    destination = connector.destination
    probes: list[Probe] = []
    if api := destination.public_api:
        field = f"connectors[{connector.name}].destination.public_api.token"
        read_token = partial(reader.read, api.token, field, region=connector.source.region)
        read_token()  # a mistake in the configuration is told at the start
        base_url = api.endpoint_url or PUBLIC_API_URLS[destination.region]
        probes.append(PublicApiProbe(base_url, read_token, api.source_id))
    if destination.settings_url:
        probes.append(
            SettingsProbe(destination.settings_url, segment_url(destination.region, destination.endpoint_url))
        )
    return probes


def make_store(source: SourceSettings) -> S3ObjectStore:
    """Return the bucket of a source."""
    return S3ObjectStore(source.bucket, region=source.region, endpoint_url=source.endpoint_url)


def make_source(connector: ConnectorSettings, ledger: Ledger) -> Source:
    """Return where a connector's objects are and which it includes."""
    include, exclude = connector.events.include, connector.events.exclude

    def event_types(seen: Iterable[str]) -> frozenset[str]:
        return catalogue.select(include, exclude, known=seen)

    return Source(
        store=make_store(connector.source),
        ledger=ledger,
        connector=connector.name,
        prefix=connector.source.prefix,
        event_types=event_types,
        catalogue_types=frozenset(catalogue.catalogue()),
        start_from=connector.source.start_from,
        lookback=connector.source.lookback,
        place=connector.source.place,
        remember=None if connector.dedup == "group" else connector.dedup,
    )


def make_mapper(connector: ConnectorSettings | None) -> Mapper:
    """Return the mapping of a connector's rules, of the defaults without one."""
    if connector is None:
        return Mapper(MappingRules(library_version=__version__))
    return Mapper(
        MappingRules(
            library_version=__version__,
            anonymous_users=AnonymousUsers(connector.anonymous_users),
            properties=Properties(connector.properties),
            names=connector.events.names,
            integrations=connector.destination.integrations,
            message_id_prefix=connector.destination.message_id_prefix,
            fresh_message_ids=connector.rewind_message_ids == "fresh",
        )
    )


def make_transport(
    connector: ConnectorSettings, delivery: DeliverySettings, write_key: SecretStr, reader: SecretReader
) -> Transport:
    """Return the way to a connector's destination with one of its write keys; raises ConfigError."""
    base_url = segment_url(connector.destination.region, connector.destination.endpoint_url)
    oauth = make_oauth(connector, reader)
    if connector.destination.transport == "sdk":
        from currents_bridge.destinations.segment.sdk import SegmentSdkTransport  # noqa: PLC0415 - 13 MB, for few

        return SegmentSdkTransport(write_key, base_url=base_url, clock=utc_now, oauth=oauth)
    return SegmentBatchTransport(
        write_key, base_url=base_url, max_in_flight=delivery.max_in_flight, clock=utc_now, oauth=oauth
    )


def make_oauth(connector: ConnectorSettings, reader: SecretReader) -> "OAuth | None":
    """Return where a connector's OAuth tokens come from; raises ConfigError."""
    wanted = connector.destination.oauth
    if wanted is None:
        return None
    from currents_bridge.destinations.segment.oauth import OAUTH_URLS, OAuth  # noqa: PLC0415 - 9 MB, for few

    field = f"connectors[{connector.name}].destination.oauth.private_key"
    read_key = partial(reader.read, wanted.private_key, field, region=connector.source.region, multiline=True)
    read_key()  # a mistake in the configuration is told at the start
    return OAuth(
        wanted.client_id,
        wanted.key_id,
        read_key,
        base_url=wanted.endpoint_url or OAUTH_URLS[connector.destination.region],
        clock=utc_now,
    )


def verdicts(bridge: Bridge) -> list[check.Verdict]:
    """Return the check of the ledger, of every connector, and of the alerts; raises LedgerError."""
    path = ledger_path(bridge.settings.ledger.url)
    of_connectors = (
        check.check_connector(connector, partial(reach, connector.watch.endpoint_url), bridge.now())
        for connector in bridge.connectors
    )
    of_unopened = (
        check.Verdict(f"{name}: {problem.field}", ok=False, detail=problem.why, remedy=one.error.hint)
        for name, one in bridge.unopened.items()
        for problem in one.error.problems
    )
    return [
        check.check_ledger(path, missing=is_missing(path), can_make=os.access(path.parent, os.W_OK | os.X_OK)),
        *chain.from_iterable(of_connectors),
        *of_unopened,
        *check.check_pairs(bridge.settings.connectors, {one.name: one.watch.fingerprint for one in bridge.connectors}),
        check.check_channels(bridge.alerts.channel_names),
        *check.check_heartbeat(bridge.alerts.ping),
    ]


def open_file(place: str, settings: Settings | None) -> tuple[BinaryIO, str, ConnectorSettings | None]:
    """Return a stream of a local file or of `s3://BUCKET/KEY`, its key, and the connector that reads that bucket.

    Raises UsageError for a file that is not there, CredentialError or RetryLaterError as the bucket does.
    """
    if not place.startswith("s3://"):
        try:
            return Path(place).open("rb"), place, None
        except OSError as error:
            raise UsageError(f"{place} cannot be read: {error.strerror}", "give a file, or s3://BUCKET/KEY") from error
    bucket, _, key = place.removeprefix("s3://").partition("/")
    try:
        bare = SourceSettings(bucket=bucket)
    except ValueError:
        raise UsageError(f"{place} names no bucket", "give a file, or s3://BUCKET/KEY") from None
    connectors = settings.connectors if settings else ()
    connector = next((c for c in connectors if c.source.bucket == bucket and key.startswith(c.source.prefix)), None)
    store = make_store(connector.source if connector else bare)
    listed = find_object(store, key)
    if listed is None:
        raise UsageError(f"{place} is not there", "list the bucket to find the key")
    return store.open(key, listed.etag, listed.size_bytes), key, connector


@contextmanager
def open_single(settings: Settings, environ: Mapping[str, str]) -> Iterator[Connector]:
    """Open a program of one connector."""
    with open_bridge(settings, environ) as bridge:
        (connector,) = bridge.connectors
        yield connector


@contextmanager
def _heartbeat(ledger: Ledger) -> Iterator[None]:
    """Tell other processes on the ledger that this one lives, until the end."""
    ended = threading.Event()

    def beat() -> None:
        while not ended.wait(HEARTBEAT_S):
            try:
                ledger.heartbeat(utc_now())
            except BridgeError as error:
                log.warning("heartbeat_failed", error=error.message)

    thread = threading.Thread(target=beat, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
