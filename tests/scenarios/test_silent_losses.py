"""Losses behind 200s that no single answer shows: each event arrives in the end, or a person is told which may not.

On simulated time with the whole program, as in test_credentials_fail.
"""

from datetime import timedelta

import pytest

from currents_bridge.demo.simulation import FIRST_KEY, NAME, Rehearsal
from currents_bridge.model import CredentialState
from currents_bridge.testing.loopback import Answer
from tests.scenarios.conftest import SECOND_KEY, Rehearse, replace_key, state, told

S = CredentialState


def restart_with_another_key(rehearsal: Rehearsal) -> None:
    """Mend the key as most do it."""
    replace_key(rehearsal)
    rehearsal.restart()


class TestAKeyReplacedBeforeTheNextProbe:
    """What it was told after its last proof belongs to it, whatever the next key is good for."""

    @pytest.mark.parametrize("mend", [replace_key, restart_with_another_key])
    @pytest.mark.parametrize("public_api", [True, False])
    def test_has_its_last_events_sent_again(self, rehearse: Rehearse, mend: object, public_api: bool) -> None:  # noqa: FBT001 - a case
        """One file was sent between its death and its replacement; no probe saw it dead."""
        r = rehearse(public_api=public_api)
        r.segment.world.settings_lag = timedelta(days=1)
        r.pass_time(30)
        r.segment.world.revoke_key(FIRST_KEY)
        r.poll()
        assert r.segment.dropped

        mend(r)  # type: ignore[operator] # pytest gives it
        r.connector.watch.ask_for_renewal()
        r.pass_time(33)

        assert not r.missing
        assert not told(r, "credential_failing")

    def test_has_a_whole_day_sent_again_where_only_the_settings_endpoint_can_tell(self, rehearse: Rehearse) -> None:
        """It is a day behind, so for a day nobody sees the key dead."""
        r = rehearse(public_api=False)
        r.segment.world.settings_lag = timedelta(days=1)
        r.pass_time(30)
        r.segment.world.revoke_key(FIRST_KEY)
        r.pass_time(53)
        assert len(r.missing) > 20

        restart_with_another_key(r)
        r.pass_time(56)

        assert not r.missing


class TestAListedKeyBehindWhichNothingArrives:
    """Acknowledgements are counted by whichever process comes after."""

    def test_is_found_by_processes_that_live_for_one_poll_each(self, rehearse: Rehearse) -> None:
        """As `once` by cron, which asks right after sending."""
        r = rehearse()
        r.pass_time(6)
        r.segment.world.source_elsewhere = True
        for hour in range(7, 13):
            r.pass_time(hour)
            r.restart()
        assert state(r) is S.FAILING

        r.segment.world.source_elsewhere = False
        r.pass_time(16)

        assert not r.missing
        assert state(r) is S.VERIFIED

    def test_is_not_suspected_because_counts_are_late(self, rehearse: Rehearse) -> None:
        """By as much as was seen."""
        r = rehearse()
        r.segment.world.counts_lag = timedelta(minutes=20)
        r.pass_time(24)
        assert not told(r)
        assert r.connector.ledger.totals(NAME).rewound.events == 0


class TestASuspicion:
    """Weak evidence has a time of its own."""

    def test_survives_an_open_refusal(self, rehearse: Rehearse) -> None:
        """Suspect, then 401, then replaced: what was told under suspicion is sent again, as was promised."""
        r = rehearse(public_api=False)
        r.pass_time(6)
        r.segment.world.revoke_key(FIRST_KEY)
        r.pass_time(9)
        assert state(r) is S.SUSPECT
        r.segment.answer_with(lambda _: Answer(401))
        r.pass_time(11)
        assert state(r) is S.FAILING

        r.segment.answer_with(lambda _: None)
        replace_key(r)
        r.pass_time(15)

        assert not r.missing

    def test_by_an_endpoint_that_is_wrong_half_the_time_costs_each_event_one_sending_more(
        self, rehearse: Rehearse
    ) -> None:
        """It needs several good answers to end, and sends nothing again that was just sent again."""
        r = rehearse(public_api=False)
        r.pass_time(2)
        for round_ in range(40):
            wrong = round_ % 8 < 4
            r.segment.world.answers = (
                {"/v1/projects": Answer(404, body="Invalid path or write key provided.")} if wrong else {}
            )
            r.pass_time(2 + (round_ + 1) / 2)
        owed = sum(map(len, r.owed.values()))
        assert not r.missing
        assert len(r.segment.messages) <= 3 * owed


class TestAPublicApiThatLosesSight:
    """The ledger remembers what its token has seen."""

    def test_of_all_keys_says_that_the_key_is_dead(self, rehearse: Rehearse) -> None:
        """An empty list after a full one is evidence."""
        r = rehearse(destination={"settings_endpoint_url": None})
        r.pass_time(6)
        r.segment.world.revoke_key(FIRST_KEY)
        r.segment.world.keys_hidden = True
        r.pass_time(9)
        assert state(r) is S.FAILING

        r.segment.world.keys_hidden = False
        replace_key(r)
        r.pass_time(12)

        assert not r.missing


class TestWhatSegmentDrops:
    """Some losses nobody but a person can mend."""

    def test_by_ids_that_it_remembers_of_dropped_messages_is_told(self, rehearse: Rehearse) -> None:
        """With the setting and the command that help."""
        r = rehearse()
        r.segment.world.remembers_ids = True
        r.pass_time(6)
        r.segment.world.revoke_key(FIRST_KEY)
        r.poll()
        r.pass_time(8)
        replace_key(r)
        r.pass_time(12)

        assert r.missing
        (alert,) = [one for one in r.told if one.kind == "events_missing"]
        assert "none of" in alert.text
        assert "rewind_message_ids: fresh" in alert.text
        assert "backfill" in alert.text

    def test_in_part_is_told_with_its_span(self, rehearse: Rehearse) -> None:
        """Half of what is acknowledged arrives."""
        r = rehearse()
        r.pass_time(3)
        halves = iter(range(1000))
        r.segment.answer_with(lambda _: Answer(drop=next(halves) % 2 == 0))
        r.pass_time(9)

        (alert,) = [one for one in r.told if one.kind == "events_missing" and one.phase == "opened"]
        assert "arrived" in alert.text
        assert "--resend" in alert.text


def test_a_rotation_with_both_keys_at_hand_sends_nothing_again(rehearse: Rehearse) -> None:
    """The old key is asked before it is given up."""
    r = rehearse()
    r.pass_time(6)
    r.segment.world.add_key(SECOND_KEY)
    r.set_key(FIRST_KEY, SECOND_KEY)
    r.restart()
    r.pass_time(12)
    assert not r.missing
    assert r.segment.duplicates == 0
