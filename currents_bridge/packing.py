"""From messages to batches: in order, across objects, within Segment's limits."""

from collections.abc import Iterator

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

    def flush(self) -> Iterator[Batch]:
        """Yield what is left, if anything, as one batch."""
        if self._events:
            yield Batch(tuple(self._parts), self._events, self._size_bytes - 1)
            self._start()

    def _start(self) -> None:
        self._parts: list[Part] = []
        self._events = 0
        self._size_bytes = self._envelope_bytes  # with a comma after each message
