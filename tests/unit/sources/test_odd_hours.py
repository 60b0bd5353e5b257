"""Objects of hours in the future, up to the year 9999: delivered, and nothing is steered by them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from currents_bridge.alerts.rules import conditions
from currents_bridge.model import CurrentsObject, ObjectState, Progress
from currents_bridge.operations.health import HealthReader
from tests.alert_workbench import LIMITS
from tests.workbench import CLICK, HOUR, NAME, Bench

NOW = HOUR + timedelta(days=2)
LAST_HOUR = datetime(9999, 12, 31, 23, tzinfo=UTC)


@pytest.fixture
def bench() -> Bench:
    """A connector that had files in every hour of a week, and none for the two days since."""
    bench = Bench(now=NOW)
    bench.ledger.admit(NAME, [an_object(HOUR - timedelta(hours=number)) for number in range(168)], NOW)
    bench.ledger.save_progress(NAME, Progress(polled_at=NOW, started_at=HOUR - timedelta(days=30)))
    return bench


def an_object(hour: datetime) -> CurrentsObject:
    """Return an object of an hour, with a key of its own."""
    return CurrentsObject(f"key of {hour}", "etag", 1, hour, CLICK, hour)


def alerts(bench: Bench) -> Sequence[str]:
    """Return the kinds of what is wrong."""
    return [alert.kind for alert in conditions(HealthReader(bench.connector()).read(NOW), LIMITS)]


@pytest.mark.parametrize("hour", [NOW + timedelta(hours=2), NOW + timedelta(days=400), LAST_HOUR])
def test_a_future_hour_hides_no_silence(bench: Bench, hour: datetime) -> None:
    """The files that stopped coming are missed as before."""
    bench.ledger.admit(NAME, [an_object(hour)], NOW)

    assert "silence" in alerts(bench)


def test_an_object_of_the_last_hour_alone_is_no_trouble() -> None:
    """There is no rhythm, and nothing after it that could be counted."""
    bench = Bench(now=NOW)
    bench.ledger.admit(NAME, [an_object(LAST_HOUR)], NOW)

    assert alerts(bench) == []


@pytest.mark.parametrize("hour", [NOW + timedelta(hours=2), LAST_HOUR, datetime(1000, 1, 1, tzinfo=UTC)])
def test_objects_of_odd_hours_are_delivered_beside_the_others(hour: datetime) -> None:
    """By polls and audits, and what comes later in an hour of now is found by the next poll."""
    bench = Bench(now=NOW)
    bench.put(2, hour=hour, offset=1)
    bench.put(2, hour=NOW.replace(minute=0), offset=2)
    bench.connector().poll()
    bench.now += timedelta(hours=1)
    bench.put(2, hour=NOW.replace(minute=0), offset=3)
    bench.connector().poll()
    bench.now += timedelta(days=30)

    assert bench.connector().audit().error is None
    assert bench.states() == {ObjectState.DELIVERED: 3}


def test_an_event_type_that_is_left_out_is_not_missed(bench: Bench) -> None:
    """Its files are no longer looked for."""
    assert "silence" in alerts(bench)
    bench.include = ("users.messages.email.Open",)

    assert "silence" not in alerts(bench)
