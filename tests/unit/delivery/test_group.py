from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from currents_bridge.avro.container import decode_together
from currents_bridge.delivery import group as delivery
from currents_bridge.delivery import reading
from currents_bridge.delivery.fetching import AHEAD_OBJECTS
from currents_bridge.delivery.reading import check_witness
from currents_bridge.due import LAST_RETRY, retry_at
from currents_bridge.errors import (
    BridgeError,
    CredentialError,
    LedgerError,
    QuarantineObjectError,
    RefusedError,
    RetryLaterError,
    Side,
)
from currents_bridge.model import (
    Batch,
    Books,
    Checkpoint,
    Delivered,
    Failed,
    LetterFilter,
    ObjectState,
    Quarantined,
    Refusal,
    Settlement,
)
from currents_bridge.testing.currents_files import schema_of, write_container
from currents_bridge.testing.fake_transport import FakeTransport
from tests.workbench import CLICK, DENIED, HOUR, NAME, OPEN, UNWELL, Bench, clicks, of_kind

DELIVERED, FAILED, PENDING = ObjectState.DELIVERED, ObjectState.FAILED, ObjectState.PENDING


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


@pytest.fixture
def one_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Objects are not mapped together with others."""
    monkeypatch.setattr(reading, "TOGETHER_BYTES", 0)


def outage(attempts: int = 6) -> list[BridgeError]:
    """Return the outcomes of a batch that is given up."""
    return [UNWELL] * attempts


def test_small_objects_share_one_batch_in_the_order_of_their_events(bench: Bench) -> None:
    """Requests grow with bytes, not with files."""
    first, second = clicks(3, 1), clicks(2, 2)
    bench.put(first, offset=1)
    bench.put(second, offset=2)

    report = bench.deliver()

    assert (report.batches, report.batch_bytes) == (1, bench.transport.batches[0].size_bytes)
    assert bench.sent_ids() == [event["id"] for event in first + second]
    assert bench.states() == {DELIVERED: 2}


def test_nothing_is_settled_before_its_last_batch_is_acknowledged(bench: Bench) -> None:
    """While a batch is under way its object is still claimed."""
    seen: list[dict[ObjectState, int]] = []

    class Watching(FakeTransport):
        def send(self, batch: Batch) -> Sequence[Refusal]:
            seen.append(bench.states())
            return super().send(batch)

    bench.transport = Watching()
    bench.put(3)

    bench.deliver(max_batch_events=1)

    assert seen == [{ObjectState.CLAIMED: 1}] * 3
    assert bench.states() == {DELIVERED: 1}


@pytest.mark.usefixtures("one_at_a_time")
def test_objects_that_have_arrived_are_settled_while_their_group_goes_on(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once they are worth a transaction, so that a crash repeats little; each is settled and reported once."""
    seen: list[int] = []

    class Watching(FakeTransport):
        def send(self, batch: Batch) -> Sequence[Refusal]:
            seen.append(bench.states().get(DELIVERED, 0))
            return super().send(batch)

    bench.transport = Watching()
    for offset in range(5):
        bench.put(1, offset=offset)
    group = bench.claim()
    sizes = [claimed.object.size_bytes for claimed in group]
    monkeypatch.setattr(delivery, "SETTLE_BYTES", max(sizes) + 1)  # of two objects, whichever

    report = bench.deliver(group, max_batch_events=1)

    assert seen == [0, 0, 2, 2, 4]
    assert [settled.id for settled in report.settlements] == [1, 2, 3, 4, 5]


