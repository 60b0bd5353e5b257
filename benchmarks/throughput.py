"""Events a second of the whole program: from a real S3 server into a local sink, on two cores.

`currents-bridge once` runs as a process of its own and is measured from outside; the S3 server (SeaweedFS) and the
sink share its cores. A smaller run into a collector that remembers shows that each event owed arrives once.
What comes out, and on which machine: docs/performance.md.
"""

import json
import os
import platform
import signal
import statistics
import sys
import sysconfig
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from multiprocessing import get_context
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml
from rich.console import Console
from rich.table import Table

from benchmarks.files import BenchmarkFile, owed_ids, plan_files, upload
from benchmarks.floor import measure_floor
from benchmarks.processes import Measured, run_measured
from benchmarks.sinks import SinkKind, running_sink
from currents_bridge import __version__
from currents_bridge.catalogue import supported_types
from currents_bridge.testing.collector import Collector
from currents_bridge.testing.embedded_s3 import REGION, S3Endpoint
from tests.s3_servers import weed_server

TARGET_EVENTS_PER_S = 40_000
TARGET_PEAK_MB = 600
CORES = 2
CHECKED_EVENTS = 50_000
SLOWEST_EVENTS_PER_S = 1_000  # a run that is slower than this is killed
START_ALLOWANCE_S = 60.0
RESULTS = Path(__file__).with_name("results")

CONNECTOR = "benchmark"
WRITE_KEY = "benchmark-write-key"
ENVIRON = {
    "BENCHMARK_WRITE_KEY": WRITE_KEY,
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
}

talk = Console(stderr=True)


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run of `once`; rates count events sent, not those that were read and skipped."""

    events_per_s: float  # of the process's whole life
    delivery_events_per_s: float  # of the seconds that the report names: from the first claim to the last settlement
    read: int
    sent: int
    requests: int
    body_bytes: int
    wall_s: float
    user_s: float
    system_s: float
    peak_mb: float
    servers_cpu_s: Mapping[str, float]

    @classmethod
    def of(cls, measured: Measured) -> "Run":
        """Return what the process's own report and the operating system say together."""
        report = _report(measured)
        sent = report["events"]["sent"]
        return cls(
            events_per_s=round(sent / measured.wall_s),
            delivery_events_per_s=round(sent / report["seconds"]),
            read=report["events"]["read"],
            sent=sent,
            requests=report["batches"],
            body_bytes=report["bytes"],
            wall_s=round(measured.wall_s, 2),
            user_s=round(measured.user_s, 2),
            system_s=round(measured.system_s, 2),
            peak_mb=round(measured.peak_rss_bytes / 1e6),
            servers_cpu_s=measured.servers_cpu_s,
        )


def main(  # noqa: PLR0913 - one parameter an option
    *,
    events: Annotated[int, typer.Option(min=1, help="Events in the bucket")] = 1_000_000,
    events_per_object: Annotated[int, typer.Option(min=1, help="Events in a file; Braze writes up to 15,000")] = 15_000,
    event_type: Annotated[str, typer.Option(help="Type of the events")] = "users.messages.email.Click",
    mixed: Annotated[bool, typer.Option("--mixed", help="All supported types in turn, instead of one")] = False,
    codec: Annotated[str, typer.Option(help="Avro codec: null, deflate, snappy, zstandard")] = "null",
    sink: Annotated[SinkKind, typer.Option(help="auto: nginx where it is installed")] = SinkKind.AUTO,
    workers: Annotated[int, typer.Option(min=1, help="delivery.workers")] = 4,
    runs: Annotated[int, typer.Option(min=1, help="Measured runs; the table shows their median")] = 3,
    floor: Annotated[bool, typer.Option("--floor", help="Measure the pure core alone, in this process")] = False,
    json_path: Annotated[Path | None, typer.Option("--json", help="[default: benchmarks/results/NAME.json]")] = None,
) -> None:
    """Measure events a second, CPU and peak memory."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the servers are stopped, too
    _pin()
    types = supported_types() if mixed else (event_type,)
    files = plan_files(types, events=events, events_per_object=events_per_object, codec=codec)
    load = os.getloadavg()
    about = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "cores": CORES,
        "load_1min_before": round(load[0], 2),
        "version": __version__,
        "events": events,
        "events_per_object": events_per_object,
        "types": len(types),
        "event_type": None if mixed else event_type,
        "codec": codec,
        "workers": workers,
    }
    if floor:
        result = asdict(measure_floor(files, workers))
        _print_floor(result)
    else:
        result = _whole_program(files, sink.chosen(), workers=workers, runs=runs)
        _print_runs(result["runs"], sink.chosen())
    name = f"{'floor' if floor else 'throughput'}{'-mixed' if mixed else ''}"
    path = json_path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about | result, indent=2) + "\n")
    talk.print(f"wrote {path}")


def _pin() -> None:
    """Keep this process, and with it all that it starts, on two cores."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < CORES:
        raise SystemExit(f"this machine gives {len(cores)} core, and the measurement is of {CORES}")
    os.sched_setaffinity(0, cores[:CORES])


