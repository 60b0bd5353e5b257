"""What the operating system says of processes: wall time, CPU and peak memory of one command, CPU of the servers."""

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Measured:
    """One command that ended by itself."""

    exit_code: int
    stdout: str
    wall_s: float  # from its start to its end, the start of the interpreter included
    user_s: float
    system_s: float
    peak_rss_bytes: int
    servers_cpu_s: Mapping[str, float]  # CPU of the other processes that this one started, by name, meanwhile


def run_measured(command: Sequence[str], *, environ: Mapping[str, str], log: Path, timeout_s: float) -> Measured:
    """Run a command to its end; its stderr goes to `log`.

    `wait4` gives exactly the command's own use, without that of the servers. On Linux its peak is never less than the
    memory of the process that started it, so this process must be the smaller one.

    Raises:
        TimeoutError: it was killed after `timeout_s` seconds.
    """
    before = _cpu_of_children()
    with log.open("wb") as errors, log.with_suffix(".out").open("w+b") as output:
        began_s = time.monotonic()
        process = subprocess.Popen(command, env=dict(environ), stdout=output, stderr=errors)
        timer = threading.Timer(timeout_s, process.kill)
        timer.start()
        try:
            _, status, usage = os.wait4(process.pid, 0)
        except BaseException:
            process.kill()
            process.wait()
            raise
        finally:
            timer.cancel()
        wall_s = time.monotonic() - began_s
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        stdout = output.read().decode()
    if wall_s >= timeout_s:
        raise TimeoutError(f"{command[0]} did not end within {timeout_s:.0f} s:\n{log.read_text()[-2000:]}")
    servers = {name: seconds - before.get(name, 0.0) for name, seconds in _cpu_of_children().items()}
    return Measured(
        exit_code=process.returncode,
        stdout=stdout,
        wall_s=wall_s,
        user_s=usage.ru_utime,
        system_s=usage.ru_stime,
        peak_rss_bytes=usage.ru_maxrss * 1024,
        servers_cpu_s={name: round(seconds, 2) for name, seconds in servers.items() if seconds > 0},
    )


def _cpu_of_children() -> dict[str, float]:
    """Return the CPU seconds that the living descendants of this process took so far, by name."""
    seconds: dict[str, float] = {}
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        seconds[process.name()] = seconds.get(process.name(), 0.0) + times.user + times.system
    return seconds
