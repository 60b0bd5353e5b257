"""What reconcile and dedup ask: what is recorded of a listing, the books of each hour, and what was sent before."""

from dataclasses import replace
from datetime import timedelta

import polars as pl
import pytest

from currents_bridge.errors import ClaimLostError
from currents_bridge.model import (
    Books,
    Checkpoint,
    Delivered,
    Failed,
    HourBooks,
    ObjectState,
    OwedObject,
    Quarantined,
    Recorded,
    Selection,
)
from currents_bridge.ports import Ledger
from tests.ledger_workbench import (
    BOTH,
    CLICK,
    EVER,
    HOUR,
    NOW,
    ONE_EVENT,
    OPEN,
    an_object,
    claim,
    deliver,
    objects,
    remembered,
)

LATER = HOUR + timedelta(hours=1)


class TestRecorded:
    """Each object of a listing has one answer."""

    def test_each_state_has_its_answer(self, ledger: Ledger) -> None:
        """In the order of the listing."""
        listed = [an_object(key) for key in ("a-delivered", "b-quarantined", "c-failed", "d-released")]
        ledger.admit("acme", listed, NOW)
        delivered, quarantined, failed, released = claim(ledger)
        ledger.settle(
            [Delivered(delivered.id, ONE_EVENT), Quarantined(quarantined.id, "cut"), Failed(failed.id, "429", NOW)], NOW
        )
        ledger.release([released.id])
        answers = [Recorded.DELIVERED, Recorded.QUARANTINED, Recorded.FAILED, Recorded.WAITING]
        assert ledger.recorded("acme", [an_object("new"), *listed]) == [Recorded.UNKNOWN, *answers]
        assert ledger.recorded("beta", listed) == [Recorded.UNKNOWN] * 4
        assert ledger.recorded("acme", []) == []

    def test_a_delivered_object_with_another_etag_or_size_is_changed(self, ledger: Ledger) -> None:
        """What lies in the bucket is not what was delivered."""
        item = an_object("a")
        deliver(ledger, item)
        changed = [replace(item, etag="etag-2"), replace(item, size_bytes=101), item]
        assert ledger.recorded("acme", changed) == [Recorded.CHANGED, Recorded.CHANGED, Recorded.DELIVERED]

    def test_folded_objects_are_known_by_key_and_etag(self, ledger: Ledger) -> None:
        """Their size is forgotten."""
        item = an_object("a")
        deliver(ledger, item)
        ledger.fold("acme", NOW, EVER)
        listed = [item, replace(item, etag="etag-2"), replace(item, size_bytes=101), an_object("b")]
        delivered = Recorded.DELIVERED
        assert ledger.recorded("acme", listed) == [delivered, Recorded.CHANGED, delivered, Recorded.UNKNOWN]

    def test_a_listing_of_any_length(self, ledger: Ledger) -> None:
        """More than fits into one query."""
        ledger.admit("acme", objects(1201), NOW)
        assert ledger.recorded("acme", objects(1202)) == [Recorded.WAITING] * 1201 + [Recorded.UNKNOWN]


class TestOwed:
    """What the bucket has to have, since it is not delivered."""

    def test_all_that_is_not_delivered_comes_in_key_order(self, ledger: Ledger) -> None:
        """Each with what is recorded of it; a claimed one waits."""
        ledger.admit("acme", [an_object(key) for key in "edcba"], NOW)
        first, second, third, fourth, _ = claim(ledger)
        ledger.settle(
            [Quarantined(first.id, "cut"), Delivered(second.id, ONE_EVENT), Failed(third.id, "429", NOW)], NOW
        )
        ledger.release([fourth.id])

        assert ledger.owed("acme", "", "z", 10) == [
            OwedObject("a", CLICK, HOUR, Recorded.QUARANTINED),
            OwedObject("c", CLICK, HOUR, Recorded.FAILED),
            OwedObject("d", CLICK, HOUR, Recorded.WAITING),
            OwedObject("e", CLICK, HOUR, Recorded.WAITING),
        ]
        assert ledger.owed("beta", "", "z", 10) == []

    def test_a_range_has_neither_of_its_bounds_and_ends_at_the_limit(self, ledger: Ledger) -> None:
        """So that the next one begins after the last key of this one."""
        ledger.admit("acme", [an_object(key) for key in "abcde"], NOW)

        assert [item.key for item in ledger.owed("acme", "a", "e", 10)] == ["b", "c", "d"]
        assert [item.key for item in ledger.owed("acme", "a", "e", 2)] == ["b", "c"]


