"""What is known of a credential, and what has to be sent again, after each piece of evidence."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.credentials import (
    SETTINGS_LAG,
    Sending,
    adopted,
    begun,
    loss_window_of,
    recovered,
    sending,
    state_at,
    take_in,
)
from currents_bridge.model import Credential, CredentialState, Evidence, EvidenceKind

START = datetime(2026, 3, 4, 12, tzinfo=UTC)
WINDOW = timedelta(hours=48)
FRESH = begun(Credential(key="first"), START)
K, S = EvidenceKind, CredentialState


def after(*seen: tuple[float, EvidenceKind], known: Credential = FRESH, odd_key: bool = False) -> Credential:
    """Return what is known after evidence at so many minutes from the start."""
    for minutes, kind in seen:
        known = take_in(known, evidence(kind, minutes), odd_key=odd_key).credential
    return known


def evidence(kind: EvidenceKind, minutes: float) -> Evidence:
    """Return evidence of the kind at so many minutes from the start."""
    return Evidence(kind, START + timedelta(minutes=minutes), f"saw {kind}", f"mend {kind}")


def minute(minutes: float) -> datetime:
    """Return the time so many minutes from the start."""
    return START + timedelta(minutes=minutes)


def test_two_hundreds_alone_verify_nothing() -> None:
    """A 2xx of Segment leaves the key unverified, however many there are."""
    assert after((1, K.ACCEPTED), (2, K.ACCEPTED)).state is S.UNVERIFIED


def test_the_public_api_verifies_a_key() -> None:
    """Its word is proof, at the moment it was asked."""
    known = after((1, K.ACCEPTED), (5, K.CONFIRMED))
    assert (known.state, known.proven_at, known.rewind_from) == (S.VERIFIED, minute(5), minute(5))


def test_old_proof_verifies_nothing() -> None:
    """A key that was confirmed more than an hour ago is unverified again."""
    known = after((0, K.CONFIRMED))
    assert state_at(known, minute(60), WINDOW) is S.VERIFIED
    assert state_at(known, minute(61), WINDOW) is S.UNVERIFIED


def test_one_denial_of_the_settings_endpoint_is_no_suspicion() -> None:
    """It has denied good keys before."""
    assert after((0, K.UNKNOWN)).state is S.UNVERIFIED


@pytest.mark.parametrize(("minutes", "state"), [(1, S.UNVERIFIED), (2, S.SUSPECT), (300, S.SUSPECT)])
def test_two_denials_minutes_apart_are_suspicion(minutes: float, state: CredentialState) -> None:
    """Two within two minutes may have one cause."""
    assert after((0, K.UNKNOWN), (minutes, K.UNKNOWN)).state is state


def test_one_denial_of_an_oddly_shaped_key_is_suspicion() -> None:
    """No such key is given out by Segment."""
    assert after((0, K.UNKNOWN), odd_key=True).state is S.SUSPECT


def test_a_good_answer_in_between_ends_the_doubt() -> None:
    """Denials count in a row only."""
    assert after((0, K.UNKNOWN), (5, K.KNOWN), (10, K.UNKNOWN)).state is S.UNVERIFIED


def test_suspicion_does_not_stop_sending() -> None:
    """A mistake of a weak probe must not hold up the events."""
    assert sending(after((0, K.UNKNOWN), (5, K.UNKNOWN))) is Sending.ALL


def test_the_settings_endpoint_cannot_shake_a_verified_key() -> None:
    """The Public API knows better, as long as its word is fresh."""
    assert after((0, K.CONFIRMED), (5, K.UNKNOWN), (10, K.UNKNOWN)).state is S.VERIFIED
    assert after((0, K.CONFIRMED), (65, K.UNKNOWN), (70, K.UNKNOWN)).state is S.SUSPECT


@pytest.mark.parametrize("kind", [K.REVOKED, K.DISABLED, K.NOT_RECEIVED])
def test_a_key_that_the_public_api_disowns_fails_and_all_since_the_last_proof_is_sent_again(kind: EvidenceKind) -> None:
    """What was acknowledged after the proof may have been dropped."""
    change = take_in(after((0, K.CONFIRMED), (3, K.ACCEPTED)), evidence(kind, 5))
    assert (change.credential.state, change.rewind_from) == (S.FAILING, minute(0))
    assert change.credential.hint == f"mend {kind}"


def test_nothing_is_sent_twice_again_while_the_key_keeps_failing() -> None:
    """Each failure sends back once."""
    failing = after((0, K.CONFIRMED), (5, K.REVOKED))
    assert take_in(failing, evidence(K.REVOKED, 10)).rewind_from is None
    assert take_in(failing, evidence(K.DISABLED, 10)).rewind_from is None


def test_a_refusal_by_the_tracking_api_fails_without_sending_anything_again() -> None:
    """A server that refuses openly means its 2xx."""
    change = take_in(after((1, K.ACCEPTED)), evidence(K.DENIED, 5))
    assert (change.credential.state, change.rewind_from) == (S.FAILING, None)
    assert sending(change.credential) is Sending.CANARY


def test_an_acknowledgement_ends_a_refusal_but_not_a_revocation() -> None:
    """Behind a 2xx the key may still be dead."""
    assert after((1, K.DENIED), (2, K.ACCEPTED)).state is S.UNVERIFIED
    assert after((1, K.REVOKED), (2, K.ACCEPTED)).state is S.FAILING


def test_the_word_of_the_public_api_does_not_end_a_refusal() -> None:
    """The key may be well and a token be refused all the same."""
    assert after((1, K.DENIED), (2, K.CONFIRMED)).state is S.FAILING


def test_a_listed_key_does_not_end_it_when_nothing_is_received() -> None:
    """Only events that arrive do."""
    lost = after((1, K.NOT_RECEIVED), (2, K.CONFIRMED))
    assert lost.state is S.FAILING
    assert after((3, K.RECEIVED), known=lost).state is S.VERIFIED


def test_a_known_key_does_not_end_a_revocation() -> None:
    """The settings endpoint may be a day behind."""
    assert after((1, K.REVOKED), (2, K.KNOWN)).state is S.FAILING


def test_recovery_sends_again_what_a_canary_was_told() -> None:
    """What was acknowledged between failure and recovery has no proof either."""
    failing = after((0, K.CONFIRMED), (5, K.NOT_RECEIVED))
    change = take_in(failing, evidence(K.RECEIVED, 90))
    assert (change.credential.state, change.rewind_from) == (S.VERIFIED, minute(5))
    assert recovered(failing, change.credential)


def test_a_suspect_that_is_known_again_has_a_day_more_sent_again() -> None:
    """The settings endpoint's last good word was a day old at worst."""
    suspect = after((0, K.KNOWN), (5, K.UNKNOWN), (10, K.UNKNOWN), known=replace(FRESH, rewind_from=minute(-3000)))
    change = take_in(suspect, evidence(K.KNOWN, 60))
    assert (change.credential.state, change.rewind_from) == (S.UNVERIFIED, minute(0) - SETTINGS_LAG)