def test_an_object_in_a_batch_that_failed_is_not_settled_on_the_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor is any behind it: it might lean on that batch."""
    monkeypatch.setattr(delivery, "SETTLE_BYTES", 1)
    bench.transport.outcomes.extend([(), *outage()])
    keys = [bench.put(1, offset=offset) for offset in range(4)]

    bench.deliver(max_batch_events=1)

    states = bench.states_by_key()
    assert [states[key] for key in keys] == [DELIVERED, FAILED, DELIVERED, DELIVERED]


@pytest.mark.parametrize("failing", [0, 1, 2])
def test_a_failed_batch_fails_every_object_with_messages_in_it_and_no_other(bench: Bench, failing: int) -> None:
    """Objects of 2, 2 and 2 messages in batches of 3: the first, the second and the third batch fail in turn."""
    keys = [bench.put(2, offset=offset) for offset in (1, 2, 3, 4)]  # batches: 1 1 2 | 2 3 3 | 4 4
    bench.transport.outcomes.extend([*([()] * failing), *outage()])

    bench.deliver(max_batch_events=3)

    hit = {0: keys[:2], 1: keys[1:3], 2: keys[3:]}[failing]
    assert {key for key, state in bench.states_by_key().items() if state is FAILED} == set(hit)
    assert bench.states()[DELIVERED] == 4 - len(hit)


def test_a_failed_object_is_sent_whole_again_with_the_same_message_ids(bench: Bench) -> None:
    """What was acknowledged of it counts for nothing but Segment's own deduplication."""
    bench.put(4)
    bench.transport.outcomes.extend([(), *outage()])
    bench.deliver(max_batch_events=2)
    bench.now += timedelta(minutes=1)

    bench.deliver(max_batch_events=2)

    assert bench.sent_ids()[:2] == bench.sent_ids()[2:4]
    assert len(set(bench.sent_ids())) == 4
    assert bench.ledger.totals(NAME).books == Books(read=4, sent=4)


def test_an_event_that_stands_twice_in_a_group_is_sent_once(bench: Bench) -> None:
    """Within one object and across objects."""
    events = clicks(4)
    bench.put([events[0], events[0], events[1]], offset=1)
    bench.put([events[2], events[1], events[3], events[2]], offset=2)

    report = bench.deliver()

    assert bench.sent_ids() == [event["id"] for event in events]
    assert [settled.books for settled in of_kind(report.settlements, Delivered)] == [
        Books(read=3, sent=2, deduplicated=1),
        Books(read=4, sent=2, deduplicated=2),
    ]


def test_an_object_that_leans_on_the_batch_of_another_is_held_back_with_it(bench: Bench) -> None:
    """The second object owes an event that only the first one's failed batch carries."""
    events = clicks(3)
    leaning, alone = [events[0], events[1]], [events[2]]
    keys = [bench.put(rows, offset=n) for n, rows in enumerate(([events[0]], leaning, alone))]
    bench.transport.outcomes.extend(outage())

    bench.deliver(max_batch_events=1)

    assert bench.states_by_key() == {keys[0]: FAILED, keys[1]: FAILED, keys[2]: DELIVERED}


def test_books_tell_the_fate_of_every_event(bench: Bench) -> None:
    """Read = sent + skipped + deduplicated + dead-lettered, for each object."""
    good, anonymous, absurd = clicks(1, 1)[0], clicks(1, 2)[0], clicks(1, 3)[0]
    bench.put([good, good, anonymous | {"external_user_id": None}, absurd | {"time": 0}])

    bench.deliver()

    books = bench.ledger.totals(NAME).books
    assert books == Books(read=4, sent=1, skipped_anonymous=1, deduplicated=1, dead_lettered=1)
    assert books.balanced


def test_a_refused_message_becomes_a_dead_letter_and_is_no_longer_counted_as_sent(bench: Bench) -> None:
    """The message itself is kept, with the reason and its row in the object."""
    events = clicks(3)
    first = bench.put(1, offset=1)
    second = bench.put(events, offset=2)
    group = bench.claim()
    bench.transport.outcomes.append([Refusal(group[1].id, 1, events[1]["id"], "too large")])

    report = bench.deliver(group)

    assert report.settlements[1].id == group[1].id
    assert of_kind(report.settlements, Delivered)[1].books == Books(read=3, sent=2, dead_lettered=1)
    (stored,) = bench.ledger.dead_letters(LetterFilter(connector=NAME))
    letter = stored.letter
    assert (stored.object_key, letter.row, letter.message_id) == (second, 1, events[1]["id"])
    assert (letter.reason, letter.event) == ("too large", "")
    assert f'"messageId":"{events[1]["id"]}"' in letter.message
    assert bench.states_by_key()[first] is DELIVERED


def test_an_object_without_messages_is_settled(bench: Bench) -> None:
    """Nothing is owed, nothing is sent."""
    bench.put([], offset=1)
    bench.put([event | {"external_user_id": None} for event in clicks(2)], offset=2)

    report = bench.deliver()

    assert (bench.states(), report.batches, bench.transport.attempts) == ({DELIVERED: 2}, 0, 0)
    assert not report.nothing_through


