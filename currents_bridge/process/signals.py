"""How signals end the program: what was begun has a while to end in, then the process ends, whatever hangs.

A thread of its own reads them off a socket. Python runs handlers in the main thread only, between two of its steps: so
a handler waits for as long as SQLite waits for a locked ledger or a connection hangs, and for ever where a signal comes
right before a wait without end. https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from currents_bridge.logs import get_logger

COMMAND_GRACE_S = 4.0  # who pressed Ctrl-C waits for 5 s at most
DAEMON_GRACE_S = 15.0  # `docker stop` would wait for 10 s, Kubernetes for 30 s, systemd for 90 s, by default
LAST_WORDS_S = 0.5  # for a last line in the log and a document, which nobody may be reading

_ENDING = (signal.SIGTERM, signal.SIGINT)
_NOTHING_LOST = "nothing is lost: what was under way is sent again by the next run, with the same message ids"

log = get_logger()


@contextmanager
def stopped_by_signals(
    stop: threading.Event, grace_s: float = COMMAND_GRACE_S, end: Callable[[int], object] = os._exit
) -> "Iterator[Listener]":
    """Let the first SIGTERM or SIGINT set `stop`, the second end the process at once, and SIGHUP do `on_hangup`.

    Where the process is still here `grace_s` after the stop, it ends with 1. Either end by force is as safe as a crash:
    what was in flight is sent again by the next run, with the same message ids. For the main thread only. `end` is for
    tests.
    """
    receiver, sender = socket.socketpair()
    sender.setblocking(False)
    listener = Listener(receiver, stop, grace_s, end)
    handlers = {number: signal.signal(number, _caught) for number in (*_ENDING, signal.SIGHUP)}
    wakeup_before = signal.set_wakeup_fd(sender.fileno(), warn_on_full_buffer=False)
    thread = threading.Thread(target=listener.run, name="signals", daemon=True)
    thread.start()
    try:
        yield listener
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in handlers.items():
            signal.signal(number, handler)
        sender.close()
        thread.join()
        receiver.close()


class Listener:
    """Does what signals say, as they come from a socket, until it is closed.

    Attributes:
        on_stop: what a stop does besides, given the seconds after which the process ends by force.
        on_hangup: what SIGHUP is for.
        on_force: what an end by force does besides, given why it comes and what to do; has LAST_WORDS_S.
    """

    def __init__(
        self, receiver: socket.socket, stop: threading.Event, grace_s: float, end: Callable[[int], object]
    ) -> None:
        self.on_stop: Callable[[float], object] = lambda _: None
        self.on_hangup: Callable[[], object] = lambda: None
        self.on_force: Callable[[str, str], object] = lambda *_: None
        self._receiver = receiver
        self._stop = stop
        self._grace_s = grace_s
        self._end = end
        self._end_s: float | None = None  # when the process ends by force

    def run(self) -> None:
        """Read signals; returns once there will be none, or the process has ended."""
        try:
            while number := self._next():
                self._take(number)
        except TimeoutError:
            self._force(1, f"what was begun did not end within {self._grace_s:g} s of the stop")

    def _next(self) -> int:
        """Return the next signal, 0 once there will be none; raises TimeoutError when the grace is over."""
        if self._end_s is not None:
            self._receiver.settimeout(max(0.001, self._end_s - time.monotonic()))
        return int.from_bytes(self._receiver.recv(1))

    def _take(self, number: int) -> None:
        if number == signal.SIGHUP:
            self.on_hangup()
        elif number in _ENDING and self._end_s is None:
            self._end_s = time.monotonic() + self._grace_s
            self._stop.set()
            self.on_stop(self._grace_s)
        elif number in _ENDING:
            self._force(128 + number, "a second signal came before what was begun had ended")

    def _force(self, code: int, why: str) -> None:
        """End the process; nobody may be reading what is said before."""
        last_words = threading.Thread(target=self._say, args=(why,), daemon=True)
        last_words.start()
        last_words.join(LAST_WORDS_S)
        self._end(code)

    def _say(self, why: str) -> None:
        self.on_force(why, _NOTHING_LOST)
        log.error("stopped_by_force", error=why, hint=_NOTHING_LOST)


def _caught(*_: object) -> None:
    """Have Python catch a signal; the listener does the rest."""
