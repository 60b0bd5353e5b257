"""What the ledger knows, as one report for every kind of reader."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from types import MappingProxyType

from currents_bridge.alerts.credential_words import Incident
from currents_bridge.alerts.engine import verdict_of
from currents_bridge.credentials.state import (
    PROOFS,
    LossPolicy,
    LossWindow,
    believable,
    loss_window_of,
    state_at,
    verified_until,
)
from currents_bridge.errors import Side
from currents_bridge.model import (
    ConnectorTotals,
    Credential,
    CredentialState,
    FailingJob,
    Notice,
    NoticeKind,
    ObjectState,
)
from currents_bridge.phrases import how_long, when
from currents_bridge.ports import Ledger
from currents_bridge.sources.expiry import waiting_deadline

_WORST_LAST = (
    CredentialState.VERIFIED,
    CredentialState.UNVERIFIED,
    CredentialState.SUSPECT,
    CredentialState.FAILING,
    CredentialState.EXPIRED,
)


@dataclass(frozen=True, slots=True)
class CredentialStatus:
    """One credential at one moment."""

    credential: Credential
    state: CredentialState  # also `expired`, which follows from the time
    window: LossWindow | None  # while it is suspect or failing
    now: datetime

    def as_json(self) -> dict[str, object]:
        """Return the credential's part of the JSON document."""
        ends_at = self.window.ends_at if self.window else None
        return {
            "state": str(self.state),
            "since": _iso(self.credential.since),
            "window_ends_at": _iso(ends_at),
            "remaining_s": max(0.0, (ends_at - self.now).total_seconds()) if ends_at else None,
            "evidence": self.credential.evidence,
            "hint": self.credential.hint,
            "proven_at": _iso(self.credential.proven_at),
            "proven_by": self.credential.proven_by,
            "verified_until": _iso(verified_until(self.credential)),
        }

    def proof(self) -> str:
        """Return for people when and how it was last seen to work, empty where it was never used."""
        known = self.credential
        if known.proven_at is None or known.proven_by is None:
            return "no proof yet that it works" if known.first_used_at else ""
        age = how_long(self.now - known.proven_at)
        proof = f"last proof {when(known.proven_at)}, {age} ago: {PROOFS[known.proven_by]}"
        if until := verified_until(known):
            proof += f"; it {'counted' if until < self.now else 'counts'} as verified until {when(until)}"
        return proof


