"""From columns to Segment track messages, in the shape of Braze's own Segment connector.

A plan of column expressions is made once per event type and file schema; a slice of events then becomes a column of
encoded messages without touching single events. Only types with `merge_json_field` pay for a loop over their events.
Shape: https://www.braze.com/docs/partners/data_and_analytics/customer_data_platform/segment/segment_for_currents/
Limits: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#max-request-size
"""

import hashlib
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from itertools import accumulate
from operator import itemgetter
from typing import Any

import orjson
import polars as pl

from currents_bridge.catalogue import EventType
from currents_bridge.decode import Slice
from currents_bridge.errors import QuarantineObjectError
from currents_bridge.model import DeadLetter

MAX_MESSAGE_BYTES = 32 * 1024  # Segment: 32 KB an event
MAX_MESSAGE_ID_CHARS = 99  # Segment: under 100
# Braze was founded in 2011; a clock that shows anything outside these years is no evidence of when
EARLIEST_TIME = datetime(2010, 1, 1, tzinfo=UTC)
LATEST_TIME = datetime(2100, 1, 1, tzinfo=UTC)

# Columns beside the file's: where in which object an event stands, and what marks its id where the object was rewound.
_ROW, _ORIGIN, _MARK = "\0row", "\0origin", "\0mark"
_IDENTITY = ("id", "user_id", "external_user_id", "time")
# Objects whose first member may be null begin with this member, so that ',"name":null' is all a null can look like.
# No field has an empty name, and inside strings quotes are escaped: a quote with a letter of a name behind it opens a
# string, so neither pattern can match there. JSON text has no line break; naming one makes the search a third faster.
_FIRST = pl.lit(0, dtype=pl.Int8).alias("")
_NULL_MEMBER = r'(?-u)[,\n]"\w+":null'
_FIRST_MEMBER = r'"":0,?'


class AnonymousUsers(StrEnum):
    """What becomes of events without an external user id."""

    SKIP = "skip"
    SEND = "send"


class Properties(StrEnum):
    """Which fields become properties: those of Braze's connector, or every field of the file."""

    CONNECTOR = "connector"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class MappingRules:
    """A connector's choices, as its configuration gives them."""

    library_version: str
    anonymous_users: AnonymousUsers = AnonymousUsers.SKIP
    properties: Properties = Properties.CONNECTOR
    names: Mapping[str, str] = field(default_factory=dict)  # event type -> Segment event name
    integrations: Mapping[str, Any] = field(default_factory=dict)
    message_id_prefix: str = ""
    fresh_message_ids: bool = False  # of what is sent again after a dead key


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run of events stands: so many, from a row of an object on."""

    object_key: str
    first_row: int
    height: int
    rewinds: int = 0  # times that the object went back to be sent again


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a run of events became; each event is in exactly one of the three."""

    messages: pl.DataFrame  # row: u32, message_id: str, message: str
    skipped_anonymous: int
    dead_letters: Sequence[DeadLetter]


class Mapper:
    """Maps slices of one connector; keeps one plan per event type and schema. Thread-safe."""

    def __init__(self, rules: MappingRules) -> None:
        self._rules = rules
        self._plans: dict[tuple[str, tuple[tuple[str, pl.DataType], ...], frozenset[str]], _Plan] = {}

    def map(self, piece: Slice, event_type: EventType, object_key: str) -> Mapped:
        """Return the messages that a slice of the object owes; raises QuarantineObjectError for a foreign schema."""
        origin = Origin(object_key, piece.first_row, piece.events.height)
        (mapped,) = self.map_together(
            piece.events, event_type, [origin], json_fields=piece.json_fields, unreadable=piece.unreadable
        )
        return mapped

    def map_together(
        self,
        events: pl.DataFrame,
        event_type: EventType,
        origins: Sequence[Origin],
        *,
        json_fields: frozenset[str] = frozenset(),
        unreadable: Sequence[tuple[int, str]] = (),
    ) -> Sequence[Mapped]:
        """Return what each of several objects owes whose events follow each other in one frame; raises as `map`.

        A plan costs a millisecond however few events there are, so small objects are best mapped together.
        `json_fields` and `unreadable` are as in Slice.
        """
        known = (event_type.name, tuple(events.schema.items()), json_fields)
        plan = self._plans.get(known)
        if plan is None:  # two threads may both make it: the same plan, so nothing is lost
            plan = self._plans[known] = _Plan(event_type, events.schema, json_fields, self._rules)
        return plan.apply(events, origins, unreadable)


