"""The program on odd standard streams: closed, full, of another encoding, or read by nobody any more."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from currents_bridge.testing.currents_files import make_events, schema_of, write_container
from tests.installation import TIMEOUT_S, Site, this_hour

CLICK = "users.messages.email.Click"
PROGRAM = f"{sys.executable} -m currents_bridge"


def shell(line: str, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
    """Run a line of the shell; `PROGRAM` in it is the program, and a pipe ends with its first failure."""
    command = ["bash", "-o", "pipefail", "-c", line.replace("PROGRAM", PROGRAM)]
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CURRENTS_BRIDGE_")}
    return subprocess.run(
        command, cwd=folder, env=clean | environ, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A file of clicks whose links hold letters that no Latin alphabet has."""
    events = [
        event | {"url": "https://acme.test/日本/é"} for event in make_events(CLICK, 2000, seed=1, hour=this_hour())
    ]
    (tmp_path / "x.avro").write_bytes(write_container(schema_of(CLICK), events))
    return tmp_path


@pytest.mark.parametrize("line", ["events >&-", "events 2>&-", "events <&- >&- 2>&-", "--help >&-"])
def test_a_stream_that_is_closed_is_none_of_the_programs_files(tmp_path: Path, line: str) -> None:
    """What would be written there is left out."""
    done = shell(f"PROGRAM {line}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("streams", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_delivery_writes_nothing_into_its_ledger_that_was_meant_for_a_closed_stream(site: Site, streams: str) -> None:
    """The lowest free descriptor is that of the next file that is opened."""
    site.put_sample(count=10)
    site.run("events")  # writes the configuration
    done = shell(f"PROGRAM once --config bridge.yaml {streams}", site.folder, **site.environ)
    assert (done.returncode, len(site.collector.by_id)) == (0, 10), done.stderr
    assert site.json("status")["connectors"]["production"]["events"]["sent"] == 10


@pytest.mark.parametrize("line", ["events --all", "inspect x.avro", "inspect --raw x.avro", "nope 2>&1"])
def test_a_reader_that_has_had_enough_is_no_failure(file: Path, line: str) -> None:
    """As with `head`; the exit code is that of the command."""
    done = shell(f"PROGRAM {line} | head -1; echo ${{PIPESTATUS[0]}}", file)
    assert done.stdout.splitlines()[-1] == ("2" if "nope" in line else "0")
    assert "Traceback" not in done.stderr
    assert "BrokenPipe" not in done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
def test_an_output_that_cannot_be_written_is_a_failure(tmp_path: Path) -> None:
    """In two lines."""
    done = shell("PROGRAM events > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == "Error: the output could not be written: No space left on device"
    assert len(done.stderr.splitlines()) == 2


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
def test_any_encoding_of_the_terminal_will_do(file: Path, encoding: str) -> None:
    """Data is UTF-8 whatever it is, talk is escaped."""
    done = shell("PROGRAM inspect x.avro --limit 1", file, PYTHONIOENCODING=encoding)
    assert "日本/é" in json.loads(done.stdout)["properties"]["link_url"]
    done = shell("PROGRAM inspect 日本.avro", file, PYTHONIOENCODING=encoding)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "\\u65e5\\u672c.avro cannot be read" in done.stderr
