"""From columns to Segment track messages, in the shape of Braze's own Segment connector.

A plan of column expressions is made once per event type and file schema; a slice of events then becomes a column of
encoded messages without touching single events. Only types with `merge_json_field`, and fields that hold nested
values, pay for a loop over their events.
"""

import hashlib
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from operator import itemgetter

import polars as pl

from currents_bridge.avro.container import Slice
from currents_bridge.errors import QuarantineObjectError
from currents_bridge.events.catalogue import EventType
from currents_bridge.events.plan import (
    MARK,
    MAX_MESSAGE_BYTES,
    ORIGIN,
    ROW,
    UNREADABLE,
    AnonymousUsers,
    Fates,
    MappingRules,
    Plan,
    Properties,
    named,
)
from currents_bridge.model import DeadLetter

__all__ = ["MAX_MESSAGE_BYTES", "AnonymousUsers", "Mapped", "Mapper", "MappingRules", "Origin", "Properties"]

MAX_GUILTY_EVENTS = 100  # of a run, each of which costs some dozen tries; more of them are no single events' fault
_KEPT_PLANS = 128  # more than the types of Currents; a plan for 40 fields takes 70 KB
_KEPT_PLAN_FIELDS = 256  # Currents has 60 at most; a plan for more is made anew each time

Columns = tuple[tuple[str, pl.DataType], ...]


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a run of events stands: so many, from a row of an object on."""

    object_key: str
    first_row: int
    height: int
    rewinds: int = 0  # times that the object went back to be sent again


@dataclass(frozen=True, slots=True)
class Mapped:
    """What a run of events became; each event is in exactly one of the three."""

    messages: pl.DataFrame  # row: u32, message_id: str, message: str
    skipped_anonymous: int
    dead_letters: Sequence[DeadLetter]


class Mapper:
    """Maps slices of one connector; keeps the plans of the latest event types and schemas. Thread-safe."""

    def __init__(self, rules: MappingRules) -> None:
        self._rules = rules
        self._known_plan = lru_cache(_KEPT_PLANS)(self._plan)

    def map(self, piece: Slice, event_type: EventType, object_key: str) -> Mapped:
        """Return the messages that a slice of the object owes; raises as `map_together`."""
        origin = Origin(object_key, piece.first_row, piece.events.height)
        (mapped,) = self.map_together(
            piece.events, event_type, [origin], json_fields=piece.json_fields, unreadable=piece.unreadable
        )
        return mapped

    def map_together(
        self,
        events: pl.DataFrame,
        event_type: EventType,
        origins: Sequence[Origin],
        *,
        json_fields: frozenset[str] = frozenset(),
        unreadable: Sequence[tuple[int, str]] = (),
    ) -> Sequence[Mapped]:
        """Return what each of several objects owes whose events follow each other in one frame.

        A plan costs a millisecond however few events there are, so small objects are best mapped together.
        `json_fields` and `unreadable` are as in Slice. What goes wrong for single events makes them dead letters;
        raises QuarantineObjectError for a foreign schema, and one that no event can be mapped by.
        """
        plan_of = self._known_plan if events.width <= _KEPT_PLAN_FIELDS else self._plan
        plan = plan_of(event_type, tuple(events.schema.items()), json_fields)
        places = _places(origins, unreadable)
        fates = _Tries(plan).fates(events, places)
        return _apart(origins, fates)

    def _plan(self, event_type: EventType, columns: Columns, json_fields: frozenset[str]) -> Plan:
        return Plan(event_type, pl.Schema(columns), json_fields, self._rules)


class _Tries:
    """Maps a run whole, or where that fails halves of it, down to the events that cannot be mapped."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._failed = False
        self._guilty = 0

    def fates(self, events: pl.DataFrame, places: pl.DataFrame) -> Fates:
        """Return what becomes of the events; raises QuarantineObjectError where it is not about single ones."""
        try:
            return self._plan.apply(events, places)
        except (QuarantineObjectError, MemoryError):
            raise
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - a panic is a BaseException
            if not self._failed:
                self._failed = True
                self._check_schema(events, places)
            return self._halves(events, places, error)

    def _halves(self, events: pl.DataFrame, places: pl.DataFrame, error: BaseException) -> Fates:
        if events.height > 1:
            half = events.height // 2
            first, second = ((events.head(half), places.head(half)), (events.slice(half), places.slice(half)))
            return self.fates(*first) + self.fates(*second)
        self._guilty += 1
        if self._guilty > MAX_GUILTY_EVENTS:
            raise QuarantineObjectError(f"more than {MAX_GUILTY_EVENTS} events cannot be mapped: {named(error)}")
        return self._plan.given_up(events, places, error)

    def _check_schema(self, events: pl.DataFrame, places: pl.DataFrame) -> None:
        """Raise QuarantineObjectError where not even no events at all can be mapped."""
        try:
            self._plan.apply(events.clear(), places.clear())
        except (Exception, pl.exceptions.PanicException) as error:
            raise QuarantineObjectError(f"cannot be mapped: {named(error)}") from error


def _places(origins: Sequence[Origin], unreadable: Sequence[tuple[int, str]]) -> pl.DataFrame:
    """Return where each event stands: row, digest of the object's key, mark of its id, why it is unreadable."""
    rows = [row for origin in origins for row in range(origin.first_row, origin.first_row + origin.height)]
    digests = [hashlib.sha256(origin.object_key.encode()).hexdigest()[:32] for origin in origins]
    marks = [f"-r{origin.rewinds}" if origin.rewinds else "" for origin in origins]
    reasons: list[str | None] = [None] * len(rows)
    for place, reason in unreadable:
        reasons[place] = reason
    return pl.DataFrame(
        {
            ROW: pl.Series(rows, dtype=pl.UInt32),
            ORIGIN: _for_each_event(digests, origins),
            MARK: _for_each_event(marks, origins),
            UNREADABLE: pl.Series(reasons, dtype=pl.String),
        }
    )


def _for_each_event(texts: Sequence[str], origins: Sequence[Origin]) -> pl.Series:
    """Return a column that repeats each object's text for each of its events."""
    repeated = [t for text, origin in zip(texts, origins, strict=True) for t in [text] * origin.height]
    return pl.Series(repeated, dtype=pl.String)


def _apart(origins: Sequence[Origin], fates: Fates) -> list[Mapped]:
    """Give each object its own."""
    mapped = []
    ends = list(accumulate(origin.height for origin in origins))
    first_message = first_skipped = first_letter = 0
    for end, messages_end, skipped_end in zip(
        ends, _through(fates.sent, ends), _through(fates.skipped, ends), strict=True
    ):
        letters_end = bisect_left(fates.dead, end, key=itemgetter(0))
        mapped.append(
            Mapped(
                fates.messages.slice(first_message, messages_end - first_message),
                skipped_end - first_skipped,
                [letter for _, letter in fates.dead[first_letter:letters_end]],
            )
        )
        first_message, first_skipped, first_letter = messages_end, skipped_end, letters_end
    return mapped


def _through(mask: pl.Series, ends: Sequence[int]) -> list[int]:
    """Return how many are true before each of the ascending places."""
    counts = mask.cum_sum()
    return [counts[end - 1] if end else 0 for end in ends]
