"""How long a dead key stays unnoticed at the defaults, in the worst case, and what looking for it costs."""

from datetime import timedelta

import pytest

from currents_bridge.demo.simulation import FIRST_KEY, Rehearsal
from currents_bridge.testing.loopback import Answer
from tests.scenarios.conftest import Rehearse

DEFAULTS: dict[str, str] = {}
STEP = timedelta(seconds=10)
MINUTE_H = 1 / 60


def noticed_min(r: Rehearsal, kind: str, within_min: float) -> float:
    """Return the minutes from now until people are told."""
    since = r.elapsed
    r.pass_time(since / timedelta(hours=1) + within_min * MINUTE_H)
    return min((told.at - since) / timedelta(minutes=1) for told in r.told if told.kind == kind)


def just_asked(r: Rehearsal) -> None:
    """Let time pass to right after the probe asked: what happens now is seen last."""
    r.step = STEP
    asked = len(r.segment.world.asked)
    while len(r.segment.world.asked) == asked:
        r.pass_time((r.elapsed + STEP) / timedelta(hours=1))


@pytest.mark.parametrize(("public_api", "kind", "minutes"), [(True, "failing", 5.5), (False, "suspect", 10.5)])
def test_a_dead_key_is_told_of_within(rehearse: Rehearse, *, public_api: bool, kind: str, minutes: float) -> None:
    """By the Public API at its next look, by a settings endpoint that is current at the second."""
    r = rehearse(public_api=public_api, schedule=DEFAULTS)
    r.pass_time(1.1)
    just_asked(r)
    r.segment.world.revoke_key(FIRST_KEY)

    assert noticed_min(r, f"credential_{kind}", 12) <= minutes


def test_where_the_settings_endpoint_is_a_day_behind_a_dead_key_is_told_of_after_that_day(rehearse: Rehearse) -> None:
    """And what was sent meanwhile is sent again."""
    r = rehearse(public_api=False, schedule=DEFAULTS)
    r.segment.world.settings_lag = timedelta(days=1)
    r.pass_time(1.1)
    just_asked(r)
    r.segment.world.revoke_key(FIRST_KEY)
    r.step = timedelta(minutes=30)
    r.pass_time(r.elapsed / timedelta(hours=1) + 23.5)
    assert not [told for told in r.told if told.kind == "credential_suspect"]
    r.step = STEP

    assert noticed_min(r, "credential_suspect", 42) <= 30 + 10.5


def test_a_refusal_is_told_of_within_two_polls(rehearse: Rehearse) -> None:
    """Of the file that is refused."""
    r = rehearse(schedule=DEFAULTS)
    r.pass_time(0.99)
    r.segment.answer_with(lambda _: Answer(401))
    r.step = STEP
    r.pass_time(1)

    assert noticed_min(r, "credential_failing", 3) <= 2


def test_looking_costs_no_more_than_900_requests_a_day(rehearse: Rehearse) -> None:
    """Also where a process is started each minute; an hour of it stands for the day."""
    r = rehearse(schedule=DEFAULTS)
    r.step = timedelta(minutes=1)
    for _ in range(60):
        r.once()

    assert len(r.segment.world.asked) <= 900 / 24
