"""What is said of a credential that fails, by parts, a line each: cause, certainty, cost, time left, remedy. Pure.

Each alert is read at night by somebody who has not seen the program for months, so each says the whole story.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from currents_bridge.credentials.state import PROOFS, SPEAKS_AGAINST_KEY, LossWindow
from currents_bridge.errors import Side
from currents_bridge.model import Credential, CredentialState, EvidenceKind
from currents_bridge.phrases import be, count, how_long, were, when

CHECK = "`currents-bridge check` confirms it"
REPLAY = "`currents-bridge quarantine replay`"
_KEPT = "nothing is lost while the bucket keeps the files"


@dataclass(frozen=True, slots=True)
class Incident:
    """A credential that is suspect or failing, or was."""

    side: Side
    credential: Credential
    state: CredentialState
    window: LossWindow | None
    now: datetime
    drops: bool  # objects older than the loss window are set aside
    unproven_events: int  # acknowledged since the last proof, and not sent again yet
    key_references: Sequence[str] = ()  # where the write keys are, oldest first, if that is known

    @property
    def cause(self) -> str:
        """What happens now."""
        found = self.credential.evidence or "why is not known any more"
        if self.side is Side.SOURCE:
            return f"The bucket cannot be read: {found}."
        if self.state is CredentialState.SUSPECT:
            return f"Segment may drop what is sent, although it answers 200: {found}."
        if self.credential.cause is EvidenceKind.DENIED:
            return f"Segment refuses what is sent: {found}."
        return f"Segment answers 200 and drops what is sent: {found}."

    @property
    def certainty(self) -> str:
        """Since when it is certain, and since when it is possible."""
        known, since = self.credential, self.credential.since or self.now
        certain = f"Certain since {when(since)}"
        if self.side is Side.SOURCE or (known.cause is EvidenceKind.DENIED and not known.suspected_at):
            taken_at = known.accepted_at
            return f"{certain}; it last worked on {when(taken_at)}." if taken_at else f"{certain}; it never worked yet."
        if self.state is CredentialState.SUSPECT:
            certain = "Not certain yet"
        if known.proven_at is None:
            first = f" on {when(known.first_used_at)}" if known.first_used_at else ""
            return f"{certain}, possible since its first use{first}: there was no proof that it works."
        proof = f" ({PROOFS[known.proven_by]})" if known.proven_by else ""
        return f"{certain}, possible since the last proof on {when(known.proven_at)}{proof}."

    @property
    def cost(self) -> str:
        """What was sent in vain, and what is done with all else."""
        if self.side is Side.SOURCE:
            return f"New files are not seen; {_KEPT}."
        if self.state is CredentialState.SUSPECT:
            told = self.unproven_events
            again = (
                f"; {count(told, 'event')} acknowledged since then {be(told)} sent again if it is dead" if told else ""
            )
            return f"Sending goes on{again}."
        if self.credential.cause is EvidenceKind.DENIED:
            return f"One file is tried at each poll, all others wait; {_KEPT}."
        if vain := self.credential.sent_in_vain:
            sent = f"{count(vain, 'event')} {were(vain)} sent in vain and will be sent again"
            return f"{sent}; nothing more is sent, and {_KEPT}."
        return f"Nothing more is sent, and {_KEPT}."

    @property
    def time_left(self) -> str:
        """What remains of the loss window, and what happens at its end here."""
        if self.window is None:
            return ""
        ends_at, length = self.window.ends_at, how_long(self.window.ends_at - self.window.started_at)
        sets_aside = self.drops and self.side is Side.DESTINATION and self.state is not CredentialState.SUSPECT
        if self.now >= ends_at:
            ended = f"Braze's own connector would have begun to drop data on {when(ends_at)}"
            here = f"files older than {length} are set aside, and {REPLAY} brings them back"
            kept = "nothing is dropped, all of it is sent once this is mended"
            return f"{ended}, {how_long(self.now - ends_at)} ago; here {here if sets_aside else kept}."
        here = f"files older than {length} are set aside then, and can be replayed"
        left = f"Braze's own connector would drop data in {how_long(ends_at - self.now)}, on {when(ends_at)}"
        return f"{left}; here {here if sets_aside else 'nothing is dropped then'}."

    @property
    def remedy(self) -> str:
        """The one thing to do, and where."""
        cause = self.credential.cause
        if self.side is Side.SOURCE:
            return f"{self.credential.hint or 'mend the access to the bucket'}; each poll tries it again"
        if cause is EvidenceKind.DISABLED:
            return f"{self.credential.hint or 'enable the source in Segment'}; no restart is needed"
        hint = self.credential.hint or "compare the write key with the source's settings in Segment"
        if not self.key_references:
            return hint
        newest = self.key_references[-1]
        then = "restart after the change" if newest.startswith("env:") else "read again at each poll, no restart"
        if self.state is CredentialState.SUSPECT:
            return f"{hint}; if it is dead, put a working one into {newest} ({then})"
        if cause in SPEAKS_AGAINST_KEY:
            return f"put a working write key of the Segment source into {newest} ({then}): {hint}"
        return f"{hint}; the write key is in {newest} ({then})"

    @property
    def todo(self) -> str:
        """The remedy, and what confirms it."""
        return f"{self.remedy}; {CHECK}"

    def story(self, reached: int = 0) -> str:
        """Return all of it but what is to be done, a line each; `reached`: percent of the loss window that are over."""
        over = f"{reached} % of the loss window is over." if reached else ""
        left = " ".join(part for part in (over, self.time_left) if part)
        return "\n".join(part for part in (self.cause, self.certainty, self.cost, left) if part)


def recovery(  # noqa: PLR0913 - one parameter a thing that is told
    side: Side, credential: Credential, *, was_certain: bool, waiting: int, set_aside: int, sent_since: int
) -> tuple[str, str]:
    """Return what is said at the end of an incident, a line each, and what is left to do.

    Args:
        side: which credential it was.
        credential: as it is now.
        was_certain: it failed; else it was only suspect.
        waiting: objects that still wait.
        set_aside: objects in quarantine.
        sent_since: events, since the end of the incident.
    """
    what = "The bucket can be read again"
    if side is Side.DESTINATION:
        is_proven = credential.state is CredentialState.VERIFIED
        what = "Segment takes what is sent again" if is_proven else "Sending goes on, without proof yet that it arrives"
    lines = [f"{what}: {credential.evidence}." if credential.evidence else f"{what}."]
    if side is Side.DESTINATION and (vain := credential.sent_in_vain):
        verb = be(vain) if waiting else were(vain)
        lines.append(f"{count(vain, 'event')} that {'had' if was_certain else 'may have'} been sent in vain {verb} ")
        lines[-1] += "sent again."
    if side is Side.DESTINATION and not waiting:
        lines.append(f"What had waited was sent: {count(sent_since, 'event')}.")
    aside = f"{count(set_aside, 'file')} {be(set_aside)} in quarantine" if set_aside else "Nothing is in quarantine"
    what = "\n".join([*lines, f"{aside}."])
    if not set_aside:
        return what, "nothing: what waits is sent now" if waiting else "nothing"
    it = "it" if set_aside == 1 else "them"
    return what, f"see `currents-bridge quarantine list` for why, then send {it} with {REPLAY}"


def unproven(events: int) -> str:
    """Return what a dead write key would cost now, empty where that is nothing."""
    if not events:
        return ""
    return f"{count(events, 'event')} {were(events)} acknowledged since and {be(events)} not proven yet"
