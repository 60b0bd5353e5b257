"""What every ledger promises of objects and their books; ports.Ledger is the text."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from currents_bridge.errors import ClaimLostError, Side
from currents_bridge.model import (
    MORE,
    MOST_NOTICES,
    Books,
    Checkpoint,
    Credential,
    CredentialState,
    DeadLetter,
    Delivered,
    EvidenceKind,
    ExpiryRule,
    Failed,
    GroupLimits,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Quarantined,
    Rewound,
    Selection,
    TypeActivity,
    Undelivered,
    Waiting,
)
from currents_bridge.ports import Ledger
from tests.ledger_workbench import (
    BOTH,
    CLICK,
    EVER,
    HOUR,
    NO_LIMITS,
    NOW,
    ONE_EVENT,
    OPEN,
    Case,
    an_object,
    claim,
    deliver,
    keys,
    letters,
    objects,
)

DEAD_KEY = Credential(
    CredentialState.FAILING,
    since=NOW,
    evidence="the Public API does not list the key",
    hint="put a new write key into the secret",
    cause=EvidenceKind.REVOKED,
    key="sha256:0123",
    accepted_at=NOW + timedelta(minutes=1),
    proven_at=NOW - timedelta(hours=1),
    first_used_at=NOW - timedelta(days=9),
    rewind_from=NOW - timedelta(hours=2),
    doubted_at=NOW - timedelta(minutes=3),
    recovered_at=NOW - timedelta(days=3),
    sent_before=12_345_678_901,
)


class TestAdmit:
    """New, known and changed objects."""

    def test_new_objects_are_counted_once(self, ledger: Ledger) -> None:
        """Admitting is idempotent."""
        listed = objects(3)
        assert ledger.admit("acme", listed, NOW) == (3, [])
        assert ledger.admit("acme", listed, NOW) == (0, [])
        assert ledger.totals("acme").objects[ObjectState.PENDING] == 3

    def test_an_object_named_twice_is_one_object(self, ledger: Ledger) -> None:
        """A listing that repeats a key admits it once."""
        assert ledger.admit("acme", [an_object("a"), an_object("a")], NOW) == (1, [])

    def test_a_listing_of_any_length_is_taken_in(self, ledger: Ledger) -> None:
        """More objects than fit into one query are all admitted."""
        assert ledger.admit("acme", objects(1201), NOW) == (1201, [])
        assert ledger.admit("acme", objects(1202), NOW) == (1, [])

    def test_connectors_know_nothing_of_each_other(self, ledger: Ledger) -> None:
        """One key under two connectors is two objects."""
        assert ledger.admit("acme", objects(2), NOW) == (2, [])
        assert ledger.admit("beta", objects(2), NOW) == (2, [])
        assert len(claim(ledger)) == 2

    def test_a_changed_object_that_waits_is_taken_over(self, ledger: Ledger) -> None:
        """Before delivery a new ETag and size just replace the old ones."""
        ledger.admit("acme", [an_object("a")], NOW)
        changed = replace(an_object("a", size_bytes=999), etag="etag-2")
        assert ledger.admit("acme", [changed], NOW) == (0, [])
        assert [claimed.object for claimed in claim(ledger)] == [changed]

    @pytest.mark.parametrize(
        "settlement",
        [
            Failed(0, "changed", NOW + timedelta(hours=6)),
            Quarantined(0, "no Avro"),
            Quarantined(0, "damaged", Books(read=1, dead_lettered=1), [DeadLetter(0, "m-0", "no time")]),
        ],
    )
    def test_a_changed_object_that_failed_or_was_set_aside_is_as_new(
        self, ledger: Ledger, settlement: Failed | Quarantined
    ) -> None:
        """It is due at once with its new ETag; what was kept of the old content is forgotten."""
        ledger.admit("acme", [an_object("a")], NOW)
        ledger.settle([replace(settlement, id=claim(ledger)[0].id)], NOW)
        changed = replace(an_object("a"), etag="etag-2")
        assert ledger.admit("acme", [changed], NOW) == (0, [])
        totals = ledger.totals("acme")
        assert (totals.books, totals.failed_reasons) == (Books(), {})
        assert letters(ledger) == []
        (claimed,) = claim(ledger)
        assert (claimed.object, claimed.attempts, claimed.checkpoint) == (changed, 0, Checkpoint())

    def test_a_changed_object_that_is_claimed_is_left_to_a_later_look(self, ledger: Ledger) -> None:
        """Whoever reads it finds out; only then does it take the new ETag."""
        ledger.admit("acme", [an_object("a")], NOW)
        (claimed,) = claim(ledger)
        changed = replace(an_object("a"), etag="etag-2")
        assert ledger.admit("acme", [changed], NOW) == (0, [])
        ledger.settle([Failed(claimed.id, "changed", NOW)], NOW)
        assert ledger.admit("acme", [changed], NOW) == (0, [])
        assert [again.object for again in claim(ledger)] == [changed]

    def test_a_changed_object_that_was_delivered_is_reported(self, ledger: Ledger) -> None:
        """It keeps its ETag, and is returned at every look."""
        deliver(ledger, an_object("a"))
        changed = replace(an_object("a"), etag="etag-2")
        assert ledger.admit("acme", [changed], NOW) == (0, [changed])
        assert ledger.admit("acme", [changed, an_object("b")], NOW) == (1, [changed])


class TestClaim:
    """Who gets what, in which order."""

    def test_oldest_hour_then_type_then_key(self, ledger: Ledger) -> None:
        """Groups come in one order, whatever the order of admission."""
        later = HOUR + timedelta(hours=1)
        ordered = [an_object("c"), an_object("d"), an_object("a", OPEN), an_object("b", CLICK, later)]
        ledger.admit("acme", ordered[::-1], NOW)
        assert [claimed.object for claimed in claim(ledger)] == ordered

    def test_a_group_keeps_to_its_number_of_objects(self, ledger: Ledger) -> None:
        """The next claim goes on where the group ended."""
        ledger.admit("acme", objects(3), NOW)
        two = GroupLimits(max_objects=2)
        assert keys(claim(ledger, limits=two)) == ["key-0000", "key-0001"]
        assert keys(claim(ledger, limits=two)) == ["key-0002"]
        assert claim(ledger, limits=two) == []

    def test_a_group_keeps_to_its_bytes(self, ledger: Ledger) -> None:
        """A group ends before the object that would exceed it."""
        ledger.admit("acme", objects(3), NOW)
        assert len(claim(ledger, limits=GroupLimits(max_bytes=299))) == 2

    def test_a_large_object_is_a_group_of_its_own(self, ledger: Ledger) -> None:
        """At least one object is claimed if any is due."""
        ledger.admit("acme", [an_object("large", size_bytes=10_000), an_object("small")], NOW)
        assert keys(claim(ledger, limits=GroupLimits(max_bytes=50))) == ["large"]

    def test_only_the_selection_is_claimed(self, ledger: Ledger) -> None:
        """Types are named; hours run from the first to before the end."""
        hours = [HOUR + timedelta(hours=number) for number in range(4)]
        ledger.admit("acme", [an_object(f"click-{hour:%H}", CLICK, hour) for hour in hours], NOW)
        ledger.admit("acme", [an_object(f"open-{hour:%H}", OPEN, hour) for hour in hours], NOW)
        middle = Selection(frozenset({CLICK}), hours[1], hours[3])
        assert keys(ledger.claim("acme", middle, NO_LIMITS, NOW)) == ["click-06", "click-07"]
        assert ledger.claim("acme", Selection(frozenset()), NO_LIMITS, NOW) == []

    def test_a_failed_object_waits_for_its_time(self, ledger: Ledger) -> None:
        """It is due at `retry_at`, with its attempt counted."""
        ledger.admit("acme", objects(1), NOW)
        (claimed,) = claim(ledger)
        retry_at = NOW + timedelta(minutes=5)
        ledger.settle([Failed(claimed.id, "Segment is unwell", retry_at)], NOW)
        assert claim(ledger, retry_at - timedelta(seconds=1)) == []
        assert claim(ledger, retry_at) == [replace(claimed, attempts=1)]

    def test_failed_objects_can_be_hastened(self, ledger: Ledger) -> None:
        """Those of the selection are due at once, with their attempts."""
        ledger.admit("acme", [an_object("a"), an_object("b", OPEN)], NOW)
        retry_at = NOW + timedelta(hours=5)
        ledger.settle([Failed(claimed.id, "429", retry_at) for claimed in claim(ledger)], NOW)
        assert ledger.hasten("beta", BOTH) == 0
        assert ledger.hasten("acme", Selection(frozenset({CLICK}))) == 1
        assert [(claimed.object.key, claimed.attempts) for claimed in claim(ledger)] == [("a", 1)]

    def test_failures_can_be_taken_back(self, ledger: Ledger) -> None:
        """One attempt each time; what has none left is as new, what is not failed stays as it is."""
        ledger.admit("acme", [an_object("a"), an_object("b"), an_object("c", OPEN)], NOW)
        retry_at = NOW + timedelta(hours=5)
        first, second, delivered = (item.id for item in claim(ledger))
        ledger.settle([Failed(first, "503", NOW), Failed(second, "503", NOW), Delivered(delivered, Books())], NOW)
        ledger.settle([Failed(claim(ledger)[0].id, "503", retry_at)], NOW)
        ledger.spare([first, first, second, delivered])
        claimed = claim(ledger)
        assert [(item.id, item.attempts) for item in claimed] == [(first, 0), (second, 0)]
        ledger.release([first, second])
        ledger.settle([Failed(claim(ledger)[0].id, "503", NOW)], NOW)
        ledger.settle([Failed(claim(ledger)[0].id, "503", retry_at)], NOW)
        ledger.spare([first])
        assert [(item.id, item.attempts) for item in claim(ledger)] == [(first, 1)]

    def test_quarantined_objects_are_never_due(self, ledger: Ledger) -> None:
        """Nothing but a person brings them back."""
        ledger.admit("acme", objects(1), NOW)
        ledger.settle([Quarantined(claim(ledger)[0].id, "no Avro")], NOW)
        assert claim(ledger, NOW + timedelta(days=365)) == []

    def test_two_owners_share_nothing(self, case: Case) -> None:
        """What one has claimed, the other does not get."""
        one, other = case.open(), case.open()
        one.admit("acme", objects(4), NOW)
        two = GroupLimits(max_objects=2)
        assert keys(claim(one, limits=two)) + keys(claim(other, limits=two)) == [o.key for o in objects(4)]
        assert claim(other) == []

    def test_many_threads_claim_and_settle_each_object_once(self, ledger: Ledger) -> None:
        """Sixteen threads on one ledger deliver everything exactly once."""
        ledger.admit("acme", objects(320), NOW)

        def work(_: int) -> list[str]:
            done = []
            while group := claim(ledger, limits=GroupLimits(max_objects=7)):
                ledger.settle([Delivered(claimed.id, ONE_EVENT) for claimed in group], NOW)
                done += keys(group)
            return done

        with ThreadPoolExecutor(16) as pool:
            delivered = [key for done in pool.map(work, range(16)) for key in done]
        assert sorted(delivered) == [item.key for item in objects(320)]
        assert ledger.totals("acme").books == Books(read=320, sent=320)


class TestAlone:
    """What is claimed by itself."""

    def test_an_object_that_failed_comes_without_others(self, ledger: Ledger) -> None:
        """So that what is packed with it never fails with it again; new ones come together."""
        ledger.admit("acme", objects(4), NOW)
        group = claim(ledger)
        ledger.settle([Failed(claimed.id, "503", NOW) for claimed in group[1:3]], NOW)
        ledger.release([group[0].id, group[3].id])
        assert [keys(claim(ledger)) for _ in range(5)] == [["key-0000"], ["key-0001"], ["key-0002"], ["key-0003"], []]


class TestGivingBack:
    """Release, close, and the claims of the dead."""

    def test_a_released_object_is_as_before_the_claim(self, ledger: Ledger) -> None:
        """No attempt is counted, neither for a new object nor for a failed one."""
        ledger.admit("acme", objects(2), NOW)
        first, second = claim(ledger)
        ledger.settle([Failed(second.id, "boom", NOW)], NOW)
        ledger.release([first.id])
        before = ledger.totals("acme")
        group = [*claim(ledger), *claim(ledger)]
        assert group == [first, replace(second, attempts=1)]
        ledger.release([claimed.id for claimed in group])
        assert ledger.totals("acme") == before
        assert claim(ledger) == group[:1]

    def test_only_own_claims_are_released(self, case: Case) -> None:
        """Objects that another owner has claimed are left alone."""
        one, other = case.open(), case.open()
        one.admit("acme", objects(1), NOW)
        (claimed,) = claim(one)
        other.release([claimed.id, 12345])
        assert claim(other) == []

    def test_close_gives_back_all_claims(self, case: Case) -> None:
        """Closing twice does no harm."""
        one, other = case.open(), case.open()
        one.admit("acme", objects(3), NOW)
        claim(one)
        one.close()
        one.close()
        assert len(claim(other)) == 3

    def test_a_silent_owner_is_dead_after_90_seconds(self, case: Case) -> None:
        """The lease counts from the last heartbeat, and a claim is one."""
        one, other = case.open(), case.open()
        one.admit("acme", objects(2), NOW)
        claim(one, NOW + timedelta(seconds=10))
        assert other.reclaim("acme", NOW + timedelta(seconds=100)).objects == 0
        one.heartbeat(NOW + timedelta(seconds=40))
        assert other.reclaim("acme", NOW + timedelta(seconds=130)).objects == 0
        assert other.reclaim("acme", NOW + timedelta(seconds=131)).objects == 2
        assert other.totals("acme").objects[ObjectState.PENDING] == 2

    def test_an_owner_never_takes_from_itself(self, ledger: Ledger) -> None:
        """Own claims are kept, however old the heartbeat."""
        ledger.admit("acme", objects(1), NOW)
        claim(ledger)
        assert ledger.reclaim("acme", NOW + timedelta(days=1)).objects == 0

    def test_an_owner_declared_dead_can_start_again(self, case: Case) -> None:
        """After a long sleep its old claims are gone, and its new ones are as safe as any."""
        one, other = case.open(), case.open()
        later = NOW + timedelta(hours=1)
        one.admit("acme", objects(1), NOW)
        (lost,) = claim(one)
        other.reclaim("acme", later)
        with pytest.raises(ClaimLostError, match="1 claimed objects"):
            one.settle([Delivered(lost.id, ONE_EVENT)], later)
        (again,) = claim(one, later)
        assert again == replace(lost, id=again.id, crashes=1)
        assert other.reclaim("acme", later).objects == 0

    def test_what_is_said_of_a_lost_claim_never_counts_for_a_later_one(self, case: Case) -> None:
        """A thread that slept through the loss cannot settle what another one of its process has claimed anew."""
        one, other = case.open(), case.open()
        later = NOW + timedelta(hours=1)
        one.admit("acme", objects(1), NOW)
        (lost,) = claim(one)
        other.reclaim("acme", later)
        (again,) = claim(one, later)
        one.release([lost.id])
        with pytest.raises(ClaimLostError) as caught:
            one.settle([Delivered(lost.id, ONE_EVENT)], later)
        assert caught.value.ids == {lost.id}
        one.settle([Failed(again.id, "429", later)], later)


class TestSettle:
    """One transaction, balanced books, own claims only."""

    def test_delivered_objects_enter_the_totals(self, ledger: Ledger) -> None:
        """The totals of a connector are the sum over its delivered objects."""
        ledger.admit("acme", [*objects(2), an_object("x", OPEN), an_object("y", hour=HOUR - timedelta(days=9))], NOW)
        books = Books(read=10, sent=4, skipped_anonymous=3, deduplicated=2, dead_lettered=1)
        ledger.settle([Delivered(claimed.id, books) for claimed in claim(ledger)], NOW)
        totals = ledger.totals("acme")
        assert totals.books == Books(read=40, sent=16, skipped_anonymous=12, deduplicated=8, dead_lettered=4)
        assert totals.objects == dict.fromkeys(ObjectState, 0) | {ObjectState.DELIVERED: 4}
        assert ledger.totals("beta").books == Books()

    @pytest.mark.parametrize(
        "refused",
        [
            Delivered(0, Books(read=2, sent=1)),
            Quarantined(0, "cut", Books(read=2, sent=1)),
        ],
    )
    def test_a_refused_settlement_leaves_all_untouched(self, ledger: Ledger, refused: Delivered | Quarantined) -> None:
        """An event without a fate would be a lost event: none of the list is settled."""
        ledger.admit("acme", objects(2), NOW)
        first, second = claim(ledger)
        before = ledger.totals("acme")
        good = Delivered(first.id, Books(1, dead_lettered=1), [DeadLetter(0, "m", "too large", "{}")])
        with pytest.raises(ValueError, match="do not balance"):
            ledger.settle([good, replace(refused, id=second.id)], NOW)
        with pytest.raises(ValueError, match="twice"):
            ledger.settle([good, Failed(first.id, "twice in one list", NOW)], NOW)
        assert ledger.totals("acme") == before
        assert letters(ledger) == []

    def test_lost_claims_keep_no_other_object_from_being_settled(self, case: Case) -> None:
        """The error names what was lost, and nothing of it is recorded."""
        ledger, other = case.open(), case.open()
        ledger.admit("acme", objects(2), NOW)
        (foreign,) = claim(other, limits=GroupLimits(max_objects=1))
        (mine,) = claim(ledger)
        letter = [DeadLetter(0, "m", "too large", "{}")]
        books = Books(read=1, dead_lettered=1)
        with pytest.raises(ClaimLostError, match="key-0000") as caught:
            ledger.settle([Delivered(claimed.id, books, letter) for claimed in (foreign, mine)], NOW)
        assert caught.value.ids == {foreign.id}
        assert letters(ledger) == [("key-0001", 0, "too large")]
        other.settle([Delivered(foreign.id, ONE_EVENT)], NOW)
        assert ledger.totals("acme").books == books + ONE_EVENT

    @pytest.mark.parametrize("settlement", [Delivered(0, ONE_EVENT), Failed(0, "", NOW), Quarantined(0, "")])
    def test_an_object_is_settled_once(self, ledger: Ledger, settlement: Delivered | Failed | Quarantined) -> None:
        """Settling ends the claim."""
        ledger.admit("acme", objects(1), NOW)
        settlement = replace(settlement, id=claim(ledger)[0].id)
        ledger.settle([settlement], NOW)
        with pytest.raises(ClaimLostError):
            ledger.settle([settlement], NOW)

    def test_nothing_to_settle_is_well(self, ledger: Ledger) -> None:
        """An empty list changes nothing."""
        ledger.settle([], NOW)
        assert ledger.totals("acme").objects[ObjectState.DELIVERED] == 0

    def test_reasons_are_counted(self, ledger: Ledger) -> None:
        """Failed and quarantined objects are shown by reason until they are delivered."""
        ledger.admit("acme", objects(4), NOW)
        first, second, third, fourth = claim(ledger)
        ledger.settle(
            [
                Failed(first.id, "429", NOW),
                Failed(second.id, "429", NOW),
                Quarantined(third.id, "no Avro"),
                Delivered(fourth.id, ONE_EVENT),
            ],
            NOW,
        )
        totals = ledger.totals("acme")
        assert totals.failed_reasons == {"429": 2, "no Avro": 1}
        assert (totals.objects[ObjectState.FAILED], totals.objects[ObjectState.QUARANTINED]) == (2, 1)
        for _ in range(2):
            ledger.settle([Delivered(claimed.id, ONE_EVENT) for claimed in claim(ledger)], NOW)
        assert ledger.totals("acme").failed_reasons == {"no Avro": 1}

    def test_reasons_are_counted_by_their_cause(self, ledger: Ledger) -> None:
        """Keys and numbers in them make no reason of its own; each object keeps its whole one."""
        ledger.admit("acme", objects(3), NOW)
        ledger.settle([Quarantined(item.id, f"a/{item.id}.avro: cut at {item.id}") for item in claim(ledger)], NOW)
        assert ledger.totals("acme").failed_reasons == {"…: cut at N": 3}
        assert len({item.reason for item in ledger.quarantined("acme")}) == 3

    def test_causes_are_few_whatever_reasons_say(self, ledger: Ledger) -> None:
        """What differs in words only is counted together from the hundredth on."""
        ledger.admit("acme", objects(300), NOW)
        ledger.settle([Quarantined(item.id, f"no {chr(0x4E00 + n)}") for n, item in enumerate(claim(ledger))], NOW)
        causes = ledger.totals("acme").failed_reasons
        assert (len(causes), sum(causes.values())) == (101, 300)


class TestWords:
    """What is said of things, by whomever."""

    @given(text=st.text(st.characters(min_codepoint=0, exclude_categories=[]), max_size=2_000))
    @example(text="\ud800")
    @example(text="a\0b")
    @example(text="x" * 100_000)
    @settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50)
    def test_whatever_a_reason_says_the_object_is_settled(self, case: Case, text: str) -> None:
        """It is cleaned and cut where that is needed, and so are notices and dead letters."""
        ledger = case.open()
        ledger.admit("acme", objects(3), NOW)
        for claimed in claim(ledger):
            letter = DeadLetter(0, text, text, event=text, message=text)
            ledger.settle([Quarantined(claimed.id, text, Books(1, dead_lettered=1), [letter])], NOW)
        ledger.note("acme", [Notice(NoticeKind.PROBE, text, text)], NOW)
        ledger.save_credential("acme", Side.SOURCE, Credential(evidence=text, hint=text))
        assert all(len(found.reason) <= 1_000 for found in ledger.quarantined("acme"))
        for found in ledger.quarantined("acme"):
            found.reason.encode()
        ledger.replay_quarantined([found.id for found in ledger.quarantined("acme")], NOW)


class TestWaiting:
    """What the lag is measured by."""

    def test_its_age_is_that_of_the_oldest_object(self, ledger: Ledger) -> None:
        """Pending, claimed and failed objects wait; delivered and quarantined ones do not."""
        listed = [an_object(f"key-{number}", hour=HOUR + timedelta(hours=number)) for number in range(4)]
        ledger.admit("acme", listed, NOW)
        assert ledger.totals("acme").waiting.oldest_at == listed[0].last_modified
        group = claim(ledger)
        ledger.settle([Delivered(group[0].id, ONE_EVENT), Quarantined(group[1].id, "no Avro")], NOW)
        assert ledger.totals("acme").waiting.oldest_at == listed[2].last_modified
        ledger.settle([Delivered(group[2].id, ONE_EVENT), Failed(group[3].id, "429", NOW)], NOW)
        assert ledger.totals("acme").waiting.oldest_at == listed[3].last_modified
        ledger.settle([Delivered(claim(ledger)[0].id, ONE_EVENT)], NOW)
        assert ledger.totals("acme").waiting == Waiting()

    def test_objects_and_bytes_are_added_up(self, ledger: Ledger) -> None:
        """Pending, claimed and failed ones; their events are not known."""
        ledger.admit("acme", [an_object(key, size_bytes=size) for size, key in enumerate("abcd", 1)], NOW)
        failed, _, quarantined = claim(ledger, limits=GroupLimits(max_objects=3))
        ledger.settle([Failed(failed.id, "429", NOW), Quarantined(quarantined.id, "cut", ONE_EVENT)], NOW)
        assert ledger.totals("acme").waiting == Waiting(3, 1 + 2 + 4, 0, HOUR + timedelta(minutes=7))


class TestViews:
    """What backfill and demo ask besides."""

    def test_outstanding_objects_are_new_or_wait(self, ledger: Ledger) -> None:
        """Delivered ones, also folded, and quarantined ones are left out; the order stays, and nothing is recorded."""
        old = an_object("folded", hour=HOUR - timedelta(hours=1))
        deliver(ledger, old)
        ledger.fold("acme", HOUR, EVER)
        listed = [an_object(key) for key in ("a-delivered", "b-quarantined", "c-failed", "d-claimed", "e-pending")]
        ledger.admit("acme", listed, NOW)
        delivered, quarantined, failed, _ = claim(ledger, limits=GroupLimits(max_objects=4))
        ledger.settle(
            [
                Delivered(delivered.id, ONE_EVENT),
                Quarantined(quarantined.id, "no Avro"),
                Failed(failed.id, "429", NOW),
            ],
            NOW,
        )
        new = an_object("new")
        before = ledger.totals("acme")
        assert ledger.outstanding("acme", [new, old, *listed]) == [new, *listed[2:]]
        assert ledger.totals("acme") == before

    def test_books_by_type_add_up_to_the_totals(self, ledger: Ledger) -> None:
        """Folded or not."""
        deliver(ledger, an_object("a"), an_object("b"), an_object("c", OPEN), books=Books(read=2, sent=2))
        expected = {CLICK: Books(read=4, sent=4), OPEN: Books(read=2, sent=2)}
        assert ledger.books_by_type("acme") == expected
        ledger.fold("acme", NOW, EVER)
        assert ledger.books_by_type("acme") == expected
        assert ledger.books_by_type("beta") == {}


class TestFold:
    """Delivered hours shrink without being forgotten."""

    def test_folding_keeps_totals_and_knowledge(self, ledger: Ledger) -> None:
        """A folded object is known by key and ETag, and counted as before."""
        deliver(ledger, *objects(3))
        before = ledger.totals("acme")
        assert ledger.fold("acme", HOUR + timedelta(hours=1), EVER) == 3
        assert ledger.totals("acme") == before
        changed = replace(an_object("key-0001"), etag="etag-2")
        assert ledger.admit("acme", [an_object("key-0000"), changed], NOW) == (0, [changed])
        assert ledger.fold("acme", HOUR + timedelta(hours=1), EVER) == 0

    def test_hours_from_the_limit_on_stay(self, ledger: Ledger) -> None:
        """`before_hour` itself is not folded."""
        deliver(ledger, *objects(3))
        assert ledger.fold("acme", HOUR, EVER) == 0
        assert ledger.fold("beta", NOW, EVER) == 0

    @pytest.mark.parametrize("settlement", [None, Failed(0, "429", NOW), Quarantined(0, "no Avro")])
    def test_an_hour_and_type_with_an_undelivered_object_stays(
        self, ledger: Ledger, settlement: Failed | Quarantined | None
    ) -> None:
        """Other types of the same hour are folded."""
        ledger.admit("acme", [an_object("a"), an_object("b"), an_object("c", OPEN)], NOW)
        first, second, third = claim(ledger)
        ledger.settle([Delivered(second.id, ONE_EVENT), Delivered(third.id, ONE_EVENT)], NOW)
        if settlement:
            ledger.settle([replace(settlement, id=first.id)], NOW)
        assert ledger.fold("acme", NOW, EVER) == 1

    def test_a_late_object_is_delivered_and_merged(self, ledger: Ledger) -> None:
        """A folded hour takes in what arrives after it."""
        deliver(ledger, *objects(2))
        ledger.fold("acme", NOW, EVER)
        assert ledger.admit("acme", objects(3), NOW) == (1, [])
        (late,) = claim(ledger)
        ledger.settle([Delivered(late.id, ONE_EVENT)], NOW)
        assert ledger.fold("acme", NOW, EVER) == 1
        assert ledger.admit("acme", objects(3), NOW) == (0, [])
        assert ledger.totals("acme").books == Books(read=3, sent=3)


class TestConnectorState:
    """Progress, notices and credentials."""

    def test_an_unknown_connector_is_all_zero(self, ledger: Ledger) -> None:
        """Nothing has to be set up."""
        totals = ledger.totals("acme")
        assert totals.objects == dict.fromkeys(ObjectState, 0)
        assert (totals.books, totals.waiting, totals.rewound, totals.notices) == (Books(), Waiting(), Rewound(), [])
        assert (totals.credentials, totals.progress) == (dict.fromkeys(Side, Credential()), Progress())
        assert ledger.progress("acme") == Progress()

    def test_progress_keeps_what_is_not_given(self, ledger: Ledger) -> None:
        """None leaves a field as it is."""
        ledger.save_progress("acme", Progress(polled_at=HOUR, started_at=HOUR))
        ledger.save_progress("acme", Progress(audited_at=NOW))
        ledger.save_progress("acme", Progress())
        ledger.save_progress("acme", Progress(polled_at=NOW))
        assert ledger.progress("acme") == Progress(polled_at=NOW, audited_at=NOW, started_at=HOUR)
        assert ledger.totals("acme").progress == ledger.progress("acme")
        assert ledger.progress("beta") == Progress()

    def test_a_repeated_notice_replaces_the_earlier_one(self, ledger: Ledger) -> None:
        """There is one notice for each kind and subject."""
        unknown = Notice(NoticeKind.UNKNOWN_EVENT_TYPE, "users.new.Thing", count=3)
        odd = Notice(NoticeKind.UNREAD_KEYS, "ending", "have odd names")
        ledger.note("acme", [unknown, odd], NOW)
        ledger.note("acme", [replace(unknown, count=5, since=HOUR)], NOW + timedelta(days=1))
        ledger.note("acme", [], NOW)
        assert ledger.totals("acme").notices == [replace(unknown, count=5, since=NOW), replace(odd, since=NOW)]
        assert ledger.totals("beta").notices == []

    def test_a_repeated_notice_keeps_the_larger_count_until_all_of_its_kind_are_replaced(self, ledger: Ledger) -> None:
        """Most looks see a part of the bucket only; a whole one says how many there are."""
        few, many = (Notice(NoticeKind.UNREAD_KEYS, "ending", "have odd names", count) for count in (3, 500))
        ledger.note("acme", [many], NOW)
        ledger.note("acme", [few], NOW + timedelta(days=1))
        assert ledger.totals("acme").notices == [replace(many, since=NOW)]
        ledger.replace_notices("acme", NoticeKind.UNREAD_KEYS, [few], NOW + timedelta(days=2))
        assert ledger.totals("acme").notices == [replace(few, since=NOW)]

    def test_so_many_notices_of_a_kind_are_kept_and_the_others_are_counted(self, ledger: Ledger) -> None:
        """A bucket may hold 20,000 unknown types, and each look at the totals reads all notices."""
        kind = NoticeKind.UNKNOWN_EVENT_TYPE
        many = [Notice(kind, f"users.new.Thing{number}") for number in range(20_000)]
        ledger.note("acme", many[:150], NOW)
        ledger.note("acme", [*many, Notice(NoticeKind.PROBE, "settings")], NOW)
        kept = [notice for notice in ledger.totals("acme").notices if notice.kind is kind]
        assert len(kept) == MOST_NOTICES + 1
        assert {notice.subject: notice.count for notice in kept}[MORE] == 20_000 - MOST_NOTICES
        ledger.replace_notices("acme", kind, many[:2], NOW)
        assert [notice.subject for notice in ledger.totals("acme").notices if notice.kind is kind] == [
            notice.subject for notice in many[:2]
        ]

    @pytest.mark.parametrize(("noted_at", "kept"), [(HOUR, False), (NOW, True), (NOW + timedelta(days=9), False)])
    def test_a_notice_that_was_not_met_for_long_is_dropped(
        self,
        ledger: Ledger,
        noted_at: datetime,
        kept: bool,  # noqa: FBT001
    ) -> None:
        """And what was met by a clock that ran ahead; what was met since stays."""
        ledger.note("acme", [Notice(NoticeKind.UNREAD_KEYS, "ending")], HOUR)
        ledger.note("acme", [Notice(NoticeKind.UNREAD_KEYS, "ending")], noted_at)
        ledger.replace_notices("acme", NoticeKind.UNREAD_KEYS, [], NOW, met_before=NOW - timedelta(minutes=1))
        assert bool(ledger.totals("acme").notices) is kept

    def test_a_notice_that_holds_no_longer_is_dropped(self, ledger: Ledger) -> None:
        """And no other one; should it come back, it is new."""
        first, second = (Notice(NoticeKind.PROBE, name, "timed out") for name in ("public api", "settings"))
        ledger.note("acme", [first, second], HOUR)
        ledger.forget_notice("acme", NoticeKind.PROBE, "public api")
        ledger.forget_notice("acme", NoticeKind.SCHEMA_DRIFT, "settings")
        ledger.forget_notice("beta", NoticeKind.PROBE, "settings")
        assert ledger.totals("acme").notices == [replace(second, since=HOUR)]
        ledger.note("acme", [first], NOW)
        assert ledger.totals("acme").notices[0].since == NOW

    def test_a_credential_is_kept_whole(self, ledger: Ledger) -> None:
        """Each side by itself; it does not touch the progress."""
        ledger.save_progress("acme", Progress(polled_at=NOW))
        assert ledger.credential("acme", Side.SOURCE) == Credential()
        ledger.save_credential("acme", Side.DESTINATION, DEAD_KEY)
        ledger.save_credential("acme", Side.SOURCE, Credential(CredentialState.VERIFIED, HOUR))
        assert ledger.credential("acme", Side.DESTINATION) == DEAD_KEY
        assert ledger.totals("acme").credentials == {
            Side.DESTINATION: DEAD_KEY,
            Side.SOURCE: Credential(CredentialState.VERIFIED, HOUR),
        }
        ledger.save_credential("acme", Side.DESTINATION, Credential())
        assert ledger.credential("acme", Side.DESTINATION) == Credential()
        assert ledger.credential("beta", Side.SOURCE) == Credential()
        assert ledger.progress("acme").polled_at == NOW

    def test_the_latest_expiry_rules_are_kept(self, ledger: Ledger) -> None:
        """With days or a date; none is an answer, too."""
        rules = (ExpiryRule("currents/", days=3), ExpiryRule("", on=NOW))
        assert ledger.totals("acme").expiry_rules == ()
        ledger.save_expiry_rules("acme", rules)
        assert ledger.totals("acme").expiry_rules == rules
        assert ledger.totals("beta").expiry_rules == ()
        ledger.save_expiry_rules("acme", [])
        assert ledger.totals("acme").expiry_rules == ()


class TestActivity:
    """When files of each type came."""

    def test_the_newest_hour_and_the_hours_with_files(self, ledger: Ledger) -> None:
        """Delivered, folded or waiting; of the hours that are asked for."""
        hours = [HOUR + timedelta(hours=number) for number in range(4)]
        deliver(ledger, an_object("a", CLICK, hours[0]), an_object("b", CLICK, hours[1]), an_object("o", OPEN, HOUR))
        ledger.fold("acme", hours[1], EVER)
        ledger.admit("acme", [an_object("c", CLICK, hours[1]), an_object("d", CLICK, hours[3])], NOW)
        assert ledger.activity("acme", HOUR + timedelta(minutes=1), NOW) == [TypeActivity(CLICK, hours[3], 2)]
        newest = [ledger.newest_hour("acme", frozenset({name}), NOW) for name in (CLICK, OPEN, "other")]
        assert newest == [hours[3], HOUR, None]
        assert [of.active_hours for of in ledger.activity("acme", HOUR, NOW)] == [3, 1]
        assert ledger.activity("beta", HOUR, NOW) == []

    def test_hours_after_now_say_nothing(self, ledger: Ledger) -> None:
        """A clock was wrong; a type that has no other hour was not active."""
        future = [NOW + timedelta(hours=1), datetime(9999, 12, 31, 23, tzinfo=UTC)]
        deliver(ledger, an_object("a", CLICK, HOUR), *(an_object(f"{at}", CLICK, at) for at in future))
        ledger.admit("acme", [an_object("o", OPEN, future[1])], NOW)
        assert ledger.activity("acme", HOUR, NOW) == [TypeActivity(CLICK, HOUR, 1)]
        assert ledger.newest_hour("acme", BOTH.event_types, NOW) == HOUR


class TestExclude:
    """Objects of event types that the rules leave out."""

    def test_what_waits_of_a_type_is_held_back_and_comes_back_as_new(self, ledger: Ledger) -> None:
        """Claimed, delivered and quarantined objects stay as they are, and so do other types and connectors."""
        deliver(ledger, an_object("delivered"))
        ledger.admit("acme", [an_object("failed")], NOW)
        ledger.settle([Failed(claim(ledger)[0].id, "503", NOW + timedelta(hours=6))], NOW)
        ledger.admit("acme", [an_object("claimed")], NOW)
        claimed = claim(ledger)
        ledger.admit("acme", [an_object("pending"), an_object("open", OPEN)], NOW)
        ledger.admit("beta", [an_object("pending")], NOW)
        assert ledger.undelivered("acme") == [Undelivered(CLICK, 2, 0), Undelivered(OPEN, 1, 0)]

        ledger.exclude("acme", frozenset({CLICK}))
        totals = ledger.totals("acme")
        assert totals.objects[ObjectState.EXCLUDED] == 2
        assert (totals.waiting.objects, totals.failed_reasons) == (2, {})
        assert ledger.undelivered("acme") == [Undelivered(CLICK, 0, 2), Undelivered(OPEN, 1, 0)]
        assert ledger.totals("beta").waiting.objects == 1
        assert keys(claim(ledger)) == ["open"]

        ledger.exclude("acme", frozenset())
        assert sorted(keys(claim(ledger))) == ["failed", "pending"]
        assert [item.object.key for item in claimed] == ["claimed"]


class TestOddTimes:
    """What a wrong clock, or a server without times, tells of when an object was written."""

    @pytest.mark.parametrize("modified", [datetime(1970, 1, 1, tzinfo=UTC), NOW + timedelta(days=1), EVER])
    def test_an_object_of_a_time_that_cannot_be_waits_from_its_admission(
        self, ledger: Ledger, modified: datetime
    ) -> None:
        """So it is neither late nor early, and no loss window or lifecycle rule is over for it."""
        ledger.admit("acme", [replace(an_object("a"), last_modified=modified)], NOW)
        assert ledger.totals("acme").waiting.oldest_at == NOW
        assert ledger.set_aside("acme", NOW, "too old", NOW) == 0


class TestSetAside:
    """What `after_loss_window: drop` does."""

    def test_old_objects_that_wait_are_quarantined(self, ledger: Ledger) -> None:
        """With the reason; younger, claimed and delivered ones stay, and all can be replayed."""
        young = an_object("young", hour=HOUR + timedelta(hours=1))
        deliver(ledger, an_object("delivered"))
        ledger.admit("acme", [an_object("a-claimed"), an_object("b-failed"), an_object("c-pending"), young], NOW)
        claimed, failed = claim(ledger, limits=GroupLimits(max_objects=2))
        ledger.settle([Failed(failed.id, "429", NOW)], NOW)
        assert ledger.set_aside("beta", young.last_modified, "too old", NOW) == 0
        assert ledger.set_aside("acme", young.last_modified, "too old", NOW) == 2
        aside = ledger.quarantined("acme")
        assert [(found.object.key, found.reason) for found in aside] == [
            ("b-failed", "too old"),
            ("c-pending", "too old"),
        ]
        assert ledger.totals("acme").waiting.objects == 2
        ledger.settle([Delivered(claimed.id, ONE_EVENT)], NOW)
        assert keys(claim(ledger)) == ["young"]
        assert ledger.replay_quarantined([found.id for found in aside], NOW) == 2

    def test_what_was_acknowledged_of_them_counts(self, ledger: Ledger) -> None:
        """The books of the checkpoint, with its letters."""
        ledger.admit("acme", objects(1), NOW)
        (claimed,) = claim(ledger)
        books = Books(read=2, sent=1, dead_lettered=1)
        ledger.checkpoint(claimed.id, Checkpoint(2, books), [DeadLetter(0, "m", "no time", "{}")], NOW)
        ledger.release([claimed.id])
        ledger.set_aside("acme", NOW, "too old", NOW)
        assert ledger.totals("acme").books == books
        assert len(letters(ledger)) == 1
