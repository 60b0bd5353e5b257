"""From messages to batches: in order, across objects, within Segment's limits."""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import accumulate

import polars as pl

from currents_bridge.model import Batch, Part


class Packer:
    """Cuts a stream of messages into batches by exact serialised bytes and by count.

    A batch's size is `envelope_bytes` + its messages + the commas between them. Not thread-safe.
    """

    def __init__(self, *, max_bytes: int, max_events: int, envelope_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._max_events = max_events
        self._envelope_bytes = envelope_bytes
        self._start()

    def add(self, object_id: int, messages: pl.DataFrame) -> Iterator[Batch]:
        """Take one object's next messages (see model.Part); as `add_all`."""
        return self.add_all([Part(object_id, messages)])

    def add_all(self, owed: Sequence[Part]) -> Iterator[Batch]:
        """Take the next messages of some objects, in order; yield each batch that is full.

        Raises ValueError for a message that is too large for any batch.
        """
        if not owed:
            return
        # Python's own search: a polars operation waits for the threads that map and encode, and costs more than this
        ends = list(accumulate(size_bytes + 1 for size_bytes in _sizes(owed).to_list()))  # 1: the comma after each
        first = 0  # of a part among all messages
        for part in owed:
            taken, end = first, first + part.messages.height
            while taken < end:
                taken_bytes = ends[taken - 1] if taken else 0
                room_bytes = self._max_bytes - self._size_bytes + 1  # the last message has no comma
                fitting = bisect_right(ends, taken_bytes + room_bytes, lo=taken, hi=end) - taken
                count = min(fitting, self._max_events - self._events)
                if count:
                    self._parts.append(Part(part.object_id, part.messages.slice(taken - first, count)))
                    self._events += count
                    self._size_bytes += ends[taken + count - 1] - taken_bytes
                    taken += count
                elif not self._events:
                    row = part.messages["row"][taken - first]
                    raise ValueError(f"row {row} of object {part.object_id} is larger than a batch")
                if taken < end:
                    yield from self.flush()
            first = end

    @property
    def pending(self) -> bool:
        """Whether messages wait for the next batch."""
        return self._events > 0

    def flush(self) -> Iterator[Batch]:
        """Yield what is left, if anything, as one batch."""
        if self._events:
            yield Batch(tuple(self._parts), self._events, self._size_bytes - 1, self._envelope_bytes)
            self._start()

    def _start(self) -> None:
        self._parts: list[Part] = []
        self._events = 0
        self._size_bytes = self._envelope_bytes  # with a comma after each message


def halves(batch: Batch) -> tuple[Batch, Batch]:
    """Cut a batch of at least two messages in two, in order; sizes are exact and nothing is copied.

    Raises ValueError for a single message.
    """
    if batch.events < 2:  # noqa: PLR2004 - one for each half
        raise ValueError("a single message cannot be halved")
    first_events = batch.events // 2
    left, first, second = first_events, [], []
    for part in batch.parts:
        count = min(left, part.messages.height)
        left -= count
        if count:
            first.append(Part(part.object_id, part.messages.head(count)))
        if count < part.messages.height:
            second.append(Part(part.object_id, part.messages.slice(count)))
    first_bytes = batch.envelope_bytes + int(_sizes(first).sum()) + first_events - 1  # with the commas
    second_bytes = batch.size_bytes - first_bytes + batch.envelope_bytes - 1  # 1: the comma between the halves
    return (
        Batch(tuple(first), first_events, first_bytes, batch.envelope_bytes),
        Batch(tuple(second), batch.events - first_events, second_bytes, batch.envelope_bytes),
    )


def halves_by_object(batch: Batch) -> tuple[Batch, Batch]:
    """Cut a batch of at least two objects' messages in two, each object in one of them; sizes are exact."""
    ids = list(dict.fromkeys(part.object_id for part in batch.parts))
    first = set(ids[: len(ids) // 2])
    return (
        _batch([part for part in batch.parts if part.object_id in first], batch.envelope_bytes),
        _batch([part for part in batch.parts if part.object_id not in first], batch.envelope_bytes),
    )


def _batch(parts: Sequence[Part], envelope_bytes: int) -> Batch:
    events = sum(part.messages.height for part in parts)
    return Batch(tuple(parts), events, envelope_bytes + int(_sizes(parts).sum()) + events - 1, envelope_bytes)


def _sizes(parts: Sequence[Part]) -> pl.Series:
    """Return the bytes of each message; at least one part."""
    return pl.concat([part.messages["message"] for part in parts]).str.len_bytes()
