"""The plan for one event type and file schema: column expressions that make messages of events.

Shape: https://www.braze.com/docs/partners/data_and_analytics/customer_data_platform/segment/segment_for_currents/
Limits: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#max-request-size
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from operator import itemgetter
from typing import Any

import orjson
import polars as pl

from currents_bridge.errors import QuarantineObjectError
from currents_bridge.events.catalogue import EventType
from currents_bridge.events.custom_properties import merged
from currents_bridge.events.event_time import is_plausible, milliseconds
from currents_bridge.events.json_objects import JsonObject, JsonText, as_text, encoded, events_as_json, field_value
from currents_bridge.model import KEPT_EVENT_BYTES, DeadLetter

MAX_MESSAGE_BYTES = 32 * 1024  # Segment: 32 KB an event
_JSON_SHRINKS = 8  # times at most, where JSON text loses its null members
FAR_TOO_LARGE_BYTES = 4 * MAX_MESSAGE_BYTES  # of an event's texts: its message is not even made
MAX_MESSAGE_ID_CHARS = 99  # Segment: under 100
SHOWN_CHARS = 100  # of a value in a reason

# Columns beside the file's, whose own columns are called by number: where in which object an event stands, what marks
# its id where the object was rewound, and why it could not be read whole.
ROW, ORIGIN, MARK, UNREADABLE = "row", "origin", "mark", "unreadable"
_IDENTITY = ("id", "user_id", "external_user_id", "time")


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
class Fates:
    """What became of each event of a run; masks and letters go by its place in the run."""

    messages: pl.DataFrame  # row: u32, message_id: str, message: str
    sent: pl.Series
    skipped: pl.Series
    dead: Sequence[tuple[int, DeadLetter]]  # by place

    def __add__(self, later: "Fates") -> "Fates":
        """Return the fates of two runs, one after the other."""
        moved = [(place + self.sent.len(), letter) for place, letter in later.dead]
        return Fates(
            pl.concat([self.messages, later.messages]),
            pl.concat([self.sent, later.sent]),
            pl.concat([self.skipped, later.skipped]),
            [*self.dead, *moved],
        )


class Plan:
    """The expressions for one event type as one schema holds it."""

    def __init__(
        self, event_type: EventType, schema: pl.Schema, json_fields: frozenset[str], rules: MappingRules
    ) -> None:
        if "time" not in schema or not {"user_id", "external_user_id"} & set(schema):
            raise QuarantineObjectError("no Currents file: it has no time field, or no user id field")
        self._rules = rules
        self._json_fields = json_fields
        self._dtypes = dict(schema)
        # numbers, since a name may be anything: `*` is every column to polars, `^.$` a pattern
        self._columns = {name: pl.col(f"{at}") for at, name in enumerate(schema)}
        self._values = {
            name: field_value(column, schema[name], is_json=name in json_fields)
            for name, column in self._columns.items()
        }
        self._heads = self._head(event_type)
        self._encode = self._message(event_type)
        self._sizes = list(self._text_sizes(event_type))

    def apply(self, events: pl.DataFrame, places: pl.DataFrame) -> Fates:
        """Return what becomes of the events, whose `places` hold ROW, ORIGIN, MARK and UNREADABLE for each."""
        numbered = events.clone()
        numbered.columns = [f"{at}" for at in range(events.width)]
        heads = self._without_far_too_large(numbered, numbered.hstack(places).select(self._heads))
        skipped, refused = heads["skipped"], heads["refusal"].is_not_null()
        sent = ~(skipped | refused)
        chosen = numbered.hstack(heads)
        if not sent.all():
            chosen = chosen.filter(sent)
        messages = chosen.lazy().select("row", "message_id", self._encode).collect()
        dead = self._letters(events, heads, refused)
        sizes = messages["message"].str.len_bytes()
        large = sizes > MAX_MESSAGE_BYTES
        if large.any():
            reason = pl.format("the message has {} bytes, Segment takes 32768", sizes)
            reasons = messages.with_columns(refusal=reason, whole=pl.lit(True))
            at = sent.arg_true()
            letters = self._letters(events.filter(sent), reasons, large)
            dead = sorted([*dead, *((at[place], letter) for place, letter in letters)], key=itemgetter(0))
            messages = messages.filter(~large)
            sent = sent.scatter(at.filter(large), False)
        return Fates(messages, sent, skipped, dead)

    def _text_sizes(self, event_type: EventType) -> Iterator[pl.Expr]:
        """Yield how many bytes of each field's texts are in every message, at least."""
        sent = set(self._encode.meta.root_names())
        for name, column in self._columns.items():
            replaced = name.endswith("_id") and f"{name.removesuffix('_id')}_api_id" in self._columns
            if replaced or name == event_type.merge_json_field or column.meta.output_name() not in sent:
                continue
            match self._dtypes[name]:
                case pl.String():
                    yield column.str.len_bytes() // (_JSON_SHRINKS if name in self._json_fields else 1)
                case pl.List(inner=inner) if inner == pl.String:
                    yield column.list.eval(pl.element().str.len_bytes()).list.sum()

    def _without_far_too_large(self, events: pl.DataFrame, heads: pl.DataFrame) -> pl.DataFrame:
        """Refuse events whose texts are far too large before their messages are made, which takes 20 times as much."""
        longest = events.select(size.max() for size in self._sizes).row(0) if self._sizes and events.height else ()
        if sum(size or 0 for size in longest) <= FAR_TOO_LARGE_BYTES:
            return heads
        large = events.select(pl.sum_horizontal(self._sizes) > FAR_TOO_LARGE_BYTES).to_series()
        reason = pl.lit(f"the event is far too large for a message, of which Segment takes {MAX_MESSAGE_BYTES} bytes")
        refused = large & ~heads["skipped"] & heads["refusal"].is_null()
        return heads.with_columns(refusal=pl.when(refused).then(reason).otherwise(pl.col("refusal")))

    def given_up(self, event: pl.DataFrame, places: pl.DataFrame, error: BaseException) -> Fates:
        """Return the fate of a single event that cannot be mapped."""
        at = places.row(0, named=True)
        try:
            (text,) = events_as_json(event, self._json_fields)
        except (Exception, pl.exceptions.PanicException) as unreadable:  # noqa: BLE001 - what cannot even be shown
            text = f"cannot be shown: {type(unreadable).__name__}"
        letter = DeadLetter.of_event(at[ROW], f"row-{at[ORIGIN]}-{at[ROW]}", f"cannot be mapped: {named(error)}", text)
        schema = {"row": pl.UInt32, "message_id": pl.String, "message": pl.String}
        no = pl.Series([False])
        return Fates(pl.DataFrame(schema=schema), no, no, [(0, letter)])

    def _letters(self, events: pl.DataFrame, heads: pl.DataFrame, refused: pl.Series) -> list[tuple[int, DeadLetter]]:
        """Return the letters of the events that are refused, each with its place among the events."""
        if not refused.any():
            return []
        texts = events_as_json(_beginnings(events.filter(refused)), self._json_fields)
        columns = heads.filter(refused).select("row", "message_id", "refusal", "whole").iter_rows()
        return [
            (place, DeadLetter.of_event(row, message_id, reason, text, whole=whole))
            for place, (row, message_id, reason, whole), text in zip(refused.arg_true(), columns, texts, strict=True)
        ]

    def _head(self, event_type: EventType) -> list[pl.Expr]:
        """Return columns that decide an event's fate: ids, time, name, whether it is skipped, or cannot be sent."""
        derived = pl.format("row-{}-{}", pl.col(ORIGIN), pl.col(ROW))
        message_id = pl.lit(self._rules.message_id_prefix) + pl.coalesce(self._text("id"), derived)
        if self._rules.fresh_message_ids:
            message_id += pl.col(MARK)
        time, time_dtype = self._time()
        time_ms = milliseconds(time, time_dtype)
        user_id, external_user_id = self._text("user_id"), self._text("external_user_id")
        name = self._rules.names.get(event_type.name, event_type.segment_event)
        event = self._text(event_type.event_name_field) if name is None else pl.lit(name)
        unreadable = pl.col(UNREADABLE)
        anonymous = external_user_id.is_null() & (self._rules.anonymous_users is AnonymousUsers.SKIP)
        skipped = anonymous & unreadable.is_null()
        refusal = pl.coalesce(
            unreadable,
            pl.when(time_ms.is_null()).then(pl.lit("the event has no time that is a number or a date")),
            pl.when(~is_plausible(time_ms)).then(
                pl.format("time {} is not between 2010 and 2100", self._text("time").str.head(SHOWN_CHARS))
            ),
            pl.when(message_id.str.len_chars() > MAX_MESSAGE_ID_CHARS).then(
                pl.format("the message id has {} characters, Segment takes 99", message_id.str.len_chars())
            ),
            pl.when(external_user_id.is_null() & user_id.is_null()).then(
                pl.lit("the event has neither external_user_id nor user_id")
            ),
            pl.when(event.is_null()).then(pl.lit("the event has no name")),
        )
        return [
            pl.col(ROW).alias("row"),
            message_id.alias("message_id"),
            external_user_id.alias("user_id"),
            user_id.alias("anonymous_id"),
            time_ms.alias("time_ms"),
            event.alias("event"),
            unreadable.is_null().alias("whole"),
            skipped.alias("skipped"),
            pl.when(~skipped).then(refusal).alias("refusal"),
        ]

    def _message(self, event_type: EventType) -> pl.Expr:
        """Return the column `message`: one JSON object for each event, of its fields and its head."""
        iso = pl.from_epoch(pl.col("time_ms"), time_unit="ms").dt.strftime("%Y-%m-%dT%H:%M:%S.%3fZ")
        body = JsonObject(
            {
                "messageId": pl.col("message_id"),
                "timestamp": iso,
                "userId": pl.col("user_id"),
                "anonymousId": pl.col("anonymous_id"),
                "event": pl.col("event"),
                "context": self._context(event_type),
                "properties": self._properties(event_type),
            }
        )
        integrations = orjson.dumps(dict(self._rules.integrations)).decode()
        constant = '{"type":"track","integrations":' + integrations + ","
        return (pl.lit(constant) + encoded(body).str.strip_prefix("{")).alias("message")

    def _context(self, event_type: EventType) -> JsonObject:
        """Return the context object: this library first, then a nested object for each target that has a value."""
        nested: dict[str, dict[str, pl.Expr | JsonText | JsonObject]] = {}
        for target, source in event_type.context.items():
            if source in self._values:
                parent, _, leaf = target.partition(".")
                nested.setdefault(parent, {})[leaf] = self._values[source]
        objects = {parent: JsonObject(leaves, optional=True) for parent, leaves in nested.items()}
        library = {"name": pl.lit("currents-bridge"), "version": pl.lit(self._rules.library_version)}
        return JsonObject({"library": JsonObject(library), **objects})

    def _properties(self, event_type: EventType) -> JsonObject | JsonText:
        merge_field = event_type.merge_json_field if event_type.merge_json_field in self._values else None
        placed = {
            target: value
            for target, source in event_type.properties.items()
            if (value := self._api_id_first(target, source)) is not None
        }
        if self._rules.properties is Properties.ALL or event_type.open_ended:
            used = {*_IDENTITY, merge_field, *event_type.properties.values(), *event_type.context.values()}
            placed |= {name: v for name, v in self._values.items() if name not in used and name not in placed}
        ours = JsonObject(placed)
        if merge_field is None:
            return ours
        return JsonText(
            pl.map_batches(
                [encoded(ours), self._text(merge_field)],
                lambda columns: merged(columns[0], columns[1], frozenset(placed)),
                return_dtype=pl.String,
                is_elementwise=True,
            )
        )

    def _api_id_first(self, target: str, source: str) -> pl.Expr | JsonText | None:
        """Return the field's value, or that of `X_api_id` where an older file has one for the property `X_id`."""
        names = [f"{target.removesuffix('_id')}_api_id"] if target.endswith("_id") else []
        present = [name for name in [*names, source] if name in self._values]
        if len(present) < 2:  # noqa: PLR2004 - nothing to choose from
            return self._values[present[0]] if present else None
        api_id, other = present
        return pl.coalesce(self._text(api_id), as_text(self._values[other], self._dtypes[other]))

    def _text(self, name: str | None) -> pl.Expr:
        """Return a field as text, null where it is missing or empty."""
        if name not in self._values:
            return pl.lit(None, dtype=pl.String)
        text = as_text(self._values[name], self._dtypes[name])
        return pl.when(text != "").then(text)

    def _time(self) -> tuple[pl.Expr, pl.DataType]:
        value, dtype = self._values["time"], self._dtypes["time"]
        return (as_text(value, dtype), pl.String()) if isinstance(value, JsonText) else (value, dtype)


def _beginnings(events: pl.DataFrame) -> pl.DataFrame:
    """Return events with no more of their texts than a letter keeps of all: JSON takes many times as much."""
    before = pl.element().str.len_bytes().fill_null(0).cum_sum().shift(1, fill_value=0)
    kept = pl.element().filter(before < KEPT_EVENT_BYTES).str.head(KEPT_EVENT_BYTES)
    return events.with_columns(pl.col(pl.String).str.head(KEPT_EVENT_BYTES), pl.col(pl.List(pl.String)).list.eval(kept))


def named(error: BaseException) -> str:
    """Return the exception's name, and the beginning of what it says."""
    reason = next(iter(str(error).strip().splitlines()), "")[:SHOWN_CHARS]
    return f"{type(error).__name__}: {reason}" if reason else type(error).__name__
