"""Trouble with the ledger's file: each is a LedgerError that says what to do, and after repair everything goes on."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path

import polars as pl
import pytest
from sqlalchemy import event

from currents_bridge.errors import LedgerError
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import Books, Checkpoint, DeadLetter, Delivered, LetterFilter, ObjectState, Settlement
from tests.ledger_workbench import BOTH, EVER, HOUR, NOW, claim, objects, remembered

LETTERS = [DeadLetter(row, f"m-{row}", "too large", "{}" * 3000) for row in range(50)]
IDS = pl.Series([f"id-{number}" for number in range(5000)])
BOOKS = Books(read=100, sent=50, dead_lettered=50)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a ledger that does not exist yet."""
    return tmp_path / "ledger.sqlite3"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqlLedger]:
    """Return a ledger with two objects that wait, and little patience."""
    ledger = SqlLedger(f"sqlite:///{path}", now=NOW, busy_timeout_s=0.05)
    ledger.admit("acme", objects(2), NOW)
    yield ledger
    ledger.close()


@contextmanager
def disk_full(ledger: SqlLedger, _: Path) -> Iterator[None]:
    """Let the file grow no more."""
    with on_each_connection(ledger, "PRAGMA max_page_count = 1"):  # SQLite takes the present size, as it is larger
        yield


@contextmanager
def read_only(ledger: SqlLedger, _: Path) -> Iterator[None]:
    """Refuse every write; file modes would not stop the root user."""
    with on_each_connection(ledger, "PRAGMA query_only = ON"):
        yield


