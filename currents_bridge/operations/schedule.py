"""`run`: jobs on a schedule, until a signal.

Each connector has jobs of its own, so that one that hangs or fails costs itself only. APScheduler keeps runs of a job
from overlapping and lets missed ones coalesce.
"""

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo

from apscheduler.events import EVENT_JOB_ERROR, EVENT_JOB_EXECUTED, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.base import BaseTrigger

from currents_bridge.errors import LedgerLostError, StoppedError
from currents_bridge.logs import get_logger
from currents_bridge.mistakes import described
from currents_bridge.process.memory import give_back

_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - of a zone of its own

log = get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do now and then again and again."""

    name: str  # unique
    run: Callable[[], object]
    every: timedelta


def run(jobs: Sequence[Job], stop: threading.Event, clock: Callable[[], float] = time.monotonic) -> None:
    """Run every job, now and then on its schedule, until `stop` is set; then drain and return.

    `clock` gives monotonic seconds: no clock of the machine that is set moves a run. Raises LedgerLostError, after
    draining, where a job did: without its ledger the daemon would only do harm.
    """
    lost: list[LedgerLostError] = []
    mistakes = _Mistakes()

    def on_error(event: JobExecutionEvent) -> None:
        if isinstance(event.exception, LedgerLostError):
            lost.append(event.exception)
            stop.set()
        elif not isinstance(event.exception, StoppedError):
            mistakes.log(event)

    zone = _Monotonic(clock)
    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(len(jobs))},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone=zone,
    )
    # _Mistakes tells of jobs that fail, and a poll that a long delivery keeps from starting is as it should be
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    scheduler.add_listener(on_error, EVENT_JOB_ERROR)
    scheduler.add_listener(mistakes.forget, EVENT_JOB_EXECUTED)
    for job in jobs:
        scheduler.add_job(
            _unless(stop, job.run),
            _Every(job.every),
            id=job.name,
            next_run_time=datetime.now(zone),
        )
    log.info("daemon_started", jobs={job.name: job.every.total_seconds() for job in jobs})
    scheduler.start()
    stop.wait()
    log.info("daemon_draining")
    scheduler.shutdown(wait=True)
    log.info("daemon_stopped")
    if lost:
        raise lost[0]


class _Every(BaseTrigger):  # type: ignore[misc]
    """Runs a job at an interval; runs that were missed are not made up for, be they few or billions."""

    def __init__(self, interval: timedelta) -> None:
        self._interval = interval

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime:
        """Return the next time after now that is whole intervals after the one before."""
        missed = (now - previous_fire_time) // self._interval if previous_fire_time else 0
        return (previous_fire_time or now) + self._interval * (1 + max(0, missed))


class _Monotonic(tzinfo):
    """A time zone that knows only how long the program runs, since the clock of the machine may jump.

    APScheduler asks for the time by `datetime.now(timezone)`, which asks the time zone what the machine's clock means.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock

    def fromutc(self, _: datetime) -> datetime:
        """Return the time of this zone, whatever the machine's clock says."""
        return _EPOCH.replace(tzinfo=self) + timedelta(seconds=self._clock())

    def utcoffset(self, _: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> str:
        return "monotonic"


def _unless(stop: threading.Event, job: Callable[[], object]) -> Callable[[], None]:
    def run_job() -> None:
        if stop.is_set():
            return
        try:
            job()
        finally:
            give_back()  # until the next time nobody here needs what it used

    return run_job


class _Mistakes:
    """Logs what jobs raise: the traceback of one kind once, then how often in a row it came."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[str, int]] = {}  # job -> what it raised, and how often in a row

    def log(self, event: JobExecutionEvent) -> None:
        what = described(event.exception)
        before, times = self._latest.get(event.job_id, ("", 0))
        times = times + 1 if what == before else 1
        self._latest[event.job_id] = what, times
        if times == 1:
            log.error("job_failed", job=event.job_id, error=repr(event.exception), traceback=event.traceback)
        else:
            log.error("job_failed", job=event.job_id, error=what, times=times)

    def forget(self, event: JobExecutionEvent) -> None:
        """Take in that a job ended well: what it raises after that is news."""
        self._latest.pop(event.job_id, None)
