from datetime import timedelta

import polars as pl
import pytest

from currents_bridge.model import Books, Delivered, ObjectState, Refusal
from currents_bridge.operations.backfill import backfill
from tests.ledger_workbench import remembered
from tests.workbench import NAME, UNWELL, Bench, clicks, everything, of_kind

WEEK = timedelta(days=7)


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def is_remembered(bench: Bench, *message_ids: str) -> list[bool]:
    """Return which of the message ids are remembered."""
    return remembered(bench.ledger, NAME, pl.Series("message_id", message_ids)).to_list()


def test_an_event_that_was_sent_before_is_left_out(bench: Bench) -> None:
    """By whatever object it came; the rest of the object is sent."""
    events = clicks(4)
    bench.put(events[:3], offset=1)
    bench.deliver(remember=True)
    bench.put(events[1:], offset=2)

    report = bench.deliver(remember=True)

    assert of_kind(report.settlements, Delivered)[0].books == Books(read=3, sent=1, deduplicated=2)
    assert bench.sent_ids() == [event["id"] for event in events]


def test_without_the_setting_nothing_is_remembered(bench: Bench) -> None:
    """An event of another group is sent again, with the same id."""
    events = clicks(1)
    bench.put(events, offset=1)
    bench.deliver()
    bench.put(events, offset=2)

    bench.deliver()

    assert bench.sent_ids() == [events[0]["id"]] * 2
    assert bench.ledger.rows("sent_messages") == []


def test_ids_are_remembered_only_once_they_were_acknowledged(bench: Bench) -> None:
    """What failed is sent the next time, and is no repeat of itself."""
    bench.put(events := clicks(2))
    bench.transport.outcomes.extend([(), *[UNWELL] * 6])
    bench.deliver(max_batch_events=1, remember=True)
    assert is_remembered(bench, events[0]["id"], events[1]["id"]) == [False, False]
    bench.now += timedelta(minutes=1)

    bench.deliver(remember=True)

    assert is_remembered(bench, events[0]["id"], events[1]["id"]) == [True, True]
    assert bench.ledger.totals(NAME).books == Books(read=2, sent=2)


def test_refused_messages_are_not_remembered(bench: Bench) -> None:
    """They were not sent."""
    bench.put(events := clicks(2))
    group = bench.claim()
    bench.transport.outcomes.append([Refusal(group[0].id, 1, events[1]["id"], "odd")])

    bench.deliver(group, remember=True)

    assert is_remembered(bench, events[0]["id"], events[1]["id"]) == [True, False]


def test_what_could_be_read_of_a_damaged_object_is_remembered(bench: Bench) -> None:
    """As all that was sent."""
    bench.put(events := clicks(3), cut_bytes=40)

    bench.deliver(remember=True)

    assert bench.states() == {ObjectState.QUARANTINED: 1}
    assert is_remembered(bench, *(event["id"] for event in events)) == [True, True, False]


def test_a_connector_remembers_for_as_long_as_it_is_told(bench: Bench) -> None:
    """The audit forgets older ids."""
    connector = bench.connector(remember=WEEK)
    bench.put(events := clicks(1), offset=1)
    connector.poll()

    bench.now += WEEK
    connector.audit()
    assert is_remembered(bench, events[0]["id"]) == [True]
    bench.now += timedelta(seconds=1)
    connector.audit()
    assert is_remembered(bench, events[0]["id"]) == [False]


def test_a_resend_sends_what_is_remembered(bench: Bench) -> None:
    """That is what it is for."""
    connector = bench.connector(remember=WEEK)
    bench.put(2)
    connector.poll()

    report = backfill(connector, everything(), resend=True)

    assert report.books == Books(read=2, sent=2)
    assert len(bench.sent_ids()) == 4
