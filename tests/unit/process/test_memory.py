"""What the C library keeps. Each test runs in an interpreter of its own, since both are about a whole process."""

import ctypes
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(not hasattr(ctypes.CDLL(None), "malloc_trim"), reason="only glibc is told")

ARENAS = """
import ctypes, threading
from currents_bridge.process.memory import share_arena
{first}
threads = 4
all_hold = threading.Barrier(threads)
def hold():
    held = bytes(100_000)
    all_hold.wait()
    del held
workers = [threading.Thread(target=hold) for _ in range(threads)]
for worker in workers: worker.start()
for worker in workers: worker.join()
ctypes.CDLL(None).malloc_stats()
"""

FREED = """
import psutil
from currents_bridge.process.memory import give_back
blocks = [bytes([1]) * 100_000 for _ in range(1_000)]
rare = blocks[::50]  # what stays in use between, up to the end of the heap
del blocks
before = psutil.Process().memory_info().rss
{then}
print(before - psutil.Process().memory_info().rss)
"""

OPENED = """
import sys
from pathlib import Path
from currents_bridge import errors
from currents_bridge.cli import options
from currents_bridge.process import memory
memory.share_arena = lambda: print(sorted({"polars", "obstore"} & set(sys.modules)))
try:
    with options.opened(Path("nowhere.yaml"), "make", verbose=False):
        pass
except errors.ConfigError:
    print("polars" in sys.modules)
"""


def run(code: str) -> subprocess.CompletedProcess[str]:
    """Run Python code in a process of its own."""
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)


@pytest.mark.parametrize(("first", "arenas"), [("", 5), ("share_arena()", 1)])
def test_threads_share_an_arena_once_they_are_told_to(first: str, arenas: int) -> None:
    """Of the C library, which counts them; left alone it makes one for each thread."""
    assert run(ARENAS.format(first=first)).stderr.count("Arena ") == arenas


@pytest.mark.parametrize(("then", "given_back"), [("", False), ("give_back()", True)])
def test_freed_memory_goes_back_once_it_is_given_back(then: str, given_back: bool) -> None:  # noqa: FBT001
    """Also what lies between blocks that are in use; left alone it stays with the process."""
    assert (int(run(FREED.format(then=then)).stdout) > 50_000_000) is given_back


def test_the_program_has_its_threads_share_an_arena_before_any_is_started() -> None:
    """Polars and obstore start some when they are imported, and the arenas of those would stay in use."""
    assert run(OPENED).stdout == "[]\nTrue\n"
