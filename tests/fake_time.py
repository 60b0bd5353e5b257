"""Time that only waiting moves."""

import threading


class FakeTime:
    """A clock that only waiting moves."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits_s: list[float] = []

    def clock(self) -> float:
        """Return the time."""
        return self.now_s

    def sleep(self, seconds: float) -> None:
        """Let time pass."""
        self.waits_s.append(seconds)
        self.now_s += seconds


class FakeStop(threading.Event):
    """A stop event whose waits move the fake clock."""

    def __init__(self, time: FakeTime) -> None:
        super().__init__()
        self._time = time

    def wait(self, timeout: float | None = None) -> bool:
        """Let time pass unless the event is set."""
        if not self.is_set():
            self._time.sleep(timeout or 0.0)
        return self.is_set()
