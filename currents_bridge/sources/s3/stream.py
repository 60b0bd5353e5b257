"""An object as a stream of its ranges."""

import io
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer


class RangeStream(io.RawIOBase):
    """Reads an object forwards, one range after the other.

    Args:
        object_bytes: size of the object.
        fetch: returns some bytes from a place before the object's end on, one at least.
    """

    def __init__(self, object_bytes: int, fetch: Callable[[int], bytes | memoryview]) -> None:
        super().__init__()
        self._object_bytes = object_bytes
        self._fetch = fetch
        self._at = 0  # where the next range starts
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        """Return that it is."""
        return True

    def tell(self) -> int:
        """Return how many bytes were read."""
        return self._at - len(self._rest)

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Read what is at hand of a range."""
        self._fetch_more()
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def readall(self) -> bytes:
        """Read to the end."""
        pieces = []
        while self._fetch_more():
            pieces.append(self._rest)
            self._rest = memoryview(b"")
        return b"".join(pieces)

    def _fetch_more(self) -> bool:
        """Have some bytes at hand; returns whether there are any before the object's end."""
        if not self._rest and self._at != self._object_bytes:
            self._rest = memoryview(b"")  # an empty view would still hold the last range in memory
            self._rest = memoryview(self._fetch(self._at))
            self._at += len(self._rest)
        return bool(self._rest)
