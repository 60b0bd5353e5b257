"""`make bench-cost`: what grows with history, backlog or what was set aside, and what does not; into the docs.

Each row is measured on a ledger of its own, beside an empty or a small one; nothing is sent. Times are CPU time of this
process, the best of some runs: so the disk and what else the machine does have no part in them.
"""

import logging
import os
import sqlite3
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Annotated

import typer
import yaml
from rich.console import Console

from benchmarks.outcome import markdown, table
from benchmarks.report import conditions, measured_on, replace_part, when
from benchmarks.rig import ENVIRON
from currents_bridge.config import load
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
    Notice,
    NoticeKind,
    Quarantined,
    Selection,
    StoredDeadLetter,
    format_hour,
)
from currents_bridge.sources.coverage import hour_of
from currents_bridge.testing.currents_files import object_key
from currents_bridge.testing.embedded_s3 import REGION, S3Endpoint
from currents_bridge.wiring import open_bridge
from tests.s3_servers import weed_server

NAME = "acme"
CLICK = "users.messages.email.Click"
CLICKS = Selection(frozenset({CLICK}))
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
RUNS = 5
COLUMNS = ("what", "wanted", "small", "large", "reached")
NOISE_S = 0.002
PAGE_LETTERS = 500
LETTER_S = 0.001
MOST_REASONS = 1_000
AT_ONCE = GroupLimits(max_bytes=10**12, max_objects=20_000)


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much is large; small is a hundredth of it, or nothing."""

    hours: int = 3 * 365 * 24
    objects: int = 100_000
    quarantined: int = 200_000
    folded: int = 100_000
    letters: int = 100_000
    notices: int = 20_000
    polled: int = 3_600


FULL = Sizes()
QUICK = Sizes(hours=48, objects=1_000, quarantined=500, folded=1_000, letters=1_000, notices=500, polled=40)


@dataclass(frozen=True, slots=True)
class Row:
    """What one kind of growth costs, and whether that is as wanted."""

    what: str
    wanted: str
    small: str
    large: str
    reached: bool

    def cells(self) -> tuple[str, ...]:
        """Return the row of the table."""
        return self.what, self.wanted, self.small, self.large, "yes" if self.reached else "NO"


def as_new(what: str, small_s: float, large_s: float) -> Row:
    """Return a row of what should cost no more than in a new ledger: a tenth more, and what a timer is worth."""
    return Row(what, "as new, +10 %", ms(small_s), ms(large_s), large_s <= 1.1 * small_s + NOISE_S)


def at_most_s(what: str, wanted_s: float, small_s: float, large_s: float) -> Row:
    """Return a row of what may take so long."""
    return Row(what, f"at most {ms(wanted_s)}", ms(small_s), ms(large_s), large_s <= wanted_s)


def totals_after_years(sizes: Sizes) -> Row:
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

    what = f"what an idle poll asks of the ledger after {sizes.hours:,} hours of 55 types"
    return as_new(what, seconds(1), seconds(sizes.hours))


def many_quarantined(sizes: Sizes) -> Row:
    """The same, with objects in quarantine."""

    def seconds(count: int) -> float:
        with new_ledger() as (_, ledger):
            quarantine(ledger, count)
            return best(lambda: idle_reads(ledger))

    large = sizes.quarantined
    return as_new(f"the same with {large:,} quarantined objects, each for its own reason", seconds(1), seconds(large))


def many_reasons(sizes: Sizes) -> Row:
    """What a status shows of objects that were set aside, each for a reason of its own."""

    def reasons(count: int) -> int:
        with new_ledger() as (_, ledger):
            quarantine(ledger, count)
            return len(ledger.totals(NAME).failed_reasons)

    small, large = reasons(sizes.objects // 100), reasons(sizes.objects)
    what = f"reasons that `status` shows of {sizes.objects:,} different ones"
    return Row(what, f"at most {MOST_REASONS:,}", f"{small}", f"{large}", large <= MOST_REASONS)


def many_notices(sizes: Sizes) -> Row:
    """What a status reads where each of many folders is an unknown event type."""

    def seconds(count: int) -> float:
        with new_ledger() as (_, ledger):
            kind = NoticeKind.UNKNOWN_EVENT_TYPE
            ledger.note(NAME, [Notice(kind, f"users.new.Thing{number}") for number in range(count)], NOW)
            return best(lambda: ledger.totals(NAME))

    return at_most_s(f"`totals` with {sizes.notices:,} notices", 0.01, seconds(1), seconds(sizes.notices))


def claims(sizes: Sizes) -> Row:
    """One group of 500 out of a backlog of one hour and type."""

    def seconds(count: int) -> float:
        with new_ledger() as (_, ledger):
            admit(ledger, count)

            def claim() -> None:
                ledger.release([item.id for item in ledger.claim(NAME, CLICKS, GroupLimits(max_objects=1), NOW)])

            return best(claim)

    what = f"claim and release with {sizes.objects:,} pending in one hour and type"
    return at_most_s(what, 0.005, seconds(sizes.objects // 100), seconds(sizes.objects))


def known_objects(sizes: Sizes) -> Row:
    """What the ledger adds to the first poll in which all objects of the hot window are known."""

    def seconds(count: int) -> float:
        with new_ledger() as (_, ledger):
            pages = admit(ledger, count)
            began = time.process_time()
            for page in pages:
                ledger.admit(NAME, page, NOW)
            return time.process_time() - began

    what = f"{sizes.objects:,} known objects in the hot window, looked up for the first time"
    return at_most_s(what, 2, seconds(sizes.objects // 100), seconds(sizes.objects))


def folded_objects(sizes: Sizes) -> Row:
    """What the ledger adds to an audit of one hour and type."""

    def microseconds(count: int) -> float:
        with new_ledger() as (_, ledger):
            pages = admit(ledger, count)
            while group := ledger.claim(NAME, CLICKS, AT_ONCE, NOW):
                ledger.settle([Delivered(item.id, Books(read=1, sent=1)) for item in group], NOW)
            ledger.fold(NAME, NOW + timedelta(hours=1), NOW + timedelta(days=1))
            return 1e6 * best(lambda: [ledger.recorded(NAME, page) for page in pages]) / count

    small, large = microseconds(sizes.folded // 10), microseconds(sizes.folded)
    what = f"comparing each of {sizes.folded:,} folded objects of one hour"
    return Row(what, "linear: at most twice", us(small), us(large), large <= 2 * small)


def dead_letters(sizes: Sizes) -> Row:
    """Reading and recording replays of half of the dead letters, page by page, and purging the others."""

    def cost(count: int) -> tuple[float, float, float]:
        with new_ledger() as (_, ledger):
            admit(ledger, 1)
            (item,) = ledger.claim(NAME, CLICKS, AT_ONCE, NOW)
            letters = [DeadLetter(row, f"m-{row}", "too large", "{}" * 200) for row in range(count)]
            ledger.settle([Delivered(item.id, Books(read=count, dead_lettered=count), letters)], NOW)
            del letters
            began = time.process_time()
            for page in islice(letter_pages(ledger), count // 2 // PAGE_LETTERS):
                ledger.replayed(dict.fromkeys((stored.id for stored in page), None), NOW)
            replayed_s = (time.process_time() - began) / (count // 2)
            tracemalloc.start()
            for page in letter_pages(ledger):
                del page
            began = time.process_time()
            purged = ledger.purge(LetterFilter(NAME))
            purged_s = (time.process_time() - began) / purged
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            return replayed_s, purged_s, peak / 1e6

    small, large = map(cost, (sizes.letters // 10, sizes.letters))
    shown = [f"{1e3 * sent:.2f} ms, {1e3 * purged:.2f} ms, {peak:.1f} MB" for sent, purged, peak in (small, large)]
    what = f"each of {sizes.letters:,} dead letters replayed or purged, and the memory of it"
    reached = max(large[:2]) <= LETTER_S and large[2] <= 2 * small[2] + 1
    return Row(what, "1 ms each, memory bounded", shown[0], shown[1], reached)


def idle_poll(sizes: Sizes) -> Row:
    """A whole poll of the connector that finds nothing new, with a real S3 server beside it: CPU of this process."""
    os.environ.update(ENVIRON)
    with tempfile.TemporaryDirectory() as name, weed_server(Path(name)) as s3:
        small, large = (_poll_s(s3, Path(name), count) for count in (10, sizes.polled))
    what = f"an idle poll with {sizes.polled:,} objects in the window, 4 types (small: 10)"
    return at_most_s(what, 0.05, small, large)


def _poll_s(s3: S3Endpoint, folder: Path, count: int) -> float:
    bucket, now = f"polled-{count}", datetime.now(UTC)
    s3.make_bucket(bucket)
    client, types = s3.client(), supported_types()[:4]
    for number in range(count):
        hour = hour_of(now) - timedelta(hours=number // 4 % 6)
        client.put_object(Bucket=bucket, Key=object_key(types[number % 4], hour, offset=number), Body=b"")
    settings = {
        "ledger": {"url": f"sqlite:///{folder / bucket}.sqlite3"},
        "connectors": [
            {
                "name": NAME,
                "source": {"bucket": bucket, "region": REGION, "endpoint_url": s3.url},
                "destination": {"write_key": "env:BENCHMARK_WRITE_KEY", "endpoint_url": "http://127.0.0.1:9/v1/batch"},
            }
        ],
    }
    config = folder / f"{bucket}.yaml"
    config.write_text(yaml.safe_dump(settings), encoding="utf-8")
    with open_bridge(load(config, os.environ), os.environ) as bridge:
        (connector,) = bridge.connectors
        for _ in range(3):  # the first one sets the empty files aside
            connector.poll()
        return best(connector.poll)


ROWS: Sequence[Callable[[Sizes], Row]] = (
    totals_after_years,
    many_quarantined,
    claims,
    known_objects,
    idle_poll,
    dead_letters,
    folded_objects,
    many_notices,
    many_reasons,
)


def main(*, quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes; no docs")] = False) -> None:
    """Measure, and write the table into docs/performance.md; ends with 1 where a row is not as wanted."""
    configure_logs(json=True, level=logging.CRITICAL, stream=sys.stderr)
    about = conditions("none")
    measured_rows = [row(QUICK if quick else FULL) for row in ROWS]
    rows = [row.cells() for row in measured_rows]
    Console(width=160).print(table(COLUMNS, rows))
    if not quick:
        measured = f"{measured_on([about])}\n\n`make bench-cost` ({when(about)})."
        replace_part("cost", f"{measured}\n\n{markdown(COLUMNS, rows)}")
    raise typer.Exit(0 if all(row.reached for row in measured_rows) else 1)


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


def quarantine(ledger: SqlLedger, count: int) -> None:
    """Set objects of one hour and type aside, each for a reason that names its key."""
    admit(ledger, count)
    while group := ledger.claim(NAME, CLICKS, AT_ONCE, NOW):
        ledger.settle([Quarantined(item.id, f"{item.object.key}: cut at {item.id}") for item in group], NOW)


def letter_pages(ledger: SqlLedger) -> Iterator[list[StoredDeadLetter]]:
    """Yield all dead letters, as a replay reads them."""
    after = 0
    while page := ledger.dead_letters(LetterFilter(NAME), PAGE_LETTERS, after):
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
