"""What the ledger knows, as one report for every kind of reader."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from currents_bridge.model import ConnectorTotals, NoticeKind, ObjectState
from currents_bridge.ports import Ledger


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """One connector at one moment."""

    name: str
    totals: ConnectorTotals
    now: datetime

    @property
    def lag_s(self) -> float:
        """Age in seconds of the oldest object that waits; 0 where none does."""
        oldest = self.totals.oldest_pending_at
        return max(0.0, (self.now - oldest).total_seconds()) if oldest else 0.0

    @property
    def unknown_event_types(self) -> list[str]:
        """Types in the bucket that the catalogue does not know."""
        return sorted(n.subject for n in self.totals.notices if n.kind is NoticeKind.UNKNOWN_EVENT_TYPE)

    def as_json(self) -> dict[str, object]:
        """Return the connector's part of the JSON document."""
        totals = self.totals
        states = totals.objects
        return {
            "credential": {
                "state": totals.credential.state,
                "since": _iso(totals.credential.since),
                "window_ends_at": None,
                "remaining_s": None,
                "evidence": totals.credential.evidence,
            },
            "objects": {
                "pending": states[ObjectState.PENDING] + states[ObjectState.CLAIMED],
                "delivered": states[ObjectState.DELIVERED],
                "failed": states[ObjectState.FAILED],
                "quarantined": states[ObjectState.QUARANTINED],
            },
            "events": {
                "read": totals.books.read,
                "sent": totals.books.sent,
                "skipped_anonymous": totals.books.skipped_anonymous,
                "deduplicated": totals.books.deduplicated,
                "dead_lettered": totals.books.dead_lettered,
            },
            "lag_s": round(self.lag_s, 3),
            "oldest_pending_at": _iso(totals.oldest_pending_at),
            "unknown_event_types": self.unknown_event_types,
            "notices": [
                {"kind": str(n.kind), "subject": n.subject, "detail": n.detail, "count": n.count}
                for n in totals.notices
            ],
            "reasons": totals.failed_reasons,
        }


@dataclass(frozen=True, slots=True)
class StatusReport:
    """All connectors at one moment."""

    connectors: tuple[ConnectorStatus, ...]

    def as_json(self) -> dict[str, object]:
        """Return the JSON document of `status --json`."""
        return {"connectors": {status.name: status.as_json() for status in self.connectors}}


def read_status(ledger: Ledger, names: Iterable[str], now: datetime) -> StatusReport:
    """Read the status of the named connectors; raises LedgerError."""
    return StatusReport(tuple(ConnectorStatus(name, ledger.totals(name), now) for name in names))


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
