"""Credentials that fail, from the first failure to full recovery, on simulated time with the whole program.

In each: which alerts, when and how often; the state and the window; what is sent again; and that the living source has
received every event at the end.
"""

from collections import Counter
from datetime import timedelta

import pytest

from currents_bridge.credentials.state import loss_window_of
from currents_bridge.demo.simulation import FIRST_KEY, NAME, START
from currents_bridge.errors import Side
from currents_bridge.model import CredentialState, ObjectState
from currents_bridge.testing.faulty_s3 import S3Fault
from currents_bridge.testing.loopback import Answer
from tests.scenarios.conftest import SECOND_KEY, WINDOW, Rehearse, credential, replace_key, state, told

S = CredentialState


def test_a_key_dead_for_3_hours(rehearse: Rehearse) -> None:
    """It is noticed by the next probe, sent again from the last proof, and caught up by itself."""
    r = rehearse()
    r.pass_time(6)
    assert state(r) is S.VERIFIED
    assert not r.missing
    r.segment.world.revoke_key(FIRST_KEY)
    r.pass_time(9)
    assert state(r) is S.FAILING
    window = loss_window_of(credential(r), WINDOW)
    assert window
    assert window.started_at <= START + timedelta(hours=6)
    assert r.segment.dropped
    assert r.connector.ledger.totals(NAME).rewound.events == len(r.segment.dropped)
    assert r.connector.ledger.totals(NAME).waiting.objects == 3

    replace_key(r)
    r.pass_time(12)

    assert not r.missing
    assert state(r) is S.VERIFIED
    assert told(r) == [
        (6.0, "opened", "credential_failing", "destination"),
        (9.0, "resolved", "credential_failing", "destination"),
    ]
    assert "What had waited was sent: " in r.told[-1].text


def test_a_key_dead_for_47_hours(rehearse: Rehearse) -> None:
    """Each part of the window is told once, the failure again every 12 hours."""
    r = rehearse()
    r.pass_time(6)
    r.segment.world.revoke_key(FIRST_KEY)
    r.pass_time(53)
    assert state(r) is S.FAILING

    replace_key(r)
    r.pass_time(55)

    assert not r.missing
    assert [subject for _, _, _, subject in told(r, "loss_window")] == [
        "destination 25",
        "destination 50",
        "destination 75",
        "destination 90",
    ]
    assert Counter(phase for _, phase, _, _ in told(r, "credential_failing")) == {
        "opened": 1,
        "repeated": 3,
        "resolved": 1,
    }
    assert not told(r, "loss_window_ended")


def test_a_key_dead_for_60_hours_under_hold(rehearse: Rehearse) -> None:
    """Past the window it is expired, nothing is dropped, and everything arrives in the end."""
    r = rehearse()
    r.pass_time(6)
    r.segment.world.revoke_key(FIRST_KEY)
    r.pass_time(60)
    assert state(r) is S.EXPIRED

    replace_key(r)
    r.pass_time(63)

    assert not r.missing
    assert state(r) is S.VERIFIED
    (ended,) = told(r, "loss_window_ended")
    assert ended[1] == "opened"
    assert ended[0] == pytest.approx(6 + 48, abs=1)


def test_a_key_dead_for_60_hours_under_drop(rehearse: Rehearse) -> None:
    """What is older than the window is set aside and counted, and can still be sent from S3."""
    r = rehearse(connector={"after_loss_window": "drop"})
    r.pass_time(6)
    r.segment.world.revoke_key(FIRST_KEY)
    r.pass_time(60)
    replace_key(r)
    r.pass_time(63)
    ledger = r.connector.ledger
    aside = ledger.quarantined(NAME)
    lost = set().union(*(r.owed[item.object.hour] for item in aside))
    assert r.missing == lost != set()
    assert ledger.totals(NAME).objects[ObjectState.QUARANTINED] == len(aside)
    assert told(r, "quarantined")[0][1] == "opened"

    ledger.replay_quarantined([item.id for item in aside], r.now)
    r.pass_time(64)

    assert not r.missing
    assert told(r, "quarantined")[-1][1] == "resolved"


def test_a_key_dead_behind_200s_without_the_public_api(rehearse: Rehearse) -> None:
    """The settings endpoint makes it suspect; sending goes on, and is repeated with the new key."""
    r = rehearse(public_api=False)
    r.pass_time(6)
    assert state(r) is S.UNVERIFIED
    r.segment.world.revoke_key(FIRST_KEY)
    r.pass_time(10)
    assert state(r) is S.SUSPECT
    assert r.connector.ledger.totals(NAME).waiting.objects == 0

    replace_key(r)
    r.pass_time(12)

    assert not r.missing
    assert state(r) is S.UNVERIFIED
    assert [phase for _, phase, _, _ in told(r, "credential_suspect")] == ["opened", "resolved"]
    assert not told(r, "credential_failing")


