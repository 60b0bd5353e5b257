from datetime import timedelta
from typing import Any

import pytest

from currents_bridge.credentials.state import LossPolicy
from currents_bridge.errors import LedgerError, Side
from currents_bridge.model import (
    Acknowledged,
    Credential,
    CredentialState,
    EvidenceKind,
    ExpiryRule,
    Notice,
    NoticeKind,
    Progress,
)
from currents_bridge.operations.status import read_status
from tests.workbench import HOUR, NAME, UNWELL, Bench

POLICY = {NAME: LossPolicy()}
REVOKED = Credential(
    CredentialState.FAILING, HOUR, "revoked", "renew it", EvidenceKind.REVOKED, proven_at=HOUR - timedelta(hours=1)
)
NEW = "users.messages.carrierpigeon.Send"


@pytest.fixture
def bench() -> Bench:
    """A ledger with one delivered, one failed, one quarantined and one claimed object."""
    bench = Bench()
    bench.put(3, offset=1)
    bench.deliver()
    bench.put(2, offset=2)
    bench.transport.outcomes.extend([UNWELL] * 6)
    bench.deliver()
    bench.put(2, offset=3, cut_bytes=50)
    bench.deliver()
    bench.put(2, offset=4)
    bench.claim()
    return bench


def test_the_report_as_json_has_the_names_of_the_interface(bench: Bench) -> None:
    """The document of `status --json`; a claimed object is still pending to whoever looks.

    One event of the quarantined object could be read.
    """
    bench.ledger.save_credential(NAME, Side.DESTINATION, REVOKED)
    bench.ledger.save_expiry_rules(NAME, [ExpiryRule("", days=30)])
    bench.ledger.note(NAME, [Notice(NoticeKind.UNKNOWN_EVENT_TYPE, NEW, "not included", 7)], bench.now)

    bench.ledger.job_ended(NAME, "poll", "S3 did not answer", bench.now)

    document = read_status(bench.ledger, POLICY, bench.now).as_json()

    failing = {
        "state": "failing",
        "since": "2026-01-02T03:00:00+00:00",
        "window_ends_at": "2026-01-04T02:00:00+00:00",
        "remaining_s": 168600.0,
        "evidence": "revoked",
        "hint": "renew it",
        "proven_at": "2026-01-02T02:00:00+00:00",
        "proven_by": None,
        "verified_until": None,
    }
    unknown = dict.fromkeys(failing) | {"state": "unverified"}
    totals = bench.ledger.totals(NAME)
    reasons, waiting_bytes = totals.failed_reasons, totals.waiting.size_bytes
    assert document == {
        "connectors": {
            NAME: {
                "credential": failing,
                "credentials": {"source": unknown, "destination": failing},
                "objects": {"pending": 1, "delivered": 1, "failed": 1, "quarantined": 1},
                "events": {"read": 4, "sent": 4, "skipped_anonymous": 0, "deduplicated": 0, "dead_lettered": 0},
                "lag_s": 600.0,
                "oldest_pending_at": "2026-01-02T03:00:00+00:00",
                "waiting": {
                    "objects": 2,
                    "bytes": waiting_bytes,
                    "known_events": 0,
                    "deleted_at": "2026-02-02T00:00:00+00:00",
                },
                "rewound": {"objects": 0, "events": 0, "letters": 0},
                "unproven_events": 0,
                "last_poll": {"at": None, "complete": False, "error": None},
                "last_audit": {"at": None, "verdict": None},
                "unknown_event_types": [NEW],
                "notices": [{"kind": "unknown_event_type", "subject": NEW, "detail": "not included", "count": 7}],
                "reasons": reasons,
                "failing_jobs": [
                    {
                        "job": "poll",
                        "failures": 1,
                        "since": "2026-01-02T03:10:00+00:00",
                        "error": "S3 did not answer",
                    }
                ],
            }
        }
    }
    assert reasons[UNWELL.message] == 1


@pytest.mark.parametrize(("error", "complete"), [("", True), ("a folder could not be listed", False)])
def test_it_says_how_the_last_poll_went(bench: Bench, error: str, *, complete: bool) -> None:
    """Whether it was complete, and if not why."""
    bench.ledger.save_progress(NAME, Progress(looked_at=HOUR, poll_error=error))

    (status,) = read_status(bench.ledger, POLICY, bench.now).connectors

    expected = {"at": "2026-01-02T03:00:00+00:00", "complete": complete, "error": error or None}
    assert status.as_json()["last_poll"] == expected


