"""Watches over the credentials of one connector: takes in evidence, probes, adopts other keys, and rewinds.

What it knows is kept in the ledger, so that a restart neither forgets an incident nor starts its window anew.
"""

import threading
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from pydantic import SecretStr

from currents_bridge.credentials import state as credentials
from currents_bridge.credentials.state import (
    INCIDENT,
    REWIND_HORIZON,
    SENT_AGAIN,
    SENT_FIRST,
    SPEAKS_AGAINST_KEY,
    Change,
    Sending,
    fingerprint,
)
from currents_bridge.due import lately
from currents_bridge.errors import ConfigError, CredentialError, ProbeError, Side
from currents_bridge.logs import get_logger
from currents_bridge.model import Acknowledged, Credential, Evidence, EvidenceKind, Notice, NoticeKind, Shortfall
from currents_bridge.phrases import count, when
from currents_bridge.ports import Ledger, Probe, Transport

TOLD_FOR = timedelta(days=7)  # that something is missing, which no later evidence can end
WRITE_KEY_CHARS = 32  # letters and digits; Segment gives out no other

_SPEAKS_FOR = frozenset({EvidenceKind.KNOWN, EvidenceKind.CONFIRMED, EvidenceKind.RECEIVED})

log = get_logger()


def has_key_shape(key: SecretStr) -> bool:
    """Return whether a write key looks like those that Segment gives out."""
    text = key.get_secret_value()
    return len(text) == WRITE_KEY_CHARS and text.isascii() and text.isalnum()


