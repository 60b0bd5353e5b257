"""`dead-letters replay`: send again what was set aside, once the reason is gone."""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import orjson
import polars as pl

from currents_bridge.connector import Connector, event_type_of
from currents_bridge.errors import QuarantineObjectError
from currents_bridge.events.mapping import Mapped, Origin
from currents_bridge.model import Batch, DeadLetter, LetterFilter, Part, StoredDeadLetter
from currents_bridge.sending.bisect import ObjectsDeniedError
from currents_bridge.sending.sender import Sender
from currents_bridge.text import cause_of

LETTERS_AT_ONCE = 500  # of up to 96 KB each
_Shape = tuple[str, tuple[str, ...]]  # event type, columns
NOT_WHOLE = "the event was not kept whole: it is too large, or could not be read; `backfill --resend` reads it again"


@dataclass(slots=True)
class ReplayReport:
    """What became of the letters."""

    sent: int = 0
    refused: int = 0  # kept, with the new reason
    gone: int = 0  # replayed or purged by somebody else meanwhile
    reasons: Counter[str] = field(default_factory=Counter, compare=False)  # causes, of refused ones

    def __add__(self, other: "ReplayReport") -> "ReplayReport":
        counts = self.sent + other.sent, self.refused + other.refused, self.gone + other.gone
        return ReplayReport(*counts, self.reasons + other.reasons)

    def as_json(self) -> dict[str, int]:
        """Return the JSON document."""
        return {"sent": self.sent, "refused": self.refused, "gone": self.gone}


def replay_all(connector: Connector, which: LetterFilter) -> ReplayReport:
    """Replay the connector's letters page by page: memory does not grow with their number; raises as `replay`."""
    report, after = ReplayReport(), 0
    of_connector = replace(which, connector=connector.name)
    while letters := connector.ledger.dead_letters(of_connector, LETTERS_AT_ONCE, after):
        report += replay(connector, letters)
        after = letters[-1].id
    return report


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
        _record(connector, {part.object_id: refused.get(part.object_id) for part in batch.parts}, report)

    owed, refused = _messages(connector, letters)
    if refused:
        _record(connector, refused, report)
    with connector.sender() as sender:
        for batch in packer.add_all([Part(id_, owed[id_]) for id_ in sorted(owed)]):
            send(sender, batch)
        for batch in packer.flush():
            send(sender, batch)
    return report


def _messages(
    connector: Connector, letters: Sequence[StoredDeadLetter]
) -> tuple[dict[int, pl.DataFrame], dict[int, str | None]]:
    """Return the letters' messages as `packing` takes them, and why others have none, by the ids of the letters.

    Events that are alike are mapped together, since a mapping costs a millisecond however few they are.
    """
    owed: dict[int, pl.DataFrame] = {}
    refused: dict[int, str | None] = {}
    alike: defaultdict[_Shape, list[tuple[StoredDeadLetter, dict[str, Any]]]] = defaultdict(list)
    for stored in letters:
        letter = stored.letter
        if letter.message:
            frame = {"row": [letter.row], "message_id": [letter.message_id], "message": [letter.message]}
            owed[stored.id] = pl.DataFrame(frame, schema_overrides={"row": pl.UInt32})
        elif (event := _event(letter)) is None:
            refused[stored.id] = NOT_WHOLE
        else:
            alike[stored.event_type, tuple(event)].append((stored, event))
    for shape, group in alike.items():
        for stored, outcome in zip((stored for stored, _ in group), _mapped(connector, shape, group), strict=True):
            if isinstance(outcome, str):
                refused[stored.id] = outcome
            else:
                owed[stored.id] = outcome
    return owed, refused


def _mapped(
    connector: Connector, shape: "_Shape", group: Sequence[tuple[StoredDeadLetter, dict[str, Any]]]
) -> Sequence[pl.DataFrame | str]:
    """Return the message of each event, or why there is none; where they cannot be mapped together, each alone."""
    event_type, names = shape
    others = frozenset(name for _, event in group for name in names if not isinstance(event[name], str | None))
    if any(isinstance(event[name], str) for _, event in group for name in others):  # text and JSON text side by side
        return [_mapped(connector, shape, [one])[0] for one in group]
    columns = {name: [_text(event[name]) for _, event in group] for name in names}
    events = pl.DataFrame(columns, schema=dict.fromkeys(names, pl.String))
    origins = [Origin(stored.object_key, stored.letter.row, 1) for stored, _ in group]
    try:
        mapped = connector.mapper.map_together(events, event_type_of(event_type), origins, json_fields=others)
    except QuarantineObjectError as error:
        return [error.reason] if len(group) == 1 else [_mapped(connector, shape, [one])[0] for one in group]
    return [_outcome(one) for one in mapped]


def _outcome(mapped: Mapped) -> pl.DataFrame | str:
    if mapped.dead_letters:
        return mapped.dead_letters[0].reason
    return "the user has no external_user_id" if mapped.skipped_anonymous else mapped.messages


def _event(letter: DeadLetter) -> dict[str, Any] | None:
    """Return the event; None where it was not kept whole."""
    try:
        event = orjson.loads(letter.event)
    except orjson.JSONDecodeError:
        return None
    return event if isinstance(event, dict) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str | None) else orjson.dumps(value).decode()


def _record(connector: Connector, refusals: Mapping[int, str | None], report: ReplayReport) -> None:
    there = connector.ledger.replayed(refusals, connector.now(), remember=connector.remembers)
    refused = [refusal for letter_id in there if (refusal := refusals[letter_id]) is not None]
    report.sent += len(there) - len(refused)
    report.refused += len(refused)
    report.reasons.update(map(cause_of, refused))
    report.gone += len(refusals) - len(there)