@pytest.mark.parametrize(
    ("findings", "verdict"), [({}, "well"), ({"gone": 1204, "changed": 2}, "2 changed, 1,204 gone")]
)
def test_it_says_what_the_last_audit_found(bench: Bench, findings: dict[str, int], verdict: str) -> None:
    """And when that was."""
    bench.ledger.save_progress(NAME, Progress(audited_at=HOUR, findings=findings))

    (status,) = read_status(bench.ledger, POLICY, bench.now).connectors

    assert status.as_json()["last_audit"] == {"at": "2026-01-02T03:00:00+00:00", "verdict": verdict}


@pytest.mark.parametrize(
    ("side", "hours", "state"),
    [(Side.DESTINATION, 0, "failing"), (Side.SOURCE, 0, "failing"), (Side.DESTINATION, 47, "expired")],
)
def test_the_credential_is_the_worse_of_both_sides(bench: Bench, side: Side, hours: int, state: str) -> None:
    """Past the end of the loss window it is expired, and nothing remains."""
    bench.ledger.save_credential(NAME, side, REVOKED)

    (status,) = read_status(bench.ledger, POLICY, HOUR + timedelta(hours=hours)).connectors

    document = status.worst_credential.as_json()
    assert (document["state"], document["remaining_s"]) == (state, 3600.0 * (47 - hours))


def test_nothing_known_is_all_zero() -> None:
    """A connector that never ran is unverified and has no lag."""
    document = read_status(Bench().ledger, {"new": LossPolicy()}, HOUR).as_json()

    assert document["connectors"]["new"]["credential"]["state"] == "unverified"  # type: ignore[index]
    assert document["connectors"]["new"]["lag_s"] == 0  # type: ignore[index]
    assert document["connectors"]["new"]["oldest_pending_at"] is None  # type: ignore[index]


def test_a_clock_that_is_behind_makes_no_negative_lag(bench: Bench) -> None:
    """S3's time may be ahead of ours."""
    (status,) = read_status(bench.ledger, POLICY, HOUR - timedelta(minutes=5)).connectors

    assert status.lag_s == 0


def test_only_unknown_types_are_listed_as_such(bench: Bench) -> None:
    """In the order of their names, each once."""
    kinds = [(NoticeKind.UNKNOWN_EVENT_TYPE, "b.B"), (NoticeKind.UNKNOWN_EVENT_TYPE, "a.A")]
    noted = [Notice(kind, subject) for kind, subject in [*kinds, (NoticeKind.UNREAD_KEYS, "readme.txt")]]
    bench.ledger.note(NAME, noted, bench.now)

    (status,) = read_status(bench.ledger, POLICY, bench.now).connectors

    assert status.unknown_event_types == ["a.A", "b.B"]


def test_a_ledger_that_cannot_be_read_raises(bench: Bench) -> None:
    """There is nothing to show."""
    bench.ledger.faults["totals"] = LedgerError("disk full")

    with pytest.raises(LedgerError):
        read_status(bench.ledger, POLICY, bench.now)


def test_a_status_says_how_and_when_the_key_was_last_proven_and_what_is_not(bench: Bench) -> None:
    """What a dead key would cost now."""
    bench.ledger.acknowledge(NAME, Acknowledged(bench.now, 5, again=2))
    proof = Credential(
        CredentialState.VERIFIED,
        since=bench.now,
        first_used_at=bench.now,
        proven_at=bench.now - timedelta(minutes=10),
        proven_by=EvidenceKind.CONFIRMED,
    )
    bench.ledger.save_credential(NAME, Side.DESTINATION, proof)

    (status,) = read_status(bench.ledger, {NAME: LossPolicy()}, bench.now).connectors

    said = status.credential(Side.DESTINATION).proof()
    assert "10 min ago: the Public API listed it; it counts as verified until 2026-01-02 04:00 UTC" in said
    (later,) = read_status(bench.ledger, {NAME: LossPolicy()}, bench.now + timedelta(hours=2)).connectors
    assert later.credential(Side.DESTINATION).proof().endswith("it counted as verified until 2026-01-02 04:00 UTC")
    document: Any = status.as_json()
    assert document["unproven_events"] == 7
    assert document["credentials"]["destination"]["proven_by"] == "confirmed"
    assert document["credentials"]["destination"]["verified_until"] == (bench.now + timedelta(minutes=50)).isoformat()