@dataclass(frozen=True, slots=True)
class ConnectorStatus:
    """One connector at one moment."""

    name: str
    totals: ConnectorTotals
    loss: LossPolicy
    now: datetime
    failing_jobs: Sequence[FailingJob]
    deleted_at: datetime | None  # when the bucket's lifecycle rules delete the oldest object that waits
    key_references: Sequence[str] = ()  # where the write keys are, oldest first

    def credential(self, side: Side) -> CredentialStatus:
        """Return how one credential stands."""
        known = self.totals.credentials[side]
        window = loss_window_of(believable(known, self.now), self.loss.window)
        return CredentialStatus(known, state_at(known, self.now, self.loss.window), window, self.now)

    def incident(self, side: Side) -> Incident | None:
        """Return how one credential fails, or may; None where it does not."""
        of_side = self.credential(side)
        if of_side.window is None:
            return None
        return Incident(
            side,
            of_side.credential,
            of_side.state,
            of_side.window,
            self.now,
            drops=self.loss.drop,
            unproven_events=self.totals.unproven_events,
            key_references=self.key_references,
        )

    @property
    def worst_credential(self) -> CredentialStatus:
        """The side that is worse off; the destination where both are well."""
        source, destination = self.credential(Side.SOURCE), self.credential(Side.DESTINATION)
        worse = _WORST_LAST.index(source.state) > max(_WORST_LAST.index(destination.state), 1)
        return source if worse else destination

    @property
    def lag_s(self) -> float:
        """Age in seconds of the oldest object that waits; 0 where none does."""
        oldest = self.totals.waiting.oldest_at
        return max(0.0, (self.now - oldest).total_seconds()) if oldest else 0.0

    @property
    def notices(self) -> list[Notice]:
        """What was noticed and should be known; which integrations there are is no news."""
        return [notice for notice in self.totals.notices if notice.kind is not NoticeKind.INTEGRATION]

    @property
    def unknown_event_types(self) -> list[str]:
        """Types in the bucket that the catalogue does not know."""
        return sorted(n.subject for n in self.totals.notices if n.kind is NoticeKind.UNKNOWN_EVENT_TYPE)

    def as_json(self) -> dict[str, object]:
        """Return the connector's part of the JSON document."""
        totals = self.totals
        states = totals.objects
        return {
            "credential": self.worst_credential.as_json(),
            "credentials": {str(side): self.credential(side).as_json() for side in Side},
            "objects": {
                "pending": states[ObjectState.PENDING] + states[ObjectState.CLAIMED],
                "delivered": states[ObjectState.DELIVERED],
                "failed": states[ObjectState.FAILED],
                "quarantined": states[ObjectState.QUARANTINED],
            },
            "events": asdict(totals.books),
            "lag_s": round(self.lag_s, 3),
            "oldest_pending_at": _iso(totals.waiting.oldest_at),
            "waiting": {
                "objects": totals.waiting.objects,
                "bytes": totals.waiting.size_bytes,
                "known_events": totals.waiting.events,
                "deleted_at": _iso(self.deleted_at),
            },
            "rewound": asdict(totals.rewound),
            "unproven_events": totals.unproven_events,
            "last_poll": self._last_poll(),
            "last_audit": self._last_audit(),
            "unknown_event_types": self.unknown_event_types,
            "notices": [
                {"kind": str(n.kind), "subject": n.subject, "detail": n.detail, "count": n.count} for n in self.notices
            ],
            "reasons": totals.failed_reasons,
            "failing_jobs": [
                {"job": job.job, "failures": job.failures, "since": _iso(job.since), "error": job.error}
                for job in self.failing_jobs
            ],
        }

    @property
    def audit_verdict(self) -> str | None:
        """What the last audit found; None before the first."""
        findings = self.totals.progress.findings
        return None if findings is None else verdict_of(findings)

    def _last_poll(self) -> dict[str, object]:
        progress = self.totals.progress
        complete = progress.looked_at is not None and not progress.poll_error
        return {"at": _iso(progress.looked_at), "complete": complete, "error": progress.poll_error or None}

    def _last_audit(self) -> dict[str, object]:
        return {"at": _iso(self.totals.progress.audited_at), "verdict": self.audit_verdict}


@dataclass(frozen=True, slots=True)
class StatusReport:
    """All connectors at one moment."""

    connectors: tuple[ConnectorStatus, ...]

    def as_json(self) -> dict[str, object]:
        """Return the JSON document of `status --json`."""
        return {"connectors": {status.name: status.as_json() for status in self.connectors}}


def read_status(
    ledger: Ledger,
    policies: Mapping[str, LossPolicy],
    now: datetime,
    key_references: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> StatusReport:
    """Read the status of the connectors, given with their loss policies by name; raises LedgerError.

    `key_references`: where the write keys of each are, oldest first.
    """
    places = {name: key_references.get(name, ()) for name in policies}
    return StatusReport(tuple(_status(ledger, name, loss, now, places[name]) for name, loss in policies.items()))


def _status(
    ledger: Ledger, name: str, loss: LossPolicy, now: datetime, key_references: Sequence[str]
) -> ConnectorStatus:
    totals = ledger.totals(name)
    failing = [job for job in ledger.failing_jobs() if job.connector == name]
    return ConnectorStatus(name, totals, loss, now, failing, waiting_deadline(totals), key_references)


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
