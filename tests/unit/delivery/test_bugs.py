"""Mistakes of ours between what was read and what was acknowledged cost the objects of one batch a later try."""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl
import pytest

from currents_bridge.delivery import group, reading
from currents_bridge.delivery.progress import Work
from currents_bridge.model import Batch, Books, DeadLetter, Failed, ObjectState, Refusal
from currents_bridge.sending.packing import Packer
from tests.workbench import CLICK, OPEN, Bench, clicks, of_kind

DELIVERED, FAILED = ObjectState.DELIVERED, ObjectState.FAILED


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


@pytest.mark.parametrize("error", [TypeError("a secret"), pl.exceptions.PanicException("a secret")])
def test_a_bug_that_sends_a_batch_costs_the_objects_of_that_batch(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The others of their group are delivered. The exception's text is not kept."""
    keys = [bench.put(2, offset=offset) for offset in range(3)]
    send = bench.transport.send

    def buggy(batch: Batch) -> Sequence[Refusal]:
        if batch.parts[0].object_id == 2:
            raise error
        return send(batch)

    monkeypatch.setattr(bench.transport, "send", buggy)

    report = bench.deliver(max_batch_events=2)

    assert [bench.states_by_key()[key] for key in keys] == [DELIVERED, FAILED, DELIVERED]
    (failed,) = of_kind(report.settlements, Failed)
    assert failed.reason.startswith(f"a bug in currents-bridge: {type(error).__name__} in ")
    assert "a secret" not in failed.reason


def test_a_bug_that_counts_a_batch_costs_the_objects_of_that_batch(bench: Bench) -> None:
    """As where a refusal names a message that is not there: what was taken of it is sent again."""
    keys = [bench.put(2, offset=offset) for offset in range(2)]
    bench.transport.outcomes.append([Refusal(1, 99, "x", "odd")])

    bench.deliver(max_batch_events=2)

    assert [bench.states_by_key()[key] for key in keys] == [FAILED, DELIVERED]


@pytest.mark.parametrize(("where", "costs"), [("add_all", 1), ("flush", 2)])
def test_a_bug_that_packs_a_batch_costs_its_objects(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, where: str, costs: int
) -> None:
    """Nothing is settled that was not acknowledged, and the next attempts deliver it."""
    bench.put(2, offset=0, event_type=CLICK)
    bench.put(2, offset=1, event_type=OPEN)
    packed, bugs = getattr(Packer, where), iter([True])

    def buggy(packer: Packer, *owed: Any) -> Iterator[Batch]:
        if next(bugs, False):
            raise TypeError("a mistake")
        return packed(packer, *owed)  # type: ignore[no-any-return]

    monkeypatch.setattr(Packer, where, buggy)

    bench.deliver()

    assert bench.states().get(FAILED) == costs
    assert len(bench.sent_ids()) == 4 - 2 * costs
    for _ in range(2):
        bench.deliver()
    assert bench.states() == {DELIVERED: 2}
    assert len(set(bench.sent_ids())) == 4


def test_a_bug_with_what_an_object_owes_costs_that_object(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """And whatever left out a repeat of what it owes, until that was sent."""
    events = clicks(2)
    keys = [bench.put(events, offset=0), bench.put(events, offset=1), bench.put(2, offset=2)]
    bugs = iter([True])

    def buggy(**counts: int) -> Books:
        if next(bugs, False):
            raise TypeError("a mistake")
        return Books(**counts)

    monkeypatch.setattr(group, "Books", buggy)

    bench.deliver()

    assert [bench.states_by_key()[key] for key in keys] == [FAILED, FAILED, DELIVERED]
    for _ in range(2):
        bench.deliver()
    assert bench.states() == {DELIVERED: 3}
    assert len(set(bench.sent_ids())) == 4


@pytest.mark.usefixtures("small_slices")
def test_a_bug_of_a_checkpoint_costs_that_object(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not gone on with."""
    monkeypatch.setattr(group, "CHECKPOINT_EVENTS", 1)
    monkeypatch.setattr(reading, "SMALL_BYTES", 0)
    bad = bench.put(8, offset=0)
    bench.put(1, offset=1)
    bench.ledger.faults["checkpoint"] = ValueError("the books do not balance")

    bench.deliver(max_batch_events=1)

    assert bench.states_by_key()[bad] is FAILED
    assert bench.states()[DELIVERED] == 1
    assert len(bench.sent_ids()) < 9


@pytest.mark.parametrize("cut_bytes", [0, 50])
def test_a_bug_that_adds_up_an_object_costs_that_object(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, cut_bytes: int
) -> None:
    """Whether it was read to its end or not."""
    keys = [bench.put(2, offset=0, cut_bytes=cut_bytes), bench.put(2, offset=1)]
    letters, bugs = Work.letters, iter([True])

    def buggy(work: Work, *told: Any) -> list[DeadLetter]:
        if next(bugs, False):
            raise TypeError("a mistake")
        return letters(work, *told)

    monkeypatch.setattr(Work, "letters", buggy)

    bench.deliver()

    assert [bench.states_by_key()[key] for key in keys] == [FAILED, DELIVERED]


def test_a_bug_of_every_batch_is_told_and_costs_no_attempt(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """As an outage: no object is at fault."""
    for offset in range(3):
        bench.put(2, offset=offset)

    def buggy(_: Batch) -> Sequence[Refusal]:
        raise TypeError("a mistake")

    monkeypatch.setattr(bench.transport, "send", buggy)

    report = bench.connector().poll()

    assert "a bug in currents-bridge: TypeError in " in str(report.error)
    assert [row["attempts"] for row in bench.ledger.rows()] == [0] * 3
