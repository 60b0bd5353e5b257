"""The composition root: settings become connectors at work. The only importer of adapters/."""

import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

from pydantic import SecretStr

from currents_bridge import __version__, catalogue, check
from currents_bridge.adapters.s3 import S3ObjectStore
from currents_bridge.adapters.secrets import read_secrets
from currents_bridge.adapters.segment_batch import SegmentBatchTransport
from currents_bridge.adapters.segment_endpoint import segment_url
from currents_bridge.app_ledger import open_ledger, utc_now
from currents_bridge.config import ConnectorSettings, DeliverySettings, Settings, SourceSettings
from currents_bridge.connector import Connector
from currents_bridge.discovery import Source
from currents_bridge.errors import BridgeError, CredentialError, UsageError
from currents_bridge.logs import get_logger
from currents_bridge.mapping import AnonymousUsers, Mapper, MappingRules, Properties
from currents_bridge.ports import Ledger, Transport
from currents_bridge.transfer import TransferReport

HEARTBEAT_S = 20.0

log = get_logger()


@dataclass(frozen=True, slots=True)
class Bridge:
    """An open program: one ledger, and the connectors of the settings."""

    settings: Settings
    ledger: Ledger
    connectors: Sequence[Connector]
    write_keys: Mapping[str, SecretStr]
    stop: threading.Event

    def named(self, name: str | None) -> Sequence[Connector]:
        """Return the connector of that name, all without a name; raises UsageError for an unknown one."""
        chosen = [connector for connector in self.connectors if name in (None, connector.name)]
        if not chosen:
            known = ", ".join(connector.name for connector in self.connectors)
            raise UsageError(f"there is no connector {name}", f"the configuration has: {known}")
        return chosen


@contextmanager
def open_bridge(
    settings: Settings, environ: Mapping[str, str], stop: threading.Event | None = None
) -> Iterator[Bridge]:
    """Open the ledger and make the connectors; closes all of it at the end.

    Raises ConfigError for secrets that cannot be read, LedgerError for a ledger that cannot be used.
    """
    stop = stop or threading.Event()
    write_keys = read_secrets(settings, environ)
    with ExitStack() as stack:
        ledger = stack.enter_context(open_ledger(settings))
        connectors = []
        for connector in settings.connectors:
            transport = make_transport(connector, settings.delivery, write_keys[connector.name])
            stack.callback(transport.close)
            connectors.append(
                Connector(
                    source=make_source(connector, ledger),
                    transport=transport,
                    mapper=make_mapper(connector),
                    settings=settings.delivery,
                    remember=None if connector.dedup == "group" else connector.dedup,
                    now=utc_now,
                    stop=stop,
                )
            )
        stack.enter_context(_heartbeat(ledger))
        yield Bridge(settings, ledger, connectors, write_keys, stop)


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
        )
    )


def make_transport(connector: ConnectorSettings, delivery: DeliverySettings, write_key: SecretStr) -> Transport:
    """Return the way to a connector's destination."""
    base_url = segment_url(connector.destination.region, connector.destination.endpoint_url)
    if connector.destination.transport == "sdk":
        from currents_bridge.adapters.segment_sdk import SegmentSdkTransport  # noqa: PLC0415 - 13 MB, for few

        return SegmentSdkTransport(write_key, base_url=base_url, clock=utc_now)
    return SegmentBatchTransport(write_key, base_url=base_url, max_in_flight=delivery.max_in_flight, clock=utc_now)


def verdicts(bridge: Bridge) -> list[check.Verdict]:
    """Return the check of every connector."""
    return [
        verdict
        for connector in bridge.connectors
        for verdict in check.check_connector(connector, bridge.write_keys[connector.name].get_secret_value(), utc_now())
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
    parts = urlsplit(place, allow_fragments=False)
    bucket, key = parts.netloc, place.removeprefix(f"s3://{parts.netloc}/")
    connectors = settings.connectors if settings else ()
    connector = next((c for c in connectors if c.source.bucket == bucket and key.startswith(c.source.prefix)), None)
    store = make_store(connector.source if connector else SourceSettings(bucket=bucket))
    listed = next(iter(store.list(key)), None)  # of all keys that begin like this one, itself comes first
    if listed is None or listed.key != key:
        raise UsageError(f"{place} is not there", "list the bucket to find the key")
    return store.open(key, listed.etag), key, connector


def exit_code(reports: Iterable[TransferReport]) -> int:
    """Return what a command ends with: a failing credential outranks a failure, a failure what was set aside."""
    return worst(code for report in reports for code in _exit_codes(report))


def worst(codes: Iterable[int]) -> int:
    """Return the exit code that tells most: a failing credential, then a failure, then what was set aside."""
    found = set(codes)
    return next((code for code in (3, 1, 4) if code in found), 0)


def _exit_codes(report: TransferReport) -> Iterator[int]:
    if report.error:
        yield 3 if isinstance(report.error, CredentialError) else 1
    if report.failed:
        yield 1
    if report.quarantined or report.books.dead_lettered:
        yield 4


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