def test_an_unreadable_object_costs_itself_only(bench: Bench) -> None:
    """It is quarantined with its reason."""
    bad = bench.put(3, offset=1)
    bench.store.put(bad, b"no Avro at all")
    bench.put(3, offset=2)

    report = bench.deliver()

    (quarantined,) = of_kind(report.settlements, Quarantined)
    assert "not readable as Avro" in quarantined.reason
    assert bench.states() == {ObjectState.QUARANTINED: 1, DELIVERED: 1}


def test_an_event_that_cannot_be_read_is_a_dead_letter(bench: Bench) -> None:
    """The books count it; the events around it in the block are delivered."""
    odd = {"odd": {"type": "enum", "name": "Odd", "symbols": ["a", "b", "c"]}}
    events = [event | {"odd": symbol} for event, symbol in zip(clicks(3), "acb", strict=True)]
    key = bench.put(1)
    body = write_container(schema_of(CLICK, overrides=odd), events)
    assert body.count(b'["a", "b", "c"]') == 1
    bench.store.put(key, body.replace(b'["a", "b", "c"]', b'["a", "b"     ]'), last_modified=HOUR)

    report = bench.deliver()

    (delivered,) = of_kind(report.settlements, Delivered)
    assert delivered.books == Books(read=3, sent=2, dead_lettered=1)
    (stored,) = bench.ledger.dead_letters(LetterFilter(connector=NAME))
    assert (stored.letter.row, stored.letter.message_id) == (1, events[1]["id"])
    assert stored.letter.reason == "odd: symbol 2 of an enum of 2"
    assert events[1]["user_id"] in stored.letter.event


@pytest.mark.usefixtures("small_slices")
def test_an_object_that_breaks_off_in_the_middle_is_quarantined_with_the_books_of_what_could_be_read(
    bench: Bench,
) -> None:
    """Four of five blocks are whole: their events are delivered, and the last one is told as missing."""
    broken = bench.put(events := clicks(5), offset=1, cut_bytes=40)
    bench.put(2, offset=2)

    report = bench.deliver()

    (quarantined,) = of_kind(report.settlements, Quarantined)
    assert quarantined.books == Books(read=4, sent=4)
    assert "1 of 5 blocks is unreadable" in quarantined.reason
    assert bench.states_by_key()[broken] is ObjectState.QUARANTINED
    assert bench.sent_ids()[:4] == [event["id"] for event in events[:4]]
    assert bench.ledger.totals(NAME).books == Books(read=6, sent=6)


@pytest.mark.usefixtures("small_slices")
def test_a_damaged_object_with_a_failed_batch_waits_instead(bench: Bench) -> None:
    """A quarantine is for good, so it has to wait until what could be read has arrived."""
    bench.put(5, cut_bytes=40)
    bench.transport.outcomes.extend(outage())

    bench.deliver()

    assert bench.states() == {FAILED: 1}
    bench.now += timedelta(minutes=1)
    bench.deliver()
    assert bench.states() == {ObjectState.QUARANTINED: 1}
    assert len(bench.sent_ids()) == 4


