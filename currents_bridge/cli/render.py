"""What people see: tables and progress, made with Rich; data for programs is plain JSON on stdout."""

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from itertools import groupby
from typing import TYPE_CHECKING

from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from currents_bridge.alerts.credential_words import unproven
from currents_bridge.alerts.engine import verdict_of
from currents_bridge.cli import streams
from currents_bridge.cli.tables import fitting, name_column, number_column, table_of, text_column
from currents_bridge.errors import Side
from currents_bridge.logs import get_logger
from currents_bridge.model import Books, ObjectState, QuarantinedObject, Recorded, StoredDeadLetter, format_hour
from currents_bridge.phrases import count, when

if TYPE_CHECKING:  # the job that ran is there already; each command is to load its own only
    from currents_bridge.delivery.workers import TransferReport
    from currents_bridge.demo.demo import DemoResult
    from currents_bridge.demo.scenario import ScenarioResult
    from currents_bridge.events.catalogue import EventType
    from currents_bridge.operations.backfill import Plan
    from currents_bridge.operations.check import Verdict
    from currents_bridge.operations.reconcile import Reconciliation
    from currents_bridge.operations.status import ConnectorStatus, StatusReport

PROGRESS_LINE_S = 5.0
SHOWN_OF_A_KIND = 20  # objects that a proof names; JSON names more
WIDTH_OFF_TERMINAL = 10_000  # a row is a line, and a key can be copied

log = get_logger()
talk = Console(stderr=True, markup=False, emoji=False, highlight=False)


def print_json(document: object) -> None:
    """Print one JSON document on stdout."""
    sys.stdout.buffer.write(streams.json_document(document))
    sys.stdout.buffer.flush()


def print_outcome(document: Mapping[str, object], code: int, error: str, reasons: Mapping[str, int]) -> None:
    """Print a JSON document with what failed where `code` is not 0, and each reason with how often it holds."""
    print_json({**document, "error": error if code else None, "reasons": dict(reasons)})


def print_lines(lines: Iterable[str]) -> None:
    """Print lines of data on stdout, in UTF-8 whatever a terminal shows, until nobody reads them any more."""
    for line in lines:
        sys.stdout.buffer.write(line.encode() + b"\n")
        if streams.is_unread():
            return
    sys.stdout.buffer.flush()


def print_reports(reports: "Mapping[str, TransferReport]") -> None:
    """Print what a run did, a row for each connector, and why objects wait or were set aside."""
    table = _table("connector", "discovered", "delivered", "failed", "quarantined", *_BOOKS, "batches", "seconds")
    for name, r in reports.items():
        objects = (r.discovered, r.delivered, r.failed, r.quarantined)
        table.add_row(name, *map(_count, objects), *_books(r.books), _count(r.batches), f"{r.seconds:.1f}")
    _print(table)
    for name, r in reports.items():
        for reason, number in r.reasons.most_common(10):
            _say(f"{name}: {count(number, 'object')}: {reason}")
        if r.denied_folders:
            _say(f"{name}: {count(r.denied_folders, 'folder')} may not be listed; `status` names them")
        if r.findings:
            _say(f"{name}: the audit found {verdict_of(r.findings)}; `reconcile` names them")


def say_reasons(reasons: Mapping[str, int], what: str) -> None:
    """Say on stderr why, the most frequent reason first."""
    for reason, number in sorted(reasons.items(), key=lambda item: -item[1])[:SHOWN_OF_A_KIND]:
        _say(f"{number:,} {what}: {reason}")


def print_plans(plans: "Mapping[str, Plan]") -> None:
    """Print what a backfill would deliver."""
    table = _table("connector", "objects", "bytes", "requests (estimated)")
    for name, plan in plans.items():
        table.add_row(name, _count(plan.objects), _count(plan.object_bytes), _count(plan.requests))
    _print(table)


def print_verdicts(verdicts: "Iterable[Verdict]") -> None:
    """Print a check, with a remedy on each line that is not well."""
    table = table_of(name_column("what"), name_column("result"), text_column("finding"), text_column("what to do"))
    for verdict in verdicts:
        table.add_row(verdict.subject, "ok" if verdict.ok else "NOT OK", verdict.detail, verdict.remedy)
    _print(table)