@contextmanager
def locked(_: SqlLedger, path: Path) -> Iterator[None]:
    """Let another program hold the file in the middle of a write."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def on_each_connection(ledger: SqlLedger, pragma: str) -> Iterator[None]:
    """Run a pragma on each connection that the ledger takes from its pool."""
    engine = ledger._store._engine

    def execute(connection: sqlite3.Connection, *_: object) -> None:
        connection.execute(pragma)

    event.listen(engine, "checkout", execute)
    yield
    event.remove(engine, "checkout", execute)
    engine.dispose()


FAULTS = pytest.mark.parametrize(
    ("fault", "said", "hint"),
    [
        (disk_full, "full", "free some space"),
        (read_only, "readonly", "may write"),
        (locked, "locked", "another process"),
    ],
)
Fault = Callable[[SqlLedger, Path], AbstractContextManager[None]]


class TestWriting:
    """A write that fails changes nothing, and can be done again."""

    @FAULTS
    def test_a_settlement(self, ledger: SqlLedger, path: Path, fault: Fault, said: str, hint: str) -> None:
        """Neither the object, nor its books, letters and ids; the claim stays, so it can be settled after all."""
        first, second = claim(ledger)
        settlements: list[Settlement] = [
            Delivered(first.id, BOOKS, LETTERS, IDS),
            Delivered(second.id, BOOKS, LETTERS, IDS),
        ]
        with fault(ledger, path), pytest.raises(LedgerError, match=said) as caught:
            ledger.settle(settlements, NOW)
        assert hint in caught.value.hint
        assert ledger.totals("acme").objects[ObjectState.CLAIMED] == 2
        assert ledger.totals("acme").books == Books()
        assert ledger.dead_letters(LetterFilter()) == []
        assert not remembered(ledger, "acme", IDS).any()
        ledger.settle(settlements, NOW)
        assert ledger.totals("acme").books == BOOKS + BOOKS
        assert remembered(ledger, "acme", IDS).all()

    @FAULTS
    def test_a_checkpoint(self, ledger: SqlLedger, path: Path, fault: Fault, said: str, hint: str) -> None:
        """The object goes on from its last one that was kept."""
        first, _ = claim(ledger)
        reached = Checkpoint(100, BOOKS)
        with fault(ledger, path), pytest.raises(LedgerError, match=said) as caught:
            ledger.checkpoint(first.id, reached, LETTERS, NOW, IDS)
        assert hint in caught.value.hint
        assert ledger.dead_letters(LetterFilter()) == []
        ledger.checkpoint(first.id, reached, LETTERS, NOW, IDS)
        ledger.release([first.id])
        assert [claimed.checkpoint for claimed in claim(ledger)] == [reached]

    @FAULTS
    def test_a_listing(self, ledger: SqlLedger, path: Path, fault: Fault, said: str, hint: str) -> None:
        """All of it is admitted, or none; the next poll brings it again."""
        with fault(ledger, path), pytest.raises(LedgerError, match=said) as caught:
            ledger.admit("acme", objects(3000), NOW)
        assert hint in caught.value.hint
        assert ledger.totals("acme").objects[ObjectState.PENDING] == 2
        assert ledger.admit("acme", objects(3000), NOW) == (2998, [])

    @pytest.mark.parametrize("fault", [read_only, locked])
    def test_a_claim(self, ledger: SqlLedger, path: Path, fault: Fault) -> None:
        """What cannot be claimed on record is not handed out; a claim needs no room on the disk."""
        with fault(ledger, path), pytest.raises(LedgerError):
            claim(ledger)
        assert len(claim(ledger)) == 2

    @pytest.mark.parametrize("fault", [disk_full, read_only, locked])
    def test_reading_goes_on(self, ledger: SqlLedger, path: Path, fault: Fault) -> None:
        """`status` can say what is held while nothing can be written."""
        with fault(ledger, path):
            assert ledger.totals("acme").objects[ObjectState.PENDING] == 2
            assert ledger.hour_books("acme", BOTH) == []

    def test_a_replayed_letter_keeps_its_books(self, ledger: SqlLedger, path: Path) -> None:
        """The letter and the books change together or not at all."""
        first, _ = claim(ledger)
        ledger.settle([Delivered(first.id, BOOKS, LETTERS)], NOW)
        letter, *_ = ledger.dead_letters(LetterFilter())
        with locked(ledger, path), pytest.raises(LedgerError, match="locked"):
            ledger.replayed({letter.id: None}, NOW)
        assert ledger.totals("acme").books == BOOKS
        assert ledger.replayed({letter.id: None}, NOW)
        assert ledger.totals("acme").books == Books(read=100, sent=51, dead_lettered=49)

    def test_opening_beside_a_writer_that_does_not_end(self, ledger: SqlLedger, path: Path) -> None:
        """The wait for it is bounded, and opening works once it has ended."""
        with locked(ledger, path), pytest.raises(LedgerError, match="locked"):
            SqlLedger(f"sqlite:///{path}", now=NOW, busy_timeout_s=0.05)
        SqlLedger(f"sqlite:///{path}", now=NOW).close()


class TestCorruptPage:
    """One page of the file holds something else."""

    def test_it_is_reported_and_a_copy_goes_on(self, path: Path, tmp_path: Path) -> None:
        """With the copy put back, what the copy did not know is delivered again: twice, but never lost."""
        url, copy = f"sqlite:///{path}", tmp_path / "copy.sqlite3"
        ledger = SqlLedger(url, now=NOW)
        ledger.admit("acme", objects(300), NOW)
        early, *_ = claim(ledger)
        ledger.settle([Delivered(early.id, Books(read=1, sent=1))], NOW)
        ledger.close()
        shutil.copy(path, copy)

        corrupt(path)
        damaged = SqlLedger(url, now=NOW)
        with pytest.raises(LedgerError, match="malformed") as caught:
            claim(damaged)
        assert "put back a copy" in caught.value.hint
        damaged._store.close()

        for name in path.parent.glob("ledger.sqlite3*"):
            name.unlink()
        shutil.copy(copy, path)
        mended = SqlLedger(url, now=NOW)
        assert mended.admit("acme", objects(300), NOW) == (0, [])
        mended.settle([Delivered(claimed.id, Books(read=1, sent=1)) for claimed in claim(mended)], NOW)
        assert mended.totals("acme").books == Books(read=300, sent=300)
        assert mended.fold("acme", HOUR.replace(hour=23), EVER) == 300
        mended.close()


def corrupt(path: Path) -> None:
    """Overwrite the root page of the table of objects."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'objects'").fetchone()
        (page_bytes,) = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((page - 1) * page_bytes)
        file.write(b"\xa5" * page_bytes)
