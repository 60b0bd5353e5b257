"""`make bench-curves`: how throughput changes as one thing grows and all else stays; plots into docs/plots.

History and ledger rows are simulated: the ledger holds that many delivered objects, recorded by its own methods and
copied (see ledgers.py), while the bucket holds only what is delivered in the run. A bucket with a long history is
listed from the hot hours on, which `make bench CASE=polling` measures with real objects.
"""

import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.files import BenchmarkFile, plan_files, total_events
from benchmarks.ledgers import fill
from benchmarks.outcome import markdown, number, table
from benchmarks.plots import Curve, Point, plot
from benchmarks.report import RESULTS, ROOT, conditions, measured_on, replace_part, when, write_result
from benchmarks.rig import CONNECTOR, START_ALLOWANCE_S, Rig, running_daemon, running_rig
from benchmarks.sinks import SinkKind, python_sink
from currents_bridge.events.catalogue import supported_types
from currents_bridge.logs import configure_logs

PLOTS = ROOT / "docs" / "plots"
BUCKET = "curve"  # of the curves that deliver the same at each point


@dataclass(frozen=True, slots=True)
class Sizes:
    """The points of each curve; the defaults are those of `make bench-curves`."""

    rounds: int = 3  # of each point, whose median counts
    events: tuple[int, ...] = (15_000, 60_000, 240_000, 630_000, 1_260_000, 2_520_000, 5_040_000)
    objects: tuple[int, ...] = (300, 1_000, 3_000, 10_000)
    history: tuple[int, ...] = (0, 100_000, 1_000_000)
    folded: tuple[int, ...] = (0, 1_000_000, 10_000_000)
    connectors: tuple[int, ...] = (1, 4, 16)
    latency_ms: tuple[int, ...] = (0, 50, 200)
    delivered_events: int = 450_000  # at each point but those of the first two curves
    history_days: int = 90


QUICK = Sizes(
    rounds=1,
    events=(15_000, 30_000),
    objects=(5, 10),
    history=(0, 1_000),
    folded=(0, 2_000),
    connectors=(1, 2),
    latency_ms=(0, 50),
    delivered_events=3_000,
    history_days=12,
)


def events(rig: Rig, sizes: Sizes) -> Curve:
    """More and more events in objects of 15,000."""
    points = list(_growing(rig, "curve-events", sizes.events, 15_000, sizes.rounds))
    return Curve("Events, in objects of 15,000", "events in the bucket", points, of_size=True)


