"""What goes back to be sent again once a key turns out dead, and what does not."""

import signal
import subprocess
import sys
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest

from currents_bridge.errors import ClaimLostError
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import (
    Acknowledged,
    Books,
    Checkpoint,
    DeadLetter,
    Delivered,
    Failed,
    LetterFilter,
    ObjectState,
    Quarantined,
    Rewound,
)
from currents_bridge.ports import Ledger
from tests.ledger_workbench import (
    BOTH,
    EVER,
    HOUR,
    NOW,
    ONE_EVENT,
    OPEN,
    Case,
    all_books,
    an_object,
    claim,
    deliver,
    keys,
    letters,
    objects,
    remembered,
    resend,
)

PROOF = NOW + timedelta(hours=1)  # the last one that the key worked
LATER = PROOF + timedelta(minutes=1)
RESTARTED = LATER + timedelta(seconds=1)  # ids that are remembered up to then are of before
LETTER = DeadLetter(1, "m-1", "no time", "{}")
BOOKS = Books(read=3, sent=2, dead_lettered=1)
REPLAYED = Books(read=3, sent=3)
DEAD = "sent again by hand under a write key that was dead"


class TestObjects:
    """Which objects, and as what."""

    def test_what_was_delivered_since_waits_again(self, ledger: Ledger) -> None:
        """With its events known, its letters forgotten, and out of all books; earlier ones stay delivered."""
        deliver(ledger, an_object("before", OPEN))
        ledger.admit("acme", [an_object("since")], NOW)
        (claimed,) = claim(ledger)
        ledger.settle([Delivered(claimed.id, BOOKS, [LETTER])], PROOF)
        assert ledger.rewind("acme", PROOF, LATER) == Rewound(objects=1, events=2)
        assert all_books(ledger) == [ONE_EVENT] * 3
        assert [hour.event_type for hour in ledger.hour_books("acme", BOTH)] == [OPEN]
        assert letters(ledger) == []
        waiting = ledger.totals("acme").waiting
        assert (waiting.objects, waiting.events) == (1, 2)
        assert claim(ledger, LATER) == [replace(claimed, rewinds=1, restarted_at=RESTARTED)]

    def test_a_salvaged_object_is_read_again(self, ledger: Ledger) -> None:
        """One of which nothing could be read was not sent under any key, and stays set aside."""
        ledger.admit("acme", objects(3), NOW)
        early, salvaged, unreadable = claim(ledger)
        ledger.settle([Quarantined(early.id, "cut", BOOKS)], NOW)
        ledger.settle([Quarantined(salvaged.id, "cut", BOOKS, [LETTER]), Quarantined(unreadable.id, "no")], PROOF)
        assert ledger.rewind("acme", PROOF, LATER) == Rewound(1, 2)
        assert [found.reason for found in ledger.quarantined("acme")] == ["cut", "no"]
        assert ledger.totals("acme").failed_reasons == {"cut": 1, "no": 1}
        assert keys(claim(ledger, LATER)) == ["key-0001"]
        assert letters(ledger) == []

    def test_checkpoints_are_none(self, ledger: Ledger) -> None:
        """Whenever they were made, as nobody knows when their rows went; failed objects are due at once."""
        ledger.admit("acme", objects(3), NOW)
        first, second, third = claim(ledger)
        for claimed in (first, second):
            ledger.checkpoint(claimed.id, Checkpoint(3, BOOKS), [LETTER], NOW)
        ledger.settle([Failed(id_, "429", LATER + timedelta(days=1)) for id_ in (first.id, third.id)], NOW)
        ledger.release([second.id])
        assert ledger.rewind("acme", PROOF, LATER) == Rewound(2, 4)
        assert letters(ledger) == []
        assert claim(ledger, LATER) == [
            replace(first, rewinds=1, restarted_at=RESTARTED),
            replace(second, rewinds=1, restarted_at=RESTARTED),
        ]

    def test_folded_objects_and_other_connectors_stay(self, ledger: Ledger) -> None:
        """Nothing is folded that may have to be rewound."""
        deliver(ledger, an_object("folded"))
        ledger.fold("acme", EVER, EVER)
        assert ledger.rewind("acme", HOUR, LATER) == Rewound()
        deliver(ledger, an_object("whole"))
        assert ledger.rewind("beta", HOUR, LATER) == Rewound()
        assert ledger.rewind("acme", HOUR, LATER) == Rewound(1, 1)
        assert all_books(ledger) == [ONE_EVENT] * 3

    def test_known_events_wait_until_the_object_is_settled(self, ledger: Ledger) -> None:
        """A failure changes nothing, nor does a rewind of what was sent of it meanwhile; what was sent is added up."""
        deliver(ledger, *objects(1), books=BOOKS)
        ledger.rewind("acme", NOW, LATER)
        (claimed,) = claim(ledger, LATER)
        ledger.checkpoint(claimed.id, Checkpoint(1, ONE_EVENT), [], LATER)
        ledger.settle([Failed(claimed.id, "429", LATER)], LATER)
        assert ledger.totals("acme").waiting.events == 2
        assert ledger.rewind("acme", PROOF, LATER) == Rewound(1, 1)
        assert ledger.totals("acme").waiting.events == 2
        assert ledger.totals("acme").rewound == Rewound(2, 3)
        (again,) = claim(ledger, LATER)
        assert again.rewinds == 2
        ledger.settle([Delivered(again.id, BOOKS)], LATER)
        assert ledger.totals("acme").waiting.events == 0

    def test_nothing_is_known_of_another_file(self, ledger: Ledger) -> None:
        """A changed object has other events."""
        deliver(ledger, *objects(1))
        ledger.rewind("acme", NOW, LATER)
        ledger.admit("acme", [replace(objects(1)[0], etag="etag-2")], LATER)
        assert ledger.totals("acme").waiting.events == 0


