"""The watch over a connector's credentials: which key is used, what is asked, kept and sent again."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

import pytest
from pydantic import SecretStr
from structlog.testing import capture_logs

from currents_bridge.credentials.monitor import CredentialWatch, has_key_shape
from currents_bridge.credentials.state import Sending, fingerprint
from currents_bridge.errors import ConfigError, ConfigProblem, CredentialError, ProbeError, Side
from currents_bridge.model import (
    Acknowledged,
    Books,
    Credential,
    CredentialState,
    Delivered,
    Evidence,
    EvidenceKind,
    NoticeKind,
)
from currents_bridge.ports import Transport
from currents_bridge.testing.fake_transport import FakeTransport
from tests.ledger_workbench import BOTH, NO_LIMITS, an_object
from tests.ledgers import LedgerOnFile

NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)
NAME = "production"
ENDPOINT = "https://api.segment.io"
OLD, NEW = "OldKeyOldKeyOldKeyOldKeyOldKeyOl", "NewKeyNewKeyNewKeyNewKeyNewKeyNe"
K, S = EvidenceKind, CredentialState


@dataclass
class ScriptedProbe:
    """A probe that says of each key what it was told to; nothing of others."""

    name: str = "Public API"
    says: dict[str, EvidenceKind | ProbeError] = field(default_factory=dict)
    asked: list[tuple[str, list[int]]] = field(default_factory=list)  # key, events acknowledged
    reaches: timedelta = timedelta()  # how far behind its proofs are
    shows_keys: bool = False

    def ask(
        self,
        key: SecretStr,
        now: datetime,
        acknowledged: Sequence[Acknowledged] = (),
        keys_seen_with: str | None = None,  # noqa: ARG002 - as ports.Probe
    ) -> Evidence | None:
        """Answer as told."""
        plain = key.get_secret_value()
        self.asked.append((plain, [one.first for one in acknowledged]))
        answer = self.says.get(plain)
        if isinstance(answer, ProbeError):
            raise answer
        if answer is None:
            return None
        seen_with = "a token" if self.shows_keys else None
        return Evidence(
            answer, now - self.reaches, f"saw {answer}", f"mend {answer}", counted_until=now, keys_seen_with=seen_with
        )


@dataclass
class Place:
    """A watch with everything around it."""

    keys: list[str] = field(default_factory=lambda: [OLD])
    probe: ScriptedProbe = field(default_factory=ScriptedProbe)
    second_probe: ScriptedProbe = field(default_factory=lambda: ScriptedProbe("settings endpoint"))
    ledger: LedgerOnFile = field(default_factory=LedgerOnFile)
    now: datetime = NOW
    opened: list[tuple[str, FakeTransport]] = field(default_factory=list)
    unreadable: bool = False

    def open(self) -> CredentialWatch:
        """Start the program, which is about to send."""
        watch = self.look()
        watch.begin()
        return watch

    def look(self) -> CredentialWatch:
        """Start a command that only looks."""
        return CredentialWatch(
            connector=NAME,
            ledger=self.ledger,
            read_keys=self._read,
            open_transport=self._open,
            probes=[self.probe, self.second_probe],
            endpoint_url=ENDPOINT,
            now=lambda: self.now,
        )

    def _read(self) -> list[SecretStr]:
        if self.unreadable:
            raise ConfigError([ConfigProblem("write_key", "cannot be read")])
        return [SecretStr(key) for key in self.keys]

    def _open(self, key: SecretStr) -> Transport:
        transport = FakeTransport()
        self.opened.append((key.get_secret_value(), transport))
        return transport

    def credential(self) -> Credential:
        """What the ledger knows of the write key."""
        return self.ledger.credential(NAME, Side.DESTINATION)

    def deliver_one(self) -> None:
        """Have one object delivered, as far as the ledger knows."""
        self.ledger.admit(NAME, [an_object(f"key-{self.now:%H%M}")], self.now)
        (claimed,) = self.ledger.claim(NAME, BOTH, NO_LIMITS, self.now)
        self.ledger.settle([Delivered(claimed.id, Books(read=3, sent=3))], self.now)


@pytest.fixture
def place() -> Place:
    """A place with one key."""
    return Place()


def in_use(watch: CredentialWatch) -> str:
    """Return the key that is used."""
    return watch.key.get_secret_value()


def test_the_ledger_never_sees_the_key(place: Place) -> None:
    """Only a fingerprint, which differs by key and by endpoint."""
    place.open()
    key = SecretStr(OLD)
    assert place.credential().key == fingerprint(key, ENDPOINT)
    assert OLD not in repr(place.credential())
    assert len({fingerprint(key, ENDPOINT), fingerprint(SecretStr(NEW), ENDPOINT), fingerprint(key, "http://x")}) == 3


@pytest.mark.parametrize(("key", "shaped"), [(OLD, True), ("short", False), ("ü" * 32, False), ("-" * 32, False)])
def test_a_write_key_has_32_letters_and_digits(key: str, shaped: bool) -> None:  # noqa: FBT001
    """As Segment gives them out."""
    assert has_key_shape(SecretStr(key)) is shaped


def test_the_strongest_probe_that_can_tell_is_heard(place: Place) -> None:
    """The others are not asked then."""
    place.probe.says[OLD] = K.CONFIRMED
    place.open().probe()
    assert place.credential().state is S.VERIFIED
    assert place.second_probe.asked == []


def test_a_probe_that_fails_is_no_evidence_and_the_next_one_is_asked(place: Place) -> None:
    """It leaves a notice for as long as it fails."""
    watch = place.open()
    place.probe.says[OLD] = ProbeError("the token was refused", "make a new token")
    place.second_probe.says[OLD] = K.KNOWN
    watch.probe()
    assert place.credential().state is S.UNVERIFIED
    (notice,) = place.ledger.totals(NAME).notices
    assert (notice.kind, notice.subject, notice.detail) == (
        NoticeKind.PROBE,
        "Public API",
        "the token was refused; make a new token",
    )
    place.probe.says[OLD] = K.CONFIRMED
    watch.probe()
    assert place.ledger.totals(NAME).notices == []


def test_events_that_were_counted_are_not_counted_again(place: Place) -> None:
    """The next question is about those since."""
    watch = place.open()
    watch.acknowledged(7)
    watch.acknowledged(0)
    place.probe.says[OLD] = K.RECEIVED
    watch.probe()
    place.now += timedelta(minutes=1)
    watch.acknowledged(5)
    watch.probe()
    assert [events for _, events in place.probe.asked] == [[7], [5]]


def test_events_that_a_proof_does_not_reach_are_counted_by_the_next_one(place: Place) -> None:
    """They were too new."""
    watch = place.open()
    watch.acknowledged(7)
    place.now += timedelta(minutes=3)
    watch.acknowledged(5)
    place.probe.says[OLD] = K.RECEIVED
    place.probe.reaches = timedelta(minutes=2)
    watch.probe()
    watch.probe()
    assert [events for _, events in place.probe.asked] == [[7, 5], [5]]


@pytest.mark.parametrize(
    "key", ['"quoted-write-key-of-32-characters', "$SEGMENT_WRITE_KEY", OLD[:31], f"\ufeff{OLD[:31]}"]
)
def test_a_key_of_odd_shape_is_a_warning_at_each_start(place: Place, key: str) -> None:
    """Segment answers 200 to it, and drops everything."""
    place.keys = [key]
    with capture_logs() as lines:
        place.open()
    assert [line["event"] for line in lines] == ["write_key_has_an_odd_shape"]
    assert key not in repr(lines)


def test_a_later_process_asks_about_what_an_earlier_one_sent(place: Place) -> None:
    """As `once` by cron, whose events are too new to be counted when it ends."""
    place.open().acknowledged(7)
    place.now += timedelta(minutes=30)
    place.open().probe()
    assert [events for _, events in place.probe.asked] == [[7]]


def test_probes_are_asked_no_more_often_than_is_asked_for_whoever_asks(place: Place) -> None:
    """`once` by the minute must not use up the Public API's rate."""
    for _ in range(11):
        place.open().probe(timedelta(minutes=5))
        place.now += timedelta(minutes=1)
    assert len(place.probe.asked) == 3


