"""The frame of an Avro object container: header, blocks, sync markers; and the way back into it after damage.

fastavro reads the frame's own values (they are Avro too), so that no length in a damaged file is taken on trust:
sizes are checked before anything is read or allocated. The container's sync marker follows every block; behind a
place that does not fit, reading goes on after the next marker.
Format: https://avro.apache.org/docs/1.12.0/specification/#object-container-files
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import fastavro

MAX_HEADER_BYTES = 1024 * 1024  # the longest header of Currents has 30 KB
MAX_BLOCK_BYTES = 64 * 1024 * 1024  # one block that holds the largest file of Currents
MAX_BLOCK_EVENTS = 250_000  # the largest file of Currents holds 100,000
SYNC_BYTES = 16

_MAGIC = b"Obj\x01"
_PADDING_BYTES = 4096  # a page; holes in files are whole ones
_READ_BYTES = 256 * 1024
_HEADER = fastavro.parse_schema(
    {
        "type": "record",
        "name": "org.apache.avro.file.Header",
        "fields": [
            {"name": "magic", "type": {"type": "fixed", "name": "magic", "size": 4}},
            {"name": "meta", "type": {"type": "map", "values": "bytes"}},
            {"name": "sync", "type": {"type": "fixed", "name": "sync", "size": SYNC_BYTES}},
        ],
    }
)
_BLOCK_HEAD_BYTES = 20  # two longs of ten bytes at most
_BLOCK_HEAD = fastavro.parse_schema(
    {
        "type": "record",
        "name": "head",
        "fields": [{"name": "rows", "type": "long"}, {"name": "size_bytes", "type": "long"}],
    }
)


@dataclass(slots=True)  # not frozen: one is made for every 20 events
class Block:
    """One block whose frame is whole."""

    offset_bytes: int  # from the start of the container
    rows: int  # events, as the container says
    content: bytes  # the records, compressed by the container's codec


@dataclass(frozen=True, slots=True)
class Gap:
    """A stretch of the container that is no block."""

    offset_bytes: int
    rows: int | None  # events, where the container still tells: one block that begins well
    reason: str


class Frames:
    """The blocks of a container, and the gaps between them, in order; a gap ends at the next sync marker.

    Memory is bounded by a block. Errors of the stream pass through. Raises ValueError (or what fastavro raises) here
    for a header that is not readable.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._tape = _Tape(stream)
        start = self._tape.peek(MAX_HEADER_BYTES)
        if not start.startswith(_MAGIC):
            raise ValueError("the file does not begin as one" if start else "the file is empty")
        try:
            self.metadata, self._sync, self._header_bytes = _header(start)
        except (EOFError, IndexError) as error:
            raise ValueError("the file ends in its header, or the header is too long") from error
        self._tape.skip(self._header_bytes)

    def __iter__(self) -> Iterator[Block | Gap]:
        while head := self._tape.peek(_BLOCK_HEAD_BYTES):
            if head.startswith(_MAGIC) and self._goes_on():
                continue
            if found := self._block(io.BytesIO(head)):
                yield found

    def _goes_on(self) -> bool:
        """Read on in a container of the same schema and codec that was put behind this one."""
        try:
            metadata, sync, header_bytes = _header(self._tape.peek(2 * self._header_bytes))
        except Exception:  # noqa: BLE001 - whatever fastavro raises about it: it is no header
            return False
        if any(metadata.get(name) != self.metadata.get(name) for name in ("avro.schema", "avro.codec")):
            return False
        self._sync = sync
        self._tape.skip(header_bytes)
        return True

    def _block(self, head: io.BytesIO) -> Block | Gap | None:
        tape, offset = self._tape, self._tape.offset_bytes
        try:
            told = fastavro.schemaless_reader(head, _BLOCK_HEAD, None)
        except (EOFError, IndexError):
            return self._gap(None, 0, "no number of events and bytes where a block should begin")
        rows: int = told["rows"]  # type: ignore[index, call-overload, assignment]
        size_bytes: int = told["size_bytes"]  # type: ignore[index, call-overload, assignment]
        end = head.tell() + size_bytes + SYNC_BYTES
        if not 0 <= size_bytes <= MAX_BLOCK_BYTES:
            return self._gap(rows, 0, f"a block says that it has {size_bytes} bytes")
        if not tape.holds(end):
            return self._gap(rows, end, "the file ends in a block")
        if tape.part(end - SYNC_BYTES, end) != self._sync:
            return self._gap(rows, end, "no sync marker behind a block")
        content = tape.part(head.tell(), end - SYNC_BYTES)
        tape.skip(end)
        if not 0 <= rows <= MAX_BLOCK_EVENTS:
            return Gap(offset, None, f"a block says that it has {rows} events")
        return Block(offset, rows, content)

    def _gap(self, rows: int | None, end: int, reason: str) -> Gap | None:
        """Go on behind the next marker; one that lies within the block (`end`) makes its count credible.

        None for some zeros up to the end of the file: padding. More of them may be a hole where events were.
        """
        offset = self._tape.offset_bytes
        if self._tape.skip_past(self._sync) and self._tape.offset_bytes - offset < _PADDING_BYTES:
            return None
        alone = self._tape.offset_bytes - offset <= end
        credible = alone and rows is not None and 0 <= rows <= MAX_BLOCK_EVENTS
        return Gap(offset, rows if credible else None, reason)


class _Tape:
    """A forward-only stream with a look ahead."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._window = b""  # what was read and may still be needed
        self._at = 0  # where reading stands, in the window
        self._window_offset = 0

    @property
    def offset_bytes(self) -> int:
        return self._window_offset + self._at

    def holds(self, count: int) -> bool:
        """Whether so many bytes are still ahead."""
        while len(self._window) < self._at + count:
            missing = self._at + count - len(self._window)
            more = self._stream.read(max(missing, _READ_BYTES))
            if not more:
                return False
            self._window_offset += self._at
            self._window = self._window[self._at :] + more
            self._at = 0
        return True

    def peek(self, count: int) -> bytes:
        """Return the next bytes, fewer at the end."""
        self.holds(count)
        return self.part(0, count)

    def part(self, start: int, end: int) -> bytes:
        """Return bytes ahead that are held."""
        return self._window[self._at + start : self._at + end]

    def skip(self, count: int) -> None:
        """Go forward over bytes that are held."""
        self._at += count

    def skip_past(self, marker: bytes) -> bool:
        """Go behind the next marker, or to the end; tell whether there was nothing but zeros, and the end."""
        zeros = True
        while (found := self._window.find(marker, self._at)) < 0:
            searched = max(self._at, len(self._window) - len(marker) + 1)
            zeros = zeros and not self._window[self._at : searched].strip(b"\0")
            self._at = searched
            if not self.holds(len(marker)):
                zeros = zeros and not self._window[self._at :].strip(b"\0")
                self._at = len(self._window)
                return zeros
        self._at = found + len(marker)
        return False


def _header(start: bytes) -> tuple[dict[str, bytes], bytes, int]:
    """Return a header's metadata, its sync marker and its length; raises what fastavro raises."""
    head = io.BytesIO(start)
    header: Any = fastavro.schemaless_reader(head, _HEADER, None)
    return header["meta"], header["sync"], head.tell()
