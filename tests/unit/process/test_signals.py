import contextlib
import signal
import threading
from collections.abc import Iterator
from queue import Queue

import pytest
from structlog.testing import capture_logs

from currents_bridge.process.signals import stopped_by_signals

ENDING = (signal.SIGTERM, signal.SIGINT)
SIGNALS = (*ENDING, signal.SIGHUP)
LONG_S = 20.0


@pytest.fixture
def stop() -> threading.Event:
    """The program's stop event."""
    return threading.Event()


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Put the process's own signal handlers back, whatever the test did."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_the_first_signal_sets_stop_and_the_second_ends_the_process(
    stop: threading.Event, number: signal.Signals
) -> None:
    """With the exit code that shells use for a signal."""
    codes: Queue[int] = Queue()

    with stopped_by_signals(stop, end=codes.put):
        signal.raise_signal(number)
        assert stop.wait(LONG_S)
        assert codes.empty()
        signal.raise_signal(number)
        assert codes.get(timeout=LONG_S) == 128 + number


@pytest.mark.parametrize("grace_s", [0.01, LONG_S])
def test_an_end_by_force_has_last_words(stop: threading.Event, grace_s: float) -> None:
    """Whether the grace is over or a second signal came: why, and that nothing is lost."""
    said: Queue[tuple[str, str]] = Queue()
    codes: Queue[int] = Queue()

    with capture_logs(), stopped_by_signals(stop, grace_s=grace_s, end=codes.put) as signals:
        signals.on_force = lambda why, hint: said.put((why, hint))
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(LONG_S)
        signal.raise_signal(signal.SIGTERM)
        codes.get(timeout=LONG_S)

    why, hint = said.get(timeout=LONG_S)
    assert ("a second signal" in why) or ("did not end within" in why)
    assert hint.startswith("nothing is lost")


def test_last_words_that_hang_hold_up_no_end(stop: threading.Event) -> None:
    """As where nobody reads what is said."""
    codes: Queue[int] = Queue()
    read = threading.Event()

    with capture_logs(), stopped_by_signals(stop, grace_s=0.01, end=codes.put) as signals:
        signals.on_force = lambda *_: read.wait(LONG_S)
        signal.raise_signal(signal.SIGTERM)
        assert codes.get(timeout=LONG_S / 2) == 1
        read.set()


def test_what_does_not_end_in_time_is_ended(stop: threading.Event) -> None:
    """With a line that says why; what hangs may be anything."""
    codes: Queue[int] = Queue()

    with capture_logs() as logs, stopped_by_signals(stop, grace_s=0.01, end=codes.put):
        signal.raise_signal(signal.SIGTERM)
        assert codes.get(timeout=LONG_S) == 1

    assert {line["event"] for line in logs} == {"stopped_by_force"}


def test_what_ends_in_time_is_not_ended(stop: threading.Event) -> None:
    """Not later either."""
    codes: Queue[int] = Queue()

    with stopped_by_signals(stop, grace_s=LONG_S, end=codes.put):
        signal.raise_signal(signal.SIGTERM)
        assert stop.wait(LONG_S)

    assert codes.empty()
    assert "signals" not in [thread.name for thread in threading.enumerate()]


def test_a_signal_is_taken_while_the_main_thread_waits_without_end(stop: threading.Event) -> None:
    """Python runs no handler before the wait is over, and here it never would be."""
    main, held = threading.main_thread().ident, threading.Lock()
    assert main is not None
    held.acquire()

    def send_to_another_thread() -> None:
        signal.pthread_kill(threading.get_ident(), signal.SIGTERM)

    def release_once_stopped() -> None:
        stop.wait(LONG_S)
        held.release()

    with stopped_by_signals(stop):
        threading.Thread(target=release_once_stopped).start()
        threading.Thread(target=send_to_another_thread).start()
        assert held.acquire(timeout=2 * LONG_S)

    assert stop.is_set()


def test_a_hangup_stops_nothing_and_does_what_it_is_for(stop: threading.Event) -> None:
    """The daemon has the secrets read again."""
    hung_up = threading.Event()

    with stopped_by_signals(stop) as signals:
        signals.on_hangup = hung_up.set
        signal.raise_signal(signal.SIGHUP)
        assert hung_up.wait(LONG_S)

    assert not stop.is_set()


def test_handlers_are_put_back_also_after_an_error(stop: threading.Event) -> None:
    """A library call leaves the process as it was."""
    before = [signal.getsignal(number) for number in SIGNALS]

    with contextlib.suppress(ZeroDivisionError), stopped_by_signals(stop):
        assert [signal.getsignal(number) for number in SIGNALS] != before
        raise ZeroDivisionError

    assert [signal.getsignal(number) for number in SIGNALS] == before
