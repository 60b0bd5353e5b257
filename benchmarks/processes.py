"""What the operating system says of one command: wall time, CPU and peak memory."""

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

LAUNCHER = Path(__file__).with_name("launch.py")


@dataclass(frozen=True, slots=True)
class Measured:
    """One command that ended by itself."""

    exit_code: int
    stdout: str
    stderr: str
    wall_s: float  # from its start to its end, the start of the interpreter included
    cpu_s: float  # user and system, of all its threads and children, and of no other process
    peak_rss_bytes: int


def run_measured(command: Sequence[str], *, timeout_s: float) -> Measured:
    """Run a command to its end.

    Raises:
        TimeoutError: it was killed after `timeout_s` seconds.
        RuntimeError: it ended with another exit code than 0.
    """
    with tempfile.TemporaryDirectory(prefix="currents-bridge-run-") as name:
        report, out, err = (Path(name) / part for part in ("report", "out", "err"))
        launch = [sys.executable, "-S", "-E", str(LAUNCHER), str(report), *command]
        with (
            out.open("wb") as output,
            err.open("wb") as errors,
            subprocess.Popen(launch, stdout=output, stderr=errors, start_new_session=True) as process,
        ):
            try:
                process.wait(timeout_s)
            except BaseException as error:
                os.killpg(process.pid, signal.SIGKILL)
                if isinstance(error, subprocess.TimeoutExpired):
                    raise TimeoutError(f"{' '.join(command)} did not end:\n{_end_of(err)}") from error
                raise
        if not report.exists():
            raise RuntimeError(f"{' '.join(command)} did not start:\n{_end_of(err)}")
        measured = Measured(
            stdout=out.read_text(encoding="utf-8"),
            stderr=err.read_text(encoding="utf-8", errors="replace"),
            **json.loads(report.read_text(encoding="utf-8")),
        )
    if measured.exit_code:
        raise RuntimeError(
            f"{' '.join(command)} ended with {measured.exit_code}:\n{measured.stdout[-2000:]}{measured.stderr[-3000:]}"
        )
    return measured


def _end_of(log: Path) -> str:
    return log.read_text(encoding="utf-8", errors="replace")[-3000:]
