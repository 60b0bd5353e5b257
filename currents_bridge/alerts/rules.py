"""What counts as wrong with a connector, and in which words it is told. Pure.

Silence: a week's rhythm tells what to expect. Whatever had files in at least half of the hours of the week before its
newest file is silent once it has had none for `silence` longer than all idle hours of that week together. So a gap that
alarms is certainly longer than any gap of that week: one that is busy around the clock alarms after `silence`, one that
rests at weekends after two days more, and a weekly newsletter never does.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from rich.filesize import decimal

from currents_bridge.alerts.credential_words import REPLAY, Incident, recovery
from currents_bridge.alerts.engine import AlertKind, Severity
from currents_bridge.alerts.notice_words import news
from currents_bridge.credentials.state import LossWindow
from currents_bridge.errors import Side
from currents_bridge.model import (
    HANGS,
    Alert,
    ConnectorTotals,
    Credential,
    CredentialState,
    Evidence,
    EvidenceKind,
    FailingJob,
    NoticeKind,
    ObjectState,
    TypeActivity,
)
from currents_bridge.phrases import be, count, how_long, when

THRESHOLDS = (90, 75, 50, 25)  # percent of the loss window
LATE_THRESHOLD = 50  # from which on it is critical
NEAR, NEAR_SHARE = timedelta(days=7), 4  # a deadline is near in the last quarter of an object's life, a week at most
IMMINENT, IMMINENT_SHARE = timedelta(hours=24), 10
ACTIVITY_SPAN = timedelta(days=7)
MIN_ACTIVE_HOURS = 12  # with fewer there is no rhythm to speak of
MOST_FAILURES = 1  # of a job in a row that are no alert
POLL = "poll"  # the job that finds and delivers

_HOUR = timedelta(hours=1)
_SIDES = {Side.SOURCE: "source (S3)", Side.DESTINATION: "destination (Segment)"}
_FAILING = frozenset({CredentialState.FAILING, CredentialState.EXPIRED})
_PAUSES = frozenset({AlertKind.CREDENTIAL_FAILING, AlertKind.SOURCE_DISABLED})
INCIDENTS = _PAUSES | {AlertKind.CREDENTIAL_SUSPECT}
_OVER = {
    AlertKind.BUCKET_DEADLINE: "No waiting object is close to being deleted by the bucket any more",
    AlertKind.ROTATION_REFUSED: "No newer write key is refused any more",
    AlertKind.BACKLOG: "The backlog is gone",
    AlertKind.QUARANTINED: "No object is quarantined any more",
    AlertKind.DEAD_LETTERS: "Events no longer become dead letters at that rate",
    AlertKind.UNKNOWN_EVENT_TYPE: "No look meets the event type {subject} as an unknown one any more",
    AlertKind.OBJECT_CHANGED: "No look meets an object of {subject} any more that differs from what was delivered",
    AlertKind.UNREAD_KEYS: "No look meets keys any more that are passed over for this reason: {subject}",
    AlertKind.SCHEMA_DRIFT: "Files of {subject} match the catalogue again",
    AlertKind.NEW_INTEGRATION: "The integration {subject} is gone",
    AlertKind.FOLDER_DENIED: "The folder {subject} may be listed again",
    AlertKind.AUDIT_FINDING: "The latest audit found nothing {subject} any more",
    AlertKind.PROBE_FAILING: "The probe {subject} can tell again",
}
_FOUND = {  # by an audit: of what, what of it, and what to do
    "gone": (
        "object",
        "waiting to be delivered but no longer in the bucket: the events are lost",
        "`currents-bridge reconcile` names them; see who or what deletes from the bucket (a lifecycle rule, a person)",
    ),
    "unproven": (
        "hour",
        "with books that do not add up with what was delivered",
        "`currents-bridge reconcile` names them; send such an hour again with `currents-bridge backfill --resend`",
    ),
}


@dataclass(frozen=True, slots=True)
class Standing:
    """One credential at one moment."""

    credential: Credential
    state: CredentialState  # see credentials.state_at
    window: LossWindow | None  # see credentials.loss_window_of


@dataclass(frozen=True, slots=True)
class Health:
    """One connector at one moment."""

    name: str
    now: datetime
    standings: Mapping[Side, Standing]  # both sides
    totals: ConnectorTotals
    drops: bool = False  # what is older than the loss window is set aside
    deadline: datetime | None = None  # when the bucket deletes the first of the waiting objects
    activity: Sequence[TypeActivity] = ()  # of the hours from `activity_since` on
    activity_since: datetime | None = None  # ACTIVITY_SPAN before the newest hour of all types
    active_at: datetime | None = None  # latest sign that it works: a poll began that listed all, or a batch was taken
    dead_letters: int = 0  # made in the last hour
    key_references: Sequence[str] = ()  # where the write keys are, oldest first
    refused_key: Evidence | None = None  # against a newer write key, in whose place an older one is used


@dataclass(frozen=True, slots=True)
class Limits:
    """From when on something is worth an alert."""

    backlog_age: timedelta
    dead_letters_per_hour: int
    silence: timedelta


def conditions(health: Health, limits: Limits) -> list[Alert]:
    """Return what is wrong now, worst first; `told_at` is None where only the end is told."""
    found = [
        *(alert for side in health.standings for alert in _credential(health, side)),
        *_deadline(health),
        *_rotation(health),
        *_backlog(health, limits),
        *_set_aside(health, limits),
        *_silence(health, limits),
        *_looks(health),
        *_notices(health),
    ]
    return sorted(found, key=lambda alert: list(Severity).index(Severity(alert.severity)), reverse=True)


def job_alerts(failing: Sequence[FailingJob], now: datetime) -> list[Alert]:
    """Return the alerts of jobs that failed twice in a row or hang, whatever is known of their connector otherwise."""
    return [
        Alert(
            connector=job.connector,
            kind=str(AlertKind.JOB_FAILING),
            subject=job.job,
            severity=str(Severity.CRITICAL),
            since=job.since,
            what=_failing(job),
            waits="",
            todo=_HANGING if job.failures == HANGS else _FAILED,
            told_at=now,
        )
        for job in failing
        if job.failures > MOST_FAILURES or job.failures == HANGS
    ]


_FAILED = (
    "if S3 or Segment has an outage, nothing: it ends by itself; else mend what is named, and report what is a mistake "
    "of the program with its `job_failed` from the log; `currents-bridge check` confirms it"
)
_HANGING = (
    "see with `currents-bridge check` whether S3 and Segment answer; then restart the program, which goes on where it "
    "was, and report it with the log"
)


def _failing(job: FailingJob) -> str:
    if job.failures == HANGS:
        return f"The job {job.job} hangs: {job.error}"
    if job.job == POLL:
        return f"No poll was complete since {when(job.since)}, {job.failures:,} in a row: {job.error}"
    return f"The job {job.job} fails each time, {job.failures:,} times so far: {job.error}"


def job_is_over(alert: Alert) -> Alert:
    """Return what is told of an alert of a job that ended well."""
    return _over(alert, f"The job {alert.subject} ends well again")


def last_words(alert: Alert, health: Health, wrong: Sequence[Alert]) -> Alert | None:
    """Return what is told of an alert of the connector that is over; None: nothing.

    Nothing is told of an alert in whose place another one is open, nor of a loss window, since the end of its incident
    says it all, nor of silence that is no longer unexpected.

    Args:
        alert: as it was saved.
        health: of the connector now.
        wrong: its conditions now.
    """
    kind = AlertKind(alert.kind)
    if _ends_untold(alert, wrong):
        return None
    if kind in INCIDENTS:
        return _recovery(alert, health)
    if kind is AlertKind.CAUGHT_UP:
        return _catching_up(alert, health)
    if kind is AlertKind.SILENCE:
        return _return(alert, health)
    return _over(alert, _OVER[kind].format(subject=alert.subject))


def _ends_untold(alert: Alert, wrong: Sequence[Alert]) -> bool:
    """Return whether what was told is told on by another alert, or by the end of its incident."""
    match AlertKind(alert.kind):
        case AlertKind.LOSS_WINDOW | AlertKind.LOSS_WINDOW_ENDED | AlertKind.EVENTS_MISSING | AlertKind.KEY_UNPROVEN:
            return True
        case AlertKind.BACKLOG:
            return any(other.kind in _PAUSES for other in wrong)
        case AlertKind.BUCKET_DEADLINE:
            return any(other.kind == alert.kind for other in wrong)
        case kind if kind in INCIDENTS or kind is AlertKind.CAUGHT_UP:
            return any(other.kind in INCIDENTS and other.subject == alert.subject for other in wrong)
        case _:
            return False


def _recovery(alert: Alert, health: Health) -> Alert:
    side, totals = Side(alert.subject), health.totals
    what, todo = recovery(
        side,
        health.standings[side].credential,
        was_certain=alert.kind != AlertKind.CREDENTIAL_SUSPECT,
        waiting=totals.waiting.objects,
        set_aside=totals.objects[ObjectState.QUARANTINED],
        sent_since=_sent_since(alert, health),
    )
    return replace(_over(alert, what), waits=_amount(health), todo=todo)


def _catching_up(alert: Alert, health: Health) -> Alert:
    what = f"Caught up with what had waited for the {_SIDES[Side(alert.subject)]}"
    what += f" ({alert.waits})" if alert.waits else ""
    return _over(alert, f"{what}; {count(_sent_since(alert, health), 'event')} sent since")


def _sent_since(alert: Alert, health: Health) -> int:
    """Return how many events were sent since the end of the incident that the alert told of."""
    return max(0, health.totals.books.sent - health.standings[Side(alert.subject)].credential.sent_before)


def _return(alert: Alert, health: Health) -> Alert | None:
    came = any(one.latest_hour >= alert.since for one in health.activity if alert.subject in ("", one.event_type))
    return _over(alert, f"Files of {alert.subject or 'the connector'} come again") if came else None


def _over(alert: Alert, what: str) -> Alert:
    return replace(alert, what=what, waits="", todo="")


def _credential(health: Health, side: Side) -> Iterator[Alert]:
    standing = health.standings[side]
    credential, window = standing.credential, standing.window
    incident = Incident(
        side,
        credential,
        standing.state,
        window,
        health.now,
        drops=health.drops,
        unproven_events=health.totals.unproven_events,
        key_references=health.key_references,
    )
    if standing.state is CredentialState.SUSPECT or standing.state in _FAILING:
        kind, severity = AlertKind.CREDENTIAL_FAILING, Severity.CRITICAL
        if standing.state is CredentialState.SUSPECT:
            is_late = window is not None and window.fraction(health.now) * 100 >= LATE_THRESHOLD
            kind, severity = AlertKind.CREDENTIAL_SUSPECT, Severity.CRITICAL if is_late else Severity.WARNING
        elif credential.cause is EvidenceKind.DISABLED:
            kind = AlertKind.SOURCE_DISABLED
        what, todo, since, waits = incident.story(), incident.todo, credential.since, _waits(health)
        yield _alert(health, kind, what, todo, subject=side, severity=severity, since=since, waits=waits)
        if window:
            yield from _window(health, incident, window)
    elif credential.recovered_at and not _caught_up(health, credential.recovered_at):
        what = f"Catching up with what had waited for the {_SIDES[side]}"
        kind, since, waits = AlertKind.CAUGHT_UP, credential.recovered_at, _amount(health)
        alert = _alert(health, kind, what, "", subject=side, severity=Severity.INFO, since=since, waits=waits)
        yield replace(alert, told_at=None)


def _caught_up(health: Health, recovered_at: datetime) -> bool:
    """Return whether all that was there at the recovery was listed and is no longer waiting."""
    polled_at, oldest_at = health.totals.progress.polled_at, health.totals.waiting.oldest_at
    return polled_at is not None and polled_at >= recovered_at and (oldest_at is None or oldest_at >= recovered_at)


def _window(health: Health, incident: Incident, window: LossWindow) -> Iterator[Alert]:
    end, waits, critical = window.ends_at, _waits(health), Severity.CRITICAL
    reached = next((percent for percent in THRESHOLDS if window.fraction(health.now) * 100 >= percent), None)
    if health.now >= end:
        kind, what, todo = AlertKind.LOSS_WINDOW_ENDED, incident.story(), incident.todo
        yield _alert(health, kind, what, todo, subject=incident.side, severity=critical, since=end, waits=waits)
    elif reached:
        kind, what, todo = AlertKind.LOSS_WINDOW, incident.story(reached), incident.todo
        severity = critical if reached >= LATE_THRESHOLD else Severity.WARNING
        subject, since = f"{incident.side} {reached}", window.started_at + (end - window.started_at) * reached / 100
        yield _alert(health, kind, what, todo, subject=subject, severity=severity, since=since, waits=waits)


def _deadline(health: Health) -> Iterator[Alert]:
    deadline, oldest_at = health.deadline, health.totals.waiting.oldest_at
    if deadline is None or oldest_at is None:
        return
    near = deadline - min(NEAR, (deadline - oldest_at) / NEAR_SHARE)
    imminent = deadline - min(IMMINENT, (deadline - oldest_at) / IMMINENT_SHARE)
    if health.now < near:
        return
    what = f"Objects wait, and the bucket {_deletes(health, deadline)}"
    todo = "end what keeps them waiting, or switch the bucket's lifecycle rule off until they are delivered"
    subject, severity, since = "near", Severity.WARNING, near
    if health.now >= imminent:
        subject, severity, since = "imminent", Severity.CRITICAL, imminent
    kind, waits = AlertKind.BUCKET_DEADLINE, _amount(health)
    yield _alert(health, kind, what, todo, subject=subject, severity=severity, since=since, waits=waits)


def _rotation(health: Health) -> Iterator[Alert]:
    if refused := health.refused_key:
        place = health.key_references[-1] if health.key_references else "the secret"
        what = f"The newest write key is refused: {refused.detail}. "
        what += "Events still go out with an older one, and nothing is lost"
        todo = refused.hint or f"put the write key that the Segment source shows into {place}"
        todo += "; do not revoke the older key before that"
        yield _alert(health, AlertKind.ROTATION_REFUSED, what, todo, since=refused.at)


def _backlog(health: Health, limits: Limits) -> Iterator[Alert]:
    """Measure from when the program could have delivered: neither history nor an incident is a backlog."""
    waiting, standings = health.totals.waiting, health.standings.values()
    if waiting.oldest_at is None or any(standing.state in _FAILING for standing in standings):
        return
    recoveries = [standing.credential.recovered_at for standing in standings]
    begins = (waiting.oldest_at, health.totals.progress.started_at, *recoveries)
    since = max((at for at in begins if at and at <= health.now), default=health.now)
    if health.now - since > limits.backlog_age:
        what = f"The oldest waiting object is waiting for {how_long(health.now - since)}"
        todo = "see `currents-bridge status` for why objects fail, and whether delivery.requests_per_second is too low"
        yield _alert(health, AlertKind.BACKLOG, what, todo, since=since, waits=_amount(health))


def _set_aside(health: Health, limits: Limits) -> Iterator[Alert]:
    if quarantined := health.totals.objects[ObjectState.QUARANTINED]:
        what = f"{count(quarantined, 'object')} {be(quarantined)} set aside in quarantine"
        todo = f"see `currents-bridge quarantine list` for why, then send what is mended with {REPLAY}"
        yield _alert(health, AlertKind.QUARANTINED, what, todo)
    if health.dead_letters > limits.dead_letters_per_hour:
        what = f"{count(health.dead_letters, 'event')} became dead letters within an hour"
        todo = "see `currents-bridge dead-letters list` for why, then send what is mended with `currents-bridge "
        todo += "dead-letters replay`"
        yield _alert(health, AlertKind.DEAD_LETTERS, what, todo)


def _silence(health: Health, limits: Limits) -> Iterator[Alert]:
    """Judge by what the last complete poll saw: while nothing can be listed, silence says nothing."""
    polled_at, since, types = health.totals.progress.polled_at, health.activity_since, health.activity
    if polled_at is None or since is None or not types:
        return
    connector = TypeActivity("", max(one.latest_hour for one in types), max(one.active_hours for one in types))
    silent = [one for one in (connector, *types) if _is_silent(one, since, polled_at, limits.silence)]
    for one in silent[:1] if connector in silent else silent:
        ended = one.latest_hour + _HOUR
        files, asked, severity = "files", "runs and can write: what it cannot write is lost", Severity.WARNING
        if one.event_type:
            files, asked, severity = f"files of {one.event_type}", "still includes this event", Severity.INFO
        what = f"No new {files} have come for {how_long(polled_at - ended)}"
        todo = f"see in Braze whether the Currents integration {asked}"
        yield _alert(health, AlertKind.SILENCE, what, todo, subject=one.event_type, severity=severity, since=ended)


def _is_silent(activity: TypeActivity, since: datetime, polled_at: datetime, silence: timedelta) -> bool:
    hours = (activity.latest_hour - since) / _HOUR + 1
    idle_hours = hours - activity.active_hours
    regular = activity.active_hours >= max(MIN_ACTIVE_HOURS, hours / 2)
    return regular and polled_at - (activity.latest_hour + _HOUR) >= silence + idle_hours * _HOUR


def _looks(health: Health) -> Iterator[Alert]:
    """Tell of folders that may not be listed, and of what the last audit found."""
    for denied in (notice for notice in health.totals.notices if notice.kind is NoticeKind.FOLDER_DENIED):
        what = f"The folder {denied.subject} may not be listed, while others may: {denied.detail}"
        todo = "grant s3:ListBucket for it; until then nothing of it is delivered, and nothing is lost"
        kind, severity, since = AlertKind.FOLDER_DENIED, Severity.CRITICAL, denied.since
        yield _alert(health, kind, what, todo, subject=denied.subject, severity=severity, since=since)
    progress = health.totals.progress
    for subject, (noun, found, todo) in _FOUND.items():
        if number := (progress.findings or {}).get(subject):
            what, since = f"The audit found {count(number, noun)} {found}", progress.audited_at
            critical = Severity.CRITICAL
            yield _alert(health, AlertKind.AUDIT_FINDING, what, todo, subject=subject, severity=critical, since=since)


def _notices(health: Health) -> Iterator[Alert]:
    for notice in health.totals.notices:
        if found := news(notice, health.totals.progress.started_at, health.now):
            kind, severity, what, todo = found
            yield _alert(health, kind, what, todo, subject=notice.subject, severity=severity, since=notice.since)


def _alert(  # noqa: PLR0913 - one parameter a field
    health: Health,
    kind: AlertKind,
    what: str,
    todo: str,
    *,
    subject: str = "",
    severity: Severity = Severity.WARNING,
    since: datetime | None = None,
    waits: str = "",
) -> Alert:
    return Alert(
        connector=health.name,
        kind=str(kind),  # plain text, as it comes back from the ledger
        subject=str(subject),
        severity=str(severity),
        since=since or health.now,
        what=what,
        waits=waits,
        todo=todo,
        told_at=health.now,
    )


def _waits(health: Health) -> str:
    """Return how much waits and until when the bucket keeps it."""
    amount = _amount(health)
    if not amount or health.deadline is None:
        return amount
    return f"{amount}; the bucket {_deletes(health, health.deadline)}"


def _deletes(health: Health, deadline: datetime) -> str:
    """Return what the bucket does with the first of what waits, and when."""
    if health.now < deadline:
        return f"deletes the first of it at {when(deadline)}, in {how_long(deadline - health.now)}"
    return f"was to delete the first of it at {when(deadline)}, so it may be gone already"


def _amount(health: Health) -> str:
    waiting = health.totals.waiting
    if not waiting.objects:
        return ""
    events = f", at least {count(waiting.events, 'event')}" if waiting.events else ""
    return f"{count(waiting.objects, 'object')}, {decimal(waiting.size_bytes)}{events}"
