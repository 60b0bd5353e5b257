"""Whether S3 gives out other objects than the one that it denies: then the denial is that object's own trouble."""

import threading
from collections.abc import Callable, Generator
from contextlib import closing
from datetime import datetime, timedelta

from currents_bridge.due import lately
from currents_bridge.errors import CredentialError, ObjectGoneError, RetryLaterError
from currents_bridge.model import CurrentsObject, Selection
from currents_bridge.ports import Ledger, ObjectStore

MOST = 3  # of each kind that are tried at once
PROVEN_FOR = timedelta(minutes=1)  # by an object that was read, for the sake of many that are denied
LATELY = timedelta(hours=1)  # a delivery proves so long that objects can be read, where no other can be tried


class Witnesses:
    """The other objects of one connector. Thread-safe.

    Args:
        connector: its name.
        store: its bucket.
        ledger: knows its objects.
        selection: which of them are its own.
        now: the time, aware.
    """

    def __init__(
        self,
        connector: str,
        store: ObjectStore,
        ledger: Ledger,
        selection: Callable[[], Selection],
        now: Callable[[], datetime],
    ) -> None:
        self._connector = connector
        self._store = store
        self._ledger = ledger
        self._selection = selection
        self._now = now
        self._lock = threading.Lock()
        self._read_at: dict[str, datetime] = {}  # by key, the latest two

    def note_read(self, *keys: str) -> None:
        """Take in that objects were read now."""
        with self._lock:
            self._note(*keys)

    def one_is_readable(self, denied: str) -> bool:
        """Return whether an object other than the denied one can be read, now or lately; raises LedgerError."""
        with self._lock:
            if any(key != denied and lately(at, self._now(), PROVEN_FOR) for key, at in self._read_at.items()):
                return True
            try:
                return bool(self._read()) or self._delivered_lately()
            except CredentialError:
                return False

    def any_is_reachable(self) -> bool:
        """Return whether S3 answers for any object now, or there is none to try; raises LedgerError."""
        with self._lock:
            try:
                return self._read() is not False
            except CredentialError:  # an answer, which is taken for what it says elsewhere
                return True

    def read_one(self) -> None:
        """Read a byte of some object, if there is any; raises CredentialError where all that are tried are denied."""
        with self._lock:
            self._read()

    def _read(self) -> bool | None:
        """Read a byte of one object, of those that were delivered, then of those that wait.

        Returns None where there is none to try, False where S3 did not give out any; raises the first denial where none
        of those tried could be read.
        """
        denial: CredentialError | None = None
        found: bool | None = None
        with closing(self._candidates()) as candidates:
            for item in candidates:
                if not item.size_bytes:  # is read without a request, so it shows nothing
                    continue
                try:
                    with self._store.open(item.key, item.etag, item.size_bytes) as stream:
                        stream.read(1)
                except CredentialError as error:
                    denial = denial or error
                except ObjectGoneError:
                    continue
                except RetryLaterError:
                    found = False
                else:
                    self._note(item.key)
                    return True
        if denial:
            raise denial
        return found

    def _note(self, *keys: str) -> None:
        for key in keys[-2:]:  # one of two is another than the denied one
            self._read_at.pop(key, None)
            self._read_at[key] = self._now()
        while len(self._read_at) > 2:  # noqa: PLR2004
            del self._read_at[next(iter(self._read_at))]

    def _candidates(self) -> Generator[CurrentsObject]:
        for witness, _ in self._ledger.witnesses(self._connector, MOST):
            yield witness
        for _ in range(MOST):
            claimed = self._ledger.claim_canary(self._connector, self._selection(), self._now())
            try:
                yield from (item.object for item in claimed)
            finally:
                self._ledger.release([item.id for item in claimed])

    def _delivered_lately(self) -> bool:
        latest = self._ledger.witnesses(self._connector, 1)
        return any(lately(at, self._now(), LATELY) for _, at in latest)
