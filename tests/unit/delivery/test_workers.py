import threading
from datetime import timedelta
from typing import BinaryIO

import pytest

from currents_bridge.delivery.group import GroupReport
from currents_bridge.delivery.workers import TransferReport
from currents_bridge.errors import CredentialError, LedgerError, Side
from currents_bridge.model import Books, Delivered, Failed, ObjectState, Quarantined
from tests.workbench import DENIED, HOUR, NAME, UNWELL, Bench, BreakingStore

DELIVERED, FAILED, PENDING, CLAIMED = (
    ObjectState.DELIVERED,
    ObjectState.FAILED,
    ObjectState.PENDING,
    ObjectState.CLAIMED,
)


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


@pytest.fixture
def report() -> TransferReport:
    """The report that runs add to."""
    return TransferReport()


def test_many_workers_deliver_every_event_once(bench: Bench, report: TransferReport) -> None:
    """200 small objects, 8 workers, groups of a few: nothing is left and nothing comes twice."""
    for offset in range(200):
        bench.put(2, offset=offset)

    bench.transfer(report, workers=8, max_objects=7, max_in_flight=4)

    assert bench.states() == {DELIVERED: 200}
    assert len(bench.sent_ids()) == len(set(bench.sent_ids())) == 400
    assert (report.delivered, report.books) == (200, Books(read=400, sent=400))
    assert report.batches == len(bench.transport.batches)


def test_workers_work_at_the_same_time(bench: Bench, report: TransferReport) -> None:
    """Two groups are read at once; how many are sent at once, the sender decides."""
    meeting = threading.Barrier(2, timeout=10)

    class Meeting(BreakingStore):
        def open(self, key: str, etag: str, size_bytes: int) -> BinaryIO:
            meeting.wait()
            return super().open(key, etag, size_bytes)

    bench.store = Meeting()
    bench.put(1, offset=1)
    bench.put(1, offset=2)

    bench.transfer(report, workers=2, max_objects=1, max_in_flight=2)

    assert report.delivered == 2


def test_the_caller_hears_of_every_group(bench: Bench, report: TransferReport) -> None:
    """The report has grown by then."""
    heard: list[int] = []
    for offset in range(3):
        bench.put(1, offset=offset)

    bench.transfer(report, max_objects=1, on_group=lambda so_far: heard.append(so_far.delivered))

    assert heard == [1, 2, 3]


def test_a_destination_that_takes_nothing_ends_the_run(bench: Bench, report: TransferReport) -> None:
    """Its first group waits for a later try, and no other object pays for the outage."""
    for offset in range(5):
        bench.put(1, offset=offset)
    bench.transport.outcomes.extend([UNWELL] * 6)

    bench.transfer(report, max_objects=2)

    assert bench.states() == {FAILED: 2, PENDING: 3}
    assert (report.failed, report.error) == (2, None)
    assert report.reasons == {UNWELL.message: 2}


def test_a_credential_error_ends_the_run_and_what_was_done_before_is_reported(
    bench: Bench, report: TransferReport
) -> None:
    """The books hold what was acknowledged in the very group that was denied."""
    for offset in range(5):
        bench.put(1, offset=offset)
    bench.transport.outcomes.extend([(), DENIED, DENIED])

    bench.transfer(report, max_objects=3, max_batch_events=1)

    assert isinstance(report.error, CredentialError)
    assert (report.delivered, report.books.sent, report.batches) == (1, 1, 1)
    assert bench.states() == {DELIVERED: 1, PENDING: 4}


def test_a_denied_source_ends_the_run_too(bench: Bench, report: TransferReport) -> None:
    """Or the object that was given back would be claimed again at once, for ever."""
    error = CredentialError(Side.SOURCE, "AccessDenied", "allow s3:GetObject")
    for offset in range(4):
        bench.store.faults[bench.put(1, offset=offset)] = error
    groups: list[int] = []

    def on_group(_: TransferReport) -> None:
        groups.append(1)
        if len(groups) > 1:
            bench.stop.set()

    bench.transfer(report, max_objects=2, on_group=on_group)

    assert (report.error, report.delivered, len(groups)) == (error, 0, 1)


def test_a_stop_ends_the_run(bench: Bench, report: TransferReport) -> None:
    """No further group is claimed."""
    for offset in range(5):
        bench.put(1, offset=offset)

    bench.transfer(report, max_objects=1, on_group=lambda _: bench.stop.set())

    assert bench.states() == {DELIVERED: 1, PENDING: 4}


