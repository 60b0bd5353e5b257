"""What goes ahead to see whether a side works, and what the ledger remembers for that."""

from datetime import timedelta

import pytest

from currents_bridge.model import Canary, Failed, ObjectState, Selection
from currents_bridge.ports import Ledger
from tests.ledger_workbench import BOTH, CLICK, HOUR, NOW, OPEN, an_object, claim, deliver, keys
from tests.ledgers import LedgerOnFile


@pytest.fixture
def ledger() -> LedgerOnFile:
    """An owner of a new ledger."""
    return LedgerOnFile()


def go_ahead(ledger: Ledger, minute: int, selection: Selection = BOTH) -> list[str]:
    """Claim a canary, give it back, and return its key."""
    group = ledger.claim_canary("acme", selection, NOW + timedelta(minutes=minute))
    ledger.release([claimed.id for claimed in group])
    return list(keys(group))


def test_canaries_are_the_newest_of_hours_and_types_that_were_not_tried(ledger: LedgerOnFile) -> None:
    """Then the newest that did not go ahead, then the one that did so longest ago."""
    listed = [
        an_object("old", hour=HOUR),
        an_object("new-1", hour=HOUR + timedelta(hours=2)),
        an_object("new-2", hour=HOUR + timedelta(hours=2)),
        an_object("open", OPEN, hour=HOUR + timedelta(hours=1)),
    ]
    ledger.admit("acme", listed, NOW)

    chosen = [go_ahead(ledger, minute) for minute in range(6)]

    assert chosen == [["new-2"], ["open"], ["old"], ["new-1"], ["new-2"], ["open"]]


def test_which_objects_went_ahead_outlives_the_process(ledger: LedgerOnFile) -> None:
    """As `once` is another one each time."""
    ledger.admit("acme", [an_object(key) for key in ("a", "b")], NOW)
    assert go_ahead(ledger, 0) == ["b"]
    path = ledger.path
    ledger.close()

    assert go_ahead(LedgerOnFile(path), 1) == ["a"]


def test_a_canary_counts_no_attempt_and_is_claimed_by_one_owner(ledger: LedgerOnFile) -> None:
    """Given back, it is as it was."""
    ledger.admit("acme", [an_object("a")], NOW)
    (claimed,) = ledger.claim_canary("acme", BOTH, NOW)
    assert not LedgerOnFile(ledger.path).claim_canary("acme", BOTH, NOW)
    ledger.release([claimed.id])

    assert (keys(claim(ledger)), claimed.attempts) == (["a"], 0)


def test_a_failed_object_goes_ahead_where_no_other_waits_whatever_its_time(ledger: LedgerOnFile) -> None:
    """Else an incident would last until it is due."""
    ledger.admit("acme", [an_object("a"), an_object("b")], NOW)
    first, second = claim(ledger)
    ledger.settle([Failed(first.id, "unwell", NOW + timedelta(hours=6))], NOW)
    ledger.release([second.id])

    assert [go_ahead(ledger, minute) for minute in range(3)] == [["b"], ["a"], ["b"]]


def test_other_types_hours_and_connectors_do_not_go_ahead(ledger: LedgerOnFile) -> None:
    """Nor what is delivered or quarantined."""
    deliver(ledger, an_object("delivered"))
    ledger.admit("other", [an_object("other")], NOW)
    ledger.admit("acme", [an_object("open", OPEN)], NOW)

    assert go_ahead(ledger, 0, Selection(frozenset({CLICK}))) == []
    assert go_ahead(ledger, 0, Selection(frozenset({OPEN}), end_hour=HOUR)) == []
    assert ledger.totals("acme").objects[ObjectState.PENDING] == 1


def test_witnesses_are_the_latest_delivered_of_each_hour_and_type(ledger: LedgerOnFile) -> None:
    """At most as many as asked for."""
    deliver(ledger, an_object("a"), an_object("b"))
    deliver(ledger, an_object("open", OPEN), an_object("later", hour=HOUR + timedelta(hours=1)))
    ledger.change("UPDATE objects SET settled_at = ? WHERE key = 'b'", "2026-03-04 12:31:00.000000")
    ledger.admit("acme", [an_object("waits", OPEN, HOUR + timedelta(hours=5))], NOW)

    found = ledger.witnesses("acme", 9)

    assert (found[0][0], found[0][1]) == (an_object("b"), NOW + timedelta(minutes=1))
    assert {item.key for item, _ in found} == {"b", "open", "later"}
    assert len(ledger.witnesses("acme", 2)) == 2
    assert ledger.witnesses("other", 9) == []


def test_the_message_that_was_acknowledged_last_is_kept(ledger: LedgerOnFile) -> None:
    """One for each connector, for as long as it is new enough, until it is forgotten."""
    ledger.keep_canary("acme", Canary("m-1", "{}"), NOW - timedelta(hours=1))
    ledger.keep_canary("acme", latest := Canary("m-2", '{"a": 1}'), NOW)

    assert ledger.canary("acme", NOW, NOW) == latest
    assert ledger.canary("acme", NOW - timedelta(days=2), NOW - timedelta(days=1)) is None
    assert ledger.canary("acme", NOW + timedelta(seconds=1), NOW + timedelta(days=1)) is None
    assert ledger.canary("other", NOW, NOW) is None
    ledger.keep_canary("acme", None, NOW)
    assert ledger.canary("acme", NOW - timedelta(days=1), NOW) is None
