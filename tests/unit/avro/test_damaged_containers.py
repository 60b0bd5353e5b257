"""Damaged and hostile containers: what can be read is read, the rest is counted, and nothing takes the process down."""

import bz2
import io
import json
import lzma
import zlib
from collections.abc import Callable
from typing import Any

import fastavro
import pytest
from backports import zstd
from cramjam import snappy
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.avro.codecs import decompressor
from currents_bridge.avro.container import Container, decode_together
from currents_bridge.avro.framing import MAX_BLOCK_BYTES, MAX_BLOCK_EVENTS
from currents_bridge.errors import QuarantineObjectError

SCHEMA = {
    "type": "record",
    "name": "Click",
    "fields": [{"name": "id", "type": "string"}, {"name": "n", "type": ["null", "int"]}],
}
SYNC = b"0123456789abcdef"
PER_BLOCK = 5


def long(value: int) -> bytes:
    """Return a long as Avro writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def header(schema: Any = SCHEMA, codec: str = "null") -> bytes:
    """Return a container's header."""
    out = io.BytesIO(b"Obj\x01")
    out.seek(0, io.SEEK_END)
    text = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    metadata = {"avro.schema": text, "avro.codec": codec.encode()}
    fastavro.schemaless_writer(out, {"type": "map", "values": "bytes"}, metadata)
    return out.getvalue() + SYNC


def records(number: int) -> bytes:
    """Return the records of a block, whose ids are the rows of a container of such blocks."""
    out = io.BytesIO()
    for row in range(number * PER_BLOCK, (number + 1) * PER_BLOCK):
        fastavro.schemaless_writer(out, SCHEMA, {"id": f"event-{row:04}", "n": row})
    return out.getvalue()


def block(content: bytes, rows: int = PER_BLOCK, size_bytes: int | None = None) -> bytes:
    """Return a block of a container, or one that lies."""
    return long(rows) + long(len(content) if size_bytes is None else size_bytes) + content + SYNC


def read(body: bytes, **options: int) -> tuple[list[tuple[int, str]], Container, str]:
    """Return row and id of all readable events, the container, and the reason why it is not whole."""
    container = Container(io.BytesIO(body))
    found, reason = drained(container, **options)
    return found, container, reason


def drained(container: Container, **options: int) -> tuple[list[tuple[int, str]], str]:
    """Return row and id of all readable events, and the reason why the container is not whole."""
    found: list[tuple[int, str]] = []
    try:
        for piece in container.slices(**options):
            found += enumerate(piece.events["id"].to_list(), piece.first_row)
    except QuarantineObjectError as error:
        return found, error.reason
    return found, ""


def events(*blocks: int, shift: int = 0) -> list[tuple[int, str]]:
    """Return row and id of the events of these blocks; `shift` rows are missing before them."""
    rows = [row for number in blocks for row in range(number * PER_BLOCK, (number + 1) * PER_BLOCK)]
    return [(row - shift, f"event-{row:04}") for row in rows]


BLOCKS = [block(records(number)) for number in range(6)]
LYING_LENGTHS = block(records(2).replace(b"\x14event-0012", b"\xffevent-0012"))


