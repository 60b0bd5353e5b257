"""What the program costs while there is nothing to deliver: an idle daemon, a poll, the ledger, a command's start."""

import os
import shutil
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from statistics import median

import psutil

from benchmarks.files import plan_files, total_events
from benchmarks.ledgers import fill, record
from benchmarks.outcome import Finding, Outcome, at_most
from benchmarks.processes import run_measured
from benchmarks.rig import CONNECTOR, START_ALLOWANCE_S, Rig, program, running_daemon
from benchmarks.scale import Scale
from currents_bridge import wiring
from currents_bridge.config import load
from currents_bridge.events.catalogue import catalogue, supported_types
from currents_bridge.model import CurrentsObject
from currents_bridge.sources.coverage import hour_of
from currents_bridge.testing.currents_files import large_file, object_key
from currents_bridge.testing.faulty_s3 import FaultyS3

HOT_HOURS = 7  # of each poll: six hours back by default, and the hour itself
UNFOLDED_DAYS = 8
AUDITED_PER_HOUR = 14
UPLOADS_AT_ONCE = 8
SLOW_IMPORTS = ("polars", "boto3")


def idle(rig: Rig, scale: Scale) -> Outcome:
    """A daemon between two polls, before and after it had work."""
    files = plan_files(scale.daemon_events, 15_000)
    rig.upload(files, "daemon")
    rig.make_bucket("daemon-empty")
    findings = list[Finding]()
    for state, bucket in (("new", "daemon-empty"), (f"after {total_events(files):,} events", "daemon")):
        folder = rig.folder / bucket
        folder.mkdir()
        config = rig.config(folder, folder / "ledger.sqlite3", bucket, rig.sink.url, poll="1h")
        with running_daemon(config) as daemon:
            for action in ("audit_finished", "poll_finished"):
                daemon.finished(action, 1, 5 * START_ALLOWANCE_S)
            process = psutil.Process(daemon.pid)
            before = process.cpu_times()
            time.sleep(scale.idle_s)
            after = process.cpu_times()
            rss_bytes = process.memory_info().rss
        cpu_s = after.user + after.system - before.user - before.system
        findings.append(at_most(f"{state}: memory", rss_bytes / 1e6, 150, "MB"))
        findings.append(at_most(f"{state}: CPU between polls", 100 * cpu_s / scale.idle_s, 1, "% of a core"))
    return Outcome(
        title="Idle: `currents-bridge run` between polls",
        about=f"resident memory and CPU over {scale.idle_s:g} s in which no poll falls, heartbeats included",
        findings=findings,
    )


def polling(rig: Rig, scale: Scale) -> Outcome:
    """One poll that finds nothing new, with a long history and with a tenth of it."""
    types = [name for name, listed in catalogue().items() if listed.mapped][: scale.polled_types]
    now = datetime.now(UTC)
    objects = _write_history(rig, "polled", types, now, scale)
    folder = rig.folder / "polled"
    folder.mkdir()
    ledger = folder / "ledger.sqlite3"
    rig.program("once", rig.config(folder, ledger, "polled", rig.sink.url, event_types=types), events=objects)
    seconds, requests, histories = [], 0, list[str]()
    for history in scale.poll_histories:
        filled = folder / f"{history}.sqlite3"
        shutil.copy(ledger, filled)
        held = fill(
            filled, CONNECTOR, types, count=history, now=now, days=scale.history_days, unfolded_days=UNFOLDED_DAYS
        )
        histories.append(f"{held:,}")
        seconds.append(_poll_s(rig.config(folder, filled, "polled", rig.sink.url, event_types=types), scale.polls))
        with FaultyS3(rig.s3, ()) as counting:
            config = rig.config(folder, filled, "polled", rig.sink.url, event_types=types, s3_url=counting.url)
            _poll_s(config, 1)
            requests = counting.requests
    few, many = histories
    return Outcome(
        title=f"A poll with nothing new: {len(types)} types, {scale.history_days} days",
        about=f"the bucket holds {objects:,} objects of one event, {scale.polled_per_hour} an hour and type in the "
        f"hours that a poll lists and one each {scale.polled_every_days} days before; the rest of {many} delivered "
        f"objects is in the ledger only, {UNFOLDED_DAYS} days as rows and the older ones folded; median of "
        f"{scale.polls} polls",
        findings=[
            at_most("LIST requests", requests, 2 * len(types) + 10),
            at_most(f"seconds with {many} objects in the ledger", seconds[1], 3, "s"),
            at_most(f"times the seconds with {few} objects", seconds[1] / seconds[0], 1.1),
        ],
    )


