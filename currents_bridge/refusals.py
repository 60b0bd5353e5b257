"""Which messages of a refused batch are bad, and whether it is the messages at all.

Segment answers 400 to a whole request for one bad value, but also to a key of an odd shape, and a wrong endpoint may do
so too. So a refused batch is halved until the refused messages stand alone, and a message refused alone is set aside
only once the destination was seen to take another one later.
"""

import threading
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import polars as pl

from currents_bridge.errors import CredentialError, RefusedError, RetryLaterError, Side
from currents_bridge.model import Batch, Part, Refusal
from currents_bridge.packing import halves

PATIENCE = 8  # messages of one batch refused alone before the destination has to prove itself
MAX_UNPROVEN_BATCHES = 3  # different ones, before the first acknowledgement

_HINT = "check the write key, destination.region and destination.endpoint_url; nothing was set aside"


class Proof:
    """What one destination has shown so far, shared by all its batches. Thread-safe.

    Time is counted in messages refused alone: an acknowledgement proves all refusals before its request began.
    Keep one for each destination as long as the program runs, so that polls of a batch or two add up.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lone_refusals = 0
        self._proven = 0  # all lone refusals up to this one
        self._canary: _Canary | None = None
        self._unproven: set[str] = set()  # a message id of each batch that ended without proof

    def now(self) -> int:
        """Return how many messages were refused alone by now."""
        return self._lone_refusals

    def refused_alone(self) -> int:
        """Take in that a message was refused alone; returns the number of this refusal, from 1."""
        with self._lock:
            self._lone_refusals += 1
            return self._lone_refusals

    def acknowledged(self, batch: Batch, refusals: Sequence[Refusal], began: int) -> None:
        """Take in that a batch was acknowledged, but for the refusals, by a request that began at `began` (`now`)."""
        if len(refusals) == batch.events:
            return  # a client library refused them all, without a request
        canary = _Canary.of(batch, {(refusal.object_id, refusal.row) for refusal in refusals})
        with self._lock:
            self._proven = max(self._proven, began)
            self._canary = canary

    def proves(self, lone_refusal: int) -> bool:
        """Return whether the destination took a message by a request that began after that refusal."""
        return lone_refusal <= self._proven

    def canary(self) -> Batch | None:
        """Return the message that was acknowledged last as a batch of its own, if there is one.

        Segment drops the repeat by its message id.
        """
        with self._lock:
            return self._canary.batch() if self._canary else None

    def ended_unproven(self, message_id: str) -> int:
        """Take in that a batch ended without proof, known by its first lone message.

        Returns how many different ones did, at most MAX_UNPROVEN_BATCHES. None does once there is a canary.
        """
        with self._lock:
            if len(self._unproven) < MAX_UNPROVEN_BATCHES:
                self._unproven.add(message_id)
            return len(self._unproven)


def deliver(batch: Batch, send: Callable[[Batch], Sequence[Refusal]], proof: Proof) -> Sequence[Refusal]:
    """Send a batch, where it is refused in ever smaller parts; return the messages that are bad for sure.

    All others are acknowledged. A batch of n messages, k of them bad, costs at most 1 + 2k log2(n) requests, and one
    more for every PATIENCE bad messages and at the end.

    Args:
        batch: any batch.
        send: sends one, as ports.Transport.send.
        proof: what is known of the destination.

    Raises:
        CredentialError: the destination refuses also what it took before, or all of several batches.
        RetryLaterError: it refuses this batch, and has not taken any yet. Both errors, and those of `send`, mean that
            none of the batch counts as acknowledged or refused.
    """
    refusals: list[Refusal] = []
    answer, latest, unproven = "", 0, 0  # the latest lone refusal's answer and number, and how many lack proof
    waiting = [batch]
    while waiting:
        part = waiting.pop()
        began = proof.now()
        try:
            refused = send(part)
        except RefusedError as error:
            if part.events > 1:
                waiting += reversed(halves(part))
                continue
            answer, latest, unproven = error.message, proof.refused_alone(), unproven + 1
            refusals.append(_refusal(part, answer))
        else:
            proof.acknowledged(part, refused, began)
            refusals += refused
        if proof.proves(latest):
            unproven = 0
        elif unproven >= PATIENCE or not waiting:
            _prove(proof, send, answer, refusals[0].message_id)
            unproven = 0
    return refusals


def _prove(proof: Proof, send: Callable[[Batch], Sequence[Refusal]], answer: str, message_id: str) -> None:
    """Return if the destination takes its canary; raises as `deliver`."""
    canary = proof.canary()
    if canary is None:
        if proof.ended_unproven(message_id) < MAX_UNPROVEN_BATCHES:
            raise RetryLaterError(
                f"Segment refuses every message so far: not clear yet whether it is the data or the key ({answer})"
            )
        raise CredentialError(Side.DESTINATION, f"Segment refuses every message of several batches: {answer}", _HINT)
    began = proof.now()
    try:
        refused = send(canary)
    except RefusedError as error:
        why = f"Segment refuses even a message that it took before: {error.message}"
        raise CredentialError(Side.DESTINATION, why, _HINT) from error
    proof.acknowledged(canary, refused, began)


def _refusal(alone: Batch, reason: str) -> Refusal:
    [(object_id, row)] = [(part.object_id, part.messages.row(0, named=True)) for part in alone.parts]
    return Refusal(object_id, row["row"], row["message_id"], reason)


@dataclass(frozen=True, slots=True)
class _Canary:
    """A message that was acknowledged, without the batch that it came in: that would stay in memory."""

    object_id: int
    row: int
    message_id: str
    message: str
    envelope_bytes: int

    @classmethod
    def of(cls, batch: Batch, refused: Collection[tuple[int, int]]) -> "_Canary":
        """Take the first message of the batch that was not refused."""
        part, index = next(
            (part, index)
            for part in batch.parts
            for index in range(part.messages.height)
            if (part.object_id, part.messages["row"][index]) not in refused
        )
        row, message_id, message = (part.messages[name][index] for name in ("row", "message_id", "message"))
        return cls(part.object_id, row, message_id, message, batch.envelope_bytes)

    def batch(self) -> Batch:
        frame = pl.DataFrame(
            {"row": [self.row], "message_id": [self.message_id], "message": [self.message]},
            schema_overrides={"row": pl.UInt32},
        )
        size_bytes = self.envelope_bytes + len(self.message.encode())
        return Batch((Part(self.object_id, frame),), 1, size_bytes, self.envelope_bytes)
