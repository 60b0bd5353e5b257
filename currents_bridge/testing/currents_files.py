"""A writer of Braze Currents files: real Avro containers for every event type, with seeded, realistic events.

The form is that of Braze's published sample files (github.com/Appboy/currents-examples): the record is named after the
event type, nearly all fields may be null, and fields that tell of a person carry the mark [PII] in their doc.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from io import BytesIO
from itertools import cycle, islice
from random import Random
from typing import Any, TypedDict, Unpack

import fastavro
from fastavro.write import Writer

from currents_bridge.events.catalogue import ArrayType, Field, catalogue
from currents_bridge.model import format_hour
from currents_bridge.sources.keys import DATE_FOLDER, EVENT_TYPE_FOLDER
from currents_bridge.testing.currents_values import Draw, drawing, uuid

NAMESPACE = "dataexport.S3.inner"
SYNC_INTERVAL_BYTES = 16_000
LARGE_FILE_BLOCK_EVENTS = 20  # about SYNC_INTERVAL_BYTES

Schema = dict[str, Any]
Event = dict[str, Any]


class KeyParts(TypedDict, total=False):
    """What an object's key holds besides type and hour; see `keys`."""

    layout: str  # schema (the default), or version
    prefix: str
    cluster: str
    storage: str  # as Braze names the kind of connection, e.g. S3
    integration: str
    partition: int
    offset: int


def schema_of(event_type: str, *, older: bool = False, overrides: Mapping[str, Any] | None = None) -> Schema:
    """Return the Avro schema of an event type's files; a type that the catalogue lacks gets a few usual fields.

    Args:
        event_type: as in the object's key.
        older: with the fields of files of earlier versions.
        overrides: field -> Avro type that it has instead, or None to leave the field out; new fields are appended.
    """
    namespace, _, name = f"{NAMESPACE}.{event_type}".rpartition(".")
    fields = [*_fields_of(event_type), *(_older_fields_of(event_type) if older else ())]
    types = {field.name: _avro_type(field) for field in fields} | dict(overrides or {})
    return {
        "type": "record",
        "name": name,
        "namespace": namespace,
        "fields": [_avro_field(name, avro_type) for name, avro_type in types.items() if avro_type is not None],
    }


def make_events(  # noqa: PLR0913 - choices with defaults
    event_type: str,
    count: int,
    *,
    seed: int,
    hour: datetime,
    anonymous_share: float = 0.2,
    null_share: float = 0.2,
    older: bool = False,
    overrides: Mapping[str, Any] | None = None,
) -> list[Event]:
    """Return events that fit `schema_of` of the same arguments; the same arguments give the same events.

    Args:
        event_type: as in the object's key.
        count: number of events; each has an id of its own.
        seed: another seed, another hour or another type gives other events.
        hour: `time` lies within it.
        anonymous_share: share of events without external_user_id.
        null_share: share of nulls in the other nullable fields; above 0, a message comes from a campaign or a Canvas.
        older: as in mid-2021: Braze-internal ids in `X_id`, API ids in `X_api_id`.
        overrides: as for `schema_of`; types other than primitives and arrays raise ValueError.
    """
    r = _random(event_type, seed, hour)
    names = {field.name for field in _older_fields_of(event_type)} if older else set()
    plan: list[tuple[str, float, Draw]] = []
    for field in schema_of(event_type, older=older, overrides=overrides)["fields"]:
        name, avro_type = field["name"], field["type"]
        nullable = isinstance(avro_type, list)
        internal = name.endswith("_id") and f"{name.removesuffix('_id')}_api_id" in names
        share = (anonymous_share if name == "external_user_id" else null_share) if nullable else 0.0
        plan.append((name, share, drawing(name, avro_type[-1] if nullable else avro_type, internal_id=internal)))
    events = [{name: None if r.random() < share else draw(r) for name, share, draw in plan} for _ in range(count)]
    campaign, canvas = _sources_of_messages(plan)
    start = int(hour.timestamp())
    for event in events:
        if campaign and canvas:  # a message comes from one of them
            event.update(dict.fromkeys(campaign if r.random() < 0.5 else canvas))  # noqa: PLR2004
        if isinstance(event.get("time"), int):
            event["time"] = start + r.randrange(3600)
    return events


def write_container(
    schema: Schema, events: Iterable[Event], *, codec: str = "null", sync_interval: int = SYNC_INTERVAL_BYTES
) -> bytes:
    """Return an Avro container file; the same arguments give the same bytes.

    Args:
        schema: of the records.
        events: the records.
        codec: null, deflate, snappy, zstandard, or another that fastavro knows.
        sync_interval: bytes of records, before compression, after which a block ends.
    """
    body = BytesIO()
    fastavro.writer(
        body, schema, events, codec=codec, sync_interval=sync_interval, sync_marker=_sync_marker(schema), strict=True
    )
    return body.getvalue()


def object_key(event_type: str, hour: datetime, **parts: Unpack[KeyParts]) -> str:
    """Return the key of a Currents file, in the older layout (`schema`, the default) or in the newer (`version`)."""
    revision, place = "414", "central"
    if parts.get("layout") == "version":
        revision, place = "version=3", "production"
    cluster, storage = parts.get("cluster", "prod-01"), parts.get("storage", "S3")
    stem = f"dataexport.{cluster}.{storage}.integration.{parts.get('integration', '5fb2d0aa5e3c4d0b1c7a9e10')}"
    return (
        f"{parts.get('prefix', '')}{stem}/{EVENT_TYPE_FOLDER}{event_type}/{DATE_FOLDER}{format_hour(hour)}"
        f"/{revision}/{place}/{stem}+{parts.get('partition', 0)}+{parts.get('offset', 0)}.avro"
    )


