from dataclasses import replace
from datetime import datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.alerts.engine import Severity
from currents_bridge.alerts.rules import Health, last_words
from currents_bridge.model import (
    Alert,
    Credential,
    CredentialState,
    Evidence,
    EvidenceKind,
    Notice,
    NoticeKind,
    Progress,
    Waiting,
)
from tests.alert_workbench import DAY, HOUR, MINUTE, NOW, failing, found, health, make_alert, week, wrong

WAITING = Waiting(objects=1204, size_bytes=34_100_000, events=5000, oldest_at=NOW - 5 * MINUTE)


def ending(alert: Alert, now: Health) -> Alert | None:
    """Return what is told of the end of an alert."""
    return last_words(alert, now, wrong(now))


def test_a_connector_that_is_well_has_no_alert() -> None:
    """Nor one that was never polled."""
    well = health(waiting=WAITING, **week(("a.B", HOUR, 168)))
    assert found(well) == []
    assert found(replace(well, totals=replace(well.totals, progress=Progress()))) == []


def test_a_failing_key_is_told_with_what_was_seen_what_waits_and_what_to_do() -> None:
    """And until when the bucket keeps it."""
    (alert,) = wrong(health(destination=failing(NOW - HOUR), waiting=WAITING, deadline=NOW + 30 * DAY))

    assert (alert.kind, alert.subject, alert.severity) == ("credential_failing", "destination", "critical")
    assert alert.what.startswith("Segment answers 200 and drops what is sent: the source does not list the key.")
    assert alert.since == NOW - HOUR
    assert alert.waits == (
        "1,204 objects, 34.1 MB, at least 5,000 events; "
        "the bucket deletes the first of it at 2026-02-09 12:00 UTC, in 30 d"
    )
    assert alert.todo == "put the source's key into the secret; `currents-bridge check` confirms it"


def test_both_sides_can_fail_at_once() -> None:
    """Each has its alert."""
    both = health(source=failing(NOW - HOUR), destination=failing(NOW - HOUR))
    assert found(both) == [("credential_failing", "source"), ("credential_failing", "destination")]


def test_a_disabled_source_is_told_as_such() -> None:
    """It is mended in Segment, not by a key."""
    assert found(health(destination=failing(NOW, EvidenceKind.DISABLED))) == [("source_disabled", "destination")]


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (1, [("credential_suspect", "warning")]),
        (13, [("credential_suspect", "warning"), ("loss_window", "warning")]),
        (40, [("credential_suspect", "critical"), ("loss_window", "critical")]),
        (60, [("credential_suspect", "critical"), ("loss_window_ended", "critical")]),
    ],
)
def test_a_suspect_key_has_the_thresholds_of_the_loss_window(hours: float, expected: list[tuple[str, str]]) -> None:
    """Most users have no probe that could say more, so it is critical from half of the window on."""
    suspect = replace(failing(NOW - hours * HOUR), state=CredentialState.SUSPECT)
    assert [(alert.kind, alert.severity) for alert in wrong(health(destination=suspect))] == expected


def test_a_suspect_key_says_what_is_done_about_it() -> None:
    """Sending goes on meanwhile."""
    suspect = replace(failing(NOW - 10 * HOUR), state=CredentialState.SUSPECT, rewind_from=NOW - 41 * HOUR)
    (alert,) = wrong(health(destination=suspect))

    assert "Sending goes on." in alert.what


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        (11.9, []),
        (12, [("loss_window", "destination 25", "warning")]),
        (24, [("loss_window", "destination 50", "critical")]),
        (36, [("loss_window", "destination 75", "critical")]),
        (43.2, [("loss_window", "destination 90", "critical")]),
        (47.9, [("loss_window", "destination 90", "critical")]),
        (48, [("loss_window_ended", "destination", "critical")]),
        (60, [("loss_window_ended", "destination", "critical")]),
    ],
)
def test_only_the_highest_threshold_of_a_loss_window_stands(hours: float, expected: list[tuple[str, str, str]]) -> None:
    """It began when that share of the window was over."""
    alerts = [one for one in wrong(health(destination=failing(NOW - hours * HOUR))) if one.kind != "credential_failing"]

    assert [(one.kind, one.subject, one.severity) for one in alerts] == expected
    share = {"destination 25": 12, "destination 50": 24, "destination 75": 36, "destination 90": 43.2}
    assert [one.since for one in alerts] == [NOW - (hours - share.get(name, 48)) * HOUR for _, name, _ in expected]


