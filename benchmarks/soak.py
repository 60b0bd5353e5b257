"""Nothing lost: a million events through an S3 server and a Segment on a bad day, and a program that is killed.

`currents-bridge run` reads from a real S3 server (SeaweedFS) through a proxy with faults and sends to a collector with
faults; it is killed with SIGKILL at random moments and started again. Then the weather is calm, and everything that
is owed must be at the collector, the books must balance, and `reconcile` must prove it.
"""

import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated

import typer
import yaml

from benchmarks.files import FIRST_HOUR, BenchmarkFile, owed_ids, upload
from currents_bridge.catalogue import supported_types
from currents_bridge.testing.collector import Collector, Message
from currents_bridge.testing.faults import FaultSchedule
from currents_bridge.testing.faulty_s3 import FaultyS3, seeded_faults
from tests.s3_servers import weed_server

BUCKET = "acme-currents"
WRITE_KEY = "soaksoaksoaksoaksoaksoaksoaksoak"
EVENTS_A_FILE = (20, 400, 3_000, 15_000, 60_000)
CALM_PASSES = 5
PASS_TIMEOUT_S = 300.0


class IdCollector(Collector):
    """Remembers message ids only, so that millions fit."""

    def _file(self, message: Message, flaw: str) -> None:
        if flaw:
            raise AssertionError(f"{flaw}: {message}")
        before = len(self.by_id)
        self.by_id[message["messageId"]] = {}
        self.duplicates += len(self.by_id) == before


def main(
    *,
    events: Annotated[int, typer.Option(help="Events in the bucket")] = 1_000_000,
    kills: Annotated[int, typer.Option(help="How often the program is killed")] = 50,
    longest_life_s: Annotated[float, typer.Option(help="Longest time from the first request to S3 to the kill")] = 8.0,
    fault_share: Annotated[float, typer.Option(help="Share of requests that meet a fault")] = 0.3,
    seed: Annotated[int, typer.Option(help="Of files, faults and kills")] = 1,
) -> None:
    """Soak, print what came of it, and exit with 1 if anything was lost."""
    files = plan(events, seed)
    owed = set(owed_ids(files))
    schedule = FaultSchedule(seed, share=fault_share)
    with (
        tempfile.TemporaryDirectory(prefix="currents-bridge-soak-") as name,
        weed_server(Path(name)) as s3,
        FaultyS3(s3, seeded_faults(seed, fault_share)) as storm,
        IdCollector(write_keys=[WRITE_KEY]) as collector,
    ):
        s3.make_bucket(BUCKET)
        upload(files, s3, BUCKET)
        collector.answer_with(schedule)
        stormy, calm = (write_config(Path(name), where.url, collector.url) for where in (storm, s3))
        say(f"{len(files)} files, {events:,} events, {len(owed):,} owed")
        repeats = [
            life(stormy, storm, collector, dice.uniform(0.5, longest_life_s))
            for dice in [random.Random(seed)]
            for _ in range(kills)
        ]
        say(f"after {kills} kills: {len(collector.by_id):,} arrived, {collector.duplicates:,} of them again")
        schedule.calm()
        for _ in range(CALM_PASSES):
            if finish(calm) == 0:
                break
        missing, strange = owed - collector.by_id.keys(), collector.by_id.keys() - owed
        proof = bridge(calm, "reconcile", "--json").returncode
    say(f"faults: {dict(schedule.counts)} at Segment, {dict(storm.served)} at S3")
    say(f"messages that arrived again, by life: {repeats}; in all {collector.duplicates:,}")
    print(f"lost: {len(missing):,}; not owed: {len(strange):,}; reconcile: exit {proof}")
    raise typer.Exit(1 if missing or strange or proof else 0)


def plan(events: int, seed: int) -> Sequence[BenchmarkFile]:
    """Return files of mixed types and sizes."""
    dice = random.Random(seed)
    types, files = supported_types(), list[BenchmarkFile]()
    while (left := events - sum(file.events for file in files)) > 0:
        size = min(left, dice.choice(EVENTS_A_FILE))
        files += [
            BenchmarkFile(len(files), types[len(files) % len(types)], size, dice.choice(["null", "deflate", "snappy"]))
        ]
    return files


def write_config(folder: Path, s3_url: str, collector_url: str) -> Path:
    """Write the configuration of the program against these servers; the ledger is the same for all."""
    path = folder / f"bridge-{s3_url.rpartition(':')[2]}.yaml"
    connector = {
        "name": "soak",
        "source": {"bucket": BUCKET, "endpoint_url": s3_url},
        "destination": {"write_key": "env:SOAK_WRITE_KEY", "endpoint_url": collector_url},
    }
    settings = {
        "ledger": {"url": f"sqlite:///{folder / 'ledger.sqlite3'}"},
        "schedule": {"poll": "1s"},
        "delivery": {"requests_per_second": None},
        "connectors": [connector],
    }
    path.write_text(yaml.safe_dump(settings), encoding="utf-8")
    return path


def life(config: Path, storm: FaultyS3, collector: IdCollector, seconds: float) -> int:
    """Let the daemon work for so long and kill it; return how many messages arrived again meanwhile.

    It works from its first request to S3 on: a loaded machine may take longer to start it than it is to live.
    """
    before, requests = collector.duplicates, storm.requests
    with subprocess.Popen(command(config, "run"), env=environ(), stderr=subprocess.DEVNULL) as process:
        try:
            while storm.requests == requests and process.poll() is None:
                time.sleep(0.02)
            process.wait(seconds)
        except subprocess.TimeoutExpired:
            process.kill()
        else:
            raise RuntimeError(f"the daemon ended by itself with {process.returncode}")
    return collector.duplicates - before


def finish(config: Path) -> int:
    """Deliver all that is left, also what waits for a later try; return the exit code."""
    hours = (FIRST_HOUR, FIRST_HOUR + timedelta(days=365))
    return bridge(config, "backfill", "--from", hours[0].isoformat(), "--to", hours[1].isoformat()).returncode


def bridge(config: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run one command of the program to its end; what it says about trouble is shown."""
    done = subprocess.run(
        command(config, *arguments), env=environ(), capture_output=True, check=False, timeout=PASS_TIMEOUT_S
    )
    if done.returncode:
        say(f"{arguments[0]} ended with {done.returncode}: {done.stderr[-2000:].decode()}")
    return done


def command(config: Path, name: str, *arguments: str) -> list[str]:
    """Return the command line of the program in this environment."""
    return [sys.executable, "-m", "currents_bridge", name, "--config", str(config), *arguments]


def environ() -> Mapping[str, str]:
    """Return the environment of the program: secrets of the test servers only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CURRENTS_BRIDGE_"))}
    return kept | {"SOAK_WRITE_KEY": WRITE_KEY, "AWS_ACCESS_KEY_ID": "soak", "AWS_SECRET_ACCESS_KEY": "soak"}


def say(line: str) -> None:
    """Tell what goes on."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
