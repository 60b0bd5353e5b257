"""What becomes of large files in a container that is too tight for them: `python -m benchmarks.tight` as root, Linux.

Runs `once` under a real memory limit (a cgroup of its own, version 1 or 2), again after each time that the kernel ends
it, until every object has a verdict. Healthy files have to be delivered, none set aside, however often that takes.
"""

import argparse
import os
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from currents_bridge.testing.collector import Collector
from currents_bridge.testing.currents_files import large_file, object_key
from currents_bridge.testing.embedded_s3 import EmbeddedS3
from tests.installation import WRITE_KEY, Site, this_hour

CLICK = "users.messages.email.Click"
MOST_RUNS = 20
_CGROUPS = Path("/sys/fs/cgroup")
_MIB = 1024 * 1024


@contextmanager
def memory_limit(limit_mib: int) -> Iterator[Path]:
    """Make a cgroup with the limit; yields the file that takes processes into it."""
    version_1 = _CGROUPS / "memory"
    folder = (version_1 if version_1.is_dir() else _CGROUPS) / f"currents-bridge-{os.getpid()}"
    folder.mkdir()
    try:
        limit = folder / ("memory.limit_in_bytes" if version_1.is_dir() else "memory.max")
        limit.write_text(str(limit_mib * _MIB))
        yield folder / "cgroup.procs"
    finally:
        folder.rmdir()


def main() -> int:
    """Run it and print each run; returns 1 where a file was set aside or some never came through."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for name, default in (("limit-mib", 250), ("workers", 4), ("files", 6), ("file-mb", 86)):
        parser.add_argument(f"--{name}", type=int, default=default)
    asked = parser.parse_args()
    with (
        EmbeddedS3() as s3,
        Collector(write_keys=[WRITE_KEY]) as segment,
        tempfile.TemporaryDirectory() as folder,
        memory_limit(asked.limit_mib) as processes,
    ):
        site = Site(s3, segment, Path(folder))
        site.config["delivery"]["workers"] = asked.workers
        bytes_an_event = len(large_file(CLICK, 20_000, 1, hour=this_hour())) / 20_000
        for n in range(asked.files):
            body = large_file(CLICK, int(asked.file_mb * 1e6 / bytes_an_event), n + 1, hour=this_hour())
            site.put(object_key(CLICK, this_hour(), offset=n), body)
        for run in range(1, MOST_RUNS + 1):
            began_s = time.monotonic()
            code = _once(site, processes)
            states = _states(Path(folder) / "ledger.sqlite3")
            print(f"run {run}: exit {code}, {time.monotonic() - began_s:.0f} s, {states}", flush=True)
            if states == {"delivered": asked.files} or "quarantined" in states:
                break
    return 0 if states == {"delivered": asked.files} else 1


def _once(site: Site, processes: Path) -> int:
    command = 'echo $$ > "$0" && exec "$@"'  # the shell becomes the program
    site.start("--version").communicate()  # writes the configuration
    program = [sys.executable, "-m", "currents_bridge", "once", "--config", str(site.folder / "bridge.yaml")]
    return subprocess.run(
        ["/bin/sh", "-c", command, str(processes), *program],
        env=site.environ,
        cwd=site.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,
    ).returncode


def _states(ledger: Path) -> dict[str, int]:
    with closing(sqlite3.connect(ledger)) as connection:
        return dict(connection.execute("SELECT state, count(*) FROM objects GROUP BY state"))


if __name__ == "__main__":
    sys.exit(main())
