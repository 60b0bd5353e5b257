"""`once`: everything that is due is delivered once, and nothing twice."""

import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest

from currents_bridge.events.catalogue import supported_types
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import Progress
from currents_bridge.testing.currents_files import make_events, object_key, schema_of, write_container
from tests.installation import HOUR, TIMEOUT_S, Site, this_hour

CLICK = "users.messages.email.Click"
OPEN = "users.messages.email.Open"


def test_once_delivers_and_a_second_once_sends_nothing(site: Site) -> None:
    """The ledger remembers what was delivered."""
    site.put_sample(CLICK, 30, anonymous_share=0.3)
    site.put_sample(OPEN, 20, layout="version", codec="snappy", prefix="")
    first = site.once()
    assert first["objects"] == {"discovered": 2, "delivered": 2, "failed": 0, "quarantined": 0}
    books = first["events"]
    assert books["read"] == 50 == books["sent"] + books["skipped_anonymous"]
    assert len(site.collector.messages) == books["sent"] > 0
    assert not site.collector.rejected
    second = site.once()
    assert second["objects"] == {"discovered": 0, "delivered": 0, "failed": 0, "quarantined": 0}
    assert site.collector.request_count == first["batches"] == 1


def test_small_files_share_a_request(site: Site) -> None:
    """Requests grow with bytes, not with files."""
    for offset in range(25):
        site.put_sample(CLICK, 2, seed=offset, offset=offset)
    assert (site.once()["batches"], len(site.collector.by_id)) == (1, 50)


def test_every_supported_type_is_delivered_by_default(site: Site) -> None:
    """The 55 types of the connector that this program takes the place of."""
    for event_type in supported_types():
        site.put_sample(event_type, 3)
    assert site.once()["objects"]["delivered"] == 55
    assert len(site.collector.by_id) == 165


def test_types_that_are_not_included_are_left_alone(site: Site) -> None:
    """`events.include` decides."""
    site.put_sample(CLICK, 3)
    site.put_sample("users.behaviors.app.SessionStart", 4)
    assert site.once()["events"]["read"] == 3
    site.connector["events"] = {"include": ["supported", "users.behaviors.*"]}
    assert site.once()["events"]["read"] == 4


def test_a_file_that_comes_late_into_the_hot_window_is_delivered(site: Site) -> None:
    """Files land in an hour after it has ended."""
    site.put_sample(offset=100000, seed=1)
    site.once()
    site.put_sample(offset=99999, seed=2)
    site.put_sample(hour=this_hour() - 5 * HOUR, seed=3)
    assert site.once()["objects"]["delivered"] == 2


def test_a_file_that_comes_late_into_an_old_hour_is_found_by_the_audit(site: Site) -> None:
    """It lists everything, once a day."""
    site.put_sample(seed=1)
    site.once()
    site.put_sample(hour=this_hour() - 30 * HOUR, seed=2)
    assert site.once()["objects"]["delivered"] == 0
    ledger = SqlLedger(site.ledger_url, now=datetime.now(UTC))
    ledger.save_progress("production", Progress(audited_at=datetime.now(UTC) - timedelta(hours=25)))
    ledger.close()
    assert site.once()["objects"]["delivered"] == 1


def test_a_misspelt_prefix_is_told_and_costs_nothing_once_it_is_corrected(site: Site) -> None:
    """The first look found nothing, so it was none: nine files of long ago are delivered by the next one."""
    for day in range(9):
        site.put_sample(hour=this_hour() - day * 24 * HOUR, seed=day, prefix="braze/")
    site.connector["source"]["prefix"] = "brase/"
    assert site.once(exit_code=1)["objects"]["delivered"] == 0
    status = site.json("status")["connectors"]["production"]
    assert (status["last_poll"]["complete"], status["last_audit"]["at"]) == (False, None)
    assert "brase/" in status["last_poll"]["error"]
    assert site.run("check").returncode == 1
    site.connector["source"]["prefix"] = "braze/"
    assert site.once()["objects"]["delivered"] == 9
    status = site.json("status")["connectors"]["production"]
    assert (status["last_poll"]["error"], status["last_audit"]["verdict"]) == (None, "well")


def test_an_event_that_stands_in_two_files_is_sent_once(site: Site) -> None:
    """Braze delivers at least once."""
    schema = schema_of(CLICK)
    events = make_events(CLICK, 10, seed=1, hour=this_hour(), anonymous_share=0)
    site.put(object_key(CLICK, this_hour(), offset=1), write_container(schema, events))
    site.put(object_key(CLICK, this_hour(), offset=2), write_container(schema, events[5:]))
    books = site.once()["events"]
    assert (books["sent"], books["deduplicated"]) == (10, 5)
    assert (len(site.collector.messages), site.collector.duplicates) == (10, 0)


