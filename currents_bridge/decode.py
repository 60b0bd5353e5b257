"""From the bytes of one Avro container to columns, in slices of bounded size, as far as they can be read.

`framing` finds the blocks, `decompression` unpacks them within bounds, polars decodes the records. What polars cannot
read goes through fastavro's record decoder. A block that neither reads is lost alone, and counted.
Container format: https://avro.apache.org/docs/1.12.0/specification/#object-container-files
"""

import base64
import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import lru_cache
from itertools import chain
from typing import Any, BinaryIO

import fastavro
import orjson
import polars as pl

from currents_bridge import avro_schema
from currents_bridge.decompression import decompressor
from currents_bridge.errors import BridgeError, QuarantineObjectError
from currents_bridge.framing import MAX_BLOCK_BYTES, MAX_BLOCK_EVENTS, Block, Frames, Gap
from currents_bridge.polars_avro import PolarsReader, Records, polars_reads

SLICE_BYTES = 2 * 1024 * 1024  # decompressed; about 3,000 email clicks. Larger ones cost memory and gain no speed
_MAX_ROWS = 2**32 - 1  # a row is an u32
_CACHED_SCHEMA_BYTES = 32 * 1024  # the longest one of Currents has 30 KB; more is read anew for each file
_CACHED_SCHEMAS = 128  # more than the types of Currents


@dataclass(frozen=True, slots=True)
class Slice:
    """A run of an object's events as columns, one for each field of the file.

    The columns in `json_fields` hold each value's JSON text, null where it is null: maps, records and unions, which no
    column type holds without loss. The set depends on the schema alone, so it is the same for all slices of a file.
    """

    events: pl.DataFrame
    first_row: int  # index of the first event in the object; lost events count where the container tells how many
    json_fields: frozenset[str] = frozenset()
    unreadable: Sequence[tuple[int, str]] = ()  # place among the events -> why it is no good event


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


@dataclass(frozen=True, slots=True)
class Together:
    """The events of several containers of one schema."""

    events: pl.DataFrame
    heights: tuple[int, ...]  # events of each container, in order


class _Schema:
    """What a container's schema tells; shared by all files that have it, so never changed."""

    def __init__(self, text: bytes) -> None:
        self.avro: Any = avro_schema.parse(text)
        if not (isinstance(self.avro, dict) and self.avro.get("type") == "record"):
            raise QuarantineObjectError("the Avro file holds no records")
        self.record_name = str(self.avro["name"])
        self.fields = tuple(str(field["name"]) for field in self.avro["fields"])
        self.polars = PolarsReader(self.avro) if polars_reads(self.avro) else None
        types = {field["name"]: field["type"] for field in self.avro["fields"]}
        self.json_fields = frozenset(name for name, avro_type in types.items() if not _is_plain(avro_type))


def _is_plain(avro_type: Any) -> bool:
    """Whether a column can hold all values of a type: scalars and arrays of them, null or not."""
    match avro_type:
        case [*branches]:
            rest = [branch for branch in branches if branch != "null"]
            return len(rest) <= 1 and all(map(_is_plain, rest))
        case {"type": "array", "items": items}:
            return _is_plain(items)
        case {"type": kind}:
            return kind not in ("map", "record", "error")
        case _:
            return "." not in avro_type  # a full name: of an enum, perhaps, yet mostly of a record


_known_schema = lru_cache(_CACHED_SCHEMAS)(_Schema)