def test_small_objects_of_one_type_are_mapped_together(bench: Bench) -> None:
    """In one go, also where those of other types stand between them."""
    for offset in range(6):
        bench.put(3, offset=offset, hour=HOUR + timedelta(hours=offset // 2), event_type=[CLICK, OPEN][offset % 2])

    bench.deliver()

    assert bench.mapper.runs == [3, 3]
    assert (bench.states(), bench.ledger.totals(NAME).books.sent) == ({DELIVERED: 6}, 18)


@pytest.mark.parametrize("bad", range(5))
def test_a_damaged_object_among_many_that_are_read_together_costs_itself_only(bench: Bench, bad: int) -> None:
    """What can be read of it is delivered, and all of the others, each once."""
    events = [clicks(4, seed) for seed in range(5)]
    keys = [bench.put(rows, offset=n, cut_bytes=40 * (n == bad)) for n, rows in enumerate(events)]
    events[bad] = events[bad][:3]

    bench.deliver()

    assert bench.sent_ids() == [event["id"] for rows in events for event in rows]
    assert bench.states_by_key() == dict.fromkeys(keys, DELIVERED) | {keys[bad]: ObjectState.QUARANTINED}


def test_an_object_with_a_checkpoint_goes_on_behind_it_beside_others_that_are_read_together(bench: Bench) -> None:
    """What was acknowledged before is not sent again."""
    events = [clicks(3, seed) for seed in range(3)]
    for offset, rows in enumerate(events):
        bench.put(rows, offset=offset)
    group = list(bench.claim())
    behind = Checkpoint(2, Books(read=2, sent=2))
    bench.ledger.checkpoint(group[1].id, behind, [], bench.now)
    group[1] = replace(group[1], checkpoint=behind)

    bench.deliver(group)

    owed = [*events[0], events[1][2], *events[2]]
    assert sorted(bench.sent_ids()) == sorted(event["id"] for event in owed)
    assert bench.ledger.totals(NAME).books == Books(read=9, sent=9)


def test_an_object_of_another_schema_is_not_read_together_with_others(bench: Bench) -> None:
    """Schemas change from month to month."""
    bench.put(2, offset=0)
    key = bench.put(2, offset=1)
    added = {"name": "brand_new", "type": ["null", "string"], "default": None}
    other = {**schema_of(CLICK), "fields": [*schema_of(CLICK)["fields"], added]}
    bench.store.put(key, write_container(other, [event | {"brand_new": None} for event in clicks(2, 1)]))
    bench.put(2, offset=2)

    bench.deliver()

    assert bench.mapper.runs == [1, 1, 1]
    assert bench.ledger.totals(NAME).books == Books(read=6, sent=6)


def test_objects_that_unpack_to_more_than_one_run_can_hold_are_read_in_several(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory stays bounded, and nothing is lost."""
    for offset in range(8):
        bench.put(3, offset=offset)
    monkeypatch.setattr(decode_together, "__defaults__", (5_000,))

    bench.deliver()

    assert set(bench.mapper.runs) == {2}
    assert bench.ledger.totals(NAME).books == Books(read=24, sent=24)


def test_an_object_that_was_deleted_is_set_aside_and_never_tried_again(bench: Bench) -> None:
    """Its reason says so; the other objects are delivered."""
    gone = bench.put(2, offset=1)
    bench.put(2, offset=2)
    group = bench.claim()
    bench.store.delete(gone)

    report = bench.deliver(group)

    (quarantined,) = of_kind(report.settlements, Quarantined)
    assert quarantined.reason == "the object is gone from the bucket"
    assert (quarantined.books, bench.states()[DELIVERED]) == (Books(), 1)


@pytest.mark.usefixtures("small_slices")
def test_a_connection_that_breaks_in_mid_object_costs_that_object_another_try(bench: Bench) -> None:
    """It fails and is sent whole the next time, alone and at once; its neighbours are delivered."""
    broken = bench.put(5, offset=1)
    bench.store.breaks[broken] = RetryLaterError("the connection broke")
    bench.put(2, offset=2)

    report = bench.deliver()

    (failed,) = of_kind(report.settlements, Failed)
    assert (failed.reason, failed.retry_at, failed.side) == ("the connection broke", bench.now, Side.SOURCE)
    assert bench.states_by_key()[broken] is FAILED
    assert bench.states()[DELIVERED] == 1
    assert not report.nothing_through
    bench.store.breaks.clear()
    bench.deliver()
    assert bench.ledger.totals(NAME).books == Books(read=7, sent=7)


def test_an_object_of_another_type_than_its_key_says_costs_itself_only(bench: Bench) -> None:
    """The record's name is the second witness of the type."""
    foreign = bench.put(clicks(2, event_type=OPEN), offset=1, record_type=OPEN)
    bench.put(2, offset=2)

    report = bench.deliver()

    (quarantined,) = of_kind(report.settlements, Quarantined)
    assert quarantined.reason == f"the key says {CLICK}, the records in the file are {OPEN}"
    assert bench.states_by_key()[foreign] is ObjectState.QUARANTINED
    assert bench.states()[DELIVERED] == 1


@pytest.mark.parametrize(
    "name",
    ["record", "com.acme.Click", "", *(f"dataexport.{word}.inner.{CLICK}" for word in ("S3", "GCS", "AzureBlob"))],
)
def test_a_record_of_another_kind_or_of_the_same_type_is_no_contradiction(name: str) -> None:
    """Only Braze's own way to name a record can speak against the key."""
    check_witness(name, CLICK)


@pytest.mark.parametrize("word", ["S3", "GCS", "AzureBlob"])
def test_a_record_of_another_type_contradicts_whatever_store_braze_wrote_to(word: str) -> None:
    """Files that were mirrored keep the name of their first store."""
    with pytest.raises(QuarantineObjectError, match="the records in the file are"):
        check_witness(f"dataexport.{word}.inner.{OPEN}", CLICK)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (pl.exceptions.ComputeError(""), "a bug in currents-bridge: ComputeError in group._mapped"),
        (pl.exceptions.PanicException("no way"), "a bug in currents-bridge: PanicException in group._mapped"),
        (RecursionError("too deep"), "a bug in currents-bridge: RecursionError in group._mapped"),
        (KeyError("name"), "a bug in currents-bridge: KeyError in group._mapped"),
        (QuarantineObjectError("no Currents file"), "no Currents file"),
    ],
)
def test_an_object_that_cannot_be_mapped_costs_itself_only(bench: Bench, error: BaseException, reason: str) -> None:
    """Whatever went wrong: where polars panics, where it says nothing, and where we made a mistake."""
    bench.put(2, offset=0)
    bench.mapper.faults[bench.put(2, offset=1)] = error
    bench.put(2, offset=2)

    report = bench.deliver()

    (quarantined,) = of_kind(report.settlements, Quarantined)
    assert (quarantined.id, quarantined.reason, quarantined.books) == (2, reason, Books())
    assert (bench.states()[DELIVERED], len(bench.sent_ids())) == (2, 4)


def test_a_refused_batch_is_sent_in_halves_and_the_bad_message_set_aside(bench: Bench) -> None:
    """The second of three messages is refused, alone at last; what came before it is acknowledged."""
    bench.put(events := clicks(3))
    refused = RefusedError("segment answered 400")
    bench.transport.outcomes.extend([refused, (), refused, refused])  # 1 2 3 | 1 | 2 3 | 2

    report = bench.deliver()

    assert of_kind(report.settlements, Delivered)[0].books == Books(read=3, sent=2, dead_lettered=1)
    (stored,) = bench.ledger.dead_letters(LetterFilter())
    assert (stored.letter.row, stored.letter.reason) == (1, "segment answered 400")
    assert bench.sent_ids() == [events[0]["id"], events[2]["id"]]


def test_a_batch_that_is_refused_by_a_destination_without_proof_is_kept(bench: Bench) -> None:
    """It may be the key: nothing is set aside, and no attempt is counted."""
    bench.put(1)
    bench.transport.outcomes.append(RefusedError("segment answered 400"))

    report = bench.deliver()

    assert "be it for the data or for the key" in str(report.credential_error)
    assert bench.states() == {PENDING: 1}
    assert bench.ledger.dead_letters(LetterFilter()) == []


def test_an_object_that_segment_denies_waits_alone_where_others_are_taken(bench: Bench) -> None:
    """As one that a gateway dislikes: what is packed with it arrives, and the key is not blamed."""
    bench.put(2, offset=0)
    denied = bench.put(2, offset=1)
    bench.put(2, offset=2)
    group = bench.claim()
    bench.transport.outcomes.extend([(), DENIED, (), ()])

    report = bench.deliver(group, max_batch_events=2)

    (failed,) = of_kind(report.settlements, Failed)
    assert failed.reason == "segment answered 401; other messages are taken"
    assert bench.states_by_key()[denied] is FAILED
    assert report.credential_error is None
    assert bench.states() == {DELIVERED: 2, FAILED: 1}


@pytest.mark.usefixtures("small_slices")
def test_behind_a_failed_batch_no_more_of_its_object_is_sent(bench: Bench) -> None:
    """All but what waited to be packed already: it would have to be sent again; the next object is delivered."""
    bench.put(events := clicks(6, 1), offset=1)
    other = bench.put(more := clicks(2, 2), offset=2)
    message_ids = [event["id"] for event in events + more]
    bench.transport.outcomes.extend([(), *outage()])

    bench.deliver(max_batch_events=1)

    assert [message_ids.index(id_) for id_ in bench.sent_ids()] == [0, 2, 6, 7]
    assert bench.states_by_key()[other] is DELIVERED


def test_a_denied_destination_costs_delay_only(bench: Bench) -> None:
    """What was acknowledged is settled and reported; the rest is given back, without an attempt counted."""
    keys = [bench.put(2, offset=offset) for offset in range(4)]
    bench.transport.outcomes.extend([(), DENIED, DENIED])

    report = bench.deliver(max_batch_events=2)

    assert isinstance(report.credential_error, CredentialError)
    assert [settled.id for settled in of_kind(report.settlements, Delivered)] == [1]
    assert report.batches == 1
    assert bench.states_by_key() == {keys[0]: DELIVERED} | dict.fromkeys(keys[1:], PENDING)
    assert [row["attempts"] for row in bench.ledger.rows()] == [0] * 4


@pytest.mark.usefixtures("one_at_a_time")
def test_after_a_denial_no_further_object_is_begun(bench: Bench) -> None:
    """Reading objects whose messages cannot go anywhere would be for nothing, but for those that are on their way."""
    keys = [bench.put(1, offset=offset) for offset in range(AHEAD_OBJECTS + 4)]
    group = bench.claim()
    bench.transport.outcomes.append(DENIED)

    bench.deliver(group, max_batch_events=1)

    assert set(bench.store.opened) < set(keys)
    assert bench.states() == {PENDING: len(keys)}


@pytest.mark.parametrize("settle_bytes", [delivery.SETTLE_BYTES, 1])
def test_a_denied_object_waits_and_the_others_are_delivered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, settle_bytes: int
) -> None:
    """S3 says no to one object of several, as for a foreign KMS key: that is no failing credential."""
    monkeypatch.setattr(delivery, "SETTLE_BYTES", settle_bytes)
    bench.put(2, offset=0)
    denied = bench.put(2, offset=1)
    error = CredentialError(Side.SOURCE, "s3 answered AccessDenied", "allow s3:GetObject")
    bench.store.faults[denied] = error
    other = bench.put(2, offset=2)

    report = bench.deliver(max_batch_events=1)

    assert report.credential_error is None
    assert bench.states_by_key()[denied] is FAILED
    assert bench.states_by_key()[other] is DELIVERED