def test_the_end_of_the_loss_window_says_whether_anything_is_set_aside() -> None:
    """Held, or dropped as Braze's connector would."""
    dead = failing(NOW - 50 * HOUR)
    incident, ended = wrong(health(destination=dead))
    assert "2 h ago; here nothing is dropped" in incident.what
    assert "2 h ago; here nothing is dropped" in ended.what
    incident, ended = wrong(health(destination=dead, drops=True))
    aside = "here files older than 2 d are set aside, and `currents-bridge quarantine replay` brings them back"
    assert aside in incident.what
    assert aside in ended.what


@pytest.mark.parametrize("kind", ["credential_failing", "source_disabled", "credential_suspect"])
def test_the_recovery_tells_what_waits_and_what_is_sent_again(kind: str) -> None:
    """How long it lasted is in the text of every end; a suspicion may have been wrong."""
    proven = Credential(CredentialState.VERIFIED, sent_in_vain=8, proven_at=NOW)
    over = ending(make_alert(kind, "destination"), health(destination=proven, waiting=WAITING))

    had = "may have" if kind == "credential_suspect" else "had"
    assert over is not None
    assert over.what.splitlines() == [
        "Segment takes what is sent again.",
        f"8 events that {had} been sent in vain are sent again.",
        "Nothing is in quarantine.",
    ]
    assert over.waits == "1,204 objects, 34.1 MB, at least 5,000 events"
    assert over.todo == "nothing: what waits is sent now"


def test_the_recovery_of_the_source_says_nothing_of_acknowledgements() -> None:
    """They are the destination's; and where nothing waits, that is all."""
    over = ending(make_alert("credential_failing", "source"), health(waiting=replace(WAITING, objects=0)))
    assert over is not None
    assert (over.what, over.waits, over.todo) == (
        "The bucket can be read again.\nNothing is in quarantine.",
        "",
        "nothing",
    )


def test_a_recovery_without_proof_does_not_say_that_events_arrive() -> None:
    """As when another key is used: its 200s say as little as those of the one before."""
    unproven = Credential(evidence="another write key is used now; no proof of it yet")
    over = ending(make_alert("credential_failing", "destination"), health(destination=unproven))
    assert over is not None
    assert over.what.startswith("Sending goes on, without proof yet that it arrives: another write key is used now;")


def test_no_recovery_says_that_nothing_was_lost() -> None:
    """The bucket may have deleted files that were never seen."""
    for side in ("source", "destination"):
        over = ending(make_alert("credential_failing", side), health())
        assert over is not None
        assert "lost" not in over.what


def test_a_source_past_its_loss_window_sets_nothing_aside() -> None:
    """Only what waits for the destination is set aside with `after_loss_window: drop`."""
    for alert in wrong(health(source=failing(NOW - 60 * HOUR), drops=True)):
        assert "nothing is dropped" in alert.what
        assert "set aside" not in alert.what


def test_a_deadline_that_has_passed_is_not_told_as_one_to_come() -> None:
    """In whatever alert it stands."""
    for alert in wrong(health(destination=failing(NOW - 60 * HOUR), waiting=WAITING, deadline=NOW - HOUR)):
        assert "deletes" not in alert.waits + alert.what
        assert "was to delete" in alert.waits + alert.what


