"""How a connector is, at one moment: read from the ledger for those who tell people."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from currents_bridge.alerts.rules import ACTIVITY_SPAN, Health, Standing
from currents_bridge.connector import Connector
from currents_bridge.credentials.state import believable, loss_window_of, state_at
from currents_bridge.due import lately
from currents_bridge.model import Evidence, EvidenceKind, NoticeKind, TypeActivity
from currents_bridge.sources.expiry import waiting_deadline

DEAD_LETTER_SPAN = timedelta(hours=1)
ACTIVITY_EVERY = timedelta(minutes=10)


class HealthReader:
    """Reads the health of one connector. When files of which type came is looked up rarely: a week is long."""

    def __init__(self, connector: Connector) -> None:
        self._connector = connector
        self._activity: Sequence[TypeActivity] = ()
        self._since: datetime | None = None
        self._looked_at: datetime | None = None

    @property
    def name(self) -> str:
        """The connector's name."""
        return self._connector.name

    def read(self, now: datetime) -> Health:
        """Return how the connector is; raises LedgerError."""
        ledger, name, loss = self._connector.ledger, self._connector.name, self._connector.loss
        if not lately(self._looked_at, now, ACTIVITY_EVERY):
            self._look_up_activity(now)
        totals = ledger.totals(name)
        standings = {
            side: Standing(
                known, state_at(known, now, loss.window), loss_window_of(believable(known, now), loss.window)
            )
            for side, known in totals.credentials.items()
        }
        refused = next((notice for notice in totals.notices if notice.kind is NoticeKind.ROTATION), None)
        return Health(
            name=name,
            now=now,
            standings=standings,
            totals=totals,
            drops=loss.drop,
            deadline=waiting_deadline(totals),
            activity=self._activity,
            activity_since=self._since,
            active_at=max((at for at in (totals.progress.polled_at, self._connector.active_at) if at), default=None),
            dead_letters=ledger.dead_lettered(name, now - DEAD_LETTER_SPAN, now),
            key_references=self._connector.watch.key_references,
            refused_key=Evidence(EvidenceKind.UNKNOWN, refused.since or now, refused.detail) if refused else None,
        )

    def _look_up_activity(self, now: datetime) -> None:
        """Count the active hours of the week before the newest hour, of the event types that are included."""
        ledger, name, included = self._connector.ledger, self._connector.name, self._connector.included_types()
        newest = ledger.newest_hour(name, included, now)
        self._since = (newest or now) + timedelta(hours=1) - ACTIVITY_SPAN
        self._activity = [of for of in ledger.activity(name, self._since, now) if of.event_type in included]
        self._looked_at = now
