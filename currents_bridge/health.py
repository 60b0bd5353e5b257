"""How a connector is, at one moment: read from the ledger for those who tell people."""

from datetime import datetime, timedelta

from currents_bridge.alert_rules import ACTIVITY_SPAN, Health, Standing
from currents_bridge.connector import Connector
from currents_bridge.credentials import loss_window_of, state_at
from currents_bridge.expiry import deadline
from currents_bridge.model import Evidence, EvidenceKind, NoticeKind

DEAD_LETTER_SPAN = timedelta(hours=1)


def read_health(connector: Connector, now: datetime) -> Health:
    """Return the health of a connector; raises LedgerError."""
    ledger, name, loss = connector.ledger, connector.name, connector.loss
    totals = ledger.totals(name)
    standings = {
        side: Standing(known, state_at(known, now, loss.window), loss_window_of(known, loss.window))
        for side, known in totals.credentials.items()
    }
    newest = max((of_type.latest_hour for of_type in ledger.activity(name, now)), default=now)
    since = newest + timedelta(hours=1) - ACTIVITY_SPAN
    refused = next((notice for notice in totals.notices if notice.kind is NoticeKind.ROTATION), None)
    return Health(
        name=name,
        now=now,
        standings=standings,
        totals=totals,
        drops=loss.drop,
        deadline=deadline(totals.waiting.oldest_at, "", totals.expiry_rules) if totals.waiting.oldest_at else None,
        activity=ledger.activity(name, since),
        activity_since=since,
        dead_letters=ledger.dead_lettered(name, now - DEAD_LETTER_SPAN),
        refused_key=Evidence(EvidenceKind.UNKNOWN, refused.since or now, refused.detail) if refused else None,
    )


def is_healthy(health: Health) -> bool:
    """Return whether discovery has come through lately, so that a watchdog may be told that all is well."""
    polled_at = health.totals.progress.polled_at
    return polled_at is not None and health.now - polled_at < timedelta(hours=1)
