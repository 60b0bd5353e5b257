"""The laws of the ledger hold whatever is asked of it, in whatever order."""

import tempfile
from contextlib import suppress
from dataclasses import astuple
from datetime import UTC, datetime, timedelta
from pathlib import Path

import hypothesis.strategies as st
import polars as pl
from hypothesis import Phase, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from currents_bridge.errors import ClaimLostError
from currents_bridge.ledger.sql_ledger import SqlLedger
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
    ObjectState,
    Quarantined,
    Recorded,
    Selection,
    Settlement,
)
from tests.ledger_workbench import drifted_totals, remembered

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


class Laws(RuleBasedStateMachine):
    """Two owners of one ledger, one clock, one connector."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.now = START
        self.path = Path(self.folder.name) / "ledger.sqlite3"
        url = f"sqlite:///{self.path}"
        self.owners = (SqlLedger(url, now=START), SqlLedger(url, now=START))
        self.claimed: list[tuple[int, ClaimedObject]] = []  # by which owner; the claim may be lost by now
        self.listed: dict[str, CurrentsObject] = {}  # every object that was ever admitted, as it was last seen
        self.sent_ids: set[str] = set()

    @property
    def ledger(self) -> SqlLedger:
        """The owner that asks what any owner may ask."""
        return self.owners[0]

    @rule(seconds=st.integers(1, 100))
    def wait(self, seconds: int) -> None:
        """Let time pass."""
        self.now += timedelta(seconds=seconds)

    @rule(listed=listings)
    def admit(self, listed: list[CurrentsObject]) -> None:
        """See a listing: what was unknown is new, and outstanding from then on."""
        unknown = [
            item
            for item, recorded in zip(listed, self.ledger.recorded("acme", listed), strict=True)
            if recorded is Recorded.UNKNOWN
        ]
        new, _ = self.ledger.admit("acme", listed, self.now)
        self.listed |= {item.key: item for item in listed}
        assert new == len(unknown)
        assert self.ledger.outstanding("acme", unknown) == unknown
        assert self.ledger.admit("acme", listed, self.now)[0] == 0

    @rule(owner=st.integers(0, 1), selection=selections, max_bytes=st.integers(1, 300), max_objects=st.integers(1, 9))
    def claim(self, owner: int, selection: Selection, max_bytes: int, max_objects: int) -> None:
        """Claim a group: of the selection, within the limits, and nobody else's."""
        group = self.owners[owner].claim("acme", selection, GroupLimits(max_bytes, max_objects), self.now)
        assert len(group) <= max_objects
        assert len(group) == 1 or sum(claimed.object.size_bytes for claimed in group) <= max_bytes
        assert len(group) == 1 or not any(claimed.suspect for claimed in group)
        assert all(claimed.object.event_type in selection.event_types for claimed in group)
        held = {claimed.id for _, claimed in self.claimed}
        assert not held & {claimed.id for claimed in group}
        self.claimed += [(owner, claimed) for claimed in group]

    @precondition(lambda self: self.claimed)
    @rule(
        data=st.data(),
        outcome=st.sampled_from(["delivered", "delivered", "failed", "quarantined", "released"]),
        rows=row_sets,
        reason=reasons,
        ids=some_ids,
    )
    def finish(self, data: st.DataObject, outcome: str, rows: set[int], reason: str, ids: pl.Series | None) -> None:
        """End one claim, which may have been lost by now; then nothing is recorded."""
        owner, claimed = data.draw(st.sampled_from(self.claimed))
        self.claimed.remove((owner, claimed))
        ledger = self.owners[owner]
        if outcome == "released":
            ledger.release([claimed.id])
            return
        fresh = {row for row in rows if row >= claimed.checkpoint.rows}
        books = books_of(len(fresh) + claimed.checkpoint.books.dead_lettered)
        settlements: dict[str, Settlement] = {
            "delivered": Delivered(claimed.id, books, letters_of(fresh, reason), ids),
            "failed": Failed(claimed.id, "429", self.now + timedelta(seconds=50)),
            "quarantined": Quarantined(claimed.id, "cut", books, letters_of(fresh, reason), ids),
        }
        before = ledger.totals("acme")
        try:
            ledger.settle([settlements[outcome]], self.now)
        except ClaimLostError:
            assert ledger.totals("acme") == before
            return
        if outcome == "failed":
            assert ledger.totals("acme").books == before.books
            return
        assert ledger.totals("acme").books == before.books + books
        if ids is not None:
            self.sent_ids |= set(ids)
            assert remembered(ledger, "acme", ids).all()

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), rows=st.integers(1, 6), reason=reasons, ids=some_ids)
    def checkpoint(self, data: st.DataObject, rows: int, reason: str, ids: pl.Series | None) -> None:
        """Go on inside one object, whose claim may have been lost by now; it counts once it is settled."""
        owner, claimed = data.draw(st.sampled_from(self.claimed))
        reached = Checkpoint(rows, Books(rows, rows - 1, dead_lettered=1))
        before = self.ledger.totals("acme").books
        with suppress(ClaimLostError):
            self.owners[owner].checkpoint(claimed.id, reached, letters_of({rows - 1}, reason), self.now, ids)
            self.sent_ids |= set(() if ids is None else ids)
        assert self.ledger.totals("acme").books == before

    @precondition(lambda self: self.claimed)
    @rule(data=st.data(), survived=st.booleans())
    def trial(self, data: st.DataObject, survived: bool) -> None:  # noqa: FBT001 - drawn by Hypothesis
        """Try one object."""
        owner, claimed = data.draw(st.sampled_from(self.claimed))
        self.owners[owner].begin_trial(claimed, 0)
        if survived:
            self.owners[owner].clear_suspicion(claimed.id)

    @rule(survivor=st.integers(0, 1))
    def crash(self, survivor: int) -> None:
        """Let one owner be silent for longer than its lease."""
        self.now += timedelta(seconds=91)
        self.owners[survivor].heartbeat(self.now)
        self.owners[survivor].reclaim("acme", self.now)

    @rule(which=filters, limit=st.none() | st.integers(0, 3), refusal=st.none() | reasons)
    def replay_letters(self, which: LetterFilter, limit: int | None, refusal: str | None) -> None:
        """Replay the oldest letters that a filter lets through; what was taken is no letter any more."""
        for stored in self.ledger.dead_letters(which, limit):
            assert self.ledger.replayed({stored.id: refusal}, self.now)
            assert bool(self.ledger.replayed({stored.id: None}, self.now)) is (refusal is not None)

    @rule(which=filters)
    def purge(self, which: LetterFilter) -> None:
        """Delete letters, which leaves the books alone."""
        before = self.ledger.totals("acme").books
        found = len(self.ledger.dead_letters(which))
        assert self.ledger.purge(which) == found
        assert self.ledger.dead_letters(which) == []
        assert self.ledger.totals("acme").books == before

    @rule(of_which=st.lists(st.booleans(), min_size=1, max_size=3))
    def replay_quarantined(self, of_which: list[bool]) -> None:
        """Give some quarantined objects another chance."""
        found = self.ledger.quarantined("acme")
        chosen = [item for number, item in enumerate(found) if of_which[number % len(of_which)]]
        assert self.ledger.replay_quarantined([item.id for item in chosen], self.now) == len(chosen)
        objects = [item.object for item in chosen]
        assert self.ledger.outstanding("acme", objects) == objects

    @rule(age_s=st.integers(0, 300))
    def forget(self, age_s: int) -> None:
        """Forget what was sent so long ago."""
        self.ledger.forget("acme", self.now - timedelta(seconds=age_s))

    @rule(selection=selections)
    def hasten(self, selection: Selection) -> None:
        """Wait no longer."""
        self.ledger.hasten("acme", selection)

    @rule(before=times, age_s=st.integers(0, 300))
    def fold(self, before: datetime, age_s: int) -> None:
        """Fold what can be folded: nothing else changes, and nothing is sent again for it."""
        totals, listed = self.ledger.totals("acme"), list(self.listed.values())
        outstanding = self.ledger.outstanding("acme", listed)
        self.ledger.fold("acme", before, self.now - timedelta(seconds=age_s))
        assert self.ledger.totals("acme") == totals
        assert self.ledger.outstanding("acme", listed) == outstanding

    @rule(owner=st.integers(0, 1), age_s=st.integers(0, 300))
    def rewind(self, owner: int, age_s: int) -> None:
        """Find the key dead for so long: what leaves the books waits, and all claims are lost."""
        before = self.ledger.totals("acme")
        rewound = self.owners[owner].rewind("acme", self.now - timedelta(seconds=age_s), self.now)
        after = self.ledger.totals("acme")
        assert after.objects[ObjectState.CLAIMED] == 0
        assert after.waiting.objects >= max(before.waiting.objects, rewound.objects)
        assert after.rewound.events == before.rewound.events + rewound.events

    @rule(before=times, reason=reasons)
    def set_aside(self, before: datetime, reason: str) -> None:
        """Let old objects wait no longer."""
        waiting = self.ledger.totals("acme").waiting.objects
        count = self.ledger.set_aside("acme", before, reason, self.now)
        assert self.ledger.totals("acme").waiting.objects == waiting - count

    @invariant()
    def every_object_is_accounted_for(self) -> None:
        """Each that was ever listed is in exactly one state; none gets lost, none is made up."""
        assert sum(self.ledger.totals("acme").objects.values()) == len(self.listed)
        assert Recorded.UNKNOWN not in self.ledger.recorded("acme", list(self.listed.values()))

    @invariant()
    def sums_agree(self) -> None:
        """Whatever adds up objects and books comes to the same."""
        totals = self.ledger.totals("acme")
        by_hour = self.ledger.hour_books("acme", EVERYTHING)
        assert sum((hour.books for hour in by_hour), Books()) == totals.books
        assert sum(self.ledger.books_by_type("acme").values(), Books()) == totals.books
        assert sum(hour.objects for hour in by_hour) == totals.objects[ObjectState.DELIVERED]
        assert len(self.ledger.quarantined("acme")) == totals.objects[ObjectState.QUARANTINED]
        waiting = (ObjectState.PENDING, ObjectState.CLAIMED, ObjectState.FAILED)
        assert totals.waiting.objects == sum(totals.objects[state] for state in waiting)
        outstanding = self.ledger.outstanding("acme", list(self.listed.values()))
        assert len(outstanding) == totals.waiting.objects

    @invariant()
    def totals_are_the_sums(self) -> None:
        """What is kept as it changes is what adding up all rows would come to."""
        assert drifted_totals(self.path) == []

    @invariant()
    def books_balance(self) -> None:
        """No sequence of steps loses an event, makes one up, or counts one below none."""
        by_hour = self.ledger.hour_books("acme", EVERYTHING)
        assert all(hour.books.balanced and min(astuple(hour.books)) >= 0 for hour in by_hour)

    @invariant()
    def only_what_was_sent_is_remembered(self) -> None:
        """An id that was never settled is never left out."""
        assert set(ALL_IDS.filter(remembered(self.ledger, "acme", ALL_IDS))) <= self.sent_ids

    def teardown(self) -> None:
        """Close the files."""
        for ledger in self.owners:
            ledger.close()
        self.folder.cleanup()


# Shrinking opens hundreds of ledgers and takes minutes: add Phase.shrink to study a failure.
Laws.TestCase.settings = settings(
    max_examples=25, stateful_step_count=30, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate]
)
TestLaws = Laws.TestCase
