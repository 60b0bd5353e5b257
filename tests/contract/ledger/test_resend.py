"""Sending again: what is reopened, who takes it, what is remembered of it, and whose books stay."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.model import (
    Books,
    Checkpoint,
    ClaimedObject,
    DeadLetter,
    Delivered,
    Failed,
    LetterFilter,
    ObjectState,
    Quarantined,
)
from currents_bridge.ports import Ledger
from tests.ledger_workbench import (
    BOTH,
    EVER,
    HOUR,
    NO_LIMITS,
    NOW,
    ONE_EVENT,
    OPEN,
    Case,
    all_books,
    an_object,
    claim,
    deliver,
    keys,
    objects,
    resend,
)
from tests.ledgers import LedgerOnFile, new_ledger_file

RESEND = replace(BOTH, resend=True)
IDS = pl.Series(["a", "b"])


def claim_again(ledger: Ledger) -> list[ClaimedObject]:
    """Claim as a backfill does that sends again."""
    return list(ledger.claim("acme", RESEND, NO_LIMITS, NOW))


def delivered(ledger: Ledger) -> int:
    """Return how many objects count as delivered."""
    return ledger.totals("acme").objects[ObjectState.DELIVERED]


class TestReopen:
    """What becomes pending, and what it does to the books."""

    @pytest.mark.parametrize("folded", [False, True])
    def test_delivered_objects_are_sent_again_and_counted_once(self, ledger: Ledger, folded: bool) -> None:  # noqa: FBT001
        """Books of the first delivery do not count on."""
        deliver(ledger, *objects(2))
        if folded:
            ledger.fold("acme", NOW, EVER)
        assert ledger.reopen("acme", objects(2), NOW) == 2
        assert (all_books(ledger), delivered(ledger)) == ([Books()] * 3, 0)
        assert ledger.totals("acme").objects[ObjectState.PENDING] == 2
        resend(ledger, Books(read=7, sent=7))
        assert (all_books(ledger), delivered(ledger)) == ([Books(read=14, sent=14)] * 3, 2)

    def test_only_what_is_given_is_reopened(self, ledger: Ledger) -> None:
        """Neighbours, other connectors, what is set aside, claimed or unknown stay as they are."""
        deliver(ledger, an_object("a"), an_object("b"), an_object("c", OPEN))
        ledger.admit("acme", [an_object("aside")], NOW)
        ledger.settle([Quarantined(claim(ledger)[0].id, "no Avro")], NOW)
        ledger.admit("acme", [an_object("claimed")], NOW)
        claim(ledger)
        given = [an_object("a"), an_object("aside"), an_object("claimed"), an_object("unknown")]
        assert ledger.reopen("beta", given, NOW) == 0
        assert ledger.reopen("acme", given, NOW) == 1
        assert keys(claim_again(ledger)) == ["a"]

    @pytest.mark.parametrize("folded", [False, True])
    def test_objects_that_the_bucket_has_lost_keep_their_books(self, ledger: Ledger, folded: bool) -> None:  # noqa: FBT001
        """Nobody can send them again; folded with others, so do those, as their shares are unknown."""
        deliver(ledger, *objects(3), books=Books(read=10, sent=10))
        if folded:
            ledger.fold("acme", NOW, EVER)
        assert ledger.reopen("acme", objects(2), NOW) == 2
        assert delivered(ledger) == 1
        assert all_books(ledger) == [Books(read=30, sent=30) if folded else Books(read=10, sent=10)] * 3
        resend(ledger, Books(read=10, sent=10))
        assert (all_books(ledger), delivered(ledger)) == ([Books(read=30, sent=30)] * 3, 3)

    def test_what_cannot_be_read_any_more_counts_once_beside_folded_ones(self, ledger: Ledger) -> None:
        """Its part is the quarantined object's then."""
        deliver(ledger, *objects(3), books=Books(read=10, sent=10))
        ledger.fold("acme", NOW, EVER)
        ledger.reopen("acme", objects(1), NOW)
        ledger.settle([Quarantined(claim_again(ledger)[0].id, "cut", Books(read=4, sent=4))], NOW)
        assert (all_books(ledger), delivered(ledger)) == ([Books(read=30, sent=30)] * 3, 2)

    def test_the_last_folded_object_of_an_hour_makes_its_sums_exact(self, ledger: Ledger) -> None:
        """Those that were sent again before it, and those that wait, count by what their rows say."""
        deliver(ledger, *objects(3), books=Books(read=10, sent=10))
        ledger.fold("acme", NOW, EVER)
        ledger.reopen("acme", objects(1), NOW)
        resend(ledger, Books(read=10, sent=7, dead_lettered=3))
        ledger.reopen("acme", objects(3)[1:], NOW)
        assert all_books(ledger) == [Books(read=10, sent=7, dead_lettered=3)] * 3
        resend(ledger, Books(read=10, sent=7, dead_lettered=3))
        assert (all_books(ledger), delivered(ledger)) == ([Books(read=30, sent=21, dead_lettered=9)] * 3, 3)

    def test_a_changed_object_is_sent_as_it_is_now(self, ledger: Ledger) -> None:
        """With the ETag that the bucket shows, folded or not."""
        new = [replace(item, etag="etag-2", size_bytes=7) for item in objects(2)]
        deliver(ledger, objects(2)[0])
        ledger.fold("acme", NOW, EVER)
        deliver(ledger, objects(2)[1])
        ledger.reopen("acme", new, NOW)
        assert [claimed.object for claimed in claim_again(ledger)] == new

    def test_what_waits_begins_from_its_first_row(self, ledger: Ledger) -> None:
        """Sending again is sending everything again; it is due at once."""
        ledger.admit("acme", objects(1), NOW)
        (claimed,) = claim(ledger)
        ledger.checkpoint(claimed.id, Checkpoint(5, Books(read=5, sent=5)), [], NOW)
        ledger.settle([Failed(claimed.id, "503", NOW + timedelta(hours=6))], NOW)
        assert ledger.reopen("acme", objects(1), NOW) == 0
        assert [again.checkpoint for again in claim_again(ledger)] == [Checkpoint()]

    def test_any_number_of_objects(self, ledger: Ledger) -> None:
        """In folds and out of them."""
        deliver(ledger, *objects(350))
        deliver(ledger, *objects(700))
        for _ in range(2):
            assert ledger.reopen("acme", objects(700), NOW) == 700
            while delivered(ledger) < 700:
                resend(ledger)
            ledger.fold("acme", NOW, EVER)
        assert all_books(ledger) == [Books(read=700, sent=700)] * 3


