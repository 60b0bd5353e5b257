"""What one event does to the mapping costs that event; what many schemas do costs little memory."""

import json
from collections.abc import Sequence
from typing import Any

import polars as pl
import pytest

from currents_bridge.avro.container import Slice
from currents_bridge.errors import QuarantineObjectError
from currents_bridge.events import plan
from currents_bridge.events.catalogue import catalogue, general_event_type
from currents_bridge.events.custom_properties import merged
from currents_bridge.events.mapping import MAX_GUILTY_EVENTS, Mapped, Mapper, MappingRules, Origin
from currents_bridge.model import KEPT_EVENT_BYTES, DeadLetter, ObjectState
from tests.workbench import Bench, clicks

CUSTOM = catalogue()["users.behaviors.CustomEvent"]
PERSON = {"id": "e1", "user_id": "u1", "external_user_id": "x1", "time": 1767322800, "name": "n", "properties": "{}"}
RULES = MappingRules(library_version="1")


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def custom_events(texts: list[str]) -> pl.DataFrame:
    """Return custom events with such properties, each with an id of its own."""
    return pl.DataFrame([PERSON | {"id": f"e{at}", "properties": text} for at, text in enumerate(texts)])


def mapped(texts: list[str]) -> Mapped:
    """Map custom events."""
    return Mapper(RULES).map(Slice(custom_events(texts), 10), CUSTOM, "key")


def rows(found: Mapped) -> Sequence[int]:
    """Return the rows of the dead letters."""
    return [letter.row for letter in found.dead_letters]


