"""Evidence becomes what is known of a credential, and says what has to be sent again. Pure; time is in the evidence.

Segment answers 200 to a dead write key and drops the events, so a 2xx proves nothing. What does prove something:

- The Public API is trusted: it verifies a key, and when it says that the key is revoked, the source disabled or
  nothing received, the key is failing.
- The counts of the Public API come late, and repeats are not counted: only two counts that found nothing, far enough
  apart and with something new acknowledged in between, make the key failing.
- The settings endpoint may be a day behind, and has denied good keys: a 200 of it proves only what is a day old, and
  two 404s, minutes apart, make the key suspect. Sending goes on then, since a mistake of the probe must not stop it;
  three 200s in a row end the suspicion.
- A refusal by the tracking API (401, 403, 404 ...) is failing as well; but a server that refuses openly did not drop
  behind a 2xx, so what it acknowledged before stays acknowledged, and the next 2xx ends it. It says nothing of a
  suspicion, which is still there afterwards.

Everything that was acknowledged since the last proof goes back to be sent, when the key turns out dead, when it is
replaced without having been confirmed to the end, and again when it is well, for what a canary was told meanwhile.
"""

from dataclasses import dataclass, fields, replace
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import blake2b

from pydantic import SecretStr

from currents_bridge.model import Credential, CredentialState, Evidence, EvidenceKind

SETTINGS_LAG = timedelta(days=1)  # how far behind the settings endpoint may be
DOUBT_LASTS = timedelta(minutes=2)  # from its first 404 to the one that makes a key suspect
GOOD_ANSWERS = 3  # of the settings endpoint, in a row, that end a suspicion
COUNTED_AFTER = timedelta(minutes=2)  # the Public API's counts are 30 s behind
COUNTS_LAG = timedelta(minutes=20)  # how late counts of the Public API were seen to be
VERIFIED_FOR = timedelta(hours=1)  # without new proof, a verified key is only unverified
REWIND_HORIZON = timedelta(days=30)  # nothing that was acknowledged earlier is sent again

SENT_FIRST, SENT_AGAIN = "first", "again"  # what a shortfall is of

_DEAD = frozenset({EvidenceKind.REVOKED, EvidenceKind.DISABLED, EvidenceKind.NOT_RECEIVED})
SPEAKS_AGAINST_KEY = _DEAD | {EvidenceKind.UNKNOWN}
INCIDENT = frozenset({CredentialState.SUSPECT, CredentialState.FAILING})


class Sending(StrEnum):
    """How much may be sent while a credential stands as it does."""

    ALL = "all"
    CANARY = "canary"  # one small group a poll, to see whether it is taken again
    TRIAL = "trial"  # as a canary, but nothing of it counts as delivered, since a 2xx says nothing
    NONE = "none"  # only a probe or another key ends it


@dataclass(frozen=True, slots=True)
class LossPolicy:
    """What a failing credential may cost."""

    window: timedelta = timedelta(hours=48)  # after which Braze's own connector would drop events
    drop: bool = False  # at its end set aside what is older than the window, as Braze's connector would lose it


@dataclass(frozen=True, slots=True)
class Change:
    """What a piece of evidence changes."""

    credential: Credential
    rewind_from: datetime | None = None  # what was acknowledged since has to be sent again
    spare_since: datetime | None = None  # but not what was sent again since then


@dataclass(frozen=True, slots=True)
class LossWindow:
    """The span after which Braze's own connector would lose data."""

    started_at: datetime  # the last proof that the credential worked
    ends_at: datetime

    def fraction(self, now: datetime) -> float:
        """Return how much of it has passed, 0 to 1 and beyond."""
        return (now - self.started_at) / (self.ends_at - self.started_at)


def fingerprint(secret: SecretStr, endpoint_url: str) -> str:
    """Return what tells one secret for one endpoint from another, and nothing else of it."""
    return blake2b(f"{endpoint_url} {secret.get_secret_value()}".encode(), digest_size=8).hexdigest()


