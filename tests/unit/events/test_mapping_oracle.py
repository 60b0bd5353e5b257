"""Messages of any schema, against plain dictionaries: whatever the names of fields are and whatever they hold."""

import io
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from currents_bridge.avro.container import Container, Slice
from currents_bridge.events.catalogue import catalogue, general_event_type
from currents_bridge.events.json_objects import events_as_json
from currents_bridge.events.mapping import AnonymousUsers, Mapper, MappingRules, Properties
from currents_bridge.testing.currents_files import write_container

NEW_TYPE = general_event_type("users.messages.carrierpigeon.Send")
CUSTOM = catalogue()["users.behaviors.CustomEvent"]
PERSON = {"id": "e1", "user_id": "u1", "external_user_id": "x1", "time": 1767322800}
PLACED = {"device_model": ("device", "model"), "platform": ("device", "type"), "email_address": ("traits", "email")}
ODD = ["", '"', '":0', '":null', 'a"', "a\\", "*", "^.*$", "\0", "\0row", "row", "0", "time_ms", "é", "\u2028", "a.b"]

names = st.text(max_size=8) | st.sampled_from([*ODD, *PLACED])
texts = st.text(max_size=8) | st.sampled_from(['","y":null', '"":0,', '":0', ',"a":null', "null", "😀"])
integers = st.integers(-(2**63), 2**63 - 1)
nested = st.recursive(
    st.none() | st.booleans() | integers | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
KINDS: dict[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "text": (pl.String, texts),
    "int": (pl.Int64, integers),
    "float": (pl.Float64, st.floats()),
    "boolean": (pl.Boolean, st.booleans()),
    "texts": (pl.List(pl.String), st.lists(st.none() | texts, max_size=3)),
    "floats": (pl.List(pl.Float64), st.lists(st.none() | st.floats(), max_size=3)),
    "json": (pl.String, nested),
    "nothing": (pl.Null, st.none()),
}
Column = tuple[str, str, list[Any]]


@st.composite
def files(draw: st.DrawFn) -> list[Column]:
    """Return columns of some events: name, kind, values."""
    height = draw(st.integers(1, 4))
    found = draw(st.lists(names.filter(lambda name: name not in PERSON), unique=True, max_size=6))
    columns = []
    for name in found:
        kind = draw(st.sampled_from(list(KINDS)))
        values = st.none() | KINDS[kind][1]
        columns.append((name, kind, draw(st.lists(values, min_size=height, max_size=height))))
    return columns or [("x", "text", [None] * height)]


def piece(columns: Sequence[Column]) -> Slice:
    """Return the columns as a slice, those of kind `json` as JSON text."""
    height = len(columns[0][2])
    person = {name: pl.Series([value] * height) for name, value in PERSON.items()}
    found = {name: pl.Series(as_column(kind, values), dtype=KINDS[kind][0]) for name, kind, values in columns}
    return Slice(pl.DataFrame(person | found), 0, frozenset(name for name, kind, _ in columns if kind == "json"))


def as_column(kind: str, values: list[Any]) -> list[Any]:
    """Return values as decoding gives them."""
    return [None if v is None else json.dumps(v) for v in values] if kind == "json" else values


def said(value: Any) -> Any:
    """Return what a message says of a value, None for nothing."""
    match value:
        case float():
            return value if math.isfinite(value) else None
        case list():
            return [said(item) for item in value]
        case dict():
            return {name: said(member) for name, member in value.items() if member is not None}
        case _:
            return value


def expected(columns: Sequence[Column], row: int) -> dict[str, Any]:
    """Return the message: the slow and obvious way."""
    context: dict[str, Any] = {"library": {"name": "currents-bridge", "version": "1"}}
    properties = {}
    for name, _, values in columns:
        value = said(values[row])
        if value is None:
            continue
        if name in PLACED:
            parent, leaf = PLACED[name]
            context.setdefault(parent, {})[leaf] = value
        else:
            properties[name] = value
    return {
        "type": "track",
        "integrations": {},
        "messageId": "e1",
        "timestamp": "2026-01-02T03:00:00.000Z",
        "userId": "x1",
        "anonymousId": "u1",
        "event": "Carrierpigeon Send",
        "context": context,
        "properties": properties,
    }


def exactly(text: str) -> Any:
    """Decode JSON, refusing names that stand twice in an object."""

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        assert len(dict(pairs)) == len(pairs)
        return dict(pairs)

    return json.loads(text, object_pairs_hook=once)


def test_all_the_names_that_have_ever_been_trouble() -> None:
    """Each with a value, with zero, and with null, side by side."""
    kinds: list[tuple[str, list[Any]]] = [
        ("int", [0, None]),
        ("text", ["", None]),
        ("json", [{"a": None, '"': 0}, None]),
    ]
    for kind, values in kinds:
        columns = [(name, kind, values if at % 2 else values[::-1]) for at, name in enumerate(ODD)]
        found = Mapper(MappingRules(library_version="1")).map(piece(columns), NEW_TYPE, "key")
        assert [exactly(text) for text in found.messages["message"]] == [expected(columns, 0), expected(columns, 1)]


@given(files())
@settings(max_examples=150, deadline=None)
@example([('a"', "int", [0]), ("", "int", [0]), ("b", "int", [None])])
@example([("m", "json", [{"": 0, 'k"': 0}, {"new": None}])])
@example([("platform", "json", [{"a": 1}]), ("email_address", "json", [None])])
def test_a_message_is_what_plain_dictionaries_make_of_the_event(columns: list[Column]) -> None:
    """Any names, all types, nested values included; no member is lost, changed or invented."""
    found = Mapper(MappingRules(library_version="1")).map(piece(columns), NEW_TYPE, "key")
    rows = range(len(columns[0][2]))
    assert [exactly(text) for text in found.messages["message"]] == [expected(columns, row) for row in rows]


@given(files())
@settings(max_examples=50, deadline=None)
def test_an_event_is_kept_as_it_was_read(columns: list[Column]) -> None:
    """One JSON object, null values included."""
    given_piece = piece(columns)
    for row, text in enumerate(events_as_json(given_piece.events, given_piece.json_fields)):
        finite = {name: values[row] if kind == "json" else said(values[row]) for name, kind, values in columns}
        assert exactly(text) == PERSON | finite


@pytest.mark.parametrize(
    ("value", "text"), [("x", "x"), (17, "17"), (True, "true"), ({"a": 1}, '{"a":1}'), ([1, "b"], '[1,"b"]')]
)
def test_ids_and_names_of_any_type_are_their_text(value: Any, text: str) -> None:
    """A union, say: its strings are as they are, all else as JSON writes it."""
    columns: list[Column] = [("name", "json", [value]), ("properties", "text", ["{}"])]
    whole = piece(columns)
    ids = [
        pl.Series(name, [json.dumps(value, separators=(",", ":"))]) for name in ("id", "user_id", "external_user_id")
    ]
    odd = replace(
        whole,
        events=whole.events.with_columns(ids),
        json_fields=frozenset({"id", "user_id", "external_user_id", "name"}),
    )
    (message,) = Mapper(MappingRules(library_version="1")).map(odd, CUSTOM, "key").messages["message"]
    found = json.loads(message)
    assert [found[name] for name in ("messageId", "anonymousId", "userId")] == [text] * 3
    assert (
        json.loads(found["event"]) == json.loads(json.dumps(value))
        if not isinstance(value, str)
        else found["event"] == text
    )


@pytest.mark.parametrize("value", ["", None])
def test_a_nested_field_that_is_empty_is_no_id(value: str | None) -> None:
    """As of any other type."""
    whole = piece([("x", "text", [None])])
    columns = [pl.Series(name, ["null" if value is None else '""']) for name in ("id", "external_user_id")]
    odd = replace(whole, events=whole.events.with_columns(columns), json_fields=frozenset({"id", "external_user_id"}))
    mapper = Mapper(MappingRules(library_version="1", anonymous_users=AnonymousUsers.SEND))
    (message,) = map(json.loads, mapper.map(odd, NEW_TYPE, "key").messages["message"])
    assert "userId" not in message
    assert message["messageId"].startswith("row-")


@pytest.mark.parametrize("time", ["1767322800", '"2026-01-02T03:00:00Z"', "1767322800000", '"1767322800"'])
def test_a_time_of_several_types_is_read(time: str) -> None:
    """A union of a number and a text."""
    whole = piece([("x", "text", [None])])
    odd = replace(whole, events=whole.events.with_columns(pl.Series("time", [time])), json_fields=frozenset({"time"}))
    (message,) = map(
        json.loads, Mapper(MappingRules(library_version="1")).map(odd, NEW_TYPE, "key").messages["message"]
    )
    assert message["timestamp"] == "2026-01-02T03:00:00.000Z"


def test_custom_properties_may_be_a_map() -> None:
    """Its keys become properties as those of a text do."""
    columns: list[Column] = [("name", "text", ["n"]), ("properties", "json", [{"a": 1, "b": None, "name": "x"}])]
    (message,) = Mapper(MappingRules(library_version="1")).map(piece(columns), CUSTOM, "key").messages["message"]
    assert json.loads(message)["properties"] == {"a": 1, "name": "n"}


def test_a_nested_field_of_the_catalogue_stays_in_its_place() -> None:
    """With `properties: all`, too."""
    columns: list[Column] = [("url", "json", [{"a": None, "b": 1}]), ("timezone", "json", [[None, {"c": None}]])]
    mapper = Mapper(MappingRules(library_version="1", properties=Properties.ALL))
    (message,) = mapper.map(piece(columns), catalogue()["users.messages.email.Click"], "key").messages["message"]
    assert json.loads(message)["properties"] == {"link_url": {"b": 1}, "timezone": [None, {}]}


@pytest.mark.parametrize("name", [name for name in ODD if "\0" not in name])
def test_fields_of_a_file_arrive_under_any_name(name: str) -> None:
    """From the bytes on: a number that polars may read, and a map."""
    for avro_type, value in (("int", 0), ({"type": "map", "values": "int"}, {"": 0, 'k"': 1})):
        fields = [{"name": field, "type": "long" if field == "time" else "string"} for field in PERSON]
        schema = {"type": "record", "name": "R", "fields": [*fields, {"name": name, "type": avro_type}]}
        (read,) = Container(io.BytesIO(write_container(schema, [PERSON | {name: value}]))).slices()
        (message,) = Mapper(MappingRules(library_version="1")).map(read, NEW_TYPE, "key").messages["message"]
        assert exactly(message)["properties"] == {name: value}
