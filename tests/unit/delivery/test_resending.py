"""`backfill --resend` and `quarantine replay`: everything is sent, by whomever, and counts once."""

from collections import Counter
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from currents_bridge.connector import Connector
from currents_bridge.delivery.workers import TransferReport
from currents_bridge.model import Books, LetterFilter, ObjectState, Refusal, Selection
from currents_bridge.operations.backfill import backfill
from currents_bridge.sources.discovery import list_objects
from tests.workbench import CLICK, HOUR, NAME, OPEN, UNWELL, Bench, FaultyLedger, clicks, everything

WEEK = timedelta(days=7)
FILES, EVENTS = 6, 20
TWICE = FILES * EVENTS * [2]


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


@pytest.fixture
def connector(bench: Bench) -> Connector:
    """A connector that has delivered some files and remembers what it sent."""
    connector = bench.connector(remember=WEEK)
    for number in range(FILES):
        bench.put(clicks(EVENTS, seed=number), offset=number, hour=HOUR - timedelta(hours=number % 2))
    connector.poll()
    return connector


def daemon_beside(bench: Bench) -> Connector:
    """Return a second process on the same bucket, ledger file and destination."""
    other = Bench(store=bench.store, ledger=FaultyLedger(bench.ledger.path), transport=bench.transport, now=bench.now)
    return other.connector(remember=WEEK)


def times_sent(bench: Bench) -> list[int]:
    """Return how often each message arrived."""
    return sorted(Counter(bench.sent_ids()).values())


def books(bench: Bench) -> Books:
    """Return the books of the connector."""
    return bench.ledger.totals(NAME).books


def test_a_resend_beside_a_daemon_sends_everything(bench: Bench, connector: Connector) -> None:
    """The daemon polls between its groups, remembers all ids, and leaves its objects alone."""
    daemon = daemon_beside(bench)
    polled: list[TransferReport] = []

    report = backfill(connector, everything(), resend=True, on_group=lambda _: polled.append(daemon.poll()))

    assert polled
    assert not any(poll.delivered for poll in polled)
    assert report.books == books(bench) == Books(read=FILES * EVENTS, sent=FILES * EVENTS)
    assert times_sent(bench) == TWICE


