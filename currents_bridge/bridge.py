"""An open program: what the commands and the daemon do with the connectors of a configuration."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from itertools import chain

from currents_bridge.alerts.rules import Health
from currents_bridge.alerts.service import Alerts
from currents_bridge.config import Settings
from currents_bridge.connector import Connector, kept
from currents_bridge.delivery.workers import TransferReport
from currents_bridge.due import lately
from currents_bridge.errors import (
    BridgeError,
    ConfigError,
    CredentialError,
    JobError,
    LedgerError,
    Side,
    StoppedError,
    UsageError,
)
from currents_bridge.logs import get_logger
from currents_bridge.mistakes import MISTAKES, described
from currents_bridge.model import CredentialState, LetterFilter, ObjectState
from currents_bridge.operations.health import HealthReader
from currents_bridge.operations.jobs import LIFE, JobRecords
from currents_bridge.operations.opening import OPEN, Unopened
from currents_bridge.operations.schedule import Job
from currents_bridge.ports import Ledger
from currents_bridge.sources.findings import UNEXPLAINED
from currents_bridge.sources.notices import is_unexplained

ALERTS_EVERY = timedelta(seconds=30)
AUDIT_CHECK = timedelta(seconds=10)  # from one look at whether an audit is due to the next
PROBE_SHARE = 0.9  # of the time between two probes: a run that comes a little early still asks

log = get_logger()


@dataclass(slots=True)
class Bridge:
    """An open program: one ledger, the connectors of the settings, and who is told of what is wrong with them."""

    settings: Settings
    ledger: Ledger
    connectors: list[Connector]
    alerts: Alerts
    now: Callable[[], datetime]
    stop: threading.Event
    unopened: dict[str, Unopened] = field(default_factory=dict)  # connectors whose secrets cannot be read or used now
    _health: list[HealthReader] = field(init=False)
    _records: JobRecords = field(init=False)

    def __post_init__(self) -> None:
        self._health = [HealthReader(connector) for connector in self.connectors]
        self._records = JobRecords(self.ledger, self.now)

    def named(self, name: str | None) -> Sequence[Connector]:
        """Return the connector of that name, all without a name.

        Raises UsageError for an unknown one, ConfigError where one that is meant cannot be opened.
        """
        missing = [one for unopened, one in self.unopened.items() if name in (None, unopened)]
        if missing:
            raise missing[0].error
        chosen = [connector for connector in self.connectors if name in (None, connector.name)]
        if not chosen:
            known = ", ".join(self._names())
            raise UsageError(f"there is no connector {name}", f"the configuration has: {known}")
        return chosen

    def read_secrets_again(self) -> None:
        """Have every connector read its write keys before its next pass."""
        for connector in self.connectors:
            connector.watch.ask_for_renewal()

    def tell(self) -> None:
        """Look at the jobs and the health of all connectors, tell what is to be told, and the watchdog if all is well.

        Whatever goes wrong for one connector is raised after all others were told of. A channel or watchdog that does
        not answer is only logged.
        """
        now = self.now()
        healthy, mistakes, active_at = True, [], {}
        span = max(LIFE, 2 * self.settings.schedule.poll)
        for reader in self._health:
            try:
                health = self._records.run(reader.name, "alerts", partial(self._look, reader, now))
            except MISTAKES as error:
                mistakes.append(error)
            else:
                active_at[reader.name] = health.active_at
                healthy &= lately(health.active_at, now, span)
        hanging = self._records.hanging(active_at, span)
        known = {(job.connector, job.job) for job in hanging}
        failing = [job for job in self.ledger.failing_jobs() if (job.connector, job.job) not in known]
        self.alerts.look_at_jobs([*failing, *hanging], self._names(), now)
        self.alerts.post(now)
        if mistakes:
            raise mistakes[0]
        self.alerts.heartbeat(healthy=healthy)

    def _look(self, reader: HealthReader, now: datetime) -> Health:
        health = reader.read(now)
        self.alerts.look([health], now)
        return health

    def once(self) -> dict[str, TransferReport]:
        """Run every connector once, ask about its write key, and tell what is to be told; a stop ends it."""
        reports = {connector.name: self._once(connector) for connector in self.connectors}
        for name in list(self.unopened):
            reports[name] = TransferReport()
            with kept(reports[name]):
                self._records.run(name, OPEN, partial(self._open, name))
                reports[name] = self._once(self.connectors[-1])
        if self.stop.is_set():
            return reports
        try:
            self.tell()
        except BridgeError as error:
            log.warning("alerts_not_told", error=error.message)
        except MISTAKES:
            log.exception("job_failed", job="alerts")
        return reports

    def _once(self, connector: Connector) -> TransferReport:
        """Run one connector; a mistake of ours must not keep the others from theirs."""
        report = TransferReport()
        schedule = self.settings.schedule
        for job, work in (
            ("poll", partial(connector.once, schedule.audit)),
            ("probe", partial(connector.probe, schedule.probe)),
        ):
            with kept(report):
                if self.stop.is_set():
                    raise StoppedError(f"the {job} of {connector.name}")
                try:
                    report = self._records.run(connector.name, job, work) or report
                except BridgeError:
                    raise
                except MISTAKES as error:
                    log.exception("job_failed", job=f"{connector.name}.{job}")
                    raise JobError(f"the job {connector.name}.{job} failed: {described(error)}") from error
        with kept(report):
            connector.raise_if_paused()
        return report

    def _names(self) -> list[str]:
        return [*(connector.name for connector in self.connectors), *self.unopened]

    def _open(self, name: str) -> None:
        """Open a connector that could not be opened before; raises ConfigError, LedgerError."""
        connector = self.unopened[name].open()
        self.connectors.append(connector)
        self._health.append(HealthReader(connector))
        del self.unopened[name]

    def exit_code(self, reports: Mapping[str, TransferReport]) -> int:
        """Return what `once` ends with: by what it did, by what waits after a failure, and by what stands aside."""
        return worst([exit_code(reports.values()), *chain.from_iterable(map(self._standing, self.connectors))])

    def _standing(self, connector: Connector) -> Iterator[int]:
        try:
            totals = self.ledger.totals(connector.name)
            dead_letters = self.ledger.dead_letters(LetterFilter(connector.name), limit=1)
        except LedgerError:  # its reports say so, too
            yield 1
            return
        if totals.credentials[Side.DESTINATION].state is CredentialState.SUSPECT:
            yield 3
        objects = totals.objects
        left = objects[ObjectState.PENDING] + objects[ObjectState.CLAIMED]
        if objects[ObjectState.FAILED] or (self.stop.is_set() and left):
            yield 1
        unexplained = UNEXPLAINED & (totals.progress.findings or {}).keys() or any(map(is_unexplained, totals.notices))
        if objects[ObjectState.QUARANTINED] or dead_letters or unexplained:
            yield 4

    def jobs(self) -> list[Job]:
        """Return what the daemon does, each connector with jobs of its own."""
        jobs = [Job("alerts", self.tell, ALERTS_EVERY)]
        for connector in self.connectors:
            jobs += [Job(f"{connector.name}.{name}", work, every) for name, work, every in self._work(connector)]
        return jobs + [
            Job(f"{name}.{OPEN}", partial(self._open_and_work, name), self.settings.schedule.poll)
            for name in self.unopened
        ]

    def _work(self, connector: Connector) -> Iterator[tuple[str, Callable[[], object], timedelta]]:
        schedule = self.settings.schedule
        for name, work, every in (
            ("poll", connector.poll, schedule.poll),
            ("audit", partial(connector.audit_when_due, schedule.audit), AUDIT_CHECK),
            ("probe", partial(connector.probe, schedule.probe * PROBE_SHARE), schedule.probe),
        ):
            yield name, partial(self._records.run, connector.name, name, work), every

    def _open_and_work(self, name: str) -> None:
        """Do all that a connector does which could not be opened at the start, as soon as it can be."""
        if name in self.unopened:
            self._records.run(name, OPEN, partial(self._open, name))
        (connector,) = self.named(name)
        for _, work, _ in self._work(connector):
            work()


def exit_code(reports: Iterable[TransferReport]) -> int:
    """Return what a command ends with: a failing credential outranks a failure, a failure what was set aside."""
    return worst(code for report in reports for code in _exit_codes(report))


def worst(codes: Iterable[int]) -> int:
    """Return the exit code that tells most: a failing credential, bad configuration, a failure, what was set aside."""
    found = set(codes)
    return next((code for code in (3, 2, 1, 4) if code in found), 0)


def _exit_codes(report: TransferReport) -> Iterator[int]:
    if isinstance(report.error, ConfigError):
        yield 2
    elif report.error:
        yield 3 if isinstance(report.error, CredentialError) else 1
    if report.failed or report.denied_folders:
        yield 1
    if report.quarantined or report.books.dead_lettered or report.findings:
        yield 4