class TestHourBooks:
    """Books by hour and type."""

    def test_they_come_by_hour_and_type(self, ledger: Ledger) -> None:
        """With the number of delivered objects, folded or not."""
        deliver(ledger, an_object("a", OPEN), an_object("b"), an_object("c"), an_object("d", hour=LATER))
        expected = [
            HourBooks(CLICK, HOUR, 2, Books(read=2, sent=2)),
            HourBooks(OPEN, HOUR, 1, ONE_EVENT),
            HourBooks(CLICK, LATER, 1, ONE_EVENT),
        ]
        assert ledger.hour_books("acme", BOTH) == expected
        ledger.fold("acme", LATER, EVER)
        assert ledger.hour_books("acme", BOTH) == expected

    def test_only_the_selection(self, ledger: Ledger) -> None:
        """Types are named; hours run from the first to before the end."""
        deliver(ledger, an_object("a", OPEN), an_object("b"), an_object("c", hour=LATER))
        clicks = Selection(frozenset({CLICK}), HOUR, LATER)
        assert ledger.hour_books("acme", clicks) == [HourBooks(CLICK, HOUR, 1, ONE_EVENT)]
        assert ledger.hour_books("beta", BOTH) == []

    def test_quarantined_objects_count_with_what_could_be_read(self, ledger: Ledger) -> None:
        """They are no delivered objects, and one of which nothing could be read has no part in it."""
        ledger.admit("acme", [an_object("a"), an_object("b"), an_object("c", OPEN)], NOW)
        first, second, third = claim(ledger)
        ledger.settle(
            [Delivered(first.id, ONE_EVENT), Quarantined(second.id, "cut", ONE_EVENT), Quarantined(third.id, "no")], NOW
        )
        assert ledger.hour_books("acme", BOTH) == [HourBooks(CLICK, HOUR, 1, Books(read=2, sent=2))]
        assert ledger.totals("acme").objects[ObjectState.QUARANTINED] == 2


class TestMemory:
    """Message ids that were sent and settled."""

    def test_ids_are_remembered_with_their_settlement(self, ledger: Ledger) -> None:
        """Of delivered and quarantined objects and of checkpoints, never of failed ones; each connector by itself."""
        ledger.admit("acme", objects(4), NOW)
        first, second, third, fourth = claim(ledger)
        ledger.checkpoint(third.id, Checkpoint(1, ONE_EVENT), [], NOW, pl.Series(["c"]))
        ledger.settle(
            [
                Delivered(first.id, ONE_EVENT, message_ids=pl.Series(["a", "ä"])),
                Quarantined(second.id, "cut", ONE_EVENT, message_ids=pl.Series(["b"])),
                Failed(third.id, "429", NOW),
                Delivered(fourth.id, ONE_EVENT),
            ],
            NOW,
        )
        asked = pl.Series("message_id", ["x", "b", "a", "c", "ä", "a"])
        answer = remembered(ledger, "acme", asked)
        assert answer.equals(pl.Series([False, True, True, True, True, True]), check_dtypes=True)
        assert not remembered(ledger, "beta", asked).any()

    def test_a_refused_settlement_remembers_nothing(self, ledger: Ledger) -> None:
        """An id that is remembered too early would be an event that is lost."""
        ledger.admit("acme", objects(1), NOW)
        settled = Delivered(claim(ledger)[0].id, ONE_EVENT, message_ids=pl.Series(["a"]))
        ledger.release([settled.id])
        for refused, error in ((settled, ClaimLostError), (replace(settled, books=Books(read=1)), ValueError)):
            with pytest.raises(error):
                ledger.settle([refused], NOW)
        assert not remembered(ledger, "acme", pl.Series(["a"])).any()

    def test_old_ids_are_forgotten(self, ledger: Ledger) -> None:
        """By the time of their latest settlement, so that sending again starts anew."""
        ledger.admit("acme", objects(2), NOW)
        first, second = claim(ledger)
        day = timedelta(days=1)
        ledger.settle([Delivered(first.id, ONE_EVENT, message_ids=pl.Series(["a", "b", "c"]))], NOW - day)
        ledger.settle([Delivered(second.id, ONE_EVENT, message_ids=pl.Series(["c", "d"]))], NOW)
        assert ledger.forget("beta", NOW) == 0
        assert ledger.forget("acme", NOW - day) == 0
        assert ledger.forget("acme", NOW) == 2
        answer = remembered(ledger, "acme", pl.Series(["a", "b", "c", "d"]))
        assert answer.to_list() == [False, False, True, True]
        assert ledger.forget("acme", NOW) == 0

    def test_any_number_of_ids(self, ledger: Ledger) -> None:
        """More than fit into one query; none at all is well, too."""
        ids = [f"id-{number}" for number in range(40_001)]
        ledger.admit("acme", objects(1), NOW)
        ledger.settle([Delivered(claim(ledger)[0].id, ONE_EVENT, message_ids=pl.Series(ids[:-1]))], NOW)
        answer = remembered(ledger, "acme", pl.Series(ids))
        assert (answer.sum(), answer[-1]) == (40_000, False)
        assert remembered(ledger, "acme", pl.Series([], dtype=pl.String)).to_list() == []
        assert ledger.forget("acme", NOW + timedelta(seconds=1)) == 40_000
