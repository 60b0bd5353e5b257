import io
import json

import pytest
from rich.console import Console
from structlog.testing import capture_logs

from currents_bridge.cli import render
from currents_bridge.credentials.state import LossPolicy
from currents_bridge.delivery.group import GroupReport
from currents_bridge.delivery.workers import TransferReport
from currents_bridge.demo.demo import DemoResult
from currents_bridge.errors import Side
from currents_bridge.events.catalogue import catalogue
from currents_bridge.model import (
    Books,
    Credential,
    CredentialState,
    Delivered,
    EvidenceKind,
    Failed,
    Notice,
    NoticeKind,
    Quarantined,
)
from currents_bridge.operations.backfill import Plan
from currents_bridge.operations.check import Verdict
from currents_bridge.operations.status import read_status
from tests.workbench import CLICK, HOUR, NAME, Bench

# Rich would take the first for markup, fail on the second and make a picture of the third.
ODD = "[red] [/tmp/x] :smile: " + "a long reason " * 20


@pytest.fixture
def report() -> TransferReport:
    """A run with every kind of outcome."""
    report = TransferReport(discovered=1234, seconds=2.25)
    report.add(
        GroupReport(
            [Delivered(1, Books(5000, 4000, 500, 300, 200)), Failed(2, ODD, HOUR), Quarantined(3, "no Avro")],
            batches=3,
        )
    )
    return report


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Let the talk go to a terminal."""
    screen = io.StringIO()
    monkeypatch.setattr(render, "talk", Console(file=screen, force_terminal=True, width=120))
    return screen


def cells(line: str) -> list[str]:
    """Return the words of a table's line."""
    return line.split()


def test_json_is_one_document_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    """With nothing beside it."""
    render.print_json({"a": ["ä", 1]})

    out, err = capsys.readouterr()
    assert (json.loads(out), err) == ({"a": ["ä", 1]}, "")


def test_a_run_is_a_row_of_counts_and_a_line_for_each_reason(
    report: TransferReport, capsys: pytest.CaptureFixture[str]
) -> None:
    """Counts go to stdout; reasons to stderr, each whole and as it is."""
    render.print_reports({NAME: report})

    out, err = capsys.readouterr()
    head, row = out.splitlines()
    assert cells(head)[:5] == ["connector", "discovered", "delivered", "failed", "quarantined"]
    assert cells(row) == [NAME, "1,234", "1", "1", "1", "5,000", "4,000", "500", "300", "200", "3", "2.2"]
    assert sorted(err.splitlines()) == sorted([f"{NAME}: 1 object: {ODD}", f"{NAME}: 1 object: no Avro"])


def test_a_plan_is_a_row(capsys: pytest.CaptureFixture[str]) -> None:
    """With thousands kept apart."""
    render.print_plans({NAME: Plan(1200, 3_000_000, 17)})

    assert cells(capsys.readouterr().out.splitlines()[1]) == [NAME, "1,200", "3,000,000", "17"]


