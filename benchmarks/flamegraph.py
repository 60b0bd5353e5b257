"""`make profile`: a flame graph of the steady state, by py-spy, of all threads of `currents-bridge once`.

A frame is as wide as the share of samples in which it was on a thread's stack: by default threads that ran, whether
in Python or in native code; with `--gil` only those that held Python's lock; with `--idle` also those that waited.
"""

import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Annotated

import typer

from benchmarks.files import plan_files
from benchmarks.rig import program, running_rig
from benchmarks.sinks import SinkKind

RATE_HZ = 100
BUILD = Path(__file__).parents[1] / "build"


def main(
    *,
    events: Annotated[int, typer.Option(help="Email clicks, 15,000 an object")] = 1_000_000,
    gil: Annotated[bool, typer.Option("--gil", help="Only threads that hold Python's lock")] = False,
    idle: Annotated[bool, typer.Option("--idle", help="Also threads that wait")] = False,
) -> None:
    """Write build/profile.svg."""
    name = "profile-gil.svg" if gil else "profile-idle.svg" if idle else "profile.svg"
    BUILD.mkdir(exist_ok=True)
    py_spy = [str(Path(sysconfig.get_path("scripts")) / "py-spy"), "record", f"--rate={RATE_HZ}", "--threads"]
    py_spy += [*(["--gil"] if gil else []), *(["--idle"] if idle else []), "--output", str(BUILD / name), "--"]
    with running_rig(SinkKind.AUTO) as rig:
        rig.upload(plan_files(events, 15_000), "profile")
        config = rig.config(rig.folder, rig.folder / "profile.sqlite3", "profile", rig.sink.url)
        done = subprocess.run([*py_spy, *program("once", "--config", str(config))], check=False)
    sys.exit(done.returncode)


if __name__ == "__main__":
    typer.run(main)
