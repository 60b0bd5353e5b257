"""`run`: jobs on a schedule, until a signal.

Each connector has jobs of its own, so that one that hangs or fails costs itself only. APScheduler keeps runs of a job
from overlapping and lets missed ones coalesce.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import FrameType

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from currents_bridge.errors import LedgerLostError
from currents_bridge.logs import get_logger
from currents_bridge.memory import give_back

log = get_logger()


@dataclass(frozen=True, slots=True)
class Job:
    """Something to do now and then again and again."""

    name: str  # unique
    run: Callable[[], object]
    every: timedelta


def run(jobs: Sequence[Job], stop: threading.Event) -> None:
    """Run every job, now and then on its schedule, until `stop` is set; then drain and return.

    Raises LedgerLostError, after draining, where a job did: without its ledger the daemon would only do harm.
    """
    lost: list[LedgerLostError] = []

    def on_error(event: JobExecutionEvent) -> None:
        if isinstance(event.exception, LedgerLostError):
            lost.append(event.exception)
            stop.set()
        else:
            _log_mistake(event)

    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(len(jobs))},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone=UTC,
    )
    # _log_mistake tells of jobs that fail, and a poll that a long delivery keeps from starting is as it should be
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    scheduler.add_listener(on_error, EVENT_JOB_ERROR)
    for job in jobs:
        scheduler.add_job(
            _unless(stop, job.run),
            "interval",
            seconds=job.every.total_seconds(),
            id=job.name,
            next_run_time=datetime.now(UTC),
        )
    log.info("daemon_started", jobs={job.name: job.every.total_seconds() for job in jobs})
    scheduler.start()
    stop.wait()
    log.info("daemon_draining")
    scheduler.shutdown(wait=True)
    log.info("daemon_stopped")
    if lost:
        raise lost[0]


@contextmanager
def stopped_by_signals(stop: threading.Event, on_hangup: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Let the first SIGTERM or SIGINT set `stop`, the second end the process at once, and SIGHUP call `on_hangup`.

    What was in flight at a sudden end is sent again by the next run, with the same message ids.
    """

    def handle(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    before[signal.SIGHUP] = signal.signal(signal.SIGHUP, lambda *_: on_hangup())
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unless(stop: threading.Event, job: Callable[[], object]) -> Callable[[], None]:
    def run_job() -> None:
        if stop.is_set():
            return
        try:
            job()
        finally:
            give_back()  # until the next time nobody here needs what it used

    return run_job


def _log_mistake(event: JobExecutionEvent) -> None:
    log.error("job_failed", job=event.job_id, error=repr(event.exception), traceback=event.traceback)
