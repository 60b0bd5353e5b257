"""Which part of a refused batch is at fault, and whether it is the batch at all.

Segment answers 400 to a whole request for one bad value, but also to a key of an odd shape; a gateway may answer 403 to
what it does not like in a request, and to any request. So a refused batch is halved until the refused messages stand
alone, a denied one until the denied objects do; and both count as theirs only once the destination was seen to take
another message later. Else the destination is at fault, and nothing is set aside.
"""

import threading
from collections.abc import Callable, Collection, Sequence

import polars as pl

from currents_bridge.errors import CredentialError, RefusedError, RetryLaterError, Side
from currents_bridge.model import Batch, Canary, Part, Refusal
from currents_bridge.sending.packing import halves, halves_by_object

PATIENCE = 8  # messages of one batch refused alone before the destination has to prove itself

_NO_OBJECT = -1  # id of what is sent once more
_HINT = "check the write key, destination.region and destination.endpoint_url; nothing was set aside"


class ObjectsDeniedError(RetryLaterError):
    """Segment denies what some objects of a batch hold, as a gateway may, and takes all the rest of it.

    `object_ids` are these objects; `refusals` the messages of the others that were refused for what they are.
    """

    def __init__(self, message: str, object_ids: Collection[int], refusals: Sequence[Refusal]) -> None:
        super().__init__(message, "see what on the way to Segment denies this object; it is tried again")
        self.object_ids = frozenset(object_ids)
        self.refusals = refusals


class Proof:
    """What one destination has shown in one pass, shared by all its batches. Thread-safe.

    Time is counted in refusals: an acknowledgement proves all refusals before its request began.

    Args:
        canary: what the destination took in an earlier pass, if that is known. Segment drops the repeat by its id.
        needed: False: without a canary, a refusal counts as the message's own all the same.

    Attributes:
        unproven: objects whose messages were refused alone while no message was ever acknowledged.
    """

    def __init__(self, canary: Canary | None = None, *, needed: bool = True) -> None:
        self._lock = threading.Lock()
        self._refusals = 0
        self._proven = 0  # all refusals up to this one
        self._canary = canary
        self._needed = needed
        self.unproven: frozenset[int] = frozenset()

    def now(self) -> int:
        """Return how many refusals there were by now."""
        return self._refusals

    def refused(self) -> int:
        """Take in that a message was refused alone, or a batch denied; returns the number of this refusal, from 1."""
        with self._lock:
            self._refusals += 1
            return self._refusals

    def acknowledged(self, batch: Batch, refusals: Sequence[Refusal], began: int) -> None:
        """Take in that a batch was acknowledged, but for the refusals, by a request that began at `began` (`now`)."""
        if len(refusals) == batch.events:
            return  # a client library refused them all, without a request
        canary = _canary_of(batch, {(refusal.object_id, refusal.row) for refusal in refusals})
        with self._lock:
            self._canary = canary
        self.prove(began)

    def prove(self, began: int) -> None:
        """Take in that the destination took some message by a request that began at `began` (`now`)."""
        with self._lock:
            self._proven = max(self._proven, began)

    def proves(self, refusal: int) -> bool:
        """Return whether the destination took a message by a request that began after that refusal."""
        return refusal <= self._proven

    @property
    def canary(self) -> Canary | None:
        """The message that was acknowledged last, if there is one."""
        return self._canary

    @property
    def needed(self) -> bool:
        """Whether a refusal needs proof where no message was ever acknowledged."""
        return self._needed


