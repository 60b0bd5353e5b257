"""What was set aside: dead letters and quarantined objects, found, replayed and purged without harm to the books."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from currents_bridge.model import (
    Books,
    Checkpoint,
    DeadLetter,
    Delivered,
    LetterFilter,
    ObjectState,
    Quarantined,
    StoredDeadLetter,
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
    all_books,
    an_object,
    claim,
    deliver,
    keys,
    letters,
    objects,
    resend,
)

BY_RULE = DeadLetter(1, "m-1", "the message has 40000 bytes", event='{"id": "1"}')
BY_SEGMENT = DeadLetter(3, "m-3", "Segment: 100% WRONG_type", message='{"messageId": "m-3"}')
BOOKS = Books(read=5, sent=3, dead_lettered=2)
MOVED = Books(read=5, sent=4, dead_lettered=1)
ALL = LetterFilter()


def set_aside(ledger: Ledger, key: str = "key-0000", event_type: str = CLICK) -> Sequence[StoredDeadLetter]:
    """Deliver an object with two dead letters and return them."""
    ledger.admit("acme", [an_object(key, event_type)], NOW)
    ledger.settle([Delivered(claimed.id, BOOKS, [BY_RULE, BY_SEGMENT]) for claimed in claim(ledger)], NOW)
    return [stored for stored in ledger.dead_letters(ALL) if stored.object_key == key]


class TestDeadLetters:
    """What is kept, and how it is found."""

    def test_all_of_a_letter_is_kept(self, ledger: Ledger) -> None:
        """With its object, its type and its time."""
        first, second = set_aside(ledger)
        assert (first.letter, second.letter) == (BY_RULE, BY_SEGMENT)
        assert (first.connector, first.object_key, first.event_type) == ("acme", "key-0000", CLICK)
        assert (first.attempts, first.created_at) == (0, NOW)

    @pytest.mark.parametrize(
        ("which", "rows"),
        [
            (LetterFilter(connector="acme"), [1, 3]),
            (LetterFilter(connector="beta"), []),
            (LetterFilter(event_type="users.*.Click"), [1, 3]),
            (LetterFilter(event_type="USERS.*"), []),
            (LetterFilter(event_type=OPEN), []),
            (LetterFilter(reason="wrong_TYPE"), [3]),
            (LetterFilter(reason="0% w"), [3]),
            (LetterFilter(reason="wrong%type"), []),
            (LetterFilter(since=NOW), [1, 3]),
            (LetterFilter(since=NOW + timedelta(seconds=1)), []),
            (LetterFilter(until=NOW + timedelta(seconds=1)), [1, 3]),
            (LetterFilter(until=NOW), []),
            (LetterFilter(ids=frozenset()), []),
            (LetterFilter(connector="acme", reason="bytes", since=HOUR), [1]),
        ],
    )
    def test_filters(self, ledger: Ledger, which: LetterFilter, rows: list[int]) -> None:
        """Each field narrows; the same letters are purged as are listed."""
        set_aside(ledger)
        assert [stored.letter.row for stored in ledger.dead_letters(which)] == rows
        assert ledger.purge(which) == len(rows)
        assert [row for _, row, _ in letters(ledger)] == [row for row in (1, 3) if row not in rows]

    def test_oldest_first_up_to_a_limit(self, ledger: Ledger) -> None:
        """In the order in which they were set aside, whatever their object."""
        set_aside(ledger, "key-b")
        (_, newest) = set_aside(ledger, "key-a", OPEN)
        assert [stored.object_key for stored in ledger.dead_letters(ALL, 3)] == ["key-b", "key-b", "key-a"]
        assert ledger.dead_letters(LetterFilter(ids=frozenset({newest.id}))) == [newest]

    def test_they_are_replaced_on_the_next_delivery(self, ledger: Ledger) -> None:
        """What a resend sets aside is what counts; letters of other objects stay, folded or not."""
        set_aside(ledger, "key-0000")
        set_aside(ledger, "key-0001")
        ledger.fold("acme", NOW, EVER)
        ledger.reopen("acme", objects(1), NOW)
        assert len(letters(ledger)) == 4
        resend(ledger)
        assert {key for key, _, _ in letters(ledger)} == {"key-0001"}

    def test_purging_keeps_the_books(self, ledger: Ledger) -> None:
        """An event that was set aside was not sent, whoever deleted it."""
        set_aside(ledger)
        assert ledger.purge(ALL) == 2
        assert all_books(ledger) == [BOOKS] * 3


class TestReplay:
    """A letter that was sent after all."""

    @pytest.mark.parametrize("folded", [False, True])
    def test_an_acknowledged_letter_moves_the_books(self, ledger: Ledger, folded: bool) -> None:  # noqa: FBT001
        """From dead_lettered to sent in every report, once."""
        first, second = set_aside(ledger)
        if folded:
            ledger.fold("acme", NOW, EVER)
        assert ledger.replayed({first.id: None}, NOW)
        assert all_books(ledger) == [MOVED] * 3
        assert not ledger.replayed({first.id: None}, NOW)
        assert not ledger.replayed({first.id: "again"}, NOW)
        assert all_books(ledger) == [MOVED] * 3
        assert ledger.dead_letters(ALL) == [second]

    def test_a_letter_refused_again_stays(self, ledger: Ledger) -> None:
        """With its new reason and one attempt more; books stay."""
        _, second = set_aside(ledger)
        assert ledger.replayed({second.id: "still wrong"}, NOW)
        assert ledger.replayed({second.id: "wrong for ever"}, NOW)
        (stored,) = ledger.dead_letters(LetterFilter(reason="ever"))
        assert stored == replace(second, letter=replace(BY_SEGMENT, reason="wrong for ever"), attempts=2)
        assert all_books(ledger) == [BOOKS] * 3

    def test_other_objects_of_the_hour_keep_their_books(self, ledger: Ledger) -> None:
        """Reopening them takes off what they gave, no more."""
        set_aside(ledger, "key-0000")
        other, _ = set_aside(ledger, "key-0001")
        ledger.replayed({other.id: None}, NOW)
        assert all_books(ledger) == [BOOKS + MOVED] * 3

    def test_a_letter_of_a_quarantined_object_moves_its_books(self, ledger: Ledger) -> None:
        """Its readable part is counted as all else."""
        ledger.admit("acme", objects(1), NOW)
        ledger.settle([Quarantined(claim(ledger)[0].id, "cut", BOOKS, [BY_RULE, BY_SEGMENT])], NOW)
        assert ledger.replayed({ledger.dead_letters(ALL)[0].id: None}, NOW)
        assert [found.books for found in ledger.quarantined("acme")] == [MOVED]
        assert all_books(ledger) == [MOVED] * 3

    @pytest.mark.parametrize("folded", [False, True])
    def test_a_letter_of_a_reopened_object_leaves_the_books_alone(self, ledger: Ledger, folded: bool) -> None:  # noqa: FBT001
        """They begin anew with the next delivery."""
        first, _ = set_aside(ledger)
        other, _ = set_aside(ledger, "other", OPEN)
        if folded:
            ledger.fold("acme", NOW, EVER)
        ledger.reopen("acme", objects(1), NOW)
        assert ledger.replayed({first.id: None}, NOW)
        assert all_books(ledger) == [BOOKS] * 3
        resend(ledger)
        assert all_books(ledger) == [BOOKS + ONE_EVENT] * 3
        assert [stored.id for stored in ledger.dead_letters(ALL)] == [other.id, other.id + 1]

    def test_a_letter_before_a_checkpoint_moves_its_books(self, ledger: Ledger) -> None:
        """The object that goes on from there counts the event as sent."""
        ledger.admit("acme", objects(1), NOW)
        (claimed,) = claim(ledger)
        ledger.checkpoint(claimed.id, Checkpoint(5, BOOKS), [BY_RULE, BY_SEGMENT], NOW)
        ledger.release([claimed.id])
        assert ledger.replayed({ledger.dead_letters(ALL)[1].id: None}, NOW)
        (again,) = claim(ledger)
        assert again.checkpoint == Checkpoint(5, MOVED)

    def test_an_old_letter_never_meets_a_new_one(self, ledger: Ledger) -> None:
        """Ids are not used again."""
        (_, last) = set_aside(ledger)
        ledger.purge(ALL)
        set_aside(ledger, "another")
        assert not ledger.replayed({last.id: None}, NOW)


class TestQuarantine:
    """Objects that cannot be read, or not whole."""

    def test_what_could_be_read_counts(self, ledger: Ledger) -> None:
        """In every report, beside what was delivered."""
        deliver(ledger, an_object("whole"))
        ledger.admit("acme", [an_object("cut")], NOW)
        ledger.settle([Quarantined(claim(ledger)[0].id, "cut", BOOKS, [BY_RULE])], NOW)
        assert all_books(ledger) == [ONE_EVENT + BOOKS] * 3
        assert letters(ledger) == [("cut", 1, BY_RULE.reason)]

    def test_oldest_first_with_all_that_is_known(self, ledger: Ledger) -> None:
        """Of one connector or of all."""
        ledger.admit("acme", objects(2), NOW)
        ledger.admit("beta", objects(1), NOW)
        first, second = claim(ledger)
        (foreign,) = ledger.claim("beta", BOTH, NO_LIMITS, NOW)
        for number, id_ in enumerate((second.id, foreign.id, first.id)):
            ledger.settle([Quarantined(id_, f"bad {number}", BOOKS)], NOW + timedelta(seconds=number))
        found = ledger.quarantined(None)
        assert [(item.id, item.connector, item.reason) for item in found] == [
            (second.id, "acme", "bad 0"),
            (foreign.id, "beta", "bad 1"),
            (first.id, "acme", "bad 2"),
        ]
        assert (found[0].object, found[0].books, found[0].settled_at) == (second.object, BOOKS, NOW)
        assert [item.id for item in ledger.quarantined("beta")] == [foreign.id]

    def test_a_replayed_object_is_as_new(self, ledger: Ledger) -> None:
        """Its books and letters are forgotten; objects that are not quarantined are left alone."""
        delivered, _ = set_aside(ledger)
        ledger.admit("acme", [an_object("cut")], NOW)
        (claimed,) = claim(ledger)
        ledger.settle([Quarantined(claimed.id, "cut", BOOKS, [BY_RULE])], NOW)
        assert ledger.replay_quarantined([claimed.id, claimed.id - 1, 12345], NOW) == 1
        assert all_books(ledger) == [BOOKS] * 3
        assert ledger.totals("acme").failed_reasons == {}
        assert {key for key, _, _ in letters(ledger)} == {delivered.object_key}
        assert claim(ledger) == [replace(claimed, restarted_at=NOW + timedelta(seconds=1))]

    def test_any_number_is_replayed(self, ledger: Ledger) -> None:
        """More than fit into one query."""
        ledger.admit("acme", objects(1100), NOW)
        while group := claim(ledger):
            ledger.settle([Quarantined(claimed.id, "no Avro") for claimed in group], NOW)
        assert ledger.replay_quarantined([item.id for item in ledger.quarantined(None)], NOW) == 1100
        assert ledger.totals("acme").objects[ObjectState.PENDING] == 1100
        assert keys(claim(ledger))[0] == "key-0000"
