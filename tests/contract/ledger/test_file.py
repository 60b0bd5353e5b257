"""What only the ledger in a file promises: it outlives processes, and says what is wrong with the file."""

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import create_engine

from currents_bridge.errors import LedgerError
from currents_bridge.ledger.owner import ProcessIdentity
from currents_bridge.ledger.schema import REVISION, metadata
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import (
    Books,
    CurrentsObject,
    Delivered,
    Failed,
    GroupLimits,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Selection,
)

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
CLICKS = Selection(frozenset({"Click"}))
IMPORTS = """
import sys
from datetime import UTC, datetime
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import Books, Delivered, GroupLimits, Selection
ledger = SqlLedger(sys.argv[1], now=datetime(2026, 3, 4, 12, 30, tzinfo=UTC))
CLAIM = "acme", Selection(frozenset({"Click"})), GroupLimits(max_objects=7), datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
"""
DELIVER_ALL = """
print("open", flush=True)
sys.stdin.readline()
while group := ledger.claim(*CLAIM):
    ledger.settle([Delivered(claimed.id, Books(read=1, sent=1)) for claimed in group], CLAIM[-1])
    print(*(claimed.object.key for claimed in group), sep="\\n")
ledger.close()
"""
CLAIM_AND_HANG = """
print(len(ledger.claim(*CLAIM)), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Name a ledger that does not exist yet."""
    return f"sqlite:///{tmp_path / 'ledger.sqlite3'}"


@contextmanager
def opened(url: str, process: ProcessIdentity | None = None) -> Iterator[SqlLedger]:
    """Open a ledger for a while."""
    ledger = SqlLedger(url, now=NOW, process=process)
    try:
        yield ledger
    finally:
        ledger.close()


