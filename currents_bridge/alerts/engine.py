"""What is told of what is wrong, when, and in which words. Pure: `alert_rules` says what is wrong.

An alert is told once when it opens, most again at intervals while they stay open, and once when it is over.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from enum import StrEnum

from currents_bridge.due import lately
from currents_bridge.model import Alert, AlertMessage, AlertPhase, Decision
from currents_bridge.phrases import how_long, when


class AlertKind(StrEnum):
    """What an alert is about; each has a heading in docs/runbook.md."""

    CREDENTIAL_FAILING = "credential_failing"  # subject: the side
    CREDENTIAL_SUSPECT = "credential_suspect"  # subject: the side
    SOURCE_DISABLED = "source_disabled"  # subject: the side; in place of credential_failing
    LOSS_WINDOW = "loss_window"  # subject: side and highest threshold reached, as "destination 50"
    LOSS_WINDOW_ENDED = "loss_window_ended"  # subject: the side
    BUCKET_DEADLINE = "bucket_deadline"  # subject: near or imminent
    CAUGHT_UP = "caught_up"  # subject: the side; opens silently at recovery
    ROTATION_REFUSED = "rotation_refused"
    JOB_FAILING = "job_failing"  # subject: the job
    BACKLOG = "backlog"
    QUARANTINED = "quarantined"
    DEAD_LETTERS = "dead_letters"
    UNKNOWN_EVENT_TYPE = "unknown_event_type"  # subject: the event type
    OBJECT_CHANGED = "object_changed"  # subject: the event type
    UNREAD_KEYS = "unread_keys"  # subject: unread.Reason
    SCHEMA_DRIFT = "schema_drift"  # subject: the event type
    SILENCE = "silence"  # subject: "" for the connector, else the event type
    NEW_INTEGRATION = "new_integration"  # subject: its folder
    FOLDER_DENIED = "folder_denied"  # subject: the folder
    AUDIT_FINDING = "audit_finding"  # subject: gone or unproven
    EVENTS_MISSING = "events_missing"  # subject: first or again, as they were sent
    KEY_UNPROVEN = "key_unproven"  # subject: write_key
    PROBE_FAILING = "probe_failing"  # subject: the probe's name
    TEST = "test"  # asked for by `alerts test`; never open

    @property
    def is_told_once(self) -> bool:
        """Whether it is not repeated while it stands: news stand for ever, and a threshold has its incident's alert."""
        return self in {
            self.LOSS_WINDOW,
            self.LOSS_WINDOW_ENDED,
            self.UNKNOWN_EVENT_TYPE,
            self.SCHEMA_DRIFT,
            self.NEW_INTEGRATION,
            self.KEY_UNPROVEN,
        }


class Severity(StrEnum):
    """How bad an alert is."""

    INFO = "info"  # to know; all is well
    WARNING = "warning"  # to look at within days
    CRITICAL = "critical"  # to look at now


def decide(
    conditions: Iterable[Alert],
    open_alerts: Iterable[Alert],
    now: datetime,
    repeat: timedelta,
    last_words: Callable[[Alert], Alert | None] = lambda alert: alert,
) -> Decision:
    """Compare what is wrong with the alerts that are open.

    Args:
        conditions: what is wrong now, each connector, kind and subject once; `told_at` None where only the end is
            told, any time where it is told at once.
        open_alerts: those that are open, as they were saved.
        now: the time; what was told later than that was told by a clock that ran ahead.
        repeat: time from one telling of an open alert to the next.
        last_words: what is told of an alert that is over; None: nothing, as when another has taken its place.
    """
    known = {_identity(alert): alert for alert in open_alerts}
    opened: list[Alert] = []
    messages: list[AlertMessage] = []
    for condition in conditions:
        before = known.pop(_identity(condition), None)
        if before is None:
            phase, told = AlertPhase.OPENED, condition.told_at is not None
            alert = replace(condition, told_at=now if told else None)
        elif before.told_at is None:
            continue  # its words say how things stood when it opened
        else:
            is_due = not lately(before.told_at, now, repeat)
            phase, told = AlertPhase.REPEATED, is_due and not AlertKind(before.kind).is_told_once
            alert = replace(condition, since=min(before.since, now), told_at=now if told else before.told_at)
        if alert != before:
            opened.append(alert)
        if told:
            messages.append(AlertMessage(phase, alert, now))
    endings = [last_words(alert) for alert in known.values()]
    messages += [AlertMessage(AlertPhase.RESOLVED, alert, now) for alert in endings if alert]
    return Decision(opened, list(known.values()), messages)


def title(message: AlertMessage) -> str:
    """Return one line, like `CRITICAL production: credential failing (destination)`."""
    alert = message.alert
    words = {AlertPhase.OPENED: "", AlertPhase.REPEATED: "STILL ", AlertPhase.RESOLVED: "RESOLVED "}[message.phase]
    severity = "" if message.phase is AlertPhase.RESOLVED else f"{alert.severity.upper()} "
    subject = f" ({alert.subject})" if alert.subject else ""
    return f"{words}{severity}{alert.connector}: {alert.kind.replace('_', ' ')}{subject}"


def text(message: AlertMessage) -> str:
    """Return the words of a message, a line each: what, since when, how much waits, what to do."""
    alert = message.alert
    lasted = how_long(message.at - alert.since)
    if message.phase is AlertPhase.RESOLVED:
        lines = [_sentence(alert.what), f"From {when(alert.since)} to {when(message.at)}: {lasted}."]
    else:
        lines = [_sentence(alert.what), f"Since {when(alert.since)}, {lasted} ago."]
    if alert.waits:
        lines.append(_sentence(f"Waiting: {alert.waits}"))
    if alert.todo:
        lines.append(_sentence(f"To do: {alert.todo}"))
    return "\n".join(lines)


def as_json(message: AlertMessage) -> dict[str, str]:
    """Return a message as channels for programs take it: each field is text, each time ISO 8601 in UTC."""
    alert = message.alert
    return {
        "phase": message.phase,
        "connector": alert.connector,
        "kind": alert.kind,
        "subject": alert.subject,
        "severity": alert.severity,
        "since": alert.since.astimezone(UTC).isoformat(),
        "what": alert.what,
        "waits": alert.waits,
        "todo": alert.todo,
        "at": message.at.astimezone(UTC).isoformat(),
        "text": f"{title(message)}\n{text(message)}",
    }


def verdict_of(findings: Mapping[str, int]) -> str:
    """Return what an audit found, like `2 changed, 40 gone`; `well` where that is nothing."""
    return ", ".join(f"{count:,} {kind}" for kind, count in sorted(findings.items())) or "well"


def _sentence(words: str) -> str:
    return words.rstrip(".") + "."


def _identity(alert: Alert) -> tuple[str, str, str]:
    return alert.connector, alert.kind, alert.subject