@pytest.mark.parametrize("number", [1, 2])
def test_what_an_audit_found_has_its_number(number: int) -> None:
    """One object, two objects."""
    said = [alert.what for alert in wrong(health(findings={"gone": number, "unproven": number}, audited_at=NOW))]
    s = "" if number == 1 else "s"
    assert f"found {number} object{s} waiting" in said[0]
    assert f"found {number} hour{s} with" in said[1]


def test_a_loss_window_ends_without_a_word() -> None:
    """The recovery, or the next threshold, says it all."""
    for kind, subject in (("loss_window", "destination 50"), ("loss_window_ended", "destination")):
        assert ending(make_alert(kind, subject), health()) is None


def test_an_incident_that_turns_into_another_is_not_resolved() -> None:
    """As a suspicion that is confirmed; the other side has no part in it."""
    dead = health(destination=failing(NOW))

    assert ending(make_alert("credential_suspect", "destination"), dead) is None
    assert ending(make_alert("source_disabled", "destination"), dead) is None
    assert ending(make_alert("credential_failing", "source"), dead) is not None


def recovered(**more: Any) -> Health:
    """Return a connector whose key is well since 10 minutes."""
    well = Credential(state=CredentialState.VERIFIED, recovered_at=NOW - 10 * MINUTE, sent_before=1000)
    return health(destination=well, **more)


def test_catching_up_is_silent_until_all_that_waited_is_sent() -> None:
    """Files that came after the recovery may wait."""
    backlog = Waiting(objects=7, size_bytes=7000, oldest_at=NOW - 11 * MINUTE)
    (alert,) = wrong(recovered(waiting=backlog))

    assert (alert.kind, alert.told_at) == ("caught_up", None)
    assert found(recovered(waiting=WAITING)) == []
    assert found(recovered(polled_at=NOW - 11 * MINUTE)) == [("caught_up", "destination")]
    over = ending(alert, recovered(sent=13_345))
    assert over is not None
    assert over.what == (
        "Caught up with what had waited for the destination (Segment) (7 objects, 7.0 kB); 12,345 events sent since"
    )


def test_a_credential_that_fails_again_has_not_caught_up() -> None:
    """The end of the new incident will begin anew."""
    assert ending(make_alert("caught_up", "destination"), health(destination=failing(NOW))) is None


@pytest.mark.parametrize(
    ("life", "left", "expected"),
    [
        (30 * DAY, 7.1 * DAY, None),
        (30 * DAY, 7 * DAY, ("near", "warning")),
        (365 * DAY, 7.1 * DAY, None),
        (30 * DAY, DAY, ("imminent", "critical")),
        (4 * DAY, 1.1 * DAY, None),
        (4 * DAY, DAY, ("near", "warning")),
        (4 * DAY, 0.4 * DAY, ("imminent", "critical")),
        (4 * DAY, -HOUR, ("imminent", "critical")),
    ],
)
def test_the_deadline_of_the_bucket_is_told_in_time(
    life: timedelta, left: timedelta, expected: tuple[str, str] | None
) -> None:
    """In the last quarter of an object's life, a week at most, and again in its last tenth, a day at most."""
    waiting = replace(WAITING, oldest_at=NOW + left - life)
    alerts = [one for one in wrong(health(waiting=waiting, deadline=NOW + left)) if one.kind == "bucket_deadline"]
    assert [(one.subject, one.severity) for one in alerts] == ([expected] if expected else [])
    assert all(one.since <= NOW for one in alerts)


def test_a_nearer_deadline_takes_the_place_of_a_near_one() -> None:
    """Its end is told once nothing is in danger."""
    in_danger = health(waiting=replace(WAITING, oldest_at=NOW - 30 * DAY), deadline=NOW + HOUR)
    near = make_alert("bucket_deadline", "near")
    assert ending(near, in_danger) is None
    assert ending(near, health()) is not None


