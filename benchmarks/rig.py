"""What a benchmark runs on: a real S3 server, a sink, and the programs that carry events from one to the other.

Each program is a process of its own and is measured from outside. The S3 server and the sink share its two cores.
"""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from benchmarks.files import BenchmarkFile, total_events, upload
from benchmarks.processes import Measured, run_measured
from benchmarks.sinks import Sink, SinkKind, running_sink
from currents_bridge.events.catalogue import catalogue, supported_types
from currents_bridge.testing.currents_files import object_key
from currents_bridge.testing.embedded_s3 import REGION, S3Endpoint
from tests.s3_servers import weed_server

CORES = 2
CONNECTOR = "benchmark"
WRITE_KEY = "benchmarkbenchmarkbenchmarkbench"
ENVIRON = {
    "BENCHMARK_WRITE_KEY": WRITE_KEY,
    "AWS_ACCESS_KEY_ID": "benchmark",
    "AWS_SECRET_ACCESS_KEY": "benchmark",
    "NO_PROXY": "127.0.0.1",
    "no_proxy": "127.0.0.1",
    "RUNTIME__DLTHUB_TELEMETRY": "false",  # dlt talks to nobody outside
}
SLOWEST_EVENTS_PER_S = 500  # a run that is slower than this is killed
START_ALLOWANCE_S = 120.0
STOP_TIMEOUT_S = 30.0
START_RUNS = 3


@dataclass(frozen=True, slots=True)
class Run:
    """One measured run of one program; rates count events sent, not those that were read and skipped."""

    sent: int
    seconds: float  # its work alone; of this program, its life less that of a run on an empty bucket
    cpu_s: float  # all threads and children, over the same time
    peak_mb: float
    requests: int  # that the sink received
    wire_mb: float  # of their bodies, as they were sent
    body_mb: float = 0.0  # before compression, where the program says it

    @property
    def events_per_s(self) -> float:
        """The rate."""
        return self.sent / self.seconds

    @property
    def cpu_us(self) -> float:
        """CPU an event, in microseconds."""
        return 1e6 * self.cpu_s / self.sent