class CredentialWatch:
    """The credentials of one connector. Thread-safe, but for `renew`, which swaps the transport between two passes.

    Args:
        connector: its name.
        ledger: keeps what is known.
        read_keys: reads the write keys anew, oldest first, at least one; raises ConfigError.
        key_references: where they are read from, oldest first.
        open_transport: makes the way to the destination with a key.
        probes: ways to ask about a key, the strongest first.
        endpoint_url: where the keys are used.
        now: the time, aware.

    Raises:
        ConfigError: the write keys cannot be read.
        LedgerError: what is known of them cannot be read.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands in each collaborator by name
        self,
        *,
        connector: str,
        ledger: Ledger,
        read_keys: Callable[[], Sequence[SecretStr]],
        open_transport: Callable[[SecretStr], Transport],
        probes: Sequence[Probe],
        endpoint_url: str,
        now: Callable[[], datetime],
        key_references: Sequence[str] = (),
    ) -> None:
        self._connector = connector
        self.key_references = key_references
        self._ledger = ledger
        self._read_keys = read_keys
        self._open_transport = open_transport
        self._probes = probes
        self._endpoint_url = endpoint_url
        self._now = now
        self._lock = threading.RLock()
        self._given_up: set[str] = set()  # fingerprints of keys that failed while another one was there
        self._passed_over = ""  # why the newest key is not used
        self._renewal_due = self._asked = False
        keys = self._read_keys()
        known = ledger.credential(connector, Side.DESTINATION).key
        self._key = next((key for key in keys if self._print(key) == known), keys[-1])
        self._transport = open_transport(self._key)
        self._keys = tuple(keys)
        self._begun = False
        self._renewal_due = self._key is not keys[-1]

    @property
    def transport(self) -> Transport:
        """The way to the destination with the key that is used now."""
        return self._transport

    @property
    def key(self) -> SecretStr:
        """The write key that is used now."""
        return self._key

    @property
    def fingerprint(self) -> str:
        """What tells the write key that is used now, at its endpoint, from others."""
        return self._print(self._key)

    @property
    def probes(self) -> Sequence[Probe]:
        """Ways to ask about a key, the strongest first."""
        return self._probes

    @property
    def endpoint_url(self) -> str:
        """Where the keys are used."""
        return self._endpoint_url

    def credential(self, side: Side) -> Credential:
        """Return what is known of one side; raises LedgerError."""
        return credentials.believable(self._ledger.credential(self._connector, side), self._now())

    def sending(self) -> Sending:
        """Return how much may be sent now; raises LedgerError."""
        return credentials.sending(self.credential(Side.DESTINATION))

    def close(self) -> None:
        """Free the transport; idempotent."""
        self._transport.close()

    def begin(self) -> None:
        """Say that the key is about to be used: if it is another one than before, it has to prove itself.

        A process that only looks never says so, whatever key its environment holds. Raises LedgerError.
        """
        with self._lock:
            if not self._begun:
                self._warn_of_odd_key()
                self._adopt_in_ledger()
                self._begun = True

    def ask_for_renewal(self) -> None:
        """Have the secrets read again before the next pass, which then says whether they changed."""
        self._renewal_due = self._asked = True

    def worked(self, side: Side, detail: str) -> None:
        """Take in that a service took what was asked of it; raises LedgerError."""
        kind = EvidenceKind.WORKED if side is Side.SOURCE else EvidenceKind.ACCEPTED
        self.take_in(side, Evidence(kind, self._now(), detail))

    def denied(self, error: CredentialError) -> None:
        """Take in a refusal; raises LedgerError."""
        self.take_in(error.side, Evidence(EvidenceKind.DENIED, self._now(), error.message, error.hint))

    def acknowledged(self, first: int, again: int = 0) -> None:
        """Keep how many events were just acknowledged, for the first time or after a rewind; raises LedgerError.

        They are not proven: a probe counts them, in this process or a later one.
        """
        if first or again:
            self._ledger.acknowledge(self._connector, Acknowledged(self._now(), first, again))

    def take_in(self, side: Side, evidence: Evidence) -> None:
        """Keep what the evidence changes, and send again what it says; raises LedgerError.

        Evidence about a key that is not the one in use is not kept.
        """
        with self._lock:
            known = credentials.begun(self.credential(side), evidence.at)
            if side is Side.DESTINATION and known.key != self._print(self._key):
                return
            self._keep(side, known, credentials.take_in(known, evidence, odd_key=not has_key_shape(self._key)))

    def probe(self, every: timedelta = timedelta(0)) -> None:
        """Ask the probes about the key, until one can tell, unless that was done less than `every` ago.

        A probe that fails for its own reasons leaves a notice, and is no evidence. Raises LedgerError.
        """
        with self._lock:
            known, now = self.credential(Side.DESTINATION), self._now()
            if lately(known.probed_at, now, every):
                return
            if known.key == self._print(self._key):
                self._ledger.save_credential(self._connector, Side.DESTINATION, replace(known, probed_at=now))
                self._forget_old(now)
            key = self._key
        evidence = self._ask(key, self._ledger.acknowledged(self._connector))
        if evidence is not None and key is self._key:
            self._take_in_of_key(evidence)
        self._renewal_due |= self._key is not self._keys[-1]

    def _take_in_of_key(self, evidence: Evidence) -> None:
        if short := evidence.shortfall:
            subject = SENT_AGAIN if short.again else SENT_FIRST
            self._ledger.note(self._connector, [Notice(NoticeKind.SHORTFALL, subject, _missing(short))], self._now())
        self.take_in(Side.DESTINATION, evidence)

    def _forget_old(self, now: datetime) -> None:
        """Forget what no rewind will reach any more, and what was told long enough."""
        self._ledger.forget_acknowledged(self._connector, now - REWIND_HORIZON)
        noted = self._ledger.totals(self._connector).notices
        for kind in (NoticeKind.SHORTFALL, NoticeKind.UNPROVEN):
            young = [one for one in noted if one.kind is kind and one.since and now - one.since < TOLD_FOR]
            self._ledger.replace_notices(self._connector, kind, young, now)

    def renew(self) -> None:
        """Read the secrets again where that was asked for or a credential fails, and use the key that is best.

        The newest key is used, once it is seen not to be refused; where the one in use fails, an older one that was
        not given up before takes its place. Not to be called while anything is being sent. Raises LedgerError.
        """
        self.begin()
        if not (self._renewal_due or self._in_incident()):
            return
        self._renewal_due, asked = False, self._asked
        self._asked = False
        try:
            keys = tuple(self._read_keys())
            changed = [self._print(key) for key in keys] != [self._print(key) for key in self._keys]
            if changed:
                self._given_up.clear()
            if asked:
                log.info("write_keys_read", connector=self._connector, changed=changed)
            self._keys = keys
            chosen = self._choose()
            if self._print(chosen) != self._print(self._key):
                self._adopt(chosen)
        except ConfigError as error:  # of the keys, or of what a transport needs besides
            log.warning("secrets_not_read", connector=self._connector, error=error.message)
        else:
            self._note_rotation()

    def _choose(self) -> SecretStr:
        """Return the newest key that is usable; the one in use where there is no better one."""
        used = self._print(self._key)
        if len(self._keys) == 1:
            return self._keys[0]
        if self._in_incident():
            self._given_up.add(used)
            self._passed_over = self.credential(Side.DESTINATION).evidence or ""
        for key in reversed(self._keys):
            if self._print(key) == used:
                if used not in self._given_up:
                    return key
            elif self._usable(key):
                return key
        return self._key if used in map(self._print, self._keys) else self._keys[-1]

    def _usable(self, key: SecretStr) -> bool:
        """Return whether nothing speaks against a key; one that was given up needs something that speaks for it."""
        evidence = self._ask(key)
        kind = evidence.kind if evidence else None
        if evidence and kind in SPEAKS_AGAINST_KEY:
            self._passed_over = evidence.detail
        return kind in _SPEAKS_FOR if self._print(key) in self._given_up else kind not in SPEAKS_AGAINST_KEY

    def _ask(self, key: SecretStr, acknowledged: Sequence[Acknowledged] = ()) -> Evidence | None:
        """Return what the first probe that can tell says, and keep what hinders the others."""
        hindered: list[Notice] = []
        evidence = None
        seen_with = self.credential(Side.DESTINATION).keys_seen_with
        for probe in self._probes:
            try:
                evidence = probe.ask(key, self._now(), acknowledged, seen_with)
            except ProbeError as error:
                log.warning("probe_failed", connector=self._connector, probe=probe.name, error=error.message)
                hindered.append(Notice(NoticeKind.PROBE, probe.name, f"{error.message}; {error.hint}"))
            if evidence is not None:
                break
        self._ledger.replace_notices(self._connector, NoticeKind.PROBE, hindered, self._now())
        return evidence

    def _adopt(self, key: SecretStr) -> None:
        self._ask_a_last_time()
        transport = self._open_transport(key)
        with self._lock:
            self._transport.close()
            self._key, self._transport = key, transport
            self._warn_of_odd_key()
            self._adopt_in_ledger()
        log.info("write_key_adopted", connector=self._connector, fingerprint=self._print(key))

    def _warn_of_odd_key(self) -> None:
        if not has_key_shape(self._key):
            hint = "Segment gives out 32 letters and digits, and answers 200 to any other key and drops the events"
            log.warning("write_key_has_an_odd_shape", connector=self._connector, hint=hint)

    def _ask_a_last_time(self) -> None:
        """Ask about the key that is given up: what it was told, and is not proven by now, is sent again."""
        evidence = self._ask(self._key, self._ledger.acknowledged(self._connector))
        if evidence is None:
            return
        self._take_in_of_key(evidence)
        if credentials.confirmed_to_the_end(evidence, self._now()):
            self.take_in(Side.DESTINATION, replace(evidence, kind=EvidenceKind.CONFIRMED, at=self._now()))

    def _adopt_in_ledger(self) -> None:
        now, key = self._now(), self._print(self._key)
        known = credentials.begun(self.credential(Side.DESTINATION), now)
        told = self._ledger.acknowledged(self._connector)
        if known.key not in {None, key}:
            if told and not credentials.was_asked_about(known):
                notice = Notice(NoticeKind.UNPROVEN, "write_key", _untold(told))
                self._ledger.note(self._connector, [notice], now)
            self._ledger.forget_acknowledged(self._connector)
        self._keep(Side.DESTINATION, known, credentials.adopted(known, key, now))

    def _note_rotation(self) -> None:
        subject = "write_keys"
        if self._print(self._key) == self._print(self._keys[-1]):
            self._ledger.forget_notice(self._connector, NoticeKind.ROTATION, subject)
            return
        detail = self._passed_over or "it failed before, and no probe says that it works by now"
        self._ledger.note(self._connector, [Notice(NoticeKind.ROTATION, subject, detail)], self._now())

    def _keep(self, side: Side, known: Credential, change: Change) -> None:
        """Rewind first: should the process end in between, the same evidence comes again and finds less to rewind."""
        after = change.credential
        if known.state not in INCIDENT:
            after = replace(after, sent_in_vain=0 if after.state in INCIDENT else known.sent_in_vain)
        if change.rewind_from is not None:
            since = max(change.rewind_from, self._now() - REWIND_HORIZON)
            rewound = self._ledger.rewind(self._connector, since, self._now(), spare_since=change.spare_since)
            counts = {"objects": rewound.objects, "events": rewound.events, "letters": rewound.letters}
            log.warning("rewound", connector=self._connector, since=since, **counts)
            after = replace(after, sent_in_vain=after.sent_in_vain + rewound.events)
            if change.spare_since is None:
                self._ledger.forget_acknowledged(self._connector)
        if credentials.recovered(known, after):
            after = replace(after, sent_before=self._ledger.totals(self._connector).books.sent)
        if after != known or after != self.credential(side):
            self._ledger.save_credential(self._connector, side, after)
        if side is Side.DESTINATION and after.proven_at and after.proven_at != known.proven_at:
            self._ledger.forget_acknowledged(self._connector, after.proven_at)
        if after.state is not known.state:
            told = {"side": str(side), "state": str(after.state), "evidence": after.evidence}
            (log.error if after.state in INCIDENT else log.info)("credential", connector=self._connector, **told)

    def _in_incident(self) -> bool:
        return self.credential(Side.DESTINATION).state in INCIDENT

    def _print(self, key: SecretStr) -> str:
        return fingerprint(key, self._endpoint_url)


def _missing(short: Shortfall) -> str:
    span = f"between {when(short.since)} and {when(short.until)}"
    if short.again:
        return f"none of {count(short.acknowledged, 'event')} sent again {span} has arrived"
    return f"of {count(short.acknowledged, 'event')} acknowledged {span}, {short.received:,} arrived"


def _untold(told: Sequence[Acknowledged]) -> str:
    events = sum(one.first + one.again for one in told)
    return f"{count(events, 'event')} acknowledged from {when(told[0].at)} to {when(told[-1].at)}"
