"""What people read at night; docs/alerts.md shows each text as it is."""

import re
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.alerts.credential_words import Incident
from currents_bridge.alerts.engine import AlertKind, text, title
from currents_bridge.alerts.rules import job_alerts, last_words
from currents_bridge.credentials.state import loss_window_of, state_at
from currents_bridge.errors import Side
from currents_bridge.model import (
    HANGS,
    Alert,
    AlertMessage,
    AlertPhase,
    Credential,
    CredentialState,
    Evidence,
    EvidenceKind,
    FailingJob,
    Notice,
    NoticeKind,
    Waiting,
)
from tests.alert_workbench import DAY, HOUR, MINUTE, NOW, WINDOW, health, make_alert, week, wrong

DOCS = Path(__file__).parents[3] / "docs/alerts.md"
WAITING = Waiting(objects=1204, size_bytes=34_100_000, events=5000, oldest_at=NOW - 5 * MINUTE)
FAILING, SUSPECT = CredentialState.FAILING, CredentialState.SUSPECT
PAGE = "source acme-prod"
READABLE = 420  # characters of a line: three sentences
KINDS = {  # of incident: side, state, cause, evidence, hint
    "The write key is gone": (
        Side.DESTINATION,
        FAILING,
        EvidenceKind.REVOKED,
        f"{PAGE} does not have the write key: it has 1 other write key",
        "copy destination.write_key from the source's settings in Segment",
    ),
    "The source is disabled": (
        Side.DESTINATION,
        FAILING,
        EvidenceKind.DISABLED,
        f"{PAGE} is disabled",
        "enable it in Segment; Segment itself disables sources that have no destination for 14 days",
    ),
    "Nothing arrives": (
        Side.DESTINATION,
        FAILING,
        EvidenceKind.NOT_RECEIVED,
        f"of 12 events acknowledged since 2026-01-10 11:00 UTC, {PAGE} received 0, and 0 failed on ingest",
        "check that destination.region is the workspace's, and what the source's Delivery Overview in Segment says",
    ),
    "Segment refuses": (
        Side.DESTINATION,
        FAILING,
        EvidenceKind.DENIED,
        "api.segment.io answered 401: Unauthorized",
        "check the write key, and destination.oauth where the source enforces OAuth",
    ),
    "The write key may be gone": (
        Side.DESTINATION,
        SUSPECT,
        EvidenceKind.UNKNOWN,
        "cdn-settings.segment.com does not know the write key",
        "compare destination.write_key with the source's settings in Segment",
    ),
    "The bucket is denied": (
        Side.SOURCE,
        FAILING,
        EvidenceKind.DENIED,
        (
            "cannot list s3://acme-currents/: access denied, s3:ListBucket on arn:aws:s3:::acme-currents is not "
            "granted to arn:aws:sts::1234:assumed-role/bridge/i-1 (AccessDenied)"
        ),
        "grant s3:ListBucket on arn:aws:s3:::acme-currents to arn:aws:sts::1234:assumed-role/bridge/i-1",
    ),
}


def credential(kind: str, hours: float) -> tuple[Side, Credential]:
    """Return a credential that fails for so long, last proven ten minutes before that."""
    side, state, cause, evidence, hint = KINDS[kind]
    since = NOW - hours * HOUR
    return side, Credential(
        state=state,
        since=since,
        evidence=evidence,
        hint=hint,
        cause=cause,
        proven_at=since - 10 * MINUTE,
        proven_by=EvidenceKind.WORKED if side is Side.SOURCE else EvidenceKind.CONFIRMED,
        accepted_at=since - MINUTE,
        first_used_at=NOW - 30 * DAY,
        sent_in_vain=0 if cause is EvidenceKind.DENIED or state is SUSPECT else 8,
    )


def messages(kind: str, hours: float, *, drops: bool = False) -> Iterator[AlertMessage]:
    """Yield what is told after so many hours."""
    side, known = credential(kind, hours)
    now = health(
        source=known if side is Side.SOURCE else None,
        destination=known if side is Side.DESTINATION else None,
        waiting=WAITING,
        deadline=NOW + 30 * DAY,
        drops=drops,
        key_references=("env:SEGMENT_WRITE_KEY",),
    )
    now = replace(now, totals=replace(now.totals, unproven_events=8))
    for alert in wrong(now):
        yield AlertMessage(AlertPhase.OPENED, alert, NOW)


