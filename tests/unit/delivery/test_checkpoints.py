import functools
from collections.abc import Sequence
from concurrent.futures import Future
from datetime import timedelta
from typing import Any

import polars as pl
import pytest

from currents_bridge.avro.container import Container
from currents_bridge.delivery import group as delivery
from currents_bridge.delivery import reading
from currents_bridge.errors import BridgeError, ClaimLostError, RetryLaterError
from currents_bridge.events.catalogue import EventType
from currents_bridge.events.mapping import Mapped, Mapper, MappingRules, Origin
from currents_bridge.model import (
    Batch,
    Books,
    Checkpoint,
    ClaimedObject,
    Delivered,
    Failed,
    GroupLimits,
    LetterFilter,
    ObjectState,
    Quarantined,
    Refusal,
)
from currents_bridge.sending.sender import Sender
from currents_bridge.testing.currents_files import Event
from currents_bridge.testing.fake_transport import FakeTransport
from tests.workbench import NAME, UNWELL, Bench, FaultyLedger, clicks, everything, of_kind

DELIVERED, FAILED, CLAIMED = ObjectState.DELIVERED, ObjectState.FAILED, ObjectState.CLAIMED
OUTAGE: list[BridgeError] = [UNWELL] * 6  # of one batch, until it is given up


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each event is a slice of its own, as if it were large, and two of them are worth a checkpoint."""
    monkeypatch.setattr(reading, "SMALL_BYTES", 0)
    monkeypatch.setattr(Container.slices, "__defaults__", (1,))
    monkeypatch.setattr(delivery, "CHECKPOINT_EVENTS", 2)


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def rows(bench: Bench) -> list[int]:
    """Return how far the recorded checkpoints are."""
    return [checkpoint.rows for checkpoint in bench.ledger.checkpoints]


def letter_rows(bench: Bench) -> list[int]:
    """Return the rows of the dead letters."""
    return [stored.letter.row for stored in bench.ledger.dead_letters(LetterFilter())]


def every_fate() -> list[Event]:
    """Return ten events: rows 2 and 7 are anonymous, 3 and 8 break a rule, and 4 and 9 repeat the event before."""
    events = clicks(10)
    for start in (0, 5):
        events[start + 2] |= {"external_user_id": None}
        events[start + 3] |= {"time": 0}
        events[start + 4] = events[start + 1]
    return events


def taken_over(bench: Bench) -> FaultyLedger:
    """Let all claims pass to another process, and return that one's ledger."""
    bench.ledger.release([row["id"] for row in bench.ledger.rows()])
    other = FaultyLedger(bench.ledger.path)
    assert other.claim(NAME, everything(), GroupLimits(), bench.now)
    return other


def test_a_large_object_leaves_checkpoints_on_the_way(bench: Bench) -> None:
    """Every second event, behind what was acknowledged: the last message still waits to be packed."""
    bench.put(7)

    bench.deliver(max_batch_events=1)

    assert bench.ledger.checkpoints == [
        Checkpoint(2, Books(read=2, sent=2)),
        Checkpoint(4, Books(read=4, sent=4)),
        Checkpoint(6, Books(read=6, sent=6)),
    ]
    assert bench.ledger.totals(NAME).books == Books(read=7, sent=7)


def test_a_checkpoint_ends_before_the_first_batch_that_is_not_acknowledged(bench: Bench) -> None:
    """The fifth batch is given up."""
    bench.put(10)
    bench.transport.outcomes.extend([*[()] * 4, *OUTAGE])

    report = bench.deliver(max_batch_events=1)

    assert rows(bench) == [2, 4]
    assert of_kind(report.settlements, Failed)


def test_a_stop_inside_a_large_object_ends_it_at_a_slice_with_its_checkpoint(bench: Bench) -> None:
    """However many events come after it; the next run goes on there and sends nothing twice."""
    bench.put(9)
    acknowledge = bench.transport.send

    def send(batch: Batch) -> Sequence[Refusal]:
        refusals = acknowledge(batch)
        if len(bench.sent_ids()) == 3:
            bench.stop.set()
        return refusals

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bench.transport, "send", send)
        bench.deliver(max_batch_events=1)

    assert rows(bench)[-1] == len(bench.sent_ids()) < 9
    assert bench.states() == {ObjectState.PENDING: 1}
    bench.stop.clear()
    bench.deliver()
    assert len(bench.sent_ids()) == len(set(bench.sent_ids())) == 9


def test_messages_that_wait_in_a_shared_batch_are_not_behind_a_checkpoint(bench: Bench) -> None:
    """Batches of four: a checkpoint is left once a batch is through, of the whole events in it."""
    bench.put(10)

    bench.deliver(max_batch_events=4)

    assert rows(bench) == [4, 8]


