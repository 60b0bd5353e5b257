"""Decoding records one by one: what can be read is read, what cannot costs its event, or its block."""

import io
import json
from base64 import b64encode
from collections.abc import Sequence
from typing import Any

import fastavro
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from currents_bridge.avro.records import Decoded, LostError, RecordReader
from currents_bridge.avro.schema import parse

ROOM = 64 * 1024 * 1024
MILLIS = {"type": "long", "logicalType": "timestamp-millis"}


def reader(*types: Any) -> RecordReader:
    """Return a reader of records with fields of these types."""
    fields = [{"name": f"f{n}", "type": avro_type} for n, avro_type in enumerate(types)]
    return RecordReader(parse(json.dumps({"type": "record", "name": "R", "fields": fields}).encode()))


def long(value: int) -> bytes:
    """Return a number as Avro writes it, of any size."""
    value = value << 1 if value >= 0 else ~(value << 1)
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def text(content: bytes) -> bytes:
    """Return a text as Avro writes it."""
    return long(len(content)) + content


def decoded(avro_type: Any, *values: bytes) -> Decoded:
    """Return records that hold a value and its place; so one that ends elsewhere would be seen."""
    content = b"".join(value + long(place) for place, value in enumerate(values))
    found = reader(avro_type, "int").read(len(values), content, ROOM)
    assert found.events["f1"].to_list() == list(range(len(values)))
    return found


@pytest.mark.parametrize(
    ("avro_type", "good", "bad", "reason"),
    [
        ("boolean", b"\1", b"\2", "f0: a boolean of byte 2"),
        ("int", long(5), long(2**31), "f0: 2147483648 is no int"),
        ("int", long(5), long(2**32), "f0: 4294967296 is no int"),
        ("int", long(5), long(-(2**31) - 1), "f0: -2147483649 is no int"),
        ("long", long(5), long(2**63), "f0: 9223372036854775808 is no long"),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, b"\0", b"\2", "f0: symbol 1 of an enum of 1"),
        ({"type": "enum", "name": "E", "symbols": ["a"]}, b"\0", b"\1", "f0: symbol -1 of an enum of 1"),
        (["null", {"type": "array", "items": "boolean"}], b"\0", b"\2\2\7\0", "f0: a boolean of byte 7"),
        ({"type": "map", "values": "boolean"}, b"\0", b"\2\2k\7\0", "f0: a boolean of byte 7"),
        ({"type": "int", "logicalType": "date"}, long(5), long(2**40), "f0: 1099511627776 is no int"),
    ],
)
def test_a_value_that_cannot_be_read_costs_its_event(avro_type: Any, good: bytes, bad: bytes, reason: str) -> None:
    """Those around it are found, since it is certain where it ends."""
    found = decoded(avro_type, good, bad, good)

    first, _, last = found.events["f0"]
    assert found.unreadable == [(1, reason)]
    assert first == last


@pytest.mark.parametrize(
    ("avro_type", "bad", "reason"),
    [
        (["null", "string"], b"\4\2x", "branch 2 of a union of 2"),
        (["null", "string"], b"\1\2x", "branch -1 of a union of 2"),
        ("string", b"\1", "a value of -1 bytes"),
        ("string", long(2**40), "a value of 1099511627776 bytes"),
        ("long", b"\x80" * 10 + b"\0", "a number of more than ten bytes"),
        ("long", b"\x80" * 9, "ends in a number"),
        ("int", b"\2\2", "more than its events"),
        ("double", b"1234567", "a value of 8 bytes where 7 are left"),
        ({"type": "array", "items": "int"}, long(2**40), "1099511627776 values"),
        ({"type": "array", "items": "string"}, long(-(2**62)) + b"\0", "4611686018427387904 values"),
        ({"type": "map", "values": "int"}, long(2**62), "4611686018427387904 values"),
    ],
)
def test_what_ends_nobody_knows_where_costs_its_block(avro_type: Any, bad: bytes, reason: str) -> None:
    """To go on would be to guess."""
    with pytest.raises(LostError, match=reason):
        reader(avro_type).read(1, bad, ROOM)


