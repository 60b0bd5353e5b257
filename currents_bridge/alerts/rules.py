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

from currents_bridge.alerts.credential_words import Incident, recovery
from currents_bridge.alerts.engine import AlertKind, Severity
from currents_bridge.credentials.state import SENT_AGAIN, LossWindow
from currents_bridge.due import lately
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
    Notice,
    NoticeKind,
    ObjectState,
    TypeActivity,
)
from currents_bridge.phrases import count, how_long, when
from currents_bridge.sources.unread import Reason

THRESHOLDS = (90, 75, 50, 25)  # percent of the loss window
LATE_THRESHOLD = 50  # from which on it is critical
NEAR, NEAR_SHARE = timedelta(days=7), 4  # a deadline is near in the last quarter of an object's life, a week at most
IMMINENT, IMMINENT_SHARE = timedelta(hours=24), 10
ACTIVITY_SPAN = timedelta(days=7)
MIN_ACTIVE_HOURS = 12  # with fewer there is no rhythm to speak of
SETTLING = timedelta(hours=1)  # after the first poll began, in which integrations are no news
MOST_FAILURES = 1  # of a job in a row that are no alert
POLL = "poll"  # the job that finds and delivers
PROBE_PATIENCE = timedelta(hours=1)  # a probe that fails for less is no alert

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
_RESEND = (
    "send the hours of the files that were delivered then again with `currents-bridge backfill --from T --to T "
    "--resend`: Segment drops what it has"
)
_FOUND = {  # by an audit: what, and what to do
    "gone": (
        "{count:,} objects that wait to be delivered and are not in the bucket any more: their events are lost",
        "`currents-bridge reconcile` names them; see who or what deletes from the bucket (a lifecycle rule, a person)",
    ),
    "unproven": (
        "{count:,} hours whose books do not add up with what was delivered",
        "`currents-bridge reconcile` names them; send such an hour again with `backfill --resend`",
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


_FAILED = "see the log for `job_failed` or `poll_finished`; if it is a mistake of the program, report it"
_HANGING = (
    "see with `currents-bridge check` whether S3 and Segment answer; then restart the program, which goes on where it "
    "was, and report it with the log"
)


def _failing(job: FailingJob) -> str:
    if job.failures == HANGS:
        return f"The job {job.job} hangs: {job.error}"
    if job.job == POLL:
        return f"No poll was complete since {when(job.since)}, {job.failures} in a row: {job.error}"
    return f"The job {job.job} fails each time, {job.failures} times so far: {job.error}"


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
    what = f"The bucket deletes the first of the waiting objects at {when(deadline)}"
    what += f", in {how_long(deadline - health.now)}" if health.now < deadline else ", so it may be gone already"
    todo = "end what keeps them waiting, or switch the bucket's lifecycle rule off until they are delivered"
    subject, severity, since = "near", Severity.WARNING, near
    if health.now >= imminent:
        subject, severity, since = "imminent", Severity.CRITICAL, imminent
    kind, waits = AlertKind.BUCKET_DEADLINE, _amount(health)
    yield _alert(health, kind, what, todo, subject=subject, severity=severity, since=since, waits=waits)


def _rotation(health: Health) -> Iterator[Alert]:
    if refused := health.refused_key:
        place = health.key_references[-1] if health.key_references else "the secret"
        what = "The newest write key is refused, so events still go out with an older one, and nothing is lost"
        todo = refused.hint or f"put the write key that the Segment source shows into {place}"
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
        verb = "is" if quarantined == 1 else "are"
        what = f"{count(quarantined, 'object')} {verb} set aside in quarantine"
        todo = "see `currents-bridge quarantine list` for why, then `quarantine replay`"
        yield _alert(health, AlertKind.QUARANTINED, what, todo)
    if health.dead_letters > limits.dead_letters_per_hour:
        what = f"{count(health.dead_letters, 'event')} became dead letters within an hour"
        todo = "see `currents-bridge dead-letters list` for why, then `dead-letters replay`"
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
    for subject, (found, todo) in _FOUND.items():
        if number := (progress.findings or {}).get(subject):
            what, since = f"The audit found {found.format(count=number)}", progress.audited_at
            critical = Severity.CRITICAL
            yield _alert(health, AlertKind.AUDIT_FINDING, what, todo, subject=subject, severity=critical, since=since)


def _notices(health: Health) -> Iterator[Alert]:
    for notice in health.totals.notices:
        if found := _notice(health, notice):
            kind, severity, what, todo = found
            yield _alert(health, kind, what, todo, subject=notice.subject, severity=severity, since=notice.since)


def _notice(health: Health, notice: Notice) -> tuple[AlertKind, Severity, str, str] | None:
    started_at, since = health.totals.progress.started_at, notice.since or health.now
    match notice.kind:
        case NoticeKind.UNKNOWN_EVENT_TYPE:
            what = f"Files of an unknown event type came: {notice.subject}, {notice.detail}"
            todo = "update currents-bridge, or name the type in events.include or events.exclude"
            kind, severity = AlertKind.UNKNOWN_EVENT_TYPE, Severity.INFO
        case NoticeKind.UNREAD_KEYS | NoticeKind.MISPLACED if notice.subject != Reason.NOT_CURRENTS:
            what = f"{count(notice.count, 'key')} under the prefix look like Currents files and are not read: they "
            todo = "do what is said there; `currents-bridge check` shows whether it helped"
            what += notice.detail
            kind, severity = AlertKind.UNREAD_KEYS, Severity.WARNING
        case NoticeKind.OBJECT_CHANGED:
            what = f"{count(notice.count, 'object')} of {notice.subject}: {notice.detail}"
            todo = "run that command if what was written again has events that were not sent"
            kind, severity = AlertKind.OBJECT_CHANGED, Severity.WARNING
        case NoticeKind.SCHEMA_DRIFT:
            what = f"Files of {notice.subject} differ from the catalogue: {notice.detail}"
            todo = "see with `currents-bridge inspect` that the properties arrive as you need them"
            kind, severity = AlertKind.SCHEMA_DRIFT, Severity.INFO
        case NoticeKind.INTEGRATION if started_at and since > started_at + SETTLING:
            what = f"A new Currents integration writes under the prefix: {notice.subject}"
            todo = "nothing, if it is meant for this connector; else give each its own source.prefix"
            kind, severity = AlertKind.NEW_INTEGRATION, Severity.INFO
        case NoticeKind.SHORTFALL:
            what = f"Segment acknowledged events that its source does not have: {notice.detail}"
            todo = (
                "see the source's Delivery Overview in Segment; send the hours of the files that were delivered then "
            )
            todo += "again with `currents-bridge backfill --from T --to T --resend`: Segment drops what it has"
            if notice.subject == SENT_AGAIN:
                todo = "Segment may remember their ids from when it dropped them, or have had them before: if the "
                todo += "Delivery Overview lacks them, set rewind_message_ids: fresh, and send their hours again with "
                todo += "`currents-bridge backfill --from T --to T --resend`"
            kind, severity = AlertKind.EVENTS_MISSING, Severity.CRITICAL
        case NoticeKind.UNPROVEN:
            what = f"The write key was replaced, and no probe ever told whether the one before worked: {notice.detail}"
            todo = f"if it was dead by then, {_RESEND}"
            kind, severity = AlertKind.KEY_UNPROVEN, Severity.WARNING
        case NoticeKind.PROBE if not lately(since, health.now, PROBE_PATIENCE):
            what = f"The probe {notice.subject} cannot tell whether the write key works: {notice.detail}"
            todo = "mend what it names; until then a dead key is noticed later, or not at all"
            kind, severity = AlertKind.PROBE_FAILING, Severity.WARNING
        case _:
            return None
    return kind, severity, what, todo


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
    return f"{amount}; the bucket deletes the first of it at {when(health.deadline)}"


def _amount(health: Health) -> str:
    waiting = health.totals.waiting
    if not waiting.objects:
        return ""
    events = f", at least {count(waiting.events, 'event')}" if waiting.events else ""
    return f"{count(waiting.objects, 'object')}, {decimal(waiting.size_bytes)}{events}"
