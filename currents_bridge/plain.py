"""What anything from outside must be before it is looked at: a small file of plain text, shallow values."""

import os
import stat
from contextlib import closing
from pathlib import Path

from currents_bridge.text import UNPRINTABLE

MAX_FILE_BYTES = 512 * 1024  # of a configuration or a secret; YAML takes 4 us a byte
MAX_LEVELS = 20  # of lists and mappings in each other


class NotPlainError(Exception):
    """Something is not what it must be; the message says why, without any part of it."""


def read_text(path: Path) -> str:
    """Return the text of a file; raises NotPlainError as `read_bytes`, and for what is no UTF-8."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise NotPlainError("is no plain text in UTF-8") from None


def read_bytes(path: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return what a file holds; never waits, and reads no more than `max_bytes`.

    Raises NotPlainError for a file that cannot be read, a directory, pipe or device, and what is too large.
    """
    try:
        # without blocking, since a pipe that nobody writes to would be waited for
        with closing(os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise NotPlainError("is no file, but a pipe or a device")
            content = file.read(max_bytes + 1)
    except FileNotFoundError:
        raise NotPlainError("there is no such file") from None
    except OSError as error:
        raise NotPlainError(f"cannot be read: {error.strerror}") from None
    except ValueError:  # from a name with NUL or half a character
        raise NotPlainError("is no name that a file can have") from None
    if len(content) > max_bytes:
        raise NotPlainError(f"is larger than {max_bytes // 1024} KiB")
    return content


def check_text(text: str) -> None:
    """Raise NotPlainError for control characters (but tab and line breaks) and for halves of characters."""
    if UNPRINTABLE.search(text):
        raise NotPlainError("must not hold control characters or halves of characters")


def check_value(value: object, levels: int = MAX_LEVELS) -> None:
    """Raise NotPlainError where any text in a value is not plain, or the value too deep; the value may be JSON."""
    if isinstance(value, str):
        check_text(value)
    elif isinstance(value, dict | list):
        if not levels:
            raise NotPlainError(f"must not be nested more than {MAX_LEVELS} deep")
        for item in (*value, *value.values()) if isinstance(value, dict) else value:
            check_value(item, levels - 1)