def believable(credential: Credential, now: datetime) -> Credential:
    """Return what is known, with no time ahead of now, as a clock that ran ahead once has left it.

    A proof verifies nothing any more then, and all that it may have proven counts as without proof.
    """
    ahead = {
        field.name: now
        for field in fields(credential)
        if isinstance(at := getattr(credential, field.name), datetime) and at > now
    }
    if "proven_at" in ahead:
        ahead["proven_at"] = now - VERIFIED_FOR - datetime.resolution
    if credential.rewind_from and "rewind_from" in ahead:
        back = SETTINGS_LAG if credential.rewind_from - now <= SETTINGS_LAG else REWIND_HORIZON
        first = ahead.get("first_used_at", credential.first_used_at)
        ahead["rewind_from"] = max(now - back, first) if first and first < now else now - back
    return replace(credential, **ahead)  # type: ignore[arg-type]


def state_at(credential: Credential, now: datetime, loss_window: timedelta) -> CredentialState:
    """Return the state at a moment: failing past the loss window is expired, and proof that is old verifies nothing."""
    credential = believable(credential, now)
    window = loss_window_of(credential, loss_window)
    if credential.state is CredentialState.FAILING and window and now >= window.ends_at:
        return CredentialState.EXPIRED
    if credential.state is CredentialState.VERIFIED and not _verified(credential, now):
        return CredentialState.UNVERIFIED
    return credential.state


def loss_window_of(credential: Credential, loss_window: timedelta) -> LossWindow | None:
    """Return the loss window of a credential that is suspect or failing, None for any other."""
    if credential.state not in INCIDENT or credential.since is None:
        return None
    proofs = [credential.proven_at]
    if credential.cause is EvidenceKind.DENIED and not (credential.suspected_at or credential.uncounted_at):
        proofs.append(credential.accepted_at)  # a server that refuses openly means its 2xx
    start = max((at for at in proofs if at), default=credential.first_used_at or credential.since)
    return LossWindow(start, start + loss_window)


PROOFS = {  # what each says, for people
    EvidenceKind.WORKED: "an answer of S3",
    EvidenceKind.CONFIRMED: "the Public API listed it",
    EvidenceKind.RECEIVED: "the Public API counted what was sent",
    EvidenceKind.KNOWN: "the settings endpoint knew it, which may be a day late",
}


def verified_until(credential: Credential) -> datetime | None:
    """Return until when a verified credential counts as such without new proof; None for any other."""
    if credential.state is not CredentialState.VERIFIED or credential.proven_at is None:
        return None
    return credential.proven_at + VERIFIED_FOR


def sending(credential: Credential) -> Sending:
    """Return how much may be sent."""
    if credential.state is not CredentialState.FAILING:
        return Sending.ALL
    match credential.cause:
        case EvidenceKind.DENIED:
            return Sending.CANARY
        case EvidenceKind.NOT_RECEIVED:
            return Sending.TRIAL
        case _:
            return Sending.NONE


def begun(credential: Credential, now: datetime) -> Credential:
    """Return a credential that is about to be used: from its first use on, it is known what has no proof."""
    if credential.first_used_at:
        return credential
    return replace(credential, first_used_at=now, rewind_from=now)


def adopted(known: Credential, key: str, now: datetime) -> Change:
    """Return what another write key, or the same for another endpoint, changes: it has to prove itself anew.

    What the one before was told without proof is sent again. Its last proof stays the start of the loss window, should
    the new key be no better. `key` is a fingerprint.
    """
    if key == known.key:
        return Change(known)
    if known.key is None:
        return Change(replace(known, key=key))
    evidence = Evidence(EvidenceKind.ACCEPTED, now, "another write key is used now; no proof of it yet")
    blank = replace(known, key=key, doubted_at=None, suspected_at=None, uncounted_at=None)
    well = _well(blank, CredentialState.UNVERIFIED, evidence).credential
    is_proven = known.rewind_from is None or known.rewind_from >= now or not was_asked_about(known)
    return Change(replace(well, rewind_from=now), None if is_proven else known.rewind_from)


