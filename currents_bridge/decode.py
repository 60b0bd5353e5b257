"""From the bytes of one Avro container to columns, in slices of bounded size.

fastavro frames the container (header, schema, codec, sync markers) and decompresses; polars decodes the records.
Schemas that polars cannot read go through fastavro's record decoder instead.
Container format: https://avro.apache.org/docs/1.12.0/specification/#object-container-files
"""

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, BinaryIO

import fastavro
import orjson
import polars as pl

from currents_bridge.errors import BridgeError, QuarantineObjectError

SLICE_BYTES = 2 * 1024 * 1024  # decompressed; about 3,000 email clicks. Larger ones cost memory and gain no speed
_SYNC = bytes(16)
# polars 2.1 raises or panics on every other type (maps, enums with odd symbols, real unions, null, logical types)
_POLARS_TYPES = frozenset({"string", "int", "long", "float", "double", "boolean"})


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of an object's events as columns, one for each field of the file."""

    events: pl.DataFrame
    first_row: int  # index of the first event in the object


class Container:
    """One Avro object container file, opened for reading.

    Raises QuarantineObjectError, here and from `slices`, for anything that is no readable container of records.
    Errors of the stream itself (BridgeError) pass through.
    """

    def __init__(self, stream: BinaryIO) -> None:
        with _unreadable():
            self._blocks = fastavro.block_reader(stream)
            self.schema: Any = self._blocks.writer_schema
        if not (isinstance(self.schema, dict) and self.schema.get("type") == "record"):
            raise QuarantineObjectError("the Avro file holds no records")
        self.record_name = ".".join(filter(None, (self.schema.get("namespace"), str(self.schema.get("name", "")))))
        self.fields = tuple(str(field["name"]) for field in self.schema.get("fields", ()))

    def slices(self, slice_bytes: int = SLICE_BYTES) -> Iterator[Slice]:
        """Yield all events in order; a slice holds whole blocks, at least one, up to `slice_bytes` where it can."""
        first_row = 0
        for blocks in self._block_runs(slice_bytes):
            rows = sum(block.num_records for block in blocks)
            with _unreadable():
                events = self._decode(blocks)
            if events.height != rows:
                raise QuarantineObjectError(f"blocks promise {rows} events and hold {events.height}")
            yield Slice(events, first_row)
            first_row += rows

    def _block_runs(self, slice_bytes: int) -> Iterator[list[Any]]:
        run: list[Any] = []
        run_bytes = 0
        blocks = iter(self._blocks)
        while True:
            with _unreadable():
                block = next(blocks, None)
                if block is not None:
                    size_bytes = _checked_size(block, fields=len(self.fields))
            if block is None:
                break
            if run and run_bytes + size_bytes > slice_bytes:
                yield run
                run, run_bytes = [], 0
            run.append(block)
            run_bytes += size_bytes
        if run:
            yield run

    def _decode(self, blocks: Sequence[Any]) -> pl.DataFrame:
        if polars_reads(self.schema):
            try:
                return pl.read_avro(_container(self.schema, blocks))
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
                pass  # damaged, or a limit of polars: the slower decoder has the last word
        records = [record for block in blocks for record in block]
        return pl.DataFrame([_column(name, [record[name] for record in records]) for name in self.fields])


def polars_reads(schema: Any) -> bool:
    """Whether polars decodes a record of this schema faithfully: plain, nullable and array fields only."""

    def readable(avro_type: Any) -> bool:
        match avro_type:
            case str():
                return avro_type in _POLARS_TYPES
            case [one, other]:
                return "null" in (one, other) and readable(other if one == "null" else one)
            case {"type": "array", "items": items}:
                return readable(items)
            case {"type": str() as name, **rest}:
                return name in _POLARS_TYPES and "logicalType" not in rest
            case _:
                return False

    fields = schema.get("fields", ())
    names = [field["name"] for field in fields]
    return bool(fields) and len(set(names)) == len(names) and all(readable(field["type"]) for field in fields)


def _checked_size(block: Any, *, fields: int) -> int:
    """Return the block's decompressed size in bytes; refuse a record count that cannot be in so few bytes."""
    size_bytes: int = block.bytes_.getbuffer().nbytes
    if not 0 <= block.num_records * fields <= size_bytes:  # each field of a record takes a byte or more
        raise QuarantineObjectError(f"a block of {size_bytes} bytes cannot hold {block.num_records} events")
    return size_bytes


def _container(schema: Any, blocks: Sequence[Any]) -> io.BytesIO:
    """Return the blocks as one uncompressed container of one block, for polars."""
    payloads = [block.bytes_.getbuffer() for block in blocks]
    out = io.BytesIO()
    out.write(b"Obj\x01")
    metadata = {"avro.schema": json.dumps(schema).encode(), "avro.codec": b"null"}
    fastavro.schemaless_writer(out, {"type": "map", "values": "bytes"}, metadata)
    out.write(_SYNC)
    fastavro.schemaless_writer(out, "long", sum(block.num_records for block in blocks))
    fastavro.schemaless_writer(out, "long", sum(payload.nbytes for payload in payloads))
    out.writelines(payloads)
    out.write(_SYNC)
    out.seek(0)
    return out


def _column(name: str, values: list[Any]) -> pl.Series:
    """Return a column of decoded Avro values; values of several types become text, so that none is lost."""
    plain = [_plain(value) for value in values]
    try:
        return pl.Series(name, plain, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        texts = [v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in plain]
        return pl.Series(name, texts, dtype=pl.String)


def _plain(value: Any) -> Any:
    """Return an Avro value, also of a logical type, as what JSON can say."""
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes():
            return base64.b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case Mapping():
            return {str(k): _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case _:  # Decimal, UUID
            return str(value)


class _unreadable:  # noqa: N801 - reads as a statement
    """Turns whatever a decoder raises about hostile bytes into QuarantineObjectError; BridgeError passes."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if error is None or isinstance(error, BridgeError):
            return
        # a polars panic is a BaseException; of its kin only real interrupts may pass
        if isinstance(error, Exception | pl.exceptions.PanicException):
            reason = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
            raise QuarantineObjectError(f"not readable as Avro: {reason}") from error
