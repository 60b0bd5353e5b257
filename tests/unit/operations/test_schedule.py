import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, tzinfo
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
from apscheduler.schedulers import base
from structlog.testing import capture_logs

from currents_bridge.errors import LedgerLostError
from currents_bridge.operations import schedule

NOW = datetime(2026, 1, 2, 3, tzinfo=UTC)
NEVER = timedelta(hours=1)
AT_ONCE = timedelta(milliseconds=5)


@dataclass
class Jobs:
    """The jobs of one connector."""

    poll: Callable[[], object]
    audit: Callable[[], object] = lambda: None
    name: str = "production"


@dataclass
class Calls:
    """Counts calls, and does something at the n-th."""

    at: int = 1
    then: Callable[[], object] = lambda: None
    times: int = 0
    reached: threading.Event = field(default_factory=threading.Event)

    def __call__(self) -> None:
        """Count."""
        self.times += 1
        if self.times == self.at:
            self.then()
            self.reached.set()


def run(
    *jobs: Jobs,
    stop: threading.Event,
    poll: timedelta = NEVER,
    audit: timedelta = NEVER,
    clock: Callable[[], float] = time.monotonic,
) -> list[Any]:
    """Run the daemon until `stop`, or for 20 s where a test fails; return its log lines."""
    watchdog = threading.Timer(20, stop.set)
    watchdog.start()
    scheduled = [
        schedule.Job(f"{of.name}.{name}", work, every)
        for of in jobs
        for name, work, every in (("poll", of.poll, poll), ("audit", of.audit, audit))
    ]
    with capture_logs() as logs:
        schedule.run(scheduled, stop, clock)
    watchdog.cancel()
    return list(logs)


@pytest.fixture
def stop() -> threading.Event:
    """The program's stop event."""
    return threading.Event()


def test_every_connector_polls_and_audits_at_once(stop: threading.Event) -> None:
    """Not only after the first interval."""
    all_four = threading.Barrier(4, action=stop.set, timeout=20)

    logs = run(Jobs(all_four.wait, all_four.wait), Jobs(all_four.wait, all_four.wait, "second"), stop=stop)

    assert [line["event"] for line in logs] == ["daemon_started", "daemon_draining", "daemon_stopped"]
    assert list(logs[0]["jobs"]) == ["production.poll", "production.audit", "second.poll", "second.audit"]


def test_jobs_run_again_at_their_interval(stop: threading.Event) -> None:
    """Until the stop."""
    polls, audits = Calls(at=3, then=stop.set), Calls()

    run(Jobs(polls, audits), stop=stop, poll=AT_ONCE)

    assert (polls.times, audits.times) == (3, 1)


