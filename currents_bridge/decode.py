"""From the bytes of one Avro container to columns, in slices of bounded size, as far as they can be read.

`framing` finds the blocks, `decompression` unpacks them within bounds, polars decodes the records. What polars cannot
read goes through fastavro's record decoder. A block that neither reads is lost alone, and counted.
Container format: https://avro.apache.org/docs/1.12.0/specification/#object-container-files
"""

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from typing import Any, BinaryIO

import fastavro
import orjson
import polars as pl

from currents_bridge import avro_schema
from currents_bridge.decompression import decompressor
from currents_bridge.errors import BridgeError, QuarantineObjectError
from currents_bridge.framing import MAX_BLOCK_BYTES, MAX_BLOCK_EVENTS, Block, Frames

SLICE_BYTES = 2 * 1024 * 1024  # decompressed; about 3,000 email clicks. Larger ones cost memory and gain no speed
_MAX_ROWS = 2**32 - 1  # a row is an u32
_SYNC = bytes(16)
# polars 2.1 raises or panics on every other type (maps, enums with odd symbols, real unions, null, logical types)
_POLARS_TYPES = frozenset({"string", "int", "long", "float", "double", "boolean"})


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of an object's events as columns, one for each field of the file."""

    events: pl.DataFrame
    first_row: int  # index of the first event in the object; lost events count where the container tells how many


@dataclass(slots=True)
class Damage:
    """What of a container could not be read; false where nothing is lost."""

    blocks: int = 0  # a stretch without a readable frame counts as one
    events: int = 0  # in those of them whose count the container tells
    uncounted: int = 0  # the others
    first: str = ""  # where, and why

    def __bool__(self) -> bool:
        return self.blocks > 0

    def add(self, rows: int | None, offset_bytes: int, reason: str) -> None:
        """Count one lost block."""
        self.first = self.first or f"at byte {offset_bytes}: {reason}"
        self.blocks += 1
        self.events += rows or 0
        self.uncounted += rows is None


@dataclass(slots=True)
class _Unpacked:
    """A block's records, unpacked."""

    block: Block
    content: bytes | memoryview
    first_row: int


class Container:
    """One Avro object container file, opened for reading.

    Raises QuarantineObjectError for anything that is no container of records, or has a schema that cannot be read
    by without danger. Errors of the stream itself pass through, here and from `slices`.
    """

    def __init__(self, stream: BinaryIO) -> None:
        with _quarantining("not readable as Avro: "):
            self._frames = Frames(stream)
            self.schema: Any = avro_schema.parse(self._frames.metadata["avro.schema"])
            self._decompress = decompressor(self._frames.metadata.get("avro.codec", b"null").decode())
        if not (isinstance(self.schema, dict) and self.schema.get("type") == "record"):
            raise QuarantineObjectError("the Avro file holds no records")
        self.record_name = str(self.schema["name"])
        self.fields = tuple(str(field["name"]) for field in self.schema["fields"])
        self.damage = Damage()  # grows while slices are read
        self._blocks_read = 0
        with _quarantining("not readable as Avro: "):
            self._polars = _PolarsReader(self.schema) if polars_reads(self.schema) else None

    def slices(self, slice_bytes: int = SLICE_BYTES, *, skip_rows: int = 0) -> Iterator[Slice]:
        """Yield all readable events in order; raise QuarantineObjectError behind the last where any was lost.

        A slice holds whole blocks, at least one, up to `slice_bytes` where it can. The events before row `skip_rows`
        are left out; their blocks are not unpacked, so damage in them is not seen again: go on from a row only if
        there was no damage up to it. Behind a lost block rows go on by the count that it tells, else as if it were
        empty, so they are the same each time.
        """
        pending: list[_Unpacked] = []
        pending_bytes = pending_rows = row = 0
        for block in self._frames:
            first_row, row = row, row + (block.rows or 0)
            if row > _MAX_ROWS:
                raise QuarantineObjectError(f"the blocks promise more than {_MAX_ROWS} events")
            unpacked = None
            if not isinstance(block, Block):
                self.damage.add(block.rows, block.offset_bytes, block.reason)
            elif row > skip_rows:
                unpacked = self._unpacked(block, first_row)
            else:
                self._blocks_read += 1
            added_bytes = len(unpacked.content) if unpacked else 0
            full = pending_bytes + added_bytes > slice_bytes or pending_rows + (block.rows or 0) > MAX_BLOCK_EVENTS
            if pending and (unpacked is None or full):
                yield from self._decoded(pending, skip_rows)
                pending, pending_bytes, pending_rows = [], 0, 0
            if unpacked:
                pending.append(unpacked)
                pending_bytes += added_bytes
                pending_rows += unpacked.block.rows
        if pending:
            yield from self._decoded(pending, skip_rows)
        if self.damage:
            raise QuarantineObjectError(self.damage_summary())

    def damage_summary(self) -> str:
        """Say how much is missing, e.g. `2 of 40 blocks are unreadable (160 events); first at byte 1234: why`."""
        damage = self.damage
        events = f"{damage.events} events"
        if damage.uncounted:
            events += f", and an unknown number in {damage.uncounted} of them"
        verb = "is" if damage.blocks == 1 else "are"
        total = damage.blocks + self._blocks_read
        return f"{damage.blocks} of {total} blocks {verb} unreadable ({events}); first {damage.first}"

    def _unpacked(self, block: Block, first_row: int) -> _Unpacked | None:
        try:
            records = self._decompress(block.content, MAX_BLOCK_BYTES)
        except MemoryError:
            raise
        except Exception as error:  # noqa: BLE001 - each codec has its own; a `with` for each block would be felt
            self.damage.add(block.rows, block.offset_bytes, _reason(error))
            return None
        if block.rows * max(len(self.fields), 1) > len(records):  # a field takes a byte or more, nearly always
            reason = f"a block of {len(records)} bytes cannot hold {block.rows} events"
            self.damage.add(None, block.offset_bytes, reason)
            return None
        return _Unpacked(block, records, first_row)

    def _decoded(self, pending: Sequence[_Unpacked], skip_rows: int) -> Iterator[Slice]:
        """Yield what can be read of consecutive blocks: all at once, or else halves of them, down to the bad ones."""
        events = self._events(pending)
        if isinstance(events, pl.DataFrame):
            self._blocks_read += len(pending)
            first_row = pending[0].first_row
            skipped = max(skip_rows - first_row, 0)
            yield Slice(events.slice(skipped), first_row + skipped)
        elif len(pending) > 1:
            half = len(pending) // 2
            yield from self._decoded(pending[:half], skip_rows)
            yield from self._decoded(pending[half:], skip_rows)
        else:
            self.damage.add(pending[0].block.rows, pending[0].block.offset_bytes, reason=events)

    def _events(self, blocks: Sequence[_Unpacked]) -> pl.DataFrame | str:
        """Return the events of blocks, or why one of them cannot be read."""
        readers = [self._polars.read] if self._polars else []
        if not self._polars or len(blocks) == 1:  # a limit of polars, perhaps: the slower decoder has the last word
            readers.append(self._by_fastavro)
        reasons = []
        for read in readers:
            try:
                with _quarantining():
                    return read(blocks)
            except QuarantineObjectError as error:
                reasons.append(error.reason)
        return reasons[0]

    def _by_fastavro(self, pending: Sequence[_Unpacked]) -> pl.DataFrame:
        records: list[Any] = []
        for unpacked in pending:
            content = io.BytesIO(unpacked.content)
            records += [fastavro.schemaless_reader(content, self.schema, None) for _ in range(unpacked.block.rows)]
            if content.read(1):
                raise ValueError("a block holds more than its events")
        return pl.DataFrame([_column(name, [record[name] for record in records]) for name in self.fields])


