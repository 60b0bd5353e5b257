import gc
from collections.abc import Sequence
from datetime import timedelta

import polars as pl
import pytest

from currents_bridge.connector import CANARY_GOOD_FOR, FOLD_AFTER, event_type_of
from currents_bridge.credentials.state import LossPolicy
from currents_bridge.delivery.workers import TransferReport
from currents_bridge.errors import (
    BridgeError,
    CredentialError,
    LedgerError,
    OneObjectError,
    RefusedError,
    RetryLaterError,
    Side,
    StoppedError,
)
from currents_bridge.events.catalogue import catalogue
from currents_bridge.model import (
    Batch,
    Credential,
    CredentialState,
    Evidence,
    EvidenceKind,
    ExpiryRule,
    GroupLimits,
    LetterFilter,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Refusal,
    format_hour,
)
from currents_bridge.sending.sender import key_in_body
from currents_bridge.sources.coverage import hour_of
from currents_bridge.testing.currents_files import object_key, write_container
from tests.workbench import CLICK, DENIED, HOUR, NAME, OPEN, UNWELL, Bench, clicks

DELIVERED, FAILED, PENDING = ObjectState.DELIVERED, ObjectState.FAILED, ObjectState.PENDING
FAILING = CredentialState.FAILING
AUDIT = timedelta(hours=1)
NOT_LISTED = CredentialError(Side.SOURCE, "s3 answered AccessDenied", "allow s3:ListBucket")


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def credential(bench: Bench, side: Side = Side.DESTINATION) -> Credential:
    """Return what the ledger knows of a credential."""
    return bench.ledger.credential(NAME, side)


def test_a_batch_leaves_room_for_the_write_key(bench: Bench) -> None:
    """With OAuth it stands in the body, and `max_batch_bytes` is the size of all of it."""
    for packer_bytes in (40_000, 475_000):
        packer = bench.connector(max_batch_bytes=packer_bytes).packer()
        assert packer._max_bytes + len(key_in_body(bench.write_key)) == packer_bytes


def test_a_poll_finds_and_delivers_what_is_new(bench: Bench) -> None:
    """Once."""
    connector = bench.connector()
    bench.put(3, offset=1)

    first, second = connector.poll(), connector.poll()

    assert (first.discovered, first.delivered, first.books.sent) == (1, 1, 3)
    assert (second.discovered, second.delivered, second.error) == (0, 0, None)


def test_between_two_polls_no_events_are_held(bench: Bench) -> None:
    """Neither batches nor frames, not even in cycles that Python would collect some time."""
    connector = bench.connector(workers=2, max_in_flight=2)
    bench.put(3, offset=1)
    bench.put(3, offset=2)
    gc.collect()
    gc.disable()
    try:
        before = set(map(id, held_events()))
        assert connector.poll().books.sent == 6
        bench.transport.batches.clear()
        held = [one for one in held_events() if id(one) not in before]
    finally:
        gc.enable()

    assert not held


def held_events() -> list[object]:
    """Return all batches and columns that are in memory."""
    return [one for one in gc.get_objects() if isinstance(one, (Batch, pl.DataFrame, pl.Series))]


def test_a_poll_delivers_an_included_type_that_the_catalogue_lacks(bench: Bench) -> None:
    """`source.event_types` is asked with the types that the bucket holds."""
    bench.put(2, event_type="users.messages.carrierpigeon.Send")
    bench.include = ("all",)

    assert bench.connector().poll().books.sent == 2


@pytest.mark.parametrize("error", [NOT_LISTED, RetryLaterError("s3 answered 503")])
def test_a_bucket_that_cannot_be_listed_is_kept_in_the_report(bench: Bench, error: Exception) -> None:
    """Nothing is raised and nothing is delivered."""
    bench.put(3)
    bench.store.faults[""] = error

    report = bench.connector().poll()

    assert report.error is error
    assert bench.transport.attempts == 0


@pytest.mark.parametrize("method", ["progress", "save_credential", "settle"])
def test_a_ledger_that_fails_is_kept_in_the_report(bench: Bench, method: str) -> None:
    """Wherever it fails, and the objects are free afterwards."""
    bench.put(3)
    connector = bench.connector()
    bench.ledger.faults[method] = LedgerError("disk full")

    report = connector.once(AUDIT)

    assert str(report.error) == "disk full"
    bench.ledger.faults.clear()
    assert ObjectState.CLAIMED not in bench.states()


def test_objects_that_the_ledger_did_not_take_back_are_released_by_the_next_pass(bench: Bench) -> None:
    """An outage of the ledger costs delay, not a restart."""
    bench.put(3)
    connector = bench.connector()
    bench.ledger.faults |= {"settle": LedgerError("disk full"), "release": LedgerError("disk full")}
    connector.poll()
    assert bench.states() == {ObjectState.CLAIMED: 1}

    connector.poll()
    assert bench.states() == {ObjectState.CLAIMED: 1}
    bench.ledger.faults.clear()
    report = connector.poll()

    assert (report.delivered, bench.states()) == (1, {DELIVERED: 1})