def test_a_probe_that_is_not_needed_any_more_does_not_fail(place: Place) -> None:
    """What it said while the stronger one was away is over."""
    watch = place.open()
    place.probe.says[OLD] = place.second_probe.says[OLD] = ProbeError("no answer")
    watch.probe()
    assert [notice.subject for notice in place.ledger.totals(NAME).notices] == ["Public API", "settings endpoint"]
    place.probe.says[OLD] = K.CONFIRMED
    watch.probe()
    assert place.ledger.totals(NAME).notices == []


class TestReplacedKeys:
    """What was acknowledged belongs to the key that sent it."""

    @pytest.fixture
    def used(self, place: Place) -> CredentialWatch:
        """A key that was proven, and then used for one object more."""
        watch = place.open()
        place.probe.says[OLD] = K.CONFIRMED
        watch.probe()
        place.now += timedelta(minutes=1)
        place.deliver_one()
        watch.acknowledged(3)
        place.now += timedelta(minutes=1)
        place.keys = [NEW]
        return watch

    def waits(self, place: Place) -> int:
        """Return how many objects are sent again."""
        return place.ledger.totals(NAME).waiting.objects

    def test_a_key_that_died_unseen_has_its_last_events_sent_again(self, place: Place, used: CredentialWatch) -> None:
        """It is asked a last time."""
        place.probe.says[OLD] = K.REVOKED
        used.ask_for_renewal()
        used.renew()
        assert (in_use(used), self.waits(place)) == (NEW, 1)

    def test_a_key_that_cannot_be_asked_any_more_has_its_last_events_sent_again(
        self, place: Place, used: CredentialWatch
    ) -> None:
        """After a restart nobody knows it."""
        used.close()
        place.open()
        assert self.waits(place) == 1

    def test_a_key_that_is_confirmed_to_the_end_has_nothing_sent_again(
        self, place: Place, used: CredentialWatch
    ) -> None:
        """Although its latest events cannot be counted yet."""
        place.probe.reaches, place.probe.shows_keys = timedelta(minutes=2), True
        used.ask_for_renewal()
        used.renew()
        assert (in_use(used), self.waits(place)) == (NEW, 0)

    def test_the_new_key_does_not_answer_for_the_old_one(self, place: Place, used: CredentialWatch) -> None:
        """Nothing that the old one sent is counted against it."""
        place.probe.shows_keys = True
        used.ask_for_renewal()
        used.renew()
        place.probe.asked.clear()
        used.probe()
        assert place.probe.asked == [(NEW, [])]

    def test_where_no_probe_ever_spoke_a_notice_says_what_cannot_be_told(self, place: Place) -> None:
        """Nothing is sent again: it would be everything."""
        watch = place.open()
        place.deliver_one()
        watch.acknowledged(3)
        place.now += timedelta(minutes=1)
        place.keys = [NEW]
        watch.ask_for_renewal()
        watch.renew()
        (notice,) = place.ledger.totals(NAME).notices
        assert (notice.kind, self.waits(place)) == (NoticeKind.UNPROVEN, 0)
        assert notice.detail.startswith("3 events acknowledged from 2026-03-04 12:00 UTC")

    def test_that_notice_ends_after_a_week(self, place: Place) -> None:
        """Nothing that comes later can tell."""
        self.test_where_no_probe_ever_spoke_a_notice_says_what_cannot_be_told(place)
        place.now += timedelta(days=7)
        place.open().probe()
        assert place.ledger.totals(NAME).notices == []


