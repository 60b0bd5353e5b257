"""Which notices are worth an alert, and in which words. Pure."""

from datetime import datetime, timedelta

from currents_bridge.alerts.credential_words import CHECK
from currents_bridge.alerts.engine import AlertKind, Severity
from currents_bridge.credentials.state import SENT_AGAIN
from currents_bridge.due import lately
from currents_bridge.model import Notice, NoticeKind
from currents_bridge.phrases import count
from currents_bridge.sources.unread import Reason

SETTLING = timedelta(hours=1)  # after the first poll began, in which integrations are no news
PROBE_PATIENCE = timedelta(hours=1)  # a probe that fails for less is no alert

_RESEND = (
    "send the hours of the files that were delivered then once more with `currents-bridge backfill --from T --to T "
    "--resend` (Segment drops repeats for about 24 hours only)"
)


def news(notice: Notice, started_at: datetime | None, now: datetime) -> tuple[AlertKind, Severity, str, str] | None:
    """Return kind, severity, what is wrong and what to do; None where a notice is worth no alert.

    `started_at`: when the first poll began.
    """
    since = notice.since or now
    match notice.kind:
        case NoticeKind.UNKNOWN_EVENT_TYPE:
            what = f"Files of an unknown event type came: {notice.subject}, {notice.detail}"
            todo = "update currents-bridge, or name the type in events.include or events.exclude"
            kind, severity = AlertKind.UNKNOWN_EVENT_TYPE, Severity.INFO
        case NoticeKind.UNREAD_KEYS | NoticeKind.MISPLACED if notice.subject != Reason.NOT_CURRENTS:
            what = (
                f"Files under the prefix that look like those of Currents are not read ({notice.count:,} so far): they "
            )
            what += notice.detail
            todo = f"as said above; {CHECK}"
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
            todo = "nothing, if it is meant for this connector; else give each connector a source.prefix of its own"
            kind, severity = AlertKind.NEW_INTEGRATION, Severity.INFO
        case NoticeKind.SHORTFALL:
            what = f"Segment acknowledged events that its source does not have: {notice.detail}"
            todo = f"see the source's Delivery Overview in Segment; where events are missing, {_RESEND}"
            if notice.subject == SENT_AGAIN:
                todo = "Segment may have had them before, or drop them because it remembers their ids: if the "
                todo += f"Delivery Overview lacks them, set rewind_message_ids: fresh, restart, and {_RESEND}"
            kind, severity = AlertKind.EVENTS_MISSING, Severity.CRITICAL
        case NoticeKind.UNPROVEN:
            what = "The write key was replaced, and no probe could ever tell whether the old one worked. It is not "
            what += f"known whether these arrived: {notice.detail}"
            todo = f"see the source's Delivery Overview in Segment; where events are missing, {_RESEND}"
            kind, severity = AlertKind.KEY_UNPROVEN, Severity.WARNING
        case NoticeKind.PROBE if not lately(since, now, PROBE_PATIENCE):
            what = (
                f"The probe {notice.subject} cannot tell whether the write key works: {notice.detail}. Until it can, "
            )
            what += "a dead key is noticed later, or not at all; sending goes on"
            todo = f"mend what is named; {CHECK}"
            kind, severity = AlertKind.PROBE_FAILING, Severity.WARNING
        case _:
            return None
    return kind, severity, what, todo
