"""The C library's allocator: threads share its memory, and what is free goes back to the machine.

Told to glibc alone: it would give each thread an arena of its own, up to 8 for each core, and keep what is freed in
them, so that some 20 threads which each held a few megabytes for a moment keep those for good. Other C libraries are
left as they are. Polars brings an allocator of its own, which gives back by itself within 10 s.
"""

import ctypes
from collections.abc import Callable

_M_ARENA_MAX = -8  # malloc.h


def share_arena() -> None:
    """Have threads that have not allocated yet use the arena of the first one.

    They hardly wait for each other: most of what they allocate is under Python's lock, and the small rest is cached by
    each thread.
    """
    if mallopt := _of_libc("mallopt"):
        mallopt(_M_ARENA_MAX, 1)


def give_back() -> None:
    """Give free pages back; takes 1 ms where there are few, 4 ms for 50 MB."""
    if trim := _of_libc("malloc_trim"):
        trim(0)


def _of_libc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None)
