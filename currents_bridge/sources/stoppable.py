"""A bucket that is asked for nothing more once the program is to stop: so listings and looks of any length end."""

import threading
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from currents_bridge.errors import StoppedError
from currents_bridge.model import ExpiryRule, ListedObject
from currents_bridge.ports import ObjectStore


class StoppableStore:
    """Fulfils `ports.ObjectStore` until `stop` is set; then everything but an object that is open raises StoppedError.

    That is no RetryLaterError, since nothing is wrong with the bucket: it ends a look as a whole, and nothing is noted.
    """

    def __init__(self, store: ObjectStore, stop: threading.Event) -> None:
        self._store = store
        self._stop = stop

    def folders(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
        """List one level."""
        self._raise_if_stopped(f"{prefix or 'the bucket'} was listed")
        return self._store.folders(prefix)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
        """List all levels, up to the stop."""
        what = f"{prefix or 'the bucket'} was listed to its end"
        self._raise_if_stopped(what)
        stopped = self._stop.is_set
        for item in self._store.list(prefix, start_after):
            if stopped():
                raise StoppedError(what)
            yield item

    def open(self, key: str, etag: str, size_bytes: int) -> BinaryIO:
        """Open an object."""
        self._raise_if_stopped(f"{key} was read")
        return self._store.open(key, etag, size_bytes)

    def expiry_rules(self) -> Sequence[ExpiryRule] | None:
        """Read the lifecycle rules."""
        self._raise_if_stopped("the bucket's lifecycle rules were read")
        return self._store.expiry_rules()

    def _raise_if_stopped(self, what: str) -> None:
        if self._stop.is_set():
            raise StoppedError(what)