class _Plan:
    """The expressions for one event type as one schema holds it."""

    def __init__(
        self, event_type: EventType, schema: pl.Schema, json_fields: frozenset[str], rules: MappingRules
    ) -> None:
        if "time" not in schema or not {"user_id", "external_user_id"} & set(schema):
            raise QuarantineObjectError("no Currents file: it has no time field, or no user id field")
        self._rules = rules
        self._schema = schema
        self._json_fields = json_fields
        self._merge_field = event_type.merge_json_field if event_type.merge_json_field in schema else None
        self._encode = self._message(event_type)
        self._heads = self._head()

    def apply(
        self, events: pl.DataFrame, origins: Sequence[Origin], unreadable: Sequence[tuple[int, str]]
    ) -> Sequence[Mapped]:
        """Return each object's messages, its count of skipped events, and its dead letters."""
        places = _places(origins)
        if self._rules.fresh_message_ids:
            places.append(_for_each_event([f"-r{o.rewinds}" if o.rewinds else "" for o in origins], origins, _MARK))
        heads = _refusing(unreadable, events.hstack(places).select(self._heads))
        skipped, refused = heads["skipped"], heads["refusal"].is_not_null()
        sendable = ~(skipped | refused)
        chosen, ids = (events, heads) if sendable.all() else (events.filter(sendable), heads.filter(sendable))
        messages = pl.DataFrame([ids["row"], ids["message_id"], self._encoded(chosen, ids)])
        dead = _dead_letters(events, heads, refused)
        sizes = messages["message"].str.len_bytes()
        large = sizes > MAX_MESSAGE_BYTES
        if large.any():
            reasons = messages.with_columns(refusal=pl.format("the message has {} bytes, Segment takes 32768", sizes))
            at = sendable.arg_true()
            dead += [(at[place], letter) for place, letter in _dead_letters(chosen, reasons, large)]
            messages = messages.filter(~large)
            sendable = sendable.scatter(at.filter(large), False)
        return _apart(origins, messages, sendable, skipped, sorted(dead, key=itemgetter(0)))

    def _head(self) -> list[pl.Expr]:
        """Return columns that decide an event's fate: ids, whether it is skipped, and else why it cannot be sent."""
        derived = pl.format("row-{}-{}", pl.col(_ORIGIN), pl.col(_ROW))
        prefix = pl.lit(self._rules.message_id_prefix)
        message_id = prefix + pl.coalesce(self._text("id"), derived)
        if self._rules.fresh_message_ids:
            message_id += pl.col(_MARK)
        time_ms = self._time_ms()
        external_user_id = self._text("external_user_id")
        skipped = external_user_id.is_null() & (self._rules.anonymous_users is AnonymousUsers.SKIP)
        refusal = pl.coalesce(
            pl.when(time_ms.is_null()).then(pl.lit("the event has no time that is a number")),
            pl.when(~time_ms.is_between(_ms(EARLIEST_TIME), _ms(LATEST_TIME))).then(
                pl.format("time {} is not between 2010 and 2100", pl.col("time"))
            ),
            pl.when(message_id.str.len_chars() > MAX_MESSAGE_ID_CHARS).then(
                pl.format("the message id has {} characters, Segment takes 99", message_id.str.len_chars())
            ),
            pl.when(external_user_id.is_null() & self._text("user_id").is_null()).then(
                pl.lit("the event has neither external_user_id nor user_id")
            ),
            pl.when(self._name.is_null()).then(pl.lit("the event has no name")),
        )
        return [
            pl.col(_ROW).alias("row"),
            message_id.alias("message_id"),
            external_user_id.alias("user_id"),
            self._text("user_id").alias("anonymous_id"),
            skipped.alias("skipped"),
            pl.when(~skipped).then(refusal).alias("refusal"),
        ]

    def _encoded(self, events: pl.DataFrame, ids: pl.DataFrame) -> pl.Series:
        """Return the column `message`: one JSON object for each event."""
        identity = [ids[name].alias(f"\0{name}") for name in ("message_id", "user_id", "anonymous_id")]
        messages = events.hstack(identity).lazy().select(self._encode).collect().to_series()
        if self._merge_field is None:
            return messages
        texts = events.get_column(self._merge_field).cast(pl.String)
        return pl.Series("message", map(_merged, messages, texts), dtype=pl.String)

    def _message(self, event_type: EventType) -> pl.Expr:
        name = self._rules.names.get(event_type.name, event_type.segment_event)
        self._name = self._text(event_type.event_name_field) if name is None else pl.lit(name)
        iso = pl.from_epoch(self._time_ms(), time_unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        body = pl.struct(
            pl.col("\0message_id").alias("messageId"),
            iso.alias("timestamp"),
            pl.col("\0user_id").alias("userId"),
            pl.col("\0anonymous_id").alias("anonymousId"),
            self._name.alias("event"),
            self._context(event_type).alias("context"),
            pl.struct(_FIRST, *self._properties(event_type)).alias("properties"),
        )
        encoded = body.struct.json_encode().str.replace_all(_NULL_MEMBER, "").str.replace_all(_FIRST_MEMBER, "")
        integrations = orjson.dumps(dict(self._rules.integrations)).decode()
        constant = '{"type":"track","integrations":' + integrations + ","
        return (pl.lit(constant) + encoded.str.strip_prefix("{")).alias("message")

    def _context(self, event_type: EventType) -> pl.Expr:
        """Return the context object: this library first, then a nested object for each target that has a value."""
        library = pl.struct(
            pl.lit("currents-bridge").alias("name"), pl.lit(self._rules.library_version).alias("version")
        )
        nested: dict[str, list[pl.Expr]] = {}
        for target, source in event_type.context.items():
            if source in self._schema:
                parent, _, leaf = target.partition(".")
                nested.setdefault(parent, []).append(self._value(source).alias(leaf))
        objects = [
            pl.when(pl.any_horizontal(leaf.is_not_null() for leaf in leaves))
            .then(pl.struct(_FIRST, *leaves))
            .alias(parent)
            for parent, leaves in nested.items()
        ]
        return pl.struct(library.alias("library"), *objects)

    def _properties(self, event_type: EventType) -> list[pl.Expr]:
        placed = {
            target: value
            for target, source in event_type.properties.items()
            if (value := self._api_id_first(target, source)) is not None
        }
        if self._rules.properties is Properties.ALL or event_type.open_ended:
            used = {*_IDENTITY, self._merge_field, *event_type.properties.values(), *event_type.context.values()}
            placed |= {name: self._value(name) for name in self._schema if name not in used and name not in placed}
        return [value.alias(target) for target, value in placed.items()]

    def _api_id_first(self, target: str, source: str) -> pl.Expr | None:
        """Return the field's value, or that of `X_api_id` where an older file has one for the property `X_id`."""
        names = [f"{target.removesuffix('_id')}_api_id"] if target.endswith("_id") else []
        present = [name for name in [*names, source] if name in self._schema]
        if len(present) < 2:  # noqa: PLR2004 - nothing to choose from
            return self._value(present[0]) if present else None
        return pl.coalesce(self._text(present[0]), self._value(present[1]).cast(pl.String))

    def _text(self, name: str | None) -> pl.Expr:
        """Return a field as text, null where it is missing or empty."""
        if name is None or name not in self._schema:
            return pl.lit(None, dtype=pl.String)
        text = self._value(name).cast(pl.String, strict=False)
        return pl.when(text != "").then(text)

    def _value(self, name: str) -> pl.Expr:
        return sendable(pl.col(name), self._schema[name])

    def _time_ms(self) -> pl.Expr:
        """Return the event's time as milliseconds since 1970, null where it is no number."""
        seconds = pl.col("time")
        match self._schema["time"]:
            case dtype if dtype.is_integer():
                return _in_range(seconds.cast(pl.Int64)) * 1000
            case _:
                return (_in_range(seconds.cast(pl.Float64, strict=False)) * 1000).round().cast(pl.Int64, strict=False)


def _refusing(unreadable: Sequence[tuple[int, str]], heads: pl.DataFrame) -> pl.DataFrame:
    """Refuse events that could not be read whole, whoever they may be of."""
    if not unreadable:
        return heads
    places, reasons = zip(*unreadable, strict=True)
    skipped, refusal = heads["skipped"].scatter(places, False), heads["refusal"].scatter(places, reasons)
    return heads.with_columns(skipped, refusal)


def sendable(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return a field's value as JSON can carry it: bytes as base64, nested records without their null members."""
    match dtype:
        case pl.Binary():
            return value.bin.encode("base64")
        case pl.Struct(fields=fields):
            members = [sendable(value.struct.field(f.name), _of(f.dtype)).alias(f.name) for f in fields]
            return pl.when(value.is_not_null()).then(pl.struct(_FIRST, *members))
        case pl.List(inner=inner) if _of(inner).is_nested() or inner == pl.Binary:
            return value.list.eval(sendable(pl.element(), _of(inner)))
        case _:
            return value


def _of(dtype: Any) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()


def _in_range(seconds: pl.Expr) -> pl.Expr:
    """Clip seconds to a range in which milliseconds cannot overflow; what is clipped stays absurd."""
    return seconds.clip(-(2**40), 2**40)


def _ms(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _merged(message: str, merge_text: str | None) -> str:
    """Return the message with the keys of a JSON object among its properties; fields of Braze's own win.

    Text that is no JSON object is kept as the property `properties`.
    """
    if not merge_text:
        return message
    try:
        extra = orjson.loads(merge_text)
    except orjson.JSONDecodeError:
        extra = None
    if not isinstance(extra, dict):
        extra = {"properties": merge_text}
    decoded = orjson.loads(message)
    custom = {name: value for name, value in extra.items() if value is not None}
    decoded["properties"] = custom | decoded["properties"]
    return orjson.dumps(decoded).decode()


def _places(origins: Sequence[Origin]) -> list[pl.Series]:
    """Return columns that say where each event stands: the row in its object, and a digest of the object's key."""
    rows = [row for origin in origins for row in range(origin.first_row, origin.first_row + origin.height)]
    digests = [hashlib.sha256(origin.object_key.encode()).hexdigest()[:32] for origin in origins]
    return [pl.Series(_ROW, rows, dtype=pl.UInt32), _for_each_event(digests, origins, _ORIGIN)]


def _for_each_event(texts: Sequence[str], origins: Sequence[Origin], name: str) -> pl.Series:
    """Return a column that repeats each object's text for each of its events."""
    return pl.Series(name, [t for text, origin in zip(texts, origins, strict=True) for t in [text] * origin.height])


def _apart(
    origins: Sequence[Origin],
    messages: pl.DataFrame,
    sent: pl.Series,
    skipped: pl.Series,
    dead: Sequence[tuple[int, DeadLetter]],
) -> list[Mapped]:
    """Give each object its own; masks and dead letters go by the place of an event among all."""
    mapped = []
    ends = list(accumulate(origin.height for origin in origins))
    first_message = first_skipped = first_letter = 0
    for end, messages_end, skipped_end in zip(ends, _through(sent, ends), _through(skipped, ends), strict=True):
        letters_end = bisect_left(dead, end, key=itemgetter(0))
        mapped.append(
            Mapped(
                messages.slice(first_message, messages_end - first_message),
                skipped_end - first_skipped,
                [letter for _, letter in dead[first_letter:letters_end]],
            )
        )
        first_message, first_skipped, first_letter = messages_end, skipped_end, letters_end
    return mapped


def _through(mask: pl.Series, ends: Sequence[int]) -> list[int]:
    """Return how many are true before each of the ascending places."""
    counts = mask.cum_sum()
    return [counts[end - 1] if end else 0 for end in ends]


def _dead_letters(events: pl.DataFrame, heads: pl.DataFrame, refused: pl.Series) -> list[tuple[int, DeadLetter]]:
    """Return the letters of the events that are refused, each with its place among the events."""
    if not refused.any():
        return []
    records = events_as_json(events.filter(refused))
    columns = heads.filter(refused).select("row", "message_id", "refusal").iter_rows()
    return [
        (place, DeadLetter(row, message_id, reason, event))
        for place, (row, message_id, reason), event in zip(refused.arg_true(), columns, records, strict=True)
    ]


def events_as_json(events: pl.DataFrame) -> list[str]:
    """Return each event as read, one JSON object, null values included."""
    plain = [
        pl.col(name).bin.encode("base64") if dtype == pl.Binary else pl.col(name)
        for name, dtype in events.schema.items()
    ]
    return events.select(pl.struct(plain).struct.json_encode()).to_series().to_list()
