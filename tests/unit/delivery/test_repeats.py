"""Events that stand twice in a group."""

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.delivery.progress import Repeats

parts = st.lists(st.lists(st.integers(0, 30).map(lambda n: f"event-{n}"), max_size=12), max_size=12)


def messages(ids: list[str]) -> pl.DataFrame:
    """Return messages with these ids."""
    return pl.DataFrame({"row": range(len(ids)), "message_id": ids}, schema={"row": pl.UInt32, "message_id": pl.String})


@given(parts=parts, most_kept=st.integers(0, 40))
def test_each_id_is_left_once_however_few_are_kept_as_they_are(parts: list[list[str]], most_kept: int) -> None:
    """The first of them, in order: as a plain set has it."""
    repeats = Repeats(most_kept)
    seen: set[str] = set()
    for ids in parts:
        wanted = [row for row, id_ in enumerate(ids) if id_ not in seen and id_ not in ids[:row]]
        seen |= set(ids)
        assert repeats.leave_out(messages(ids))["row"].to_list() == wanted


def test_so_many_ids_are_kept_as_they_are_and_no_more() -> None:
    """An object of a million events must not cost 140 MB for its ids."""
    repeats = Repeats(1_000)
    for first in range(0, 20_000, 500):
        assert repeats.leave_out(messages([f"event-{n}" for n in range(first, first + 500)])).height == 500
        assert len(repeats._seen) <= 1_000
    assert not repeats.leave_out(messages([f"event-{n}" for n in range(0, 20_000, 7)])).height
