"""An event type that the rules leave out while its objects wait."""

from datetime import timedelta

import pytest

from currents_bridge.alerts.rules import conditions
from currents_bridge.delivery.workers import TransferReport
from currents_bridge.model import NoticeKind, ObjectState, Waiting
from currents_bridge.operations.health import HealthReader
from tests.alert_workbench import LIMITS
from tests.workbench import CLICK, NAME, OPEN, UNWELL, Bench


@pytest.fixture
def bench() -> Bench:
    """A click that failed and an open that was delivered; then clicks are left out."""
    bench = Bench(include=(CLICK, OPEN))
    bench.put(3, offset=1)
    bench.transport.outcomes.extend([UNWELL] * 6)
    bench.deliver()
    bench.put(2, offset=2, event_type=OPEN)
    bench.now += timedelta(days=1)
    bench.include = (OPEN,)
    bench.connector().poll()
    return bench


def test_what_waited_leaves_waiting_lag_and_backlog(bench: Bench) -> None:
    """It is counted as excluded, and nothing is wrong."""
    totals = bench.ledger.totals(NAME)

    assert bench.states() == {ObjectState.EXCLUDED: 1, ObjectState.DELIVERED: 1}
    assert (totals.waiting, totals.failed_reasons) == (Waiting(), {})
    assert conditions(HealthReader(bench.connector()).read(bench.now), LIMITS) == []


def test_the_rule_is_named_with_how_much_it_leaves_out(bench: Bench) -> None:
    """For whoever looks at the status."""
    (notice,) = [n for n in bench.ledger.totals(NAME).notices if n.kind is NoticeKind.EXCLUDED]

    assert (notice.subject, notice.count) == (CLICK, 1)
    assert "events.include and events.exclude" in notice.detail


@pytest.mark.parametrize("include", [(CLICK, OPEN), ("supported",), ("users.messages.email.*",), ("all",)])
def test_it_comes_back_when_the_type_is_included_again(bench: Bench, include: tuple[str, ...]) -> None:
    """As if it were new; nothing is lost, and nothing is said of it any more."""
    bench.include = include
    bench.connector().poll()

    assert bench.states() == {ObjectState.DELIVERED: 2}
    assert [n for n in bench.ledger.totals(NAME).notices if n.kind is NoticeKind.EXCLUDED] == []


def test_a_backfill_takes_it_as_well_once_the_type_is_included_again(bench: Bench) -> None:
    """Without a poll in between."""
    bench.include = (CLICK, OPEN)
    selection = bench.admit()
    bench.connector().deliver(TransferReport(), selection)

    assert bench.states() == {ObjectState.DELIVERED: 2}


def test_it_stays_excluded_while_other_types_are_delivered(bench: Bench) -> None:
    """Poll after poll."""
    bench.put(2, offset=3, event_type=OPEN)
    bench.connector().audit()
    bench.connector().poll()

    assert bench.states() == {ObjectState.EXCLUDED: 1, ObjectState.DELIVERED: 2}


def test_an_unknown_type_waits_on_though_its_folder_is_gone() -> None:
    """`all` includes unknown types; one whose objects were deleted is still claimed, and found to be gone."""
    bench = Bench(include=("all",))
    key = bench.put(2, event_type="users.new.Thing")
    bench.put(2, offset=2)
    bench.transport.down = True
    bench.connector().poll()
    bench.transport.down = False
    bench.store.delete(key)
    bench.now += timedelta(days=1)
    bench.connector().poll()

    assert bench.states() == {ObjectState.QUARANTINED: 1, ObjectState.DELIVERED: 1}