class TestClaims:
    """A resend has its own pace, so its objects are its own while it lives."""

    def test_only_a_backfill_that_sends_again_claims_them(self, case: Case) -> None:
        """Whichever; the daemon's claims and canaries leave them, also those of the same process."""
        backfill, daemon = case.open(), case.open()
        deliver(backfill, *objects(2))
        backfill.reopen("acme", objects(2), NOW)
        for ledger in (daemon, backfill):
            assert claim(ledger) == ledger.claim_canary("acme", BOTH, NOW) == []
        assert len(claim_again(daemon)) == 2

    def test_everybody_claims_them_once_the_backfill_has_left_them(self, case: Case) -> None:
        """As at its end, for what failed."""
        backfill, daemon = case.open(), case.open()
        deliver(backfill, *objects(2))
        backfill.reopen("acme", objects(2), NOW)
        daemon.leave_resent("acme")
        backfill.leave_resent("beta")
        assert claim(daemon) == []
        backfill.leave_resent("acme")
        assert len(claim(daemon)) == 2

    @pytest.mark.parametrize("killed", [False, True])
    def test_everybody_claims_them_once_the_backfill_has_ended(self, case: Case, killed: bool) -> None:  # noqa: FBT001
        """Closed, or silent for longer than its lease."""
        backfill, daemon = case.open(), case.open()
        deliver(backfill, *objects(2))
        backfill.reopen("acme", objects(2), NOW)
        if killed:
            daemon.reclaim("acme", NOW + timedelta(seconds=91))
        else:
            backfill.close()
        assert [claimed.resend for claimed in claim(daemon)] == [True, True]

    def test_reopening_says_that_the_owner_lives(self, case: Case) -> None:
        """A long span takes longer than a lease to be listed."""
        backfill, daemon = case.open(), case.open()
        deliver(backfill, *objects(2))
        backfill.reopen("acme", objects(1), NOW)
        backfill.reopen("acme", objects(2), NOW + timedelta(seconds=60))
        daemon.reclaim("acme", NOW + timedelta(seconds=120))
        assert claim(daemon) == []


