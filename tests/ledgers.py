"""Real ledgers for tests: each is a copy of one empty, migrated file, which takes milliseconds."""

import sqlite3
import tempfile
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

from currents_bridge.ledger.sql_ledger import SqlLedger
from tests.ledger_workbench import NOW

_FOLDER = tempfile.TemporaryDirectory(prefix="ledgers-")
_opened: "list[LedgerOnFile]" = []


@cache
def _empty() -> bytes:
    path = Path(_FOLDER.name) / "empty.sqlite3"
    SqlLedger(f"sqlite:///{path}", now=NOW).close()
    return path.read_bytes()


def new_ledger_file() -> Path:
    """Return the file of a ledger in which nothing is recorded."""
    with tempfile.NamedTemporaryFile(dir=_FOLDER.name, suffix=".sqlite3", delete=False) as file:
        file.write(_empty())
    return Path(file.name)


class LedgerOnFile(SqlLedger):
    """An owner of the ledger in `path`, by default a new one; closed after the test."""

    def __init__(self, path: Path | None = None) -> None:
        self.path = path or new_ledger_file()
        super().__init__(f"sqlite:///{self.path}", now=NOW)
        _opened.append(self)

    def rows(self, table: str = "objects") -> list[dict[str, Any]]:
        """Return what a table holds, by its first column."""
        with closing(sqlite3.connect(self.path)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")]  # noqa: S608

    def change(self, statement: str, *values: object) -> None:
        """Do what no method of the ledger does, as another hand might."""
        with closing(sqlite3.connect(self.path)) as connection, connection:
            connection.execute(statement, values)


def close_all() -> None:
    """Close what was opened since the last time, and delete it."""
    while _opened:
        ledger = _opened.pop()
        ledger.close()
        for path in ledger.path.parent.glob(f"{ledger.path.name}*"):
            path.unlink()
