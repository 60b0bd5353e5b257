"""Signals end the program in time, whatever it waits for: the daemon within 20 s, any other command within 5 s."""

import json
import signal
import socket
import sqlite3
import subprocess
import threading
import time
from itertools import repeat

import pytest

from currents_bridge.testing.collector import Answer
from currents_bridge.testing.embedded_s3 import S3Endpoint
from currents_bridge.testing.faulty_s3 import FaultyS3, S3Fault
from tests.installation import HOUR, TIMEOUT_S, Site, this_hour, until
from tests.loopback_net import dripping, listening

DAEMON_S = 20
COMMAND_S = 5
DRIPPING_S = 0.2
HANGING_S = 600.0
SPAN = ("--from", f"{this_hour():%Y-%m-%dT%H:00Z}", "--to", f"{this_hour() + HOUR:%Y-%m-%dT%H:00Z}")


def stopped(process: subprocess.Popen[str], number: signal.Signals, within_s: float) -> tuple[str, str]:
    """Send a signal and return output and log; the process has to end in time, on a machine that may be busy."""
    began = time.monotonic()
    process.send_signal(number)
    out, log = process.communicate(timeout=TIMEOUT_S)
    assert time.monotonic() - began < within_s, log
    return out, log


def test_sigterm_ends_a_daemon_whose_pace_waits(site: Site) -> None:
    """What is not sent waits for the next run, and nothing is sent twice."""
    for offset in range(3):
        site.put_sample(count=20, seed=offset, offset=offset)
    site.config["delivery"] |= {"max_batch_events": 20, "requests_per_second": 0.01}
    process = site.start("run")
    until(lambda: site.collector.request_count == 1, process)

    stopped(process, signal.SIGTERM, DAEMON_S)

    assert process.returncode == 0
    site.config["delivery"]["requests_per_second"] = None
    site.once()
    assert (len(site.collector.by_id), site.collector.duplicates) == (60, 0)


def test_ctrl_c_ends_once_while_segment_hangs_and_it_ends_with_1(site: Site) -> None:
    """Work is left; the one document of --json is there all the same."""
    site.put_sample(count=20)
    site.collector.answer_with(lambda _: Answer(delay_s=600))
    process = site.start("once", "--json")
    until(lambda: site.collector.request_count == 1, process)

    out, _ = stopped(process, signal.SIGINT, COMMAND_S)

    assert process.returncode == 1
    assert "stopped" in json.loads(out)["error"]
    site.collector.answer_with(lambda _: None)
    assert site.once()["events"]["sent"] == 20


def test_a_second_ctrl_c_ends_a_command_at_once_with_its_document(site: Site) -> None:
    """Exit code 130, as shells have it for SIGINT."""
    site.put_sample(count=20)
    site.collector.answer_with(lambda _: Answer(delay_s=600))
    process = site.start("backfill", *SPAN, "--json")
    until(lambda: site.collector.request_count == 1, process)
    process.send_signal(signal.SIGINT)
    with pytest.raises(subprocess.TimeoutExpired):  # the first one waits for what is under way
        process.wait(1)

    out, _ = stopped(process, signal.SIGINT, 2)

    assert process.returncode == 130
    assert "a second signal" in json.loads(out)["error"]


@pytest.mark.parametrize(
    ("command", "within_s", "every_s", "code"),
    [
        (("backfill", *SPAN, "--json"), COMMAND_S, DRIPPING_S, 1),
        (("backfill", *SPAN, "--dry-run", "--json"), COMMAND_S, HANGING_S, 1),
        (("run",), DAEMON_S, DRIPPING_S, 0),
    ],
)
def test_a_stop_ends_what_lists_a_bucket_that_hangs_or_drips(
    site: Site, command: tuple[str, ...], within_s: float, every_s: float, code: int
) -> None:
    """A byte now and then keeps any timeout of a read from passing; a command says that it is not done."""
    ended, asked = threading.Event(), threading.Event()

    def serve(connection: socket.socket) -> None:
        asked.set()
        dripping(ended, every_s)(connection)

    with listening(serve) as port:
        site.connector["source"]["endpoint_url"] = f"http://127.0.0.1:{port}"
        process = site.start(*command)
        until(asked.is_set, process)

        out, log = stopped(process, signal.SIGINT, within_s)
        ended.set()

    assert process.returncode == code
    assert "Traceback" not in log
    assert "--json" not in command or json.loads(out)["error"]


@pytest.mark.parametrize("command", ["once", "status"])
def test_ctrl_c_ends_a_command_that_waits_for_a_locked_ledger(site: Site, command: str) -> None:
    """SQLite waits for 30 s, and takes no signal meanwhile."""
    site.put_sample(count=1)
    site.once()
    with sqlite3.connect(site.folder / "ledger.sqlite3", isolation_level=None) as lock:
        lock.execute("BEGIN IMMEDIATE")
        process = site.start(command)
        with pytest.raises(subprocess.TimeoutExpired):  # it is there, and waits
            process.wait(5)

        stopped(process, signal.SIGINT, COMMAND_S)

    assert process.returncode != 0


@pytest.mark.parametrize("command", ["once", "reconcile"])
def test_ctrl_c_ends_a_command_while_s3_hangs(site: Site, embedded_s3: S3Endpoint, command: str) -> None:
    """In the middle of an answer; what it has to say is still one document."""
    site.put_sample(count=1)
    site.once()
    with FaultyS3(embedded_s3, repeat(S3Fault.SLOW), slow_s=600) as s3:
        site.connector["source"]["endpoint_url"] = s3.url
        process = site.start(command, "--json")
        until(lambda: s3.requests > 0, process)
        began = time.monotonic()
        process.send_signal(signal.SIGINT)
        out, log = process.communicate(timeout=TIMEOUT_S)
        assert time.monotonic() - began < COMMAND_S, log

    assert process.returncode == 1
    assert "error" in json.loads(out)


def test_sigterm_ends_a_daemon_while_s3_hangs(site: Site, embedded_s3: S3Endpoint) -> None:
    """It ends well: what is not done is done by the next start."""
    site.put_sample(count=1)
    with FaultyS3(embedded_s3, repeat(S3Fault.SLOW), slow_s=600) as s3:
        site.connector["source"]["endpoint_url"] = s3.url
        process = site.start("run")
        until(lambda: s3.requests > 0, process)
        log = stopped(process, signal.SIGTERM, DAEMON_S)

    assert process.returncode == 0, log
