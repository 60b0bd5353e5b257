"""What a file may make of its bytes: bounds by ratio to its size, so that a small one cannot cost hours or gigabytes.

A file may cost ten seconds, and 150 MB beside 30 times its size. The room that is left to honest files: 100,000 events
of a hundred fields, however well they compress, and blocks of 8 MiB; writers of Avro make blocks of 64 KB.
"""

from dataclasses import dataclass

from currents_bridge.avro.framing import MAX_BLOCK_BYTES
from currents_bridge.errors import QuarantineObjectError

MAX_EVENT_BYTES = 1024 * 1024  # Braze drops what is over 900 KB

_MIB = 1024 * 1024
_BLOCK_BYTES = 8 * _MIB, 8  # unpacked: so many, and so many times what they were packed in; as all below
_ARRAY_BLOCK_BYTES = 2 * _MIB, 8  # polars takes 24 bytes of memory for an item of one byte
_BLOCK_CELLS = 4_000_000, 1
_BLOCK_MEMORY_BYTES = 16 * _MIB, 12  # of what is decoded record by record
_FILE_BYTES = 128 * _MIB, 30
_FILE_ROWS = 250_000, 0.1
_FILE_BLOCKS = 250_000, 0.001
_FILE_CELLS = 16_000_000, 1
_FILE_COLUMNS = 40_000, 0.002  # of all slices; mapping one takes 0.15 ms a column, however few events it has
_FILE_MEMORY_BYTES = 640 * _MIB, 8


@dataclass(slots=True)
class Allowance:
    """What one file has used of its bounds so far."""

    blocks: int = 0  # and gaps between them
    packed_bytes: int = 0
    unpacked_bytes: int = 0
    rows: int = 0
    cells: int = 0
    columns: int = 0
    memory_bytes: int = 0  # of what was decoded record by record

    def block_bytes(self, packed_bytes: int) -> int:
        """Return how many bytes a block may unpack to."""
        return min(_bound(_BLOCK_BYTES, packed_bytes), MAX_BLOCK_BYTES)

    def count_block(self) -> None:
        """Count what was found; raises QuarantineObjectError where it is too much."""
        self.blocks += 1
        if self.blocks > _bound(_FILE_BLOCKS, self.packed_bytes):
            raise QuarantineObjectError(f"the file has more than {self.blocks - 1} blocks")

    def count_slice(self, columns: int) -> None:
        """Count a slice before it is mapped; raises QuarantineObjectError where it is too much."""
        self.columns += columns
        if self.columns > _bound(_FILE_COLUMNS, self.packed_bytes):
            raise QuarantineObjectError("the file has too many large events of too many fields")

    def add(self, packed_bytes: int, unpacked_bytes: int, rows: int, columns: int) -> None:
        """Count a block before it is decoded, or one that was unpacked in vain.

        Raises QuarantineObjectError where the file holds too much.
        """
        self.packed_bytes += packed_bytes
        self.unpacked_bytes += unpacked_bytes
        self.rows += rows
        self.cells += rows * columns
        for used, bound, what in (
            (self.unpacked_bytes, _FILE_BYTES, "bytes"),
            (self.rows, _FILE_ROWS, "events"),
            (self.cells, _FILE_CELLS, "values"),
        ):
            if used > _bound(bound, self.packed_bytes):
                raise QuarantineObjectError(f"the file holds {used} {what} in {self.packed_bytes} packed bytes")

    def room_bytes(self, packed_bytes: int) -> int:
        """Return the memory that the records of a block may take, decoded one by one."""
        left = _bound(_FILE_MEMORY_BYTES, self.packed_bytes) - self.memory_bytes
        return min(left, _bound(_BLOCK_MEMORY_BYTES, packed_bytes))


def columns_hold(cells: int, array_bytes: int, packed_bytes: int) -> bool:
    """Whether a block of so many values, and of so many bytes that arrays may be made of, may become columns."""
    return cells <= _bound(_BLOCK_CELLS, packed_bytes) and array_bytes <= _bound(_ARRAY_BLOCK_BYTES, packed_bytes)


def _bound(base_and_ratio: tuple[int, float], packed_bytes: int) -> int:
    base, ratio = base_and_ratio
    return base + int(ratio * packed_bytes)