@pytest.mark.parametrize(
    ("avro_type", "content", "value"),
    [
        ("string", text(b"a\xffb"), "a\ufffdb"),
        ({"type": "map", "values": "string"}, b"\2" + text(b"\xff") + text(b"\xfe") + b"\0", '{"\ufffd":"\ufffd"}'),
        (MILLIS, long(10**17), str(10**17)),
        (["null", MILLIS], b"\2" + long(-(2**63)), str(-(2**63))),
        ({"type": "array", "items": MILLIS}, b"\2" + long(10**17) + b"\0", [str(10**17)]),
        ({"type": "map", "values": MILLIS}, b"\2" + text(b"k") + long(10**17) + b"\0", '{"k":100000000000000000}'),
        ({"type": "long", "logicalType": "timestamp-micros"}, long(2**62), str(2**62)),
        ({"type": "int", "logicalType": "date"}, long(2**31 - 1), str(2**31 - 1)),
        ({"type": "int", "logicalType": "time-millis"}, long(-1), "-1"),
        ({"type": "string", "logicalType": "uuid"}, text(b"no uuid"), "no uuid"),
        ({"type": "bytes", "logicalType": "decimal", "precision": 4, "scale": 2}, text(b""), "0.00"),
        ({"type": "long", "logicalType": "no-such-type"}, long(7), 7),
        ({"type": "string", "logicalType": "decimal"}, text(b"7"), "7"),
        ({"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}, bytes(12), "AAAAAAAAAAAAAAAA"),
    ],
)
def test_what_does_not_fit_is_read_as_well_as_it_can_be(avro_type: Any, content: bytes, value: Any) -> None:
    """A text with a sign for each bad byte, a time as the number that it is of: the event is good."""
    found = decoded(avro_type, content, content)
    assert found.events["f0"].to_list() == [value, value]
    assert not found.unreadable


@pytest.mark.parametrize(
    ("avro_type", "content"),
    [
        ({"type": "map", "values": "int"}, long(1_000_000) + b"\0\0" * 1_000_000 + b"\0"),
        ({"type": "array", "items": "string"}, long(1_000_000) + b"\0" * 1_000_001),
        ({"type": "array", "items": {"type": "record", "name": "T", "fields": [{"name": "n" * 256, "type": "int"}]}},
         long(500_000) + b"\0" * 500_001),
    ],
)  # fmt: skip
def test_values_that_would_fill_the_memory_are_not_decoded(avro_type: Any, content: bytes) -> None:
    """A value takes a hundred times the byte that it was."""
    with pytest.raises(LostError, match="too many values for its size"):
        reader(avro_type).read(1, content, ROOM)


@pytest.mark.parametrize(
    "avro_type", [{"type": "enum", "name": "E", "symbols": ["s" * 256]}, {"type": "record", "name": "T", "fields": [
        {"name": "n" * 256, "type": "int"}]}]
)  # fmt: skip
def test_names_and_symbols_count_for_each_event(avro_type: Any) -> None:
    """Each event takes them anew, as text."""
    with pytest.raises(LostError, match="too many values for its size"):
        reader(avro_type).read(250_000, b"\0" * 250_000, ROOM)


def test_an_event_that_is_far_too_large_is_named_and_cut() -> None:
    """Braze makes none over 900 KB; a dead letter of it shows whose it was."""
    content = text(b"x" * 2_000_000) + text(b"y") + b"\0"
    found = reader("string", "string", {"type": "map", "values": "int"}).read(1, content, ROOM)
    assert found.unreadable == [(0, "an event of 2000007 bytes; Braze makes none of more than 900 KB")]
    assert found.events.row(0) == ("x" * 1_000, "y", None)


def test_a_value_whose_json_is_far_too_long_costs_its_event() -> None:
    """A byte of text may take six in JSON."""
    found = decoded({"type": "map", "values": "string"}, *[b"\2\2k" + text(b"\1" * 200_000) + b"\0"] * 2)
    assert found.unreadable == [(row, "f0: 1200008 bytes of JSON") for row in (0, 1)]


SCALARS = st.sampled_from(["boolean", "int", "long", "double", "bytes", "string", "null"])
TYPES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(
        inner.filter(lambda t: t != "null").map(lambda t: {"type": "array", "items": t}),
        inner.map(lambda t: {"type": "map", "values": t}),
        st.lists(SCALARS, min_size=1, max_size=4, unique=True),
    ),
    max_leaves=4,
)


PLAIN_VALUES: dict[str, st.SearchStrategy[Any]] = {
    "null": st.none(),
    "boolean": st.booleans(),
    "int": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "double": st.floats(allow_nan=False, allow_infinity=False),
    "bytes": st.binary(max_size=3),
    "string": st.text(max_size=5),
}


def value_of(avro_type: Any) -> st.SearchStrategy[Any]:
    """Return values of a type, as fastavro takes them."""
    match avro_type:
        case [*branches]:
            return st.one_of(*[value_of(branch) for branch in branches])
        case {"items": items}:
            return st.lists(value_of(items), max_size=3)
        case {"values": values}:
            return st.dictionaries(st.text(max_size=3), value_of(values), max_size=3)
        case _:
            return PLAIN_VALUES[avro_type]


@st.composite
def files(draw: st.DrawFn) -> tuple[Sequence[Any], Sequence[Sequence[Any]]]:
    """Return the types of fields, and rows of such values."""
    types = draw(st.lists(TYPES, min_size=1, max_size=3))
    return types, draw(st.lists(st.tuples(*map(value_of, types)), max_size=4))


@given(files())
@settings(max_examples=150, deadline=None)
def test_every_value_comes_out_as_fastavro_reads_it(file: tuple[Sequence[Any], Sequence[Sequence[Any]]]) -> None:
    """Of any type; where a column cannot hold them, as their JSON."""
    types, rows = file
    records = reader(*types)
    schema = {"type": "record", "name": "R", "fields": [{"name": f"f{n}", "type": t} for n, t in enumerate(types)]}
    out = io.BytesIO()
    for row in rows:
        fastavro.schemaless_writer(out, schema, {f"f{n}": value for n, value in enumerate(row)})
    out.seek(0)
    wanted: list[Any] = [fastavro.schemaless_reader(out, schema, None) for _ in rows]

    found = records.read(len(rows), out.getvalue(), ROOM)

    assert not found.unreadable
    for event, record in zip(found.events.to_dicts(), wanted, strict=True):
        for part, (name, value) in zip(records.schema.parts, record.items(), strict=True):
            read = event[name] if part.plain or event[name] is None else orjson.loads(event[name])
            assert read == as_json(value)


def as_json(value: Any) -> Any:
    """Return a value with its bytes as base64."""
    return orjson.loads(orjson.dumps(value, default=lambda content: b64encode(content).decode()))