def recovery(*, set_aside: int) -> AlertMessage:
    """Return what is told at the end."""
    evidence = f"{PAGE} is enabled and has the write key"
    well = Credential(state=CredentialState.VERIFIED, evidence=evidence, sent_in_vain=8)
    now = health(destination=well, waiting=WAITING, quarantined=set_aside, drops=bool(set_aside))
    alert = last_words(make_alert("credential_failing", "destination", since=NOW - 60 * HOUR), now, [])
    assert alert
    return AlertMessage(AlertPhase.RESOLVED, alert, NOW)


def shown(message: AlertMessage) -> str:
    """Return a message as a channel shows it."""
    return f"{title(message)}\n{text(message)}"


def examples() -> Iterator[str]:
    """Yield the page's headings and texts."""
    for kind in KINDS:
        yield f"## {kind}"
        yield shown(next(messages(kind, 0.5)))
    gone = "The write key is gone"
    yield "## Half of the loss window is over"
    yield shown([*messages(gone, 25)][-1])
    yield "## The loss window is over"
    yield shown([*messages(gone, 60)][-1])
    yield "## The same with `after_loss_window: drop`"
    yield shown([*messages(gone, 60, drops=True)][-1])
    yield "## It works again"
    yield shown(recovery(set_aside=0))
    yield "## The same with files set aside"
    yield shown(recovery(set_aside=12))


def everything_else() -> list[Alert]:
    """Return one alert of each kind and subject that is not of a credential that fails, the worst first."""
    span = "2026-01-10 09:00 UTC"
    noted = {  # kind: subject, detail, count
        NoticeKind.FOLDER_DENIED: ("currents/event_type=users.messages.sms.Send/", "access denied (AccessDenied)", 1),
        NoticeKind.PROBE: ("Public API", "api.segmentapis.com answered 401; renew destination.public_api.token", 1),
        NoticeKind.UNPROVEN: ("write_key", f"40 events acknowledged from {span} to 2026-01-10 10:00 UTC", 1),
        NoticeKind.UNREAD_KEYS: ("encoded", "have URL-encoded names (%3D for =), like a%3Db.avro; copy them again", 12),
        NoticeKind.OBJECT_CHANGED: (
            "users.messages.email.Click",
            "written again after delivery, like currents/a.avro; to send that: `currents-bridge backfill --resend`",
            3,
        ),
        NoticeKind.UNKNOWN_EVENT_TYPE: ("users.messages.pigeon.Send", "not included", 1),
        NoticeKind.SCHEMA_DRIFT: ("users.messages.email.Click", "new field: wing", 1),
        NoticeKind.INTEGRATION: ("dataexport.prod-01.S3.integration.2", "", 1),
    }
    notices = [Notice(kind, *said, since=NOW - 2 * HOUR) for kind, said in noted.items()]
    short = f"of 120 events acknowledged between {span} and 2026-01-10 09:30 UTC, 80 arrived"
    again = f"none of 8 events sent again between {span} and 2026-01-10 09:30 UTC has arrived"
    notices += [
        Notice(NoticeKind.SHORTFALL, subject, detail, since=NOW - HOUR)
        for subject, detail in (("first", short), ("again", again))
    ]
    now = health(
        waiting=replace(WAITING, events=0, oldest_at=NOW - 8 * HOUR),
        notices=notices,
        quarantined=3,
        dead_letters=250,
        deadline=NOW + HOUR / 2,
        findings={"gone": 40, "unproven": 2},
        audited_at=NOW - HOUR,
        refused_key=Evidence(EvidenceKind.REVOKED, NOW - HOUR, f"{PAGE} does not have the write key"),
        key_references=("env:OLD_WRITE_KEY", "env:NEW_WRITE_KEY"),
        **week(("users.messages.email.Click", 25 * HOUR, 168)),
    )
    jobs = [
        FailingJob("production", "poll", 3, NOW - 3 * MINUTE, "S3 answered 503 (SlowDown)"),
        FailingJob("production", "audit", 2, NOW - DAY, "S3 answered 503 (SlowDown)"),
        FailingJob("production", "probe", HANGS, NOW - HOUR, "nothing has moved since 2026-01-10 11:00 UTC"),
    ]
    return wrong(now) + job_alerts(jobs, NOW)


def page() -> Iterator[str]:
    """Yield all headings and texts of the page."""
    yield from examples()
    for alert in everything_else():
        yield f"## {alert.kind}{f' ({alert.subject})' if alert.subject else ''}"
        yield shown(AlertMessage(AlertPhase.OPENED, alert, NOW))