@pytest.mark.parametrize(
    ("waits_since", "started_at", "expected"),
    [
        (NOW - 7 * HOUR, NOW - 30 * DAY, [("backlog", "")]),
        (NOW - 6 * HOUR, NOW - 30 * DAY, []),
        (NOW - 300 * DAY, NOW - HOUR, []),
        (NOW - 300 * DAY, NOW - 7 * HOUR, [("backlog", "")]),
    ],
)
def test_a_backlog_is_what_could_have_been_delivered_long_ago(
    waits_since: datetime, started_at: datetime, expected: list[tuple[str, str]]
) -> None:
    """History counts from the first poll on."""
    waiting = replace(WAITING, oldest_at=waits_since)
    assert found(health(waiting=waiting, started_at=started_at)) == expected


def test_an_incident_is_no_backlog() -> None:
    """While it lasts the backlog has no alert of its own, and afterwards it counts from the recovery."""
    waiting = replace(WAITING, oldest_at=NOW - 9 * HOUR)
    dead = health(destination=failing(NOW - 8 * HOUR), waiting=waiting)

    assert ("backlog", "") not in found(dead)
    assert ending(make_alert("backlog"), dead) is None
    assert ("backlog", "") not in found(recovered(waiting=waiting))
    assert ending(make_alert("backlog"), health()) is not None


def test_what_was_set_aside_is_told() -> None:
    """Any quarantined object, and dead letters over the rate."""
    assert found(health(quarantined=1, dead_letters=100)) == [("quarantined", "")]
    quarantined, dead_letters = wrong(health(quarantined=2, dead_letters=101))
    assert quarantined.what == "2 objects are set aside in quarantine"
    assert dead_letters.what == "101 events became dead letters within an hour"


def test_a_refused_new_key_is_told() -> None:
    """With why and where it is; the old one is used on."""
    refused = Evidence(EvidenceKind.UNKNOWN, NOW - HOUR, "the settings endpoint does not know it")
    (alert,) = wrong(health(refused_key=refused, key_references=("env:OLD_KEY", "env:NEW_KEY")))
    assert (alert.kind, alert.since) == ("rotation_refused", NOW - HOUR)
    assert "The newest write key is refused: the settings endpoint does not know it." in alert.what
    assert "into env:NEW_KEY" in alert.todo


@pytest.mark.parametrize(
    ("ago", "active_hours", "is_silent"),
    [
        (24 * HOUR, 168, True),  # around the clock
        (23 * HOUR, 168, False),
        (48 * HOUR, 120, False),  # a weekend
        (72 * HOUR, 120, True),
        (108 * HOUR, 60, False),  # a newsletter on Thursdays, with the clicks of two days
        (1000 * HOUR, 60, False),
        (10 * DAY, 168, True),  # until files come again
    ],
)
def test_a_connector_is_silent_when_it_breaks_the_rhythm_of_its_week(
    ago: timedelta,
    active_hours: int,
    is_silent: bool,  # noqa: FBT001 - an expectation
) -> None:
    """One that rests at times needs longer, one that rests mostly is never silent."""
    expected = [("silence", "")] if is_silent else []
    assert found(health(**week(("a.B", ago, active_hours)))) == expected


@given(st.lists(st.booleans(), min_size=168, max_size=168), st.integers(0, 400))
def test_no_silence_is_shorter_than_a_gap_of_the_week_before(hours: list[bool], ago: int) -> None:
    """Whatever the rhythm: what has happened within the week is no alarm."""
    hours[-1] = True
    active = [hour for hour, with_files in enumerate(hours) if with_files]
    longest = max((b - a - 1 for a, b in pairwise(active)), default=0)
    if found(health(**week(("a.B", ago * HOUR, len(active))))):
        assert ago >= longest + 24


def test_a_type_is_silent_only_while_others_write() -> None:
    """Else it is the connector."""
    assert found(health(**week(("a.B", HOUR, 168), ("c.D", 30 * HOUR, 139)))) == [("silence", "c.D")]
    assert found(health(**week(("a.B", 30 * HOUR, 168), ("c.D", 31 * HOUR, 167)))) == [("silence", "")]
    assert found(health(**week(("a.B", HOUR, 168), ("c.D", 30 * HOUR, 3)))) == []
    assert found(health(**week(("a.B", HOUR, 168), ("c.D", 158 * HOUR, 11)))) == []


