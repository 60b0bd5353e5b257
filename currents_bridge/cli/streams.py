"""Standard streams that never fail a command: closed, full, of another encoding, or read by nobody any more."""

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

import orjson

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

_STREAMS = (0, 1, 2)


class Output(io.FileIO):
    """A descriptor that takes everything; `error` is what the first write that failed was told, None if none did.

    A reader that has gone, as `head` does, is no error: what is still written is left out, and `unread` says so.
    `begun` says whether anything was written at all.
    """

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "wb", closefd=False)
        self.begun = False
        self.unread = False
        self.error: OSError | None = None

    def write(self, data: "ReadableBuffer") -> int:
        """Write what can be written, and say that it was all."""
        self.begun = True
        size = memoryview(data).nbytes
        if self.unread or self.error:
            return size
        try:
            return super().write(data) or 0
        except BrokenPipeError:
            self.unread = True
        except OSError as error:
            self.error = error
        return size


def take_over() -> Output:
    """Let stdout and stderr be streams of ours, whatever they were, and return stdout's.

    What an encoding cannot show is shown as an escape. Before anything is opened: a descriptor that is closed would be
    that of the next file, and what is told would be written into it.
    """
    for descriptor in _STREAMS:
        _fill(descriptor)
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.FileIO(0, closefd=False))
    out, err = Output(1), Output(2)
    sys.stdout, sys.stderr = _text(out, sys.stdout, buffered=True), _text(err, sys.stderr, buffered=False)
    return out


def is_unread() -> bool:
    """Return whether nobody reads stdout any more."""
    out = _stdout()
    return out is not None and out.unread


def json_document(document: object) -> bytes:
    """Return a document as it stands on stdout."""
    return orjson.dumps(document, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def write_last(data: bytes) -> None:
    """Write what is all of stdout, where nothing is on it yet; from any thread, whatever the others hold."""
    out = _stdout()
    if out and not out.begun:
        out.write(data)


def _stdout() -> Output | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, Output) else None


def _fill(descriptor: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)


def _text(raw: Output, before: "TextIO | None", *, buffered: bool) -> io.TextIOWrapper:
    encoding = getattr(before, "encoding", None) or "utf-8"
    return io.TextIOWrapper(
        io.BufferedWriter(raw),
        encoding=encoding,
        errors="backslashreplace",
        line_buffering=raw.isatty() or not buffered,
        write_through=not buffered,
    )
