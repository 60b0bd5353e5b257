"""SqlLedger answers as the fake does, whatever is asked of it in whatever order."""

import tempfile
from dataclasses import astuple, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
import polars as pl
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from currents_bridge.adapters.ledger import SqlLedger
from currents_bridge.errors import ClaimLostError
from currents_bridge.model import (
    Books,
    Checkpoint,
    ClaimedObject,
    CurrentsObject,
    DeadLetter,
    Delivered,
    Failed,
    GroupLimits,
    LetterFilter,
    Quarantined,
    Selection,
    Settlement,
)
from currents_bridge.ports import Ledger
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
EVERYTHING = Selection(frozenset({"Click", "Open"}))
ALL_LETTERS = LetterFilter()
ALL_IDS = pl.Series([f"m-{number}" for number in range(8)])
some_ids = st.none() | st.lists(st.integers(0, 7), max_size=4).map(ALL_IDS.gather)
reasons = st.sampled_from(["too large", "no time"])
row_sets = st.sets(st.integers(0, 9), max_size=3)
filters = st.builds(
    LetterFilter,
    connector=st.sampled_from([None, "acme", "beta"]),
    event_type=st.sampled_from([None, "C*", "*"]),
    reason=st.sampled_from([None, "LARGE", "no"]),
)


def letters_of(rows: set[int], reason: str) -> list[DeadLetter]:
    """Return one dead letter a row."""
    return [DeadLetter(row, f"m-{row}", reason, "{}") for row in sorted(rows)]