def deliver(batch: Batch, send: Callable[[Batch], Sequence[Refusal]], proof: Proof) -> Sequence[Refusal]:
    """Send a batch, where it is refused in ever smaller parts; return the messages that are bad for sure.

    All others are acknowledged. A batch of n messages, k of them bad, costs at most 1 + 2k log2(n) requests, and one
    more for every PATIENCE bad messages and at the end. One of n objects, k of them denied, costs two for each k and
    halving, and a canary for each denial.

    Args:
        batch: any batch.
        send: sends one, as ports.Transport.send.
        proof: what is known of the destination.

    Raises:
        ObjectsDeniedError: the destination denies some of the objects, and works.
        CredentialError: it takes nothing else, neither its canary; or there is none, so that it may be the destination
            or the batch. Like the errors of `send`, it means that none of the batch counts as acknowledged or refused.
    """
    refusals: list[Refusal] = []
    denials: dict[int, str] = {}
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
            answer, latest, unproven = error.message, proof.refused(), unproven + 1
            refusals.append(_refusal(part, answer))
        except CredentialError as error:
            _prove_against(error, proof, send)
            if len({piece.object_id for piece in part.parts}) > 1:
                waiting += reversed(halves_by_object(part))
                continue
            denials[part.parts[0].object_id] = error.message
        else:
            proof.acknowledged(part, refused, began)
            refusals += refused
        if proof.proves(latest):
            unproven = 0
        elif unproven >= PATIENCE or not waiting:
            _prove(proof, send, answer, refusals)
            unproven = 0
    if denials:
        reasons = "; ".join(dict.fromkeys(denials.values()))
        others = [refusal for refusal in refusals if refusal.object_id not in denials]
        raise ObjectsDeniedError(f"{reasons}; other messages are taken", denials.keys(), others)
    return refusals


def _prove_against(error: CredentialError, proof: Proof, send: Callable[[Batch], Sequence[Refusal]]) -> None:
    """Return if the destination takes its canary after all; raises the denial where it does not, or has none."""
    denial = proof.refused()
    if proof.canary is None:
        raise error
    try:
        _send_canary(proof.canary, proof, send)
    except (CredentialError, RefusedError):
        raise error from None
    if not proof.proves(denial):
        raise error


def _prove(proof: Proof, send: Callable[[Batch], Sequence[Refusal]], answer: str, refusals: Sequence[Refusal]) -> None:
    """Return if the destination takes its canary; raises as `deliver`."""
    if proof.canary is None:
        if not proof.needed:
            return
        proof.unproven |= {refusal.object_id for refusal in refusals}
        why = f"Segment refuses every message so far, be it for the data or for the key ({answer})"
        raise CredentialError(Side.DESTINATION, why, _HINT)
    try:
        _send_canary(proof.canary, proof, send)
    except RefusedError as error:
        why = f"Segment refuses even a message that it took before: {error.message}"
        raise CredentialError(Side.DESTINATION, why, _HINT) from error


def _send_canary(canary: Canary, proof: Proof, send: Callable[[Batch], Sequence[Refusal]]) -> None:
    """Send it once more. It stays the canary of its first time: Segment drops repeats for about a day from then on."""
    began = proof.now()
    if not send(batch_of(canary)):
        proof.prove(began)


def _refusal(alone: Batch, reason: str) -> Refusal:
    [(object_id, row)] = [(part.object_id, part.messages.row(0, named=True)) for part in alone.parts]
    return Refusal(object_id, row["row"], row["message_id"], reason)


def _canary_of(batch: Batch, refused: Collection[tuple[int, int]]) -> Canary:
    """Return the first message of the batch that was not refused, without the batch, which would stay in memory."""
    part, index = next(
        (part, index)
        for part in batch.parts
        for index in range(part.messages.height)
        if (part.object_id, part.messages["row"][index]) not in refused
    )
    return Canary(part.messages["message_id"][index], part.messages["message"][index])


def batch_of(canary: Canary) -> Batch:
    """Return the message as a batch of its own, of no object."""
    frame = pl.DataFrame(
        {"row": [0], "message_id": [canary.message_id], "message": [canary.message]},
        schema_overrides={"row": pl.UInt32},
    )
    return Batch((Part(_NO_OBJECT, frame),), 1, len(canary.message.encode()), 0)