@dataclass(frozen=True, slots=True)
class _Bench:
    """Where the program is run."""

    folder: Path
    s3: S3Endpoint
    workers: int

    def once(self, bucket: str, sink_url: str, files: Sequence[BenchmarkFile]) -> Measured:
        """Run `currents-bridge once` with a new ledger; raises RuntimeError unless it delivered all the files."""
        events = sum(file.events for file in files)
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            config, log = Path(name) / "bridge.yaml", Path(name) / "once.log"
            config.write_text(yaml.safe_dump(self._settings(f"sqlite:///{name}/ledger.sqlite3", bucket, sink_url)))
            program = str(Path(sysconfig.get_path("scripts")) / "currents-bridge")
            measured = run_measured(
                [program, "once", "--config", str(config), "--json"],
                environ=os.environ | ENVIRON,
                log=log,
                timeout_s=START_ALLOWANCE_S + events / SLOWEST_EVENTS_PER_S,
            )
            if measured.exit_code or _report(measured)["events"]["read"] != events:
                output = f"{measured.stdout}\n{log.read_text(errors='replace')[-3000:]}"
                raise RuntimeError(f"`once` ended with {measured.exit_code}:\n{output}")
        return measured

    def _settings(self, ledger_url: str, bucket: str, sink_url: str) -> dict[str, Any]:
        return {
            "ledger": {"url": ledger_url},
            "delivery": {"workers": self.workers, "requests_per_second": None},
            "connectors": [
                {
                    "name": CONNECTOR,
                    "source": {"bucket": bucket, "region": REGION, "endpoint_url": self.s3.url},
                    "destination": {"write_key": "env:BENCHMARK_WRITE_KEY", "endpoint_url": sink_url},
                }
            ],
        }


def _whole_program(files: Sequence[BenchmarkFile], sink: SinkKind, *, workers: int, runs: int) -> dict[str, Any]:
    with tempfile.TemporaryDirectory(prefix="currents-bridge-benchmark-") as name:
        folder = Path(name)
        (folder / "s3").mkdir()
        with weed_server(folder / "s3") as s3:
            bench = _Bench(folder, s3, workers)
            # a process apart: the memory of this one would count into the peak, see run_measured
            with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as apart:
                checked = apart.submit(_checked, bench, files).result()
                talk.print(f"each of {checked:,} events owed arrived once; writing {len(files)} files")
                bucket_bytes = apart.submit(upload, files, s3, "measured").result()
            measured = []
            with running_sink(sink, folder) as url:
                for number in range(1, runs + 1):
                    measured.append(Run.of(bench.once("measured", url, files)))
                    talk.print(f"run {number}: {measured[-1].events_per_s:,.0f} events/s")
    return {
        "sink": sink.value,
        "bucket_bytes": bucket_bytes,
        "checked_events": checked,
        "median_events_per_s": statistics.median(run.events_per_s for run in measured),
        "highest_peak_mb": max(run.peak_mb for run in measured),
        "runs": [asdict(run) for run in measured],
    }


def _checked(bench: _Bench, files: Sequence[BenchmarkFile]) -> int:
    """Deliver the first files into a collector; returns how many events arrived: each that is owed, once, no other.

    Raises RuntimeError where that is not so.
    """
    count = next((n for n in range(1, len(files)) if sum(f.events for f in files[:n]) >= CHECKED_EVENTS), len(files))
    few = files[:count]
    upload(few, bench.s3, "checked")
    with Collector(write_keys=[WRITE_KEY]) as collector:
        report = _report(bench.once("checked", collector.url, few))
    owed = set(owed_ids(few))
    found = {
        "sent twice": collector.duplicates,
        "not accepted": len(collector.rejected) + len(collector.dropped),
        "missing": len(owed - collector.by_id.keys()),
        "not owed": len(collector.by_id.keys() - owed),
        "more or fewer than the report says": abs(len(collector.by_id) - report["events"]["sent"]),
    }
    if any(found.values()):
        raise RuntimeError(f"of {len(owed)} events owed: {found}")
    return len(owed)


def _report(measured: Measured) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(measured.stdout)["connectors"][CONNECTOR]
    return report


def _print_runs(runs: Sequence[Mapping[str, Any]], sink: SinkKind) -> None:
    table = Table(title=f"currents-bridge once, SeaweedFS to {sink.value}, {CORES} cores", box=None)
    columns = {
        "events/s": ("events_per_s", ",.0f"),
        "delivering": ("delivery_events_per_s", ",.0f"),
        "read": ("read", ",d"),
        "sent": ("sent", ",d"),
        "requests": ("requests", ",d"),
        "wall s": ("wall_s", ".1f"),
        "user s": ("user_s", ".1f"),
        "system s": ("system_s", ".1f"),
        "peak MB": ("peak_mb", ",.0f"),
    }
    table.add_column("")
    for column in [*columns, "servers' CPU s"]:
        table.add_column(column, justify="right")
    for number, run in enumerate(runs, 1):
        servers = ", ".join(f"{name} {seconds:.1f}" for name, seconds in run["servers_cpu_s"].items())
        table.add_row(str(number), *(format(run[key], style) for key, style in columns.values()), servers)
    medians = {key: statistics.median(run[key] for run in runs) for key, _ in columns.values()}
    table.add_row(
        "median", *(format(medians[key], style.replace("d", ".0f")) for key, style in columns.values()), style="bold"
    )
    Console(width=None if sys.stdout.isatty() else 160).print(table)
    print(f"aim: {TARGET_EVENTS_PER_S:,} events/s within {TARGET_PEAK_MB} MB")


def _print_floor(floor: Mapping[str, Any]) -> None:
    print(
        f"{floor['sent'] / floor['wall_s']:,.0f} events/s through the core alone: {floor['wall_s']:.1f} s wall, "
        f"{floor['cpu_s']:.1f} s CPU, {floor['body_bytes'] / 1e6:,.0f} MB bodies, {floor['wire_bytes'] / 1e6:,.0f} MB "
        "compressed"
    )
    for stage, seconds in floor["stages_s"].items():
        print(f"  {stage:8}{seconds:8.2f} s")


if __name__ == "__main__":
    typer.run(main)
