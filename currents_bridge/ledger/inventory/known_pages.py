"""Pages of listings that were known whole: what a poll finds as the one before found it is not looked up again."""

import threading
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from itertools import chain

import orjson

from currents_bridge.model import CurrentsObject

KEPT_PAGES = 4_096  # of 1,000 objects at most, in half a megabyte


class KnownPages:
    """Remembers pages of which each object was recorded with the very ETag that was listed; thread-safe.

    That holds until an object takes another ETag, after which `forget` is called. Where another process has it take
    one, and it is then written again as it was before, it is seen once the page is another one, or by the next audit.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._marks: OrderedDict[bytes, None] = OrderedDict()  # those that were met last at the end
        self._forgotten = 0  # times; part of each mark, so that what was looked up before is not added after

    def mark(self, connector: str, page: Sequence[CurrentsObject]) -> bytes:
        """Return what tells a page from all others; costs half a microsecond an object."""
        told = [self._forgotten, connector, *chain.from_iterable((item.key, item.etag) for item in page)]
        return blake2b(orjson.dumps(told), digest_size=16).digest()

    def holds(self, mark: bytes) -> bool:
        """Return whether the page was known whole."""
        with self._lock:
            if known := mark in self._marks:
                self._marks.move_to_end(mark)
            return known

    def add(self, mark: bytes) -> None:
        """Remember a page, and drop the one that was not met for longest where there are too many."""
        with self._lock:
            self._marks[mark] = None
            if len(self._marks) > KEPT_PAGES:
                self._marks.popitem(last=False)

    def forget(self) -> None:
        """Forget all pages, once objects have taken other ETags."""
        with self._lock:
            self._forgotten += 1
            self._marks.clear()