def test_the_page_shows_each_text_as_it_is() -> None:
    """Read it aloud after a change: would you be glad to get this at three in the morning?"""
    blocks = "\n\n".join(one if one.startswith("## ") else f"```\n{one}\n```" for one in page())
    assert DOCS.read_text(encoding="utf-8").partition("\n## ")[2] == blocks.removeprefix("## ") + "\n"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("hours", [0.5, 13, 25, 37, 44, 60])
def test_every_text_of_an_incident_says_cause_certainty_end_place_and_proof(kind: str, hours: float) -> None:
    """Thresholds repeat the cause: it may be the first text that somebody reads."""
    side, _, cause, evidence, _ = KINDS[kind]
    for message in messages(kind, hours):
        said = shown(message)
        assert evidence in said
        assert "ertain" in said
        assert "Braze's own connector would" in said
        assert "nothing is dropped" in said
        assert "`currents-bridge check` confirms it" in said
        assert side is Side.SOURCE or cause is EvidenceKind.DISABLED or "env:SEGMENT_WRITE_KEY" in said
        assert max(map(len, said.splitlines())) <= READABLE
        assert "1,204 objects" in said


def test_each_kind_of_alert_is_on_the_page() -> None:
    """But the test message, what only tells of an end, and what a health cannot have beside these."""
    shown_here = {alert.kind for alert in everything_else()}
    shown_here |= {one.alert.kind for kind in KINDS for hours in (1, 13, 60) for one in messages(kind, hours)}
    assert set(AlertKind) - shown_here == {AlertKind.TEST, AlertKind.CAUGHT_UP}


def test_each_text_says_something_to_do_in_lines_that_can_be_read() -> None:
    """And no number stands with the noun of another one."""
    for alert in everything_else():
        said = shown(AlertMessage(AlertPhase.OPENED, alert, NOW))
        assert alert.todo
        assert max(map(len, said.splitlines())) <= READABLE
        assert not re.search(r"None|[{}]|  |\.\.|\b1 \w+s\b|\b0 min\b", said), said


def test_a_key_in_a_file_needs_no_restart() -> None:
    """It is read again while it fails; a variable of the environment is not."""
    side, known = credential("The write key is gone", 1)
    window = loss_window_of(known, WINDOW)
    in_file = Incident(
        side, known, known.state, window, NOW, drops=False, unproven_events=0, key_references=("file:k",)
    )
    assert in_file.todo.startswith(
        "put a working write key of the Segment source into file:k (read again at each poll, no restart): copy "
    )


moments = st.none() | st.timedeltas(-DAY, 40 * DAY).map(lambda ago: NOW - ago)


@given(
    side=st.sampled_from(Side),
    state_and_cause=st.tuples(st.sampled_from([SUSPECT, FAILING]), st.none() | st.sampled_from(EvidenceKind)),
    words=st.none() | st.sampled_from(["it is so", "nothing works"]),
    times=st.tuples(moments, moments, moments, moments),
    numbers=st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)),
    drops=st.booleans(),
    window=st.timedeltas(timedelta(hours=1), 30 * DAY),
)
def test_whatever_is_known_the_text_is_whole_sentences(  # noqa: PLR0913 - one a thing that is known or not
    side: Side,
    state_and_cause: tuple[CredentialState, EvidenceKind | None],
    words: str | None,
    times: tuple[object, ...],
    numbers: tuple[int, int, int],
    *,
    drops: bool,
    window: timedelta,
) -> None:
    """No None, no number with a wrong noun, no "in 0 min" long after the end."""
    since, proven_at, accepted_at, first_used_at = times
    state, cause = state_and_cause
    known = Credential(
        state=state,
        since=since,  # type: ignore[arg-type]
        evidence=words,
        hint=words,
        cause=cause,
        proven_at=proven_at,  # type: ignore[arg-type]
        accepted_at=accepted_at,  # type: ignore[arg-type]
        first_used_at=first_used_at,  # type: ignore[arg-type]
        sent_in_vain=numbers[0],
    )
    found = loss_window_of(known, window)
    incident = Incident(side, known, state_at(known, NOW, window), found, NOW, drops=drops, unproven_events=numbers[1])
    said = f"{incident.story()} {incident.story(50)} {incident.todo}"
    assert not re.search(r"None|[{}]|  |\.\.|\b1 \w+s (was|were|are)|\b[02] \w+ is|-\d+ (d|h|min)", said), said
    assert "in less than" not in said or not (found and found.ends_at <= NOW)
