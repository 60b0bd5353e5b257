"""The fields of a file against those of the catalogue."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.events.catalogue import ArrayType, EventType, Field, catalogue, general_event_type
from currents_bridge.events.drift import MAX_NAMED, Drifts, drift

HOUR = datetime(2026, 1, 2, tzinfo=UTC)
CLICK = catalogue()["users.messages.email.Click"]
TYPES: dict[str, pl.DataType] = {
    "string": pl.String(),
    "int": pl.Int32(),
    "long": pl.Int64(),
    "float": pl.Float32(),
    "double": pl.Float64(),
    "boolean": pl.Boolean(),
}
PLAIN = {"string": "a string", "int": "an int", "long": "an int", "float": "a float", "double": "a float"}
event_types = st.sampled_from(list(catalogue().values()))


def schema_of(
    event_type: EventType, changes: Mapping[str, pl.DataType | None] | None = None, *, older: bool = False
) -> pl.Schema:
    """Return the columns of the type's files with changes; None takes a field away."""
    fields = [*event_type.fields, *(event_type.older_fields if older else ())]
    columns: dict[str, pl.DataType | None] = {field.name: dtype_of(field) for field in fields}
    columns.update(changes or {})
    return pl.Schema({name: dtype for name, dtype in columns.items() if dtype is not None})


def dtype_of(field: Field) -> pl.DataType:
    """Return the type of a field's column."""
    return pl.List(TYPES[field.type.items]) if isinstance(field.type, ArrayType) else TYPES[field.type]


@pytest.mark.parametrize("name", catalogue())
@pytest.mark.parametrize("older", [False, True])
def test_files_as_the_catalogue_has_them_show_no_drift(name: str, *, older: bool) -> None:
    """Fields of earlier versions are no news either."""
    assert drift(catalogue()[name], schema_of(catalogue()[name], older=older)) == ""


@pytest.mark.parametrize("name", catalogue())
def test_a_type_that_is_mapped_by_the_general_rules_shows_no_drift(name: str) -> None:
    """All of its fields are needed, and all are there."""
    assert drift(general_event_type(name), schema_of(catalogue()[name])) == ""


def test_a_type_that_the_catalogue_does_not_know_has_no_drift() -> None:
    """There is nothing to compare with; discovery reports the type itself."""
    assert drift(general_event_type("users.new.Thing"), pl.Schema({"id": pl.Int64()})) == ""


def test_all_differences_stand_in_one_line() -> None:
    """The operator reads what to look for in Braze's changelog."""
    schema = schema_of(
        CLICK,
        {
            "x": pl.String(),
            "xs": pl.List(pl.Int32()),
            "url": None,
            "time": pl.String(),
            "is_amp": pl.Int32(),
        },
    )

    assert drift(CLICK, schema) == (
        "new: x (string), xs (array of int); missing: url; retyped: time is a string, was an int, "
        "is_amp is an int, was a boolean"
    )


@given(event_types, st.from_regex(r"[a-z][a-z_]{3,12}", fullmatch=True), st.sampled_from(list(TYPES)))
def test_a_new_field_is_named(event_type: EventType, name: str, kind: str) -> None:
    """With its type, whichever it is."""
    known = {field.name for field in (*event_type.fields, *event_type.older_fields)}

    found = drift(event_type, schema_of(event_type, {name: TYPES[kind]}))

    if name not in known:
        assert found == f"new: {name} ({PLAIN.get(kind, kind).split()[-1]})"


@given(st.data(), event_types)
def test_a_field_is_missing_where_something_needs_it(data: st.DataObject, event_type: EventType) -> None:
    """Who is it, what is it, when was it, and what goes to Segment of it."""
    field = data.draw(st.sampled_from(event_type.fields))
    needed = {"id", "user_id", "external_user_id", "time", event_type.event_name_field, event_type.merge_json_field}
    needed |= {*event_type.properties.values(), *event_type.context.values()}

    found = drift(event_type, schema_of(event_type, {field.name: None}))

    assert found == (f"missing: {field.name}" if field.name in needed else "")


@given(st.data(), event_types)
def test_a_field_of_another_type_is_named(data: st.DataObject, event_type: EventType) -> None:
    """With the type that it is of now, and that of before."""
    field = data.draw(st.sampled_from([field for field in event_type.fields if isinstance(field.type, str)]))
    was = PLAIN.get(str(field.type), "a boolean")
    now = data.draw(st.sampled_from([kind for kind in TYPES if PLAIN.get(kind, "a boolean") != was]))

    found = drift(event_type, schema_of(event_type, {field.name: TYPES[now]}))

    assert found == f"retyped: {field.name} is {PLAIN.get(now, 'a boolean')}, was {was}"


@pytest.mark.parametrize(
    ("field", "dtype"),
    [
        ("int", pl.Int64()),
        ("long", pl.Int32()),
        ("float", pl.Float64()),
        ("double", pl.Float32()),
        ("string", pl.Null()),
        (ArrayType("long", nullable_items=True), pl.List(pl.Int32())),
        (ArrayType("string", nullable_items=True), pl.List(pl.Null())),
        (ArrayType("string", nullable_items=True), pl.Null()),
    ],
)
def test_another_width_is_no_drift(field: str | ArrayType, dtype: pl.DataType) -> None:
    """Nor is a column without values, whose type the record decoder cannot tell."""
    event_type = replace(CLICK, fields=(*CLICK.fields, Field("x", field, nullable=True)))

    assert drift(event_type, schema_of(event_type, {"x": dtype})) == ""


@pytest.mark.parametrize(
    ("field", "dtype", "words"),
    [
        ("string", pl.List(pl.String()), "an array of string, was a string"),
        (ArrayType("string", nullable_items=True), pl.String(), "a string, was an array of string"),
        (ArrayType("long", nullable_items=True), pl.List(pl.String()), "an array of string, was an array of int"),
    ],
)
def test_arrays_are_told_in_words(field: str | ArrayType, dtype: pl.DataType, words: str) -> None:
    """In those of Avro."""
    event_type = replace(CLICK, fields=(*CLICK.fields, Field("x", field, nullable=True)))

    assert drift(event_type, schema_of(event_type, {"x": dtype})) == f"retyped: x is {words}"


def test_a_foreign_schema_fills_no_page() -> None:
    """The first are named, the others counted."""
    new: dict[str, pl.DataType | None] = {f"x{n:03}": pl.String() for n in range(MAX_NAMED + 5)}

    found = drift(CLICK, schema_of(CLICK, new))

    assert found.endswith(f"x{MAX_NAMED - 1:03} (string), 5 more")


def test_nested_values_are_told_as_such() -> None:
    """They come as JSON text, which is no string field."""
    found = drift(CLICK, schema_of(CLICK, {"url": pl.String(), "odd": pl.String()}), frozenset({"url", "odd"}))
    assert found == "new: odd (nested value); retyped: url is a nested value, was a string"


def test_a_string_that_becomes_a_nested_value_is_seen() -> None:
    """Its column is as it was; what the column holds is not."""
    drifts = Drifts()
    drifts.saw(CLICK, schema_of(CLICK), HOUR)
    drifts.saw(CLICK, schema_of(CLICK), HOUR, frozenset({"url"}))
    assert drifts.changed() == {CLICK.name: "retyped: url is a nested value, was a string"}


def test_types_that_the_catalogue_does_not_know_are_not_kept() -> None:
    """Any number of folders may be named so."""
    drifts = Drifts()
    for number in range(100):
        drifts.saw(general_event_type(f"users.new.Thing{number}"), pl.Schema({"id": pl.Int64()}), HOUR)
    assert drifts.changed() == {}
