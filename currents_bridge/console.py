"""What people see: tables and progress, made with Rich; data for programs is plain JSON on stdout."""

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

import orjson
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from currents_bridge.backfill import Plan
from currents_bridge.catalogue import EventType
from currents_bridge.check import Verdict
from currents_bridge.demo import DemoResult
from currents_bridge.logs import get_logger
from currents_bridge.model import Books, ObjectState
from currents_bridge.status import StatusReport
from currents_bridge.transfer import TransferReport

PROGRESS_LINE_S = 5.0
WIDTH_OFF_TERMINAL = 200

log = get_logger()
talk = Console(stderr=True)


def print_json(document: object) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.buffer.write(orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE))
    sys.stdout.buffer.flush()


def print_reports(reports: Mapping[str, TransferReport]) -> None:
    """Print what a run did, a row for each connector, and why objects wait or were set aside."""
    table = _table("connector", "discovered", "delivered", "failed", "quarantined", *_BOOKS, "batches", "seconds")
    for name, r in reports.items():
        objects = (r.discovered, r.delivered, r.failed, r.quarantined)
        table.add_row(name, *map(_count, objects), *_books(r.books), _count(r.batches), f"{r.seconds:.1f}")
    _print(table)
    for name, r in reports.items():
        for reason, count in r.reasons.most_common(10):
            talk.print(f"{name}: {count} objects: {reason}", markup=False, highlight=False, soft_wrap=True)


def print_plans(plans: Mapping[str, Plan]) -> None:
    """Print what a backfill would deliver."""
    table = _table("connector", "objects", "bytes", "requests (estimated)")
    for name, plan in plans.items():
        table.add_row(name, _count(plan.objects), _count(plan.object_bytes), _count(plan.requests))
    _print(table)


def print_verdicts(verdicts: Iterable[Verdict]) -> None:
    """Print a check, with a remedy on each line that is not well."""
    table = Table("what", "", "finding", "what to do", box=None)
    for verdict in verdicts:
        table.add_row(verdict.subject, "ok" if verdict.ok else "NOT OK", verdict.detail, verdict.remedy)
    _print(table)


def print_status(report: StatusReport) -> None:
    """Print what the ledger knows."""
    table = _table("connector", "credential", "pending", "delivered", "failed", "quarantined", *_BOOKS, "lag")
    for status in report.connectors:
        states = status.totals.objects
        waiting = states[ObjectState.PENDING] + states[ObjectState.CLAIMED]
        objects = [waiting, *(states[s] for s in (ObjectState.DELIVERED, ObjectState.FAILED, ObjectState.QUARANTINED))]
        credential = status.totals.credential.state
        table.add_row(
            status.name, credential, *map(_count, objects), *_books(status.totals.books), f"{status.lag_s:.0f} s"
        )
    _print(table)
    for status in report.connectors:
        for reason, count in status.totals.failed_reasons.items():
            talk.print(f"{status.name}: {count} objects: {reason}", markup=False, highlight=False, soft_wrap=True)
        for notice in status.totals.notices:
            line = f"{status.name}: {notice.kind} {notice.subject}: {notice.detail} (seen {notice.count} times)"
            talk.print(line, markup=False, highlight=False, soft_wrap=True)


def print_events(rows: Sequence[tuple[EventType, bool]]) -> None:
    """Print event types, each with its Segment name and whether it is included."""
    table = Table("event type", "Segment event", "included", box=None)
    for event_type, included in rows:
        name = event_type.segment_event or (f"the record's {event_type.event_name_field}" if event_type.mapped else "-")
        table.add_row(event_type.name, name, "yes" if included else "no")
    _print(table)


def print_demo(result: DemoResult) -> None:
    """Print what the demo delivered, by event type, and the sums beside what the collector holds."""
    table = _table("event type", *_BOOKS)
    for name, books in sorted(result.books.items()):
        table.add_row(name, *_books(books))
    total = sum(result.books.values(), Books())
    table.add_section()
    table.add_row(f"{len(result.books)} types", *_books(total))
    _print(table)
    arrived = sum(result.arrived.values())
    verdict = "the sums agree" if result.agrees else "THE SUMS DIFFER"
    print(f"{arrived} distinct messages arrived at the collector in {result.requests} requests: {verdict}")  # noqa: T201


@contextmanager
def progress(total_objects: Callable[[], int]) -> Iterator[Callable[[TransferReport], None]]:
    """Show the progress of a run: a bar in a terminal, a log line every few seconds elsewhere.

    Yields what is to be called after each group. `total_objects` is asked each time, since discovery finds more.
    """
    if not talk.is_terminal:
        yield _progress_lines(total_objects)
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=talk) as bar:
        task = bar.add_task("objects", total=None)

        def show(report: TransferReport) -> None:
            done = report.delivered + report.failed + report.quarantined
            bar.update(task, total=done + total_objects(), completed=done, description=f"{report.books.sent:,} events")

        yield show


def _progress_lines(total_objects: Callable[[], int]) -> Callable[[TransferReport], None]:
    shown_s = 0.0

    def show(report: TransferReport) -> None:
        nonlocal shown_s
        if report.seconds - shown_s >= PROGRESS_LINE_S:
            shown_s = report.seconds
            done = report.delivered + report.failed + report.quarantined
            log.info(
                "progress", objects=done, waiting=total_objects(), sent=report.books.sent, seconds=round(shown_s, 1)
            )

    return show


_BOOKS = ("read", "sent", "skipped", "deduplicated", "dead")


def _books(books: Books) -> list[str]:
    counts = (books.read, books.sent, books.skipped_anonymous, books.deduplicated, books.dead_lettered)
    return [_count(count) for count in counts]


def _count(number: int) -> str:
    return f"{number:,}"


def _table(first: str, *numbers: str) -> Table:
    table = Table(box=None)
    table.add_column(first, no_wrap=True)
    for name in numbers:
        table.add_column(name, justify="right")
    return table


def _print(table: Table) -> None:
    """Print on stdout, never cut to the width of a terminal that is not there."""
    Console(width=None if sys.stdout.isatty() else WIDTH_OFF_TERMINAL).print(table)