def test_a_failing_credential_is_kept_with_the_time_of_its_first_failure(bench: Bench) -> None:
    """Later failures do not move it, however the program is started again."""
    bench.put(3)
    began = bench.now
    bench.transport.outcomes.extend([DENIED] * 3)
    bench.connector().poll()
    bench.now += timedelta(hours=5)

    report = bench.connector().poll()

    assert isinstance(report.error, CredentialError)
    known = credential(bench)
    assert (known.state, known.since, known.evidence) == (FAILING, began, "segment answered 401")
    assert bench.states() == {PENDING: 1}


def test_while_the_key_is_refused_one_object_goes_ahead(bench: Bench) -> None:
    """Once it is taken, all the rest follows in the same poll."""
    for offset in range(5):
        bench.put(1, offset=offset)
    bench.transport.outcomes.extend([DENIED] * 3)
    connector = bench.connector()
    connector.poll()
    connector.poll()
    assert bench.transport.attempts == 3

    connector.poll()

    assert bench.states() == {DELIVERED: 5}
    assert [batch.events for batch in bench.transport.batches] == [1, 4]
    assert credential(bench).state is CredentialState.UNVERIFIED


def gateway(bench: Bench, error: BridgeError, *bad: str) -> None:
    """Have requests that hold an event of these objects answered with the error, all others acknowledged."""
    ids = {row["id"] for row in bench.ledger.rows() if row["key"] in bad}
    take = bench.transport.send

    def send(batch: Batch) -> Sequence[Refusal]:
        if ids & {part.object_id for part in batch.parts}:
            bench.transport.attempts += 1
            raise error
        return take(batch)

    bench.transport.send = send  # type: ignore[method-assign]


REFUSED = RefusedError("segment answered 400")
FORBIDDEN = CredentialError(Side.DESTINATION, "gateway answered 403", "see why")


@pytest.mark.parametrize("error", [REFUSED, FORBIDDEN], ids=["400", "403"])
@pytest.mark.parametrize("max_batch_events", [10, 1000])
def test_first_files_that_are_refused_whole_keep_no_others_waiting(
    bench: Bench, error: BridgeError, max_batch_events: int
) -> None:
    """All 90 good events go in the first pass, packed with bad ones or not, and the key is not blamed."""
    bad = [bench.put(10, offset=offset, hour=HOUR - timedelta(hours=2)) for offset in range(6)]
    good = [bench.put(10, offset=100 + offset) for offset in range(9)]
    bench.admit()
    gateway(bench, error, *bad)

    report = bench.connector(max_batch_events=max_batch_events).poll()

    assert {bench.states_by_key()[key] for key in good} == {DELIVERED}
    assert report.error is None
    assert credential(bench).state is CredentialState.UNVERIFIED
    if error is REFUSED:
        assert (report.books.sent, report.books.dead_lettered) == (90, 60)
    else:
        assert (report.failed, set(report.reasons)) == (6, {"gateway answered 403; other messages are taken"})


@pytest.mark.parametrize("error", [REFUSED, FORBIDDEN], ids=["400", "403"])
def test_canaries_vary_until_one_is_taken(bench: Bench, error: BridgeError) -> None:
    """With refused files among the newest, too: none goes ahead twice while others wait, and none costs an attempt."""
    bad = [bench.put(1, offset=n, hour=HOUR - timedelta(hours=n)) for n in (0, 1, 2, 9)]
    good = [bench.put(1, offset=n, hour=HOUR - timedelta(hours=n)) for n in (3, 4)]
    bench.admit()
    gateway(bench, error, *bad)

    passes = 0
    while bench.states_by_key()[good[0]] is not DELIVERED:
        passes += 1
        assert passes < 6
        report = bench.connector(max_batch_events=1).poll()
        assert {row["attempts"] for row in bench.ledger.rows() if row["key"] in good} == {0}

    assert {bench.states_by_key()[key] for key in good} == {DELIVERED}
    assert 2 < passes <= 4
    assert report.error is None


@pytest.mark.parametrize("outcome", [[UNWELL] * 6, [DENIED], [REFUSED]], ids=["503", "401", "400"])
def test_a_canary_that_fails_costs_no_attempt(bench: Bench, outcome: list[BridgeError]) -> None:
    """It is given back as it was."""
    bench.put(3)
    connector = bench.connector()
    connector.watch.denied(DENIED)
    bench.transport.outcomes.extend(outcome * 30)

    connector.poll()

    assert [(row["state"], row["attempts"]) for row in bench.ledger.rows()] == [("pending", 0)]


def test_a_lone_refused_message_is_set_aside_by_another_process(bench: Bench) -> None:
    """What an earlier one had acknowledged proves that it is the message."""
    bench.put(2)
    bench.connector().once(AUDIT)
    bad = bench.put(1, offset=1)
    bench.admit()
    gateway(bench, REFUSED, bad)

    report = bench.connector().once(AUDIT)

    assert (report.error, report.books.dead_lettered, bench.states()) == (None, 1, {DELIVERED: 2})