def books_of(letters: int) -> Books:
    """Return balanced books of 10 rows, so many of which are dead letters."""
    return Books(10, 9 - letters, 1, 0, letters)


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
        assert self.reals[0].recorded("acme", listed) == self.fakes[0].recorded("acme", listed)
        assert self.reals[0].outstanding("acme", listed) == self.fakes[0].outstanding("acme", listed)
        assert self.reals[0].admit("acme", listed, self.now) == self.fakes[0].admit("acme", listed, self.now)

    @rule(owner=st.integers(0, 1), selection=selections, max_bytes=st.integers(1, 300), max_objects=st.integers(1, 9))
    def claim(self, owner: int, selection: Selection, max_bytes: int, max_objects: int) -> None:
        """Claim a group."""
        limits = GroupLimits(max_bytes, max_objects)
        fake = self.fakes[owner].claim("acme", selection, limits, self.now)
        real = self.reals[owner].claim("acme", selection, limits, self.now)
        assert [replace(claimed, id=0) for claimed in real] == [replace(claimed, id=0) for claimed in fake]
        self.claimed += [(owner, *pair) for pair in zip(fake, real, strict=True)]

    @precondition(lambda self: self.claimed)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["delivered", "delivered", "failed", "quarantined", "released"]),
        rows=row_sets,
        reason=reasons,
        ids=some_ids,
    )
    def finish(self, data: st.DataObject, outcome: str, rows: set[int], reason: str, ids: pl.Series | None) -> None:
        """End one claim, which may have been lost by now."""
        owner, fake, real = data.draw(st.sampled_from(self.claimed))
        self.claimed.remove((owner, fake, real))
        if outcome == "released":
            self.fakes[owner].release([fake.id])
            self.reals[owner].release([real.id])
            return
        behind = {row for row in rows if row >= fake.checkpoint.rows}
        books = books_of(len(behind) + fake.checkpoint.books.dead_lettered)
        letters = letters_of(behind, reason)
        settlements: dict[str, Settlement] = {
            "delivered": Delivered(0, books, letters, ids),
            "failed": Failed(0, "429", self.now + timedelta(seconds=50)),
            "quarantined": Quarantined(0, "cut", books, letters, ids),
        }

        def settle(ledger: Ledger, claimed: ClaimedObject) -> bool:
            try:
                ledger.settle([replace(settlements[outcome], id=claimed.id)], self.now)
            except ClaimLostError:
                return False
            return True

        assert settle(self.reals[owner], real) == settle(self.fakes[owner], fake)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), rows=st.integers(1, 6), reason=reasons, ids=some_ids)
    def checkpoint(self, data: st.DataObject, rows: int, reason: str, ids: pl.Series | None) -> None:
        """Go on inside one object, whose claim may have been lost by now."""
        owner, fake, real = data.draw(st.sampled_from(self.claimed))
        reached = Checkpoint(rows, Books(rows, rows - 1, dead_lettered=1))

        def record(ledger: Ledger, claimed: ClaimedObject) -> bool:
            try:
                ledger.checkpoint(claimed.id, reached, letters_of({rows - 1}, reason), self.now, ids)
            except ClaimLostError:
                return False
            return True

        assert record(self.reals[owner], real) == record(self.fakes[owner], fake)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def clear_suspicion(self, data: st.DataObject) -> None:
        """Read one object through."""
        owner, fake, real = data.draw(st.sampled_from(self.claimed))
        self.fakes[owner].clear_suspicion(fake.id)
        self.reals[owner].clear_suspicion(real.id)

    @precondition(lambda self: self.claimed)
    @rule(data=st.data())
    def begin_trial(self, data: st.DataObject) -> None:
        """Begin to decode one object."""
        owner, fake, real = data.draw(st.sampled_from(self.claimed))
        self.fakes[owner].begin_trial(fake.id)
        self.reals[owner].begin_trial(real.id)

    @rule(owner=st.integers(0, 1))
    def heartbeat(self, owner: int) -> None:
        """Say that one owner lives."""
        self.fakes[owner].heartbeat(self.now)
        self.reals[owner].heartbeat(self.now)

    @rule(owner=st.integers(0, 1))
    def reclaim(self, owner: int) -> None:
        """Look for dead owners."""
        assert self.reals[owner].reclaim(self.now) == self.fakes[owner].reclaim(self.now)

    @rule(survivor=st.integers(0, 1))
    def crash(self, survivor: int) -> None:
        """Let one owner be silent for longer than its lease."""
        self.now += timedelta(seconds=91)
        self.heartbeat(survivor)
        self.reclaim(survivor)

    @rule(which=filters, limit=st.none() | st.integers(0, 3), refusal=st.none() | reasons)
    def replay_letters(self, which: LetterFilter, limit: int | None, refusal: str | None) -> None:
        """Replay the oldest letters that a filter lets through."""
        fakes, reals = self.fakes[0].dead_letters(which, limit), self.reals[0].dead_letters(which, limit)
        assert [replace(stored, id=0) for stored in reals] == [replace(stored, id=0) for stored in fakes]
        for fake, real in zip(fakes, reals, strict=True):
            assert self.reals[0].replayed(real.id, refusal, self.now)
            assert self.fakes[0].replayed(fake.id, refusal, self.now)
            again = self.reals[0].replayed(real.id, None, self.now)
            assert again == self.fakes[0].replayed(fake.id, None, self.now)

    @rule(which=filters)
    def purge(self, which: LetterFilter) -> None:
        """Delete letters."""
        assert self.reals[0].purge(which) == self.fakes[0].purge(which)

    @rule(of_which=st.lists(st.booleans(), min_size=1, max_size=3))
    def replay_quarantined(self, of_which: list[bool]) -> None:
        """Give some quarantined objects another chance."""
        fakes, reals = self.fakes[0].quarantined("acme"), self.reals[0].quarantined(None)
        chosen = [number for number in range(len(fakes)) if of_which[number % len(of_which)]]
        done = self.fakes[0].replay_quarantined([fakes[number].id for number in chosen])
        assert self.reals[0].replay_quarantined([reals[number].id for number in chosen]) == done == len(chosen)

    @rule(age_s=st.integers(0, 300))
    def forget(self, age_s: int) -> None:
        """Forget what was sent so long ago."""
        before = self.now - timedelta(seconds=age_s)
        assert self.reals[0].forget("acme", before) == self.fakes[0].forget("acme", before)

    @rule(selection=selections)
    def reopen(self, selection: Selection) -> None:
        """Send again."""
        assert self.reals[0].reopen("acme", selection) == self.fakes[0].reopen("acme", selection)

    @rule(selection=selections)
    def hasten(self, selection: Selection) -> None:
        """Wait no longer."""
        assert self.reals[0].hasten("acme", selection) == self.fakes[0].hasten("acme", selection)

    @rule(before=times, age_s=st.integers(0, 300))
    def fold(self, before: datetime, age_s: int) -> None:
        """Fold what can be folded."""
        settled_before = self.now - timedelta(seconds=age_s)
        real, fake = (
            self.reals[0].fold("acme", before, settled_before),
            self.fakes[0].fold("acme", before, settled_before),
        )
        assert real == fake

    @rule(owner=st.integers(0, 1), age_s=st.integers(0, 300))
    def rewind(self, owner: int, age_s: int) -> None:
        """Find the key dead for so long; the claims of all owners are lost."""
        since = self.now - timedelta(seconds=age_s)
        rewound = self.reals[owner].rewind("acme", since, self.now)
        assert rewound == self.fakes[owner].rewind("acme", since, self.now)

    @rule(before=times, reason=reasons)
    def set_aside(self, before: datetime, reason: str) -> None:
        """Let old objects wait no longer."""
        real, fake = (of[0].set_aside("acme", before, reason, self.now) for of in (self.reals, self.fakes))
        assert real == fake

    @invariant()
    def totals_agree(self) -> None:
        """Both hold the same."""
        real, fake = self.reals[0], self.fakes[0]
        lately = self.now - timedelta(seconds=100)
        assert real.totals("acme") == fake.totals("acme")
        assert real.books_by_type("acme") == fake.books_by_type("acme")
        assert real.hour_books("acme", EVERYTHING) == fake.hour_books("acme", EVERYTHING)
        assert real.activity("acme", HOURS[1]) == fake.activity("acme", HOURS[1])
        assert real.dead_lettered("acme", lately) == fake.dead_lettered("acme", lately)
        assert [replace(found, id=0) for found in real.quarantined("acme")] == [
            replace(found, id=0) for found in fake.quarantined("acme")
        ]
        assert [replace(stored, id=0) for stored in real.dead_letters(ALL_LETTERS)] == [
            replace(stored, id=0) for stored in fake.dead_letters(ALL_LETTERS)
        ]
        remembered = [ledger.remembered("acme", ALL_IDS, self.now) for ledger in (real, fake)]
        assert remembered[0].equals(remembered[1])

    @invariant()
    def books_balance(self) -> None:
        """No sequence of steps loses an event, makes one up, or counts one below none."""
        by_hour = self.reals[0].hour_books("acme", EVERYTHING)
        assert all(hour.books.balanced and min(astuple(hour.books)) >= 0 for hour in by_hour)
        by_type = self.reals[0].books_by_type("acme").values()
        assert sum((hour.books for hour in by_hour), Books()) == self.reals[0].totals("acme").books
        assert sum(by_type, Books()) == self.reals[0].totals("acme").books

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