@contextmanager
def another_process(code: str, url: str) -> Iterator[subprocess.Popen[str]]:
    """Run code on the ledger in a process that ends with the test at the latest."""
    with subprocess.Popen(
        [sys.executable, "-c", IMPORTS + code, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def objects(count: int) -> list[CurrentsObject]:
    """Return key-000, key-001, ... of one hour and type."""
    hour = NOW.replace(minute=0)
    return [CurrentsObject(f"key-{number:03}", "etag", 100, NOW, "Click", hour) for number in range(count)]


class TestProcesses:
    """Several processes on one file."""

    def test_two_processes_never_claim_the_same_object(self, url: str) -> None:
        """Both get some, and together each object once."""
        with opened(url) as ledger:
            ledger.admit("acme", objects(300), NOW)
            with another_process(DELIVER_ALL, url) as one, another_process(DELIVER_ALL, url) as other:
                for process in (one, other):
                    assert process.stdout
                    assert process.stdout.readline() == "open\n"
                for process in (one, other):
                    assert process.stdin
                    process.stdin.write("go\n")
                    process.stdin.flush()
                outputs = [process.communicate(timeout=60)[0].splitlines() for process in (one, other)]
            assert sorted(outputs[0] + outputs[1]) == [item.key for item in objects(300)]
            assert ledger.totals("acme").books == Books(read=300, sent=300)

    def test_the_claims_of_a_killed_process_come_free_at_once(self, url: str) -> None:
        """As long as it lives, they do not."""
        with opened(url) as ledger:
            ledger.admit("acme", objects(5), NOW)
            with another_process(CLAIM_AND_HANG, url) as process:
                assert process.stdout
                assert process.stdout.readline() == "5\n"
                assert ledger.reclaim("acme", NOW).objects == 0
                process.kill()
                process.wait()
                assert ledger.reclaim("acme", NOW).objects == 5
            assert ledger.totals("acme").objects[ObjectState.PENDING] == 5

    def test_a_process_of_another_host_is_dead_after_90_seconds(self, url: str) -> None:
        """Its process id means nothing here, although no process of this host bears it."""
        elsewhere = ProcessIdentity("elsewhere", 2**22 + 1, 1.0)
        with opened(url) as ledger, opened(url, elsewhere) as other:
            ledger.admit("acme", objects(2), NOW)
            other.claim("acme", CLICKS, GroupLimits(), NOW)
            assert ledger.reclaim("acme", NOW + timedelta(seconds=90)).objects == 0
            assert ledger.reclaim("acme", NOW + timedelta(seconds=91)).objects == 2

    def test_a_claim_whose_owner_is_not_known_comes_free(self, url: str, tmp_path: Path) -> None:
        """A lost row of an owner cannot hold an object for ever."""
        with opened(url) as ledger, opened(url) as other:
            ledger.admit("acme", objects(2), NOW)
            other.claim("acme", CLICKS, GroupLimits(), NOW)
            with sqlite3.connect(tmp_path / "ledger.sqlite3") as connection:
                connection.execute("DELETE FROM owners")
            connection.close()
            assert ledger.reclaim("acme", NOW).objects == 2

    def test_processes_may_make_the_file_at_the_same_time(self, url: str) -> None:
        """All of them find one complete ledger."""
        with another_process(DELIVER_ALL, url) as one, another_process(DELIVER_ALL, url) as other:
            assert [process.communicate("go\n", timeout=60)[0] for process in (one, other)] == ["open\n"] * 2


class TestFile:
    """The file itself."""

    def test_a_ledger_opened_again_holds_everything(self, url: str) -> None:
        """Nothing is kept in memory only."""
        with opened(url) as ledger:
            ledger.admit("acme", objects(3), NOW)
            first, second, _ = ledger.claim("acme", CLICKS, GroupLimits(), NOW)
            ledger.settle([Delivered(first.id, Books(read=1, sent=1))], NOW)
            ledger.release([second.id])
            ledger.note("acme", [Notice(NoticeKind.UNREAD_KEYS, "ending")], NOW)
            ledger.save_progress("acme", Progress(polled_at=NOW))
            before = ledger.totals("acme")
        with opened(url) as ledger:
            after = ledger.totals("acme")
            assert after.objects == before.objects | {ObjectState.CLAIMED: 0, ObjectState.PENDING: 2}
            assert (after.books, after.notices, after.progress) == (before.books, before.notices, before.progress)
            assert ledger.admit("acme", objects(3), NOW) == (0, [])

    def test_only_its_user_may_read_it(self, url: str, tmp_path: Path) -> None:
        """Dead letters hold events of people."""
        with opened(url):
            assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}

    def test_a_relative_url_is_relative_to_the_working_directory(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Three slashes, as in the example config."""
        monkeypatch.chdir(tmp_path)
        with opened("sqlite:///here.sqlite3"):
            assert (tmp_path / "here.sqlite3").exists()

    def test_no_claim_after_close(self, url: str) -> None:
        """A thread that comes too late must not hold what nobody gives back."""
        with opened(url) as ledger:
            ledger.close()
            with pytest.raises(RuntimeError, match="closed"):
                ledger.claim("acme", CLICKS, GroupLimits(), NOW)

    def test_migrations_lead_to_the_tables_in_the_code(self, url: str) -> None:
        """ledger_schema and the migrations are two texts of one thing."""
        with opened(url):
            engine = create_engine(url)
            with engine.connect() as connection:
                context = MigrationContext.configure(connection)
                assert compare_metadata(context, metadata) == []
                assert context.get_current_revision() == REVISION
            engine.dispose()


class TestTrouble:
    """A file that cannot be used is named, with what to do; for trouble with a good one see test_ledger_faults."""

    @pytest.mark.parametrize("place", ["missing/ledger.sqlite3", "file/ledger.sqlite3", "folder"])
    def test_an_impossible_place(self, tmp_path: Path, place: str) -> None:
        """No such directory, a file for a directory, a directory for a file."""
        (tmp_path / "file").touch()
        (tmp_path / "folder").mkdir()
        with pytest.raises(LedgerError, match=place) as caught:
            SqlLedger(f"sqlite:///{tmp_path / place}", now=NOW)
        assert "directory" in caught.value.hint

    @pytest.mark.parametrize("url", ["sqlite://", "sqlite:///:memory:"])
    def test_no_file(self, url: str) -> None:
        """A ledger in memory would forget what was sent."""
        with pytest.raises(LedgerError, match="names no file"):
            SqlLedger(url, now=NOW)

    def test_no_database(self, url: str, tmp_path: Path) -> None:
        """Some other file is left as it is."""
        (tmp_path / "ledger.sqlite3").write_text("shopping list\n" * 100)
        with pytest.raises(LedgerError, match=r"ledger\.sqlite3: file is not a database") as caught:
            SqlLedger(url, now=NOW)
        assert "ledger.url" in caught.value.hint
        assert (tmp_path / "ledger.sqlite3").read_text() == "shopping list\n" * 100

    def test_a_ledger_of_a_newer_version(self, url: str, tmp_path: Path) -> None:
        """It is refused and left as it is."""
        with opened(url):
            pass
        with sqlite3.connect(tmp_path / "ledger.sqlite3") as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        with pytest.raises(LedgerError, match="newer version") as caught:
            SqlLedger(url, now=NOW)
        assert "install" in caught.value.hint


def test_times_are_kept_as_older_versions_keep_them(url: str, tmp_path: Path) -> None:
    """They are compared as texts: in UTC, without a zone, with six digits behind the second."""
    time = datetime(2026, 3, 4, 14, 30, tzinfo=timezone(timedelta(hours=2)))
    listed = CurrentsObject("key", "etag", 1, time, "Click", NOW.replace(minute=0))
    with closing(SqlLedger(url, now=time)) as ledger:
        ledger.admit("acme", [listed], time)
        (claimed,) = ledger.claim("acme", CLICKS, GroupLimits(), time)
        ledger.settle([Failed(claimed.id, "broken", time)], time)

    with closing(sqlite3.connect(tmp_path / "ledger.sqlite3")) as file:
        kept = file.execute("SELECT last_modified, admitted_at, retry_at, settled_at FROM objects").fetchone()
    assert kept == ("2026-03-04 12:30:00.000000",) * 4