def test_a_dead_key_rewinds_what_was_acknowledged_since_the_last_proof(place: Place) -> None:
    """What came before the proof stays delivered."""
    watch = place.open()
    place.deliver_one()
    place.now += timedelta(minutes=1)
    place.probe.says[OLD] = K.CONFIRMED
    watch.probe()
    place.now += timedelta(minutes=1)
    place.deliver_one()
    place.now += timedelta(minutes=1)
    place.probe.says[OLD] = K.REVOKED
    watch.probe()
    totals = place.ledger.totals(NAME)
    assert (totals.rewound.objects, totals.rewound.events, totals.waiting.objects, totals.books.sent) == (1, 3, 1, 3)
    assert watch.sending() is Sending.NONE


def test_events_that_are_sent_again_are_no_longer_counted(place: Place) -> None:
    """What a dead key was told must not speak against it once it lives again."""
    watch = place.open()
    watch.acknowledged(7)
    place.probe.says[OLD] = K.REVOKED
    watch.probe()
    watch.probe()
    assert [events for _, events in place.probe.asked] == [[7], []]


def test_a_restart_goes_on_in_the_same_incident(place: Place) -> None:
    """Neither the state nor the start of its window is forgotten."""
    watch = place.open()
    place.probe.says[OLD] = K.REVOKED
    watch.probe()
    before = place.credential()
    place.now += timedelta(hours=5)
    assert place.open().sending() is Sending.NONE
    assert place.credential() == before


