"""Crashes: killed at any moment, nothing is lost, little is sent twice, and the books balance."""

import signal
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, contextmanager

from currents_bridge.testing.collector import Answer, RequestInfo
from currents_bridge.testing.currents_files import large_file, object_key
from currents_bridge.testing.embedded_s3 import S3Endpoint
from currents_bridge.testing.faulty_s3 import FaultyS3, S3Fault
from tests.installation import TIMEOUT_S, Site, this_hour, until

CLICK = "users.messages.email.Click"


def kill(process: subprocess.Popen[str]) -> None:
    """End a process at once, as the kernel does when memory is short."""
    process.kill()
    process.communicate()


def assert_complete(site: Site, events: int) -> None:
    """Each event arrived and counts once, and `reconcile` proves it."""
    assert len(site.collector.by_id) == events
    part = site.json("reconcile")["connectors"]["production"]
    assert (part["events"]["read"], part["events"]["sent"]) == (events, events)


def ledger(site: Site) -> sqlite3.Connection:
    """Return a connection of the test's own to the ledger."""
    return sqlite3.connect(site.folder / "ledger.sqlite3", isolation_level=None)


@contextmanager
def locked(site: Site) -> Iterator[None]:
    """Let nobody write to the ledger meanwhile."""
    with closing(ledger(site)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


def test_killed_in_send_again_and_again_the_next_once_delivers(site: Site) -> None:
    """Nothing that Segment did not answer is taken as sent, and no object is blamed for the kills."""
    for offset in range(3):
        site.put_sample(count=100, seed=offset, offset=offset)
    for _ in range(3):
        site.collector.answer_with(lambda _: Answer(delay_s=600, reset="before"))
        asked = site.collector.request_count
        process = site.start("once")
        until(lambda: site.collector.request_count > asked, process)  # noqa: B023
        kill(process)
    site.collector.answer_with(lambda _: None)
    assert site.once()["objects"] == {"discovered": 0, "delivered": 3, "failed": 0, "quarantined": 0}
    assert_complete(site, 300)
    assert site.collector.duplicates == 0


def test_killed_between_acknowledgement_and_settling_all_is_sent_again_with_the_same_ids(site: Site) -> None:
    """The ledger does not know that they arrived; Segment knows their ids."""
    site.make_ledger()
    for offset in range(3):
        site.put_sample(count=100, seed=offset, offset=offset)
    site.collector.answer_with(lambda _: Answer(delay_s=0.5))
    process = site.start("once")
    until(lambda: site.collector.request_count == 1, process)
    with locked(site):
        until(lambda: len(site.collector.requests) == 1, process)
        kill(process)
    assert len(site.collector.by_id) == 300
    site.collector.answer_with(lambda _: None)
    assert site.once()["events"]["sent"] == 300
    assert_complete(site, 300)
    assert site.collector.duplicates == 300


def test_killed_in_a_large_object_the_next_run_goes_on_from_its_checkpoint(site: Site) -> None:
    """Only what was acknowledged behind the checkpoint is sent twice."""
    site.connector["anonymous_users"] = "send"
    site.put(object_key(CLICK, this_hour()), large_file(CLICK, 60_000, 1, hour=this_hour()))

    def take_two_thirds(_: RequestInfo) -> Answer | None:
        return Answer(delay_s=600, reset="before") if site.collector.event_count >= 40_000 else None

    site.collector.answer_with(take_two_thirds)
    process = site.start("once")
    until(lambda: site.collector.event_count >= 40_000, process)
    with closing(ledger(site)) as connection:
        until(lambda: checkpoint(connection) >= 20_000, process)
        kill(process)
        behind = checkpoint(connection)
    arrived = len(site.collector.by_id)
    site.collector.answer_with(lambda _: None)
    assert site.once()["objects"]["delivered"] == 1
    assert_complete(site, 60_000)
    assert site.collector.duplicates == arrived - behind


def checkpoint(connection: sqlite3.Connection) -> int:
    """Return the rows that the only object's checkpoint has."""
    [(rows,)] = connection.execute("SELECT checkpoint_rows FROM objects")
    return int(rows)


def test_a_process_that_is_killed_beside_another_costs_that_one_nothing(site: Site) -> None:
    """The survivor ends well, and the next run sends what the other left."""
    site.config["delivery"] |= {"max_in_flight": 1, "requests_per_second": 10, "max_batch_events": 200}
    for offset in range(20):
        site.put_sample(count=200, seed=offset, offset=offset)
    victim = site.start("once")
    until(lambda: site.collector.request_count >= 1, victim)
    for offset in range(20, 40):  # the victim has claimed all that was there
        site.put_sample(count=200, seed=offset, offset=offset)
    survivor = site.start("once")
    until(lambda: site.collector.request_count >= 8, victim)
    kill(victim)
    _, log = survivor.communicate(timeout=TIMEOUT_S)
    assert survivor.returncode == 0, log
    site.once()
    assert_complete(site, 8_000)
    assert site.collector.duplicates < 4_000


def test_killed_in_fetch_again_and_again_the_next_once_delivers(site: Site, embedded_s3: S3Endpoint) -> None:
    """A process that is killed while it waits for bytes proves nothing against the object."""
    site.make_ledger()
    key = site.put_sample(CLICK, 10)
    killed: set[str | None] = {None}

    def slow_while_claimed() -> Iterator[S3Fault | None]:
        while True:
            yield S3Fault.SLOW if owner_of(site, key) not in killed else None

    with FaultyS3(embedded_s3, slow_while_claimed(), slow_s=600) as slow:
        site.connector["source"]["endpoint_url"] = slow.url
        for _ in range(3):
            begun = slow.served[S3Fault.SLOW]
            process = site.start("once")
            until(lambda: slow.served[S3Fault.SLOW] > begun, process)  # noqa: B023
            kill(process)
            killed.add(owner_of(site, key))
    site.connector["source"]["endpoint_url"] = embedded_s3.url
    assert site.once()["objects"]["delivered"] == 1
    assert_complete(site, 10)


def owner_of(site: Site, key: str) -> str | None:
    """Return who claims an object."""
    with closing(ledger(site)) as connection:
        row = connection.execute("SELECT owner FROM objects WHERE key = ?", (key,)).fetchone()
    return str(row[0]) if row and row[0] else None


DIES_ON_CLICKS = """
import os, signal
from currents_bridge.events.mapping import Mapper

unharmed = Mapper.map_together

def harmful(self, events, event_type, origins, **told):
    if any("Click" in origin.object_key for origin in origins):
        os.kill(os.getpid(), signal.SIGKILL)
    return unharmed(self, events, event_type, origins, **told)

Mapper.map_together = harmful
"""


def test_an_object_that_takes_the_process_down_in_three_trials_is_set_aside(site: Site) -> None:
    """One poison file cannot stop the bridge: the others are delivered, with a process that still dies on it."""
    (site.folder / "sitecustomize.py").write_text(DIES_ON_CLICKS)
    environ = {"PYTHONPATH": str(site.folder)}
    poison = site.put_sample(CLICK, 10)
    site.put_sample("users.messages.email.Open", 20)
    site.config["delivery"]["workers"] = 1  # so that the other object is never tried beside it
    exits = [site.run("once", environ=environ).returncode for _ in range(5)]
    assert exits == [-signal.SIGKILL] * 4 + [4]
    assert len(site.collector.by_id) == 20
    (item,) = site.json("quarantine", "list")["quarantine"]
    assert item["key"] == poison
    assert "ended in 3 trials" in item["reason"]
    assert "quarantine replay" in item["reason"]
