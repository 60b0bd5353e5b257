from collections import defaultdict
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.alerts.engine import AlertKind, as_json, decide, text, title
from currents_bridge.model import Alert, AlertMessage, AlertPhase
from currents_bridge.phrases import how_long
from tests.alert_workbench import HOUR, MINUTE, NOW, REPEAT, make_alert
from tests.ledgers import LedgerOnFile

NAMES = [
    ("backlog", ""),
    ("quarantined", ""),
    ("credential_failing", "destination"),
    ("schema_drift", "a.B"),
    ("caught_up", "source"),
]
SILENT = {"caught_up"}
LOOKS = st.lists(st.tuples(st.integers(1, 10 * 60), st.sets(st.sampled_from(NAMES))), max_size=30)


def told(looks: list[tuple[int, set[tuple[str, str]]]], *, restart: bool = False) -> list[AlertMessage]:
    """Return what is told while the conditions of each look stand, so many minutes after the look before."""
    now, book = NOW, LedgerOnFile().alert_book()
    open_alerts: list[Alert] = []
    messages: list[AlertMessage] = []
    for minutes, names in looks:
        now += minutes * MINUTE
        conditions = [make_alert(*name, since=now, told_at=None if name[0] in SILENT else now) for name in names]
        decision = decide(conditions, book.open_alerts() if restart else open_alerts, now, REPEAT)
        book.revise(lambda _, made=decision: made, [])  # type: ignore[misc] # as it stands in the loop
        ended = {(alert.kind, alert.subject) for alert in decision.resolved}
        kept = {(alert.kind, alert.subject): alert for alert in [*open_alerts, *decision.opened]}
        open_alerts = [alert for name, alert in kept.items() if name not in ended]
        messages += decision.messages
    return messages