def test_a_later_try_goes_on_behind_the_checkpoint(bench: Bench) -> None:
    """What was acknowledged before it is not sent again."""
    bench.put(events := clicks(10))
    bench.transport.outcomes.extend([*[()] * 5, *OUTAGE])
    bench.deliver(max_batch_events=1)
    sent_first = bench.sent_ids()
    bench.now += timedelta(minutes=1)

    (claimed,) = group = bench.claim()
    bench.deliver(group, max_batch_events=1)

    assert claimed.checkpoint == Checkpoint(4, Books(read=4, sent=4))
    assert bench.sent_ids()[len(sent_first) :] == [event["id"] for event in events[4:]]
    assert bench.states() == {DELIVERED: 1}


@pytest.mark.parametrize("good_batches", range(5))
def test_the_books_of_a_resumed_object_are_those_of_the_whole(bench: Bench, good_batches: int) -> None:
    """Wherever the first try ended: each event has one fate, counted once."""
    bench.put(every_fate())
    group = bench.claim()
    refusal = Refusal(group[0].id, 0, "x", "odd")
    bench.transport.outcomes.extend([[refusal], *[[]] * good_batches, *OUTAGE])
    bench.deliver(group, max_batch_events=1)
    bench.now += timedelta(minutes=1)

    resumed = bench.claim()
    first_row = resumed[0].checkpoint.rows if resumed else 10
    bench.transport.outcomes.clear()
    bench.transport.outcomes.extend([[refusal]] if first_row == 0 else [])
    bench.deliver(resumed, max_batch_events=1)

    books = bench.ledger.totals(NAME).books
    # behind a checkpoint, an event that stood before it is sent again, with the same id
    repeats = 2 - (1 < first_row <= 4) - (6 < first_row <= 9)
    assert books == Books(10, 3 + (2 - repeats), 2, repeats, 3)
    assert books.balanced
    assert letter_rows(bench) == [0, 3, 8]


def test_a_refused_message_is_a_dead_letter_of_its_checkpoint(bench: Bench) -> None:
    """It is recorded with the rows that it belongs to, and counted once."""
    bench.put(6)
    group = bench.claim()
    bench.transport.outcomes.extend([(), [Refusal(group[0].id, 1, "x", "odd")], (), *OUTAGE])

    bench.deliver(group, max_batch_events=1)

    assert bench.ledger.checkpoints == [Checkpoint(2, Books(read=2, sent=1, dead_lettered=1))]
    assert letter_rows(bench) == [1]


class LateSender(Sender):
    """A sender whose first batches are acknowledged late: the first with the third, the second with the fourth."""

    def __init__(self, refusal: Refusal, transport: FakeTransport, **options: Any) -> None:
        super().__init__(transport, **options)
        self._refusal = refusal
        self._futures: list[Future[Sequence[Refusal]]] = []

    def submit(self, batch: Batch) -> Future[Sequence[Refusal]]:
        """Answer the batch before the last one, and the third one with a refusal."""
        assert batch.events == 2
        self._futures.append(Future())
        if len(self._futures) > 2:
            self._futures[-1].set_result([self._refusal] if len(self._futures) == 3 else [])
            if not self._futures[-3].done():
                self._futures[-3].set_result([])
        return self._futures[-1]


def test_what_is_ahead_of_a_checkpoint_is_not_in_its_books_and_not_forgotten(bench: Bench) -> None:
    """Here a rule's dead letter in row 4 and a refused message in row 5, both known before rows 0 and 1 are through."""
    events = clicks(9)
    events[4] |= {"time": 0}
    bench.put(events)
    group = bench.claim()
    late = functools.partial(LateSender, Refusal(group[0].id, 5, "x", "odd"))

    with bench.sender(max_in_flight=4, kind=late) as sender:
        report = bench.delivery(sender, max_batch_events=2).deliver(group)

    assert bench.ledger.checkpoints[0] == Checkpoint(2, Books(read=2, sent=2))
    (delivered,) = of_kind(report.settlements, Delivered)
    assert delivered.books == Books(read=9, sent=7, dead_lettered=2)
    assert letter_rows(bench) == [4, 5]


def test_a_dead_letter_is_recorded_once(bench: Bench) -> None:
    """A settlement holds those behind the latest checkpoint only."""
    events = clicks(6)
    events[1] |= {"time": 0}
    bench.put(events)
    group = bench.claim()
    bench.transport.outcomes.append([Refusal(group[0].id, 0, "x", "odd")])

    report = bench.deliver(group, max_batch_events=1)

    assert of_kind(report.settlements, Delivered)[0].dead_letters == []
    assert letter_rows(bench) == [0, 1]


def test_an_object_that_was_acknowledged_to_its_end_only_needs_to_be_settled(bench: Bench) -> None:
    """The process ended between the last checkpoint and the settlement."""
    bench.put(4)
    (claimed,) = bench.claim()
    bench.ledger.checkpoint(claimed.id, end := Checkpoint(4, Books(read=4, sent=4)), [], bench.now)

    report = bench.deliver([ClaimedObject(claimed.id, claimed.object, 0, end)])

    assert of_kind(report.settlements, Delivered)[0].books == end.books
    assert bench.transport.attempts == 0


