"""Nothing lost: a million events through an S3 server and a Segment on a bad day, and a program that is killed.

`currents-bridge run` reads from a real S3 server (SeaweedFS) through a proxy with faults, also LISTs that are none, and
sends to a collector with faults; it is killed with SIGKILL at random moments and started again. All the while one
object is denied and some messages are refused; halfway the denied object and a delivered one are written again. Then
the weather is calm: all that is owed must be at the collector but what is in the denied object, which stands alone as
failed. Once that is allowed again, all must be there, the refused messages must be dead letters, and `reconcile` must
say so to the last number.
"""

import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from itertools import chain, repeat, takewhile
from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from benchmarks.files import upload
from benchmarks.soak_plan import plan_soak
from currents_bridge.testing.collector import Collector, Message
from currents_bridge.testing.faults import FaultSchedule
from currents_bridge.testing.faulty_s3 import PASSING, FaultyS3, S3Fault, seeded_faults
from currents_bridge.testing.s3_lies import LYING_LISTS
from tests.s3_servers import weed_server

BUCKET = "acme-currents"
WRITE_KEY = "soaksoaksoaksoaksoaksoaksoaksoak"
PROVING = (S3Fault.LYING_LIST, S3Fault.DENIED)  # no soak without them; what is refused or changed is in the sums
STORMY_PASSES = 1  # that nobody kills, so that faults meet most requests on however slow a machine
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