def test_a_key_that_was_replaced_is_used_once_the_old_one_fails(place: Place) -> None:
    """Without a restart, and what the old one was told is sent again."""
    watch = place.open()
    place.deliver_one()
    place.probe.says[OLD] = K.REVOKED
    watch.probe()
    watch.renew()
    assert in_use(watch) == OLD
    place.keys = [NEW]
    watch.renew()
    assert (in_use(watch), watch.sending()) == (NEW, Sending.ALL)
    assert [key for key, _ in place.opened] == [OLD, NEW]
    assert place.opened[0][1].closed
    assert place.ledger.totals(NAME).waiting.objects == 1


def test_secrets_are_not_read_while_all_is_well(place: Place) -> None:
    """Unless that is asked for."""
    watch = place.open()
    place.keys = [NEW]
    watch.renew()
    assert in_use(watch) == OLD
    watch.ask_for_renewal()
    watch.renew()
    assert in_use(watch) == NEW


def test_secrets_that_cannot_be_read_now_leave_the_key_in_use(place: Place) -> None:
    """A failing secret store is no reason to stop."""
    watch = place.open()
    place.unreadable = True
    watch.ask_for_renewal()
    watch.renew()
    assert in_use(watch) == OLD


@pytest.mark.parametrize("says", [K.CONFIRMED, K.KNOWN, ProbeError("no answer"), None])
def test_the_newer_of_two_keys_is_used_when_nothing_speaks_against_it(
    place: Place, says: EvidenceKind | ProbeError | None
) -> None:
    """It is asked about first; nothing is sent again, since the old key was well."""
    watch = place.open()
    place.deliver_one()
    if says:
        place.probe.says[NEW] = says
    place.keys = [OLD, NEW]
    watch.ask_for_renewal()
    watch.renew()
    assert [key for key, _ in place.probe.asked] == [NEW, OLD]
    assert in_use(watch) == NEW
    assert place.ledger.totals(NAME).waiting.objects == 0