def test_no_checkpoint_is_left_behind_damage(bench: Bench) -> None:
    """A later try has to see the damage again."""
    key = bench.put(10)
    bench.admit()
    (item,) = bench.store.list(key)
    with bench.store.open(key, item.etag, item.size_bytes) as stream:
        body = bytearray(stream.read())
    sync = bytes(body[-16:])
    blocks = [at for at in range(len(body)) if body.startswith(sync, at)]
    body[blocks[5] : blocks[5] + 16] = bytes(16)  # at the end of the fifth block
    bench.ledger.change("DELETE FROM objects")
    bench.store.put(key, bytes(body), last_modified=item.last_modified)

    report = bench.deliver(max_batch_events=1)

    (quarantined,) = of_kind(report.settlements, Quarantined)
    assert quarantined.books.sent == len(bench.sent_ids()) > 6
    assert max(rows(bench)) <= 5


def test_objects_before_it_in_the_group_hold_a_checkpoint_back(bench: Bench) -> None:
    """An event of it might be left out as a repeat of one whose batch failed."""
    bench.put(1, offset=1)
    bench.put(8, offset=2)
    bench.transport.outcomes.extend(OUTAGE)

    bench.deliver(max_batch_events=1)

    assert rows(bench) == []
    assert bench.states() == {FAILED: 1, DELIVERED: 1}


def test_a_claim_that_is_lost_at_a_checkpoint_costs_that_object_only(bench: Bench) -> None:
    """It is neither settled nor failed here: it is the new owner's."""
    lost = bench.put(6, offset=1)
    other = bench.put(1, offset=2)
    group = bench.claim()
    bench.ledger.faults["checkpoint"] = ClaimLostError([group[0].id], [lost])

    report = bench.deliver(group, max_batch_events=1)

    assert [settled.id for settled in report.settlements] == [group[1].id]
    assert bench.states_by_key() == {lost: CLAIMED, other: DELIVERED}
    assert len(bench.sent_ids()) < 6 + 1


def test_a_claim_that_is_lost_before_it_is_settled_costs_that_object_only(bench: Bench) -> None:
    """The report counts only what was recorded."""
    bench.put(1, offset=1)
    (lost,) = bench.claim()
    other = taken_over(bench)
    bench.put(1, offset=2)
    group = bench.claim()

    report = bench.deliver([lost, *group])

    assert [settled.id for settled in report.settlements] == [group[0].id]
    assert bench.states() == {CLAIMED: 1, DELIVERED: 1}
    assert not other.rows()[0]["attempts"]


def suspects(bench: Bench) -> list[ClaimedObject]:
    """Claim what is due, after the process that had it ended without a word."""
    owner = FaultyLedger(bench.ledger.path)
    bench.admit()
    assert owner.claim(NAME, everything(), GroupLimits(), bench.now)
    bench.now += timedelta(minutes=5)
    bench.ledger.reclaim(NAME, bench.now)
    (claimed,) = group = bench.ledger.claim(NAME, everything(), GroupLimits(), bench.now)
    assert claimed.suspect
    return list(group)


def test_a_suspect_is_read_through_before_anything_of_it_is_sent(bench: Bench) -> None:
    """Whoever survives that was not ended by the object: its crashes are forgotten, then it is delivered."""
    bench.put(3)
    group = suspects(bench)
    story: list[str] = []

    class Telling(Mapper):
        def map_together(
            self, events: pl.DataFrame, event_type: EventType, origins: Sequence[Origin], **told: Any
        ) -> Sequence[Mapped]:
            story.append("map" if bench.ledger.rows()[0]["crashes"] else "map, trusted")
            return super().map_together(events, event_type, origins, **told)

    bench.mapper = Telling(MappingRules(library_version="1"))  # type: ignore[assignment]

    bench.deliver(group)

    assert story == ["map"] * 3 + ["map, trusted"] * 3
    assert bench.ledger.totals(NAME).books == Books(read=3, sent=3)


def test_a_suspect_that_cannot_be_read_is_quarantined(bench: Bench) -> None:
    """As any other object."""
    key = bench.put(3)
    bench.store.put(key, b"no Avro at all")

    report = bench.deliver(suspects(bench))

    assert "not readable as Avro" in of_kind(report.settlements, Quarantined)[0].reason


def test_a_damaged_suspect_gives_what_can_be_read(bench: Bench) -> None:
    """The damage did not end the process, so it is like that of any other object."""
    bench.put(5, cut_bytes=40)

    report = bench.deliver(suspects(bench))

    assert of_kind(report.settlements, Quarantined)[0].books == Books(read=4, sent=4)


def test_a_suspect_whose_bucket_fails_waits(bench: Bench) -> None:
    """It is no longer a suspect then."""
    key = bench.put(3)
    group = suspects(bench)
    bench.store.breaks[key] = RetryLaterError("the connection broke")

    bench.deliver(group)

    assert (bench.states(), bench.transport.attempts) == ({FAILED: 1}, 0)
