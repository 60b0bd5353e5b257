"""The ledger's file is removed or replaced while it is used: nothing more is recorded in it, nor in a new one."""

import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from currents_bridge.errors import LedgerError, LedgerLostError, NoLedgerError
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import Books, Delivered
from tests.ledger_workbench import NOW, claim, objects


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Name a ledger that does not exist yet, in a folder whose name must not be taken for a URL."""
    folder = tmp_path / "a#b c"
    folder.mkdir()
    return folder / "ledger.sqlite3"


@pytest.fixture
def ledger(path: Path) -> Iterator[SqlLedger]:
    """Return a ledger with two objects that wait."""
    with closing(SqlLedger(f"sqlite:///{path}", now=NOW)) as ledger:
        ledger.admit("acme", objects(2), NOW)
        yield ledger


def remove(path: Path) -> None:
    """Remove the file and what belongs to it."""
    for name in path.parent.glob(f"{path.name}*"):
        name.unlink()


def remove_the_folder(path: Path) -> None:
    """Remove the folder."""
    shutil.rmtree(path.parent)


def move_away(path: Path) -> None:
    """Rename the file, as somebody does who wants a fresh start."""
    path.rename(path.with_name("old.sqlite3"))


def put_a_copy_in_its_place(path: Path) -> None:
    """Put back a backup without stopping the program."""
    copy = path.with_name("copy.sqlite3")
    shutil.copy(path, copy)
    copy.replace(path)


LOSSES = pytest.mark.parametrize(
    ("lose", "said"),
    [
        (remove, "removed"),
        (remove_the_folder, "removed"),
        (move_away, "removed"),
        (put_a_copy_in_its_place, "replaced by another file"),
    ],
)
Lose = Callable[[Path], None]


@LOSSES
def test_every_transaction_says_that_the_file_is_lost(ledger: SqlLedger, path: Path, lose: Lose, said: str) -> None:
    """Also those on connections that are still open to the old file."""
    first, second = claim(ledger)
    lose(path)
    for use in (
        lambda: ledger.settle([Delivered(first.id, Books(read=1, sent=1))], NOW),
        lambda: ledger.release([second.id]),
        lambda: claim(ledger),
        lambda: ledger.admit("acme", objects(3), NOW),
        lambda: ledger.heartbeat(NOW),
        lambda: ledger.totals("acme"),
        lambda: ledger.alert_book().open_alerts(),
    ):
        with pytest.raises(LedgerLostError, match=f"{path.name} was {said} while") as caught:
            use()
        assert "put the ledger back" in caught.value.hint


@LOSSES
def test_no_other_file_is_made_or_changed(ledger: SqlLedger, path: Path, lose: Lose, said: str) -> None:
    """Whoever put a file in its place finds it as it was; closing is quiet."""
    lose(path)
    before = path.read_bytes() if "replaced" in said else None
    with pytest.raises(LedgerLostError):
        ledger.heartbeat(NOW)
    ledger.close()
    assert (path.read_bytes() if path.exists() else None) == before


def test_a_file_that_is_moved_away_and_back_is_the_same(ledger: SqlLedger, path: Path) -> None:
    """The ledger goes on."""
    away = path.with_name("away")
    path.rename(away)
    with pytest.raises(LedgerLostError):
        ledger.heartbeat(NOW)
    away.rename(path)
    assert len(claim(ledger)) == 2


class TestMaking:
    """Only those that say so make a ledger."""

    @pytest.mark.parametrize("there", [False, True], ids=["nothing", "empty file"])
    def test_none_is_made_unasked(self, path: Path, there: bool) -> None:  # noqa: FBT001
        """An empty file is no ledger, and stays empty."""
        if there:
            path.touch()
        with pytest.raises(NoLedgerError, match=f"there is no ledger at /.*{path.name}") as caught:
            SqlLedger(f"sqlite:///{path}", now=NOW, make=False)
        assert (caught.value.exit_code, "ledger.url" in caught.value.hint) == (2, True)
        assert [name.stat().st_size for name in path.parent.iterdir()] == [0] * there

    def test_one_that_is_there_is_opened(self, ledger: SqlLedger, path: Path) -> None:
        """And holds what it held."""
        with closing(SqlLedger(f"sqlite:///{path}", now=NOW, make=False)) as other:
            assert other.undelivered("acme") == ledger.undelivered("acme")

    @pytest.mark.parametrize("make", [False, True])
    @pytest.mark.parametrize("tables", [("orders",), ("alembic_version", "orders")])
    def test_the_database_of_another_program_stays_as_it_is(
        self,
        path: Path,
        tables: tuple[str, ...],
        make: bool,  # noqa: FBT001
    ) -> None:
        """No table is added to it."""
        with closing(sqlite3.connect(path)) as connection, connection:
            for name in tables:
                connection.execute(f"CREATE TABLE {name} (version_num TEXT)")
        with pytest.raises(LedgerError, match="a database of something else"):
            SqlLedger(f"sqlite:///{path}", now=NOW, make=make)
        with closing(sqlite3.connect(path)) as connection:
            found = connection.execute("SELECT name FROM sqlite_master").fetchall()
        assert sorted(found) == sorted((name,) for name in tables)

    def test_it_is_named_with_its_whole_path(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A relative name says nothing to somebody who stands in the wrong folder."""
        monkeypatch.chdir(tmp_path)
        with pytest.raises(NoLedgerError, match=os.path.realpath(tmp_path)):
            SqlLedger("sqlite:///ledger.sqlite3", now=NOW, make=False)
