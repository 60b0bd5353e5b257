"""Decoding Avro records one by one and strictly: slower than polars by far, for what polars cannot read or doubts.

A value that is not what its type allows costs its record, as long as it is certain where the value ends. Where that is
not certain, nothing that follows can be found, so the whole block is lost. Texts that are no UTF-8 are read as well as
they can be, and logical values that no date, time or number can hold as the number or the bytes that they are made of.
Encoding: https://avro.apache.org/docs/1.12.0/specification/#binary-encoding
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

from currents_bridge.avro.allowance import MAX_EVENT_BYTES
from currents_bridge.avro.logical import as_base64, logical_reading
from currents_bridge.avro.schema import AvroType

MAX_SHORTENED_CHARS = 1_000  # of a text in an event that is too large
VALUE_BYTES = 96  # of memory that a decoded value takes, beside its text

_VARINT_BITS = 70  # of ten bytes
_LIMITS = {"int": 2**31, "long": 2**63}
_DTYPES: dict[str, type[pl.DataType]] = {
    "null": pl.Null,
    "boolean": pl.Boolean,
    "int": pl.Int32,
    "long": pl.Int64,
    "float": pl.Float32,
    "double": pl.Float64,
}
_FLOAT = struct.Struct("<f")
_DOUBLE = struct.Struct("<d")


class LostError(ValueError):
    """It is not certain where a record ends."""


@dataclass(slots=True)
class _Cursor:
    """A place in a block."""

    content: bytes
    room_bytes: int  # of memory, for what is still to be decoded
    at: int = 0
    fault: str = ""  # why a value is not good

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        end = self.at + count
        if count < 0 or end > len(self.content):
            raise LostError(f"a value of {count} bytes where {len(self.content) - self.at} are left")
        taken = self.content[self.at : end]
        self.at = end
        return taken

    def spend(self, memory_bytes: int) -> None:
        """Count memory before it is taken."""
        self.room_bytes -= memory_bytes
        if self.room_bytes < 0:
            raise LostError("a block holds too many values for its size")


_Read = Callable[[_Cursor], Any]


@dataclass(frozen=True, slots=True)
class Decoded:
    """Records as columns; of an unreadable one the values that could not be read are null."""

    events: pl.DataFrame
    unreadable: Sequence[tuple[int, str]] = ()  # place among the events, and why
    memory_bytes: int = 0  # that decoding took, about


class RecordReader:
    """Decodes records of one type; fields that are not plain become JSON texts. Thread-safe."""

    def __init__(self, schema: AvroType) -> None:
        self.schema = schema
        columns, texts = _Readers(in_column=True), _Readers(in_column=False)
        named = zip(schema.names, schema.parts, strict=True)
        self._fields = [
            (name, part, columns.of(part) if part.plain else _as_json(texts.of(part))) for name, part in named
        ]
        self._row_bytes = sum(map(_memory_bytes, schema.parts))

    def read(self, rows: int, content: bytes, room_bytes: int) -> Decoded:
        """Return `rows` records; raises LostError where the content is not theirs, or they take too much memory."""
        cursor = _Cursor(content, room_bytes)
        cursor.spend(rows * self._row_bytes)
        columns: list[list[Any]] = [[] for _ in self._fields]
        steps = [(name, column.append, read) for (name, _, read), column in zip(self._fields, columns, strict=True)]
        faults: dict[int, str] = {}
        for row in range(rows):
            start = cursor.at
            for name, append, read in steps:
                append(read(cursor))
                if cursor.fault:
                    faults.setdefault(row, f"{name}: {cursor.fault}")
                    cursor.fault = ""
            if cursor.at - start > MAX_EVENT_BYTES:
                faults[row] = f"an event of {cursor.at - start} bytes; Braze makes none of more than 900 KB"
                for (_, part, _), column in zip(self._fields, columns, strict=True):
                    column[-1] = _shortened(column[-1]) if part.plain else None
        if cursor.at != len(content):
            raise LostError("a block holds more than its events")
        # a dictionary, since in a list polars would rename a column without a name
        events = {
            name: pl.Series(column, dtype=_dtype(part))
            for (name, part, _), column in zip(self._fields, columns, strict=True)
        }
        return Decoded(pl.DataFrame(events), list(faults.items()), room_bytes - cursor.room_bytes)


def _shortened(value: Any) -> Any:
    """Return a value that is of no use but to be recognised by."""
    match value:
        case str():
            return value[:MAX_SHORTENED_CHARS]
        case list():
            return None
        case _:
            return value


def _memory_bytes(avro_type: AvroType) -> int:
    """Return what a value takes in memory at most, beside texts and what is in arrays and maps."""
    match avro_type.kind:
        case "record":
            return VALUE_BYTES + sum(map(_memory_bytes, avro_type.parts))
        case "union":
            return max(map(_memory_bytes, avro_type.parts), default=0)
        case "enum":
            return VALUE_BYTES + max(map(len, avro_type.names), default=0)
        case _:
            return VALUE_BYTES


def _as_json(read: _Read) -> _Read:
    """Return the function that reads a value as its JSON text, in which a byte may take six."""

    def read_text(cursor: _Cursor) -> str | None:
        value = read(cursor)
        if value is None:
            return None
        text = orjson.dumps(value)
        if len(text) > MAX_EVENT_BYTES:
            cursor.fault = f"{len(text)} bytes of JSON"
            return None
        cursor.spend(len(text))
        return text.decode()

    return read_text


def _dtype(avro_type: AvroType) -> pl.DataType | type[pl.DataType]:
    """Return the column type of a field: of JSON texts, where the values are not plain."""
    if not avro_type.plain:
        return pl.String
    for value in avro_type.values:
        if value.kind == "array":
            return pl.List(_dtype(value.parts[0]))
        return pl.String if logical_reading(value, in_column=True) else _DTYPES.get(value.kind, pl.String)
    return pl.Null


class _Readers:
    """The functions that read values: one for each type, however often it is named."""

    def __init__(self, *, in_column: bool) -> None:
        self._in_column = in_column
        self._made: dict[AvroType, _Read] = {}

    def of(self, avro_type: AvroType) -> _Read:
        """Return the function that reads a value of the type."""
        if avro_type not in self._made:
            parts = [self.of(part) for part in avro_type.parts]
            self._made[avro_type] = _make_reader(avro_type, parts, in_column=self._in_column)
        return self._made[avro_type]


def _make_reader(avro_type: AvroType, parts: Sequence[_Read], *, in_column: bool) -> _Read:
    match avro_type.kind:
        case "record":
            return _record(avro_type.names, parts)
        case "union":
            return _union(parts)
        case "array":
            return _array(parts[0], _memory_bytes(avro_type.parts[0]), avro_type.parts[0].smallest)
        case "map":
            return _map(parts[0], VALUE_BYTES + _memory_bytes(avro_type.parts[0]))
        case "enum":
            return _enum(avro_type.names)
        case "int" | "long":
            read: _Read = _integer(avro_type.kind)
        case "fixed":
            read = _fixed(avro_type.size_bytes)
        case kind:
            read = _SCALARS[kind]
    as_value = logical_reading(avro_type, in_column=in_column) or (
        as_base64 if avro_type.kind in ("bytes", "fixed") else None
    )
    return (lambda cursor: as_value(read(cursor))) if as_value else read


def _varint(cursor: _Cursor) -> int:
    """Return a number of any size; those that fit in 64 bits take ten bytes at most."""
    content, at = cursor.content, cursor.at
    try:
        byte = content[at]
        value = byte & 127
        shift = 7
        while byte > 127:  # noqa: PLR2004 - the bit that says that more follow
            at += 1
            byte = content[at]
            value |= (byte & 127) << shift
            shift += 7
            if shift > _VARINT_BITS:
                raise LostError("a number of more than ten bytes")
    except IndexError:
        raise LostError("a block ends in a number") from None
    cursor.at = at + 1
    return (value >> 1) ^ -(value & 1)


def _integer(kind: str) -> _Read:
    limit = _LIMITS[kind]

    def read(cursor: _Cursor) -> int | None:
        value = _varint(cursor)
        if -limit <= value < limit:
            return value
        cursor.fault = f"{value} is no {kind}"
        return None

    return read


def _boolean(cursor: _Cursor) -> bool | None:
    byte = cursor.take(1)[0]
    if byte > 1:
        cursor.fault = f"a boolean of byte {byte}"
        return None
    return byte == 1


def _text(cursor: _Cursor) -> str:
    return cursor.take(_varint(cursor)).decode("utf-8", "replace")


def _bytes(cursor: _Cursor) -> bytes:
    return cursor.take(_varint(cursor))


_SCALARS: dict[str, _Read] = {
    "null": lambda _: None,
    "boolean": _boolean,
    "float": lambda cursor: _FLOAT.unpack(cursor.take(4))[0],
    "double": lambda cursor: _DOUBLE.unpack(cursor.take(8))[0],
    "bytes": _bytes,
    "string": _text,
}


def _fixed(size_bytes: int) -> _Read:
    return lambda cursor: cursor.take(size_bytes)


def _enum(symbols: Sequence[str]) -> _Read:
    def read(cursor: _Cursor) -> str | None:
        index = _varint(cursor)
        if 0 <= index < len(symbols):
            return symbols[index]
        cursor.fault = f"symbol {index} of an enum of {len(symbols)}"
        return None

    return read


def _union(branches: Sequence[_Read]) -> _Read:
    def read(cursor: _Cursor) -> Any:
        index = _varint(cursor)
        if 0 <= index < len(branches):
            return branches[index](cursor)
        raise LostError(f"branch {index} of a union of {len(branches)}")

    return read


def _record(names: Sequence[str], fields: Sequence[_Read]) -> _Read:
    named = list(zip(names, fields, strict=True))

    def read(cursor: _Cursor) -> dict[str, Any]:
        values = {name: read(cursor) for name, read in named}
        return {name: value for name, value in values.items() if value is not None}

    return read


def _entries(cursor: _Cursor, smallest: int, memory_bytes: int) -> int:
    """Return how many items or entries the next part of an array or map has; 0 at its end."""
    count = _varint(cursor)
    if count < 0:
        count = -count
        _varint(cursor)  # the part's size in bytes, for readers that skip it
    if count * smallest > len(cursor.content) - cursor.at:
        raise LostError(f"an array or map says that it has {count} values")
    cursor.spend(count * memory_bytes)
    return count


def _array(item: _Read, memory_bytes: int, smallest: int) -> _Read:
    def read(cursor: _Cursor) -> list[Any]:
        items: list[Any] = []
        while count := _entries(cursor, smallest, memory_bytes):
            items += [item(cursor) for _ in range(count)]
        return items

    return read


def _map(value: _Read, memory_bytes: int) -> _Read:
    def read(cursor: _Cursor) -> dict[str, Any]:
        entries: dict[str, Any] = {}
        while count := _entries(cursor, 1, memory_bytes):
            for _ in range(count):
                key = _text(cursor)
                entries[key] = value(cursor)
        return entries

    return read
