"""The batches under way for one group of objects: what came back, and how far each object has come by it."""

from collections.abc import Callable, Collection, Sequence
from concurrent.futures import Future, wait

import polars as pl

from currents_bridge.errors import BridgeError, CredentialError, RetryLaterError
from currents_bridge.logs import get_logger
from currents_bridge.mistakes import MISTAKES, described
from currents_bridge.model import Batch, DeadLetter, Refusal
from currents_bridge.sending.bisect import ObjectsDeniedError

log = get_logger()


class Acknowledgements:
    """Collects what became of a group's batches, which are numbered from 1 in the order they were submitted.

    Used by one thread. A batch that comes back late holds the next ones up once `max_ahead` were submitted behind it:
    a crash repeats what is ahead of the last checkpoint or settlement, so that must not be much.
    """

    def __init__(self, max_ahead: int) -> None:
        self._max_ahead = max_ahead
        self.batches = 0  # acknowledged
        self.batch_bytes = 0  # of those, serialised, before compression
        self.submitted = 0
        self.through = 0  # every batch up to this number was acknowledged
        self.credential_error: CredentialError | None = None
        self._under_way: list[tuple[int, Batch, Future[Sequence[Refusal]]]] = []
        self._ahead: set[int] = set()  # acknowledged, with a gap before them
        self._failures: dict[int, BridgeError] = {}  # object id -> why one of its batches failed
        self._refused: dict[int, list[DeadLetter]] = {}

    def expect(self, batch: Batch, future: Future[Sequence[Refusal]]) -> None:
        """Add a batch that was submitted, and let go of those that are done."""
        self.submitted += 1
        self._under_way.append((self.submitted, batch, future))
        self._collect(lambda f: f.done())
        while self._under_way and self.submitted - self._under_way[0][0] >= self._max_ahead:
            wait([self._under_way[0][2]])
            self._collect(lambda f: f.done())

    def wait(self) -> None:
        """Return once every batch was acknowledged or given up."""
        self._collect(lambda _: True)

    def failure_of(self, object_id: int, *, alone: bool) -> BridgeError | None:
        """Return why the object cannot be settled; not alone: it also leans on the batches of others.

        An object with repeats owes events that another object's batch carries, so any failed batch holds it back.
        """
        if alone:
            return self._failures.get(object_id)
        return next(iter(self._failures.values()), None)

    def at_the_cost_of(self, object_ids: Collection[int]) -> "_AtTheCostOf":
        """Take a mistake of ours for a failed batch of these objects, which wait: nothing shows what became of it."""
        return _AtTheCostOf(object_ids, self._failures)

    def refused(self, object_id: int) -> Sequence[DeadLetter]:
        """Return the object's messages that Segment refused, in the order they came back."""
        return self._refused.get(object_id, ())

    def _collect(self, ready: Callable[[Future[Sequence[Refusal]]], bool]) -> None:
        waiting = []
        for number, batch, future in self._under_way:
            if not ready(future):
                waiting.append((number, batch, future))
                continue
            with self.at_the_cost_of({part.object_id for part in batch.parts}):
                self._take_in(number, batch, future)
        self._under_way = waiting

    def _take_in(self, number: int, batch: Batch, future: Future[Sequence[Refusal]]) -> None:
        try:
            refusals = future.result()
        except ObjectsDeniedError as error:  # all the rest of it was acknowledged
            self._failures |= dict.fromkeys(error.object_ids, error)
            self._count(batch, error.refusals)
        except (RetryLaterError, CredentialError) as error:
            if isinstance(error, CredentialError):
                self.credential_error = error
            self._failures |= {part.object_id: error for part in batch.parts}
        else:
            self._acknowledged(number, batch, refusals)

    def _acknowledged(self, number: int, batch: Batch, refusals: Sequence[Refusal]) -> None:
        self._count(batch, refusals)
        self._ahead.add(number)
        while self.through + 1 in self._ahead:
            self.through += 1
            self._ahead.remove(self.through)

    def _count(self, batch: Batch, refusals: Sequence[Refusal]) -> None:
        self.batches += 1
        self.batch_bytes += batch.size_bytes
        for refusal in refusals:
            letter = DeadLetter(refusal.row, refusal.message_id, refusal.reason, message=_message_of(batch, refusal))
            self._refused.setdefault(refusal.object_id, []).append(letter)


class _AtTheCostOf:  # no generator: several for each small object
    def __init__(self, object_ids: Collection[int], failures: dict[int, BridgeError]) -> None:
        self._object_ids = object_ids
        self._failures = failures

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> bool:
        if not isinstance(error, MISTAKES) or isinstance(error, BridgeError):
            return False
        log.error("batch_bug", objects=sorted(self._object_ids), exc_info=error)
        self._failures |= dict.fromkeys(self._object_ids, RetryLaterError(described(error)))
        return True


def _message_of(batch: Batch, refusal: Refusal) -> str:
    rows = (
        part.messages.filter(pl.col("row") == refusal.row)
        for part in batch.parts
        if part.object_id == refusal.object_id
    )
    return next(str(found["message"][0]) for found in rows if found.height)
