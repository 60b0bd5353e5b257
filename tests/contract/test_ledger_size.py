"""What history costs: bytes on the disk, and rows that a look at the bucket reads."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import event

from currents_bridge.adapters.ledger import SqlLedger
from currents_bridge.model import CurrentsObject
from tests.ledger_workbench import BOTH, EVER, HOUR, NOW, an_object, claim, deliver, objects


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
    ledger.close()
    assert any(step.startswith("SEARCH folds") for step in steps)
    assert not [step for step in steps if step.startswith(("SCAN hours", "SCAN objects", "SCAN folds"))]