def test_a_check_shows_finding_and_remedy_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Keys and errors hold brackets, which are no markup."""
    render.print_verdicts([Verdict("a", True, "fine"), Verdict("b", False, "s3://x/[/y]", "mend [z]")])

    out = capsys.readouterr().out.splitlines()
    assert cells(out[1]) == ["a", "ok", "fine"]
    assert cells(out[2]) == ["b", "NOT", "OK", "s3://x/[/y]", "mend", "[z]"]


def test_a_status_says_why_objects_wait_and_what_was_noticed(capsys: pytest.CaptureFixture[str]) -> None:
    """And since when a credential fails, with the evidence."""
    bench = Bench()
    bench.put(3)
    bench.deliver()
    bench.put(3, offset=1, cut_bytes=50)
    bench.deliver()
    failing = Credential(CredentialState.FAILING, HOUR, "revoked", "renew it", EvidenceKind.REVOKED, proven_at=HOUR)
    bench.ledger.save_credential(NAME, Side.DESTINATION, failing)
    bench.ledger.note(NAME, [Notice(NoticeKind.UNREAD_KEYS, "[a]/b", ODD, 2)], bench.now)
    for _ in range(2):
        bench.ledger.job_ended(NAME, "audit", "s3 answered 503", HOUR)
    capsys.readouterr()  # what was logged, if anything

    render.print_status(read_status(bench.ledger, {NAME: LossPolicy()}, bench.now, {NAME: ["env:KEY"]}))

    out, err = capsys.readouterr()
    assert cells(out.splitlines()[1]) == [NAME, "failing", "0", "1", "0", "1", "5", "5", "0", "0", "0", "0", "s"]
    credential, _, _, left, todo, reason, job, notice = err.splitlines()
    assert credential.startswith(f"{NAME}: Segment answers 200 and drops what is sent: revoked.")
    assert "in 1 d 23 h, on 2026-01-04 03:00 UTC; here nothing is dropped then." in left
    assert "into env:KEY (restart after the change): renew it" in todo
    assert reason.startswith(f"{NAME}: 1 object: N of N blocks is unreadable (N events)")
    assert job == f"{NAME}: the job audit fails since 2026-01-02 03:00 UTC, 2 times: s3 answered 503"
    assert notice == f"{NAME}: unread_keys [a]/b: {ODD} (seen 2 times)"


def test_events_have_their_segment_name_or_say_where_it_comes_from(capsys: pytest.CaptureFixture[str]) -> None:
    """A type that is not mapped has none."""
    named_by_record = next(e for e in catalogue().values() if e.event_name_field)
    unmapped = next(e for e in catalogue().values() if not e.mapped)

    render.print_events([(catalogue()[CLICK], True), (named_by_record, False), (unmapped, False)])

    lines = capsys.readouterr().out.splitlines()
    assert cells(lines[1]) == [CLICK, "Email", "Link", "Clicked", "yes"]
    assert f"the record's {named_by_record.event_name_field}" in lines[2]
    assert cells(lines[3])[-2:] == ["-", "no"]


@pytest.mark.parametrize(("arrived", "words"), [(7, "the sums agree"), (6, "THE SUMS DIFFER")])
def test_the_demo_says_whether_the_sums_agree(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arrived: int, words: str
) -> None:
    """With the sums themselves."""
    monkeypatch.setattr("currents_bridge.demo.demo.supported_types", lambda: (CLICK,))
    books = {CLICK: Books(read=9, sent=7, skipped_anonymous=2)}

    render.print_demo(DemoResult(books, {"Email Link Clicked": arrived}, 1, 0, 0, {}))

    lines = capsys.readouterr().out.splitlines()
    assert cells(lines[-2])[-7:] == ["1", "types", "9", "7", "2", "0", "0"]
    assert lines[-1] == f"{arrived} distinct messages arrived at the collector in 1 requests: {words}"


def test_progress_outside_a_terminal_is_a_log_line_every_few_seconds(report: TransferReport) -> None:
    """Not one for each group, and objects are only counted for a line."""
    waiting = iter([8, 7])
    with capture_logs() as logs, render.progress(lambda: next(waiting)) as on_group:
        for report.seconds in (1.0, 6.0, 7.0, 10.9, 11.0):
            on_group(report)

    assert [line["seconds"] for line in logs] == [6.0, 11.0]
    assert (logs[0]["event"], logs[0]["objects"], logs[0]["waiting"], logs[0]["sent"]) == ("progress", 3, 8, 4000)


def test_progress_in_a_terminal_is_a_bar(report: TransferReport, terminal: io.StringIO) -> None:
    """Of all objects, done and waiting, which are counted every few seconds only."""
    waiting = iter([5, 2])
    with render.progress(lambda: next(waiting)) as on_group:
        for report.seconds in (1.0, 2.0, 3.0, 6.5):
            on_group(report)

    assert "4,000 events" in terminal.getvalue()
    assert "3/5" in terminal.getvalue()


@pytest.mark.parametrize("width", [60, 80, 120])
def test_a_status_shows_whole_numbers_on_any_terminal(
    width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those of 18 digits, of a connector with a long name."""
    name, count = "production-of-a-customer-with-many", 123_456_789_012_345_678
    report = TransferReport()
    report.add(GroupReport([Delivered(1, Books(read=count, sent=count))], batches=count))
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", str(width))

    render.print_reports({name: report})

    out = capsys.readouterr().out
    assert out.count(f"{count:,}") == 3
    assert name in out
    assert max(map(len, out.splitlines())) <= width
