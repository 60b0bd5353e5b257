"""`demo`: what a new user runs first."""

import re
import subprocess
import sys
from pathlib import Path

from currents_bridge.catalogue import supported_types
from tests.installation import TIMEOUT_S


def test_the_demo_delivers_every_supported_type_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A row for each type, and sums equal to what the collector holds."""
    done = subprocess.run(
        [sys.executable, "-m", "currents_bridge", "demo"],
        cwd=tmp_path,
        env={"TMPDIR": str(tmp_path), "AWS_PROFILE": "a profile that does not exist"},
        capture_output=True,
        check=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    rows = [line.split() for line in done.stdout.splitlines() if line.strip().startswith("users.")]
    assert [row[0] for row in rows] == list(supported_types())
    sent = sum(int(row[2]) for row in rows)
    assert all(int(row[1]) == sum(map(int, row[2:6])) == 60 for row in rows)
    assert re.search(rf"^{sent} distinct messages arrived .* the sums agree$", done.stdout, re.MULTILINE)
    assert list(tmp_path.iterdir()) == []