def test_with_a_dead_key_nothing_is_set_aside(bench: Bench) -> None:
    """However often it is tried: what was acknowledged before is refused as well."""
    bench.put(2)
    bench.connector().once(AUDIT)
    bench.put(30, offset=1)
    bench.transport.outcomes.extend([REFUSED] * 1000)

    for _ in range(3):
        report = bench.connector().once(AUDIT)
        assert isinstance(report.error, CredentialError)

    assert bench.states() == {DELIVERED: 1, PENDING: 1}
    assert bench.ledger.dead_letters(LetterFilter()) == []


def test_sending_a_canary_again_does_not_make_it_younger(bench: Bench) -> None:
    """Segment drops repeats for about a day from the first time on."""
    bench.put(2)
    bench.connector().poll()
    for offset in (1, 2):
        bench.now += CANARY_GOOD_FOR - timedelta(hours=1)
        bench.put(1, offset=offset, hour=hour_of(bench.now))
        bench.transport.outcomes.append(REFUSED)
        report = bench.connector().poll()
        assert (report.books.dead_lettered, report.failed) == ((1, 0) if offset == 1 else (0, 1))


def test_a_lone_refused_object_does_not_condemn_a_key_that_nothing_is_known_of(bench: Bench) -> None:
    """It waits, with the reason, for a message that is taken."""
    bench.put(3)
    for passes in range(1, 4):
        bench.transport.outcomes.extend([REFUSED] * 30)
        report = bench.connector().once(AUDIT)
        assert (report.error, report.failed) == (None, 1)
        assert "be it for the data or for the key" in next(iter(report.reasons))
        assert [(row["state"], row["attempts"]) for row in bench.ledger.rows()] == [("failed", passes)]
        bench.now += timedelta(hours=6)
        bench.transport.outcomes.clear()
    assert credential(bench).state is not FAILING


def test_a_key_that_refuses_two_objects_and_took_none_is_failing(bench: Bench) -> None:
    """Nothing is set aside, and no attempt counts."""
    bench.put(3)
    bench.put(3, offset=1)
    bench.transport.outcomes.extend([REFUSED] * 60)

    report = bench.connector(max_batch_events=1).once(AUDIT)

    assert isinstance(report.error, CredentialError)
    assert {row["attempts"] for row in bench.ledger.rows()} == {0}
    assert bench.ledger.dead_letters(LetterFilter()) == []


def test_a_message_that_was_acknowledged_long_ago_is_not_sent_again(bench: Bench) -> None:
    """Segment would take it for a new one; so a lone refused message waits for company."""
    bench.put(2)
    bench.connector().poll()
    sent = bench.sent_ids()
    bench.now += CANARY_GOOD_FOR + timedelta(seconds=1)
    bench.put(1, offset=1, hour=hour_of(bench.now))
    bench.transport.outcomes.extend([REFUSED])

    assert bench.connector().poll().failed == 1
    assert bench.sent_ids() == sent
    bench.now += timedelta(minutes=1)
    bench.put(1, offset=2, hour=hour_of(bench.now))
    bench.transport.outcomes.extend([REFUSED, (), REFUSED])
    bench.connector().poll()
    assert bench.states() == {DELIVERED: 3}


def test_nothing_is_sent_with_a_key_that_a_probe_found_dead(bench: Bench) -> None:
    """Objects are discovered all the while, and the report says why they wait."""
    connector = bench.connector()
    connector.watch.take_in(Side.DESTINATION, Evidence(EvidenceKind.REVOKED, bench.now, "revoked", "renew it"))
    bench.put(3)

    report = connector.poll()

    assert (report.discovered, bench.transport.attempts, bench.states()) == (1, 0, {PENDING: 1})
    assert (str(report.error), report.error.hint) == ("sending is paused: revoked", "renew it")  # type: ignore[union-attr]


def test_a_canary_whose_2xx_says_nothing_counts_for_nothing(bench: Bench) -> None:
    """One object a poll is sent, so that the Public API can count it, and it waits on."""
    for offset in range(3):
        bench.put(2, offset=offset)
    connector = bench.connector()
    for late in (0, 30):
        at = bench.now + timedelta(minutes=late)
        nothing = Evidence(EvidenceKind.NOT_RECEIVED, at, "received 0", counted_until=at)
        connector.watch.take_in(Side.DESTINATION, nothing)

    report = connector.poll()

    assert ([batch.events for batch in bench.transport.batches], report.sent_first) == ([2], 2)
    assert (report.delivered, bench.states()) == (0, {PENDING: 3})
    connector.watch.take_in(Side.DESTINATION, Evidence(EvidenceKind.RECEIVED, bench.now, "received 2"))
    assert connector.poll().delivered == 3