def test_a_newer_key_that_is_refused_is_not_used_until_it_is_known(place: Place) -> None:
    """The old one is used on, and a notice stands meanwhile."""
    watch = place.open()
    place.keys = [OLD, NEW]
    place.probe.says = {OLD: K.CONFIRMED, NEW: K.REVOKED}
    watch.ask_for_renewal()
    watch.renew()
    assert in_use(watch) == OLD
    (notice,) = place.ledger.totals(NAME).notices
    assert (notice.kind, notice.detail) == (NoticeKind.ROTATION, "saw revoked")
    place.probe.says[NEW] = K.CONFIRMED
    watch.probe()
    watch.renew()
    assert in_use(watch) == NEW
    assert place.ledger.totals(NAME).notices == []


def test_a_newer_key_that_fails_in_use_gives_way_to_the_older_one(place: Place) -> None:
    """And does not come back before something speaks for it."""
    place.keys = [OLD, NEW]
    watch = place.open()
    assert in_use(watch) == NEW
    watch.denied(CredentialError(Side.DESTINATION, "answered 401", "check the key"))
    watch.renew()
    assert (in_use(watch), watch.sending()) == (OLD, Sending.ALL)
    watch.probe()
    watch.renew()
    assert in_use(watch) == OLD
    place.probe.says[NEW] = K.CONFIRMED
    watch.probe()
    watch.renew()
    assert in_use(watch) == NEW


def test_the_key_that_was_in_use_is_used_again_after_a_restart(place: Place) -> None:
    """The newer one still has to be asked about."""
    place.open()
    place.keys = [OLD, NEW]
    place.probe.says[NEW] = K.REVOKED
    watch = place.open()
    assert in_use(watch) == OLD
    watch.renew()
    assert in_use(watch) == OLD


def test_a_command_that_only_looks_changes_nothing_for_a_key_of_its_own(place: Place) -> None:
    """A shell may hold another key than the daemon; what a probe says of it is not kept."""
    place.open()
    before = place.credential()
    place.keys = [NEW]
    place.probe.says[NEW] = K.REVOKED
    place.look().probe()
    assert place.probe.asked == [(NEW, [])]
    assert place.credential() == before


def test_a_check_before_the_first_run_leaves_no_verdict_on_a_key(place: Place) -> None:
    """Whatever key it was, the first run begins without one."""
    place.probe.says[OLD] = K.REVOKED
    place.look().probe()
    place.keys = [NEW]
    assert place.open().sending() is Sending.ALL


def test_another_endpoint_is_another_destination(place: Place) -> None:
    """As a region that was mended: what went to the wrong one is sent again."""
    watch = place.open()
    place.deliver_one()
    place.probe.says[OLD] = K.NOT_RECEIVED
    watch.probe()
    place.now += timedelta(minutes=1)
    mended = CredentialWatch(
        connector=NAME,
        ledger=place.ledger,
        read_keys=lambda: [SecretStr(OLD)],
        open_transport=lambda _: FakeTransport(),
        probes=[],
        endpoint_url="https://events.eu1.segmentapis.com",
        now=lambda: place.now,
    )
    mended.begin()
    assert mended.sending() is Sending.ALL
    assert place.ledger.totals(NAME).rewound.events == 3


def test_each_side_has_a_credential_of_its_own(place: Place) -> None:
    """Trouble with S3 says nothing of the write key."""
    watch = place.open()
    watch.denied(CredentialError(Side.SOURCE, "cannot list s3://acme", "grant s3:ListBucket"))
    assert watch.credential(Side.SOURCE).state is S.FAILING
    assert watch.sending() is Sending.ALL
    watch.worked(Side.SOURCE, "S3 answers")
    assert watch.credential(Side.SOURCE).state is S.VERIFIED


def test_whether_the_keys_changed_is_said_to_whoever_asked(place: Place) -> None:
    """Once for each time, also where nothing did."""
    watch = place.open()
    with capture_logs() as logs:
        watch.ask_for_renewal()
        watch.renew()
        place.keys = [NEW]
        watch.ask_for_renewal()
        watch.renew()
        watch.renew()

    assert [line["changed"] for line in logs if line["event"] == "write_keys_read"] == [False, True]
