"""Jobs that fail: what is recorded and told of them, and that they cost themselves only."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any, cast

import polars as pl
import pytest
from structlog.testing import capture_logs

from currents_bridge.alerts.rules import Limits
from currents_bridge.alerts.service import Alerts
from currents_bridge.bridge import Bridge
from currents_bridge.config import Settings
from currents_bridge.config.settings import ScheduleSettings
from currents_bridge.connector import Connector
from currents_bridge.credentials.state import LossPolicy
from currents_bridge.delivery.workers import TransferReport
from currents_bridge.errors import (
    BridgeError,
    CredentialError,
    JobError,
    LedgerError,
    RetryLaterError,
    Side,
    StoppedError,
)
from currents_bridge.mistakes import described
from currents_bridge.model import (
    Alert,
    AlertMessage,
    Books,
    Credential,
    CredentialState,
    DeadLetter,
    Delivered,
    ExpiryRule,
    Failed,
    FailingJob,
    GroupLimits,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Quarantined,
    Settlement,
)
from currents_bridge.operations.jobs import JobRecords
from currents_bridge.sources.expiry import rules_under
from tests.ledger_workbench import BOTH, an_object
from tests.ledgers import LedgerOnFile

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
UNWELL = RetryLaterError("S3 did not answer")
DENIED = CredentialError(Side.SOURCE, "access denied", "grant it")


def a_mistake(*_: object) -> Any:
    """Fail as a mistake of ours does."""
    raise OverflowError("personal data")


def a_panic() -> Any:
    """Fail as polars does."""
    raise pl.exceptions.PanicException("index out of bounds")


@dataclass
class FakeConnector:
    """A connector whose jobs do what a test wants."""

    name: str
    ledger: LedgerOnFile
    poll: Callable[[], TransferReport] = TransferReport
    probe: Callable[..., None] = lambda *_: None
    audit: Callable[[], TransferReport] = TransferReport
    active_at: datetime | None = None
    loss: LossPolicy = field(default_factory=LossPolicy)
    watch: Any = field(default_factory=lambda: SimpleNamespace(key_references=("env:KEY",)))

    def once(self, _: timedelta) -> TransferReport:
        """Poll."""
        return self.poll()

    def audit_when_due(self, _: timedelta) -> TransferReport:
        """Audit."""
        return self.audit()

    def included_types(self) -> frozenset[str]:
        """Include nothing."""
        return frozenset()

    def raise_if_paused(self) -> None:
        """Be well."""


class Program:
    """Two connectors on one ledger, what they tell, and the heartbeats."""

    def __init__(self) -> None:
        self.now = NOW
        self.ledger = LedgerOnFile()
        self.first, self.second = (FakeConnector(name, self.ledger) for name in ("first", "second"))
        for connector in (self.first, self.second):
            self.ledger.save_progress(connector.name, Progress(polled_at=NOW, started_at=NOW))
        self.told: list[tuple[str, str, str, str]] = []
        self.heartbeats = 0
        self.bridge = self.restart()

    def restart(self) -> Bridge:
        """Return the program as another process has it."""
        alerts = Alerts(
            book=self.ledger.alert_book(),
            channels=[self],
            limits=Limits(timedelta(hours=6), 100, timedelta(hours=24)),
            repeat=timedelta(hours=12),
            ping=self.beat,
        )
        settings = Settings.model_validate(
            {
                "ledger": {"url": f"sqlite:///{self.ledger.path}"},
                "connectors": [
                    {"name": name, "source": {"bucket": "b"}, "destination": {"write_key": "env:KEY"}}
                    for name in ("first", "second")
                ],
            }
        )
        connectors = cast("list[Connector]", [self.first, self.second])
        return Bridge(settings, self.ledger, connectors, alerts, lambda: self.now, threading.Event())

    name = fingerprint = "inbox"

    def tell(self, message: AlertMessage) -> None:
        """Take a message, as a channel."""
        alert: Alert = message.alert
        self.told.append((message.phase, alert.connector, alert.kind, alert.subject))

    def beat(self) -> None:
        """Take a heartbeat."""
        self.heartbeats += 1

    def run(self, *jobs: str) -> None:
        """Run jobs as the daemon does, which logs what they raise, then look at the alerts; a minute passes."""
        self.now += MINUTE
        by_name = {job.name: job for job in self.bridge.jobs()}
        for name in (*jobs, "alerts"):
            with suppress(Exception, pl.exceptions.PanicException):  # as the scheduler does
                by_name[name].run()


@pytest.fixture
def program() -> Program:
    """A program in which all is well."""
    return Program()


@pytest.mark.parametrize("fails", [a_mistake, a_panic, lambda: TransferReport(error=UNWELL)])
@pytest.mark.parametrize("job", ["poll", "probe", "audit"])
def test_a_job_that_fails_twice_in_a_row_is_told_until_it_ends_well(
    program: Program, job: str, fails: Callable[[], Any]
) -> None:
    """No heartbeat is sent meanwhile, and the other connector is none the worse."""
    setattr(program.first, job, fails)
    program.run(f"first.{job}")
    assert (program.told, program.heartbeats) == ([], 1)

    for _ in range(3):
        program.run(f"first.{job}", f"second.{job}")
    assert (program.told, program.heartbeats) == ([("opened", "first", "job_failing", job)], 1)

    setattr(program.first, job, TransferReport)
    program.run(f"first.{job}")
    assert program.told[1:] == [("resolved", "first", "job_failing", job)]
    assert program.heartbeats == 2
    assert program.ledger.failing_jobs() == []


def test_failures_are_counted_across_processes(program: Program) -> None:
    """As of `once`, each of which is another one."""
    program.first.poll = a_mistake
    for _ in range(2):
        program.bridge = program.restart()
        reports = program.bridge.once()
        assert isinstance(reports["first"].error, JobError)
        assert reports["second"].error is None

    (failing,) = program.ledger.failing_jobs()
    assert failing == FailingJob("first", "poll", 2, NOW, "a bug in currents-bridge: OverflowError in jobs.run")
    assert program.told == [("opened", "first", "job_failing", "poll")]


def test_a_job_that_failed_now_and_then_is_not_told(program: Program) -> None:
    """Only failures in a row count."""
    for poll in (a_mistake, TransferReport) * 3:
        program.first.poll = poll
        program.run("first.poll")
    assert program.told == []


def test_a_failing_credential_is_no_failing_job(program: Program) -> None:
    """It has alerts of its own."""
    program.first.poll = lambda: TransferReport(error=DENIED)
    for _ in range(3):
        program.run("first.poll")
    assert program.ledger.failing_jobs() == []


@pytest.mark.parametrize(
    "where", ["currents_bridge.operations.health.waiting_deadline", "currents_bridge.alerts.service.conditions"]
)
def test_health_that_raises_stops_no_alert_of_another_connector(
    program: Program, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a failing job itself, and stops the heartbeat at once."""
    program.ledger.admit("second", [an_object("a")], NOW)
    (claimed,) = program.ledger.claim("second", BOTH, GroupLimits(), NOW)
    program.ledger.settle([Quarantined(claimed.id, "no Avro")], NOW)
    monkeypatch.setattr(where, raising_for(where, "first"))

    program.run()
    assert program.told == [("opened", "second", "quarantined", "")]
    program.run()
    assert program.told[1:] == [("opened", "first", "job_failing", "alerts")]
    assert program.heartbeats == 0

    monkeypatch.undo()
    program.run()
    assert program.told[2:] == [("resolved", "first", "job_failing", "alerts")]


