import pytest

from currents_bridge.cli import render
from currents_bridge.errors import CredentialError, Side
from currents_bridge.model import Books, Recorded
from currents_bridge.operations.reconcile import Reconciliation, reconcile
from tests.workbench import CLICK, HOUR, NAME, OPEN, UNWELL, Bench, clicks, everything


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def proof(bench: Bench) -> Reconciliation:
    """Reconcile all of the bucket."""
    return reconcile(bench.connector(), everything())


def named(result: Reconciliation) -> list[tuple[str, str]]:
    """Return kind and subject of each difference."""
    return [(difference.kind, difference.subject) for difference in result.differences]


def test_what_was_delivered_as_it_is_listed_is_proven(bench: Bench) -> None:
    """There are no differences."""
    bench.put(3, offset=1)
    bench.put(2, offset=2)
    bench.deliver()

    result = proof(bench)

    assert (result.differences, result.exit_code) == ([], 0)
    assert result.audit.books == Books(read=5, sent=5)
    assert result.audit.objects == {recorded: 2 if recorded is Recorded.DELIVERED else 0 for recorded in Recorded}


def test_an_object_that_the_ledger_does_not_know_is_delivered_by_the_next_run(bench: Bench) -> None:
    """So it ends with 1."""
    key = bench.put(3)

    result = proof(bench)

    assert (named(result), result.exit_code) == ([("unknown", key)], 1)


def test_an_object_that_failed_will_be_tried_again(bench: Bench) -> None:
    """So it ends with 1."""
    key = bench.put(3)
    bench.transport.outcomes.extend([UNWELL] * 6)
    bench.deliver()

    result = proof(bench)

    assert (named(result), result.exit_code) == ([("failed", key)], 1)


def test_an_object_that_was_replaced_needs_a_person(bench: Bench) -> None:
    """What is in the bucket is not what was delivered."""
    key = bench.put(3)
    bench.deliver()
    bench.store.put(key, b"other content", last_modified=HOUR)

    result = proof(bench)

    assert (named(result), result.exit_code) == ([("changed", key)], 4)
    assert "--resend" in result.differences[0].detail


def test_an_object_that_was_deleted_while_it_waited_needs_a_person(bench: Bench) -> None:
    """Its events are lost; also where nothing else is left under the prefix, which is told as well."""
    bench.transport.down = True
    key = bench.put(3)
    bench.deliver()
    other = bench.put(3, offset=1)
    bench.deliver()
    bench.store.delete(key)
    bench.store.delete(other)
    assert named(proof(bench)) == [("gone", key), ("gone", other), ("unlisted", "the bucket")]

    bench.put(3, offset=2, event_type=OPEN)
    bench.transport.down = False
    bench.deliver()

    result = proof(bench)

    assert (named(result), result.exit_code) == ([("gone", key), ("gone", other)], 4)


def test_a_key_that_is_not_understood_needs_a_person(bench: Bench) -> None:
    """It is not read, so nobody knows what it holds."""
    bench.put(1)
    bench.deliver()
    bench.store.put("odd.avro")

    result = proof(bench)

    assert (named(result), result.exit_code) == ([("unread", "odd.avro")], 4)


def test_a_folder_that_may_not_be_listed_is_no_proof(bench: Bench) -> None:
    """The rest is compared."""
    bench.put(1)
    key = bench.put(1, event_type=OPEN)
    bench.deliver()
    folder = key.partition("date=")[0]
    bench.store.faults[folder] = CredentialError(Side.SOURCE, "denied", "grant it")

    result = proof(bench)

    assert (named(result), result.exit_code) == ([("unlisted", folder)], 1)
    assert result.audit.objects[Recorded.DELIVERED] == 1


def test_a_quarantined_object_is_accounted_for_but_told(bench: Bench) -> None:
    """With 4, as everything that was set aside."""
    bench.put(3, cut_bytes=50)
    bench.deliver()

    result = proof(bench)

    assert (result.audit.objects[Recorded.QUARANTINED], result.differences, result.exit_code) == (1, [], 4)


