"""Who owns a claim: one process, told apart from every other one that ever was."""

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

_START_TOLERANCE_S = 2.0  # the kernel rounds the boot time, which is one term of the difference, to whole seconds


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """A process: `pid` means something only on `host`, and only for the process that started at `started_s`."""

    host: str
    pid: int
    started_s: float  # since boot, so that a corrected clock changes nothing


def this_host() -> str:
    """Name the world in which process ids of ours are unique: host name, and on Linux this boot and pid namespace.

    Two containers of one host see different processes under one id, and two hosts may bear one name.
    """
    parts = [socket.gethostname()]
    boot_id, pid_namespace = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/self/ns/pid")
    if boot_id.exists() and pid_namespace.exists():
        parts += [boot_id.read_text().strip(), str(pid_namespace.stat().st_ino)]
    return "/".join(parts)


def this_process() -> ProcessIdentity:
    """Return the identity of the calling process."""
    return ProcessIdentity(this_host(), os.getpid(), _started_s(psutil.Process()))


def has_ended(process: ProcessIdentity, host: str) -> bool:
    """Whether the process is seen, from `host`, to have ended; False wherever that cannot be known."""
    if process.host != host:
        return False
    try:
        found = psutil.Process(process.pid)
        return found.status() == psutil.STATUS_ZOMBIE or abs(_started_s(found) - process.started_s) > _START_TOLERANCE_S
    except psutil.NoSuchProcess:
        return True


def _started_s(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()