def test_while_nothing_can_be_listed_silence_says_nothing() -> None:
    """The last complete poll is what counts."""
    assert found(health(polled_at=NOW - 20 * HOUR, **week(("a.B", 30 * HOUR, 168)))) == []


def test_silence_ends_with_files_and_not_with_time() -> None:
    """A type that is no longer expected after a week is dropped without a word."""
    silence = make_alert("silence", "c.D", since=NOW - 30 * HOUR)

    assert ending(silence, health(**week(("a.B", HOUR, 168), ("c.D", 30 * HOUR, 3)))) is None
    over = ending(silence, health(**week(("a.B", HOUR, 168), ("c.D", 0 * HOUR, 3))))
    assert over is not None
    assert over.what == "Files of c.D come again"


@pytest.mark.parametrize(
    ("notice", "expected"),
    [
        (Notice(NoticeKind.UNKNOWN_EVENT_TYPE, "a.B", since=NOW), [("unknown_event_type", "a.B")]),
        (Notice(NoticeKind.SCHEMA_DRIFT, "a.B", "new field x", since=NOW), [("schema_drift", "a.B")]),
        (Notice(NoticeKind.INTEGRATION, "x/", since=NOW - 30 * DAY + 2 * HOUR), [("new_integration", "x/")]),
        (Notice(NoticeKind.INTEGRATION, "x/", since=NOW - 30 * DAY + MINUTE), []),
        (Notice(NoticeKind.PROBE, "Public API", "401", since=NOW - HOUR), [("probe_failing", "Public API")]),
        (Notice(NoticeKind.PROBE, "Public API", "401", since=NOW - MINUTE), []),
        (Notice(NoticeKind.FOLDER_DENIED, "x/", "AccessDenied", since=NOW), [("folder_denied", "x/")]),
        (Notice(NoticeKind.UNREAD_KEYS, "no_hour", since=NOW), [("unread_keys", "no_hour")]),
        (Notice(NoticeKind.UNREAD_KEYS, "not_currents", since=NOW), []),
        (Notice(NoticeKind.MISPLACED, "prefix_too_high", since=NOW), [("unread_keys", "prefix_too_high")]),
        (Notice(NoticeKind.OBJECT_CHANGED, "a.B", since=NOW), [("object_changed", "a.B")]),
    ],
)
def test_notices_that_someone_should_act_on_are_told(notice: Notice, expected: list[tuple[str, str]]) -> None:
    """Integrations only when they are new, probes only when they stay blind for an hour."""
    assert found(health(notices=[notice])) == expected
    assert all(ending(one, health()) is not None for one in wrong(health(notices=[notice])))


def test_what_an_audit_found_is_told_until_another_does_not_find_it() -> None:
    """What is lost, and what is not explained; other findings have alerts of their own."""
    of = health(findings={"gone": 40, "unproven": 2, "changed": 3}, audited_at=NOW - HOUR)

    gone, unproven = wrong(of)

    assert [(one.kind, one.subject, one.since) for one in (gone, unproven)] == [
        ("audit_finding", "gone", NOW - HOUR),
        ("audit_finding", "unproven", NOW - HOUR),
    ]
    assert "40 objects" in gone.what
    assert "reconcile" in gone.todo
    over = ending(gone, health(findings={}, audited_at=NOW))
    assert over is not None
    assert "nothing gone any more" in over.what


def test_the_worst_comes_first() -> None:
    """Whoever reads the list from the top begins at the right end."""
    news = Notice(NoticeKind.SCHEMA_DRIFT, "a.B", since=NOW)
    alerts = wrong(health(source=failing(NOW), quarantined=1, notices=[news]))
    assert [Severity(one.severity) for one in alerts] == [Severity.CRITICAL, Severity.WARNING, Severity.INFO]