def print_status(report: "StatusReport") -> None:
    """Print what the ledger knows."""
    table = _table("connector", "credential", "pending", "delivered", "failed", "quarantined", *_BOOKS, "lag")
    for status in report.connectors:
        states = status.totals.objects
        waiting = states[ObjectState.PENDING] + states[ObjectState.CLAIMED]
        objects = [waiting, *(states[s] for s in (ObjectState.DELIVERED, ObjectState.FAILED, ObjectState.QUARANTINED))]
        table.add_row(
            status.name,
            str(status.worst_credential.state),
            *map(_count, objects),
            *_books(status.totals.books),
            f"{status.lag_s:.0f} s",
        )
    _print(table)
    for status in report.connectors:
        for side in Side:
            _say_credential(status, side)
        _say_proof(status)
        held = status.totals.waiting
        if held.objects:
            events = f", {count(held.events, 'event')} of these to be sent again" if held.events else ""
            verb = "waits" if held.objects == 1 else "wait"
            _say(f"{status.name}: {count(held.objects, 'object')} {verb}, {decimal(held.size_bytes)}{events}")
        if status.deleted_at:
            verb = "deletes" if status.now < status.deleted_at else "was to delete"
            _say(f"{status.name}: the bucket {verb} the oldest of them on {when(status.deleted_at)}")
        _say_looks(status)
        for reason, number in status.totals.failed_reasons.items():
            _say(f"{status.name}: {count(number, 'object')}: {reason}")
        for job in status.failing_jobs:
            _say(f"{status.name}: the job {job.job} fails since {when(job.since)}, {job.failures} times: {job.error}")
        for notice in status.notices:
            _say(f"{status.name}: {notice.kind} {notice.subject}: {notice.detail} (seen {notice.count} times)")


def _say_looks(status: "ConnectorStatus") -> None:
    progress = status.totals.progress
    if progress.looked_at is None:
        return
    complete = f"not complete: {progress.poll_error}" if progress.poll_error else "complete"
    _say(f"{status.name}: last poll {when(progress.looked_at)}, {complete}")
    if progress.audited_at and status.audit_verdict:
        hint = "; `reconcile` names them" if progress.findings else ""
        _say(f"{status.name}: last audit {when(progress.audited_at)}: {status.audit_verdict}{hint}")


def _say_credential(status: "ConnectorStatus", side: Side) -> None:
    if incident := status.incident(side):
        for line in incident.story().splitlines():
            _say(f"{status.name}: {line}")
        _say(f"{status.name}: to do: {incident.todo}")


def _say_proof(status: "ConnectorStatus") -> None:
    """Say what a dead write key would cost now."""
    if proof := status.credential(Side.DESTINATION).proof():
        events = unproven(status.totals.unproven_events)
        _say(f"{status.name}: write key: {proof}" + (f"; {events}" if events else ""))


def print_reconciliations(results: "Mapping[str, Reconciliation]", *, all_hours: bool) -> None:
    """Print a proof by event type, with the hours that are not well or all, then what should not be so."""
    kinds = [kind for kind in Recorded if any(result.audit.objects[kind] for result in results.values())]
    table = _table("connector", "event type", "hour", *map(str, kinds), "deleted since", *_BOOKS, "well")

    def add(names: Sequence[str], objects: Mapping[Recorded, int], deleted: int, books: Books, *, well: bool) -> None:
        numbers = (*(objects.get(kind, 0) for kind in kinds), deleted)
        table.add_row(*names, *map(_count, numbers), *_books(books), "yes" if well else "NO")

    for name, result in results.items():
        for of_type in result.audit.types:
            if of_type.hours:
                well = all(hour.well for hour in of_type.hours)
                add((name, of_type.event_type, "all"), of_type.objects, of_type.deleted, of_type.books, well=well)
            for hour in of_type.hours:
                if all_hours or not hour.well:
                    names = (name, of_type.event_type, format_hour(hour.books.hour))
                    add(names, hour.objects, hour.deleted, hour.books.books, well=hour.well)
        deleted = sum(of_type.deleted for of_type in result.audit.types)
        add((name, "all", ""), result.audit.objects, deleted, result.audit.books, well=result.exit_code == 0)
    _print(table)
    for name, result in results.items():
        _say_differences(name, result)


def _say_differences(name: str, result: "Reconciliation") -> None:
    objects = result.audit.objects
    _say(f"{name}: objects: " + (", ".join(f"{count:,} {kind}" for kind, count in objects.items() if count) or "none"))
    for kind, differences in groupby(result.differences, key=lambda difference: difference.kind):
        named = list(differences)
        for difference in named[:SHOWN_OF_A_KIND]:
            _say(f"{name}: {difference.subject} {difference.detail}")
        if (more := result.counted(kind) - SHOWN_OF_A_KIND) > 0:
            _say(f"{name}: and {more:,} more: {kind}")
    if result.audit.excluded:
        _say(f"{name}: left out by events.include and events.exclude: {', '.join(sorted(result.audit.excluded))}")


def print_letters(letters: Sequence[StoredDeadLetter]) -> None:
    """Print dead letters, a row each."""
    names = map(name_column, ("id", "connector", "event type", "row", "message id", "tries", "since"))
    table = table_of(*names, text_column("reason"))
    for stored in letters:
        letter, since = stored.letter, f"{stored.created_at:%Y-%m-%d %H:%M}"
        table.add_row(
            *map(str, (stored.id, stored.connector, stored.event_type, letter.row, letter.message_id)),
            *(str(stored.attempts), since, Text(letter.reason)),
        )
    _print(table)


def letter_as_json(stored: StoredDeadLetter) -> dict[str, object]:
    """Return a dead letter for a JSON document; the event and the message are text, as they are kept."""
    letter = stored.letter
    return {
        "id": stored.id,
        "connector": stored.connector,
        "object_key": stored.object_key,
        "row": letter.row,
        "event_type": stored.event_type,
        "message_id": letter.message_id,
        "reason": letter.reason,
        "attempts": stored.attempts,
        "created_at": stored.created_at.isoformat(),
        "event": letter.event or None,
        "message": letter.message or None,
    }


