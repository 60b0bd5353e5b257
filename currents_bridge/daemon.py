"""`run`: poll and sweep on a schedule, until a signal.

Each connector has jobs of its own, so that one that hangs or fails costs itself only. APScheduler keeps runs of a job
from overlapping and lets missed ones coalesce.
"""

import logging
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import FrameType

from apscheduler.events import EVENT_JOB_ERROR, JobExecutionEvent
from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from currents_bridge.connector import Connector
from currents_bridge.logs import get_logger

log = get_logger()


def run(connectors: Sequence[Connector], *, poll: timedelta, sweep: timedelta, stop: threading.Event) -> None:
    """Poll and sweep every connector, now and then on schedule, until `stop` is set; then drain and return."""
    scheduler = BackgroundScheduler(
        executors={"default": ThreadPoolExecutor(2 * len(connectors))},
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
        timezone=UTC,
    )
    # _log_mistake tells of jobs that fail, and a poll that a long delivery keeps from starting is as it should be
    logging.getLogger("apscheduler").setLevel(logging.CRITICAL)
    scheduler.add_listener(_log_mistake, EVENT_JOB_ERROR)
    for connector in connectors:
        for name, job, interval in (("poll", connector.poll, poll), ("sweep", connector.sweep, sweep)):
            scheduler.add_job(
                _unless(stop, job),
                "interval",
                seconds=interval.total_seconds(),
                id=f"{connector.name}.{name}",
                next_run_time=datetime.now(UTC),
            )
    log.info("daemon_started", connectors=[c.name for c in connectors], poll_s=poll.total_seconds())
    scheduler.start()
    stop.wait()
    log.info("daemon_draining")
    scheduler.shutdown(wait=True)
    log.info("daemon_stopped")


@contextmanager
def stopped_by_signals(stop: threading.Event) -> Iterator[None]:
    """Let the first SIGTERM or SIGINT set `stop`, and the second end the process at once.

    What was in flight then is sent again by the next run, with the same message ids.
    """

    def handle(number: int, _: FrameType | None) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    before = {number: signal.signal(number, handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _unless(stop: threading.Event, job: Callable[[], object]) -> Callable[[], None]:
    def run_job() -> None:
        if not stop.is_set():
            job()

    return run_job


def _log_mistake(event: JobExecutionEvent) -> None:
    log.error("job_failed", job=event.job_id, error=repr(event.exception), traceback=event.traceback)
