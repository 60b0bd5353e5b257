"""A consistent copy of the ledger's file, taken beside whatever works on it."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path

from currents_bridge.errors import LedgerError, NoLedgerError, UsageError
from currents_bridge.ledger.database import VERSION, connect, errors_explained, is_missing, ledger_path


def back_up(url: str, target: Path) -> int:
    """Copy the ledger that `url` names, as it is at one moment, to a new file; returns its size in bytes.

    Nobody waits for it: SQLite copies from one read transaction. The ledger is copied as it is, also one of an older
    version. A copy that does not get whole leaves no file. Raises UsageError where `target` is there or cannot be
    made, NoLedgerError, and LedgerError where the ledger cannot be read or the copy cannot be written.
    """
    source, target = ledger_path(url), target.absolute()
    if is_missing(source):
        raise NoLedgerError(source)
    part = target.with_name(f"{target.name}.part")
    for name in (target, part):
        _reserve(name)
    try:
        with errors_explained(source), closing(connect(source)) as ledger:
            ledger.execute(VERSION)  # it is a ledger
            _copy(ledger, part)
        with part.open("rb") as written:
            os.fsync(written.fileno())
        part.replace(target)
    except BaseException as error:
        for name in (target, part):
            name.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise LedgerError(f"cannot write {target}: {error.strerror}", "make room, or name another place") from error
        raise
    return target.stat().st_size


def _copy(ledger: sqlite3.Connection, path: Path) -> None:
    with errors_explained(path), closing(connect(path)) as copy:
        ledger.backup(copy)


def _reserve(path: Path) -> None:
    """Make an empty file that only this user may read: dead letters hold events of people."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
    except FileExistsError:
        raise UsageError(f"{path} is there already", "name a new file, as with the date in its name") from None
    except OSError as error:
        hint = "name a file in a folder that is there and that this user may write to"
        raise UsageError(f"{path} cannot be made: {error.strerror}", hint) from error
