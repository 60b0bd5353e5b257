"""What history costs: bytes on the disk, and rows that a look at the bucket reads."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import event

from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import ClaimedObject, CurrentsObject, LetterFilter, Reclaimed
from tests.ledger_workbench import BOTH, EVER, HOUR, NO_LIMITS, NOW, an_object, claim, deliver, objects


def listing(hours: int, objects_an_hour: int) -> list[CurrentsObject]:
    """Return objects of as many hours before HOUR."""
    return [
        an_object(f"date={hour:03}/{number:04}.avro", hour=HOUR - timedelta(hours=hour))
        for hour in range(hours)
        for number in range(objects_an_hour)
    ]


def size_after_folding(path: Path, listed: list[CurrentsObject]) -> int:
    """Return the bytes of a ledger that has delivered and folded the objects."""
    ledger = SqlLedger(f"sqlite:///{path}", now=NOW)
    while listed:
        deliver(ledger, *listed[:500])
        listed = listed[500:]
    ledger.fold("acme", NOW, EVER)
    ledger.close()
    return path.stat().st_size


@pytest.mark.parametrize("objects_an_hour", [19, 93, 400])
def test_a_folded_object_costs_at_most_20_bytes(tmp_path: Path, objects_an_hour: int) -> None:
    """So 10 million of them take 200 MB, with the rows of their hours, however many of them an hour has.

    93 an hour are the worst case of a fold that SQLite keeps outside its page: it did cost 48 bytes.
    """
    empty_bytes = size_after_folding(tmp_path / "empty", [])
    listed = listing(3_700 // objects_an_hour, objects_an_hour)
    assert size_after_folding(tmp_path / "full", listed) - empty_bytes <= 20 * len(listed)


@contextmanager
def plans(ledger: SqlLedger) -> Iterator[list[str]]:
    """Collect how SQLite carries out each statement."""
    steps: list[str] = []
    engine = ledger._store._engine

    def explain(_1: object, cursor: object, statement: str, parameters: object, _2: object, many: bool) -> None:  # noqa: FBT001
        if statement.startswith(("SELECT", "UPDATE", "DELETE")):
            one = parameters[0] if many else parameters  # type: ignore[index]
            rows = cursor.connection.execute(f"EXPLAIN QUERY PLAN {statement}", one)  # type: ignore[attr-defined]
            steps.extend(row[3] for row in rows)

    event.listen(engine, "before_cursor_execute", explain)
    yield steps
    event.remove(engine, "before_cursor_execute", explain)


@contextmanager
def texts(ledger: SqlLedger) -> Iterator[set[str]]:
    """Collect the statements that SQLite is asked to prepare."""
    found: set[str] = set()

    def note(_1: object, _2: object, statement: str, *_3: object) -> None:
        found.add(statement)

    event.listen(ledger._store._engine, "before_cursor_execute", note)
    yield found
    event.remove(ledger._store._engine, "before_cursor_execute", note)


def whole_reads(steps: list[str]) -> list[str]:
    """Return the steps that read all that is held, or all of a connector, which mostly is as much."""
    of_history = ("objects", "hours", "folds", "dead_letters", "sent_messages")
    scans = tuple(f"SCAN {table}" for table in of_history)
    by_connector = tuple(f"SEARCH {table} USING INDEX sqlite_autoindex_{table}_1 (connector=?)" for table in of_history)
    return [step for step in steps if step.startswith(scans + by_connector)]


def test_nothing_reads_a_whole_table_of_history(tmp_path: Path) -> None:
    """A look, a delivery, a fold and a report all find their rows by an index, folded or not."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)
    deliver(ledger, *objects(3))
    ledger.fold("acme", NOW, EVER)
    with plans(ledger) as steps:
        ledger.admit("acme", objects(5), NOW)
        ledger.recorded("acme", objects(5))
        deliver(ledger, *objects(6))
        claim(ledger)
        ledger.totals("acme")
        ledger.hour_books("acme", BOTH)
        ledger.fold("acme", NOW, EVER)
        ledger.reopen("acme", [*objects(2)], NOW)
        ledger.reclaim("acme", NOW)
        ledger.undelivered("acme")
    ledger.close()
    assert any(step.startswith("SEARCH folds") for step in steps)
    assert whole_reads(steps) == []


def test_totals_read_no_object_and_no_hour(tmp_path: Path) -> None:
    """A status and an idle hour cost the same after years, and with 200,000 quarantined."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)
    deliver(ledger, *objects(3))
    with plans(ledger) as steps:
        ledger.totals("acme")
        ledger.books_by_type("acme")
        ledger.undelivered("acme")
    ledger.close()
    assert not [step for step in steps if "hours" in step or "objects" in step.removesuffix("totals.objects")]


def test_the_rhythm_of_a_week_reads_that_week(tmp_path: Path) -> None:
    """The newest hour is found from the end, and what came before the week is not read."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)
    deliver(ledger, *objects(3))
    with plans(ledger) as steps:
        ledger.newest_hour("acme", BOTH.event_types, NOW)
        ledger.activity("acme", HOUR, NOW)
    ledger.close()
    of_hours = [step for step in steps if step.startswith(("SEARCH hours", "SEARCH objects"))]
    assert len(of_hours) == 4
    assert all("(connector=? AND hour" in step for step in of_hours)
    assert not [step for step in steps if "ORDER BY" in step]


