"""Tells people what is wrong: keeps the open alerts, and brings messages to every channel until it has taken them."""

import logging
import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timedelta

from currents_bridge.alerts.engine import AlertKind, Severity, decide
from currents_bridge.alerts.rules import INCIDENTS, Health, Limits, conditions, job_alerts, job_is_over, last_words
from currents_bridge.due import LONGEST_WAIT, retry_at
from currents_bridge.errors import RetryLaterError
from currents_bridge.logs import get_logger
from currents_bridge.model import Alert, AlertMessage, AlertPhase, Decision, FailingJob
from currents_bridge.ports import AlertBook, Channel

POST_S = 20.0  # of messages to one channel in a row: others wait for it meanwhile, and so does the stop
CLAIMED_FOR = timedelta(minutes=5)  # longer than any channel takes for a message

_JOBS = ""  # no connector has this name

log = get_logger()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a channel made of a test message; `error` is None where it took it."""

    channel: str
    error: str | None


class Alerts:
    """The alerts of all connectors. `look`, `post` and `heartbeat` are called from one thread at a time.

    Args:
        book: keeps open alerts and queued messages.
        channels: where messages go.
        limits: from when on something is worth an alert.
        repeat: time from one telling of an open alert to the next.
        ping: tells a watchdog that all is well; raises RetryLaterError. None: there is none.
        clock: monotonic seconds.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands in each collaborator by name
        self,
        *,
        book: AlertBook,
        channels: Sequence[Channel],
        limits: Limits,
        repeat: timedelta,
        ping: Callable[[], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._book = book
        self._channels = {channel.fingerprint: channel for channel in channels}
        self._limits = limits
        self._repeat = repeat
        self._ping = ping
        self._clock = clock
        self._well: dict[str, bool] = {}  # connector, or _JOBS -> whether its jobs do what they are for

    @property
    def ping(self) -> Callable[[], None] | None:
        """Tells the watchdog that all is well, whether it is or not; raises RetryLaterError. None: there is none."""
        return self._ping

    @property
    def channel_names(self) -> list[str]:
        """Where messages go, without any secret."""
        return [channel.name for channel in self._channels.values()]

    def open(self) -> list[Alert]:
        """Return the open alerts, oldest first; raises LedgerError."""
        return self._book.open_alerts()

    def look(self, healths: Sequence[Health], now: datetime) -> None:
        """Compare the connectors with the open alerts, keep what has changed and queue what is to be told.

        Alerts of other connectors, and those of jobs, are left alone. Raises LedgerError; then nothing has changed.
        """
        by_name = {health.name: health for health in healths}
        self._well |= dict.fromkeys(by_name, False)
        wrong = {health.name: conditions(health, self._limits) for health in healths}
        found = [alert for alerts in wrong.values() for alert in alerts]

        def decided(known: Sequence[Alert]) -> Decision:
            of_these = [one for one in known if one.connector in by_name and one.kind != AlertKind.JOB_FAILING]
            return decide(
                found,
                of_these,
                now,
                self._repeat,
                lambda alert: last_words(alert, by_name[alert.connector], wrong[alert.connector]),
            )

        self._keep(decided)
        for name, alerts in wrong.items():
            self._well[name] = not any(alert.kind in INCIDENTS for alert in alerts)

    def look_at_jobs(self, failing: Sequence[FailingJob], connectors: Collection[str], now: datetime) -> None:
        """As `look`, for the jobs of the connectors, whatever else is known of these. Raises LedgerError."""
        self._well[_JOBS] = False
        found = job_alerts([job for job in failing if job.connector in connectors], now)

        def decided(known: Sequence[Alert]) -> Decision:
            of_ours = [one for one in known if one.connector in connectors and one.kind == AlertKind.JOB_FAILING]
            return decide(found, of_ours, now, self._repeat, job_is_over)

        self._keep(decided)
        self._well[_JOBS] = not found

    def _keep(self, decided: Callable[[Sequence[Alert]], Decision]) -> None:
        for message in self._book.revise(decided, list(self._channels)).messages:
            alert = message.alert
            quiet = message.phase is AlertPhase.RESOLVED or alert.severity == Severity.INFO
            log.log(
                logging.INFO if quiet else logging.WARNING,
                "alert_told",
                phase=str(message.phase),
                connector=alert.connector,
                kind=alert.kind,
                subject=alert.subject,
                severity=alert.severity,
                what=alert.what,
            )

    def post(self, now: datetime) -> None:
        """Bring each channel the messages that wait for it, in order, all channels at once.

        A channel that does not take a message is left alone for a while: one minute, doubling up to five; one that
        takes them slowly gets the rest the next time. Of several processes one posts each message. Raises LedgerError;
        a message that was taken may then be told again.
        """
        ready = [self._channels[name] for name in sorted(self._book.waiting(now) & self._channels.keys())]
        if ready:
            with ThreadPoolExecutor(len(ready), thread_name_prefix="alerts") as pool:
                list(pool.map(lambda channel: self._post(channel, now), ready))

    def heartbeat(self, *, healthy: bool) -> None:
        """Tell the watchdog that the program runs and its jobs end well, if they do; what else is wrong has alerts.

        `healthy`: it runs. At the last look no job failed, and no credential kept events from arriving.
        """
        if self._ping is None or not healthy or not self._well or not all(self._well.values()):
            return
        try:
            self._ping()
        except RetryLaterError as error:
            log.warning("heartbeat_not_taken", error=error.message)

    def test(self, now: datetime) -> list[Outcome]:
        """Send one message to each channel, past the queue, and return what became of it."""
        alert = Alert(
            connector="currents-bridge",
            kind=str(AlertKind.TEST),
            subject="",
            severity=str(Severity.INFO),
            since=now,
            what="This is a test, nothing is wrong",
            waits="",
            todo="nothing",
            told_at=now,
        )
        message = AlertMessage(AlertPhase.OPENED, alert, now)
        return [Outcome(channel.name, _error(channel, message)) for channel in self._channels.values()]

    def _post(self, channel: Channel, now: datetime) -> None:
        end_s = self._clock() + POST_S
        while self._clock() <= end_s and (queued := self._book.claim(channel.fingerprint, now, now + CLAIMED_FOR)):
            if error := _error(channel, queued.message):
                until = min(retry_at(now, queued.attempts), now + LONGEST_WAIT)
                log.warning("alert_not_taken", channel=channel.name, error=error, retry_at=until)
                self._book.postpone(queued.id, until)
                return
            self._book.taken(queued.id)


def _error(channel: Channel, message: AlertMessage) -> str | None:
    """Return why a channel did not take a message, None if it did."""
    try:
        channel.tell(message)
    except RetryLaterError as error:
        return error.message
    except Exception as error:  # noqa: BLE001 - a mistake in one channel, of ours or of a library, costs no other
        return type(error).__name__
    return None