class TestMemory:
    """Which of an object's messages were acknowledged before."""

    @staticmethod
    def sent_by(ledger: Ledger, key: str, ids: pl.Series = IDS) -> None:
        """Deliver an object that sends these ids."""
        ledger.admit("acme", [an_object(key)], NOW)
        ledger.settle([Delivered(claimed.id, ONE_EVENT, (), ids) for claimed in claim(ledger)], NOW)

    @staticmethod
    def known(ledger: Ledger, claimed: ClaimedObject) -> tuple[list[bool], list[bool]]:
        """Return which of IDS were sent before by the object, and which are repeats."""
        known = ledger.known("acme", claimed, IDS)
        return known.before.to_list(), known.repeats.to_list()

    def test_what_another_object_sent_is_a_repeat(self, ledger: Ledger) -> None:
        """And what the object itself sent before its checkpoint."""
        self.sent_by(ledger, "other", IDS[:1])
        ledger.admit("acme", objects(1), NOW)
        (claimed,) = claim(ledger)
        assert self.known(ledger, claimed) == ([False, False], [True, False])
        ledger.checkpoint(claimed.id, Checkpoint(1, ONE_EVENT), [], NOW, IDS[1:])
        assert self.known(ledger, claimed) == ([False, False], [True, True])

    def test_what_the_object_sent_before_its_quarantine_counts_as_sent(self, ledger: Ledger) -> None:
        """What another sent stays a repeat, and so does what it sends before its next checkpoint."""
        self.sent_by(ledger, "other", pl.Series(["b"]))
        ledger.admit("acme", objects(1), NOW)
        ledger.settle([Quarantined(claim(ledger)[0].id, "cut", ONE_EVENT, (), pl.Series(["a"]))], NOW)
        ledger.replay_quarantined([item.id for item in ledger.quarantined("acme")], NOW)
        (claimed,) = claim(ledger)
        assert self.known(ledger, claimed) == ([True, False], [False, True])
        ledger.checkpoint(claimed.id, Checkpoint(1, ONE_EVENT), [], NOW, pl.Series(["a"]))
        assert self.known(ledger, claimed) == ([False, False], [True, True])

    def test_a_changed_object_that_waited_goes_on_with_what_it_sent(self, ledger: Ledger) -> None:
        """It begins from its first row."""
        ledger.admit("acme", objects(1), NOW)
        (claimed,) = claim(ledger)
        ledger.checkpoint(claimed.id, Checkpoint(1, ONE_EVENT), [], NOW, IDS)
        ledger.release([claimed.id])
        ledger.admit("acme", [replace(objects(1)[0], etag="etag-2")], NOW)
        assert self.known(ledger, claim(ledger)[0]) == ([True, True], [False, False])

    def test_a_rewound_object_goes_on_with_what_it_sent_before_the_key_died(self, ledger: Ledger) -> None:
        """Only what was acknowledged since is sent again."""
        ledger.admit("acme", objects(1), NOW)
        (claimed,) = claim(ledger)
        ledger.checkpoint(claimed.id, Checkpoint(1, ONE_EVENT), [], NOW, IDS[:1])
        died = NOW + timedelta(seconds=10)
        ledger.checkpoint(claimed.id, Checkpoint(2, ONE_EVENT + ONE_EVENT), [], died, IDS[1:])
        ledger.rewind("acme", died, died + timedelta(hours=1))
        (again,) = ledger.claim("acme", BOTH, NO_LIMITS, died + timedelta(hours=1))
        assert self.known(ledger, again) == ([True, False], [False, False])

    def test_what_is_sent_again_is_left_out_only_if_it_was_sent_since(self, ledger: Ledger) -> None:
        """An event of two files of a resend goes out once; files outside of it do not matter."""
        self.sent_by(ledger, "outside", IDS[1:])
        self.sent_by(ledger, "a", IDS[:1])
        self.sent_by(ledger, "b", pl.Series([], dtype=pl.String))
        ledger.reopen("acme", [an_object("a"), an_object("b")], NOW)
        first, second = claim_again(ledger)
        assert self.known(ledger, first) == self.known(ledger, second) == ([False, False], [False, False])
        ledger.settle([Delivered(first.id, ONE_EVENT, (), IDS[:1])], NOW)
        assert self.known(ledger, second) == ([False, False], [True, False])

    @pytest.mark.parametrize("remember", [True, False])
    def test_an_acknowledged_replay_of_a_dead_letter_is_the_objects_own(self, ledger: Ledger, remember: bool) -> None:  # noqa: FBT001
        """Where the connector remembers ids; else nothing is kept."""
        letter = DeadLetter(0, "a", "no time", event="{}")
        ledger.admit("acme", objects(1), NOW)
        ledger.settle([Quarantined(claim(ledger)[0].id, "cut", Books(read=1, dead_lettered=1), [letter])], NOW)
        (stored,) = ledger.dead_letters(LetterFilter())
        assert ledger.replayed({stored.id: None}, NOW, remember=remember)
        ledger.replay_quarantined([item.id for item in ledger.quarantined("acme")], NOW)
        assert self.known(ledger, claim(ledger)[0]) == ([remember, False], [False, False])


@given(given=st.sets(st.integers(0, 9)), folded=st.sets(st.integers(0, 9)), twice=st.booleans())
def test_a_resend_of_any_part_leaves_the_books_right(given: set[int], folded: set[int], twice: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
    """Whichever objects are folded, whichever the bucket still has, in one hour or in two."""
    every = [an_object(f"key-{n}", hour=HOUR + timedelta(hours=n % 2)) for n in range(10)]
    ledger = LedgerOnFile(new_ledger_file())
    deliver(ledger, *(every[n] for n in sorted(folded)), books=Books(read=3, sent=2, deduplicated=1))
    ledger.fold("acme", NOW, EVER)
    deliver(ledger, *(every[n] for n in set(range(10)) - folded), books=Books(read=3, sent=2, deduplicated=1))
    for _ in range(1 + twice):
        assert ledger.reopen("acme", [every[n] for n in sorted(given)], NOW) == len(given)
        resend(ledger, Books(read=3, sent=2, deduplicated=1))
        assert all_books(ledger) == [Books(read=30, sent=20, deduplicated=10)] * 3
        assert delivered(ledger) == 10
    ledger.close()
