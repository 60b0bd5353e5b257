"""The SQLite file of the ledger: opening, migrating, transactions, and errors a user can act on."""

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from sqlite3 import Connection as SqliteConnection
from sqlite3 import Error as SqliteError
from typing import cast

from sqlalchemy import Connection, create_engine, event, inspect, make_url
from sqlalchemy.exc import DatabaseError, DataError, IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import Retrying, retry_if_exception, stop_after_delay, wait_random

from currents_bridge.adapters.ledger_schema import REVISION
from currents_bridge.errors import LedgerError

BUSY_TIMEOUT_S = 30.0
PAGES_AT_ONCE = 1_000  # given back to the disk in one transaction
LOG_BYTES = 16 * 1024 * 1024  # what the write-ahead log keeps of its size after a large transaction
_MIGRATIONS = Path(__file__).parent / "migrations"
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
    """One ledger file, migrated to the newest version on opening. Thread-safe.

    Each transaction waits for those of other processes, up to `busy_timeout_s`.

    Raises LedgerError, here and from each transaction, where the file cannot be read or written.
    """

    def __init__(self, url: str, busy_timeout_s: float = BUSY_TIMEOUT_S) -> None:
        database = make_url(url).database
        if database in (None, "", ":memory:"):
            raise LedgerError(f"the ledger url {url} names no file", "use sqlite:///currents-bridge.sqlite3")
        self._path = Path(database)
        self._engine = create_engine(url, connect_args={"timeout": busy_timeout_s})
        event.listen(self._engine, "connect", _set_up)
        event.listen(self._engine, "begin", _begin)
        self._immediate = self._engine.execution_options(begin="BEGIN IMMEDIATE")
        # Waiting writers of SQLite poll, with sleeps and in no order; threads of one process do better in a queue.
        self._write_lock = threading.Lock()
        with self._errors_explained():
            self._create_file()
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
            self._migrate(connection)

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Run a transaction that sees one state of the ledger and waits for nobody."""
        with self._errors_explained(), self._engine.begin() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Run a transaction that no other writer comes between; any exception rolls it back."""
        with self._errors_explained(), self._write_lock, self._immediate.begin() as connection:
            yield connection

    def shrink(self) -> None:
        """Give all free pages back to the disk, step by step, so that no other writer is kept waiting for long.

        A file of an older version uses free pages again, but cannot give them back.
        """
        with self._errors_explained(), closing(self._engine.raw_connection()) as pooled:
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

    def _migrate(self, connection: Connection) -> None:
        if _is_current(connection):
            return
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

    @contextmanager
    def _errors_explained(self) -> Iterator[None]:
        try:
            yield
        except _MISTAKES:
            raise
        except (OperationalError, DatabaseError, SqliteError) as error:
            cause = error if isinstance(error, SqliteError) else error.orig
            name = getattr(cause, "sqlite_errorname", "")
            hint = _HINTS.get("_".join(name.split("_")[:2]))
            message = f"cannot use the ledger {self._path}: {cause}"
            raise (LedgerError(message, hint) if hint else LedgerError(message)) from error


def _set_up(connection: SqliteConnection, _: ConnectionPoolEntry) -> None:
    connection.isolation_level = None  # sqlite3 begins no transactions by itself; _begin does
    connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # for `shrink`; only a new file takes it, before all else
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute(f"PRAGMA journal_size_limit = {LOG_BYTES}")
    connection.execute("PRAGMA synchronous = FULL")  # a settled object stays settled through a power cut


def _is_current(connection: Connection) -> bool:
    return (
        inspect(connection).has_table("alembic_version")
        and connection.exec_driver_sql("SELECT version_num FROM alembic_version").scalar() == REVISION
    )


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