def quarantined_as_json(item: QuarantinedObject) -> dict[str, object]:
    """Return a quarantined object for a JSON document."""
    return {
        "id": item.id,
        "connector": item.connector,
        "key": item.object.key,
        "etag": item.object.etag,
        "reason": item.reason,
        "events": asdict(item.books),
        "settled_at": item.settled_at.isoformat(),
    }


def print_quarantined(objects: Sequence[QuarantinedObject]) -> None:
    """Print quarantined objects, a row each."""
    table = table_of(
        *map(name_column, ("id", "connector", "since")),
        number_column("delivered of it"),
        *map(text_column, ("reason", "key")),
    )
    for item in objects:
        since = f"{item.settled_at:%Y-%m-%d %H:%M}"
        table.add_row(
            str(item.id), item.connector, since, _count(item.books.sent), Text(item.reason), Text(item.object.key)
        )
    _print(table)


def print_events(rows: "Sequence[tuple[EventType, bool]]") -> None:
    """Print event types, each with its Segment name and whether it is included."""
    table = table_of(*map(name_column, ("event type", "Segment event", "included")))
    for event_type, included in rows:
        name = event_type.segment_event or (f"the record's {event_type.event_name_field}" if event_type.mapped else "-")
        table.add_row(event_type.name, name, "yes" if included else "no")
    _print(table)


def print_demo(result: "DemoResult") -> None:
    """Print what the demo delivered, by event type, and the sums beside what the collector holds."""
    table = _table("event type", *_BOOKS)
    for name, books in sorted(result.books.items()):
        table.add_row(name, *_books(books))
    total = sum(result.books.values(), Books())
    table.add_section()
    table.add_row(f"{len(result.books)} types", *_books(total))
    _print(table)
    if result.faults:
        met = ", ".join(f"{count} {fault}" for fault, count in sorted(result.faults.items()))
        print(f"faults on the way: {met}; {result.repeated} messages arrived twice, with the same id")
    arrived = sum(result.arrived.values())
    verdict = "the sums agree" if result.agrees else "THE SUMS DIFFER"
    print(f"{arrived} distinct messages arrived at the collector in {result.requests} requests: {verdict}")


def print_scenario(result: "ScenarioResult") -> None:
    """Print how a scenario ended."""
    verdict = "not one is missing" if result.agrees else f"{result.missing:,} ARE MISSING"
    print(
        f"{result.owed:,} events were owed, {result.arrived:,} arrived at the living source: {verdict}; "
        f"Segment had dropped {result.dropped:,} behind its 200s"
    )


@contextmanager
def progress(waiting_objects: Callable[[], int]) -> "Iterator[Callable[[TransferReport], None]]":
    """Show the progress of a run: a bar in a terminal, a log line every few seconds elsewhere.

    Yields what is to be called after each group. `waiting_objects` returns how many objects are still to come; it is
    asked every few seconds at most, since it counts them.
    """
    if not talk.is_terminal:
        yield _progress_lines(waiting_objects)
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
        counted_s = -math.inf

        def show(report: "TransferReport") -> None:
            nonlocal counted_s
            done = _done(report)
            bar.update(task, completed=done, description=f"{report.books.sent:,} events")
            if report.seconds - counted_s >= PROGRESS_LINE_S:
                counted_s = report.seconds
                bar.update(task, total=done + waiting_objects())

        yield show


def _progress_lines(waiting_objects: Callable[[], int]) -> "Callable[[TransferReport], None]":
    shown_s = 0.0

    def show(report: "TransferReport") -> None:
        nonlocal shown_s
        if report.seconds - shown_s >= PROGRESS_LINE_S:
            shown_s = report.seconds
            log.info(
                "progress",
                objects=_done(report),
                waiting=waiting_objects(),
                sent=report.books.sent,
                seconds=round(shown_s, 1),
            )

    return show


def _done(report: "TransferReport") -> int:
    return report.delivered + report.failed + report.quarantined


_BOOKS = ("read", "sent", "skipped", "deduplicated", "dead")


def _books(books: Books) -> list[str]:
    counts = (books.read, books.sent, books.skipped_anonymous, books.deduplicated, books.dead_lettered)
    return [_count(count) for count in counts]


def _count(number: int) -> str:
    return f"{number:,}"


def _table(first: str, *numbers: str) -> Table:
    return table_of(name_column(first), *map(number_column, numbers))


def _print(table: Table) -> None:
    """Print on stdout, never cut to the width of a terminal that is not there; brackets in a text are no markup."""
    width = None if sys.stdout.isatty() else WIDTH_OFF_TERMINAL
    screen = Console(width=width, markup=False, emoji=False, highlight=False)
    screen.print(fitting(table, screen.width))


def _say(line: str) -> None:
    """Print a line on stderr, which only a terminal may wrap."""
    talk.print(line, soft_wrap=True)