class _PolarsReader:
    """Decodes blocks of one schema, as one container of one uncompressed block for each call.

    polars does not say whether it has read all of a block. So a known record is appended: if it does not come out
    as it went in, the records before it have other lengths than they should.
    """

    def __init__(self, schema: Any) -> None:
        self._last = {field["name"]: _sample(field["type"]) for field in schema["fields"]}
        last = io.BytesIO()
        fastavro.schemaless_writer(last, schema, self._last)
        self._last_bytes = last.getvalue()
        plain = {name: value for name, value in schema.items() if not name.startswith("__")}
        head = io.BytesIO()
        head.write(b"Obj\x01")
        metadata = {"avro.schema": json.dumps(plain).encode(), "avro.codec": b"null"}
        fastavro.schemaless_writer(head, {"type": "map", "values": "bytes"}, metadata)
        head.write(_SYNC)
        self._head = head.getvalue()

    def read(self, pending: Sequence[_Unpacked]) -> pl.DataFrame:
        """Return the events; raises ValueError, or what polars raises, where a block does not hold its events."""
        rows = sum(unpacked.block.rows for unpacked in pending)
        head = io.BytesIO()
        fastavro.schemaless_writer(head, "long", rows + 1)
        fastavro.schemaless_writer(
            head, "long", sum(len(unpacked.content) for unpacked in pending) + len(self._last_bytes)
        )
        parts = [self._head, head.getvalue(), *(unpacked.content for unpacked in pending), self._last_bytes, _SYNC]
        events = pl.read_avro(io.BytesIO(b"".join(parts)))
        if events.height != rows + 1 or events.row(-1, named=True) != self._last:
            raise ValueError("the records of a block do not fit the schema")
        return events.head(rows)


def _sample(avro_type: Any) -> Any:
    """Return a value of a type that `polars_reads`, never one that is written as zeros only."""
    match avro_type:
        case [one, other]:
            return _sample(other if one == "null" else one)
        case {"type": "array", "items": items}:
            return [_sample(items)]
        case {"type": name}:
            return _sample(name)
        case _:
            return {"string": "~", "boolean": True, "float": 1.0, "double": 1.0}.get(avro_type, 1)


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


@contextmanager
def _quarantining(what: str = "") -> Iterator[None]:
    """Turn whatever a decoder raises about hostile bytes into QuarantineObjectError; BridgeError passes.

    So do errors of the machine: what does not fit into memory now may do so elsewhere.
    """
    try:
        yield
    except (BridgeError, MemoryError):
        raise
    except (Exception, pl.exceptions.PanicException) as error:  # a panic is a BaseException
        raise QuarantineObjectError(what + _reason(error)) from error


def _reason(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