@pytest.mark.parametrize(
    ("second", "lost", "uncounted", "why"),
    [
        (LYING_LENGTHS, PER_BLOCK, 0, "a value of"),
        (block(records(2)[:-1]), PER_BLOCK, 0, ""),
        (block(records(2) + b"\0\0"), PER_BLOCK, 0, "holds more than its events"),
        (block(records(2), rows=PER_BLOCK - 1), PER_BLOCK - 1, 0, "holds more than its events"),
        (block(records(2), rows=PER_BLOCK + 1), PER_BLOCK + 1, 0, ""),
        (block(records(2), rows=-PER_BLOCK), 0, 1, "says that it has -5 events"),
        (block(records(2), rows=2**62), 0, 1, "says that it has 4611686018427387904 events"),
        (block(records(2), size_bytes=-1), 0, 1, "says that it has -1 bytes"),
        (block(records(2), size_bytes=2**62), 0, 1, "says that it has 4611686018427387904 bytes"),
        (block(records(2), size_bytes=80), PER_BLOCK, 0, "no sync marker behind a block"),
        (block(records(2), size_bytes=10), 0, 1, "no sync marker behind a block"),
        (b"\xff" * 100 + SYNC, 0, 1, "no number of events"),
    ],
)
def test_one_bad_block_costs_itself(second: bytes, lost: int, uncounted: int, why: str) -> None:
    """The blocks before and behind it come through, and the events that are missing are counted."""
    body = header() + BLOCKS[0] + BLOCKS[1] + second + BLOCKS[3] + BLOCKS[4]

    found, container, reason = read(body)

    assert found == events(0, 1) + events(3, 4, shift=PER_BLOCK - lost)
    assert (container.damage.blocks, container.damage.events, container.damage.uncounted) == (1, lost, uncounted)
    assert reason == container.damage_summary()
    assert reason.startswith(f"1 of 5 blocks is unreadable ({lost} events")
    assert why in reason


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (BLOCKS[0], LYING_LENGTHS),
        (BLOCKS[0], BLOCKS[1][:-1]),
        (BLOCKS[0], BLOCKS[1] + b"\xff" * 100 + SYNC + BLOCKS[2]),
        (BLOCKS[0], block(records(1), rows=MAX_BLOCK_EVENTS)),
        (block(records(0), rows=PER_BLOCK - 1), block(records(1), rows=PER_BLOCK + 1)),
    ],
    ids=["bad records", "cut off", "gap", "hostile count", "counts whose sum is right"],
)
def test_a_damaged_container_is_not_decoded_together_with_others(first: bytes, second: bytes) -> None:
    """No event comes out as one of another container, and each gives alone what it would have given."""
    bodies = [header() + first, header() + second]
    containers = [Container(io.BytesIO(body)) for body in bodies]

    assert decode_together(containers) is None
    assert decode_together(containers) is None
    for body, container in zip(bodies, containers, strict=True):
        assert drained(container) == read(body)[::2]


def test_a_count_that_cannot_be_is_not_counted() -> None:
    """Rows go on behind it all the same, so that they do not depend on what was unpacked."""
    body = header() + BLOCKS[0] + block(records(1), rows=MAX_BLOCK_EVENTS) + BLOCKS[2]

    found, container, reason = read(body)

    assert found == events(0) + events(2, shift=PER_BLOCK - MAX_BLOCK_EVENTS)
    assert (container.damage.events, container.damage.uncounted) == (0, 1)
    assert "cannot hold 250000 events" in reason


def test_more_events_than_rows_can_number_are_refused() -> None:
    """A block of few bytes may promise many."""
    with pytest.raises(QuarantineObjectError, match="more than 4294967295 events"):
        list(Container(io.BytesIO(header() + block(b"", rows=MAX_BLOCK_EVENTS) * 20_000)).slices())


def test_a_lost_sync_marker_costs_what_lies_up_to_the_next() -> None:
    """Two blocks cannot be told apart without it; the container does not tell how many events that are."""
    body = header() + BLOCKS[0] + BLOCKS[1][:-1] + b"X" + BLOCKS[2] + BLOCKS[3]

    found, container, _ = read(body)

    assert found == events(0) + events(3, shift=2 * PER_BLOCK)
    assert (container.damage.blocks, container.damage.uncounted) == (1, 1)


def test_a_file_that_is_cut_off_gives_its_whole_blocks() -> None:
    """The last block still tells how many events it had."""
    body = header() + b"".join(BLOCKS)

    found, container, reason = read(body[:-30])

    assert found == events(0, 1, 2, 3, 4)
    assert container.damage.events == PER_BLOCK
    assert "the file ends in a block" in reason


