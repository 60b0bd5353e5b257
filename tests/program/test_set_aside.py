"""Dead letters and quarantine: what cannot be delivered is kept, shown, and delivered once it can be."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from itertools import repeat
from typing import Any

import pytest

from currents_bridge.testing.currents_files import make_events, object_key, schema_of, write_container
from currents_bridge.testing.embedded_s3 import S3Endpoint
from currents_bridge.testing.faults import FaultSchedule
from currents_bridge.testing.faulty_s3 import FaultyS3
from tests.installation import Site, this_hour

CLICK = "users.messages.email.Click"
EVENTS = make_events(CLICK, 1_000, seed=1, hour=this_hour(), anonymous_share=0)
LONG, BAD = 3, 700  # rows
BAD_ID = EVENTS[BAD]["id"]
OUTCOMES = ("sent", "refused", "gone")  # of a replay
KEY = object_key(CLICK, this_hour())
GOOD = write_container(schema_of(CLICK), EVENTS)


def books(site: Site) -> dict[str, int]:
    """Return what `status` says of events."""
    events: dict[str, int] = site.json("status")["connectors"]["production"]["events"]
    return events


def letters(site: Site, *options: str) -> list[dict[str, Any]]:
    """Return what `dead-letters list` shows."""
    found: list[dict[str, Any]] = site.json("dead-letters", "list", *options)["dead_letters"]
    return found


def quarantined(site: Site) -> dict[str, Any]:
    """Return the only quarantined object."""
    (item,) = site.json("quarantine", "list")["quarantine"]
    assert isinstance(item, dict)
    return item


@pytest.fixture
def with_letters(site: Site) -> Site:
    """An installation with an event over 32 KB and one that Segment refuses, among a thousand; all was delivered."""
    site.collector.answer_with(FaultSchedule(1, share=0, refuse=lambda message: message["messageId"] == BAD_ID))
    rows = [{**event, "url": "x" * 40_000} if row == LONG else event for row, event in enumerate(EVENTS)]
    site.put(KEY, write_container(schema_of(CLICK), rows))
    report = site.once(exit_code=4)
    assert (report["events"]["sent"], report["events"]["dead_lettered"]) == (998, 2)
    return site


def test_dead_letters_tell_what_where_and_why(with_letters: Site) -> None:
    """`list` by reason and type, `show` with the event whole; all else is delivered."""
    assert len(with_letters.collector.by_id) == 998
    long, bad = sorted(letters(with_letters), key=lambda letter: letter["row"])
    assert [(letter["object_key"], letter["row"]) for letter in (long, bad)] == [(KEY, LONG), (KEY, BAD)]
    assert "32" in long["reason"]
    assert "400" in bad["reason"]
    assert letters(with_letters, "--reason", "400", "--event-type", "*.Click") == [bad]
    assert letters(with_letters, "--event-type", "*.Open") == []
    shown = with_letters.run("dead-letters", "show", str(bad["id"]))
    assert BAD_ID in shown.stdout
    assert with_letters.run("dead-letters", "show", "999").returncode == 2


def test_replay_sends_once_what_is_no_longer_refused_and_moves_the_books(with_letters: Site) -> None:
    """What is refused again stays, and exit 4 says so."""
    with_letters.collector.answer_with(lambda _: None)
    replayed = with_letters.json("dead-letters", "replay", exit_code=4)
    assert {name: replayed[name] for name in OUTCOMES} == {"sent": 1, "refused": 1, "gone": 0}
    assert replayed["error"] == "1 were refused again"
    assert BAD_ID in with_letters.collector.by_id
    assert (books(with_letters)["sent"], books(with_letters)["dead_lettered"]) == (999, 1)
    (left,) = letters(with_letters)
    assert (left["row"], left["attempts"]) == (LONG, 1)
    replayed = with_letters.json("dead-letters", "replay", "--reason", "400")
    assert {name: replayed[name] for name in OUTCOMES} == dict.fromkeys(OUTCOMES, 0)
    assert (len(with_letters.collector.by_id), with_letters.collector.duplicates) == (999, 0)


def test_purge_deletes_letters_and_leaves_the_books(with_letters: Site) -> None:
    """Only with a yes."""
    assert with_letters.run("dead-letters", "purge").returncode != 0
    assert len(letters(with_letters)) == 2
    assert "2 deleted" in with_letters.run("dead-letters", "purge", "--yes").stdout
    assert letters(with_letters) == []
    assert books(with_letters)["dead_lettered"] == 2


def test_a_damaged_object_gives_its_readable_events_and_the_good_one_replaces_it(site: Site) -> None:
    """The quarantine says how many blocks and events are missing; once it is written again the whole file counts."""
    middle = len(GOOD) // 2
    site.put(KEY, GOOD[:middle] + b"\xff" * 64 + GOOD[middle + 64 :])
    report = site.once(exit_code=4)
    readable = report["events"]["sent"]
    assert readable == len(site.collector.by_id)
    assert 900 < readable < 1_000
    item = quarantined(site)
    assert item["key"] == KEY
    assert f"blocks is unreadable ({1_000 - readable} events)" in item["reason"]
    site.put(KEY, GOOD)
    assert site.once()["objects"]["delivered"] == 1
    assert (len(site.collector.by_id), site.collector.duplicates) == (1_000, readable)
    assert books(site)["sent"] == books(site)["read"] == 1_000
    assert site.json("reconcile")["connectors"]["production"]["differences"] == []


def test_an_object_that_is_gone_is_reported_and_not_asked_for_again(site: Site, embedded_s3: S3Endpoint) -> None:
    """Deleted between listing and reading; the bucket holds another one."""
    site.put_sample("users.messages.email.Open", 3)
    site.put(KEY, GOOD)
    s3 = embedded_s3.client()

    def no_fault_but_a_deletion() -> Iterator[None]:
        with closing(sqlite3.connect(site.folder / "ledger.sqlite3", check_same_thread=False)) as ledger:
            while ledger.execute("SELECT count(*) FROM objects").fetchone() == (0,):
                yield None
        s3.delete_object(Bucket=site.bucket, Key=KEY)
        yield from repeat(None)

    with FaultyS3(embedded_s3, no_fault_but_a_deletion()) as proxy:
        site.connector["source"]["endpoint_url"] = proxy.url
        assert site.once(exit_code=4)["objects"] == {"discovered": 2, "delivered": 1, "failed": 0, "quarantined": 1}
    item = quarantined(site)
    assert (item["key"], item["events"]["read"]) == (KEY, 0)
    assert "gone" in item["reason"]
    site.connector["source"]["endpoint_url"] = embedded_s3.url
    assert site.once(exit_code=4)["objects"] == {"discovered": 0, "delivered": 0, "failed": 0, "quarantined": 0}
    assert site.collector.request_count == 1


def test_a_lone_refused_message_is_set_aside_by_repeated_once_and_told_on_replay(site: Site) -> None:
    """Each process is another one; what an earlier one had acknowledged proves that it is the message."""
    site.put(object_key(CLICK, this_hour(), offset=1), write_container(schema_of(CLICK), EVENTS[:10]))
    site.once()
    site.collector.answer_with(FaultSchedule(1, share=0, refuse=lambda message: message["messageId"] == BAD_ID))
    site.put(object_key(CLICK, this_hour(), offset=2), write_container(schema_of(CLICK), [EVENTS[BAD]]))

    assert site.once(exit_code=4)["events"]["dead_lettered"] == 1
    replayed = site.json("dead-letters", "replay", exit_code=4)
    assert {name: replayed[name] for name in OUTCOMES} == {"sent": 0, "refused": 1, "gone": 0}
    assert "answered 400" in str(replayed["reasons"])
    assert site.once(exit_code=4)["events"]["dead_lettered"] == 0
