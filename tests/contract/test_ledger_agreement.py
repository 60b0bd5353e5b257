"""SqlLedger answers as the fake does, whatever is asked of it in whatever order."""

import tempfile
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from currents_bridge.adapters.ledger import SqlLedger
from currents_bridge.model import (
    Books,
    ClaimedObject,
    CurrentsObject,
    DeadLetter,
    Delivered,
    Failed,
    GroupLimits,
    Quarantined,
    Selection,
    Settlement,
)
from currents_bridge.testing.fake_ledger import FakeLedger

START = datetime(2026, 3, 4, 12, tzinfo=UTC)
HOURS = [START - timedelta(hours=number) for number in range(3)]

times = st.sampled_from([*HOURS, START - timedelta(minutes=90)])
event_types = st.sampled_from(["Click", "Open"])
listings = st.lists(
    st.builds(
        lambda number, etag, size: CurrentsObject(
            f"{number:02}", etag, size, HOURS[number % 3], ["Click", "Open"][number % 2], HOURS[number % 3]
        ),
        st.integers(0, 17),
        st.sampled_from(["etag-1", "etag-1", "etag-2"]),
        st.integers(1, 100),
    ),
    max_size=12,
    unique_by=lambda item: item.key,
)
selections = st.builds(Selection, st.frozensets(event_types), st.none() | times, st.none() | times)


class Agreement(RuleBasedStateMachine):
    """Two owners on each side, one clock, one connector."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = START
        url = f"sqlite:///{Path(self.folder.name) / 'ledger.sqlite3'}"
        first = FakeLedger()
        self.fakes = (first, FakeLedger(first.memory))
        self.reals = (SqlLedger(url, now=START), SqlLedger(url, now=START))
        self.claimed: list[tuple[int, ClaimedObject, ClaimedObject]] = []  # owner, on the fake, on SQLite

    @rule(seconds=st.integers(1, 100))
    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    @rule(listed=listings)
    def admit(self, listed: list[CurrentsObject]) -> None:
        """See a listing."""
        assert self.reals[0].outstanding("acme", listed) == self.fakes[0].outstanding("acme", listed)
        assert self.reals[0].admit("acme", listed, self.now) == self.fakes[0].admit("acme", listed, self.now)

    @rule(owner=st.integers(0, 1), selection=selections, max_bytes=st.integers(1, 300), max_objects=st.integers(1, 9))
    def claim(self, owner: int, selection: Selection, max_bytes: int, max_objects: int) -> None:
        """Claim a group."""
        limits = GroupLimits(max_bytes, max_objects)
        fake = self.fakes[owner].claim("acme", selection, limits, self.now)
        real = self.reals[owner].claim("acme", selection, limits, self.now)
        assert [(c.object, c.attempts) for c in real] == [(c.object, c.attempts) for c in fake]
        self.claimed += [(owner, *pair) for pair in zip(fake, real, strict=True)]

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), outcome=st.sampled_from(["delivered", "delivered", "failed", "quarantined", "released"]))
    def finish(self, data: st.DataObject, outcome: str) -> None:
        """End one claim, which may have been lost by now."""
        owner, fake, real = data.draw(st.sampled_from(self.claimed))
        self.claimed.remove((owner, fake, real))
        if outcome == "released":
            self.fakes[owner].release([fake.id])
            self.reals[owner].release([real.id])
            return
        settlements: dict[str, Settlement] = {
            "delivered": Delivered(0, Books(3, 1, 1, 0, 1), [DeadLetter(0, "m", "too large", "{}")]),
            "failed": Failed(0, "429", self.now + timedelta(seconds=50)),
            "quarantined": Quarantined(0, "no Avro"),
        }
        lost = []
        for ledger, claimed in ((self.fakes[owner], fake), (self.reals[owner], real)):
            try:
                ledger.settle([replace(settlements[outcome], id=claimed.id)], self.now)
                lost.append(False)
            except RuntimeError:
                lost.append(True)
        assert lost[0] == lost[1]

    @rule(owner=st.integers(0, 1))
    def heartbeat(self, owner: int) -> None:
        """Say that one owner lives."""
        self.fakes[owner].heartbeat(self.now)
        self.reals[owner].heartbeat(self.now)

    @rule(owner=st.integers(0, 1))
    def reclaim(self, owner: int) -> None:
        """Look for dead owners."""
        assert self.reals[owner].reclaim(self.now) == self.fakes[owner].reclaim(self.now)

    @rule(selection=selections)
    def reopen(self, selection: Selection) -> None:
        """Send again."""
        assert self.reals[0].reopen("acme", selection) == self.fakes[0].reopen("acme", selection)

    @rule(before=times)
    def fold(self, before: datetime) -> None:
        """Fold what can be folded."""
        assert self.reals[0].fold("acme", before) == self.fakes[0].fold("acme", before)

    @invariant()
    def totals_agree(self) -> None:
        """Both hold the same."""
        real, fake = self.reals[0], self.fakes[0]
        assert real.totals("acme") == fake.totals("acme")
        assert real.books_by_type("acme") == fake.books_by_type("acme")

    def teardown(self) -> None:
        """Close the files."""
        for ledger in self.reals:
            ledger.close()
        self.folder.cleanup()


# Shrinking opens hundreds of ledgers and takes minutes: add Phase.shrink to study a failure.
Agreement.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
TestAgreement = Agreement.TestCase