def test_a_sync_marker_among_the_records_is_harmless() -> None:
    """Only a place that does not fit makes the reader look for markers."""
    with_marker = fastavro_record("0123456789abcdef")
    body = header() + BLOCKS[0] + block(with_marker, rows=1) + BLOCKS[2]

    found, container, _ = read(body)

    assert [name for _, name in found] == [n for _, n in events(0)] + ["0123456789abcdef"] + [n for _, n in events(2)]
    assert not container.damage


def fastavro_record(name: str) -> bytes:
    """Return one record."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, SCHEMA, {"id": name, "n": None})
    return out.getvalue()


def test_many_blocks_of_one_slice_lose_only_the_bad_ones() -> None:
    """All are decoded at once first, then in halves."""
    bad = {7, 8, 40}
    parts = [block(records(n)[:-1] + b"\xff" if n in bad else records(n)) for n in range(60)]

    found, container, reason = read(header() + b"".join(parts))

    assert found == events(*(n for n in range(60) if n not in bad))
    assert container.damage.events == 3 * PER_BLOCK
    assert reason.startswith("3 of 60 blocks are unreadable (15 events); first at byte ")


@given(skip_rows=st.integers(0, 6 * PER_BLOCK + 3), slice_bytes=st.integers(1, 500))
def test_reading_goes_on_from_any_row(skip_rows: int, slice_bytes: int) -> None:
    """The events behind it come as they would have come."""
    found, container, _ = read(header() + b"".join(BLOCKS), slice_bytes=slice_bytes, skip_rows=skip_rows)

    assert found == events(*range(6))[skip_rows:]
    assert not container.damage


def test_what_is_skipped_is_not_unpacked() -> None:
    """So that going on in a large object is quick; damage before the row is not seen again."""
    found, container, _ = read(header() + LYING_LENGTHS + BLOCKS[1] + BLOCKS[2], skip_rows=PER_BLOCK)

    assert found == events(1, 2)
    assert not container.damage


def test_rows_stay_the_same_behind_damage() -> None:
    """Ids of events without one are made of the row: going on must give the same."""
    body = header() + BLOCKS[0] + LYING_LENGTHS + BLOCKS[2] + b"junk" + SYNC + BLOCKS[3]

    whole, _, _ = read(body)
    behind, _, _ = read(body, skip_rows=12)

    assert behind == [(row, name) for row, name in whole if row >= 12]
    assert whole == events(0, 2, 3)


BOMB = bytes(MAX_BLOCK_BYTES + 1)


@pytest.mark.parametrize(
    ("codec", "compress"),
    [
        ("deflate", lambda data: zlib.compress(data)[2:-4]),
        ("bzip2", bz2.compress),
        ("xz", lzma.compress),
        ("zstandard", zstd.compress),
        ("snappy", lambda data: bytes(snappy.compress_raw(data)) + zlib.crc32(data).to_bytes(4, "big")),
        ("null", lambda data: data),
    ],
)
def test_a_block_unpacks_within_bounds_or_not_at_all(codec: str, compress: Callable[[bytes], bytes]) -> None:
    """A small block that would fill the memory is refused, one that is cut off too."""
    unpack = decompressor(codec)
    assert unpack(compress(b"abc" * 99), 297) == b"abc" * 99
    with pytest.raises(ValueError, match="more than 296 bytes"):
        unpack(compress(b"abc" * 99), 296)
    if codec != "null":
        with pytest.raises(Exception, match=r".+"):
            unpack(compress(b"abc" * 99)[:-1], 297)


def test_a_bomb_costs_its_block_only() -> None:
    """The limit is that of `framing`."""
    bomb = zlib.compress(BOMB, 1)[2:-4]
    good = [zlib.compress(records(n))[2:-4] for n in range(2)]
    body = header(codec="deflate") + block(good[0]) + block(bomb) + block(good[1])

    found, _, reason = read(body)

    assert [name for _, name in found] == [name for _, name in events(0, 1)]
    assert "unpacks to more than" in reason


def _cut(packed: bytes) -> bytes:
    return packed[:-1]


@pytest.mark.parametrize(
    ("codec", "packed", "wanted"),
    [
        ("bzip2", bz2.compress(bytes(45_000_000)), 17),  # 60 bytes
        ("bzip2", _cut(bz2.compress(bytes(4_000_000))), 33),
        ("zstandard", zstd.compress(bytes(45_000_000)), 17),
        ("zstandard", _cut(zstd.compress(bytes(4_000_000))), 40),
        ("xz", _cut(lzma.compress(bytes(4_000_000))), 40),
        ("deflate", _cut(zlib.compress(bytes(4_000_000))[2:-4]), 40),
        ("snappy", b"\x80\x92\xf4\x01" + b"x" + b"none", 40),  # says that it holds 4 MB
    ],
)
def test_what_is_unpacked_in_vain_counts(codec: str, packed: bytes, wanted: int) -> None:
    """A file of thousands of blocks that are bombs or bad at their end is left."""
    container = Container(io.BytesIO(header(codec=codec) + block(packed, rows=1) * 200))

    assert "packed bytes" in drained(container)[1]
    assert container.damage.blocks <= wanted


def test_a_wrong_checksum_is_found() -> None:
    """Snappy alone has one; a flipped bit in a text would pass every other test."""
    content = records(0)
    packed = bytes(snappy.compress_raw(content)) + zlib.crc32(content.replace(b"event-0001", b"event-0009")).to_bytes(4)

    assert "the checksum of a block is wrong" in read(header(codec="snappy") + block(packed))[2]


def record(*types: Any) -> dict[str, Any]:
    """Return a schema with fields of these types."""
    return {"type": "record", "name": "R", "fields": [{"name": f"f{n}", "type": t} for n, t in enumerate(types)]}


def nested(levels: int) -> Any:
    """Return an array of arrays of arrays."""
    avro_type: Any = "int"
    for _ in range(levels):
        avro_type = {"type": "array", "items": avro_type}
    return avro_type


CHAIN = [
    {"type": "record", "name": f"S{n}", "fields": [{"name": "a", "type": f"S{n - 1}" if n else "int"}]}
    for n in range(40)
]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (record(["null", "R"]), "the schema has a recursive type"),
        (record("R"), "the schema has a recursive type"),
        (record({"type": "array", "items": record(["null", {"type": "map", "values": "R"}])}), "recursive|redefined"),
        (record(nested(60)), "the schema is nested too deeply"),
        (record(nested(500)), "the schema is nested too deeply"),
        (b"[" * 100_000, "maximum recursion depth|nested|Expecting"),
        (record(*CHAIN), "the schema is nested too deeply"),
        (record({"type": "array", "items": "null"}), "values that take no bytes"),
        (record({"type": "array", "items": {"type": "fixed", "name": "F", "size": 0}}), "values that take no bytes"),
        (
            record({"type": "array", "items": {"type": "record", "name": "E", "fields": []}}),
            "values that take no bytes",
        ),
        (record({"type": "array", "items": {"type": "error", "name": "E", "fields": []}}), "values that take no bytes"),
        (record({"type": "array", "items": record("null", "null")}), "redefined|recursive|no bytes"),
        ({"type": "record", "name": "R", "fields": [{"name": "a", "type": "int"}] * 2}, "names a field twice"),
        (b"{", "Expecting property name"),
        (b"\xff", "decode"),
        (record("no-such-type"), "no-such-type"),
        (json.dumps(record(*["int"] * 100_000)).encode(), "the header is too long"),
    ],
)
def test_a_schema_that_could_take_the_process_down_is_refused(schema: Any, reason: str) -> None:
    """Reading would follow it until the stack or the memory ends."""
    with pytest.raises(QuarantineObjectError, match=reason):
        Container(io.BytesIO(header(schema) + block(b"\x02" * 1_000_000, rows=1)))


def test_a_schema_of_thousands_of_fields_is_read() -> None:
    """Forty times as wide as the widest of Currents."""
    schema = record(*["int"] * 4_000)
    body = header(schema) + block(b"\x02" * 4_000, rows=1)

    (piece,) = Container(io.BytesIO(body)).slices()

    assert piece.events.shape == (1, 4_000)


def test_a_type_may_be_named_again() -> None:
    """A reference is no recursion."""
    schema = record({"type": "enum", "name": "E", "symbols": ["x"]}, ["null", "E"])
    (piece,) = Container(io.BytesIO(header(schema) + block(b"\0\x02\0", rows=1))).slices()
    assert piece.events.row(0) == ("x", "x")


def test_a_huge_decimal_stays_bytes() -> None:
    """Its conversion to digits takes the square of its length."""
    decimal = {"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}
    body = header(record(decimal)) + block(long(3_000) + b"\x7f" * 3_000, rows=1)

    (piece,) = Container(io.BytesIO(body)).slices()

    assert piece.events.item() == "f39/" * 1_000


def test_a_record_of_no_bytes_is_refused() -> None:
    """A block could hold any number of them."""
    with pytest.raises(QuarantineObjectError, match="cannot hold 1000 events"):
        list(Container(io.BytesIO(header(record("null")) + block(b"", rows=1000))).slices())


@pytest.mark.parametrize("codec", ["deflate", "snappy", "zstandard", "bzip2", "xz", "null"])
def test_a_block_without_events_costs_nothing(codec: str) -> None:
    """Some writers end with one that no codec has touched."""
    found, container, reason = read(header(codec=codec) + block(b"", rows=0))

    assert (found, reason) == ([], "")
    assert not container.damage


@pytest.mark.parametrize("codec", ["Deflate", " deflate ", "DEFLATE"])
def test_a_codec_may_be_spelled_in_any_case(codec: str) -> None:
    """There is no other that could be meant."""
    packed = zlib.compress(records(0))[2:-4]
    assert read(header(codec=codec) + block(packed))[0] == events(0)


@pytest.mark.parametrize("codec", ["", None])
def test_without_a_codec_nothing_is_compressed(codec: str | None) -> None:
    """So says Avro of a header that names none."""
    metadata = {"avro.schema": json.dumps(SCHEMA).encode()} | ({} if codec is None else {"avro.codec": b""})
    out = io.BytesIO()
    fastavro.schemaless_writer(out, {"type": "map", "values": "bytes"}, metadata)

    assert read(b"Obj\x01" + out.getvalue() + SYNC + BLOCKS[0])[0] == events(0)


@pytest.mark.parametrize("count", [1, 20, 4_000])
def test_some_zeros_behind_the_last_block_are_no_damage(count: int) -> None:
    """Some tools pad what they copy."""
    found, container, reason = read(header() + BLOCKS[0] + bytes(count))

    assert (found, reason) == (events(0), "")
    assert not container.damage


def test_many_zeros_behind_the_last_block_may_be_a_hole() -> None:
    """A copy that left out pages has zeros where events were."""
    assert "1 of 2 blocks is unreadable" in read(header() + BLOCKS[0] + bytes(4_096))[2]


def test_zeros_between_blocks_are_damage() -> None:
    """Something stood there."""
    found, _, reason = read(header() + BLOCKS[0] + bytes(10_000) + SYNC + BLOCKS[2])

    assert [name for _, name in found] == [name for _, name in events(0, 2)]
    assert reason.startswith("1 of 3 blocks")


def test_containers_put_together_are_read_on() -> None:
    """Each with a marker of its own; of one schema and codec."""
    other = b"another 16 bytes"
    second = (header() + BLOCKS[1] + BLOCKS[2]).replace(SYNC, other)

    found, container, reason = read(header() + BLOCKS[0] + second)

    assert (found, reason) == (events(0, 1, 2), "")
    assert not container.damage


def test_a_container_of_another_schema_behind_the_first_is_damage() -> None:
    """Its events have other fields."""
    found, _, reason = read(header() + BLOCKS[0] + header(record("int")) + block(b"\2", rows=1))

    assert found == events(0)
    assert "unreadable" in reason


@pytest.mark.parametrize("garbage", [b"\n", b"garbage", b"\0" * 7 + b"x", b"\0" * 500_000 + b"x", SYNC])
def test_garbage_behind_the_last_block_costs_no_event(garbage: bytes) -> None:
    """It is told all the same: something else may have been there."""
    found, _, reason = read(header() + BLOCKS[0] + garbage)

    assert found == events(0)
    assert reason.startswith("1 of 2 blocks is unreadable (0 events")


def test_a_hostile_name_can_be_stored() -> None:
    """A schema of one half of a character: its reason is text like any other."""
    with pytest.raises(QuarantineObjectError) as caught:
        read(header(b'"\\ud800"'))
    assert caught.value.reason.encode()


def test_one_bad_text_costs_nothing_and_one_bad_symbol_its_event() -> None:
    """The events around it in the block are good, at their rows."""
    schema = {
        "type": "record",
        "name": "Click",
        "fields": [
            {"name": "id", "type": "string"},
            {"name": "e", "type": {"type": "enum", "name": "E", "symbols": ["a", "b"]}},
        ],
    }
    body = header(schema) + block(b"\x02k\x00" + b"\x04\xffm\x02" + b"\x02n\x08" + b"\x02o\x00", rows=4)

    (piece,) = Container(io.BytesIO(body)).slices()

    assert piece.events.rows() == [("k", "a"), ("\ufffdm", "b"), ("n", None), ("o", "a")]
    assert piece.unreadable == [(2, "e: symbol 4 of an enum of 2")]


@pytest.mark.parametrize("rows_behind", [0, 3])
def test_a_branch_that_a_union_does_not_have_is_no_good_event(rows_behind: int) -> None:
    """Nor is what follows it in the block: nobody knows how long the value is."""
    content = records(1)[:-2] + b"\x04\x09"

    found, container, reason = read(header() + BLOCKS[0] + block(content) + BLOCKS[2] * bool(rows_behind))

    assert [name for _, name in found][:5] == [name for _, name in events(0)]
    assert container.damage.events == PER_BLOCK
    assert "branch 2 of a union of 2" in reason


@pytest.mark.parametrize(
    ("codec", "compress"),
    [
        ("null", bytes),
        ("deflate", lambda data: zlib.compress(data, 9)[2:-4]),
        ("snappy", lambda data: bytes(snappy.compress_raw(data)) + zlib.crc32(data).to_bytes(4, "big")),
    ],
)
@pytest.mark.parametrize("map_type", [None, {"type": "map", "values": "string"}])
def test_the_largest_file_of_currents_is_read_however_well_it_compresses(
    codec: str, compress: Callable[[bytes], bytes], map_type: Any
) -> None:
    """100,000 events of 1 KB that are all alike, in blocks as writers make them; a third of them with a type for us."""
    blocks = 540 if map_type else 1_600
    schema = record("string", *([map_type] if map_type else [["null", "string"]] * 40))
    event = long(950) + b"x" * 950 + (b"\2\2k\2v\0" if map_type else bytes(40))
    content = compress(event * 63)

    pieces = Container(io.BytesIO(header(schema, codec) + block(content, rows=63) * blocks)).slices()

    assert sum(piece.events.height for piece in pieces) == 63 * blocks


def test_containers_whose_messages_would_be_too_large_are_not_decoded_together() -> None:
    """Fields of a byte have a name in each message; alone they come in parts."""
    fields = [{"name": f"{n:03}" + "n" * 250, "type": ["null", "int"]} for n in range(200)]
    body = header({"type": "record", "name": "R", "fields": fields}) + block(bytes(200 * 500), rows=500)

    assert decode_together([Container(io.BytesIO(body)) for _ in range(2)]) is None
    heights = [piece.events.height for piece in Container(io.BytesIO(body)).slices()]
    assert sum(heights) == 500
    assert len(heights) > 2
