"""Fetch ahead: while one object of a group is worked on, the next ones are on their way."""

import io
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import BinaryIO, Self

from currents_bridge.model import CurrentsObject
from currents_bridge.ports import ObjectStore

FETCHES_AT_ONCE = 8  # for one group; hides 30 ms of S3 behind 4 ms of work on each object
AHEAD_OBJECTS = 64  # about as many small ones as are worked on together, so that fetching goes on meanwhile
AHEAD_BYTES = 4 * 1024 * 1024  # of these; a larger object is read as a stream when its turn comes, beside other workers


class FetchAhead:
    """Opens objects in a given order, and fetches the next ones meanwhile. Used by one thread, as a context.

    Leaving it ends what is on its way; that may take as long as one read.
    """

    def __init__(self, store: ObjectStore, objects: Iterable[CurrentsObject]) -> None:
        self._store = store
        self._waiting = deque(objects)
        self._ahead: dict[str, Future[bytes]] = {}
        self._ahead_bytes = 0
        self._pool = ThreadPoolExecutor(FETCHES_AT_ONCE, thread_name_prefix="fetch")

    def open(self, obj: CurrentsObject) -> BinaryIO:
        """Return a stream of the next object in the order; raises as ports.ObjectStore.open, reading included."""
        self._fetch_ahead()
        fetched = self._ahead.pop(obj.key, None)
        if fetched is None:
            self._waiting.popleft()
            return self._store.open(obj.key, obj.etag, obj.size_bytes)
        self._ahead_bytes -= obj.size_bytes
        self._fetch_ahead()
        return io.BytesIO(fetched.result())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(cancel_futures=True)

    def _fetch_ahead(self) -> None:
        while self._waiting and len(self._ahead) < AHEAD_OBJECTS:
            if self._ahead_bytes + self._waiting[0].size_bytes > AHEAD_BYTES:
                return
            obj = self._waiting.popleft()
            self._ahead[obj.key] = self._pool.submit(self._read, obj)
            self._ahead_bytes += obj.size_bytes

    def _read(self, obj: CurrentsObject) -> bytes:
        with self._store.open(obj.key, obj.etag, obj.size_bytes) as stream:
            return stream.read()