def was_asked_about(credential: Credential) -> bool:
    """Return whether any probe ever said anything of it; if none did, nothing of it can be told."""
    said = (credential.proven_at, credential.doubted_at, credential.keys_seen_with, credential.uncounted_at)
    return any(said) or credential.state in INCIDENT


def confirmed_to_the_end(evidence: Evidence, now: datetime) -> bool:
    """Return whether nothing is left to prove: the key is listed now, and all that can be counted yet has arrived."""
    proves = evidence.kind in {EvidenceKind.CONFIRMED, EvidenceKind.RECEIVED}
    return proves and evidence.keys_seen_with is not None and now - evidence.at <= COUNTED_AFTER


def provable_before(credential: Credential, now: datetime) -> datetime:
    """Return the time before which nothing acknowledged will be rewound, so that it may be folded.

    As long as no probe has ever said anything, none will find the key dead, and nothing has to be kept.
    """
    if not was_asked_about(credential):
        return now
    return max(credential.rewind_from or now, now - REWIND_HORIZON)


def recovered(before: Credential, after: Credential) -> bool:
    """Return whether an incident has ended between the two."""
    return before.state in INCIDENT and after.state not in INCIDENT


def take_in(known: Credential, evidence: Evidence, *, odd_key: bool = False) -> Change:  # noqa: PLR0911 - one a kind
    """Return what is known after one more piece of evidence, and from when on to send again.

    Args:
        known: what was known before; see `begun`.
        evidence: a proof may reach less far than an earlier one.
        odd_key: the write key has not the shape of Segment's, so one denial of the settings endpoint is enough.
    """
    match evidence.kind:
        case EvidenceKind.WORKED:
            return _well(_proven(replace(known, accepted_at=evidence.at), evidence), CredentialState.VERIFIED, evidence)
        case EvidenceKind.ACCEPTED:
            return _accepted(replace(known, accepted_at=evidence.at), evidence)
        case EvidenceKind.DENIED:
            return _denied(known, evidence)
        case EvidenceKind.CONFIRMED | EvidenceKind.RECEIVED:
            return _confirmed(known, evidence)
        case EvidenceKind.REVOKED | EvidenceKind.DISABLED:
            return _dead(replace(known, keys_seen_with=evidence.keys_seen_with or known.keys_seen_with), evidence)
        case EvidenceKind.NOT_RECEIVED:
            return _not_received(known, evidence)
        case EvidenceKind.KNOWN:
            return _known(known, evidence)
        case EvidenceKind.UNKNOWN:
            return _unknown(known, evidence, odd_key=odd_key)


def _accepted(known: Credential, evidence: Evidence) -> Change:
    denied = known.state is CredentialState.FAILING and known.cause is EvidenceKind.DENIED
    if denied and known.suspected_at:
        detail = "the settings endpoint did not know the write key before it was refused, and nobody knew better since"
        suspicion = Evidence(EvidenceKind.UNKNOWN, known.suspected_at, detail, known.hint or "")
        return Change(_bad(known, CredentialState.SUSPECT, suspicion))
    if denied or known.since is None:
        return _well(known, CredentialState.UNVERIFIED, evidence)
    return Change(known)


def _denied(known: Credential, evidence: Evidence) -> Change:
    if known.state is CredentialState.FAILING and known.cause is not EvidenceKind.DENIED:
        return Change(known)
    return Change(_bad(known, CredentialState.FAILING, evidence))


def _confirmed(known: Credential, evidence: Evidence) -> Change:
    known = replace(known, keys_seen_with=evidence.keys_seen_with or known.keys_seen_with)
    denied = known.state is CredentialState.FAILING and known.cause is EvidenceKind.DENIED
    nothing_came = known.cause is EvidenceKind.NOT_RECEIVED or known.uncounted_at
    if denied or (nothing_came and evidence.kind is EvidenceKind.CONFIRMED):
        return Change(known)  # the key may be well, but that is not what is wrong
    change = _well(
        replace(known, doubted_at=None, suspected_at=None, uncounted_at=None), CredentialState.VERIFIED, evidence
    )
    rewind_from = max(known.rewind_from or evidence.at, evidence.at)
    return replace(change, credential=_proven(replace(change.credential, rewind_from=rewind_from), evidence))


