"""Nothing lost: the short version of `make soak`."""

import re
import subprocess
import sys
from pathlib import Path

SOAK_TIMEOUT_S = 180
ROOT = Path(__file__).parents[2]


def test_faults_on_both_sides_and_kills_lose_nothing() -> None:
    """Every owed message arrives, no other one does, and `reconcile` proves it."""
    size = ("--events", "20000", "--kills", "4", "--longest-life-s", "3")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *size],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=SOAK_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("lost: 0; not owed: 0; reconcile: exit 0\n")
    at_segment, at_s3 = re.findall(r"\{(.+?)\} at", done.stderr)
    assert all((at_segment, at_s3)), "there was no fault to get over"