def test_dead_letters_are_accounted_for_but_told(bench: Bench) -> None:
    """The books balance with them."""
    bench.put([clicks(1)[0] | {"time": 0}])
    bench.deliver()

    result = proof(bench)

    assert (result.audit.books, result.differences, result.exit_code) == (Books(read=1, dead_lettered=1), [], 4)


def test_books_that_do_not_balance_need_a_person(bench: Bench) -> None:
    """Here the ledger was changed by another hand."""
    bench.put(3)
    bench.deliver()
    bench.ledger.change("UPDATE hours SET sent = 2")

    result = proof(bench)

    assert (named(result), result.exit_code) == ([("unproven", f"{CLICK} 2026-01-02-03")], 4)
    assert "do not balance" in result.differences[0].detail


def test_the_json_has_objects_events_types_hours_and_differences(bench: Bench) -> None:
    """The connector's part of the document of `reconcile --json`."""
    bench.put(3, offset=1)
    bench.deliver()
    key = bench.put(1, offset=2)
    books = {"read": 3, "sent": 3, "skipped_anonymous": 0, "deduplicated": 0, "dead_lettered": 0}

    assert proof(bench).as_json() == {
        "objects": dict.fromkeys(map(str, Recorded), 0) | {"delivered": 1, "unknown": 1},
        "events": books,
        "types": [
            {"event_type": CLICK, "objects": {"delivered": 1, "unknown": 1}, "deleted": 0, "events": books},
        ],
        "hours": [{"hour": "2026-01-02-03", "event_type": CLICK, "objects": 1, "well": False, **books}],
        "differences": [
            {"subject": key, "detail": "is not in the ledger; `once` or `backfill` delivers it", "kind": "unknown"},
        ],
        "excluded": [],
    }
    assert NAME not in str(proof(bench).as_json())


class TestShown:
    """What people see."""

    @pytest.fixture
    def result(self, bench: Bench) -> Reconciliation:
        """Two hours of clicks, one of them with something that waits."""
        bench.put(3, offset=1)
        bench.put(3, hour=HOUR.replace(hour=4))
        bench.deliver()
        for offset in range(2, 30):
            bench.put(1, offset=offset)
        return proof(bench)

    def test_by_default_it_is_a_sum_for_each_type_with_the_hours_that_are_not_well(
        self, result: Reconciliation, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """A history of years stays a screen."""
        render.print_reconciliations({NAME: result}, all_hours=False)

        rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
        assert [row[:3] for row in rows[:1]] == [[NAME, CLICK, "all"]]
        assert [row[2] for row in rows[1:2]] == ["2026-01-02-03"]
        assert rows[2][:2] == [NAME, "all"]
        assert [row[-1] for row in rows] == ["NO", "NO", "NO"]

    def test_all_hours_are_shown_where_that_is_wanted(
        self, result: Reconciliation, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """`--hours`."""
        render.print_reconciliations({NAME: result}, all_hours=True)

        rows = [line.split() for line in capsys.readouterr().out.splitlines()[1:]]
        assert [(row[2], row[-1]) for row in rows[1:3]] == [("2026-01-02-03", "NO"), ("2026-01-02-04", "yes")]

    def test_some_of_each_kind_are_named_and_all_are_counted(
        self, result: Reconciliation, capsys: pytest.CaptureFixture[str]
    ) -> None:
        """So that what matters is not buried."""
        render.print_reconciliations({NAME: result}, all_hours=False)

        lines = capsys.readouterr().err.splitlines()
        assert lines[0] == f"{NAME}: objects: 2 delivered, 28 unknown"
        assert len([line for line in lines if "is not in the ledger" in line]) == render.SHOWN_OF_A_KIND
        assert lines[-1] == f"{NAME}: and 8 more: unknown"
