"""Copies of the ledger's file."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from currents_bridge.errors import BridgeError, LedgerError, NoLedgerError, UsageError
from currents_bridge.ledger.backup import back_up
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import Books, Delivered, ObjectState
from tests.ledger_workbench import NOW, claim, objects


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Name a ledger that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


@pytest.fixture
def ledger(url: str) -> Iterator[SqlLedger]:
    """Return a ledger with 50 objects, one of them delivered."""
    with closing(SqlLedger(url, now=NOW)) as ledger:
        ledger.admit("acme", objects(50), NOW)
        first, *others = claim(ledger)
        ledger.settle([Delivered(first.id, Books(read=1, sent=1))], NOW)
        ledger.release([other.id for other in others])
        yield ledger


def test_a_copy_holds_what_was_recorded_last(ledger: SqlLedger, url: str, tmp_path: Path) -> None:
    """Although the ledger is open and its log was never written back."""
    size = back_up(url, tmp_path / "copy")

    assert (tmp_path / "copy").stat().st_size == size
    with closing(SqlLedger(f"sqlite:///{tmp_path / 'copy'}", now=NOW, make=False)) as copy:
        assert copy.totals("acme") == ledger.totals("acme")
        assert copy.totals("acme").objects[ObjectState.DELIVERED] == 1


def test_a_copy_is_one_moment_while_others_write(ledger: SqlLedger, url: str, tmp_path: Path) -> None:
    """A writer in the middle of a transaction neither waits for the copy nor stands in it."""
    with ledger._store.writing() as connection:
        connection.exec_driver_sql("DELETE FROM objects")
        back_up(url, tmp_path / "copy")

    with closing(SqlLedger(f"sqlite:///{tmp_path / 'copy'}", now=NOW, make=False)) as copy:
        assert copy.totals("acme").objects[ObjectState.PENDING] == 49


def test_claims_of_a_process_that_is_gone_are_free_in_a_copy(ledger: SqlLedger, url: str, tmp_path: Path) -> None:
    """What was in flight when the copy was made is delivered by whoever opens it."""
    assert len(claim(ledger)) == 49
    back_up(url, tmp_path / "copy")
    with closing(SqlLedger(f"sqlite:///{tmp_path / 'copy'}", now=NOW, make=False)) as copy:
        with copy._store.writing() as connection:
            connection.exec_driver_sql("UPDATE owners SET pid = 4194305 WHERE id != ?", (copy._id,))
        copy.reclaim("acme", NOW)
        assert copy.totals("acme").objects[ObjectState.PENDING] == 49


@pytest.mark.usefixtures("ledger")
def test_only_its_user_may_read_a_copy(url: str, tmp_path: Path) -> None:
    """Dead letters hold events of people."""
    back_up(url, tmp_path / "copy")
    assert (tmp_path / "copy").stat().st_mode & 0o777 == 0o600
    assert not list(tmp_path.glob("copy*part*"))


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("name", ["ledger.sqlite3", "there", "folder", "missing/copy", "there/copy"])
def test_a_copy_overwrites_nothing(url: str, tmp_path: Path, name: str) -> None:
    """Neither the ledger itself nor any other file; the place is named."""
    (tmp_path / "there").write_text("mine")
    (tmp_path / "folder").mkdir()
    before = {path.name for path in tmp_path.iterdir()}
    with pytest.raises(UsageError, match=name):
        back_up(url, tmp_path / name)
    assert {path.name for path in tmp_path.iterdir()} == before
    assert (tmp_path / "there").read_text() == "mine"


def test_without_a_ledger_there_is_no_copy(url: str, tmp_path: Path) -> None:
    """And no file."""
    with pytest.raises(NoLedgerError):
        back_up(url, tmp_path / "copy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("ledger")
@pytest.mark.parametrize("error", [sqlite3.OperationalError("disk is full"), OSError(28, "No space left on device")])
def test_a_copy_that_does_not_get_whole_leaves_no_file(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """It would look like one."""

    def fail(_: int) -> None:
        raise error

    monkeypatch.setattr("currents_bridge.ledger.backup.os.fsync", fail)
    with pytest.raises(BridgeError if isinstance(error, OSError) else sqlite3.OperationalError):
        back_up(url, tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))


def test_what_is_no_database_is_said(url: str, tmp_path: Path) -> None:
    """With the ledger's name."""
    (tmp_path / "ledger.sqlite3").write_text("shopping list\n" * 100)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite3: file is not a database"):
        back_up(url, tmp_path / "copy")
    assert not list(tmp_path.glob("copy*"))
