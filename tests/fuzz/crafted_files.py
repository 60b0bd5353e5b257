"""Small files that were made to cost much: each is a way to hours or gigabytes if nothing bounded it."""

import bz2
import io
import json
import zlib
from collections.abc import Callable
from typing import Any

import fastavro

SYNC = b"0123456789abcdef"
_IDS = [
    {"name": "id", "type": "string"},
    {"name": "external_user_id", "type": "string"},
    {"name": "time", "type": "long"},
]
_GOOD = b"\x02a\x02u" + b"\x80\xe8\x9d\x97\x0d"  # a time in 2026


def long(value: int) -> bytes:
    """Return a number as Avro writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, "long", value)
    return out.getvalue()


def schema(*types: Any, names: str = "f{}") -> dict[str, Any]:
    """Return the schema of an event that has fields of these types, too."""
    more = [{"name": names.format(n), "type": avro_type} for n, avro_type in enumerate(types)]
    return {"type": "record", "name": "R", "fields": [*_IDS, *more]}


def container(document: Any, *blocks: tuple[int, bytes], codec: str = "deflate", times: int = 1) -> bytes:
    """Return a container with these blocks (events, content), all of them so many times."""
    text = document if isinstance(document, bytes) else json.dumps(document).encode()
    head = io.BytesIO()
    metadata = {"avro.schema": text, "avro.codec": codec.encode()}
    fastavro.schemaless_writer(head, {"type": "map", "values": "bytes"}, metadata)
    framed = []
    for rows, content in blocks:
        packed = content if codec == "null" else zlib.compress(content, 9)[2:-4]
        framed.append(long(rows) + long(len(packed)) + packed + SYNC)
    return b"Obj\x01" + head.getvalue() + SYNC + b"".join(framed) * times


def packed_blocks(codec: str, packed: bytes, rows: int = 1, *, times: int) -> bytes:
    """Return a container with a block as it is packed, so many times."""
    block = long(rows) + long(len(packed)) + packed + SYNC
    return container(schema("int"), codec=codec) + block * times


def one(value: bytes) -> tuple[int, bytes]:
    """Return a block of one event with this value."""
    return 1, _GOOD + value


def many(rows: int, value: bytes) -> tuple[int, bytes]:
    """Return a block of so many events with this value."""
    return rows, (_GOOD + value) * rows


def _record(name: str, *fields: tuple[str, Any]) -> dict[str, Any]:
    return {"type": "record", "name": name, "fields": [{"name": n, "type": t} for n, t in fields]}


def _doubling(levels: int) -> list[Any]:
    return [
        _record(f"T{n}", ("a", f"T{n - 1}" if n else "int"), ("b", f"T{n - 1}" if n else "int")) for n in range(levels)
    ]


_TINY = _record("Tiny", ("a", "int"))
_MB = 1_000_000
_ARRAY_OF_TINY = {"type": "array", "items": _TINY}
_STRINGS = {"type": "array", "items": "string"}
_MAP = {"type": "map", "values": "int"}
_ERROR = {"type": "error", "name": "E", "fields": []}

CRAFTED: dict[str, Callable[[], bytes]] = {
    "half of a character": lambda: container(b'"\\ud800"', codec="null"),
    "array of errors": lambda: container(schema({"type": "array", "items": _ERROR}), one(long(2**40)), codec="null"),
    "array of tiny records": lambda: container(schema(_ARRAY_OF_TINY), one(long(7 * _MB) + bytes(7 * _MB + 1))),
    "array of empty texts": lambda: container(schema(_STRINGS), one(long(7 * _MB) + bytes(7 * _MB + 1))),
    "arrays of empty texts": lambda: container(schema(_STRINGS), many(10, long(_MB) + bytes(_MB + 1)), times=40),
    "null arrays": lambda: container(schema(*[["null", _STRINGS]] * 500), many(20_000, bytes(500))),
    "map of empty keys": lambda: container(schema(_MAP), one(long(3 * _MB) + bytes(6 * _MB + 1))),
    "maps of a thousand keys": lambda: container(
        schema(_MAP),
        many(100, long(1_000) + b"".join(b"\x08" + f"{n:04}".encode() + b"\0" for n in range(1_000)) + b"\0"),
        times=50,
    ),
    "one text of 7 MB": lambda: container(schema("string"), one(long(7 * _MB) + b"\1" * (7 * _MB))),
    "one text of 62 MB": lambda: container(schema("string"), one(long(62 * _MB) + bytes(62 * _MB))),
    "texts of 500 KB": lambda: container(schema("string"), many(14, long(500_000) + b"\1" * 500_000), times=20),
    "texts of 500 KB and a map": lambda: container(
        schema("string", _MAP), many(14, long(500_000) + b"\1" * 500_000 + b"\0"), times=20
    ),
    "arrays of a text of 900 KB": lambda: container(
        schema(_STRINGS), many(7, b"\2" + long(900_000) + b"\1" * 900_000 + b"\0"), times=20
    ),
    "maps of a text of 900 KB": lambda: container(
        schema({"type": "map", "values": "string"}),
        many(7, b"\2\2k" + long(900_000) + b"\1" * 900_000 + b"\0"),
        times=20,
    ),
    "large texts among small ones": lambda: container(
        schema("string"), many(4, long(1_000_000) + b"\1" * 1_000_000), many(5_000, b"\2x"), times=20
    ),
    "bytes of 900 KB": lambda: container(schema("bytes"), many(7, long(900_000) + bytes(900_000)), times=20),
    "long names": lambda: container(schema(*[["null", "int"]] * 800, names="n" * 250 + "{}"), many(5_000, bytes(800))),
    "names far too long": lambda: container(schema(["null", "int"], names="n" * 20_000 + "{}"), many(100_000, b"\0")),
    "long names in maps": lambda: container(
        schema({"type": "map", "values": _record("T", *[("n" * 250 + str(n), "int") for n in range(100)])}),
        many(430, b"\2\2k" + bytes(100) + b"\0"),
        times=20,
    ),
    "long symbols": lambda: container(
        schema({"type": "enum", "name": "E", "symbols": ["s" * 256]}, *["E"] * 200), many(10_000, bytes(201)), times=5
    ),
    "symbols far too long": lambda: container(
        schema({"type": "enum", "name": "E", "symbols": ["s" * 20_000]}), many(100_000, b"\0")
    ),
    "thousands of good blocks": lambda: container(schema("string"), many(1_000, b"\2x"), times=5_000),
    "thousands of wide blocks": lambda: container(
        schema(*[["null", "string"]] * 300), many(1_000, bytes(300)), times=2_000
    ),
    "thousands of blocks with maps": lambda: container(schema(_MAP), many(1_000, b"\2\2k\0\0"), times=2_000),
    "thousands of bad blocks": lambda: container(
        schema("string"), (1_000, (_GOOD + b"\2x") * 999 + _GOOD + b"\1"), times=2_000
    ),
    "thousands of blocks of one": lambda: container(schema("int"), one(b"\0"), codec="null", times=100_000),
    "thousands of blocks of none": lambda: container(schema("int"), (0, b""), codec="null", times=500_000),
    "thousands of gaps": lambda: container(schema("int"), (-1, b""), codec="null", times=300_000),
    "blocks that cannot hold their events": lambda: container(schema("int"), (250_000, bytes(7 * _MB)), times=100),
    "bad symbols": lambda: container(
        schema({"type": "enum", "name": "E", "symbols": ["a"]}), many(20_000, b"\2"), times=50
    ),
    "times that are none": lambda: container(
        schema("int"), (25_000, b"\2a\2u\1\2" * 25_000), times=30
    ),
    "thousands of named types": lambda: container(schema(*[_record(f"T{n}", ("a", "int")) for n in range(9_000)])),
    "doubling records": lambda: container(schema(*_doubling(30))),
    "doubling records, few enough": lambda: container(schema(*_doubling(10)), many(2_000, bytes(2 * 1023)), times=10),
    "deep arrays": lambda: container(
        json.dumps(schema("int")).replace('"int"', '{"type":"array","items":' * 20_000).encode()
    ),
    "a very wide record": lambda: container(schema(*["int"] * 4_000), many(2_000, bytes(4_000)), times=20),
    "a name in two thousand fields": lambda: container(
        schema(_TINY, *["Tiny"] * 2_000), many(1_000, bytes(2_001)), times=20
    ),
    "huge decimals": lambda: container(
        schema({"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 999}),
        many(10_000, long(1_000) + b"\x7f" * 1_000),
        times=10,
    ),
    "bombs": lambda: packed_blocks("bzip2", bz2.compress(bytes(45 * _MB)), times=5_000),
    "blocks that are bad at their end": lambda: packed_blocks("bzip2", bz2.compress(bytes(900_000))[:-1], times=5_000),
    "hundreds of blocks too short": lambda: packed_blocks("bzip2", bz2.compress(bytes(8 * _MB)), 250_000, times=5_000),
    "lengths that lie": lambda: packed_blocks("snappy", b"\x80\x80\x80\x04" + b"x" * 9, times=200_000),
    "thousands of fields of bytes": lambda: container(
        schema({"type": "fixed", "name": "F", "size": 4096}, *["F"] * 1500), one(bytes(4096 * 1501)), times=10
    ),
    "large events of thousands of fields": lambda: container(
        schema({"type": "fixed", "name": "F", "size": 100}, *["F"] * 4000), many(20, bytes(100 * 4001)), times=15
    ),
    "headers in a row": lambda: container(schema("int"), one(b"\0"), codec="null") * 20_000,
}  # fmt: skip
