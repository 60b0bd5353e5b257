"""`backfill`: deliver the hours in [from, to) again or for the first time, at a pace of its own.

What was delivered is left out, so an interrupted backfill is resumed by running it again.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from statistics import fmean

from currents_bridge.avro.container import Container
from currents_bridge.config.values import FASTEST, SLOWEST
from currents_bridge.connector import Connector, OnGroup, event_type_of, kept
from currents_bridge.delivery.workers import TransferReport
from currents_bridge.errors import ObjectGoneError, QuarantineObjectError, RetryLaterError, UsageError
from currents_bridge.events import catalogue
from currents_bridge.logs import get_logger
from currents_bridge.model import CurrentsObject, Selection
from currents_bridge.sources.coverage import HOUR, hour_of
from currents_bridge.sources.discovery import list_objects
from currents_bridge.sources.keys import FIRST_YEAR
from currents_bridge.sources.listing import PAGE_OBJECTS, find_event_type_folders

_TYPICAL_RATIO = 6.0  # bytes of messages that a byte of deflated Avro becomes

log = get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """What a backfill would deliver; the answer of a dry run."""

    objects: int
    object_bytes: int
    requests: int  # estimated from one object of each type

    def as_json(self) -> dict[str, object]:
        """Return the connector's part of the JSON document of a dry run."""
        return {"objects": self.objects, "bytes": self.object_bytes, "requests": self.requests}


def parse_span(from_: str, to: str) -> tuple[datetime | None, datetime | None]:
    """Return the hours [first, end) that cover two ISO times (UTC where they name no zone); raises UsageError.

    None: without bound, where there is no hour before the first one, or none after the last.
    """
    first, end = _time("--from", from_), _time("--to", to)
    if first >= end:
        raise UsageError(f"no hour lies in [{from_}, {to})", "give a --to that is later than --from")
    try:
        last = hour_of(end + HOUR - datetime.resolution)
    except OverflowError:  # in the last hour of the year 9999
        last = None
    return hour_of(first) if first.year >= FIRST_YEAR else None, last


def check_pace(requests_per_second: float | None) -> None:
    """Raise UsageError for a pace that the settings could not have either."""
    if requests_per_second is not None and not SLOWEST <= requests_per_second <= FASTEST:
        raise UsageError(
            f"no backfill can make {requests_per_second} requests a second", f"give {SLOWEST:g} to {FASTEST}"
        )


def select(connector: Connector, span: tuple[datetime | None, datetime | None], globs: Sequence[str]) -> Selection:
    """Return the connector's included types that match a glob (all without globs) over the span's hours.

    Raises UsageError where no type matches, CredentialError or RetryLaterError where the bucket cannot be listed.
    """
    seen = find_event_type_folders(connector.source.store, connector.source.prefix).types
    included = connector.source.event_types(seen)
    wanted = included & catalogue.select(globs, (), known=seen) if globs else included
    if not wanted:
        raise UsageError(
            f"no event type of {connector.name} matches {' '.join(globs) or 'events.include'}",
            "`currents-bridge events` lists the types that the configuration includes",
        )
    return Selection(wanted, *span)


def plan(connector: Connector, selection: Selection, *, max_batch_bytes: int, resend: bool) -> Plan:
    """Return what a backfill would deliver, writing nothing; raises as the listing does.

    The newest or the oldest object of a type shows how large its messages are. Where neither can be read now, as in an
    archive, the type counts as the others do.
    """
    sizes: dict[str, int] = {}
    samples: dict[str, list[CurrentsObject]] = {}
    objects = 0
    listing = list_objects(connector.source, selection)
    while page := list(islice(listing, PAGE_OBJECTS)):
        for obj in page if resend else connector.ledger.outstanding(connector.name, page):
            objects += 1
            sizes[obj.event_type] = sizes.get(obj.event_type, 0) + obj.size_bytes
            samples.setdefault(obj.event_type, [obj])[1:] = [obj]
    ratios = {name: _message_bytes_per_byte(connector, samples[name][::-1]) for name in sizes}
    known = [ratio for ratio in ratios.values() if ratio is not None]
    typical = fmean(known) if known else _TYPICAL_RATIO
    message_bytes = sum(size * (typical if (ratio := ratios[name]) is None else ratio) for name, size in sizes.items())
    return Plan(objects, sum(sizes.values()), math.ceil(message_bytes / max_batch_bytes))


def backfill(
    connector: Connector,
    selection: Selection,
    *,
    resend: bool = False,
    requests_per_second: float | None = None,
    on_group: OnGroup = lambda _: None,
) -> TransferReport:
    """Discover and deliver the selection, also what waits for a later try; `resend` also what was delivered before.

    `requests_per_second` None keeps the pace of the settings. Trouble is kept in the report, except that a ledger
    which cannot make objects due raises LedgerError.

    What is to be sent again is left to this backfill, and to others that resend, until it ends; then to everybody.
    """
    report = TransferReport()
    connector.ledger.hasten(connector.name, selection)
    pace = connector.pace(requests_per_second) if requests_per_second else None
    if not connector.discover(report, selection):
        return report
    if not resend:
        connector.deliver(report, selection, pace=pace, on_group=on_group)
        return report
    with kept(report):
        try:
            _reopen(connector, selection)
            connector.deliver(report, replace(selection, resend=True), pace=pace, on_group=on_group)
        finally:
            connector.ledger.leave_resent(connector.name)
        connector.forget_rewritten(selection)
    return report


def _reopen(connector: Connector, selection: Selection) -> None:
    """Make pending what the bucket has of the selection: what S3 deleted keeps its books; raises as the listing."""
    listing = list_objects(connector.source, selection)
    while page := list(islice(listing, PAGE_OBJECTS)):
        connector.ledger.reopen(connector.name, page, connector.now())


def _message_bytes_per_byte(connector: Connector, samples: Sequence[CurrentsObject]) -> float | None:
    """Return how many bytes of messages a byte of such objects becomes, as the first shows that can be read now."""
    for obj in samples:
        try:
            with connector.source.store.open(obj.key, obj.etag, obj.size_bytes) as stream:
                pieces = (
                    connector.mapper.map(piece, event_type_of(obj.event_type), obj.key).messages["message"]
                    for piece in Container(stream).slices()
                )
                return sum(int(messages.str.len_bytes().sum()) + messages.len() for messages in pieces) / obj.size_bytes
        except QuarantineObjectError:
            return 0.0
        except (RetryLaterError, ObjectGoneError) as error:
            log.warning("sample_not_read", key=obj.key, error=error.message)
    return None


def _time(option: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise UsageError(
            f"{option} {text} is no time", "write it like 2026-01-31, 2026-01-31T06 or 2026-01-31T06:00Z"
        ) from None
    return moment