def raising_for(where: str, name: str) -> Callable[..., Any]:
    """Return a function as it is but for one connector."""
    module, _, attribute = where.rpartition(".")
    real = getattr(__import__(module, fromlist=[attribute]), attribute)
    calls = [0]

    def replaced(first: Any, *rest: Any) -> Any:
        calls[0] += 1
        of_first = first.name == name if hasattr(first, "name") else calls[0] % 2 == 1
        return a_mistake() if of_first else real(first, *rest)

    return replaced


def test_alerts_that_cannot_be_looked_at_stop_the_heartbeat(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The watchdog's silence is then all that tells of it."""
    monkeypatch.setattr(program.ledger, "failing_jobs", a_mistake)
    program.run()
    assert program.heartbeats == 0


def test_a_channel_that_raises_keeps_no_other_from_its_messages(program: Program) -> None:
    """Whatever a library of one of them does."""
    program.first.poll = a_mistake
    program.tell = a_mistake  # type: ignore[method-assign, assignment]
    with capture_logs() as lines:
        for _ in range(2):
            program.run("first.poll")
    assert [line["error"] for line in lines if line["event"] == "alert_not_taken"] == ["OverflowError"]


def test_polls_that_are_rare_are_no_lack_of_life(program: Program) -> None:
    """Two of them may be missing before the heartbeat stops."""
    rare = {"schedule": ScheduleSettings(poll=timedelta(hours=6))}
    program.bridge.settings = program.bridge.settings.model_copy(update=rare)
    program.first.active_at = program.second.active_at = program.now
    program.now += timedelta(hours=11)
    program.run()
    assert program.heartbeats == 1
    program.now += timedelta(hours=1)
    program.run()
    assert program.heartbeats == 1


def test_a_poll_that_fails_again_says_since_when_none_was_complete(program: Program) -> None:
    """As for a bucket that was renamed, or a server that answers 500 for days."""
    program.first.poll = lambda: TransferReport(error=RetryLaterError("S3 answers 500"))
    for _ in range(3):
        program.run("first.poll")
    (alert,) = program.bridge.alerts.open()
    assert alert.what == "No poll was complete since 2026-01-02 12:01 UTC, 3 in a row: S3 answers 500"


def test_a_delivery_of_more_than_an_hour_is_well(program: Program) -> None:
    """While batches are acknowledged; without any sign of life the heartbeat stops."""
    program.now += timedelta(hours=5)
    program.first.active_at = program.second.active_at = program.now
    program.run()
    assert program.heartbeats == 1

    program.now += timedelta(hours=1)
    program.run()
    assert program.heartbeats == 1


def test_a_sign_of_life_ahead_of_now_is_none(program: Program) -> None:
    """A heartbeat would go on for a year while nothing is polled."""
    program.first.active_at = program.now + timedelta(days=365)
    program.run()
    assert program.heartbeats == 0


def test_a_job_that_hangs_is_told_until_it_ends(program: Program) -> None:
    """It raises nothing and ends nothing, while the alerts are looked at beside it."""

    def hang() -> TransferReport:
        program.first.active_at = program.now + 10 * MINUTE  # a batch was taken, then no more
        program.now += timedelta(hours=2)
        program.second.active_at = program.now
        program.bridge.tell()
        return TransferReport()

    program.first.poll = hang
    program.run("first.poll")

    assert program.told[0] == ("opened", "first", "job_failing", "poll")
    assert program.told[1:] == [("resolved", "first", "job_failing", "poll")]
    assert program.heartbeats == 0


def test_a_job_that_hangs_is_in_the_status_of_another_process(program: Program) -> None:
    """With what it was seen to do last."""
    records = JobRecords(program.ledger, lambda: program.now)
    seen: list[Any] = []

    def hang() -> None:
        began = program.now
        program.now += timedelta(hours=1)
        seen.extend(records.hanging({"first": began}, timedelta(hours=1)))
        records.hanging({"first": began}, timedelta(hours=1))
        seen.extend(program.ledger.failing_jobs())

    records.run("first", "probe", hang)

    of_memory, of_ledger = seen
    assert of_memory.error == of_ledger.error
    assert "it began on 2026-01-02 12:00 UTC, has not ended" in of_ledger.error
    assert of_ledger.failures == 1
    assert not program.ledger.failing_jobs()


def test_a_long_delivery_and_an_audit_are_no_jobs_that_hang(program: Program) -> None:
    """One shows signs of life, the other has a day."""
    records = JobRecords(program.ledger, lambda: program.now)
    found: list[Any] = []

    def work() -> None:
        program.now += timedelta(hours=5)
        found.extend(records.hanging({"first": program.now - 10 * MINUTE, "second": None}, timedelta(hours=1)))

    records.run("first", "poll", lambda: records.run("second", "audit", work))
    assert not found


def test_a_mistake_is_described_by_its_kind_and_place_only() -> None:
    """Its text may hold anything."""
    with pytest.raises(AttributeError) as caught:
        rules_under("p", [ExpiryRule(cast("str", None))])

    assert described(caught.value).startswith("a bug in currents-bridge: AttributeError in expiry.")
    assert described(UNWELL) == "S3 did not answer"


def test_a_ledger_that_takes_no_record_does_not_fail_the_job(program: Program, monkeypatch: pytest.MonkeyPatch) -> None:
    """The job's own outcome counts."""

    def full(*_: object) -> None:
        raise LedgerError("disk full")

    monkeypatch.setattr(program.ledger, "job_ended", full)
    assert JobRecords(program.ledger, lambda: NOW).run("first", "poll", lambda: 7) == 7


@pytest.mark.parametrize(
    ("settlements", "report_error", "code"),
    [
        ([], None, 0),
        ([lambda id_: Failed(id_, "unwell", NOW + MINUTE)], None, 1),
        ([lambda id_: Quarantined(id_, "no Avro")], None, 4),
        ([lambda id_: Delivered(id_, a_dead_letter()[0], a_dead_letter()[1])], None, 4),
        ([lambda id_: Failed(id_, "unwell", NOW + MINUTE), lambda id_: Quarantined(id_, "no Avro")], None, 1),
        ([lambda id_: Failed(id_, "unwell", NOW + MINUTE), lambda id_: Quarantined(id_, "no Avro")], DENIED, 3),
    ],
)
def test_once_ends_with_what_the_ledger_holds(
    program: Program,
    settlements: list[Callable[[int], Settlement]],
    report_error: BridgeError | None,
    code: int,
) -> None:
    """Whatever this run did itself: 3 outranks 1, and 1 outranks 4."""
    program.ledger.admit("second", [an_object(f"k{n}") for n in range(len(settlements))], NOW)
    claimed = program.ledger.claim("second", BOTH, GroupLimits(), NOW)
    program.ledger.settle([make(one.id) for make, one in zip(settlements, claimed, strict=True)], NOW)
    program.first.poll = lambda: TransferReport(error=report_error)

    reports = program.bridge.once()

    assert program.bridge.exit_code(reports) == code


@pytest.mark.parametrize(("state", "code"), [(CredentialState.SUSPECT, 3), (CredentialState.UNVERIFIED, 0)])
def test_once_ends_with_3_while_a_key_is_suspect(program: Program, state: CredentialState, code: int) -> None:
    """Sending goes on, and all of it may be in vain."""
    program.ledger.save_credential("second", Side.DESTINATION, Credential(state=state, since=NOW))

    assert program.bridge.exit_code(program.bridge.once()) == code


@pytest.mark.parametrize(
    ("kind", "subject", "code"),
    [
        (NoticeKind.UNREAD_KEYS, "no_hour", 4),
        (NoticeKind.MISPLACED, "prefix_too_low", 4),
        (NoticeKind.OBJECT_CHANGED, "a.B", 4),
        (NoticeKind.UNREAD_KEYS, "not_currents", 0),
        (NoticeKind.INTEGRATION, "braze/", 0),
    ],
)
def test_once_ends_with_4_while_something_in_the_bucket_is_unexplained(
    program: Program, kind: NoticeKind, subject: str, code: int
) -> None:
    """Whichever look found it."""
    program.ledger.note("second", [Notice(kind, subject)], NOW)

    assert program.bridge.exit_code(program.bridge.once()) == code


@pytest.mark.parametrize(("findings", "code"), [({"gone": 1}, 4), ({"unproven": 1}, 4), ({"changed": 1}, 0), ({}, 0)])
def test_once_ends_with_4_while_the_latest_audit_has_no_explanation(
    program: Program, findings: dict[str, int], code: int
) -> None:
    """Whatever has a notice of its own ends with the notice."""
    program.ledger.save_progress("second", Progress(audited_at=NOW, findings=findings))

    assert program.bridge.exit_code(program.bridge.once()) == code


def test_once_that_is_stopped_with_work_left_ends_with_1(program: Program) -> None:
    """The next one goes on."""
    program.ledger.admit("second", [an_object("a")], NOW)
    assert program.bridge.exit_code(program.bridge.once()) == 0
    program.bridge.stop.set()
    assert program.bridge.exit_code(program.bridge.once()) == 1
    assert program.ledger.totals("second").objects[ObjectState.PENDING] == 1


def test_a_job_that_is_stopped_neither_fails_nor_ends_well(program: Program) -> None:
    """What was recorded before stays."""
    program.bridge.stop.set()

    reports = program.bridge.once()

    assert all(isinstance(report.error, StoppedError) for report in reports.values())
    assert program.ledger.failing_jobs() == []


def a_dead_letter() -> Any:
    """Return the books and the letters of an object all of which is one."""
    return Books(read=1, dead_lettered=1), [DeadLetter(0, "m", "refused", event="{}")]


def test_records_are_kept_in_the_file() -> None:
    """In order of connector and job."""
    ledger = LedgerOnFile()
    for connector, job in (("b", "poll"), ("a", "probe"), ("a", "poll")):
        ledger.job_ended(connector, job, "first", NOW)
    ledger.job_ended("a", "poll", "second", NOW + MINUTE)
    ledger.job_ended("b", "poll", None, NOW)
    ledger.job_ended("never", "failed", None, NOW)

    assert LedgerOnFile(ledger.path).failing_jobs() == [
        FailingJob("a", "poll", 2, NOW, "second"),
        FailingJob("a", "probe", 1, NOW, "first"),
    ]