def test_a_changed_object_is_reported_and_not_sent_again(site: Site) -> None:
    """A new ETag under a delivered key is for a person to judge."""
    key = site.put_sample(count=5, seed=1)
    site.once()
    site.put(key, write_container(schema_of(CLICK), make_events(CLICK, 5, seed=2, hour=this_hour())))
    assert site.once(exit_code=4)["objects"]["delivered"] == 0
    (notice,) = site.json("status")["connectors"]["production"]["notices"]
    assert (notice["kind"], notice["subject"]) == ("object_changed", CLICK)
    assert key in notice["detail"]


def test_several_integrations_under_a_prefix_are_one_source(site: Site) -> None:
    """Each integration has its folder."""
    site.connector["source"]["prefix"] = "braze/eu"
    site.put_sample(count=3, seed=1, prefix="braze/eu/", integration="aaa")
    site.put_sample(count=4, seed=2, prefix="braze/eu/", integration="bbb")
    site.put_sample(count=5, seed=3, prefix="braze/us/", integration="ccc")
    assert site.once()["events"]["sent"] == 7


def test_start_from_now_leaves_the_history_alone(site: Site) -> None:
    """Only hours from the first run on are delivered."""
    site.connector["source"]["start_from"] = "now"
    site.put_sample(hour=this_hour() - 3 * HOUR, seed=1)
    site.put_sample(count=4, seed=2)
    assert site.once()["events"]["read"] == 4


def test_an_unknown_type_is_reported_and_can_be_included(site: Site) -> None:
    """A type that Braze adds is not lost."""
    new = "users.messages.carrierpigeon.Send"
    site.put_sample(new, 6)
    assert site.once()["events"]["read"] == 0
    status = site.json("status")["connectors"]["production"]
    assert status["unknown_event_types"] == [new]
    done = site.run("check")
    assert f"not in the catalogue: {new}" in done.stdout
    site.connector["events"] = {"include": ["supported", "users.messages.carrierpigeon.*"]}
    assert site.once()["events"]["sent"] == 6
    assert {message["event"] for message in site.collector.messages} == {"Carrierpigeon Send"}


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard"])
def test_a_large_object_is_delivered_in_slices(site: Site, codec: str) -> None:
    """More events than a slice or a batch holds."""
    site.put_sample(CLICK, 12_000, codec=codec)
    report = site.once()
    assert report["events"]["sent"] == len(site.collector.by_id) == 12_000
    assert report["batches"] > 20


def test_the_sdk_transport_delivers_the_same(site: Site) -> None:
    """`transport: sdk` goes through segment-analytics-python."""
    site.connector["destination"]["transport"] = "sdk"
    site.put_sample(CLICK, 700, anonymous_share=0.2)
    books = site.once()["events"]
    assert books["sent"] == len(site.collector.by_id)
    assert site.collector.duplicates == 0
    assert site.collector.messages[0]["context"]["library"]["name"] == "analytics-python"


def test_two_processes_on_one_ledger_share_the_work(site: Site) -> None:
    """No object is delivered twice, none is left."""
    for offset in range(60):
        site.put_sample(CLICK, 100, seed=offset, offset=offset)
    site.config["delivery"]["workers"] = 1
    processes = [site.start("once", "--json") for _ in range(2)]
    reports = [json.loads(process.communicate(timeout=TIMEOUT_S)[0]) for process in processes]
    delivered = [report["connectors"]["production"]["objects"]["delivered"] for report in reports]
    assert sum(delivered) == 60
    assert (len(site.collector.by_id), site.collector.duplicates) == (6000, 0)


def test_two_connectors_have_their_own_rules(site: Site) -> None:
    """One of them skips anonymous users, the other sends them with a prefix on each id."""
    site.put_sample(CLICK, 50, anonymous_share=0.4)
    second = json.loads(json.dumps(site.connector)) | {"name": "second", "anonymous_users": "send"}
    second["destination"]["message_id_prefix"] = "b-"
    site.config["connectors"].append(second)
    reports = site.json("once")["connectors"]
    assert reports["second"]["events"]["sent"] == 50 > reports["production"]["events"]["sent"]
    prefixed = Counter(message["messageId"].startswith("b-") for message in site.collector.messages)
    assert prefixed == {True: 50, False: reports["production"]["events"]["sent"]}