@pytest.mark.parametrize("ended", ["stopped", "failed", "killed"])
def test_what_a_resend_has_left_is_sent_by_the_daemon(
    bench: Bench, connector: Connector, ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what is remembered; and the books are right."""
    if ended == "stopped":
        deliver = connector.deliver

        def deliver_stopped(*args: Any, **options: Any) -> None:
            bench.stop.set()
            deliver(*args, **options)

        monkeypatch.setattr(connector, "deliver", deliver_stopped)
        backfill(connector, everything(), resend=True)
        bench.stop.clear()
    elif ended == "failed":
        bench.transport.outcomes.extend([UNWELL] * 50)
        backfill(connector, everything(), resend=True)
        bench.transport.outcomes.clear()
    else:
        connector.ledger.reopen(NAME, list(list_objects(connector.source, everything())), bench.now)
        bench.now += timedelta(seconds=91)
    assert times_sent(bench) == FILES * EVENTS * [1]
    bench.now += timedelta(hours=1)
    daemon = daemon_beside(bench)

    daemon.poll()

    assert times_sent(bench) == TWICE
    assert books(bench) == Books(read=FILES * EVENTS, sent=FILES * EVENTS)


@pytest.mark.parametrize("folded", [False, True])
def test_a_resend_of_hours_that_s3_deleted_leaves_the_books_alone(
    bench: Bench,
    connector: Connector,
    folded: bool,  # noqa: FBT001
) -> None:
    """Wholly or in part; what is still there is sent again."""
    if folded:
        connector.ledger.fold(NAME, bench.now, bench.now + timedelta(days=1))
    before = books(bench)
    gone = [item.key for item in bench.store.list("")][:4]  # an hour, and a part of the other
    for key in gone:
        bench.store.delete(key)

    report = backfill(connector, everything(), resend=True)

    assert report.books.sent == (FILES - len(gone)) * EVENTS
    assert books(bench) == before
    assert bench.ledger.totals(NAME).objects[ObjectState.DELIVERED] == FILES


def test_an_event_of_two_files_is_sent_again_once(bench: Bench) -> None:
    """As at first, whichever file comes first."""
    connector = bench.connector(remember=WEEK)
    events = clicks(3)
    bench.put(events[:2], offset=1)
    connector.poll()
    bench.put(events[1:], offset=2)
    connector.poll()
    first = books(bench)

    backfill(connector, everything(), resend=True)

    assert books(bench) == first == Books(read=4, sent=3, deduplicated=1)
    assert times_sent(bench) == [2, 2, 2]


def test_an_event_whose_other_file_is_not_sent_again_is(bench: Bench) -> None:
    """Whoever asks for an hour gets all events of its files."""
    connector = bench.connector(remember=WEEK)
    bench.put(events := clicks(2), offset=1)
    connector.poll()
    bench.put(events, offset=2, event_type=CLICK, hour=HOUR - timedelta(hours=1))
    connector.poll()

    backfill(connector, replace(everything(), end_hour=HOUR), resend=True)

    assert times_sent(bench) == [2, 2]


def test_only_the_types_that_are_asked_for_are_sent_again(bench: Bench, connector: Connector) -> None:
    """Others keep their books and stay delivered."""
    bench.put(3, event_type=OPEN)
    connector.poll()
    before = books(bench)

    report = backfill(connector, Selection(frozenset({OPEN})), resend=True)

    assert report.books.sent == 3
    assert books(bench) == before


def test_a_second_resend_sends_everything_once_more(bench: Bench, connector: Connector) -> None:
    """And counts it once."""
    for _ in range(2):
        assert backfill(connector, everything(), resend=True).books.sent == FILES * EVENTS

    assert books(bench) == Books(read=FILES * EVENTS, sent=FILES * EVENTS)


def test_a_replayed_quarantine_counts_what_it_sent_before(bench: Bench) -> None:
    """It sends the rest only, and all of it counts as sent."""
    connector = bench.connector(remember=WEEK)
    events = clicks(3)
    key = bench.put(events, cut_bytes=40)
    connector.poll()
    assert books(bench) == Books(read=2, sent=2)
    bench.store.delete(key)
    assert bench.put(events) == key  # mended
    (aside,) = bench.ledger.quarantined(NAME)

    bench.ledger.replay_quarantined([aside.id], bench.now)
    connector.poll()

    assert times_sent(bench) == [1, 1, 1]
    assert books(bench) == Books(read=3, sent=3)


def test_a_replayed_quarantine_that_is_as_damaged_as_before_keeps_its_counts(bench: Bench) -> None:
    """However often it is replayed."""
    connector = bench.connector(remember=WEEK)
    bench.put(3, cut_bytes=40)
    connector.poll()
    for _ in range(2):
        bench.ledger.replay_quarantined([item.id for item in bench.ledger.quarantined(NAME)], bench.now)
        connector.poll()

    assert times_sent(bench) == [1, 1]
    assert books(bench) == Books(read=2, sent=2)


def test_an_event_that_its_own_file_repeats_stays_a_repeat(bench: Bench) -> None:
    """Also on replay, where both are known."""
    connector = bench.connector(remember=WEEK)
    events = clicks(2)
    bench.put([events[0], events[0], *events], cut_bytes=40)
    connector.poll()
    before = books(bench)

    bench.ledger.replay_quarantined([item.id for item in bench.ledger.quarantined(NAME)], bench.now)
    connector.poll()

    assert before == books(bench) == Books(read=3, sent=1, deduplicated=2)


def test_a_dead_letter_that_was_replayed_is_no_repeat_of_its_object(bench: Bench) -> None:
    """After a replay of both it was sent once and counts once, and no other file sends it again."""
    connector = bench.connector(remember=WEEK)
    events = clicks(3)
    bench.put(events, cut_bytes=40)
    bench.transport.outcomes.append([Refusal(1, 1, events[1]["id"], "odd")])
    connector.poll()
    assert books(bench) == Books(read=2, sent=1, dead_lettered=1)
    (letter,) = bench.ledger.dead_letters(LetterFilter())
    assert bench.ledger.replayed({letter.id: None}, bench.now, remember=connector.remembers)

    bench.ledger.replay_quarantined([item.id for item in bench.ledger.quarantined(NAME)], bench.now)
    connector.poll()

    assert books(bench) == Books(read=2, sent=2)
    assert times_sent(bench) == [1]