def _dead(known: Credential, evidence: Evidence) -> Change:
    failing = _bad(replace(known, uncounted_at=None), CredentialState.FAILING, evidence)
    if known.state is CredentialState.FAILING and known.cause in _DEAD:
        return Change(failing)
    return Change(replace(failing, rewind_from=evidence.at), known.rewind_from)


def _not_received(known: Credential, evidence: Evidence) -> Change:
    """Count twice: the first count may have come too early, or have been of repeats only."""
    if known.state is CredentialState.FAILING and known.cause in _DEAD:
        return _dead(known, evidence)
    first = known.uncounted_at
    if first is None:
        return Change(replace(known, uncounted_at=evidence.at))
    newer = evidence.counted_until is not None and evidence.counted_until > first
    return _dead(known, evidence) if newer and evidence.at - first >= COUNTS_LAG else Change(known)


def _known(known: Credential, evidence: Evidence) -> Change:
    if known.suspected_at:
        known = replace(known, good_answers=known.good_answers + 1)
    else:
        known = replace(known, doubted_at=None)
    if known.state is CredentialState.FAILING or (known.suspected_at and known.good_answers < GOOD_ANSWERS):
        return Change(known)
    change = Change(known)
    if known.suspected_at or known.since is None:
        change = _well(replace(known, suspected_at=None), CredentialState.UNVERIFIED, evidence)
        # an endpoint that says now this and now that must not have everything sent again each time
        kept = replace(change.credential, rewind_from=known.rewind_from)
        change = replace(change, credential=kept, spare_since=evidence.at - SETTINGS_LAG)
    proof = replace(evidence, at=evidence.at - SETTINGS_LAG)
    rewind_from = max(change.credential.rewind_from or proof.at, proof.at)
    moved = replace(change.credential, doubted_at=None, rewind_from=rewind_from)
    return replace(change, credential=_proven(moved, proof))


def _unknown(known: Credential, evidence: Evidence, *, odd_key: bool) -> Change:
    first = known.doubted_at or evidence.at
    doubted = replace(known, doubted_at=first, good_answers=0)
    if known.suspected_at is None and (odd_key or evidence.at - first >= DOUBT_LASTS):
        doubted = replace(doubted, suspected_at=first)
    if doubted.suspected_at is None or known.state is CredentialState.FAILING:
        return Change(doubted)
    return Change(replace(_bad(doubted, CredentialState.SUSPECT, evidence), since=doubted.suspected_at))


def _proven(known: Credential, evidence: Evidence) -> Credential:
    if known.proven_at and known.proven_at > evidence.at:
        return known
    return replace(known, proven_at=evidence.at, proven_by=evidence.kind)


def _verified(credential: Credential, now: datetime) -> bool:
    proven = credential.proven_at
    return credential.state is CredentialState.VERIFIED and proven is not None and now - proven <= VERIFIED_FOR


def _bad(known: Credential, state: CredentialState, evidence: Evidence) -> Credential:
    return replace(
        known,
        state=state,
        since=known.since if known.state is state else evidence.at,
        evidence=evidence.detail,
        hint=evidence.hint,
        cause=evidence.kind,
        recovered_at=None,
    )


def _well(known: Credential, state: CredentialState, evidence: Evidence) -> Change:
    """End an incident, if there is one; what may have been dropped in it goes back to be sent."""
    in_incident = known.state in INCIDENT
    dropped = in_incident and known.cause in SPEAKS_AGAINST_KEY
    well = replace(
        known,
        state=state,
        since=known.since if known.state is state and known.since else evidence.at,
        evidence=evidence.detail,
        hint=None,
        cause=None,
        recovered_at=evidence.at if in_incident else known.recovered_at,
        rewind_from=evidence.at if dropped else known.rewind_from,
    )
    return Change(well, known.rewind_from if dropped else None)