def audit(rig: Rig, scale: Scale) -> Outcome:
    """One audit that finds nothing, of objects that are in the bucket and folded in the ledger."""
    types, now = supported_types()[: scale.audited_types], datetime.now(UTC)
    hours_of_type = -(-scale.audited_objects // (len(types) * AUDITED_PER_HOUR))
    last = hour_of(now) - timedelta(days=UNFOLDED_DAYS + 1)
    keys = [
        (object_key(event_type, hour, offset=number), event_type, hour)
        for event_type in types
        for hour in (last - timedelta(hours=back) for back in range(hours_of_type))
        for number in range(AUDITED_PER_HOUR)
    ][: scale.audited_objects]
    rig.make_bucket("audited")
    client = rig.s3.client()

    def put(key: str) -> str:
        return client.put_object(Bucket="audited", Key=key, Body=b"x")["ETag"].strip('"')

    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        etags = pool.map(put, (key for key, _, _ in keys))
        objects = [
            CurrentsObject(key, etag, 1, now, event_type, hour)
            for (key, event_type, hour), etag in zip(keys, etags, strict=True)
        ]
    folder = rig.folder / "audited"
    folder.mkdir()
    path = folder / "ledger.sqlite3"
    record(path, CONNECTOR, objects, now)
    with FaultyS3(rig.s3, ()) as counting:
        config = rig.config(folder, path, "audited", rig.sink.url, event_types=types, s3_url=counting.url)
        with wiring.open_bridge(load(config, os.environ), os.environ) as bridge:
            (connector,) = bridge.connectors
            began_s = time.perf_counter()
            report = connector.audit()
            seconds = time.perf_counter() - began_s
        requests = counting.requests
    if report.error or report.findings or report.discovered:
        raise RuntimeError(f"an audit of what was delivered found {report}")
    return Outcome(
        title=f"An audit with nothing to find: {len(objects):,} objects",
        about=f"{len(types)} types, {AUDITED_PER_HOUR} objects an hour and type, all delivered and folded; a proxy "
        "counts the requests, and shares the two cores with the S3 server",
        findings=[
            at_most("requests to S3", requests, -(-len(objects) // 1_000) + len(types) + 10),
            at_most("seconds", seconds, 60, "s"),
        ],
    )


def ledger(rig: Rig, scale: Scale) -> Outcome:
    """The ledger's file with a very long history, and a look into it."""
    folder = rig.folder / "long-history"
    folder.mkdir()
    path = folder / "ledger.sqlite3"
    types = supported_types()
    held = fill(
        path,
        CONNECTOR,
        types,
        count=scale.folded_objects,
        now=datetime.now(UTC),
        days=scale.history_days,
        unfolded_days=0,
    )
    file_bytes = sum(part.stat().st_size for part in folder.iterdir())
    config = rig.config(folder, path, "none", rig.sink.url)
    return Outcome(
        title=f"The ledger with {held:,} delivered objects, folded",
        about=f"{scale.history_days} days of {len(types)} types: one day recorded by the ledger's own methods, its "
        f"rows copied to the others and folded; median of {scale.starts} starts of `status`",
        findings=[
            at_most("on disk", file_bytes / 1e6, 200, "MB"),
            at_most(
                "`currents-bridge status`",
                median(rig.program("status", config).wall_s for _ in range(scale.starts)),
                0.5,
                "s",
            ),
        ],
    )


def start(rig: Rig, scale: Scale) -> Outcome:  # noqa: ARG001 - all cases are called alike
    """`--help`, the quickest of all commands."""
    seconds = [run_measured(program("--help"), timeout_s=START_ALLOWANCE_S).wall_s for _ in range(scale.starts)]
    imports = run_measured([sys.executable, "-X", "importtime", *program("--help")[1:]], timeout_s=START_ALLOWANCE_S)
    imported = {line.rpartition("|")[2].strip() for line in imports.stderr.splitlines()}
    return Outcome(
        title="Start: `currents-bridge --help`",
        about=f"median of {scale.starts} starts; the imports as `python -X importtime` lists them",
        findings=[
            at_most("`currents-bridge --help`", median(seconds), 0.4, "s"),
            at_most(f"imports of {' and '.join(SLOW_IMPORTS)}", len(imported.intersection(SLOW_IMPORTS)), 0),
        ],
    )


def _write_history(rig: Rig, bucket: str, types: list[str], now: datetime, scale: Scale) -> int:
    """Write small objects into the hot hours and into some hours before; returns how many."""
    hot = [(hour_of(now) - timedelta(hours=back), scale.polled_per_hour) for back in range(HOT_HOURS)]
    days = range(scale.polled_every_days, scale.history_days, scale.polled_every_days)
    old = [(hour_of(now) - timedelta(days=back), 1) for back in days]
    rig.make_bucket(bucket)
    client = rig.s3.client()
    count = 0
    for event_type in types:
        for hour, objects in hot + old:
            body = large_file(event_type, 1, seed=count, hour=hour)
            for number in range(objects):
                client.put_object(Bucket=bucket, Key=object_key(event_type, hour, offset=number), Body=body)
                count += 1
    return count


def _poll_s(config: Path, polls: int) -> float:
    """Return the median seconds of so many polls, in this process; raises RuntimeError if one finds anything."""
    seconds = []
    with wiring.open_bridge(load(config, os.environ), os.environ) as bridge:
        (connector,) = bridge.connectors
        for _ in range(polls):
            began_s = time.perf_counter()
            report = connector.poll()
            seconds.append(time.perf_counter() - began_s)
            if report.error or report.discovered:
                raise RuntimeError(f"a poll with nothing new found {report.discovered} objects, {report.error}")
    return median(seconds)