def test_a_source_that_denies_every_object_is_a_failing_credential(bench: Bench) -> None:
    """They are given back, and no attempt is counted."""
    error = CredentialError(Side.SOURCE, "s3 answered AccessDenied", "allow s3:GetObject")
    for offset in range(2):
        bench.store.faults[bench.put(2, offset=offset)] = error

    report = bench.deliver()

    assert report.credential_error is error
    assert bench.states() == {PENDING: 2}


@pytest.mark.usefixtures("one_at_a_time")
def test_a_stop_releases_what_was_not_begun_and_settles_what_was(bench: Bench) -> None:
    """The object whose batch is under way at the stop is delivered."""

    class Stopping(FakeTransport):
        def send(self, batch: Batch) -> Sequence[Refusal]:
            bench.stop.set()
            return super().send(batch)

    bench.transport = Stopping()
    keys = [bench.put(3, offset=offset) for offset in range(5)]

    report = bench.deliver(max_batch_events=1)

    states = bench.states_by_key()
    assert states[keys[0]] is DELIVERED
    assert states[keys[-1]] is PENDING
    assert set(states.values()) == {DELIVERED, PENDING}
    assert len(bench.sent_ids()) == 3 * len(report.settlements)


def test_a_batch_that_gives_up_because_of_a_stop_costs_no_attempt(bench: Bench) -> None:
    """Its object is released, so that the next run takes it at once."""

    class Stopping(FakeTransport):
        def send(self, batch: Batch) -> Sequence[Refusal]:
            bench.stop.set()
            return super().send(batch)

    bench.transport = Stopping(outage())
    bench.put(2)

    bench.deliver()

    assert bench.transport.attempts == 1
    assert bench.states() == {PENDING: 1}