@pytest.mark.parametrize("resend", [False, True])
def test_a_claim_reads_its_lane_in_order(tmp_path: Path, resend: bool) -> None:  # noqa: FBT001
    """So no further than the group, whatever waits: nothing is sorted, and nothing else is passed over."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)
    ledger.admit("acme", objects(3), NOW)
    with plans(ledger) as steps:
        ledger.claim("acme", replace(BOTH, resend=resend), NO_LIMITS, NOW)
    ledger.close()
    of_objects = [step for step in steps if " objects" in step]
    indexes = {step.split("INDEX ")[1].split(" ")[0] for step in of_objects if "INDEX" in step}
    assert indexes - {"objects_pending_resent"} == {"objects_pending", "objects_failed"}
    assert not [step for step in steps if "TEMP B-TREE" in step or step.startswith("SCAN objects")]


def test_what_is_known_is_looked_up_without_a_lock(tmp_path: Path) -> None:
    """An idle poll keeps no other writer waiting, and waits for none: nothing new, due or dead is only looked for."""
    url = f"sqlite:///{tmp_path / 'ledger'}"
    ledger = SqlLedger(url, now=NOW, busy_timeout_s=0.1)
    deliver(ledger, *objects(500))
    with closing(sqlite3.connect(tmp_path / "ledger")) as other:
        other.execute("BEGIN IMMEDIATE")
        assert ledger.admit("acme", objects(500), NOW) == (0, [])
        assert claim(ledger) == []
        assert ledger.reclaim("acme", NOW) == Reclaimed()
        other.rollback()
    ledger.close()


def test_a_page_that_was_known_whole_is_not_looked_up_again(tmp_path: Path) -> None:
    """An idle poll lists what the one before listed: thousands of objects, of which each was known."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)
    deliver(ledger, *objects(3))
    ledger.admit("acme", objects(3), NOW)
    with texts(ledger) as statements:
        assert ledger.admit("acme", objects(3), NOW) == (0, [])
    assert not statements
    assert ledger.admit("beta", objects(3), NOW) == (3, [])
    ledger.close()


def test_a_page_is_looked_up_again_once_an_object_took_another_etag(tmp_path: Path) -> None:
    """So one that is put back as it was before is as new once more, or sent again."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)
    before, after = an_object("a"), replace(an_object("a"), etag="etag-2")
    for listed in (before, before, after, before):
        ledger.admit("acme", [listed], NOW)
    assert [claimed.object for claimed in claim(ledger)] == [before]
    ledger.close()


def test_a_page_is_looked_up_again_once_something_was_reopened(tmp_path: Path) -> None:
    """It may have taken another ETag by that, or be sent again."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)
    deliver(ledger, *objects(3))
    for reopen in (ledger.reopen, lambda name, items, now: ledger.redeliver(name, items, EVER, now)):
        ledger.admit("acme", objects(3), NOW)
        reopen("acme", objects(1), NOW)
        with texts(ledger) as statements:
            ledger.admit("acme", objects(3), NOW)
        assert statements
    ledger.close()


def test_statements_are_as_many_whatever_the_numbers_of_objects(tmp_path: Path) -> None:
    """SQLite and SQLAlchemy keep each statement: one for each size of a listing would fill the memory of a daemon."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)

    def work(count: int) -> set[str]:
        listed = [an_object(f"{count}-{number}") for number in range(count)]
        with texts(ledger) as found:
            deliver(ledger, *listed)
            ledger.admit("acme", [*listed, an_object(f"{count}-more")], NOW)
            ledger.release([claimed.id for claimed in claim(ledger)])
            ledger.recorded("acme", listed)
            ledger.outstanding("acme", listed)
            ledger.reopen("acme", listed, NOW)
            ledger.known("acme", ClaimedObject(0, listed[0], 0), pl.Series([item.key for item in listed]))
            ledger.purge(LetterFilter(ids=frozenset(range(count))))
        return found

    known = work(2) | work(150)
    assert work(3) <= known
    assert work(37) <= known
    assert work(409) <= known
    ledger.close()


@pytest.mark.parametrize(
    "which", [LetterFilter(), LetterFilter("acme"), LetterFilter("acme", since=NOW), LetterFilter(event_type="users.*")]
)
def test_a_page_of_dead_letters_is_read_by_id(tmp_path: Path, which: LetterFilter) -> None:
    """So each page reads its own letters: of 100,000, no page sorts them all."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)
    with plans(ledger) as steps:
        ledger.dead_letters(which, 500, after=7)
        ledger.purge(which)
    ledger.close()
    assert {step for step in steps if "dead_letters" in step} == {
        "SEARCH dead_letters USING INTEGER PRIMARY KEY (rowid>?)",
        "SEARCH dead_letters USING INTEGER PRIMARY KEY (rowid=?)",
    }
    assert not [step for step in steps if "TEMP B-TREE" in step]


def test_no_command_reads_a_whole_table_of_history(tmp_path: Path) -> None:
    """What is asked while a side fails, for a screen, or by a person finds its rows by an index, too."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger'}", now=NOW)
    deliver(ledger, *objects(3))
    with plans(ledger) as steps:
        ledger.books_by_type("acme")
        ledger.dead_lettered("acme", HOUR, NOW)
        ledger.count_dead_letters(LetterFilter("acme"))
        ledger.claim_canary("acme", BOTH, NOW)
        ledger.witnesses("acme", 3)
        ledger.quarantined("acme")
        ledger.hasten("acme", BOTH)
        ledger.set_aside("acme", HOUR, "old", NOW)
        ledger.exclude("acme", BOTH.event_types)
        ledger.outstanding("acme", objects(5))
        ledger.owed("acme", "a", "z", 10)
        ledger.forget("acme", HOUR)
        ledger.rewind("acme", HOUR, NOW)
        ledger.redeliver("acme", objects(2), HOUR, NOW)
        ledger.leave_resent("acme")
        ledger.release([1])
        ledger.spare([1])
        ledger.replay_quarantined([1], NOW)
        ledger.replayed({1: None, 2: "too large"}, NOW)
    ledger.close()
    assert whole_reads(steps) == []
