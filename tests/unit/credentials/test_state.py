"""What is known of a credential, and what has to be sent again, after each piece of evidence."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.credentials.state import (
    SETTINGS_LAG,
    Change,
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
        if kind is K.NOT_RECEIVED and known.uncounted_at is None:  # it takes two counts
            known = take_in(known, evidence(kind, minutes - 30)).credential
        known = take_in(known, evidence(kind, minutes), odd_key=odd_key).credential
    return known


def evidence(kind: EvidenceKind, minutes: float) -> Evidence:
    """Return evidence of the kind at so many minutes from the start."""
    return Evidence(kind, minute(minutes), f"saw {kind}", f"mend {kind}", counted_until=minute(minutes - 2))


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


def test_a_proof_by_one_probe_does_not_silence_the_denials_of_another() -> None:
    """The Public API may have spoken last just before the key died."""
    assert after((0, K.CONFIRMED), (5, K.UNKNOWN)).state is S.VERIFIED
    assert after((0, K.CONFIRMED), (5, K.UNKNOWN), (10, K.UNKNOWN)).state is S.SUSPECT
    assert after((0, K.CONFIRMED), (5, K.UNKNOWN), (10, K.UNKNOWN), (15, K.CONFIRMED)).state is S.VERIFIED


@pytest.mark.parametrize("kind", [K.REVOKED, K.DISABLED, K.NOT_RECEIVED])
def test_a_key_that_the_public_api_disowns_fails_and_all_since_the_last_proof_is_sent_again(kind: EvidenceKind) -> None:
    """What was acknowledged after the proof may have been dropped."""
    before = replace(after((0, K.CONFIRMED), (3, K.ACCEPTED)), uncounted_at=minute(-30))
    change = take_in(before, evidence(kind, 5))
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


def test_one_count_of_nothing_is_no_failure() -> None:
    """Counts may be late, and what was counted may be repeats, which Segment does not count."""
    once = take_in(FRESH, evidence(K.NOT_RECEIVED, 5))
    assert (once.credential.state, once.rewind_from) == (S.UNVERIFIED, None)
    too_soon = take_in(once.credential, evidence(K.NOT_RECEIVED, 24))
    assert too_soon.credential.state is S.UNVERIFIED


def test_counts_of_the_same_acknowledgements_are_no_failure_however_often() -> None:
    """A lone file that Braze wrote twice must not stop the connector."""
    once = take_in(FRESH, evidence(K.NOT_RECEIVED, 5)).credential
    same = replace(evidence(K.NOT_RECEIVED, 500), counted_until=minute(3))
    assert take_in(once, same).credential.state is S.UNVERIFIED


def test_nothing_counted_twice_is_failure() -> None:
    """The second count is late enough, and has something new to count."""
    once = take_in(FRESH, evidence(K.NOT_RECEIVED, 5)).credential
    change = take_in(once, evidence(K.NOT_RECEIVED, 25))
    assert (change.credential.state, change.rewind_from) == (S.FAILING, START)


def test_what_arrives_late_ends_the_doubt() -> None:
    """Counts begin from none again."""
    known = after((5, K.NOT_RECEIVED), (10, K.RECEIVED), known=replace(FRESH, uncounted_at=minute(0)))
    assert (known.state, known.uncounted_at) == (S.VERIFIED, None)


def test_a_listed_key_proves_nothing_while_what_was_acknowledged_is_not_counted() -> None:
    """Else the proof would pass over what was lost."""
    known = after((5, K.CONFIRMED), known=replace(FRESH, uncounted_at=minute(0)))
    assert (known.proven_at, known.uncounted_at) == (None, minute(0))


def test_suspicion_is_over_after_three_good_answers() -> None:
    """An endpoint that is wrong now and then must not end it by chance."""
    suspect = after((0, K.UNKNOWN), (5, K.UNKNOWN))
    assert after((10, K.KNOWN), (15, K.KNOWN), known=suspect).state is S.SUSPECT
    assert after((10, K.KNOWN), (15, K.KNOWN), (20, K.UNKNOWN), (25, K.KNOWN), known=suspect).state is S.SUSPECT
    assert after((10, K.KNOWN), (15, K.KNOWN), (20, K.KNOWN), known=suspect).state is S.UNVERIFIED


def test_a_suspect_that_is_known_again_has_a_day_more_sent_again() -> None:
    """The settings endpoint's last good word was a day old at worst."""
    suspect = after((0, K.KNOWN), (5, K.UNKNOWN), (10, K.UNKNOWN), known=replace(FRESH, rewind_from=minute(-3000)))
    change = take_in(after((50, K.KNOWN), (55, K.KNOWN), known=suspect), evidence(K.KNOWN, 60))
    assert (change.credential.state, change.rewind_from) == (S.UNVERIFIED, minute(0) - SETTINGS_LAG)


def test_what_suspicion_has_sent_again_it_does_not_send_again_within_a_day() -> None:
    """An endpoint that flaps costs each event one more sending, not one a flap."""
    suspect = after((0, K.UNKNOWN), (5, K.UNKNOWN), (10, K.KNOWN), (15, K.KNOWN))
    assert take_in(suspect, evidence(K.KNOWN, 20)).spare_since == minute(20) - SETTINGS_LAG
    assert take_in(after((0, K.CONFIRMED)), evidence(K.REVOKED, 5)).spare_since is None