def test_nothing_came_through_when_batches_failed_and_none_was_acknowledged(bench: Bench) -> None:
    """One acknowledged batch is proof to the contrary."""
    bench.put(4)
    bench.transport.outcomes.extend(outage(12))
    assert bench.deliver(max_batch_events=2).nothing_through

    bench.now += timedelta(minutes=1)
    bench.transport.outcomes.extend(outage(6))
    assert not bench.deliver(max_batch_events=2).nothing_through


def test_an_outcome_that_cannot_be_recorded_leaves_the_claims(bench: Bench) -> None:
    """The error is raised, and no object counts as delivered."""
    bench.put(2)
    group = bench.claim()
    bench.ledger.faults["settle"] = LedgerError("disk full")

    with pytest.raises(LedgerError):
        bench.deliver(group)

    assert bench.states() == {ObjectState.CLAIMED: 1}


@pytest.mark.parametrize("error", [ZeroDivisionError("a mistake"), pl.exceptions.PanicException("no way")])
def test_an_object_that_cannot_be_read_for_whatever_reason_costs_itself_only(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """The log tells of it once, with its traceback."""
    bench.put(1)
    bad = bench.put(2, event_type=OPEN)

    def failing(_: str, event_type: str) -> None:
        if event_type == OPEN:
            raise error

    monkeypatch.setattr(reading, "check_witness", failing)

    with capture_logs() as logs:
        bench.deliver()

    assert bench.states_by_key()[bad] is ObjectState.QUARANTINED
    assert bench.states()[DELIVERED] == 1
    assert [line["key"] for line in logs if line["event"] == "object_bug"] == [bad]


def test_objects_that_cannot_be_decoded_together_are_decoded_alone(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the reason is: the one that is at fault shows then."""
    bench.put(1, offset=1)
    bench.put(1, offset=2)

    def failing(_: object) -> None:
        raise ZeroDivisionError("a mistake")

    monkeypatch.setattr(reading, "decode_together", failing)

    bench.deliver()

    assert bench.states() == {DELIVERED: 2}


def test_an_object_that_does_not_fit_into_memory_waits(bench: Bench) -> None:
    """There may be more of it later."""
    bench.mapper.faults[bench.put(2)] = MemoryError()

    bench.deliver()

    assert bench.states() == {ObjectState.FAILED: 1}


def test_an_object_that_cannot_be_settled_costs_itself_only(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The others of its group are recorded."""
    keys = [bench.put(1, offset=offset) for offset in range(3)]
    settle = bench.ledger.settle

    def picky(settlements: Sequence[Settlement], now: datetime) -> None:
        if any(isinstance(settlement, Delivered) and settlement.id == 2 for settlement in settlements):
            raise ValueError("the books do not balance")
        settle(settlements, now)

    monkeypatch.setattr(bench.ledger, "settle", picky)

    bench.deliver()

    states = [bench.states_by_key()[key] for key in keys]
    assert states == [DELIVERED, ObjectState.QUARANTINED, DELIVERED]


def test_what_cannot_be_settled_at_all_is_raised(bench: Bench) -> None:
    """Nothing hides it, and nothing is settled."""
    bench.put(2)
    bench.ledger.faults["settle"] = ZeroDivisionError("a mistake")
    group = bench.claim()

    with pytest.raises(ZeroDivisionError):
        bench.deliver(group)

    assert bench.states() == {ObjectState.CLAIMED: 1}


def test_retries_start_at_a_minute_and_double_up_to_six_hours() -> None:
    """1, 2, 4 ... 256 minutes, then six hours for ever."""
    waits = [retry_at(HOUR, attempts) - HOUR for attempts in range(11)]

    assert waits == [*(timedelta(minutes=2**n) for n in range(9)), timedelta(hours=6), timedelta(hours=6)]


@given(st.integers(min_value=0))
def test_no_number_of_attempts_leads_beyond_the_longest_wait(attempts: int) -> None:
    """An object that fails for years is still tried."""
    assert timedelta() < retry_at(HOUR, attempts) - HOUR <= LAST_RETRY


def test_an_empty_object_is_set_aside_alone(bench: Bench) -> None:
    """With a reason that says so."""
    bench.store.put(bench.put(1), b"")
    bench.put(1, offset=1)

    report = bench.deliver()

    (quarantined,) = of_kind(report.settlements, Quarantined)
    assert quarantined.reason == "not readable as Avro: the file is empty"
    assert len(of_kind(report.settlements, Delivered)) == 1