def median(runs: Sequence[Run]) -> Run:
    """Return the run with the median rate."""
    return sorted(runs, key=lambda run: run.events_per_s)[len(runs) // 2]


def has_dlt() -> bool:
    """Whether this environment has the peer that needs the dependency group `bench`."""
    return importlib.util.find_spec("dlt") is not None


class Rig:
    """The servers, and how each program is run against them; `folder` holds everything that is written."""

    def __init__(self, folder: Path, s3: S3Endpoint, sink: Sink, sink_kind: SinkKind) -> None:
        self.folder = folder
        self.s3 = s3
        self.sink = sink
        self.sink_kind = sink_kind
        self._buckets: set[str] = set()

    @cached_property
    def start(self) -> Measured:
        """What this program takes to start, find nothing and end; peers and the floor leave that out, too."""
        self.make_bucket("empty")
        left_out = min(catalogue().keys() - set(supported_types()))  # a bucket without any type is an error
        self.s3.client().put_object(Bucket="empty", Key=object_key(left_out, datetime.now(UTC)), Body=b"")
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            runs = []
            for number in range(START_RUNS):
                config = self.config(Path(name), Path(name) / f"{number}.sqlite3", "empty", self.sink.url)
                runs.append(self.program("once", config))
        return sorted(runs, key=lambda run: run.wall_s)[START_RUNS // 2]

    def upload(self, files: Sequence[BenchmarkFile], bucket: str) -> None:
        """Write the files into a bucket, which is made if it is not there."""
        self.make_bucket(bucket)
        upload(files, self.s3, bucket)
        os.sync()  # what the S3 server wrote is on its disk before anything is measured

    def make_bucket(self, bucket: str) -> None:
        """Make a bucket if it is not there."""
        if bucket not in self._buckets:
            self.s3.make_bucket(bucket)
            self._buckets.add(bucket)

    def once(
        self,
        bucket: str,
        files: Sequence[BenchmarkFile],
        *,
        sink: Sink | None = None,
        history: Path | None = None,
        max_in_flight: int = 16,
    ) -> Run:
        """Run `currents-bridge once` on a bucket that holds these files, with a new ledger or a copy of `history`.

        `sink` is another one than the rig's.

        Raises RuntimeError unless it read every event and the sink received the requests that it reports, or more.
        """
        sink = sink or self.sink
        with tempfile.TemporaryDirectory(dir=self.folder) as name:
            ledger = Path(name) / "ledger.sqlite3"
            if history:
                shutil.copy(history, ledger)
            config = self.config(Path(name), ledger, bucket, sink.url, max_in_flight=max_in_flight)
            sink.received()
            measured = self.program("once", config, events=total_events(files))
            received = sink.received()
        report = json.loads(measured.stdout)["connectors"][CONNECTOR]
        if report["events"]["read"] != total_events(files) or report["batches"] > received.requests:
            raise RuntimeError(f"the sink got {received} of {total_events(files)} events, and `once` says {report}")
        return Run(
            sent=report["events"]["sent"],
            seconds=measured.wall_s - self.start.wall_s,
            cpu_s=measured.cpu_s - self.start.cpu_s,
            peak_mb=measured.peak_rss_bytes / 1e6,
            requests=received.requests,
            wire_mb=received.wire_bytes / 1e6,
            body_mb=report["bytes"] / 1e6,
        )

    def program(self, command: str, config: Path, *, events: int = 0) -> Measured:
        """Run one command of the program with `--json`; it may take the longer, the more events it delivers."""
        return run_measured(
            [*program(command), "--config", str(config), "--json"],
            timeout_s=START_ALLOWANCE_S + events / SLOWEST_EVENTS_PER_S,
        )

    def floor(self, events: int) -> Run:
        """Run the bare loop."""
        return self._work_of("benchmarks.floor", self.sink.url, "--events", str(events))

    def plain_script(self, bucket: str, objects: int, *, tuned: bool = False) -> Run:
        """Run the plain script on the first objects of a bucket."""
        return self._peer("plain_script", bucket, objects, *(["--tuned"] if tuned else []))

    def dlt_pipeline(self, bucket: str, objects: int) -> Run:
        """Run the dlt pipeline on the first objects of a bucket."""
        return self._peer("dlt_pipeline", bucket, objects)

    def config(  # noqa: PLR0913 - each is a setting of its own
        self,
        folder: Path,
        ledger: Path,
        bucket: str,
        sink_url: str,
        *,
        s3_url: str | None = None,
        poll: str = "60s",
        event_types: Sequence[str] = ("supported",),
        connectors: int = 1,
        max_in_flight: int = 16,
    ) -> Path:
        """Write a configuration and return its path.

        All settings are defaults but for the pace: there is none. Several connectors share the event types.
        """
        path = folder / "bridge.yaml"
        source = {"bucket": bucket, "region": REGION, "endpoint_url": s3_url or self.s3.url}
        destination = {"write_key": "env:BENCHMARK_WRITE_KEY", "endpoint_url": sink_url}
        settings = {
            "ledger": {"url": f"sqlite:///{ledger}"},
            "schedule": {"poll": poll},
            "delivery": {"requests_per_second": None, "max_in_flight": max_in_flight},
            "connectors": [
                {
                    "name": f"{CONNECTOR}-{number}" if number else CONNECTOR,
                    "source": source,
                    "destination": destination,
                    "events": {"include": list(event_types[number::connectors])},
                }
                for number in range(connectors)
            ],
        }
        path.write_text(yaml.safe_dump(settings), encoding="utf-8")
        return path

    def _peer(self, name: str, bucket: str, objects: int, *options: str) -> Run:
        arguments = (self.s3.url, bucket, self.sink.url, "--objects", str(objects), *options)
        return self._work_of(f"benchmarks.peers.{name}", *arguments)

    def _work_of(self, module: str, *arguments: str) -> Run:
        """Run a module that prints events sent, seconds and CPU."""
        self.sink.received()
        measured = run_measured([sys.executable, "-m", module, *arguments], timeout_s=5 * START_ALLOWANCE_S)
        received = self.sink.received()
        work: Mapping[str, Any] = json.loads(measured.stdout.splitlines()[-1])
        return Run(
            sent=work["sent"],
            seconds=work["seconds"],
            cpu_s=work["cpu_s"],
            peak_mb=measured.peak_rss_bytes / 1e6,
            requests=received.requests,
            wire_mb=received.wire_bytes / 1e6,
        )


def program(*arguments: str) -> list[str]:
    """Return the command line of the program in this environment."""
    return [sys.executable, "-m", "currents_bridge", *arguments]


@contextmanager
def running_rig(sink: SinkKind) -> Iterator[Rig]:
    """Run the servers on two cores, and give this process the environment of all programs."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that the servers are stopped, too
    _pin()
    for name in [name for name in os.environ if name.startswith(("AWS_", "CURRENTS_BRIDGE_"))]:
        del os.environ[name]
    os.environ.update(ENVIRON)
    with tempfile.TemporaryDirectory(prefix="currents-bridge-benchmark-") as name:
        folder = Path(name)
        (folder / "s3").mkdir()
        with weed_server(folder / "s3") as s3, running_sink(sink, folder) as running:
            yield Rig(folder, s3, running, sink.chosen())


@dataclass(frozen=True, slots=True)
class Daemon:
    """`currents-bridge run`, while it runs."""

    pid: int
    log: Path
    began_s: float

    def finished(self, action: str, count: int, timeout_s: float) -> list[Mapping[str, Any]]:
        """Wait until so many lines of the log have this action, and return them."""
        deadline_s = time.monotonic() + timeout_s
        while time.monotonic() < deadline_s:
            whole_lines, _, _ = self.log.read_text(encoding="utf-8").rpartition("\n")
            lines = map(json.loads, whole_lines.splitlines())
            if len(found := [line for line in lines if line["action"] == action]) >= count:
                return found
            time.sleep(0.02)
        raise TimeoutError(f"no {action} within {timeout_s:.0f} s:\n{self.log.read_text(encoding='utf-8')[-3000:]}")


@contextmanager
def running_daemon(config: Path) -> Iterator[Daemon]:
    """Run the daemon; its log lies beside its configuration."""
    log = config.with_suffix(".log")
    began_s = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(program("run", "--config", str(config)), stderr=output)
    try:
        yield Daemon(process.pid, log, began_s)
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _pin() -> None:
    """Keep this process, and with it all that it starts, on two cores."""
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < CORES:
        raise SystemExit(f"this machine gives {len(cores)} core, and the measurement is of {CORES}")
    os.sched_setaffinity(0, cores[:CORES])
