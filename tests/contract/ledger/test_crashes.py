"""What outlives a crash: how far a large object has come, and the suspicion against the objects in hand."""

from dataclasses import replace
from datetime import timedelta

import pytest

from currents_bridge.errors import ClaimLostError
from currents_bridge.model import (
    Books,
    Checkpoint,
    DeadLetter,
    Delivered,
    Failed,
    ObjectState,
    Quarantined,
    Settlement,
)
from currents_bridge.ports import Ledger
from tests.ledger_workbench import NOW, ONE_EVENT, Case, an_object, claim, crash, deliver, keys, letters, objects

HALF = Checkpoint(50, Books(read=50, sent=48, skipped_anonymous=1, dead_lettered=1))
EARLY, LATE = DeadLetter(7, "m-7", "no time", "{}"), DeadLetter(70, "m-70", "too large", message="{}")
WHOLE = Books(read=100, sent=97, skipped_anonymous=1, dead_lettered=2)
BACK = timedelta(seconds=91)  # after a crash, until the claims of the dead owner come free


def half_way(ledger: Ledger) -> int:
    """Bring one object to its checkpoint and return its id."""
    ledger.admit("acme", objects(1), NOW)
    (claimed,) = claim(ledger)
    ledger.checkpoint(claimed.id, HALF, [EARLY], NOW)
    return claimed.id


class TestCheckpoint:
    """Progress inside an object."""

    def test_a_new_object_has_none(self, ledger: Ledger) -> None:
        """It begins at its first row."""
        ledger.admit("acme", objects(1), NOW)
        assert claim(ledger)[0].checkpoint == Checkpoint()

    @pytest.mark.parametrize("settlement", [None, Failed(0, "429", NOW)])
    def test_it_outlives_release_and_failure(self, ledger: Ledger, settlement: Failed | None) -> None:
        """What was acknowledged before the failure stays acknowledged."""
        id_ = half_way(ledger)
        if settlement:
            ledger.settle([replace(settlement, id=id_)], NOW)
        else:
            ledger.release([id_])
        assert claim(ledger)[0].checkpoint == HALF
        assert letters(ledger) == [("key-0000", 7, "no time")]

    def test_it_outlives_the_process(self, case: Case) -> None:
        """The next owner goes on from there."""
        half_way(case.open())
        other = case.open()
        other.heartbeat(NOW + BACK)
        assert other.reclaim("acme", NOW + BACK).objects == 1
        assert claim(other)[0].checkpoint == HALF

    def test_its_books_do_not_count_before_the_object_is_settled(self, ledger: Ledger) -> None:
        """Reports speak of whole objects."""
        half_way(ledger)
        assert ledger.totals("acme").books == Books()
        assert ledger.books_by_type("acme") == {}

    def test_the_object_is_counted_once(self, ledger: Ledger) -> None:
        """The books of the whole replace those of the part; letters of both parts are kept."""
        ledger.settle([Delivered(half_way(ledger), WHOLE, [LATE])], NOW)
        assert ledger.totals("acme").books == WHOLE
        assert letters(ledger) == [("key-0000", 7, "no time"), ("key-0000", 70, "too large")]

    def test_letters_behind_it_are_replaced(self, ledger: Ledger) -> None:
        """Each checkpoint and each settlement speaks for the rows behind the last one."""
        id_ = half_way(ledger)
        ledger.checkpoint(id_, Checkpoint(80, WHOLE), [LATE], NOW)
        last = DeadLetter(90, "m-90", "no time", "{}")
        ledger.settle([Quarantined(id_, "cut", WHOLE, [last])], NOW)
        assert [row for _, row, _ in letters(ledger)] == [7, 70, 90]

    @pytest.mark.parametrize("rows", [0, 49, 50])
    def test_it_only_moves_forwards(self, ledger: Ledger, rows: int) -> None:
        """One that comes too late changes nothing."""
        id_ = half_way(ledger)
        ledger.checkpoint(id_, Checkpoint(rows, ONE_EVENT), [], NOW)
        ledger.release([id_])
        assert claim(ledger)[0].checkpoint == HALF
        assert len(letters(ledger)) == 1

    def test_unbalanced_books_are_refused(self, ledger: Ledger) -> None:
        """As in a settlement."""
        id_ = half_way(ledger)
        with pytest.raises(ValueError, match="do not balance"):
            ledger.checkpoint(id_, Checkpoint(60, Books(read=60)), [], NOW)

    def test_only_the_owner_may_set_it(self, case: Case) -> None:
        """A lost claim is told, and nothing is recorded."""
        owner, other = case.open(), case.open()
        id_ = half_way(owner)
        with pytest.raises(ClaimLostError, match="key-0000"):
            other.checkpoint(id_, Checkpoint(80, WHOLE), [LATE], NOW)
        owner.release([id_])
        assert claim(other)[0].checkpoint == HALF

    def test_a_changed_object_begins_anew(self, ledger: Ledger) -> None:
        """Rows of another file say nothing of this one."""
        ledger.release([half_way(ledger)])
        ledger.admit("acme", [replace(an_object("key-0000"), etag="etag-2")], NOW)
        (claimed,) = claim(ledger)
        assert claimed.checkpoint == Checkpoint()
        ledger.settle([Delivered(claimed.id, ONE_EVENT)], NOW)
        assert letters(ledger) == []

    def test_a_reopened_object_begins_anew(self, ledger: Ledger) -> None:
        """Sending again is sending everything again."""
        ledger.settle([Delivered(half_way(ledger), WHOLE, [LATE])], NOW)
        ledger.reopen("acme", objects(1), NOW)
        ledger.leave_resent("acme")
        (claimed,) = claim(ledger)
        assert claimed.checkpoint == Checkpoint()
        ledger.checkpoint(claimed.id, Checkpoint(10, HALF.books), [EARLY], NOW)
        assert letters(ledger) == [("key-0000", 7, "no time")]


