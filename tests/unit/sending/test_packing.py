"""Packing: batches in order, nothing lost or doubled, within the limits."""

from itertools import pairwise

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.model import Batch, Part
from currents_bridge.sending.packing import Packer, halves

ENVELOPE_BYTES = 20

Objects = list[list[str]]
texts = st.text(st.characters(codec="utf-8", exclude_characters=","), min_size=1, max_size=40)


def frame(messages: list[str], first_row: int = 0) -> pl.DataFrame:
    """Return messages as mapping hands them over."""
    return pl.DataFrame(
        {
            "row": pl.Series(range(first_row, first_row + len(messages)), dtype=pl.UInt32),
            "message_id": pl.Series([f"id-{i}" for i in range(len(messages))], dtype=pl.String),
            "message": pl.Series(messages, dtype=pl.String),
        }
    )


def pack(objects: Objects, *, max_bytes: int = 1000, max_events: int = 7) -> list[Batch]:
    """Return the batches of objects, numbered from 0, packed one after the other."""
    packer = Packer(max_bytes=max_bytes, max_events=max_events, envelope_bytes=ENVELOPE_BYTES)
    batches = [batch for number, messages in enumerate(objects) for batch in packer.add(number, frame(messages))]
    return [*batches, *packer.flush()]


def contents(batches: list[Batch]) -> list[tuple[int, int, str]]:
    """Return (object, row, message) of everything in the batches, in order."""
    return [
        (part.object_id, row, message)
        for batch in batches
        for part in batch.parts
        for row, _, message in part.messages.iter_rows()
    ]


@given(st.lists(st.lists(texts, max_size=30), max_size=8), st.integers(200, 400), st.integers(1, 9))
def test_packing_loses_doubles_and_reorders_nothing(objects: Objects, max_bytes: int, max_events: int) -> None:
    """Batches hold exactly the messages that went in, in their order."""
    batches = pack(objects, max_bytes=max_bytes, max_events=max_events)
    given_in = [(number, row, text) for number, messages in enumerate(objects) for row, text in enumerate(messages)]
    assert contents(batches) == given_in


@given(st.lists(st.lists(texts, max_size=30), max_size=8), st.integers(200, 400), st.integers(1, 9))
def test_no_batch_exceeds_a_limit(objects: Objects, max_bytes: int, max_events: int) -> None:
    """Each batch states its exact serialised size and count, and both are within the limits."""
    for batch in pack(objects, max_bytes=max_bytes, max_events=max_events):
        messages = [message for part in batch.parts for message in part.messages["message"]]
        assert batch.size_bytes == ENVELOPE_BYTES + len(",".join(messages).encode()) <= max_bytes
        assert batch.events == len(messages) <= max_events


@given(st.lists(st.lists(texts, max_size=30), max_size=8))
def test_a_batch_ends_only_where_the_next_message_does_not_fit(objects: Objects) -> None:
    """Batches are as full as the limits allow, across objects."""
    batches = pack(objects, max_bytes=300, max_events=9)
    for batch, following in pairwise(batches):
        next_bytes = len(following.parts[0].messages["message"][0].encode())
        assert batch.events == 9 or batch.size_bytes + 1 + next_bytes > 300


@given(st.lists(st.lists(texts, max_size=30), max_size=8), st.integers(200, 400), st.integers(1, 9))
def test_objects_that_come_together_are_packed_as_if_one_came_after_the_other(
    objects: Objects, max_bytes: int, max_events: int
) -> None:
    """The same batches, with the same sizes."""
    packer = Packer(max_bytes=max_bytes, max_events=max_events, envelope_bytes=ENVELOPE_BYTES)
    together = list(packer.add_all([Part(number, frame(messages)) for number, messages in enumerate(objects)]))
    together += packer.flush()

    alone = pack(objects, max_bytes=max_bytes, max_events=max_events)
    assert [contents([batch]) for batch in together] == [contents([batch]) for batch in alone]
    assert [(batch.events, batch.size_bytes) for batch in together] == [(b.events, b.size_bytes) for b in alone]


def test_small_objects_share_a_batch() -> None:
    """Requests grow with bytes, not with objects."""
    (batch,) = pack([["a"], ["b"], ["c"]])
    assert [part.object_id for part in batch.parts] == [0, 1, 2]


def test_a_message_of_exactly_the_room_fits() -> None:
    """The limit itself is allowed."""
    (batch,) = pack([["x" * 80]], max_bytes=100)
    assert batch.size_bytes == 100


def test_a_message_larger_than_any_batch_is_a_mistake() -> None:
    """Mapping keeps such messages out; packing refuses them rather than loop or lose them."""
    with pytest.raises(ValueError, match="row 1 of object 0 is larger than a batch"):
        pack([["ok", "x" * 81]], max_bytes=100)


def test_nothing_makes_no_batch() -> None:
    """Objects without messages cost no request."""
    assert pack([[], []]) == []


@given(st.lists(st.lists(texts, max_size=30), max_size=8))
def test_halves_hold_the_batch_in_order_with_exact_sizes(objects: Objects) -> None:
    """Nothing is lost, doubled or reordered, neither half is empty, and no part is."""
    for batch in pack(objects, max_events=9):
        if batch.events == 1:
            continue
        first, second = halves(batch)
        assert contents([first, second]) == contents([batch])
        assert abs(first.events - second.events) <= 1
        for half in (first, second):
            messages = [message for part in half.parts for message in part.messages["message"]]
            assert half.events == len(messages) > 0
            assert half.size_bytes == ENVELOPE_BYTES + len(",".join(messages).encode())
            assert all(part.messages.height for part in half.parts)


def test_a_single_message_has_no_halves() -> None:
    """Halving it would go on for ever."""
    (batch,) = pack([["a"]])
    with pytest.raises(ValueError, match="cannot be halved"):
        halves(batch)
