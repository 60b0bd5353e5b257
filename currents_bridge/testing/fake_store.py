"""A bucket in memory, with the contract of `ports.ObjectStore`."""

import hashlib
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from threading import Lock
from typing import BinaryIO

from currents_bridge.errors import CredentialError, ObjectChangedError, ObjectGoneError, Side
from currents_bridge.model import ExpiryRule, ListedObject

PAGE_KEYS = 1_000  # of one LIST answer, as in S3


class FakeObjectStore:
    """A bucket whose objects a test puts, replaces and deletes.

    `list_calls` counts the LIST requests that S3 would have seen. An exception in `faults` is raised by `folders` and
    `list` for that prefix, by `open` for that key, and by `expiry_rules` for the prefix "". `rules` are the bucket's
    lifecycle rules; None: they may not be read.
    """

    def __init__(self, *, exists: bool = True) -> None:
        self.exists = exists
        self.faults: dict[str, Exception] = {}
        self.rules: Sequence[ExpiryRule] | None = ()
        self.list_calls = 0
        self._objects: dict[str, tuple[bytes, ListedObject]] = {}
        self._lock = Lock()

    def put(self, key: str, content: bytes = b"", last_modified: datetime = datetime(2024, 1, 1, tzinfo=UTC)) -> str:
        """Write or replace an object and return its ETag, which other content changes."""
        etag = hashlib.md5(content, usedforsecurity=False).hexdigest()
        with self._lock:
            self._objects[key] = content, ListedObject(key, etag, len(content), last_modified)
        return etag

    def delete(self, key: str) -> None:
        """Delete an object."""
        with self._lock:
            del self._objects[key]

    def folders(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
        """List one level; see the port."""
        folders: dict[str, None] = {}
        objects = []
        for item in self._under(prefix):
            name, slash, _ = item.key.removeprefix(prefix).partition("/")
            if slash:
                folders[f"{prefix}{name}/"] = None
            else:
                objects.append(item)
        for _ in range(0, max(1, len(folders) + len(objects)), PAGE_KEYS):
            self._count_list_call()
        return list(folders), objects

    def list(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
        """List all levels; see the port."""
        items = [item for item in self._under(prefix) if item.key > start_after]
        for start in range(0, max(1, len(items)), PAGE_KEYS):
            self._count_list_call()
            yield from items[start : start + PAGE_KEYS]

    def expiry_rules(self) -> Sequence[ExpiryRule] | None:
        """Return `rules`; see the port."""
        self._check("")
        return self.rules

    def open(self, key: str, etag: str, size_bytes: int) -> BinaryIO:
        """Read an object; see the port."""
        self._check(key)
        content, item = self._objects.get(key, (b"", None))
        if item is None:
            raise ObjectGoneError(f"cannot read {key}: the object is gone")
        if (item.etag, item.size_bytes) != (etag, size_bytes):
            raise ObjectChangedError(f"cannot read {key}: it has changed since it was listed")
        return _ForwardOnly(content)

    def _under(self, prefix: str) -> Sequence[ListedObject]:
        self._check(prefix)
        with self._lock:
            return [item for key, (_, item) in sorted(self._objects.items()) if key.startswith(prefix)]

    def _check(self, name: str) -> None:
        if not self.exists:
            raise CredentialError(Side.SOURCE, "the bucket does not exist", "see that source.bucket is right")
        if name in self.faults:
            raise self.faults[name]

    def _count_list_call(self) -> None:
        with self._lock:
            self.list_calls += 1


class _ForwardOnly(io.BytesIO):
    """Refuses what a stream from S3 cannot do."""

    def seekable(self) -> bool:
        return False

    def seek(self, offset: int, whence: int = 0, /) -> int:
        raise io.UnsupportedOperation(f"seek({offset}, {whence}) on a forward-only stream")