class Container:
    """One Avro object container file, opened for reading.

    Raises QuarantineObjectError for anything that is no container of records, or has a schema that cannot be read
    by without danger. Errors of the stream itself pass through, here and from `slices`.
    """

    def __init__(self, stream: BinaryIO) -> None:
        with _quarantining("not readable as Avro: "):
            self._frames = Frames(stream)
            self.schema_key = self._frames.metadata["avro.schema"]  # equal in containers that hold the same columns
            schema_of = _known_schema if len(self.schema_key) <= _CACHED_SCHEMA_BYTES else _Schema
            self._schema = schema_of(self.schema_key)
            self._decompress = decompressor(self._frames.metadata.get("avro.codec", b"null").decode())
        self.record_name = self._schema.record_name
        self.fields = self._schema.fields
        self.json_fields = self._schema.json_fields
        self.damage = Damage()  # grows while slices are read
        self._blocks_read = 0
        self._ahead: list[Block | Gap] = []  # what `decode_together` has taken off the stream

    def slices(self, slice_bytes: int = SLICE_BYTES, *, skip_rows: int = 0) -> Iterator[Slice]:
        """Yield all readable events in order; raise QuarantineObjectError behind the last where any was lost.

        A slice holds whole blocks, at least one, up to `slice_bytes` where it can. The events before row `skip_rows`
        are left out; their blocks are not unpacked, so damage in them is not seen again: go on from a row only if
        there was no damage up to it. Behind a lost block rows go on by the count that it tells, else as if it were
        empty, so they are the same each time.
        """
        pending: list[_Unpacked] = []
        pending_bytes = pending_rows = row = 0
        for block in chain(self._ahead, self._frames):
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

    def _read_ahead(self, max_bytes: int) -> Records | None:
        """Return all records; None where there are more bytes, or damage. `slices` finds everything as it was."""
        if self._ahead:
            return None
        unpacked: list[_Unpacked] = []
        for block in self._frames:
            self._ahead.append(block)
            records = self._unpacked(block, 0) if isinstance(block, Block) else None
            max_bytes -= len(records.content) if records else 0
            if records is None or max_bytes < 0:
                self.damage = Damage()
                return None
            unpacked.append(records)
        return _run(unpacked)

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
            yield Slice(events.slice(skipped), first_row + skipped, self.json_fields)
        elif len(pending) > 1:
            half = len(pending) // 2
            yield from self._decoded(pending[:half], skip_rows)
            yield from self._decoded(pending[half:], skip_rows)
        else:
            self.damage.add(pending[0].block.rows, pending[0].block.offset_bytes, reason=events)

    def _events(self, blocks: Sequence[_Unpacked]) -> pl.DataFrame | str:
        """Return the events of blocks, or why one of them cannot be read."""
        readers: list[Callable[[Sequence[_Unpacked]], pl.DataFrame]] = []
        if polars := self._schema.polars:
            readers.append(lambda blocks: polars.read([_run(blocks)]))
        if not polars or len(blocks) == 1:  # a limit of polars, perhaps: the slower decoder has the last word
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
            records += [
                fastavro.schemaless_reader(content, self._schema.avro, None) for _ in range(unpacked.block.rows)
            ]
            if content.read(1):
                raise ValueError("a block holds more than its events")
        columns = {name: [record[name] for record in records] for name in self.fields}
        return pl.DataFrame(
            [(_json_column if name in self.json_fields else _column)(name, values) for name, values in columns.items()]
        )


def _run(blocks: Sequence[_Unpacked]) -> Records:
    return Records(sum(one.block.rows for one in blocks), [one.content for one in blocks])


def decode_together(containers: Sequence[Container], max_bytes: int = SLICE_BYTES) -> Together | None:
    """Return the events of small containers that nobody has read from, decoded in one go: half the cost or less.

    None where it cannot be, and then each container still gives all by `slices`: their schemas (`schema_key`) differ
    or polars cannot read them, they unpack to more than `max_bytes`, or anything at all in one of them is not as it
    should be. Errors of a stream pass through without telling whose they are, so fetch the objects before.
    """
    schema = containers[0]._schema  # noqa: SLF001 - a container's own module
    if not schema.polars or any(one.schema_key != containers[0].schema_key for one in containers):
        return None
    runs: list[Records] = []
    room_bytes = max_bytes
    for container in containers:
        run = container._read_ahead(room_bytes)  # noqa: SLF001
        if run is None:
            return None
        room_bytes -= sum(map(len, run.pieces))
        runs.append(run)
    heights = tuple(run.rows for run in runs)
    if sum(heights) > MAX_BLOCK_EVENTS:
        return None
    try:
        with _quarantining():
            return Together(schema.polars.read(runs), heights)
    except QuarantineObjectError:
        return None


def _column(name: str, values: list[Any]) -> pl.Series:
    """Return a column of decoded Avro values; values of several types become text, so that none is lost."""
    plain = [_plain(value) for value in values]
    try:
        return pl.Series(name, plain, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        texts = [v if v is None or isinstance(v, str) else orjson.dumps(v).decode() for v in plain]
        return pl.Series(name, texts, dtype=pl.String)


def _json_column(name: str, values: list[Any]) -> pl.Series:
    texts = [None if value is None else orjson.dumps(_plain(value)).decode() for value in values]
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
