"""A connector whose health a test makes worse."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from currents_bridge.alerts import rules
from currents_bridge.alerts.rules import Health, Limits, Standing
from currents_bridge.credentials import state as credentials
from currents_bridge.errors import Side
from currents_bridge.model import (
    Alert,
    Books,
    ConnectorTotals,
    Credential,
    CredentialState,
    EvidenceKind,
    Notice,
    ObjectState,
    Progress,
    Rewound,
    TypeActivity,
    Waiting,
)

NOW = datetime(2026, 1, 10, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
MINUTE = timedelta(minutes=1)
WINDOW = timedelta(hours=48)
REPEAT = timedelta(hours=12)
LIMITS = Limits(backlog_age=6 * HOUR, dead_letters_per_hour=100, silence=24 * HOUR)


def failing(since: datetime, cause: EvidenceKind = EvidenceKind.REVOKED) -> Credential:
    """Return a credential that has failed since its last proof."""
    return Credential(
        state=CredentialState.FAILING,
        since=since,
        proven_at=since,
        cause=cause,
        evidence="the source does not list the key",
        hint="put the source's key into the secret",
    )


def health(  # noqa: PLR0913 - one parameter a thing that can be wrong
    *,
    now: datetime = NOW,
    source: Credential | None = None,
    destination: Credential | None = None,
    waiting: Waiting | None = None,
    sent: int = 0,
    quarantined: int = 0,
    notices: Sequence[Notice] = (),
    started_at: datetime = NOW - 30 * DAY,
    polled_at: datetime | None = None,
    audited_at: datetime | None = None,
    findings: Mapping[str, int] | None = None,
    **more: Any,
) -> Health:
    """Return the health of a connector that is well but for what is given."""
    known = {Side.SOURCE: source or Credential(), Side.DESTINATION: destination or Credential()}
    return Health(
        name="production",
        now=now,
        standings={
            side: Standing(one, credentials.state_at(one, now, WINDOW), credentials.loss_window_of(one, WINDOW))
            for side, one in known.items()
        },
        totals=ConnectorTotals(
            objects=dict.fromkeys(ObjectState, 0) | {ObjectState.QUARANTINED: quarantined},
            books=Books(read=sent, sent=sent),
            waiting=waiting or Waiting(),
            credentials=known,
            rewound=Rewound(),
            notices=notices,
            progress=Progress(
                polled_at=polled_at or now,
                started_at=started_at,
                audited_at=audited_at,
                findings=findings,
            ),
        ),
        **more,
    )


def week(*types: tuple[str, timedelta, int]) -> dict[str, Any]:
    """Return the activity part of a health: event types, how long before NOW their newest hour, active hours."""
    activity = [TypeActivity(name, NOW - ago - HOUR, hours) for name, ago, hours in types]
    newest = max(one.latest_hour for one in activity)
    return {"activity": activity, "activity_since": newest + HOUR - rules.ACTIVITY_SPAN}


def wrong(of: Health) -> list[Alert]:
    """Return the conditions of a health under the usual limits."""
    return rules.conditions(of, LIMITS)


def found(of: Health) -> list[tuple[str, str]]:
    """Return kind and subject of the conditions."""
    return [(alert.kind, alert.subject) for alert in wrong(of)]


def make_alert(kind: str = "backlog", subject: str = "", **fields: Any) -> Alert:
    """Return an alert of the connector."""
    alert = Alert("production", kind, subject, "warning", NOW, "It is wrong", "1 object, 1 byte", "mend it", NOW)
    return replace(alert, **fields)