def test_a_region_that_is_wrong_from_the_start(rehearse: Rehearse) -> None:
    """The key is listed, yet nothing arrives: found by counting, mended by the configuration."""
    r = rehearse()
    r.segment.world.source_elsewhere = True
    r.pass_time(3)
    assert state(r) is S.FAILING
    assert "received 0, " in (credential(r).evidence or "")
    assert r.connector.ledger.totals(NAME).waiting.objects == 3

    r.segment.world.source_elsewhere = False
    r.configure(endpoint_url=r.segment.url.replace("127.0.0.1", "localhost"))
    r.pass_time(5)

    assert not r.missing
    assert state(r) is S.VERIFIED
    assert [phase for _, phase, _, _ in told(r, "credential_failing")] == ["opened", "resolved"]


def test_message_ids_that_are_marked_when_they_are_sent_again(rehearse: Rehearse) -> None:
    """Segment cannot take them for repeats of those that came with the dead key."""
    r = rehearse(connector={"rewind_message_ids": "fresh"})
    r.pass_time(3)
    r.segment.world.revoke_key(FIRST_KEY)
    r.pass_time(6)
    replace_key(r)
    r.pass_time(8)

    again = {message["messageId"] for message in r.segment.dropped}
    assert {f"{id_}-r1" for id_ in again} <= r.arrived
    assert r.missing == again


def test_a_rotation_with_an_overlap(rehearse: Rehearse) -> None:
    """The newer key is used from the start; the end of the older one is not even noticed."""
    r = rehearse()
    r.pass_time(3)
    r.segment.world.add_key(SECOND_KEY)
    r.set_key(FIRST_KEY, SECOND_KEY)
    r.restart()
    r.pass_time(6)
    assert r.connector.watch.key.get_secret_value() == SECOND_KEY
    r.segment.world.revoke_key(FIRST_KEY)
    r.pass_time(9)

    assert not r.missing
    assert state(r) is S.VERIFIED
    assert not r.told
    assert not r.segment.dropped


def test_a_rotation_to_a_bad_key(rehearse: Rehearse) -> None:
    """It is asked about first and not used; the older key goes on."""
    r = rehearse()
    r.pass_time(3)
    r.set_key(FIRST_KEY, SECOND_KEY)
    r.restart()
    r.pass_time(6)
    assert r.connector.watch.key.get_secret_value() == FIRST_KEY
    assert not r.segment.dropped

    r.segment.world.add_key(SECOND_KEY)
    r.pass_time(8)

    assert r.connector.watch.key.get_secret_value() == SECOND_KEY
    assert not r.missing
    assert [(phase, kind) for _, phase, kind, _ in told(r)] == [
        ("opened", "rotation_refused"),
        ("resolved", "rotation_refused"),
    ]


def test_a_rotation_to_a_key_that_turns_out_bad_in_use(rehearse: Rehearse) -> None:
    """Where no probe can tell before, the older key takes over once it fails, and what was lost is sent again."""
    r = rehearse()
    r.pass_time(3)
    r.segment.world.answers = {"/sources": Answer(503), "/v1/projects": Answer(503)}
    r.set_key(FIRST_KEY, SECOND_KEY)
    r.restart()
    r.pass_time(5)
    assert r.connector.watch.key.get_secret_value() == SECOND_KEY
    assert r.segment.dropped

    r.segment.world.answers = {}
    r.pass_time(8)

    assert r.connector.watch.key.get_secret_value() == FIRST_KEY
    assert not r.missing
    assert state(r) is S.VERIFIED


def test_restarts_in_the_middle_of_an_incident(rehearse: Rehearse) -> None:
    """Nothing is told twice or forgotten, and the window goes on."""
    r = rehearse()
    r.pass_time(6)
    r.segment.world.revoke_key(FIRST_KEY)
    for hour in range(8, 30, 4):
        r.pass_time(hour)
        r.restart()
    before = credential(r)
    assert before.since == START + timedelta(hours=6)
    assert [phase for _, phase, _, _ in told(r, "credential_failing")] == ["opened", "repeated"]

    replace_key(r)
    r.restart()
    r.pass_time(31)

    assert not r.missing
    assert Counter(told(r)).most_common(1)[0][1] == 1