def objects(rig: Rig, sizes: Sizes) -> Curve:
    """More and more objects of one size."""
    each = 100
    runs = _growing(rig, "curve-objects", [each * count for count in sizes.objects], each, sizes.rounds)
    points = [replace(point, x=point.x // each) for point in runs]
    return Curve(f"Objects of {each} events", "objects in the bucket", points, of_size=True)


def history(rig: Rig, sizes: Sizes) -> Curve:
    """The ledger of a daemon that has been at work for months: 8 days as rows, older ones folded."""
    points = list(_with_history(rig, sizes, sizes.history, unfolded_days=8))
    return Curve("Objects delivered before, those of 8 days not folded", "objects in the ledger", points)


def folded(rig: Rig, sizes: Sizes) -> Curve:
    """A ledger with a very long history, folded."""
    points = list(_with_history(rig, sizes, sizes.folded, unfolded_days=0))
    return Curve("Objects delivered before, all folded", "objects in the ledger", points)


def connectors(rig: Rig, sizes: Sizes) -> Curve:
    """The daemon's first poll, its event types shared among more and more connectors."""
    types = supported_types()[: max(sizes.connectors)]
    files = plan_files(sizes.delivered_events, -(-sizes.delivered_events // (6 * len(types))), event_types=types)
    rig.upload(files, "curve-connectors")
    points = [_median([_daemon_point(rig, count, types) for _ in range(sizes.rounds)]) for count in sizes.connectors]
    return Curve(f"Connectors that share {len(types)} event types", "connectors", points)


def latency(rig: Rig, sizes: Sizes) -> Curve:
    """A sink that answers later and later."""
    files = _files(rig, sizes)
    points = []
    for milliseconds in sizes.latency_ms:
        with python_sink(rig.folder, delay_s=milliseconds / 1000) as sink:
            runs = [rig.once(BUCKET, files, sink=sink) for _ in range(sizes.rounds)]
        points.append(_median([Point(milliseconds, run.sent, run.seconds) for run in runs]))
    return Curve("Latency of the sink", "ms until the sink answers", points)


CURVES: dict[str, Callable[[Rig, Sizes], Curve]] = {
    curve.__name__: curve for curve in (events, objects, history, folded, connectors, latency)
}


def main(
    *,
    curve: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(CURVES)}; repeatable [default: all]")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, into build/curves-quick; no docs")] = False,
) -> None:
    """Measure, plot, and write the tables into docs/performance.md."""
    names = curve or list(CURVES)
    if unknown := set(names) - CURVES.keys():
        raise typer.BadParameter(f"there is no curve {', '.join(sorted(unknown))}", param_hint="--curve")
    configure_logs(json=True, level=logging.WARNING, stream=sys.stderr)
    quick_folder = ROOT / "build" / "curves-quick"
    sizes, plots, results = (QUICK, quick_folder, quick_folder) if quick else (Sizes(), PLOTS, RESULTS)
    console = Console()
    with running_rig(SinkKind.AUTO) as rig:
        for name in names:
            about = conditions(rig.sink_kind)
            measured = CURVES[name](rig, sizes)
            console.print(f"\n[bold]{measured.title}[/bold]", table(_columns(measured), _rows(measured)))
            plots.mkdir(parents=True, exist_ok=True)
            plot(measured, plots / f"{name}.svg")
            write_result(results, f"curve-{name}", about | {"curve": asdict(measured)})
    if not quick:
        replace_part("curves", "\n\n".join(_page()))


def _growing(rig: Rig, bucket: str, sizes: Sequence[int], events_per_object: int, rounds: int) -> Iterator[Point]:
    """Let a bucket grow to each of the ascending sizes, in events, and deliver it with a new ledger each time."""
    files = plan_files(sizes[-1], events_per_object)
    held = 0
    for size in sizes:
        count = -(-size // events_per_object)
        rig.upload(files[held:count], bucket)
        held = count
        runs = [rig.once(bucket, files[:count]) for _ in range(rounds)]
        yield _median([Point(total_events(files[:count]), run.sent, run.seconds) for run in runs])


def _with_history(rig: Rig, sizes: Sizes, histories: Sequence[int], *, unfolded_days: int) -> Iterator[Point]:
    """Yield a point for each number of objects in the ledger, which it may exceed a little."""
    files = _files(rig, sizes)
    for objects_before in histories:
        with tempfile.TemporaryDirectory(dir=rig.folder) as name:
            ledger, held = Path(name) / "history.sqlite3", 0
            if objects_before:
                held = fill(
                    ledger,
                    CONNECTOR,
                    supported_types(),
                    count=objects_before,
                    now=datetime.now(UTC),
                    days=sizes.history_days,
                    unfolded_days=unfolded_days,
                )
            runs = [rig.once(BUCKET, files, history=ledger if held else None) for _ in range(sizes.rounds)]
        yield _median([Point(held, run.sent, run.seconds) for run in runs])


def _daemon_point(rig: Rig, count: int, types: Sequence[str]) -> Point:
    """Run the daemon until each connector has finished its first poll."""
    with tempfile.TemporaryDirectory(dir=rig.folder) as name:
        ledger = Path(name) / "ledger.sqlite3"
        config = rig.config(
            Path(name), ledger, "curve-connectors", rig.sink.url, poll="1h", event_types=types, connectors=count
        )
        with running_daemon(config) as daemon:
            polls = daemon.finished("poll_finished", count, 5 * START_ALLOWANCE_S)
            seconds = time.monotonic() - daemon.began_s
    return Point(count, sum(poll["sent"] for poll in polls), seconds)


def _files(rig: Rig, sizes: Sizes) -> Sequence[BenchmarkFile]:
    """Return what is delivered at each point of most curves."""
    files = plan_files(sizes.delivered_events, 15_000)
    rig.upload(files, BUCKET)
    return files


def _median(points: Sequence[Point]) -> Point:
    return sorted(points, key=lambda point: point.seconds)[len(points) // 2]


def _columns(curve: Curve) -> Sequence[str]:
    return (curve.x_label, "events sent", "s", "events/s")


def _rows(curve: Curve) -> list[Sequence[str]]:
    return [tuple(map(number, (p.x, p.sent, round(p.seconds, 1), p.events_per_s))) for p in curve.points]


def _page() -> Iterator[str]:
    """Yield the newest result of each curve, for the docs."""
    documents = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name in CURVES
        if (path := RESULTS / f"curve-{name}.json").exists()
    }
    yield measured_on(documents.values())
    for name, document in documents.items():
        curve = Curve.from_json(document["curve"])
        yield f"### {curve.title}\n\n`make bench-curves CURVE={name}` ({when(document)})."
        yield f"![{curve.title}](plots/{name}.svg)"
        yield markdown(_columns(curve), _rows(curve))


if __name__ == "__main__":
    typer.run(main)
