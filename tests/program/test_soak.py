"""Nothing lost: the short version of `make soak`."""

import re
import subprocess
import sys
from pathlib import Path

SOAK_TIMEOUT_S = 400
ROOT = Path(__file__).parents[2]


def test_faults_on_both_sides_and_kills_lose_nothing() -> None:
    """What is owed arrives, what is refused is set aside, a denied object waits alone, and `reconcile` proves it."""
    size = ("--events", "10000", "--kills", "3", "--longest-life-s", "3", "--batch-events", "100")
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.soak", *size],
        cwd=ROOT,
        capture_output=True,
        check=False,
        text=True,
        timeout=SOAK_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == (
        "lost: 0; not owed: 0; denied object failed alone: True; refused set aside: True; proven: True; "
        "lied to and denied: True\n"
    )
    at_segment, at_s3 = re.findall(r"\{(.+?)\} at", done.stderr)
    assert all((at_segment, at_s3)), "there was no fault to get over"
