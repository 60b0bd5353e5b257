import pytest

from currents_bridge.model import Books, HourBooks, Recorded
from currents_bridge.reconcile import Difference, Reconciliation, reconcile
from currents_bridge.transfer import TransferReport
from tests.workbench import CLICK, HOUR, NAME, UNWELL, Bench, clicks, everything


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def proof(bench: Bench) -> Reconciliation:
    """Reconcile all of the bucket."""
    return reconcile(bench.connector(), everything())


def test_what_was_delivered_as_it_is_listed_is_proven(bench: Bench) -> None:
    """There are no differences."""
    bench.put(3, offset=1)
    bench.put(2, offset=2)
    bench.deliver()

    result = proof(bench)

    assert (result.differences, result.exit_code) == ([], 0)
    assert result.hours == [HourBooks(CLICK, HOUR, 2, Books(read=5, sent=5))]
    assert result.listed == {recorded: 2 if recorded is Recorded.DELIVERED else 0 for recorded in Recorded}


def test_an_object_that_the_ledger_does_not_know_is_a_difference(bench: Bench) -> None:
    """No look has found it."""
    key = bench.put(3)

    result = proof(bench)

    assert [difference.subject for difference in result.differences] == [key]
    assert "is not in the ledger" in result.differences[0].detail
    assert (result.listed[Recorded.UNKNOWN], result.exit_code) == (1, 1)


def test_an_object_that_waits_is_a_difference(bench: Bench) -> None:
    """It failed and will be tried again."""
    key = bench.put(3)
    bench.transport.outcomes.extend([UNWELL] * 6)
    bench.deliver()

    result = proof(bench)

    assert result.differences == [Difference(key, "is not delivered yet")]
    assert (result.listed[Recorded.WAITING], result.exit_code) == (1, 1)


def test_an_object_that_was_replaced_is_a_difference(bench: Bench) -> None:
    """What is in the bucket is not what was delivered."""
    key = bench.put(3)
    bench.deliver()
    bench.store.put(key, b"other content", last_modified=HOUR)

    result = proof(bench)

    assert [difference.subject for difference in result.differences] == [key]
    assert "--resend" in result.differences[0].detail
    assert (result.listed[Recorded.CHANGED], result.exit_code) == (1, 1)


def test_a_quarantined_object_is_accounted_for_but_told(bench: Bench) -> None:
    """With 4, as everything that was set aside."""
    bench.put(3, cut_bytes=50)
    bench.deliver()

    result = proof(bench)

    assert (result.listed[Recorded.QUARANTINED], result.differences, result.exit_code) == (1, [], 4)


def test_dead_letters_are_accounted_for_but_told(bench: Bench) -> None:
    """The books balance with them."""
    bench.put([clicks(1)[0] | {"time": 0}])
    bench.deliver()

    result = proof(bench)

    assert (result.books, result.differences, result.exit_code) == (Books(read=1, dead_lettered=1), [], 4)


def test_books_that_do_not_balance_are_a_difference(bench: Bench) -> None:
    """Here the ledger was changed by another hand."""
    bench.put(3)
    bench.deliver()
    bench.ledger.change("UPDATE hours SET sent = 2")

    result = proof(bench)

    assert [difference.subject for difference in result.differences] == [f"{CLICK} 2026-01-02-03"]
    assert "do not balance" in result.differences[0].detail
    assert result.exit_code == 1


def test_a_listing_of_many_pages_is_compared_whole(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pages only bound the memory."""
    monkeypatch.setattr("currents_bridge.reconcile.PAGE_OBJECTS", 2)
    for offset in range(5):
        bench.put(1, offset=offset)
    bench.connector().discover(TransferReport(), everything())

    assert proof(bench).listed[Recorded.WAITING] == 5


def test_the_json_has_objects_events_hours_and_differences(bench: Bench) -> None:
    """The connector's part of the document of `reconcile --json`."""
    bench.put(3, offset=1)
    bench.deliver()
    key = bench.put(1, offset=2)

    assert proof(bench).as_json() == {
        "objects": {"delivered": 1, "waiting": 0, "quarantined": 0, "changed": 0, "unknown": 1},
        "events": {"read": 3, "sent": 3, "skipped_anonymous": 0, "deduplicated": 0, "dead_lettered": 0},
        "hours": [
            {
                "hour": "2026-01-02-03",
                "event_type": CLICK,
                "objects": 1,
                "read": 3,
                "sent": 3,
                "skipped_anonymous": 0,
                "deduplicated": 0,
                "dead_lettered": 0,
            }
        ],
        "differences": [
            {"subject": key, "detail": "is not in the ledger; `once` or `backfill` delivers it"},
        ],
    }
    assert NAME not in str(proof(bench).as_json())