class TestClaims:
    """Work that is under way when the key turns out dead."""

    def test_claimed_objects_are_due_at_once(self, case: Case) -> None:
        """For any owner; of the one that lost them nothing counts."""
        owner, other = case.open(), case.open()
        owner.admit("acme", objects(2), NOW)
        first, second = claim(owner)
        assert other.rewind("acme", PROOF, LATER) == Rewound(2, 0)
        with pytest.raises(ClaimLostError) as caught:
            owner.settle([Delivered(first.id, ONE_EVENT, message_ids=pl.Series(["a"]))], LATER)
        assert caught.value.ids == {first.id}
        with pytest.raises(ClaimLostError):
            owner.checkpoint(second.id, Checkpoint(1, ONE_EVENT), [LETTER], LATER)
        owner.release([first.id, second.id])
        assert all_books(owner) == [Books()] * 3
        assert not remembered(owner, "acme", pl.Series(["a"])).any()
        assert keys(claim(other, LATER)) == ["key-0000", "key-0001"]

    def test_the_old_claim_never_counts_for_the_new_one_of_the_same_owner(self, ledger: Ledger) -> None:
        """What a slow thread sent under the dead key is not taken for what was sent under the new one."""
        ledger.admit("acme", objects(1), NOW)
        (old,) = claim(ledger)
        ledger.rewind("acme", PROOF, LATER)
        (new,) = claim(ledger, LATER)
        assert (new.object, new.rewinds) == (old.object, 1)
        with pytest.raises(ClaimLostError):
            ledger.settle([Delivered(old.id, ONE_EVENT)], LATER)
        with pytest.raises(ClaimLostError):
            ledger.checkpoint(old.id, Checkpoint(1, ONE_EVENT), [], LATER)
        ledger.release([old.id])
        assert claim(ledger, LATER) == []
        ledger.settle([Delivered(new.id, BOOKS)], LATER)
        assert all_books(ledger) == [BOOKS] * 3


class TestMemory:
    """Message ids that were remembered under a dead key."""

    def test_those_since_are_forgotten(self, ledger: Ledger) -> None:
        """Else nothing would be sent again; any number of them."""
        ledger.admit("acme", objects(2), NOW)
        first, second = claim(ledger)
        many = pl.Series([f"id-{number}" for number in range(20_001)])
        ledger.settle([Delivered(first.id, ONE_EVENT, message_ids=pl.Series(["early"]))], NOW)
        ledger.settle([Delivered(second.id, ONE_EVENT, message_ids=many)], PROOF)
        ledger.rewind("acme", PROOF, LATER)
        assert not remembered(ledger, "acme", many).any()
        assert remembered(ledger, "acme", pl.Series(["early"])).all()


