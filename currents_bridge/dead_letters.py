"""`dead-letters replay`: send again what was set aside, once the reason is gone."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
import polars as pl

from currents_bridge.connector import Connector, event_type_of
from currents_bridge.decode import Slice
from currents_bridge.errors import QuarantineObjectError
from currents_bridge.model import Batch, DeadLetter, StoredDeadLetter
from currents_bridge.refusals import ObjectsDeniedError
from currents_bridge.sending import Sender

NOT_WHOLE = "the event was not kept whole: it is too large, or could not be read; `backfill --resend` reads it again"


@dataclass(slots=True)
class ReplayReport:
    """What became of the letters."""

    sent: int = 0
    refused: int = 0  # kept, with the new reason
    gone: int = 0  # replayed or purged by somebody else meanwhile
    reasons: Counter[str] = field(default_factory=Counter)  # why letters were refused again

    def __add__(self, other: "ReplayReport") -> "ReplayReport":
        counts = self.sent + other.sent, self.refused + other.refused, self.gone + other.gone
        return ReplayReport(*counts, self.reasons + other.reasons)

    def as_json(self) -> dict[str, int]:
        """Return the JSON document."""
        return {"sent": self.sent, "refused": self.refused, "gone": self.gone}


def replay(connector: Connector, letters: Sequence[StoredDeadLetter]) -> ReplayReport:
    """Map and send dead letters of the connector again, with their message ids; each counts once, however often.

    Raises CredentialError or RetryLaterError where the destination takes nothing: what was not acknowledged stays.
    """
    connector.raise_if_paused()
    report = ReplayReport()
    packer = connector.packer()

    def send(sender: Sender, batch: Batch) -> None:
        try:
            refused = {refusal.object_id: refusal.reason for refusal in sender.submit(batch).result()}
        except ObjectsDeniedError as error:
            refused = {refusal.object_id: refusal.reason for refusal in error.refusals}
            refused |= dict.fromkeys(error.object_ids, error.message)
        for part in batch.parts:
            _record(connector, part.object_id, refused.get(part.object_id), report)

    with connector.sender() as sender:
        for letter in letters:
            message, reason = _message(connector, letter)
            if reason:
                _record(connector, letter.id, reason, report)
                continue
            for batch in packer.add(letter.id, message):
                send(sender, batch)
        for batch in packer.flush():
            send(sender, batch)
    return report


def _message(connector: Connector, stored: StoredDeadLetter) -> tuple[pl.DataFrame, str]:
    """Return the letter's message as `packing` takes it, or why there is none."""
    letter = stored.letter
    if letter.message:
        frame = {"row": [letter.row], "message_id": [letter.message_id], "message": [letter.message]}
        return pl.DataFrame(frame, schema_overrides={"row": pl.UInt32}), ""
    piece = _piece(letter)
    if piece is None:
        return pl.DataFrame(), NOT_WHOLE
    try:
        mapped = connector.mapper.map(piece, event_type_of(stored.event_type), stored.object_key)
    except QuarantineObjectError as error:
        return pl.DataFrame(), error.reason
    if mapped.dead_letters:
        return pl.DataFrame(), mapped.dead_letters[0].reason
    return mapped.messages, "the user has no external_user_id" if mapped.skipped_anonymous else ""


def _piece(letter: DeadLetter) -> Slice | None:
    """Return the event as columns: texts, and JSON text of all else; None where it was not kept whole."""
    try:
        event = orjson.loads(letter.event)
    except orjson.JSONDecodeError:
        return None
    others = {name: orjson.dumps(v).decode() for name, v in event.items() if not isinstance(v, str | None)}
    columns = {name: [value] for name, value in (event | others).items()}
    return Slice(pl.DataFrame(columns, schema=dict.fromkeys(columns, pl.String)), letter.row, frozenset(others))


def _record(connector: Connector, letter_id: int, refusal: str | None, report: ReplayReport) -> None:
    if not connector.ledger.replayed(letter_id, refusal, connector.now(), remember=connector.remembers):
        report.gone += 1
    elif refusal is None:
        report.sent += 1
    else:
        report.refused += 1
        report.reasons[refusal] += 1
