"""`reconcile`: the proof that what the bucket holds was delivered."""

from datetime import timedelta

import pytest

from currents_bridge.testing.currents_files import make_events, object_key, schema_of, write_container
from tests.installation import HOUR, Site, this_hour

CLICK = "users.messages.email.Click"
OPEN = "users.messages.email.Open"


@pytest.fixture
def delivered(site: Site) -> Site:
    """An installation that has delivered a file of clicks of this hour and one of opens of the hour before."""
    site.put_sample(CLICK, 20, anonymous_share=0.3)
    site.put_sample(OPEN, 10, hour=this_hour() - HOUR)
    site.once()
    return site


def test_after_delivery_each_type_and_hour_balances(delivered: Site) -> None:
    """Exit 0, and the numbers are those of the collector."""
    part = delivered.json("reconcile")["connectors"]["production"]
    assert part["differences"] == []
    assert {state: count for state, count in part["objects"].items() if count} == {"delivered": 2}
    hours = {hour["event_type"]: hour for hour in part["hours"]}
    assert (hours[CLICK]["read"], hours[OPEN]["read"]) == (20, 10)
    assert 0 < hours[CLICK]["skipped_anonymous"] == 20 - hours[CLICK]["sent"]
    assert part["events"]["sent"] == hours[CLICK]["sent"] + 10 == len(delivered.collector.by_id)
    shown = [delivered.run("reconcile", *options).stdout for options in ((), ("--hours",))]
    assert [f"{this_hour():%Y-%m-%d-%H}" in text for text in shown] == [False, True]


def test_objects_that_are_new_or_changed_are_named(delivered: Site) -> None:
    """Exit 1, in the document and for people, and in no span that does not hold them."""
    new = delivered.put_sample(CLICK, 5, seed=2, offset=2)
    changed = delivered.put_sample(CLICK, 20, seed=3)
    part = delivered.json("reconcile", exit_code=1)["connectors"]["production"]
    details = {difference["subject"]: difference["detail"] for difference in part["differences"]}
    assert details.keys() == {new, changed}
    assert "not in the ledger" in details[new]
    assert "another ETag" in details[changed]
    told = delivered.run("reconcile")
    assert told.returncode == 1
    assert new in told.stderr
    assert changed in told.stderr
    hour_before = ("--from", (this_hour() - HOUR).isoformat(), "--to", this_hour().isoformat())
    assert delivered.json("reconcile", *hour_before)["connectors"]["production"]["events"]["read"] == 10


def test_what_was_deleted_before_it_was_delivered_is_named(delivered: Site) -> None:
    """Exit 4: its events are lost, and nothing else says so."""
    key = delivered.put_sample(CLICK, 5, seed=2, offset=2)
    delivered.connector["destination"]["endpoint_url"] = "http://127.0.0.1:9"
    delivered.once(exit_code=1)
    delivered.delete(key)
    part = delivered.json("reconcile", exit_code=4)["connectors"]["production"]
    assert [(one["kind"], one["subject"]) for one in part["differences"]] == [("gone", key)]
    assert (part["objects"]["gone"], part["objects"]["delivered"]) == (1, 2)
    told = delivered.run("reconcile")
    assert f"{key} was deleted from the bucket before it was delivered" in told.stderr


def test_dead_letters_alone_are_no_difference(site: Site) -> None:
    """Exit 4: all is accounted for, and somebody has to look."""
    rows = make_events(CLICK, 3, seed=1, hour=this_hour(), anonymous_share=0)
    rows[1]["url"] = "x" * 40_000
    site.put(object_key(CLICK, this_hour()), write_container(schema_of(CLICK), rows))
    site.once(exit_code=4)
    part = site.json("reconcile", exit_code=4)["connectors"]["production"]
    assert (part["differences"], part["events"]["dead_lettered"]) == ([], 1)


def test_half_a_span_is_bad_usage(site: Site) -> None:
    """Exit 2, and what to give."""
    done = site.run("reconcile", "--from", (this_hour() - timedelta(days=1)).isoformat())
    assert done.returncode == 2
    assert "--from and --to go together" in done.stderr
