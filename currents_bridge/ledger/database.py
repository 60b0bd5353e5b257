"""The SQLite file of the ledger: opening, migrating, transactions, and errors a user can act on."""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from sqlite3 import Error as SqliteError
from typing import cast

from sqlalchemy import Connection, create_engine, event, inspect, make_url
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from currents_bridge.errors import LedgerError, LedgerLostError, NoLedgerError
from currents_bridge.ledger.schema import REVISION

BUSY_TIMEOUT_S = 30.0
PAGES_AT_ONCE = 1_000  # given back to the disk in one transaction
KEPT_STATEMENTS = 64  # of each connection; one of a long list of values takes 100 KB
LOG_BYTES = 16 * 1024 * 1024  # what the write-ahead log keeps of its size after a large transaction
_MIGRATIONS = Path(__file__).parent / "migrations"
_TABLES = {"alembic_version", "objects"}  # of every version
VERSION = "SELECT version_num FROM alembic_version"
_MISTAKES = (DataError, IntegrityError, ProgrammingError)  # of ours, so they stay as they are

_NOT_WRITABLE = "check that its directory exists and that this user may write to the directory and to the file"
_HINTS = {  # https://www.sqlite.org/rescode.html, without the extended part
    "SQLITE_NOTADB": "set `ledger.url` to a file that currents-bridge made, or to one that does not exist yet",
    "SQLITE_CORRUPT": "put back a copy of the file: with a new ledger, everything would be sent again",
    "SQLITE_FULL": "free some space on the disk, then run the same command again: nothing recorded is lost",
    "SQLITE_IOERR": "check the disk and its free space, then run the same command again",
    "SQLITE_BUSY": "another process holds the ledger: let it end or stop it, then run the same command again",
    "SQLITE_READONLY": _NOT_WRITABLE,
    "SQLITE_CANTOPEN": _NOT_WRITABLE,
    "SQLITE_PERM": _NOT_WRITABLE,
}


class SqliteStore:
    """One ledger file, migrated to the newest version on opening, and made where there is none and `make` says so.

    Thread-safe. Each transaction waits for those of other processes, up to `busy_timeout_s`.

    Raises LedgerError, here and from each transaction, where the file cannot be read or written; NoLedgerError where
    there is none; LedgerLostError from each transaction once the path no longer leads to the file that was opened.
    """

    def __init__(self, url: str, busy_timeout_s: float = BUSY_TIMEOUT_S, *, make: bool = True) -> None:
        self._path = ledger_path(url)
        self._engine = create_engine(url, creator=partial(connect, self._path, busy_timeout_s))
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "begin", _begin)
        self._immediate = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        # Waiting writers of SQLite poll, with sleeps and in no order; threads of one process do better in a queue.
        self._write_lock = threading.Lock()
        if make:
            self._create_file()
        elif is_missing(self._path):
            raise NoLedgerError(self._path)
        with errors_explained(self._path):
            self._identity = _identity(self._path)
            # Two processes that switch a fresh file to WAL get SQLITE_BUSY at once, whatever the timeout.
            for attempt in Retrying(
                retry=retry_if_exception(_is_busy),
                wait=wait_random(0.01, 0.1),
                stop=stop_after_delay(busy_timeout_s),
                reraise=True,
            ):
                with attempt:
                    self._engine.connect().close()
        with self.writing() as connection:
            self._migrate(connection, make=make)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run a transaction that sees one state of the ledger and waits for nobody."""
        self._check_in_place()
        with errors_explained(self._path), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Run a transaction that no other writer comes between; any exception rolls it back."""
        self._check_in_place()
        with errors_explained(self._path), self._write_lock, self._immediate.begin() as connection:
            yield connection

    def shrink(self) -> None:
        """Give all free pages back to the disk, step by step, so that no other writer is kept waiting for long.

        A file of an older version uses free pages again, but cannot give them back.
        """
        with errors_explained(self._path), closing(self._engine.raw_connection()) as pooled:
            sqlite = cast("SqliteConnection", pooled.driver_connection)
            before = None
            while (free := _free_pages(sqlite)) not in (0, before):
                before = free
                with self._write_lock:  # one step for each page, of which `execute` takes the first only
                    sqlite.executescript(f"PRAGMA incremental_vacuum({PAGES_AT_ONCE})")

    def close(self) -> None:
        """Close the file; idempotent."""
        self._engine.dispose()

    def _create_file(self) -> None:
        try:  # never opens a file that exists: closing it again would drop the locks that SQLite holds in this process
            os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            pass
        except OSError as error:
            raise LedgerError(f"cannot create the ledger {self._path}: {error.strerror}", _NOT_WRITABLE) from error

    def _check_in_place(self) -> None:
        """Costs microseconds; without it a new connection would see another file than the older ones do."""
        if (now := _identity(self._path)) != self._identity:
            raise LedgerLostError(self._path, "replaced by another file" if now else "removed")

    def _migrate(self, connection: Connection, *, make: bool) -> None:
        tables = set(inspect(connection).get_table_names())
        if tables >= _TABLES and connection.exec_driver_sql(VERSION).scalar() == REVISION:
            return
        if tables and not tables >= _TABLES:
            raise LedgerError(f"{self._path} is a database of something else", _HINTS["SQLITE_NOTADB"])
        if not (tables or make):
            raise NoLedgerError(self._path)
        # Alembic takes 0.2 s and 11 MB, once in the life of a version.
        from alembic import command  # noqa: PLC0415
        from alembic.config import Config  # noqa: PLC0415
        from alembic.runtime.migration import MigrationContext  # noqa: PLC0415
        from alembic.script import ScriptDirectory  # noqa: PLC0415

        config = Config(attributes={"connection": connection})
        config.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
        known = {script.revision for script in ScriptDirectory.from_config(config).walk_revisions()}
        current = MigrationContext.configure(connection).get_current_revision()
        if current is not None and current not in known:
            raise LedgerError(
                f"the ledger {self._path} was made by a newer version of currents-bridge (schema {current})",
                "install that version again, or set `ledger.url` to another file",
            )
        command.upgrade(config, "head")