def test_fields_that_the_catalogue_does_not_know_are_noted_until_they_are_gone(bench: Bench) -> None:
    """By the newest file of the type; an older one that comes later changes nothing."""
    connector = bench.connector()
    bench.put([event | {"novelty": "x"} for event in clicks(2)], offset=1, overrides={"novelty": ["null", "string"]})
    connector.poll()
    (notice,) = [n for n in bench.ledger.totals(NAME).notices if n.kind is NoticeKind.SCHEMA_DRIFT]
    assert (notice.subject, notice.detail) == (CLICK, "new: novelty (string)")

    bench.put(2, offset=2, hour=HOUR - timedelta(hours=1))
    connector.poll()
    assert NoticeKind.SCHEMA_DRIFT in {n.kind for n in bench.ledger.totals(NAME).notices}

    bench.now += timedelta(hours=1)
    bench.put(2, offset=3, hour=HOUR + timedelta(hours=1))
    connector.poll()
    assert NoticeKind.SCHEMA_DRIFT not in {n.kind for n in bench.ledger.totals(NAME).notices}


def drift_notices(bench: Bench) -> list[Notice]:
    """Return what is noted of drift."""
    return [notice for notice in bench.ledger.totals(NAME).notices if notice.kind is NoticeKind.SCHEMA_DRIFT]


def test_a_file_that_is_quarantined_as_foreign_teaches_no_drift(bench: Bench) -> None:
    """Its columns say nothing of Braze's; a file beside it does."""
    connector = bench.connector()
    body = write_container(
        {"type": "record", "name": "Alien", "fields": [{"name": "id", "type": "string"}]}, [{"id": "1"}]
    )
    bench.store.put(object_key(CLICK, HOUR, offset=1), body, last_modified=HOUR)

    connector.poll()
    assert bench.states() == {ObjectState.QUARANTINED: 1}
    assert drift_notices(bench) == []

    bench.put([event | {"novelty": "x"} for event in clicks(2)], offset=2, overrides={"novelty": ["null", "string"]})
    connector.poll()
    assert [notice.detail for notice in drift_notices(bench)] == ["new: novelty (string)"]


def test_drift_of_an_hour_that_lies_ahead_goes_away_with_the_next_file(bench: Bench) -> None:
    """A folder of the year 9999 does not keep its notice for ever."""
    connector = bench.connector()
    ahead = HOUR.replace(year=9999)
    odd = [event | {"novelty": "x"} for event in clicks(2)]
    bench.put(odd, overrides={"novelty": ["null", "string"]}, hour=ahead)
    connector.poll()
    assert len(drift_notices(bench)) == 1

    bench.now += timedelta(hours=1)
    bench.put(2, offset=1, hour=HOUR + timedelta(hours=1))
    connector.poll()
    assert drift_notices(bench) == []


