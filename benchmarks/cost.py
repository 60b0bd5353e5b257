"""`make bench-cost`: what grows with history, backlog or what was set aside, and what does not; into the docs.

Each row is measured on a ledger of its own, beside an empty or a small one; nothing is sent. Times are CPU time of this
process, the best of some runs: so the disk and what else the machine does have no part in them.
"""

import logging
import sqlite3
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.outcome import markdown, table
from benchmarks.report import conditions, measured_on, replace_part, when
from currents_bridge.events.catalogue import supported_types
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.logs import configure_logs
from currents_bridge.model import (
    Books,
    CurrentsObject,
    DeadLetter,
    Delivered,
    GroupLimits,
    LetterFilter,
    Quarantined,
    Selection,
    StoredDeadLetter,
    format_hour,
)

NAME = "acme"
CLICK = "users.messages.email.Click"
CLICKS = Selection(frozenset({CLICK}))
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
RUNS = 5
COLUMNS = ("what", "wanted", "small", "large")
AT_ONCE = GroupLimits(max_bytes=10**12, max_objects=20_000)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is large; small is a hundredth of it, or nothing."""

    hours: int = 365 * 24
    objects: int = 100_000
    quarantined: int = 20_000
    folded: int = 50_000
    letters: int = 20_000


FULL, QUICK = Sizes(), Sizes(hours=48, objects=1_000, quarantined=500, folded=1_000, letters=1_000)


def totals_after_years(sizes: Sizes) -> tuple[str, ...]:
    """What each poll and each status reads, with 55 types in every hour."""

    def seconds(hours: int) -> float:
        with new_ledger() as (path, ledger):
            with closing(sqlite3.connect(path)) as connection, connection:
                connection.executemany(
                    "INSERT INTO hours (connector, hour, event_type, objects, read, sent) VALUES (?, ?, ?, 9, 90, 90)",
                    (
                        (NAME, format_hour(NOW - timedelta(hours=number)), event_type)
                        for number in range(hours, 0, -1)
                        for event_type in supported_types()
                    ),
                )
            return best(lambda: idle_reads(ledger))

    return (
        "an idle poll after a year of hours, 55 types",
        "as new",
        ms(seconds(1)),
        ms(seconds(sizes.hours)),
    )


def many_quarantined(sizes: Sizes) -> tuple[str, ...]:
    """The same, with objects in quarantine."""

    def seconds(count: int) -> float:
        with new_ledger() as (_, ledger):
            admit(ledger, count)
            while group := ledger.claim(NAME, CLICKS, AT_ONCE, NOW):
                ledger.settle([Quarantined(item.id, f"{item.object.key}: cut at {item.id}") for item in group], NOW)
            return best(lambda: idle_reads(ledger))

    large = sizes.quarantined
    return (f"the same with {large:,} quarantined objects", "as new", ms(seconds(1)), ms(seconds(large)))


def claims(sizes: Sizes) -> tuple[str, ...]:
    """One group of 500 out of a backlog of one hour and type."""

    def seconds(count: int) -> float:
        with new_ledger() as (_, ledger):
            admit(ledger, count)

            def claim() -> None:
                ledger.release([item.id for item in ledger.claim(NAME, CLICKS, GroupLimits(max_objects=1), NOW)])

            return best(claim)

    return (
        f"claim and release with {sizes.objects:,} pending in one hour and type",
        "5 ms",
        ms(seconds(sizes.objects // 100)),
        ms(seconds(sizes.objects)),
    )


def known_objects(sizes: Sizes) -> tuple[str, ...]:
    """What the ledger adds to a poll in which all objects of the hot window are known."""

    def seconds(count: int) -> float:
        with new_ledger() as (_, ledger):
            pages = admit(ledger, count)
            return best(lambda: [ledger.admit(NAME, page, NOW) for page in pages])

    large = f"{seconds(sizes.objects):.2f} s"
    return (f"{sizes.objects:,} known objects in the hot window", "2 s", ms(seconds(sizes.objects // 100)), large)


def folded_objects(sizes: Sizes) -> tuple[str, ...]:
    """What the ledger adds to an audit of one hour and type."""

    def microseconds(count: int) -> float:
        with new_ledger() as (_, ledger):
            pages = admit(ledger, count)
            while group := ledger.claim(NAME, CLICKS, AT_ONCE, NOW):
                ledger.settle([Delivered(item.id, Books(read=1, sent=1)) for item in group], NOW)
            ledger.fold(NAME, NOW + timedelta(hours=1), NOW + timedelta(days=1))
            return 1e6 * best(lambda: [ledger.recorded(NAME, page) for page in pages]) / count

    small, large = microseconds(sizes.folded // 10), microseconds(sizes.folded)
    return (f"comparing each of {sizes.folded:,} folded objects of one hour", "linear", us(small), us(large))


def dead_letters(sizes: Sizes) -> tuple[str, ...]:
    """Reading and recording replays of dead letters, page by page."""

    def cost(count: int) -> tuple[float, float]:
        with new_ledger() as (_, ledger):
            admit(ledger, 1)
            (item,) = ledger.claim(NAME, CLICKS, AT_ONCE, NOW)
            letters = [DeadLetter(row, f"m-{row}", "too large", "{}" * 200) for row in range(count)]
            ledger.settle([Delivered(item.id, Books(read=count, dead_lettered=count), letters)], NOW)
            del letters
            tracemalloc.start()
            for page in letter_pages(ledger):
                del page
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            began = time.process_time()
            for page in letter_pages(ledger):
                ledger.replayed(dict.fromkeys((stored.id for stored in page), None), NOW)
            return (time.process_time() - began) / count, peak / 1e6

    costs = map(cost, (sizes.letters // 10, sizes.letters))
    shown = [f"{1e3 * seconds:.2f} ms, {peak:.1f} MB" for seconds, peak in costs]
    return (f"each of {sizes.letters:,} dead letters replayed, and the memory of it", "1 ms, bounded", *shown)


ROWS: Sequence[Callable[[Sizes], tuple[str, ...]]] = (
    totals_after_years,
    many_quarantined,
    claims,
    known_objects,
    folded_objects,
    dead_letters,
)


def main(*, quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes; no docs")] = False) -> None:
    """Measure, and write the table into docs/performance.md."""
    configure_logs(json=True, level=logging.WARNING, stream=sys.stderr)
    about = conditions("none")
    rows = [row(QUICK if quick else FULL) for row in ROWS]
    Console().print(table(COLUMNS, rows))
    if not quick:
        measured = f"{measured_on([about])}\n\n`make bench-cost` ({when(about)})."
        replace_part("cost", f"{measured}\n\n{markdown(COLUMNS, rows)}")


def idle_reads(ledger: SqlLedger) -> None:
    """Ask what a poll without anything new, its alerts and a status ask."""
    ledger.totals(NAME)
    ledger.undelivered(NAME)
    ledger.reclaim(NAME, NOW)
    ledger.claim(NAME, CLICKS, AT_ONCE, NOW)
    ledger.newest_hour(NAME, frozenset(supported_types()), NOW)


@contextmanager
def new_ledger() -> Iterator[tuple[Path, SqlLedger]]:
    """Open a new ledger."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite3"
        ledger = SqlLedger(f"sqlite:///{path}", now=NOW)
        try:
            yield path, ledger
        finally:
            ledger.close()