@given(LOOKS)
def test_an_alert_opens_once_and_is_resolved_once(looks: list[tuple[int, set[tuple[str, str]]]]) -> None:
    """Between two openings there is one end, and between two ends one opening; a silent one only ends."""
    phases = defaultdict(list)
    for message in told(looks):
        phases[message.alert.kind].append(message.phase)
    for kind, seen in phases.items():
        turns = [phase for phase in seen if phase is not AlertPhase.REPEATED]
        if kind in SILENT:
            assert set(seen) == {AlertPhase.RESOLVED}
        else:
            assert turns == [AlertPhase.OPENED, AlertPhase.RESOLVED] * (len(turns) // 2) + turns[:1] * (len(turns) % 2)


@given(LOOKS)
def test_what_is_told_matches_what_stood(looks: list[tuple[int, set[tuple[str, str]]]]) -> None:
    """At each look a new condition is opened and a vanished one is resolved, at that time."""
    now, expected = NOW, set()
    before: set[tuple[str, str]] = set()
    for minutes, names in looks:
        now += minutes * MINUTE
        expected |= {(AlertPhase.OPENED, kind, now) for kind, _ in names - before if kind not in SILENT}
        expected |= {(AlertPhase.RESOLVED, kind, now) for kind, _ in before - names}
        before = names
    messages = [message for message in told(looks) if message.phase is not AlertPhase.REPEATED]
    assert {(message.phase, message.alert.kind, message.at) for message in messages} == expected


@given(LOOKS)
def test_an_alert_is_repeated_at_the_first_look_after_the_time_to_repeat(
    looks: list[tuple[int, set[tuple[str, str]]]],
) -> None:
    """News and silent ones never are."""
    now, last, expected = NOW, {}, set()
    standing: set[tuple[str, str]] = set()
    for minutes, names in looks:
        now += minutes * MINUTE
        for name in names:
            if name not in standing:
                last[name] = now
            elif now - last[name] >= REPEAT and name[0] not in SILENT | {"schema_drift"}:
                last[name] = now
                expected.add((name[0], now))
        standing = names
    repeated = [message for message in told(looks) if message.phase is AlertPhase.REPEATED]
    assert {(message.alert.kind, message.at) for message in repeated} == expected


@given(LOOKS)
def test_a_restart_changes_nothing(looks: list[tuple[int, set[tuple[str, str]]]]) -> None:
    """What is read back from the book at each look leads to the same messages as what is kept."""
    ours, theirs = (
        sorted(map(as_json, told(looks, restart=restart)), key=lambda one: (one["at"], one["kind"]))
        for restart in (False, True)
    )
    assert ours == theirs


def test_an_open_alert_keeps_its_beginning_and_takes_new_words() -> None:
    """So that the list shows how much waits now."""
    before = make_alert()
    now = replace(before, since=NOW + HOUR, what="It is worse", told_at=NOW + HOUR)

    decision = decide([now], [before], NOW + HOUR, REPEAT)

    assert decision.opened == [replace(before, what="It is worse")]
    assert decision.messages == []
    assert decide([before], [before], NOW + HOUR, REPEAT).opened == []


def test_a_silent_alert_keeps_the_words_of_its_beginning() -> None:
    """They say how much waited then."""
    before = make_alert("caught_up", "source", told_at=None)
    assert decide([replace(before, waits="less")], [before], NOW + HOUR, REPEAT).opened == []


def test_an_end_can_be_left_untold() -> None:
    """The alert is dropped all the same."""
    decision = decide([], [make_alert()], NOW, REPEAT, lambda _: None)
    assert (len(decision.resolved), decision.messages) == (1, [])


@pytest.mark.parametrize(
    ("phase", "line"),
    [
        (AlertPhase.OPENED, "WARNING production: credential failing (source)"),
        (AlertPhase.REPEATED, "STILL WARNING production: credential failing (source)"),
        (AlertPhase.RESOLVED, "RESOLVED production: credential failing (source)"),
    ],
)
def test_the_title_says_how_bad_where_and_what(phase: AlertPhase, line: str) -> None:
    """In words that a person reads on a phone."""
    assert title(AlertMessage(phase, make_alert("credential_failing", "source"), NOW)) == line


def test_the_text_says_what_since_when_how_much_waits_and_what_to_do() -> None:
    """A line each."""
    assert text(AlertMessage(AlertPhase.OPENED, make_alert(), NOW + 3 * HOUR)).splitlines() == [
        "It is wrong.",
        "Since 2026-01-10 12:00 UTC, 3 h ago.",
        "Waiting: 1 object, 1 byte.",
        "To do: mend it.",
    ]


def test_the_text_of_an_end_says_how_long_it_was() -> None:
    """And nothing of what there is not."""
    message = AlertMessage(AlertPhase.RESOLVED, make_alert(waits="", todo=""), NOW + 50 * HOUR)
    assert text(message).splitlines() == [
        "It is wrong.",
        "From 2026-01-10 12:00 UTC to 2026-01-12 14:00 UTC: 2 d 2 h.",
    ]


def test_a_message_for_programs_has_each_part_by_name() -> None:
    """And the whole for people."""
    document = as_json(AlertMessage(AlertPhase.OPENED, make_alert(), NOW))
    assert document.pop("text").splitlines()[:2] == ["WARNING production: backlog", "It is wrong."]
    assert document == {
        "phase": "opened",
        "connector": "production",
        "kind": "backlog",
        "subject": "",
        "severity": "warning",
        "since": "2026-01-10T12:00:00+00:00",
        "what": "It is wrong",
        "waits": "1 object, 1 byte",
        "todo": "mend it",
        "at": "2026-01-10T12:00:00+00:00",
    }


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (timedelta(seconds=-5), "less than 1 min"),
        (timedelta(seconds=59), "less than 1 min"),
        (timedelta(minutes=61), "1 h 1 min"),
        (timedelta(hours=47), "1 d 23 h"),
        (timedelta(days=2, minutes=5), "2 d"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(span: timedelta, words: str) -> None:
    """Nobody needs the minutes of days."""
    assert how_long(span) == words


def test_only_news_and_thresholds_are_not_repeated() -> None:
    """News stand for ever; the alert of the incident is repeated beside its thresholds."""
    assert [kind.value for kind in AlertKind if kind.is_told_once] == [
        "loss_window",
        "loss_window_ended",
        "unknown_event_type",
        "schema_drift",
        "new_integration",
        "key_unproven",
    ]