def ledger_path(url: str) -> Path:
    """Return the file that the URL of a ledger names, absolute; raises LedgerError where it names none."""
    database = make_url(url).database
    if database in (None, "", ":memory:"):
        raise LedgerError(f"the ledger url {url} names no file", "use sqlite:///currents-bridge.sqlite3")
    return Path(database).absolute()


def is_missing(path: Path) -> bool:
    """Return whether a ledger would have to be made: there is no file, or an empty one; raises LedgerError."""
    try:
        return not path.exists() or (path.is_file() and not path.stat().st_size)
    except OSError as error:
        raise LedgerError(f"cannot look for the ledger {path}: {error.strerror}", _NOT_WRITABLE) from error


def connect(path: Path, busy_timeout_s: float = BUSY_TIMEOUT_S) -> SqliteConnection:
    """Open a file that is there: left to itself, SQLite would make a new one in place of one that was removed."""
    return sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=busy_timeout_s, check_same_thread=False)


@contextmanager
def errors_explained(path: Path) -> Iterator[None]:
    """Turn what SQLite says of the file at `path` into a LedgerError that says what to do."""
    try:
        yield
    except _MISTAKES:
        raise
    except (OperationalError, DatabaseError, SqliteError) as error:
        cause = error if isinstance(error, SqliteError) else error.orig
        name = getattr(cause, "sqlite_errorname", "")
        hint = _HINTS.get("_".join(name.split("_")[:2]))
        message = f"cannot use the ledger {path}: {cause}"
        raise (LedgerError(message, hint) if hint else LedgerError(message)) from error


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what tells the file at `path` from every other one; None where there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _set_up(connection: SqliteConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # sqlite3 begins no transactions by itself; _begin does
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # for `shrink`; only a new file takes it, before all else
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    connection.execute("PRAGMA synchronous = FULL")  # a settled object stays settled through a power cut


def _free_pages(connection: SqliteConnection) -> int:
    return int(connection.execute("PRAGMA freelist_count").fetchone()[0])


def _begin(connection: Connection) -> None:
    # By the driver, since SQLAlchemy takes as long for this as for the query behind it.
    sqlite = cast("SqliteConnection", connection.connection.driver_connection)
    sqlite.execute(connection.get_execution_options().get("begin", "BEGIN"))


def _is_busy(error: BaseException) -> bool:
    return (
        isinstance(error, OperationalError)
        and isinstance(error.orig, SqliteError)
        and error.orig.sqlite_errorname == "SQLITE_BUSY"
    )