def test_a_ledger_that_cannot_settle_ends_the_run_and_loses_nothing(bench: Bench, report: TransferReport) -> None:
    """The objects are free again, and the next run sends them with the same ids."""
    bench.put(2)
    bench.ledger.faults["settle"] = LedgerError("disk full")
    transfer = bench.transfer(report)
    assert str(report.error) == "disk full"
    assert (report.delivered, bench.states(), transfer.unreleased) == (0, {PENDING: 1}, [])

    bench.ledger.faults.clear()
    bench.transfer(TransferReport())

    assert bench.states() == {DELIVERED: 1}
    assert bench.sent_ids()[:2] == bench.sent_ids()[2:]


def test_objects_that_cannot_even_be_released_are_remembered(bench: Bench, report: TransferReport) -> None:
    """They stay claimed, and the first error is told."""
    bench.put(2)
    bench.ledger.faults |= {"settle": LedgerError("disk full"), "release": LedgerError("still full")}

    transfer = bench.transfer(report)

    assert (transfer.unreleased, bench.states()) == ([1], {CLAIMED: 1})
    assert str(report.error) == "disk full"


@pytest.mark.parametrize("release_fault", [None, LedgerError("disk full")])
def test_a_mistake_of_ours_is_raised_and_keeps_no_claim_it_can_release(
    bench: Bench, report: TransferReport, release_fault: LedgerError | None
) -> None:
    """It is no trouble to be kept in a report, also where the ledger fails on top of it."""
    bench.put(1)
    bench.ledger.faults["settle"] = ZeroDivisionError("a mistake")
    if release_fault:
        bench.ledger.faults["release"] = release_fault

    with pytest.raises(ZeroDivisionError):
        bench.transfer(report)

    assert bench.states() == {CLAIMED if release_fault else PENDING: 1}


def test_an_object_that_is_delivered_in_the_end_has_not_failed(report: TransferReport) -> None:
    """A long run tries again what became due, and reports how things stand."""
    at = HOUR + timedelta(minutes=1)
    report.add(GroupReport([Failed(1, "unwell", at), Failed(2, "unwell", at), Failed(3, "gone", at)]))
    report.add(GroupReport([Delivered(1, Books()), Failed(2, "still unwell", at), Quarantined(3, "no Avro")]))

    assert (report.delivered, report.failed, report.quarantined) == (1, 1, 1)
    assert report.reasons == {"still unwell": 1, "no Avro": 1}


def test_the_first_error_is_the_one_that_is_told(report: TransferReport) -> None:
    """What follows from it in other workers says less."""
    report.add(GroupReport(credential_error=DENIED))
    report.add(GroupReport(credential_error=CredentialError(DENIED.side, "another", "")))

    assert report.error is DENIED


def test_the_report_as_json_has_the_names_of_the_interface() -> None:
    """The document of `once --json`; scripts rely on it."""
    report = TransferReport(discovered=4, books=Books(9, 5, 2, 1, 1), batches=2, batch_bytes=800, seconds=1.23456)
    report.add(GroupReport([Delivered(1, Books()), Failed(2, "x", HOUR), Quarantined(3, "y")], batches=1))

    assert report.as_json() == {
        "objects": {"discovered": 4, "delivered": 1, "failed": 1, "quarantined": 1},
        "events": {"read": 9, "sent": 5, "skipped_anonymous": 2, "deduplicated": 1, "dead_lettered": 1},
        "batches": 3,
        "bytes": 800,
        "seconds": 1.235,
        "error": None,
        "reasons": {"x": 1, "y": 1},
    }


def test_another_owner_of_the_ledger_takes_what_was_not_begun(bench: Bench, report: TransferReport) -> None:
    """After a stop nothing is left claimed."""
    for offset in range(3):
        bench.put(1, offset=offset)
    bench.admit()
    bench.stop.set()
    bench.transfer(report)
    assert (report.delivered, bench.states()) == (0, {PENDING: 3})

    bench.stop.clear()
    bench.transfer(report)

    assert bench.ledger.totals(NAME).books == Books(read=3, sent=3)


def test_what_could_be_read_of_a_quarantined_object_counts(bench: Bench, report: TransferReport) -> None:
    """It was sent, so the report tells it as the ledger does."""
    bench.put(3, cut_bytes=50)

    bench.transfer(report)

    assert (report.quarantined, report.books) == (1, Books(read=2, sent=2))
    assert report.books == bench.ledger.totals(NAME).books
