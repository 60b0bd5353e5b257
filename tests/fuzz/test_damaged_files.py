"""No damaged file ends the process, holds it up, fills the memory, or keeps its neighbours from arriving.

FUZZ_FILES=6000 delivers more files than the usual 1,000.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.damaged_files import FILE_TIMEOUT_S

FILES = int(os.environ.get("FUZZ_FILES", "1000"))
FILES_A_PROCESS = 500
MAX_PEAK_BYTES = 1536 * 1024 * 1024
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("first", range(0, FILES, FILES_A_PROCESS))
def test_damaged_files_cost_nothing_but_themselves(first: int) -> None:
    """Each is delivered between two healthy files; its seed is named where anything goes wrong."""
    command = [sys.executable, "-m", "tests.fuzz.damaged_files", str(first), str(FILES_A_PROCESS)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"RUST_BACKTRACE": "0"},
        capture_output=True,
        text=True,
        timeout=FILES_A_PROCESS * FILE_TIMEOUT_S,
        check=False,
    )
    lines = done.stdout.splitlines() or ["none"]
    assert done.returncode == 0, f"seed {lines[-1]} ended with {done.returncode}: {done.stderr[-2000:]}"
    found = json.loads(lines[-1])
    assert sum(found["outcomes"].values()) == FILES_A_PROCESS
    assert found["peak_bytes"] < MAX_PEAK_BYTES, found
    assert found["slowest_s"] < FILE_TIMEOUT_S, found