@pytest.fixture
def poison(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the merging raise for events whose properties say so; gives the number of events of each try."""
    tries: list[int] = []

    def raising(properties: pl.Series, texts: pl.Series, names: frozenset[str]) -> pl.Series:
        tries.append(texts.len())
        for name, error in (("poison", RecursionError("too deep")), ("panic", pl.exceptions.PanicException("boom"))):
            if texts.str.contains(name).any():
                raise error
        return merged(properties, texts, names)

    monkeypatch.setattr("currents_bridge.events.plan.merged", raising)
    return tries


@pytest.mark.parametrize("levels", [260, 400])
def test_a_deep_custom_event_arrives_with_all_others(levels: int) -> None:
    """An encoder would end at 254 levels, and the whole slice with it."""
    deep = '{"a":' * levels + "1" + "}" * levels
    found = mapped(['{"cups":1}'] * 35 + [deep] + ['{"cups":2}'] * 34)
    assert (found.messages.height, list(found.dead_letters)) == (70, [])
    assert deep[1:-1] in found.messages["message"][35]


@pytest.mark.parametrize("name", ["poison", "panic"])
def test_an_event_that_cannot_be_mapped_is_a_dead_letter_with_the_exceptions_name(name: str, poison: list[int]) -> None:
    """It costs itself only, by halves, and is kept as it was read."""
    texts = ['{"cups":1}'] * 100
    texts[37] = f'{{"{name}":1}}'
    found = mapped(texts)
    (letter,) = found.dead_letters
    assert found.messages["row"].to_list() == [10 + at for at in range(100) if at != 37]
    assert letter.row == 47
    assert letter.reason.startswith(
        ("cannot be mapped: RecursionError: too deep", "cannot be mapped: PanicException: ")
    )
    assert json.loads(letter.event) == PERSON | {"id": "e37", "properties": texts[37]}
    assert len(poison) < 40


@pytest.mark.usefixtures("poison")
def test_each_object_of_a_run_has_its_own_guilty_events() -> None:
    """With the rows that they have there; skipped and refused ones beside them stay what they are."""
    frame = custom_events(["{}", '{"poison":1}', "{}", '{"poison":2}', "{}"])
    frame = frame.with_columns(pl.Series("external_user_id", ["a", "b", None, "d", "e"]))
    frame = frame.with_columns(pl.Series("time", [1767322800] * 4 + [0]))
    first, second = Mapper(RULES).map_together(frame, CUSTOM, [Origin("one", 0, 2), Origin("two", 5, 3)])
    assert (first.messages.height, first.skipped_anonymous, rows(first)) == (1, 0, [1])
    assert (second.messages.height, second.skipped_anonymous, rows(second)) == (
        0,
        1,
        [6, 7],
    )


@pytest.mark.usefixtures("poison")
def test_more_guilty_events_than_some_are_the_objects_trouble() -> None:
    """Each costs a dozen tries, and a bug that hits them all is no dead letter for each."""
    assert len(mapped(['{"poison":1}'] * MAX_GUILTY_EVENTS + ["{}"]).dead_letters) == MAX_GUILTY_EVENTS
    with pytest.raises(QuarantineObjectError, match="more than 100 events cannot be mapped: RecursionError"):
        mapped(['{"poison":1}'] * (MAX_GUILTY_EVENTS + 1))


def test_a_schema_that_nothing_can_be_mapped_by_is_the_objects_trouble() -> None:
    """It is found out at once, whatever the number of events."""
    events = custom_events(["{}"] * 1000).with_columns(pl.Series("ad_id", [object()] * 1000, dtype=pl.Object))
    with pytest.raises(QuarantineObjectError, match="cannot be mapped: "):
        Mapper(RULES).map(Slice(events, 0), CUSTOM, "key")


def test_memory_that_is_missing_is_nobodys_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be there the next time."""

    def full(*_: Any) -> None:
        raise MemoryError

    monkeypatch.setattr(plan.Plan, "apply", full)
    with pytest.raises(MemoryError):
        mapped(["{}"])


def test_what_could_not_be_read_is_a_dead_letter_whoever_it_is_of() -> None:
    """Also where users without an external id are skipped."""
    events = custom_events(["{}"] * 3).with_columns(external_user_id=pl.lit(None, dtype=pl.String))
    found = Mapper(RULES).map(Slice(events, 0, unreadable=[(1, "an odd byte")]), CUSTOM, "key")
    assert found.skipped_anonymous == 2
    (letter,) = found.dead_letters
    assert (letter.row, letter.reason) == (1, "an odd byte")
    assert letter.event.endswith('"properties":"{}"}… (the rest could not be read)')


def test_a_deep_custom_event_among_files_of_other_types_costs_nobody(bench: Bench) -> None:
    """All of what was claimed with it arrives."""
    bench.include = ("supported", CUSTOM.name)
    bench.put(60)
    people = clicks(9, event_type=CUSTOM.name)
    people[4]["properties"] = '{"a":' * 260 + "1" + "}" * 260
    bench.put(people, event_type=CUSTOM.name)
    bench.connector().poll()
    assert (len(bench.sent_ids()), bench.states()) == (69, {ObjectState.DELIVERED: 2})


def test_plans_of_old_schemas_are_forgotten() -> None:
    """Each file may have a new one."""
    mapper = Mapper(RULES)
    event_type = general_event_type("users.new.Thing")
    for number in range(300):
        mapper.map(Slice(pl.DataFrame([PERSON | {f"x{number}": 1}]), 0), event_type, "key")
    assert mapper._known_plan.cache_info().currsize == 128
    wide = PERSON | {f"x{number}": 1 for number in range(300)}
    mapper.map(Slice(pl.DataFrame([wide]), 0), event_type, "key")
    assert mapper._known_plan.cache_info().misses == 300


def test_a_known_schema_is_planned_once() -> None:
    """Which is most of the cost of small files."""
    mapper = Mapper(RULES)
    for _ in range(3):
        mapper.map(Slice(custom_events(["{}"]), 0), CUSTOM, "key")
        mapper.map(Slice(pl.DataFrame([PERSON]), 0), general_event_type("users.new.Thing"), "key")
    assert mapper._known_plan.cache_info().misses == 2


def test_of_a_large_event_the_beginning_is_kept() -> None:
    """With a mark, cut between characters; what fits is kept whole."""
    whole = DeadLetter.of_event(1, "id", "why", "é" * (KEPT_EVENT_BYTES // 2))
    cut = DeadLetter.of_event(1, "i" * 10_000, "why", "x" + "é" * KEPT_EVENT_BYTES)
    assert whole.event == "é" * (KEPT_EVENT_BYTES // 2)
    assert cut.event == "x" + "é" * (KEPT_EVENT_BYTES // 2 - 1) + "… (cut)"
    assert len(cut.message_id) < 300


def test_a_dead_letter_is_bounded_whatever_its_event_holds() -> None:
    """Text, id, and the reason that quotes a value."""
    events = pl.DataFrame([PERSON | {"id": "i" * 10**6, "time": "9" * 10**6, "name": "n" * 10**6}])
    (letter,) = Mapper(RULES).map(Slice(events, 0), CUSTOM, "key").dead_letters
    assert sum(map(len, (letter.event, letter.message_id, letter.reason))) < KEPT_EVENT_BYTES + 1000


@pytest.mark.parametrize(
    ("value", "json_fields"),
    [("\1" * 500_000, ()), (["\1" * 250_000] * 2, ()), ('{"k":"' + "x" * 1_100_000 + '"}', ("odd",))],
    ids=["text", "array", "JSON"],
)
def test_the_message_of_an_event_that_is_far_too_large_is_not_even_made(value: Any, json_fields: Sequence[str]) -> None:
    """It would take many times as much; those beside it are sent, and its letter begins as the event does."""
    events = pl.DataFrame([PERSON | {"odd": odd} for odd in (None, value, None)], infer_schema_length=None)

    found = Mapper(RULES).map(Slice(events, 10, frozenset(json_fields)), general_event_type("x.Y"), "key")

    assert found.messages["row"].to_list() == [10, 12]
    (letter,) = found.dead_letters
    assert letter.row == 11
    assert letter.reason == "the event is far too large for a message, of which Segment takes 32768 bytes"
    assert letter.event.startswith('{"id":"e1"')
    assert KEPT_EVENT_BYTES < len(letter.event.encode()) < KEPT_EVENT_BYTES + 20


def test_a_large_field_that_no_message_holds_does_not_matter() -> None:
    """Only what would be sent counts: a field of no property may be of any size."""
    click = catalogue()["users.messages.email.Click"]
    events = pl.DataFrame([PERSON | {"unknown_field": "x" * 500_000}])

    assert Mapper(RULES).map(Slice(events, 0), click, "key").messages.height == 1