class TestLetters:
    """Dead letters that were replayed under a dead key."""

    @pytest.mark.parametrize("how", ["delivered", "folded", "quarantined"])
    def test_they_are_dead_letters_again(self, ledger: Ledger, how: str) -> None:
        """With the reason, their attempts, and their events back in the books."""
        ledger.admit("acme", objects(1), NOW)
        (claimed,) = claim(ledger)
        kind = Quarantined(claimed.id, "cut", BOOKS, [LETTER]) if how == "quarantined" else None
        ledger.settle([kind or Delivered(claimed.id, BOOKS, [LETTER])], NOW)
        if how == "folded":
            ledger.fold("acme", EVER, PROOF)
        (stored,) = ledger.dead_letters(LetterFilter())
        ledger.replayed({stored.id: "refused"}, NOW)
        ledger.replayed({stored.id: None}, PROOF)
        assert all_books(ledger) == [REPLAYED] * 3
        assert ledger.rewind("acme", PROOF, LATER) == Rewound(letters=1)
        assert ledger.totals("acme").rewound == Rewound(letters=1)
        assert all_books(ledger) == [BOOKS] * 3
        assert ledger.dead_letters(LetterFilter()) == [replace(stored, letter=replace(LETTER, reason=DEAD), attempts=1)]
        assert ledger.rewind("acme", PROOF, LATER) == Rewound()

    def test_those_of_rewound_objects_are_forgotten(self, ledger: Ledger) -> None:
        """Their events go out with the object."""
        ledger.admit("acme", objects(1), NOW)
        ledger.settle([Delivered(claim(ledger)[0].id, BOOKS, [LETTER])], PROOF)
        ledger.replayed({ledger.dead_letters(LetterFilter())[0].id: None}, PROOF)
        assert ledger.rewind("acme", PROOF, LATER) == Rewound(objects=1, events=3)
        assert letters(ledger) == []
        deliver(ledger, books=BOOKS)
        assert all_books(ledger) == [BOOKS] * 3

    def test_those_of_reopened_objects_leave_the_books_alone(self, ledger: Ledger) -> None:
        """They hold nothing of the letter; the next delivery replaces it."""
        ledger.admit("acme", objects(1), NOW)
        ledger.settle([Delivered(claim(ledger)[0].id, BOOKS, [LETTER])], NOW)
        ledger.replayed({ledger.dead_letters(LetterFilter())[0].id: None}, PROOF)
        ledger.reopen("acme", objects(1), NOW)
        assert ledger.rewind("acme", PROOF, LATER) == Rewound(letters=1)
        assert all_books(ledger) == [Books()] * 3
        resend(ledger)
        assert letters(ledger) == []

    def test_a_letter_that_was_sent_is_seen_by_nobody_else(self, ledger: Ledger) -> None:
        """No listing, count, purge or replay; folding forgets it once it need not be taken back."""
        ledger.admit("acme", objects(1), NOW)
        other = replace(LETTER, row=2)
        ledger.settle([Delivered(claim(ledger)[0].id, Books(read=2, dead_lettered=2), [LETTER, other])], NOW)
        assert ledger.dead_lettered("acme", NOW, LATER) == 2
        first, second = ledger.dead_letters(LetterFilter())
        ledger.replayed({first.id: None}, PROOF)
        assert ledger.dead_letters(LetterFilter()) == [second]
        assert [ledger.dead_lettered(*of, LATER) for of in (("acme", NOW), ("acme", LATER), ("beta", NOW))] == [1, 0, 0]
        assert ledger.purge(LetterFilter()) == 1
        assert not ledger.replayed({first.id: "refused"}, LATER)
        ledger.fold("acme", HOUR, PROOF)
        assert ledger.rewind("acme", PROOF, LATER) == Rewound(letters=1)
        ledger.replayed({first.id: None}, PROOF)
        ledger.fold("acme", HOUR, LATER)
        assert ledger.rewind("acme", PROOF, LATER) == Rewound()


class TestFold:
    """What may have to be rewound keeps its rows."""

    def test_hours_and_types_settled_lately_are_left_alone(self, ledger: Ledger) -> None:
        """One object is enough; other types of the hour are folded."""
        deliver(ledger, an_object("a"), an_object("b", OPEN))
        ledger.admit("acme", [an_object("c")], NOW)
        ledger.settle([Delivered(claim(ledger)[0].id, ONE_EVENT)], PROOF)
        assert ledger.fold("acme", EVER, PROOF) == 1
        assert ledger.rewind("acme", NOW, LATER) == Rewound(2, 2)
        deliver(ledger)
        assert ledger.fold("acme", EVER, LATER) == 2


