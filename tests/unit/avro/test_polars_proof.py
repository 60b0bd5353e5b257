"""What polars decodes is delivered only where it is what the strict decoder would give."""

import io
import json
from collections.abc import Sequence
from typing import Any

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from currents_bridge.avro.polars_reader import PolarsReader, Records
from currents_bridge.avro.records import RecordReader
from currents_bridge.avro.schema import AvroType, parse

SCALARS: dict[str, st.SearchStrategy[Any]] = {
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1) | st.integers(-70, 70),
    "long": st.integers(-(2**63), 2**63 - 1) | st.integers(-70, 70),
    "float": st.floats(allow_nan=False, width=32),
    "double": st.floats(allow_nan=False),
    "string": st.text(max_size=3) | st.text(st.sampled_from("aé"), min_size=60, max_size=140),
}


def nullable(types: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return types and the same with null, on either side."""
    return types | types.map(lambda t: ["null", t]) | types.map(lambda t: [t, "null"])


NAMES = st.sampled_from(list(SCALARS))
TYPES = nullable(NAMES | nullable(NAMES).map(lambda t: {"type": "array", "items": t}))


def value_of(avro_type: Any) -> st.SearchStrategy[Any]:
    """Return values of a type, as fastavro takes them."""
    match avro_type:
        case [one, other]:
            return st.none() | value_of(other if one == "null" else one)
        case {"items": items}:
            return st.lists(value_of(items), max_size=3)
        case _:
            return SCALARS[avro_type]


@st.composite
def runs(draw: st.DrawFn) -> tuple[AvroType, int, bytes]:
    """Return a schema, and so many records of it."""
    types = draw(st.lists(TYPES, min_size=1, max_size=4))
    rows = draw(st.lists(st.tuples(*map(value_of, types)), min_size=1, max_size=5))
    return schema_of(types), len(rows), encoded(types, rows)


def document(types: Sequence[Any]) -> dict[str, Any]:
    """Return a schema of fields of these types."""
    return {"type": "record", "name": "R", "fields": [{"name": f"f{n}", "type": t} for n, t in enumerate(types)]}


def schema_of(types: Sequence[Any]) -> AvroType:
    """Return the schema as the program has it."""
    return parse(json.dumps(document(types)).encode())


def encoded(types: Sequence[Any], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return records as Avro writes them."""
    out = io.BytesIO()
    for row in rows:
        fastavro.schemaless_writer(out, document(types), {f"f{n}": value for n, value in enumerate(row)})
    return out.getvalue()


def by_polars(schema: AvroType, rows: int, content: bytes) -> pl.DataFrame | None:
    """Return what polars gives, None where it does not, or is not believed."""
    try:
        return PolarsReader(schema).read([Records(rows, [content])])
    except (Exception, pl.exceptions.PanicException):  # noqa: BLE001 - whatever it raises about such bytes
        return None


@given(runs())
@settings(max_examples=150, deadline=None)
def test_records_that_are_written_well_are_believed(run: tuple[AvroType, int, bytes]) -> None:
    """Whatever their types and values."""
    schema, rows, content = run
    events = by_polars(schema, rows, content)
    assert events is not None
    assert_frame_equal(events, RecordReader(schema).read(rows, content, 2**30).events)


@given(runs(), st.data())
@settings(max_examples=300, deadline=None)
def test_nothing_is_believed_that_the_strict_decoder_refuses(
    run: tuple[AvroType, int, bytes], data: st.DataObject
) -> None:
    """A byte is another one: either it shows, or the events are what the bytes say."""
    schema, rows, content = run
    place = data.draw(st.integers(0, len(content) - 1)) if content else 0
    byte = data.draw(st.sampled_from([0, 1, 2, 3, 4, 6, 127, 128, 255]))
    content = content[:place] + bytes([byte]) + content[place + 1 :]

    events = by_polars(schema, rows, content)

    if events is not None:
        strictly = RecordReader(schema).read(rows, content, 2**30)
        assert not strictly.unreadable
        assert_frame_equal(events, strictly.events)


@pytest.mark.parametrize(
    ("avro_type", "good", "bad"),
    [
        (["null", "string"], b"\2\2x", b"\4\2x"),
        (["null", "string"], b"\2\2x", b"\1\2x"),
        (["null", "string"], b"\2\2x", b"\x82\0\2x"),
        (["string", "null"], b"\2", b"\4"),
        ("boolean", b"\0", b"\2"),
        (["null", "boolean"], b"\2\0", b"\2\x7f"),
        ("long", b"\2", b"\x82" + b"\x80" * 9 + b"\0"),
        ("int", b"\2", b"\x82\x80\x80\x80\x10"),
        ("int", b"\xfe\xff\xff\xff\x0f", b"\xfe\xff\xff\xff\x1f"),
        ("long", b"\xff" * 9 + b"\1", b"\xff" * 9 + b"\3"),
        ("string", b"\2x", b"\x82\0x"),
        ({"type": "array", "items": ["null", "string"]}, b"\2\2\2x\0", b"\2\4\2x\0"),
        ({"type": "array", "items": "boolean"}, b"\2\0\0", b"\2\2\0"),
        (["null", {"type": "array", "items": "int"}], b"\2\2\2\0", b"\4\2\2\0"),
    ],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_value_that_polars_would_bend_is_not_believed(avro_type: Any, good: bytes, bad: bytes, place: int) -> None:
    """It was delivered as if good: another branch, a byte of a boolean, a number that was cut off or is too long."""
    schema = schema_of(["string", avro_type, "string"])
    values = [good] * 3
    assert by_polars(schema, 3, b"".join(b"\2a" + value + b"\2b" for value in values)) is not None
    values[place] = bad
    assert by_polars(schema, 3, b"".join(b"\2a" + value + b"\2b" for value in values)) is None
