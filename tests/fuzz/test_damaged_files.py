"""No file ends the process, holds it up, fills the memory, or keeps its neighbours from arriving; good ones are read.

FUZZ_FILES=6000 delivers more damaged files than the usual 60, reads and maps as many random ones.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.crafted_files import CRAFTED
from tests.fuzz.damaged_files import FILE_TIMEOUT_S

FILES = int(os.environ.get("FUZZ_FILES", "60"))
LONG = "FUZZ_FILES" in os.environ
FILES_A_PROCESS = min(FILES // 2, 300)
CRAFTED_A_PROCESS = 1 if LONG else 13  # memory that one has left is there for the next
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(0, FILES, FILES_A_PROCESS))
def test_damaged_files_cost_nothing_but_themselves(first: int) -> None:
    """Each is delivered between two healthy files; its seed is named where anything goes wrong."""
    lines = ended(["tests.fuzz.damaged_files", str(first), str(FILES_A_PROCESS)], FILES_A_PROCESS)
    assert sum(json.loads(lines[-1]).values()) == FILES_A_PROCESS


NAMES = list(CRAFTED)


@pytest.mark.parametrize("first", range(0, len(NAMES), CRAFTED_A_PROCESS))
def test_a_crafted_file_costs_what_is_promised_at_most(first: int) -> None:
    """Ten seconds of CPU, 150 MB beside 30 times its size, and nothing to the healthy files beside it."""
    names = NAMES[first : first + CRAFTED_A_PROCESS]
    assert ended(["tests.fuzz.read_and_map", "crafted", *names], len(names)) == names


@pytest.mark.parametrize("first", range(0, FILES, FILES_A_PROCESS))
def test_every_event_of_a_good_file_is_read_as_it_was_written(first: int) -> None:
    """Of any schema, and so is its message: compared with what fastavro reads."""
    ended(["tests.fuzz.read_and_map", "random", str(first), str(FILES_A_PROCESS)], FILES_A_PROCESS)


def ended(arguments: list[str], files: int) -> list[str]:
    """Return what a process printed that has read so many files; a watchdog ends it where one takes too long."""
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        cwd=ROOT,
        env=os.environ | {"RUST_BACKTRACE": "0"},
        capture_output=True,
        text=True,
        timeout=files * FILE_TIMEOUT_S,
        check=False,
    )
    lines = done.stdout.splitlines() or ["none"]
    assert done.returncode == 0, f"{lines[-1]} ended with {done.returncode}: {done.stderr[-2000:]}"
    return lines