def test_a_suspicion_survives_an_open_refusal() -> None:
    """Whoever refuses openly says nothing of what was dropped before."""
    suspect = after((0, K.UNKNOWN), (5, K.UNKNOWN))
    refused = after((10, K.DENIED), known=suspect)
    assert refused.state is S.FAILING
    again = after((15, K.ACCEPTED), known=refused)
    assert (again.state, again.since) == (S.SUSPECT, minute(0))
    window = loss_window_of(after((9, K.ACCEPTED), (10, K.DENIED), known=suspect), WINDOW)
    assert window
    assert window.started_at == START


def test_a_key_replaced_while_it_is_refused_has_the_suspicion_sent_again() -> None:
    """Although the last thing seen was the refusal."""
    refused = after((0, K.UNKNOWN), (5, K.UNKNOWN), (10, K.DENIED))
    assert adopted(refused, "second", minute(20)).rewind_from == START


def test_a_key_replaced_before_anyone_asked_again_has_its_acknowledgements_sent_again() -> None:
    """It may have died after the last proof."""
    change = adopted(after((0, K.CONFIRMED), (3, K.ACCEPTED)), "second", minute(5))
    assert (change.rewind_from, change.credential.rewind_from) == (minute(0), minute(5))


def test_a_key_of_which_no_probe_ever_spoke_has_nothing_sent_again() -> None:
    """Nobody can tell; whoever replaces it is told how to send it again."""
    assert adopted(after((3, K.ACCEPTED)), "second", minute(5)).rewind_from is None


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
    """The old key was confirmed to the end."""
    change = adopted(after((5, K.CONFIRMED)), "second", minute(5))
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
    """A source whose write key dies and is replaced, while events are acknowledged by a Segment that drops behind 200.

    A dead key lives again only after the Public API has told of its death; the settings endpoint tells how things were
    up to a day ago.
    """

    key: str = "key-0"
    died_at: datetime | None = None  # of the key in use
    known: Credential = field(default_factory=lambda: begun(Credential(key="key-0"), START))
    at: datetime = START
    refusing: bool = False
    arrived: set[int] = field(default_factory=set)
    acknowledged: dict[int, datetime] = field(default_factory=dict)  # as the ledger has it
    sent_again: dict[int, datetime] = field(default_factory=dict)
    events: int = 0

    def send(self) -> None:
        """Send one new event and all that went back."""
        self.events += 1
        if sending(self.known) is Sending.NONE:
            return
        if self.refusing:
            self.see(K.DENIED)
            return
        for event in set(range(self.events)) - self.acknowledged.keys():
            self.acknowledged[event] = self.at
            if self.died_at is None:
                self.arrived.add(event)
        self.see(K.ACCEPTED)

    def ask_public_api(self) -> None:
        """Ask who knows."""
        self.see(K.REVOKED if self.died_at else K.CONFIRMED)

    def ask_settings(self, *, is_current: bool) -> None:
        """Ask who may be a day behind."""
        dead = self.died_at is not None and (is_current or self.at - self.died_at >= SETTINGS_LAG)
        self.see(K.UNKNOWN if dead else K.KNOWN)

    def replace_key(self) -> None:
        """Put another key in use, without asking about the one before."""
        self.died_at, self.key = None, f"{self.key}+"
        self.keep(adopted(self.known, self.key, self.at))

    def see(self, kind: EvidenceKind) -> None:
        """Take in evidence."""
        self.keep(take_in(self.known, Evidence(kind, self.at, "")))

    def keep(self, change: Change) -> None:
        """Do as the ledger does."""
        self.known = change.credential
        if change.rewind_from is None:
            return
        spare = change.spare_since
        for event, at in list(self.acknowledged.items()):
            just_sent_again = spare is not None and self.sent_again.get(event, START - SETTINGS_LAG) > spare
            if at >= change.rewind_from and not just_sent_again:
                del self.acknowledged[event]
                self.sent_again[event] = self.at


STEPS = st.sampled_from(["send", "public", "current", "behind", "die", "replace", "revive", "refuse", "wait"])


@given(st.lists(STEPS, max_size=60))
def test_nothing_is_lost_however_a_key_dies_and_is_replaced(steps: list[str]) -> None:
    """Whatever a dead key was told arrives, as long as any probe ever spoke: no death needs to be seen by one."""
    world = World()
    world.ask_settings(is_current=True)
    for step in [*steps, "replace", "send"]:
        world.at += timedelta(hours=7) if step == "wait" else timedelta(minutes=3)
        match step:
            case "send":
                world.send()
            case "public":
                world.ask_public_api()
            case "current" | "behind":
                world.ask_settings(is_current=step == "current")
            case "die":
                world.died_at = world.died_at or world.at
            case "revive" if world.died_at:  # as a source that was disabled; only who counts or asks can tell
                world.ask_public_api()
                world.died_at = None
            case "replace":
                world.refusing = False
                world.replace_key()
            case "refuse":
                world.refusing = not world.refusing
    assert world.arrived == set(range(world.events))