def admit(ledger: SqlLedger, count: int) -> list[list[CurrentsObject]]:
    """Record objects of one hour and type; returns them by pages, as a LIST has them."""
    listed = [CurrentsObject(f"d/{CLICK}/{n:07}.avro", "e", 100, NOW, CLICK, NOW) for n in range(count)]
    pages = [listed[start : start + 1_000] for start in range(0, count, 1_000)]
    for page in pages:
        ledger.admit(NAME, page, NOW)
    return pages


def letter_pages(ledger: SqlLedger) -> Iterator[list[StoredDeadLetter]]:
    """Yield all dead letters, as a replay reads them."""
    after = 0
    while page := ledger.dead_letters(LetterFilter(NAME), 500, after):
        yield page
        after = page[-1].id


def best(work: Callable[[], object]) -> float:
    """Return the seconds of the quickest run."""

    def timed() -> float:
        began = time.process_time()
        work()
        return time.process_time() - began

    return min(timed() for _ in range(RUNS))


def ms(seconds: float) -> str:
    """Return milliseconds as text."""
    return f"{1e3 * seconds:.1f} ms"


def us(microseconds: float) -> str:
    """Return microseconds as text."""
    return f"{microseconds:.0f} us"


if __name__ == "__main__":
    typer.run(main)