def main(  # noqa: PLR0913 - one parameter an option
    *,
    events: Annotated[int, typer.Option(help="Events in the bucket")] = 1_000_000,
    kills: Annotated[int, typer.Option(help="How often the program is killed")] = 50,
    longest_life_s: Annotated[float, typer.Option(help="Longest time from the first request to S3 to the kill")] = 8.0,
    batch_events: Annotated[int, typer.Option(help="Most events in a request: the fewer, the more requests")] = 2_500,
    fault_share: Annotated[float, typer.Option(help="Share of requests that meet a fault")] = 0.3,
    seed: Annotated[int, typer.Option(help="Of files, faults and kills")] = 1,
) -> None:
    """Soak, print what came of it, and exit with 1 if anything was lost or is not as it should be."""
    plan = plan_soak(events, seed, first_hour())
    schedule = FaultSchedule(seed, share=fault_share, refuse=lambda message: message["messageId"] in plan.refused)
    denied, calm = {plan.denied.key}, threading.Event()
    first = repeat(S3Fault.LYING_LIST, len(LYING_LISTS))  # since a short soak asks for few LISTs
    storms = chain(first, seeded_faults(seed, fault_share, (*PASSING, S3Fault.LYING_LIST)))
    faults = takewhile(lambda _: not calm.is_set(), storms)
    with (
        tempfile.TemporaryDirectory(prefix="currents-bridge-soak-") as name,
        weed_server(Path(name)) as s3,
        FaultyS3(s3, faults, denied=denied) as storm,
        IdCollector(write_keys=[WRITE_KEY]) as collector,
    ):
        s3.make_bucket(BUCKET)
        upload(plan.files, s3, BUCKET)
        collector.answer_with(schedule)
        config = write_config(Path(name), storm.url, collector.url, batch_events)
        say(f"{len(plan.files)} files, {events:,} events; {len(plan.owed):,} owed, {len(plan.refused)} refused")
        dice = random.Random(seed)
        lives_s = [dice.uniform(0.5, longest_life_s) for _ in range(kills)]
        repeats = [life(config, storm, collector, seconds) for seconds in lives_s[: kills // 2]]
        upload(plan.changed, s3, BUCKET)
        repeats += [life(config, storm, collector, seconds) for seconds in lives_s[kills // 2 :]]
        say(f"after {kills} kills: {len(collector.by_id):,} arrived, {collector.duplicates:,} of them again")
        for _ in range(STORMY_PASSES):
            bridge(config, "once")
        schedule.calm()
        calm.set()
        alone = settle(config, plan.proof(denied=True)) and plan.of_denied.isdisjoint(collector.by_id)
        denied.clear()
        proven = settle(config, plan.proof(denied=False))
        set_aside = dead_letters(config) == sorted(plan.refused)
    met = all(storm.served[fault] for fault in PROVING)
    lost, strange = len(plan.owed - collector.by_id.keys()), len(collector.by_id.keys() - plan.owed)
    say(f"faults: {dict(schedule.counts)} at Segment, {dict(storm.served)} at S3")
    say(f"messages that arrived again, by life: {repeats}; in all {collector.duplicates:,}")
    print(
        f"lost: {lost:,}; not owed: {strange:,}; denied object failed alone: {alone}; "
        f"refused set aside: {set_aside}; proven: {proven}; lied to and denied: {met}"
    )
    raise typer.Exit(0 if met and alone and set_aside and proven and not (lost or strange) else 1)


def first_hour() -> datetime:
    """Return an hour from which on polls look; it is too early to fold what was delivered, so it can be again."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=5)


def write_config(folder: Path, s3_url: str, collector_url: str, batch_events: int) -> Path:
    """Write the configuration of the program against these servers."""
    path = folder / "bridge.yaml"
    connector = {
        "name": "soak",
        "source": {"bucket": BUCKET, "endpoint_url": s3_url},
        "destination": {"write_key": "env:SOAK_WRITE_KEY", "endpoint_url": collector_url},
        "dedup": "1d",  # so that what is written again is delivered again
    }
    settings = {
        "ledger": {"url": f"sqlite:///{folder / 'ledger.sqlite3'}"},
        "schedule": {"poll": "1s"},
        "delivery": {"requests_per_second": None, "max_batch_events": batch_events},
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


def settle(config: Path, wanted: Mapping[str, Any]) -> bool:
    """Deliver all that is left, also what waits for a later try; tell whether `reconcile` comes to say what it must."""
    hours = (first_hour() - timedelta(days=1), first_hour() + timedelta(days=1))
    told: Mapping[str, Any] = {}
    for _ in range(CALM_PASSES):
        bridge(config, "backfill", "--from", hours[0].isoformat(), "--to", hours[1].isoformat())
        done = bridge(config, "reconcile", "--json")
        document = json.loads(done.stdout)["connectors"]["soak"]
        told = {"exit": done.returncode, **{name: document[name] for name in ("objects", "events")}}
        if told == wanted:
            return True
    say(f"reconcile must say {wanted}, and says {told}")
    return False


def dead_letters(config: Path) -> list[str]:
    """Return the ids of all messages that were set aside."""
    listed = bridge(config, "dead-letters", "list", "--json", "--limit", "100000")
    return sorted(letter["message_id"] for letter in json.loads(listed.stdout)["dead_letters"])


def bridge(config: Path, *arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run one command of the program to its end; what it says about trouble is shown."""
    done = subprocess.run(
        command(config, *arguments), env=environ(), capture_output=True, check=False, timeout=PASS_TIMEOUT_S
    )
    if done.returncode:
        last = done.stderr.decode().strip().rpartition("\n")[2]
        say(f"{arguments[0]} ended with {done.returncode}: {last[:500]}")
    return done


def command(config: Path, *arguments: str) -> list[str]:
    """Return the command line of the program in this environment."""
    return [sys.executable, "-m", "currents_bridge", *arguments, "--config", str(config)]


def environ() -> Mapping[str, str]:
    """Return the environment of the program: secrets of the test servers only."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CURRENTS_BRIDGE_"))}
    return kept | {"SOAK_WRITE_KEY": WRITE_KEY, "AWS_ACCESS_KEY_ID": "soak", "AWS_SECRET_ACCESS_KEY": "soak"}


def say(line: str) -> None:
    """Tell what goes on."""
    print(f"{time.strftime('%H:%M:%S')} {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
