"""What reading a file costs, measured in the process that reads it."""

import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

MAX_CPU_S = 10
_SELF = Path("/proc/self")


@dataclass(slots=True)
class Cost:
    """What was used beyond what the process had before."""

    cpu_s: float = 0.0
    memory_bytes: int = 0

    def check(self, size_bytes: int) -> None:
        """Raise AssertionError where a file of this size may not cost so much, as docs/guarantees.md has it."""
        assert self.cpu_s <= MAX_CPU_S, self
        assert self.memory_bytes <= 30 * size_bytes + 150_000_000, (size_bytes, self)


@contextmanager
def measured() -> Iterator[Cost]:
    """Measure CPU time of all threads, and the peak of resident memory."""
    (_SELF / "clear_refs").write_text("5")  # forget the peak so far
    before_bytes = _status("VmRSS")
    began_s = time.process_time()
    cost = Cost()
    yield cost
    cost.cpu_s = time.process_time() - began_s
    cost.memory_bytes = _status("VmHWM") - before_bytes


def _status(name: str) -> int:
    lines = dict(line.split(":", 1) for line in (_SELF / "status").read_text().splitlines())
    return int(lines[name].split()[0]) * 1024


def limit_address_space(size_bytes: int) -> None:
    """Let the process end rather than the machine."""
    resource.setrlimit(resource.RLIMIT_AS, (size_bytes, size_bytes))
