"""From the bytes of one Avro container to columns, in slices of bounded size, as far as they can be read.

`framing` finds the blocks, `decompression` unpacks them, polars decodes the records. What polars cannot read goes
through the strict decoder of `avro_records`, record by record: an event that it cannot read is named as such, a block
that neither reads is lost alone, and counted. `allowance` bounds what all this may cost.
Container format: https://avro.apache.org/docs/1.12.0/specification/#object-container-files
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate, chain
from typing import BinaryIO

import polars as pl

from currents_bridge.avro import allowance
from currents_bridge.avro import schema as avro_schema
from currents_bridge.avro.allowance import Allowance
from currents_bridge.avro.codecs import UnpackError, decompressor
from currents_bridge.avro.framing import MAX_BLOCK_EVENTS, Block, Frames, Gap
from currents_bridge.avro.polars_reader import PolarsReader, Records, polars_reads
from currents_bridge.avro.records import Decoded, RecordReader
from currents_bridge.errors import BridgeError, QuarantineObjectError

SLICE_BYTES = 2 * 1024 * 1024  # decompressed; about 3,000 email clicks. Larger ones cost memory and gain no speed
_MAX_JSON_BYTES = 4 * SLICE_BYTES  # that a slice may become: a field of no bytes has a name in each message
_TOGETHER_MEMORY_BYTES = 16 * 1024 * 1024  # of events that were decoded one by one
_LARGE_EVENT_BYTES = 32 * 1024  # few messages that Segment takes come of such events; JSON may be six times as long
_MAX_LARGE_JSON_BYTES = 1024 * 1024
_FIELD_JSON_BYTES = 16  # beside the field's name and its text
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
        self.avro = avro_schema.parse(text)
        if self.avro.kind != "record":
            raise QuarantineObjectError("the Avro file holds no records")
        self.fields = tuple(self.avro.names)
        types = dict(zip(self.fields, self.avro.parts, strict=True))
        self.json_fields = frozenset(name for name, avro_type in types.items() if not avro_type.plain)
        self._has_arrays = any(value.kind == "array" for avro_type in types.values() for value in avro_type.values)
        self.row_json_bytes = sum(map(len, self.fields)) + _FIELD_JSON_BYTES * len(self.fields)
        self.polars = PolarsReader(self.avro) if polars_reads(self.avro) else None
        self.records = RecordReader(self.avro)

    def columns_hold(self, unpacked: _Unpacked) -> bool:
        """Whether a block may become columns at once: each of its values takes memory, however few bytes it has."""
        packed_bytes, content_bytes = len(unpacked.block.content), len(unpacked.content)
        cells = unpacked.block.rows * len(self.fields)
        return allowance.columns_hold(cells, content_bytes if self._has_arrays else 0, packed_bytes)

    def rows_at_once(self, rows: int, content_bytes: int) -> int:
        """Return how many events may be mapped at once, of so many that take so many bytes."""
        large = content_bytes > rows * _LARGE_EVENT_BYTES
        row_bytes = content_bytes // max(rows, 1) + self.row_json_bytes + 1
        return max((_MAX_LARGE_JSON_BYTES if large else _MAX_JSON_BYTES) // row_bytes, 1)


_known_schema = lru_cache(_CACHED_SCHEMAS)(_Schema)


class Container:
    """One Avro object container file, opened for reading.

    Raises QuarantineObjectError for anything that is no container of records, or has a schema that cannot be read
    by without danger. Errors of the stream itself pass through, here and from `slices`.
    """

    def __init__(self, stream: BinaryIO) -> None:
        with _quarantining("not readable as Avro: "):
            self._frames = Frames(stream)
            if "avro.schema" not in self._frames.metadata:
                raise ValueError("its header has no schema")
            self.schema_key = self._frames.metadata["avro.schema"]  # equal in containers that hold the same columns
            schema_of = _known_schema if len(self.schema_key) <= _CACHED_SCHEMA_BYTES else _Schema
            self._schema = schema_of(self.schema_key)
            codec = self._frames.metadata.get("avro.codec", b"").decode("utf-8", "replace")
            self._decompress = decompressor(codec.strip().lower() or "null")
        self.record_name = self._schema.avro.name
        self.fields = self._schema.fields
        self.json_fields = self._schema.json_fields
        self.damage = Damage()  # grows while slices are read
        self._blocks_read = 0
        self._allowance = Allowance()
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
            self._allowance.count_block()
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
                self.damage, self._allowance = Damage(), Allowance()
                return None
            unpacked.append(records)
        return _run(unpacked)

    def _unpacked(self, block: Block, first_row: int) -> _Unpacked | None:
        if not block.rows and not block.content:
            return _Unpacked(block, b"", first_row)  # a writer's last block, perhaps, that no codec has touched
        packed_bytes = len(block.content)
        try:
            records = self._decompress(block.content, self._allowance.block_bytes(packed_bytes))
        except UnpackError as error:
            self.damage.add(block.rows, block.offset_bytes, _reason(error))
            self._allowance.add(packed_bytes, error.unpacked_bytes, 0, 0)
            return None
        if block.rows * max(self._schema.avro.smallest, 1) > len(records):
            reason = f"a block of {len(records)} bytes cannot hold {block.rows} events"
            self.damage.add(None, block.offset_bytes, reason)
            self._allowance.add(packed_bytes, len(records), 0, 0)
            return None
        self._allowance.add(packed_bytes, len(records), block.rows, len(self.fields))
        return _Unpacked(block, records, first_row)

    def _decoded(self, pending: Sequence[_Unpacked], skip_rows: int) -> Iterator[Slice]:
        """Yield what can be read of consecutive blocks: all at once, or else halves of them, down to single blocks."""
        events = self._by_polars(pending)
        if events is not None:
            self._blocks_read += len(pending)
            content_bytes = sum(len(one.content) for one in pending)
            yield from self._sliced(Decoded(events), pending[0].first_row, content_bytes, skip_rows)
        elif self._schema.polars and len(pending) > 1:
            half = len(pending) // 2
            yield from self._decoded(pending[:half], skip_rows)
            yield from self._decoded(pending[half:], skip_rows)
        else:
            yield from self._one_by_one(pending, skip_rows)

    def _by_polars(self, blocks: Sequence[_Unpacked]) -> pl.DataFrame | None:
        """Return the events of blocks; None where polars cannot read one of them, or would take too much memory."""
        polars = self._schema.polars
        if not polars or (len(blocks) == 1 and not self._schema.columns_hold(blocks[0])):
            return None
        try:
            with _quarantining():
                events = polars.read([_run(blocks)])
        except QuarantineObjectError:
            return None
        return None if len(blocks) == 1 and _has_large_event(events, blocks[0]) else events

    def _one_by_one(self, pending: Sequence[_Unpacked], skip_rows: int) -> Iterator[Slice]:
        """Yield what the strict decoder reads of consecutive blocks, several together while they are small."""
        good: list[Decoded] = []
        first_row = memory_bytes = 0
        for one in pending:
            reason = ""
            try:
                with _quarantining():
                    room_bytes = self._allowance.room_bytes(len(one.block.content))
                    decoded = self._schema.records.read(one.block.rows, bytes(one.content), room_bytes)
            except QuarantineObjectError as error:
                reason = error.reason
            if good and (reason or memory_bytes + decoded.memory_bytes > _TOGETHER_MEMORY_BYTES):
                yield from self._joined(good, first_row, skip_rows)
                good, memory_bytes = [], 0
            if reason:
                self.damage.add(one.block.rows, one.block.offset_bytes, reason)
                continue
            first_row = first_row if good else one.first_row
            good.append(decoded)
            memory_bytes += decoded.memory_bytes
            self._allowance.memory_bytes += decoded.memory_bytes
            self._blocks_read += 1
        if good:
            yield from self._joined(good, first_row, skip_rows)

    def _joined(self, parts: Sequence[Decoded], first_row: int, skip_rows: int) -> Iterator[Slice]:
        events = pl.concat([part.events for part in parts])
        starts = accumulate((part.events.height for part in parts), initial=0)
        unreadable = [
            (start + place, why) for start, part in zip(starts, parts, strict=False) for place, why in part.unreadable
        ]
        yield from self._sliced(Decoded(events, unreadable), first_row, int(events.estimated_size()), skip_rows)

    def _sliced(self, decoded: Decoded, first_row: int, content_bytes: int, skip_rows: int) -> Iterator[Slice]:
        """Yield decoded events behind the rows that are skipped; in parts where their JSON would be too large."""
        height = decoded.events.height
        at_once = self._schema.rows_at_once(height, content_bytes)
        for start in range(max(skip_rows - first_row, 0), max(height, 1), at_once):
            end = start + at_once
            unreadable = [(place - start, reason) for place, reason in decoded.unreadable if start <= place < end]
            part = decoded.events.slice(start, at_once)
            self._allowance.count_slice(part.width)
            yield Slice(part, first_row + start, self.json_fields, unreadable)


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
    if sum(heights) > min(MAX_BLOCK_EVENTS, schema.rows_at_once(sum(heights), max_bytes - room_bytes)):
        return None
    try:
        with _quarantining():
            return Together(schema.polars.read(runs), heights)
    except QuarantineObjectError:
        return None


def _has_large_event(events: pl.DataFrame, unpacked: _Unpacked) -> bool:
    """Whether one of a block's events is larger than Braze makes them; its message would take many times as much."""
    if len(unpacked.content) <= allowance.MAX_EVENT_BYTES:
        return False
    texts = pl.selectors.by_dtype(pl.String)
    sizes = events.select(texts.str.len_bytes().fill_null(0)).sum_horizontal()
    lists = events.select(pl.selectors.by_dtype(pl.List(pl.String))).iter_columns()
    in_lists = sum(column.explode().str.len_bytes().sum() for column in lists)
    return bool((sizes > allowance.MAX_EVENT_BYTES).any()) or in_lists > allowance.MAX_EVENT_BYTES


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
    reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
    return reason.encode("utf-8", "replace").decode()  # a schema's JSON may spell halves of characters
