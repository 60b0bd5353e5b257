"""From messages to batches: in order, across objects, within Segment's limits."""

from collections.abc import Iterator, Sequence

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
        """Take one object's next messages (see model.Part); yield each batch that is full.

        Raises ValueError for a message that is too large for any batch.
        """
        ends = (messages["message"].str.len_bytes().cast(pl.UInt64) + 1).cum_sum()  # 1: the comma after each
        taken, taken_bytes = 0, 0
        while taken < messages.height:
            room_bytes = self._max_bytes - self._size_bytes + 1  # the last message has no comma
            fitting = int(ends.search_sorted(taken_bytes + room_bytes, side="right")) - taken
            count = min(fitting, self._max_events - self._events)
            if count:
                upto_bytes = int(ends[taken + count - 1])
                self._parts.append(Part(object_id, messages.slice(taken, count)))
                self._events += count
                self._size_bytes += upto_bytes - taken_bytes
                taken, taken_bytes = taken + count, upto_bytes
            elif not self._events:
                raise ValueError(f"row {messages['row'][taken]} of object {object_id} is larger than a batch")
            if taken < messages.height:
                yield from self.flush()

    @property
    def pending(self) -> bool:
        """Whether messages wait for the next batch."""
        return self._events > 0

    def flush(self) -> Iterator[Batch]:
        """Yield what is left, if anything, as one batch."""
        if self._events:
            yield Batch(tuple(self._parts), self._events, self._size_bytes - 1)
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
    content_bytes, first_bytes = joined_bytes(batch.parts), joined_bytes(first)
    second_bytes = content_bytes - first_bytes - 1  # 1: the comma between the halves
    envelope_bytes = batch.size_bytes - content_bytes
    return (
        Batch(tuple(first), first_events, envelope_bytes + first_bytes),
        Batch(tuple(second), batch.events - first_events, envelope_bytes + second_bytes),
    )


def joined_bytes(parts: Sequence[Part]) -> int:
    """Return the size of the parts' messages with the commas between them."""
    return sum(int(part.messages["message"].str.len_bytes().sum()) + part.messages.height for part in parts) - 1
