"""A Segment source in memory."""

import threading
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import orjson

from currents_bridge.errors import BridgeError, RetryLaterError
from currents_bridge.model import Batch, Refusal

Outcome = BridgeError | Sequence[Refusal]


class FakeTransport:
    """Fulfils ports.Transport without a network. Thread-safe.

    Args:
        outcomes: what becomes of the first attempts, in order: an error is raised, refusals are returned (an empty
            sequence: all acknowledged). Later attempts are acknowledged. More can be added to `outcomes` at any time.

    Attributes:
        batches: the acknowledged batches, in order.
        messages: their messages, decoded, without the refused ones.
        attempts: how often `send` was called.
        closed: whether `close` was called.
        down: whether every batch is answered 503; may be set at any time.
        poison: id of a message whose batch is always answered 503; may be set at any time.
    """

    def __init__(self, outcomes: Iterable[Outcome] = ()) -> None:
        self.outcomes = deque(outcomes)
        self.batches: list[Batch] = []
        self.messages: list[dict[str, Any]] = []
        self.attempts = 0
        self.closed = False
        self.down = False
        self.poison: str | None = None
        self._lock = threading.Lock()

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Play the next outcome."""
        with self._lock:
            self.attempts += 1
            if self.down or any(self.poison in set(part.messages["message_id"]) for part in batch.parts):
                raise RetryLaterError("segment answered 503")
            outcome = self.outcomes.popleft() if self.outcomes else ()
            if isinstance(outcome, BridgeError):
                raise outcome
            refused = {(refusal.object_id, refusal.row) for refusal in outcome}
            self.batches.append(batch)
            for part in batch.parts:
                for row, message in part.messages.select("row", "message").iter_rows():
                    if (part.object_id, row) not in refused:
                        self.messages.append(orjson.loads(message))
            return outcome

    def close(self) -> None:
        """Remember it."""
        self.closed = True
