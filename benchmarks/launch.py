"""Runs one command and writes what the operating system says of it: `launch.py REPORT COMMAND...`.

A small process of its own, because on Linux the peak memory of a process is never less than that of the process that
started it. So this file imports as little as it can.
"""

import json
import os
import sys
import time
from pathlib import Path


def main(report: str, *command: str) -> None:
    """Run the command to its end; the report holds exit_code, wall_s, cpu_s and peak_rss_bytes."""
    began_s = time.monotonic()
    pid = os.posix_spawnp(command[0], command, os.environ)
    _, status, usage = os.wait4(pid, 0)
    measured = {
        "exit_code": os.waitstatus_to_exitcode(status),
        "wall_s": time.monotonic() - began_s,
        "cpu_s": usage.ru_utime + usage.ru_stime,  # of all its threads, and of the processes that it waited for
        "peak_rss_bytes": usage.ru_maxrss * 1024,
    }
    Path(report).write_text(json.dumps(measured), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