REWIND_AND_DIE = """
import os, signal, sys
from datetime import datetime
from sqlalchemy import Engine, event
from currents_bridge.ledger.sql_ledger import SqlLedger

ledger = SqlLedger(sys.argv[1], now=datetime.fromisoformat(sys.argv[2]))

@event.listens_for(Engine, "before_cursor_execute")
def die(connection, cursor, statement, *_):
    if sys.argv[4] in " ".join(statement.split()):
        os.kill(os.getpid(), signal.SIGKILL)

ledger.rewind("acme", datetime.fromisoformat(sys.argv[3]), datetime.fromisoformat(sys.argv[3]))
"""


@pytest.mark.parametrize("statement", ["DELETE FROM dead_letters", "UPDATE objects", "INSERT INTO connectors"])
def test_a_process_killed_in_a_rewind_has_done_nothing_of_it(tmp_path: Path, statement: str) -> None:
    """Killed before any of its steps; the next process does them all."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    ledger = SqlLedger(url, now=NOW)
    ledger.admit("acme", objects(3), NOW)
    first, second, _ = claim(ledger)
    ledger.settle([Delivered(first.id, BOOKS, [LETTER]), Delivered(second.id, BOOKS, [LETTER])], NOW)
    ledger.replayed({ledger.dead_letters(LetterFilter())[0].id: None}, NOW)
    before = ledger.totals("acme")
    died = subprocess.run(
        [sys.executable, "-c", REWIND_AND_DIE, url, NOW.isoformat(), NOW.isoformat(), statement],
        check=False,
        timeout=60,
    )
    assert died.returncode == -signal.SIGKILL
    assert ledger.totals("acme") == before
    assert len(letters(ledger)) == 1
    assert ledger.rewind("acme", NOW, LATER) == Rewound(objects=3, events=5)
    assert ledger.totals("acme").objects[ObjectState.PENDING] == 3
    ledger.close()


class TestAcknowledged:
    """What was acknowledged and is not proven."""

    def test_it_is_counted_by_the_minute_for_each_connector(self, ledger: Ledger) -> None:
        """In order of time, with the last moment of each minute."""
        minutes = [NOW, NOW + timedelta(seconds=20), NOW + timedelta(minutes=3)]
        for at, first, again in zip(minutes, (5, 2, 0), (0, 0, 4), strict=True):
            ledger.acknowledge("acme", Acknowledged(at, first, again))
        assert ledger.acknowledged("acme") == [Acknowledged(minutes[1], 7, 0), Acknowledged(minutes[2], 0, 4)]
        assert ledger.totals("acme").unproven_events == 11
        assert ledger.acknowledged("beta") == []

    def test_what_is_proven_is_forgotten(self, ledger: Ledger) -> None:
        """Up to the time of the proof, or all of it."""
        for at in (NOW, LATER):
            ledger.acknowledge("acme", Acknowledged(at, 1))
        ledger.forget_acknowledged("acme", PROOF)
        assert ledger.acknowledged("acme") == [Acknowledged(LATER, 1)]
        ledger.forget_acknowledged("acme")
        assert ledger.totals("acme").unproven_events == 0


class TestSpared:
    """Weak evidence sends nothing again that it has sent again lately."""

    def test_what_was_sent_again_lately_stays_delivered(self, ledger: Ledger) -> None:
        """Until a day has passed, or until it is certain that the key was dead."""
        deliver(ledger, an_object("first", OPEN))
        assert ledger.rewind("acme", NOW, PROOF).objects == 1
        claimed = claim(ledger, LATER)
        ledger.settle([Delivered(one.id, BOOKS) for one in claimed], LATER)
        deliver(ledger, an_object("second", OPEN))

        spared = ledger.rewind("acme", NOW, LATER, spare_since=NOW)

        assert (spared.objects, ledger.totals("acme").objects[ObjectState.DELIVERED]) == (1, 1)
        assert ledger.rewind("acme", NOW, LATER, spare_since=LATER).objects == 1