def test_a_poll_that_takes_long_is_not_overlapped_and_keeps_nothing_else_waiting(
    stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """Sweeps and other connectors go on meanwhile, and nobody is warned of what is as it should be."""
    others, audits = Calls(at=5), Calls(at=5)

    def outlast_the_others() -> None:
        assert others.reached.wait(20)
        assert audits.reached.wait(20)
        stop.set()

    long = Calls(then=outlast_the_others)
    run(Jobs(long, audits), Jobs(others, name="second"), stop=stop, poll=AT_ONCE, audit=AT_ONCE)

    assert long.times == 1
    assert min(others.times, audits.times) >= 5
    assert not caplog.records


def test_a_mistake_in_one_job_is_logged_once_and_the_others_go_on(
    stop: threading.Event, caplog: pytest.LogCaptureFixture
) -> None:
    """With its traceback; the job itself is tried again at its interval."""
    failing = Calls(at=2, then=stop.set)

    def poll() -> None:
        failing()
        raise ZeroDivisionError("a mistake")

    logs = run(Jobs(poll), stop=stop, poll=AT_ONCE)

    failures = [line for line in logs if line["event"] == "job_failed"]
    assert [line["job"] for line in failures] == ["production.poll"] * 2
    assert "ZeroDivisionError" in failures[0]["traceback"]
    assert not caplog.records


def test_a_traceback_that_comes_again_is_counted(stop: threading.Event) -> None:
    """Another mistake, or the same after the job ended well, is logged whole."""
    outcomes: list[type[Exception] | None] = [KeyError, KeyError, KeyError, IndexError, None, IndexError]

    def poll() -> None:
        if not outcomes:
            stop.set()
        elif outcome := outcomes.pop(0):
            raise outcome("a mistake")

    logs = run(Jobs(poll), stop=stop, poll=AT_ONCE)

    failures = [line for line in logs if line["event"] == "job_failed"]
    assert ["traceback" in line for line in failures] == [True, False, False, True, True]
    assert [line.get("times", 1) for line in failures] == [1, 2, 3, 1, 1]


def test_memory_is_given_back_after_each_job(stop: threading.Event, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job that fails has used memory as well."""
    done: list[str] = []
    polled = threading.Event()

    def poll() -> None:
        done.append("polled")

    def audit() -> None:
        assert polled.wait(10)
        done.append("swept")
        raise RuntimeError("a mistake of ours")

    def give_back() -> None:
        done.append("given back")
        polled.set()
        if len(done) == 4:
            stop.set()

    monkeypatch.setattr(schedule, "give_back", give_back)
    run(Jobs(poll, audit), stop=stop)

    assert done == ["polled", "given back", "swept", "given back"]


def test_the_daemon_returns_only_after_the_jobs_that_run_have_ended() -> None:
    """What was begun is settled, though the daemon is draining already."""
    draining, ended = threading.Event(), threading.Event()

    class Stop(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            stopped = super().wait(timeout)
            draining.set()
            return stopped

    stop = Stop()

    def poll() -> None:
        stop.set()
        assert draining.wait(20)
        ended.set()

    run(Jobs(poll), stop=stop)

    assert ended.is_set()


def test_nothing_is_begun_after_the_stop(stop: threading.Event) -> None:
    """A job that is due at that very moment does nothing."""
    stop.set()
    polls = Calls()

    run(Jobs(polls, polls), stop=stop, poll=AT_ONCE, audit=AT_ONCE)

    assert polls.times == 0


class SteppedClock:
    """A machine's clock that starts at `first` and goes to `then` as soon as it was asked."""

    def __init__(self, first: datetime, then: datetime) -> None:
        self._times = chain([first], repeat(then))

    def now(self, zone: tzinfo) -> datetime:
        """Return the time, as `datetime.now` does."""
        return zone.fromutc(next(self._times).replace(tzinfo=zone))


@pytest.mark.parametrize(
    "then",
    [NOW - timedelta(hours=1), NOW.replace(year=2082), NOW.replace(year=1970)],
    ids=["back", "forth", "far back"],
)
def test_a_clock_that_is_set_moves_no_run(
    stop: threading.Event, monkeypatch: pytest.MonkeyPatch, then: datetime
) -> None:
    """Neither is a run missed, nor are those of 56 years listed."""
    monkeypatch.setattr(base, "datetime", SteppedClock(NOW, then))
    polls = Calls(at=3, then=stop.set)

    run(Jobs(polls), stop=stop, poll=AT_ONCE)

    assert polls.times == 3


def test_runs_that_were_missed_are_one_however_many_they_were(stop: threading.Event) -> None:
    """As after a machine was suspended for years; the monotonic clock of some systems goes on meanwhile."""
    beginning, years_s = time.monotonic(), 56 * 365 * 86400.0
    polls = Calls(at=3, then=stop.set)

    run(Jobs(polls), stop=stop, poll=AT_ONCE, clock=lambda: time.monotonic() + (years_s if polls.times else 0.0))

    assert polls.times == 3
    assert time.monotonic() - beginning < 10


def test_a_ledger_that_is_lost_stops_the_daemon(stop: threading.Event) -> None:
    """With the sentence that says so, and without a traceback."""

    def poll() -> None:
        raise LedgerLostError(Path("/x/ledger"), "removed")

    with pytest.raises(LedgerLostError, match="/x/ledger was removed while"):
        run(Jobs(poll), stop=stop)
    assert stop.is_set()