def test_a_key_found_dead_in_the_middle_stops_the_poll_after_its_group(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was begun is settled, nothing more is begun."""
    for offset in range(3):
        bench.put(1, offset=offset, hour=HOUR + timedelta(hours=offset))
    bench.now += timedelta(hours=3)
    monkeypatch.setattr("currents_bridge.connector.GroupLimits", lambda: GroupLimits(max_objects=1))
    connector = bench.connector()

    def find_dead(_: TransferReport) -> None:
        connector.watch.take_in(Side.DESTINATION, Evidence(EvidenceKind.REVOKED, bench.now, "revoked"))

    report = connector.poll(find_dead)

    assert (report.delivered, bench.transport.attempts) == (1, 1)
    assert isinstance(report.error, CredentialError)


def test_a_poll_without_anything_to_send_proves_nothing(bench: Bench) -> None:
    """The destination's credential stays failing until Segment has answered."""
    connector = bench.connector()
    connector.watch.denied(DENIED)

    connector.poll()

    assert credential(bench).state is FAILING


def test_what_is_older_than_the_window_is_set_aside_where_that_is_wanted(bench: Bench) -> None:
    """Only once the window has ended; the bucket still has it, and it can be replayed."""
    bench.loss = LossPolicy(drop=True)
    connector = bench.connector()
    connector.watch.take_in(Side.DESTINATION, Evidence(EvidenceKind.REVOKED, bench.now, "revoked"))
    bench.put(3, offset=1)
    bench.now += timedelta(hours=47)
    connector.poll()
    bench.put(3, offset=2, hour=hour_of(bench.now))
    assert bench.states() == {PENDING: 1}

    bench.now += timedelta(hours=2)
    connector.poll()

    assert bench.states() == {PENDING: 1, ObjectState.QUARANTINED: 1}
    (aside,) = bench.ledger.quarantined(NAME)
    assert "loss window" in aside.reason


def test_by_default_nothing_is_ever_set_aside_for_its_age(bench: Bench) -> None:
    """However long it waits."""
    connector = bench.connector()
    connector.watch.take_in(Side.DESTINATION, Evidence(EvidenceKind.REVOKED, bench.now, "revoked"))
    bench.put(3)
    bench.now += timedelta(days=300)
    connector.poll()

    assert bench.states() == {PENDING: 1}


def test_a_source_that_denies_is_a_failing_credential(bench: Bench) -> None:
    """From S3 as from Segment; the destination's is none the worse."""
    bench.store.faults[""] = NOT_LISTED

    bench.connector().poll()

    known = credential(bench, Side.SOURCE)
    assert (known.state, known.since, known.evidence) == (FAILING, bench.now, "s3 answered AccessDenied")
    assert credential(bench).state is CredentialState.UNVERIFIED


def test_a_source_that_answers_is_verified(bench: Bench) -> None:
    """S3 means what it says."""
    bench.connector().poll()

    assert credential(bench, Side.SOURCE).state is CredentialState.VERIFIED


def deny(bench: Bench, key: str) -> None:
    """Have S3 deny one object."""
    bench.store.faults[key] = CredentialError(Side.SOURCE, f"cannot read {key}: access denied", "grant s3:GetObject")


def test_a_source_that_can_be_listed_but_not_read_keeps_failing(bench: Bench) -> None:
    """Where no object can be read at all, it is the credential."""
    key = bench.put(3)
    deny(bench, key)
    connector = bench.connector()
    connector.poll()
    assert credential(bench, Side.SOURCE).state is FAILING
    bench.now += timedelta(hours=1)

    report = connector.poll()

    assert (credential(bench, Side.SOURCE).state, bench.states()) == (FAILING, {PENDING: 1})
    assert isinstance(report.error, CredentialError)
    bench.store.faults.clear()
    assert connector.poll().delivered == 1
    assert credential(bench, Side.SOURCE).state is CredentialState.VERIFIED


def test_a_denied_object_in_a_quiet_hour_is_its_own_trouble(bench: Bench) -> None:
    """One that was delivered long ago is read, to see whether it is the credential."""
    bench.put(3)
    bench.connector().once(AUDIT)
    bench.now += timedelta(hours=9)
    deny(bench, denied := bench.put(3, offset=1, hour=hour_of(bench.now)))

    report = bench.connector().once(AUDIT)

    assert (report.error, report.failed, bench.states_by_key()[denied]) == (None, 1, FAILED)
    assert credential(bench, Side.SOURCE).state is CredentialState.VERIFIED
    bench.put(3, offset=2, hour=hour_of(bench.now))
    assert bench.connector().once(AUDIT).delivered == 1


@pytest.mark.parametrize("hours", [0.5, 2])
def test_a_delivery_within_the_hour_speaks_for_the_credential(bench: Bench, hours: float) -> None:
    """Where nothing that was delivered is left in the bucket, and nothing else waits."""
    delivered = bench.put(3, offset=1)
    bench.connector().poll()
    bench.store.delete(delivered)
    bench.now += timedelta(hours=hours)
    deny(bench, bench.put(3, offset=2, hour=hour_of(bench.now)))

    report = bench.connector().poll()

    assert (report.failed, isinstance(report.error, CredentialError)) == ((1, False) if hours < 1 else (0, True))


def test_what_can_no_longer_be_read_of_all_is_the_credential_at_once(bench: Bench) -> None:
    """A delivery of a minute ago says nothing once its own object is denied."""
    first = bench.put(3)
    bench.connector().poll()
    deny(bench, first)
    deny(bench, bench.put(3, offset=1))

    report = bench.connector().poll()

    assert isinstance(report.error, CredentialError)
    assert (credential(bench, Side.SOURCE).state, report.failed) == (FAILING, 0)


def test_an_archived_object_is_no_outage(bench: Bench) -> None:
    """Also where there is nothing else to read: it is told with what helps, and waits for its restoration."""
    key = bench.put(1)
    bench.store.faults[key] = OneObjectError("the object is archived, restore it from its storage class")

    report = bench.connector().poll()

    assert (report.error, report.failed, bench.states()) == (None, 1, {FAILED: 1})
    assert "restore it" in (bench.ledger.rows()[0]["reason"])


def test_an_empty_object_does_not_speak_for_the_credential(bench: Bench) -> None:
    """It is read without asking S3."""
    deny(bench, bench.put(1, hour=HOUR - timedelta(hours=1)))
    bench.store.put(bench.put(1, offset=1), b"")

    report = bench.connector().poll()

    assert isinstance(report.error, CredentialError)
    assert credential(bench, Side.SOURCE).state is FAILING


def test_denied_objects_before_the_first_delivery_do_not_keep_others_waiting(bench: Bench) -> None:
    """Where all that are read first are denied, the source fails until another one was read."""
    for n in range(5):
        deny(bench, bench.put(1, offset=n, hour=HOUR - timedelta(hours=n)))
    good = bench.put(1, offset=9, hour=HOUR - timedelta(hours=9))
    connector = bench.connector()
    for _ in range(3):
        connector.poll()

    assert bench.states_by_key()[good] is DELIVERED
    assert credential(bench, Side.SOURCE).state is CredentialState.VERIFIED
    assert bench.states() == {DELIVERED: 1, FAILED: 5}


def test_what_may_have_to_be_sent_again_is_not_folded(bench: Bench) -> None:
    """Objects settled since the last proof stay whole, for a while."""
    connector = bench.connector()
    connector.watch.take_in(Side.DESTINATION, Evidence(EvidenceKind.CONFIRMED, bench.now, "listed"))
    bench.now += timedelta(minutes=1)
    bench.put(1)
    connector.poll()
    bench.now += FOLD_AFTER + timedelta(hours=1)
    connector.audit()
    assert len(bench.ledger.rows()) == 1

    connector.watch.take_in(Side.DESTINATION, Evidence(EvidenceKind.CONFIRMED, bench.now, "listed"))
    connector.audit()

    assert bench.ledger.rows() == []


def test_an_audit_keeps_the_rules_by_which_the_bucket_deletes(bench: Bench) -> None:
    """Those that may hold for the connector's objects, be it before the first of them was written."""
    bench.prefix = "braze/"
    bench.store.rules = [ExpiryRule("", days=30), ExpiryRule("logs/", days=1), ExpiryRule("braze/x/", days=7)]

    bench.connector().audit()

    assert [rule.prefix for rule in bench.ledger.totals(NAME).expiry_rules] == ["", "braze/x/"]


def test_what_is_known_is_delivered_although_a_listing_fails(bench: Bench) -> None:
    """The report keeps the reason."""
    bench.put(3)
    bench.admit()
    bench.store.faults[""] = RetryLaterError("s3 answered 503")

    report = bench.connector().poll()

    assert (report.delivered, report.error) == (1, bench.store.faults[""])


def test_a_destination_that_is_down_leaves_the_rest_for_later(bench: Bench) -> None:
    """The report says what is wrong."""
    bench.put(3)
    bench.transport.down = True

    report = bench.connector().poll()

    assert str(report.error) == "Segment takes nothing now: segment answered 503"
    assert (report.failed, dict(report.reasons)) == (1, {UNWELL.message: 1})


def test_a_failed_object_is_delivered_by_a_poll_after_its_retry_time(bench: Bench) -> None:
    """Not by an earlier one."""
    bench.put(1, offset=1)
    bench.store.breaks[bench.put(3, offset=2)] = RetryLaterError("the connection broke")
    connector = bench.connector()
    assert connector.poll().failed == 1
    bench.store.breaks.clear()

    assert connector.poll().delivered == 0
    bench.now += timedelta(minutes=2)
    assert connector.poll().delivered == 1


class TestUnreachable:
    """A side of which nothing comes through, and objects that only look like it."""

    @pytest.mark.parametrize("workers", [1, 4])
    def test_an_outage_of_segment_costs_delay_only(self, bench: Bench, workers: int) -> None:
        """However many polls meet it; at its end all is delivered by the next poll, the oldest first."""
        hours = [HOUR - timedelta(hours=back) for back in range(4)]
        for hour in hours:
            bench.put(2, hour=hour)
        connector = bench.connector(workers=workers)
        bench.transport.down = True
        for _ in range(5):
            report = connector.poll()
            assert (report.delivered, bool(report.error)) == (0, True)
            bench.now += timedelta(minutes=1)
        assert [row["attempts"] for row in bench.ledger.rows()] == [0] * 4
        bench.transport.down = False
        bench.put(2, offset=1)

        report = connector.poll()

        assert (report.delivered, report.error) == (5, None)
        behind_canary = [message["timestamp"][:13] for message in bench.transport.messages[2:]]
        assert behind_canary == sorted(behind_canary) or workers > 1

    def test_an_outage_is_probed_by_single_objects(self, bench: Bench) -> None:
        """Not by reading and sending all that waits, poll after poll."""
        for offset in range(9):
            bench.put(2, offset=offset)
        connector = bench.connector()
        bench.transport.down = True
        connector.poll()
        bench.store.opened.clear()

        connector.poll()

        assert len(bench.store.opened) == 3

    @pytest.mark.parametrize("listed", [True, False])
    def test_an_outage_of_s3_costs_delay_only(self, bench: Bench, *, listed: bool) -> None:
        """Whether it can be listed or not."""
        keys = [bench.put(2, offset=offset) for offset in range(4)]
        bench.admit()
        connector = bench.connector()
        bench.store.faults |= {key: RetryLaterError("S3 answered 503") for key in keys}
        if not listed:
            bench.store.faults[""] = RetryLaterError("S3 answered 503")
        for _ in range(5):
            report = connector.poll()
            assert (report.delivered, str(report.error)[-15:]) == (0, "S3 answered 503")
            bench.now += timedelta(minutes=1)
        bench.store.faults.clear()
        assert [row["attempts"] for row in bench.ledger.rows()] == [0] * 4

        assert connector.poll().delivered == 4

    def test_what_failed_on_the_way_into_an_outage_is_due_at_its_end(self, bench: Bench) -> None:
        """Whatever its next attempt was put off to."""
        late = bench.put(2, offset=1)
        bench.put(2, offset=2)
        bench.store.breaks[late] = RetryLaterError("the connection broke")
        connector = bench.connector()
        assert connector.poll().failed == 1
        bench.store.breaks.clear()
        bench.put(2, offset=3)
        bench.transport.down = True
        connector.poll()
        bench.transport.down = False

        assert connector.poll().delivered == 2

    def test_an_outage_that_begins_in_mid_group_costs_no_attempt(self, bench: Bench) -> None:
        """What was taken before it proves nothing of what came later."""
        for offset in range(4):
            bench.put(2, offset=offset)
        bench.transport.outcomes.extend([(), *[UNWELL] * 60])
        connector = bench.connector(max_batch_events=2)

        assert connector.poll().delivered == 1
        assert {row["attempts"] for row in bench.ledger.rows()} == {0}

    def test_an_object_that_fails_while_others_are_taken_waits_alone(self, bench: Bench) -> None:
        """What was packed with it goes without it, in the same poll; it is tried again at its own times."""
        poison = clicks(3)
        for offset in range(1, 8):
            bench.put(2, offset=offset)
        bad = bench.put(poison, offset=9)
        bench.transport.poison = poison[1]["id"]
        connector = bench.connector()

        connector.poll()
        connector.poll()

        assert bench.states() == {ObjectState.DELIVERED: 7, ObjectState.FAILED: 1}
        assert bench.states_by_key()[bad] is ObjectState.FAILED

        bench.put(2, offset=10)
        assert connector.poll().delivered == 1

    def test_an_object_that_fails_where_nothing_else_waits_keeps_nothing_waiting(self, bench: Bench) -> None:
        """It looks like an outage, until something else comes."""
        poison = clicks(3)
        bench.put(poison, offset=9)
        bench.transport.poison = poison[1]["id"]
        connector = bench.connector()
        for _ in range(3):
            assert connector.poll().error is not None
        for offset in range(1, 8):
            bench.put(2, offset=offset)

        report = connector.poll()

        assert (report.delivered, report.failed, report.error) == (7, 1, None)

    def test_a_denial_ends_an_outage(self, bench: Bench) -> None:
        """Whoever denies can be reached; what is wrong now is the key."""
        for offset in range(4):
            bench.put(2, offset=offset)
        connector = bench.connector()
        bench.transport.down = True
        connector.poll()
        bench.transport.down = False
        bench.transport.outcomes.extend([DENIED] * 20)

        assert isinstance(connector.poll().error, CredentialError)

    def test_an_outage_is_forgotten_where_nothing_waits_any_more(self, bench: Bench) -> None:
        """As where another process delivered it."""
        bench.put(2)
        connector = bench.connector()
        bench.transport.down = True
        connector.poll()
        bench.transport.down = False
        bench.connector().poll()

        assert connector.poll().error is None


def test_claims_of_a_dead_process_are_taken_over(bench: Bench) -> None:
    """Its objects are delivered by the next poll."""
    bench.put(3)
    bench.claim()
    bench.ledger.change("UPDATE objects SET owner = 'somebody else'")

    assert bench.connector().poll().delivered == 1


def test_once_audits_when_that_is_due_and_polls_in_any_case(bench: Bench) -> None:
    """The first run audits, the next one only after the interval."""
    bench.put(1)
    connector = bench.connector()
    connector.once(AUDIT)
    audited_at = bench.now
    bench.now += AUDIT - timedelta(seconds=1)
    connector.once(AUDIT)
    progress = bench.ledger.progress(NAME)
    assert (progress.polled_at, progress.audited_at, progress.started_at) == (bench.now, audited_at, audited_at)

    bench.now += timedelta(seconds=1)
    connector.once(AUDIT)

    assert bench.ledger.progress(NAME).audited_at == bench.now


def test_once_counts_what_the_audit_found(bench: Bench) -> None:
    """A file that came late into an hour of yesterday is discovered and delivered."""
    connector = bench.connector()
    connector.once(AUDIT)
    bench.put(2, hour=HOUR - timedelta(hours=20))
    bench.now += timedelta(hours=6)

    report = connector.once(AUDIT)

    assert (report.discovered, report.delivered) == (1, 1)


def test_what_the_audit_found_is_in_the_report(bench: Bench) -> None:
    """Once everything that could be was delivered."""
    bench.put(2)
    gone = bench.put(2, offset=1)
    connector = bench.connector()
    bench.store.breaks[gone] = RetryLaterError("the connection broke")
    connector.poll()
    bench.store.delete(gone)
    bench.now += timedelta(seconds=1)

    report = connector.once(AUDIT)

    assert report.findings == {"gone": 1}


def test_a_daemon_leaves_the_very_first_look_to_the_poll(bench: Bench) -> None:
    """Both at once would list a large bucket twice; then the audit comes when it is due."""
    bench.put(1)
    connector = bench.connector()
    connector.audit_when_due(AUDIT)
    assert bench.ledger.progress(NAME).audited_at is None

    connector.poll()
    audited_at = bench.now
    connector.audit_when_due(AUDIT)
    bench.now += AUDIT - timedelta(seconds=1)
    connector.audit_when_due(AUDIT)
    assert bench.ledger.progress(NAME).audited_at == audited_at

    bench.now += timedelta(seconds=1)
    connector.audit_when_due(AUDIT)
    assert bench.ledger.progress(NAME).audited_at == bench.now


def test_an_audit_of_the_future_does_not_put_off_the_next_one(bench: Bench) -> None:
    """The clock was wrong when it ran."""
    bench.put(1)
    connector = bench.connector()
    connector.poll()
    bench.ledger.save_progress(NAME, Progress(audited_at=bench.now + timedelta(days=9000)))

    connector.audit_when_due(AUDIT)

    assert bench.ledger.progress(NAME).audited_at == bench.now


def test_a_stop_ends_an_audit(bench: Bench) -> None:
    """It begins again with the next start."""
    for offset in range(1_000):
        bench.store.put(object_key(CLICK, HOUR, offset=offset), b"", HOUR)
    connector = bench.connector()
    bench.stop.set()

    report = connector.audit()

    assert "stopped" in str(report.error)
    assert bench.ledger.progress(NAME).audited_at is None


def test_an_audit_looks_no_further_back_than_its_depth(bench: Bench) -> None:
    """What is older stays as it is; without a depth it is found."""
    connector, deep = bench.connector(audit_depth=timedelta(days=1)), bench.connector()
    bench.put(1, offset=1)
    connector.poll()
    bench.put(1, offset=2, hour=HOUR - timedelta(hours=20))
    bench.put(1, offset=3, hour=HOUR - timedelta(hours=30))

    assert (connector.audit().discovered, deep.audit().discovered) == (1, 1)


def test_an_audit_leaves_others_time_between_its_listings(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for its turn after each full page; one takes so long here that the clock has no part in it."""
    monkeypatch.setattr("currents_bridge.connector.AUDIT_LISTINGS_PER_SECOND", 1 / 1_000)
    for offset in range(3_001):
        bench.store.put(object_key(CLICK, HOUR, offset=offset), b"", HOUR)

    bench.connector().audit()

    assert [round(wait_s / 1_000) for wait_s in bench.stop.waits_s] == [1, 2]


def test_a_folder_that_may_not_be_listed_costs_itself(bench: Bench) -> None:
    """The credential works, all else is delivered, and `once` does not end as if all were well."""
    key = bench.put(2)
    bench.put(2, event_type=OPEN)
    bench.store.faults[key.partition("date=")[0]] = NOT_LISTED

    report = bench.connector().poll()

    assert (report.delivered, report.denied_folders, report.error) == (1, 1, None)
    assert bench.ledger.credential(NAME, Side.SOURCE).state is CredentialState.VERIFIED


def test_a_prefix_under_which_there_is_nothing_is_an_error(bench: Bench) -> None:
    """A typo in it must not look like a quiet day."""
    bench.put(2)
    bench.prefix = "brase/"

    report = bench.connector().poll()

    assert isinstance(report.error, RetryLaterError)
    assert "brase/" in report.error.message
    assert bench.ledger.progress(NAME).polled_at is None


def test_an_audit_that_fails_does_not_keep_once_from_delivering(bench: Bench) -> None:
    """Its error is told all the same."""
    bench.put(2)
    connector = bench.connector()
    bench.ledger.faults["fold"] = LedgerError("cannot fold")

    report = connector.once(AUDIT)

    assert (str(report.error), report.delivered) == ("cannot fold", 1)


def test_an_audit_folds_hours_that_no_audit_looks_at_again(bench: Bench) -> None:
    """Delivered objects of old hours become one row; younger ones stay."""
    bench.put(1, offset=1)
    bench.put(1, offset=2, hour=HOUR + timedelta(days=1))
    bench.connector().poll()
    bench.now = HOUR + FOLD_AFTER + timedelta(hours=1)

    bench.connector().audit()

    assert [row["hour"] for row in bench.ledger.rows()] == [format_hour(HOUR + timedelta(days=1))]


def test_a_stop_before_the_poll_lets_it_deliver_nothing(bench: Bench) -> None:
    """It does not list either, and what waits goes on waiting."""
    bench.put(2)
    bench.admit()
    bench.stop.set()

    report = bench.connector().poll()

    assert isinstance(report.error, StoppedError)
    assert (report.delivered, bench.states()) == (0, {PENDING: 1})


def test_the_pace_of_the_settings_holds(bench: Bench) -> None:
    """Requests a second, and events a second."""
    connector = bench.connector(requests_per_second=20, events_per_second=100)

    assert connector.pace(4)._request_s == 0.25
    assert connector._pace._request_s == 0.05
    assert connector._pace._event_s == 0.01


def test_batches_keep_to_the_limits_of_the_settings(bench: Bench) -> None:
    """Events and bytes of a request."""
    bench.put(7)

    report = bench.connector(max_batch_events=3).poll()

    assert [batch.events for batch in bench.transport.batches] == [3, 3, 1]
    assert report.batches == 3


def test_objects_wait_until_they_are_settled(bench: Bench) -> None:
    """Failed ones have had their turn."""
    for offset in range(3):
        bench.put(1, offset=offset)
    bench.admit()
    connector = bench.connector()
    assert connector.waiting_objects() == 3

    bench.transport.outcomes.extend([UNWELL] * 6)
    connector.deliver(TransferReport(), bench.admit())

    assert connector.waiting_objects() == 0


def test_event_types_that_are_not_mapped_follow_the_general_rules() -> None:
    """Known or not; the catalogue's own placement wins where there is one."""
    assert event_type_of(CLICK).segment_event == "Email Link Clicked"
    unmapped = next(name for name, listed in catalogue().items() if not listed.mapped)
    assert event_type_of(unmapped).open_ended
    assert event_type_of("users.messages.carrierpigeon.DropOff").segment_event == "Carrierpigeon Drop Off"