class TestSuspects:
    """One poison file must not stop the bridge in a loop."""

    def test_what_a_dead_process_held_is_claimed_one_by_one(self, case: Case) -> None:
        """In the order of the hours, never together with others."""
        ledger = case.open()
        ledger.admit("acme", objects(2), NOW)
        found_at = crash(case)
        ledger.admit("acme", [an_object("key-0000-new"), an_object("key-0001-new"), an_object("key-9")], NOW)
        ledger.heartbeat(found_at)
        groups = [claim(ledger, found_at) for _ in range(4)]
        assert [keys(group) for group in groups] == [
            ["key-0000"],
            ["key-0000-new"],
            ["key-0001"],
            ["key-0001-new", "key-9"],
        ]
        assert [claimed.suspect for group in groups for claimed in group] == [True, False, True, False, False]

    def test_the_third_trial_that_ends_at_a_row_sets_it_aside(self, case: Case) -> None:
        """With its reason, and the objects that were not touched wait on. Two may be those of who kills twice."""
        ledger = case.open()
        ledger.admit("acme", objects(1), NOW)
        now = crash(case)
        ledger.admit("acme", [an_object("key-9")], NOW)
        for _ in range(2):
            now = crash(case, now)
            assert ledger.quarantined("acme") == []
        now = crash(case, now)
        (found,) = ledger.quarantined("acme")
        assert found.object == objects(1)[0]
        assert "ended in 3 trials" in found.reason
        assert "quarantine replay" in found.reason
        assert (found.books, found.settled_at) == (Books(), now)
        assert keys(claim(ledger, now)) == ["key-9"]

    def test_trials_that_end_at_different_rows_prove_nothing(self, case: Case) -> None:
        """Who kills a process hits a healthy file here and there; a poison ends its trials at one row."""
        ledger = case.open()
        ledger.admit("acme", objects(1), NOW)
        now = crash(case)
        for row in (0, 2_000, 4_000, 2_000, 0):
            now = crash(case, now, row=row)
        now = crash(case, now, row=0)
        assert ledger.quarantined("acme") == []
        crash(case, now, row=0)
        assert len(ledger.quarantined("acme")) == 1

    def test_being_killed_at_other_times_proves_nothing(self, case: Case) -> None:
        """A process that is killed over and over, but not while it decodes, sets nothing aside."""
        ledger = case.open()
        ledger.admit("acme", objects(1), NOW)
        now = NOW
        for _ in range(5):
            lost = case.open()
            assert claim(lost, now)
            now += BACK
            ledger.heartbeat(now)
            assert ledger.reclaim("acme", now).objects == 1
        assert ledger.quarantined("acme") == []
        assert claim(ledger, now)[0].suspect

    def test_it_is_set_aside_with_what_its_checkpoint_holds(self, case: Case) -> None:
        """What was acknowledged is accounted for."""
        ledger = case.open()
        id_ = half_way(ledger)
        ledger.release([id_])
        now = NOW
        for _ in range(4):
            now = crash(case, now)
        assert [found.books for found in ledger.quarantined("acme")] == [HALF.books]
        assert ledger.totals("acme").books == HALF.books
        assert len(letters(ledger)) == 1

    @pytest.mark.parametrize("settlement", [None, Checkpoint(1, ONE_EVENT), Failed(0, "429", NOW)])
    def test_progress_clears_it(self, case: Case, settlement: Checkpoint | Settlement | None) -> None:
        """Read through without harm, a checkpoint, or any settlement: its crashes count from none again."""
        ledger = case.open()
        ledger.admit("acme", objects(1), NOW)
        now = crash(case, crash(case, crash(case)))
        ledger.heartbeat(now)
        (claimed,) = claim(ledger, now)
        assert claimed.suspect
        match settlement:
            case None:
                ledger.clear_suspicion(claimed.id)
            case Checkpoint():
                ledger.checkpoint(claimed.id, settlement, [], now)
            case _:
                ledger.settle([replace(settlement, id=claimed.id)], now)
        ledger.release([claimed.id])
        (again,) = claim(ledger, now)
        assert not again.suspect
        ledger.release([again.id])
        crash(case, crash(case, crash(case, now)))
        assert ledger.quarantined("acme") == []

    def test_only_its_owner_clears_it(self, case: Case) -> None:
        """A process that lost the claim has nothing to say."""
        ledger, other = case.open(), case.open()
        ledger.admit("acme", objects(1), NOW)
        now = crash(case)
        ledger.heartbeat(now)
        (claimed,) = claim(ledger, now)
        other.clear_suspicion(claimed.id)
        ledger.release([claimed.id])
        assert claim(ledger, now)[0].suspect

    def test_an_orderly_end_is_no_crash(self, case: Case) -> None:
        """Closing gives back without suspicion."""
        one, other = case.open(), case.open()
        one.admit("acme", objects(2), NOW)
        claim(one)
        one.close()
        assert [claimed.suspect for claimed in claim(other)] == [False, False]

    def test_a_replayed_object_has_three_more_lives(self, case: Case) -> None:
        """Its crashes are forgotten with the rest."""
        ledger = case.open()
        ledger.admit("acme", objects(1), NOW)
        now = crash(case, crash(case, crash(case, crash(case))))
        (found,) = ledger.quarantined("acme")
        assert ledger.replay_quarantined([found.id], NOW) == 1
        crash(case, crash(case, crash(case, now)))
        assert ledger.totals("acme").objects[ObjectState.QUARANTINED] == 0
        deliver(ledger)
        assert ledger.totals("acme").objects[ObjectState.DELIVERED] == 1