def test_a_public_api_token_that_dies(rehearse: Rehearse) -> None:
    """It is no evidence against the key: the settings endpoint is asked, and events are delivered all the while."""
    r = rehearse()
    r.pass_time(3)
    r.segment.world.api_token = "another"
    r.pass_time(8)
    assert state(r) is S.UNVERIFIED
    assert not r.missing

    r.segment.world.api_token = "public-api-token"
    r.pass_time(10)

    assert state(r) is S.VERIFIED
    assert [(phase, kind, subject) for _, phase, kind, subject in told(r)] == [
        ("opened", "probe_failing", "Public API"),
        ("resolved", "probe_failing", "Public API"),
    ]
    assert r.connector.ledger.totals(NAME).rewound.objects == 0


def test_an_s3_token_that_is_expired_for_a_day(rehearse: Rehearse) -> None:
    """The alert names the side; nothing is lost, since S3 holds it all."""
    r = rehearse()
    r.pass_time(6)
    r.s3_fault = S3Fault.EXPIRED_TOKEN
    r.pass_time(30)
    assert state(r, Side.SOURCE) is S.FAILING
    assert state(r) in {S.VERIFIED, S.UNVERIFIED}
    assert "session has expired" in (credential(r, Side.SOURCE).evidence or "")

    r.s3_fault = None
    r.pass_time(33)

    assert not r.missing
    assert state(r, Side.SOURCE) is S.VERIFIED
    failing = told(r, "credential_failing")
    assert {subject for _, _, _, subject in failing} == {"source"}
    assert [phase for _, phase, _, _ in failing] == ["opened", "repeated", "resolved"]


def test_both_sides_failing_at_once(rehearse: Rehearse) -> None:
    """Each has its own alert, its own end, and nothing is missing after both."""
    r = rehearse()
    r.pass_time(6)
    r.segment.world.revoke_key(FIRST_KEY)
    r.s3_fault = S3Fault.EXPIRED_TOKEN
    r.pass_time(12)
    assert (state(r), state(r, Side.SOURCE)) == (S.FAILING, S.FAILING)

    r.s3_fault = None
    r.pass_time(15)
    assert (state(r), state(r, Side.SOURCE)) == (S.FAILING, S.VERIFIED)
    replace_key(r)
    r.pass_time(18)

    assert not r.missing
    assert Counter((phase, subject) for _, phase, _, subject in told(r, "credential_failing")) == {
        ("opened", "destination"): 1,
        ("opened", "source"): 1,
        ("resolved", "source"): 1,
        ("resolved", "destination"): 1,
    }


def test_a_key_that_flaps(rehearse: Rehearse) -> None:
    """Whatever was dropped in any of its deaths arrives."""
    r = rehearse()
    hour = 2.0
    r.pass_time(hour)
    for dead_h, alive_h in ((1, 1), (0.5, 2), (3, 0.5), (0.5, 0.5), (2, 2)):
        r.segment.world.revoke_key(FIRST_KEY)
        r.pass_time(hour + dead_h)
        r.segment.world.add_key(FIRST_KEY)
        r.pass_time(hour + dead_h + alive_h)
        hour += dead_h + alive_h

    assert not r.missing
    assert state(r) is S.VERIFIED
    phases = Counter(phase for _, phase, _, _ in told(r, "credential_failing"))
    assert phases["opened"] == phases["resolved"] == 5


def test_a_source_that_refuses_openly(rehearse: Rehearse) -> None:
    """401s pause the connector; one small batch a poll finds out when they are over, and nothing is sent again."""
    r = rehearse()
    r.pass_time(4)
    r.segment.answer_with(lambda _: Answer(401))
    r.pass_time(9)
    assert state(r) is S.FAILING
    requests = r.segment.request_count

    r.pass_time(10)
    assert r.segment.request_count == requests + 2
    r.segment.answer_with(lambda _: None)
    r.pass_time(12)

    assert not r.missing
    assert r.connector.ledger.totals(NAME).rewound.objects == 0
    assert r.segment.duplicates == 0


def test_a_source_that_is_disabled(rehearse: Rehearse) -> None:
    """It has an alert of its own, and comes back when it is enabled."""
    r = rehearse()
    r.pass_time(4)
    r.segment.world.source_enabled = False
    r.pass_time(8)
    assert state(r) is S.FAILING
    r.segment.world.source_enabled = True
    r.pass_time(10)

    assert not r.missing
    assert [(phase, kind) for _, phase, kind, _ in told(r)] == [
        ("opened", "source_disabled"),
        ("resolved", "source_disabled"),
        ("resolved", "caught_up"),
    ]
