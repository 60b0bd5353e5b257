"""A clock that ran ahead once leaves no trace: what it wrote into the ledger counts as due, or as long ago."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from currents_bridge.alerts.engine import AlertKind, Severity, decide
from currents_bridge.alerts.rules import Limits, conditions
from currents_bridge.credentials.state import believable, loss_window_of, state_at
from currents_bridge.due import LAST_RETRY, lately
from currents_bridge.errors import RetryLaterError
from currents_bridge.model import (
    Alert,
    AlertMessage,
    AlertPhase,
    Coverage,
    Credential,
    CredentialState,
    Decision,
    EvidenceKind,
    Failed,
    GroupLimits,
    ObjectState,
    Progress,
    Waiting,
)
from currents_bridge.sources.coverage import covered_by_look, hours_to_list
from currents_bridge.sources.discovery import poll
from tests.alert_workbench import health
from tests.workbench import NAME, Bench, clicks, everything

NOW = datetime(2026, 1, 2, 3, 10, tzinfo=UTC)
AHEAD = NOW + timedelta(days=400)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)
WINDOW = timedelta(hours=48)
ALERT = Alert(NAME, str(AlertKind.BACKLOG), "", str(Severity.WARNING), AHEAD, "what", "", "todo", AHEAD)


@pytest.mark.parametrize(("at", "is_lately"), [(None, False), (NOW, True), (NOW - HOUR, False), (AHEAD, False)])
def test_only_what_lies_between_then_and_now_is_lately(at: datetime | None, is_lately: bool) -> None:  # noqa: FBT001
    """Of a time ahead nobody knows when it was."""
    assert lately(at, NOW, HOUR) is is_lately


def test_an_object_that_failed_under_such_a_clock_is_due() -> None:
    """No retry is farther away than LAST_RETRY; what is not keeps its time."""
    bench = Bench()
    for offset, at in enumerate((AHEAD, bench.now + LAST_RETRY)):
        bench.put(1, offset=offset)
        (claimed,) = bench.claim()
        bench.ledger.settle([Failed(claimed.id, "unwell", at)], bench.now)

    assert len(bench.ledger.claim(NAME, everything(), GroupLimits(), bench.now)) == 1
    assert not bench.ledger.claim(NAME, everything(), GroupLimits(), bench.now)


def test_a_process_that_lived_under_such_a_clock_is_dead() -> None:
    """Its claims are free again, whatever its last sign of life says."""
    bench = Bench()
    bench.put(1)
    assert bench.claim()
    bench.ledger.heartbeat(AHEAD)
    other = type(bench.ledger)(bench.ledger.path)

    other.reclaim(NAME, bench.now)

    assert bench.states() == {ObjectState.PENDING: 1}


@pytest.mark.parametrize("start", [None, NOW - 9 * DAY])
def test_a_folder_that_was_listed_under_such_a_clock_is_listed_whole(start: datetime | None) -> None:
    """What came between that look and now is in no hour that a later look would list."""
    covered = Coverage(None, AHEAD)

    ((first, end),) = hours_to_list(covered, start, 6 * HOUR, NOW)

    assert (first, end) == (start and start.replace(minute=0), None)
    assert covered_by_look(covered, start, 6 * HOUR, NOW).until == NOW


def test_a_first_start_under_such_a_clock_does_not_hide_what_comes() -> None:
    """With `start_from: now`: the start is as far back then as each poll looks."""
    bench = Bench()
    source = replace(bench.source(), start_from="now")
    bench.put(1, offset=1, hour=bench.now.replace(minute=0) - 30 * DAY)
    bench.put(1, offset=2)
    poll(source, AHEAD)
    assert not bench.ledger.rows()

    poll(source, bench.now)

    assert bench.ledger.progress(NAME).started_at == bench.now - source.lookback
    assert [row["hour"] for row in bench.ledger.rows()] == [f"{bench.now:%Y-%m-%d-%H}"]


def test_a_clock_that_was_never_set_does_not_make_now_the_beginning_of_history() -> None:
    """As on a board without a battery: with `start_from: now` the poll says so, and nothing is admitted."""
    bench = Bench()
    bench.put(1)

    with pytest.raises(RetryLaterError, match="the clock of this machine says 1970-01-01"):
        poll(replace(bench.source(), start_from="now"), datetime(1970, 1, 1, tzinfo=UTC))

    assert not bench.ledger.rows()
    assert bench.ledger.progress(NAME).started_at is None


def test_an_audit_under_such_a_clock_was_none() -> None:
    """The next one is due at once."""
    bench = Bench()
    bench.put(1)
    connector = bench.connector()
    connector.poll()
    bench.ledger.save_progress(NAME, Progress(audited_at=AHEAD))

    assert connector.audit_when_due(DAY) is not None
    assert bench.ledger.progress(NAME).audited_at == bench.now


def test_an_open_alert_that_was_told_ahead_is_told_again() -> None:
    """With a beginning that can be."""
    decision = decide([replace(ALERT, told_at=NOW, since=NOW)], [ALERT], NOW, 12 * HOUR)

    assert [(message.phase, message.alert.since) for message in decision.messages] == [(AlertPhase.REPEATED, NOW)]


def test_a_message_that_was_put_off_ahead_is_due() -> None:
    """A channel that failed once under such a clock would stay silent."""
    book = Bench().ledger.alert_book()
    book.revise(lambda _: Decision([], [], [AlertMessage(AlertPhase.OPENED, ALERT, NOW)]), ["channel"])
    queued = book.claim("channel", NOW, NOW)
    assert queued

    book.postpone(queued.id, AHEAD)

    assert book.claim("channel", NOW, NOW) == replace(queued, attempts=1)


def test_a_proof_ahead_verifies_nothing() -> None:
    """Else the key counted as verified for a year."""
    credential = Credential(state=CredentialState.VERIFIED, since=NOW, proven_at=AHEAD)

    assert state_at(credential, NOW, WINDOW) is CredentialState.UNVERIFIED


def test_a_loss_window_begins_before_now() -> None:
    """Its thresholds are told while the key fails."""
    times = {"since": AHEAD, "proven_at": AHEAD, "accepted_at": AHEAD, "first_used_at": AHEAD}
    credential = Credential(state=CredentialState.FAILING, cause=EvidenceKind.REVOKED, **times)  # type: ignore[arg-type]

    window = loss_window_of(believable(credential, NOW), WINDOW)

    assert window is not None
    assert window.started_at <= NOW


def test_what_lacks_proof_since_a_time_ahead_lacks_it_for_as_long_as_can_be() -> None:
    """Rewound from there, nothing would be sent again of what a dead key took."""
    first = NOW - 9 * DAY
    credential = Credential(first_used_at=first, rewind_from=AHEAD)

    assert believable(credential, NOW).rewind_from == first


def test_a_backlog_is_told_though_the_first_poll_lies_ahead() -> None:
    """And though the last recovery does."""
    waits = Waiting(objects=1, size_bytes=1, oldest_at=NOW - DAY)
    behind = health(now=NOW, started_at=AHEAD, waiting=waits, destination=Credential(recovered_at=AHEAD))

    told = conditions(behind, Limits(6 * HOUR, 100, DAY))

    assert AlertKind.BACKLOG in [alert.kind for alert in told]


def test_what_became_a_dead_letter_ahead_did_not_do_so_lately() -> None:
    """Else its alert stood for a year."""
    bench = Bench()
    bench.put([*clicks(1), clicks(1)[0] | {"time": 0}])
    later, bench.now = bench.now, AHEAD
    bench.deliver()

    assert bench.ledger.dead_lettered(NAME, later - HOUR, later) == 0
    assert bench.ledger.dead_lettered(NAME, AHEAD - HOUR, AHEAD) == 1