def sample_file(  # noqa: PLR0913 - choices with defaults
    event_type: str,
    hour: datetime,
    count: int,
    seed: int,
    *,
    codec: str = "null",
    anonymous_share: float = 0.2,
    duplicate_share: float = 0.0,
    older: bool = False,
    **parts: Unpack[KeyParts],
) -> tuple[str, bytes]:
    """Return key and body of a file with `count` events, of which `duplicate_share` repeat an earlier one.

    Files of one type and hour need different `offset`s, or they are one object.
    """
    repeats = min(round(count * duplicate_share), max(count - 1, 0))
    events = make_events(
        event_type, count - repeats, seed=seed, hour=hour, anonymous_share=anonymous_share, older=older
    )
    r = _random(event_type, seed, hour)
    for _ in range(repeats):
        first = r.randrange(len(events))
        events.insert(r.randrange(first, len(events)) + 1, events[first])
    body = write_container(schema_of(event_type, older=older), events, codec=codec)
    return object_key(event_type, hour, **parts), body


def large_file(event_type: str, count: int, seed: int, *, hour: datetime, codec: str = "null") -> bytes:
    """Return the body of a file for benchmarks, made fast: 2,000 events over and over, each time with a new id."""
    schema = schema_of(event_type)
    events = make_events(event_type, min(count, 2000), seed=seed, hour=hour)
    pool = _around_ids(events, fastavro.parse_schema(schema))
    id_start = uuid(_random(event_type, seed, hour))[:24].encode()
    records = (b"%b%b%012x%b" % (before, id_start, i, after) for i, (before, after) in zip(range(count), cycle(pool)))
    body = BytesIO()
    container = Writer(body, schema, codec=codec, sync_marker=_sync_marker(schema))
    while block := list(islice(records, LARGE_FILE_BLOCK_EVENTS)):
        container.write_block(_Block(len(block), BytesIO(b"".join(block))))
    return body.getvalue()


@dataclass(frozen=True)
class _Block:
    """What fastavro's `Writer.write_block` reads of a block."""

    num_records: int
    bytes_: BytesIO  # the records, before compression


# What the files of a type that the catalogue lacks hold.
_USUAL_FIELDS = (
    Field("id", "string", nullable=False),
    Field("user_id", "string", nullable=False),
    Field("external_user_id", "string", nullable=True),
    Field("time", "int", nullable=False),
    Field("app_id", "string", nullable=True),
    Field("platform", "string", nullable=True),
    Field("device_model", "string", nullable=True),
    Field("email_address", "string", nullable=True),
    Field("campaign_name", "string", nullable=True),
    Field("attempt_count", "int", nullable=True),
)
_PERSONAL = {
    "ad_id",
    "custom_attributes",
    "device_id",
    "email_address",
    "external_user_id",
    "message_body",
    "properties",
}


def _fields_of(event_type: str) -> tuple[Field, ...]:
    listed = catalogue().get(event_type)
    return listed.fields if listed else _USUAL_FIELDS


def _older_fields_of(event_type: str) -> tuple[Field, ...]:
    listed = catalogue().get(event_type)
    return listed.older_fields if listed else ()


def _avro_type(field: Field) -> Any:
    match field.type:
        case ArrayType(items, nullable_items):
            avro_type: Any = {"type": "array", "items": ["null", items] if nullable_items else items}
        case primitive:
            avro_type = primitive
    return ["null", avro_type] if field.nullable else avro_type


def _avro_field(name: str, avro_type: Any) -> dict[str, Any]:
    personal = name in _PERSONAL or name.endswith("phone_number")
    doc = name.replace("_", " ") + (" [PII]" if personal else "")
    default = {"default": None} if isinstance(avro_type, list) and avro_type[0] == "null" else {}
    return {"name": name, "type": avro_type, "doc": doc, **default}


def _sources_of_messages(plan: Iterable[tuple[str, float, Draw]]) -> tuple[list[str], list[str]]:
    """Return the nullable fields that tell of a campaign, and those that tell of a Canvas."""
    nullable = [name for name, share, _ in plan if share]
    campaign = [name for name in nullable if name.startswith(("campaign_", "message_variation_"))]
    return campaign, [name for name in nullable if name.startswith("canvas_")]


def _random(event_type: str, seed: int, hour: datetime) -> Random:
    return Random(f"{event_type} {seed} {format_hour(hour)}")


def _sync_marker(schema: Schema) -> bytes:
    return hashlib.sha256(json.dumps(schema).encode()).digest()[:16]


def _around_ids(events: Iterable[Event], schema: Any) -> list[tuple[bytes, bytes]]:
    """Return each event as Avro has it, cut into what stands before the digits of its id and what stands after."""
    parts = []
    for event in events:
        record = BytesIO()
        fastavro.schemaless_writer(record, schema, event)
        before, _, after = record.getvalue().partition(event["id"].encode())
        parts.append((before, after))
    return parts