def test_another_key_sends_again_what_the_dead_one_was_told() -> None:
    """And has to prove itself; the last proof of the old one still counts for the window."""
    failing = after((0, K.CONFIRMED), (5, K.REVOKED))
    change = adopted(failing, "second", minute(90))
    assert (change.credential.state, change.rewind_from, change.credential.proven_at) == (
        S.UNVERIFIED,
        minute(5),
        minute(0),
    )


def test_a_planned_rotation_sends_nothing_again() -> None:
    """The old key was well."""
    change = adopted(after((0, K.CONFIRMED)), "second", minute(5))
    assert (change.credential.state, change.rewind_from) == (S.UNVERIFIED, None)


def test_the_same_key_changes_nothing() -> None:
    """As on every start."""
    known = after((0, K.CONFIRMED))
    assert adopted(known, "first", minute(5)).credential == known


def test_the_window_counts_from_the_last_proof() -> None:
    """Not from the moment the failure was noticed."""
    window = loss_window_of(after((0, K.CONFIRMED), (30, K.REVOKED)), WINDOW)
    assert window
    assert (window.started_at, window.ends_at, window.fraction(minute(24 * 60))) == (minute(0), minute(48 * 60), 0.5)


def test_the_window_of_an_open_refusal_counts_from_the_last_acknowledgement() -> None:
    """Those acknowledgements were honest."""
    window = loss_window_of(after((10, K.ACCEPTED), (30, K.DENIED)), WINDOW)
    assert window
    assert window.started_at == minute(10)


def test_the_window_of_a_key_that_never_worked_counts_from_its_first_use() -> None:
    """There is no proof to count from."""
    window = loss_window_of(after((30, K.REVOKED)), WINDOW)
    assert window
    assert window.started_at == START


def test_no_window_runs_while_all_is_well() -> None:
    """Only suspicion and failure count down."""
    assert loss_window_of(after((0, K.CONFIRMED)), WINDOW) is None


def test_failing_beyond_the_window_is_expired() -> None:
    """At its very end."""
    known = after((0, K.CONFIRMED), (5, K.REVOKED))
    assert state_at(known, minute(48 * 60 - 1), WINDOW) is S.FAILING
    assert state_at(known, minute(48 * 60), WINDOW) is S.EXPIRED


def test_s3_proves_itself_with_every_answer() -> None:
    """And a denial of it is over with the next one."""
    assert after((0, K.WORKED)).state is S.VERIFIED
    denied = after((0, K.WORKED), (5, K.DENIED))
    assert denied.state is S.FAILING
    assert after((9, K.WORKED), known=denied).state is S.VERIFIED


@dataclass
class World:
    """A write key that lives and dies, and events that are acknowledged whether or not it lives."""

    alive: bool = True
    known: Credential = FRESH
    at: datetime = START
    arrived: set[int] = field(default_factory=set)
    acknowledged: dict[int, datetime] = field(default_factory=dict)  # as the ledger has it
    events: int = 0

    def send(self) -> None:
        """Send one new event and all that went back."""
        if sending(self.known) is Sending.NONE:
            return
        self.events += 1
        for event in set(range(self.events)) - self.acknowledged.keys():
            self.acknowledged[event] = self.at
            if self.alive:
                self.arrived.add(event)

    def probe(self) -> None:
        """Ask the Public API, which knows."""
        change = take_in(self.known, Evidence(K.CONFIRMED if self.alive else K.REVOKED, self.at, ""))
        self.known = change.credential
        if change.rewind_from:
            kept = {event: at for event, at in self.acknowledged.items() if at < change.rewind_from}
            self.acknowledged = kept


@given(st.lists(st.sampled_from(["send", "probe", "flip"]), max_size=60))
def test_nothing_is_lost_however_a_key_dies_and_comes_back(steps: list[str]) -> None:
    """Whatever was told to a dead key arrives, as long as a probe saw each death."""
    world = World()
    for step in [*steps, "probe"]:
        world.at += timedelta(minutes=1)
        if step == "flip":
            if not world.alive:
                world.probe()  # a death that no probe sees cannot be told from the outside
            world.alive = not world.alive
        else:
            getattr(world, step)()
    if not world.alive:
        world.probe()
    world.alive = True
    for _ in range(2):
        world.at += timedelta(minutes=1)
        world.probe()
        world.send()
    assert world.arrived == set(range(world.events))
