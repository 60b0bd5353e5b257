"""One suspect is on trial at a time, with nobody beside it, and only where it ends can it be blamed."""

import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest

from currents_bridge.delivery.trials import Court
from currents_bridge.events.mapping import Mapped, Mapper, MappingRules
from currents_bridge.model import Books, ClaimedObject, GroupLimits, ObjectState
from tests.workbench import NAME, Bench, FaultyLedger, everything

DELIVERED, FAILED = ObjectState.DELIVERED, ObjectState.FAILED
SOON_S = 0.05  # for a thread to come where it must not


@pytest.fixture
def bench() -> Bench:
    """A connector's core."""
    return Bench()


def suspects(bench: Bench, count: int) -> list[ClaimedObject]:
    """Put so many objects, let a process that holds them end, and claim each alone."""
    for offset in range(count):
        bench.put(3, offset=offset)
    owner = FaultyLedger(bench.ledger.path)
    bench.admit()
    assert len(owner.claim(NAME, everything(), GroupLimits(), bench.now)) == count
    bench.now += timedelta(minutes=5)
    bench.ledger.reclaim(NAME, bench.now)
    groups = [bench.ledger.claim(NAME, everything(), GroupLimits(), bench.now) for _ in range(count)]
    assert all(claimed.suspect for (claimed,) in groups)
    return [claimed for (claimed,) in groups]


class Watching(Mapper):
    """Tells what is mapped while a suspect is on trial: `beside` are those that came in meanwhile."""

    def __init__(self, bench: Bench) -> None:
        super().__init__(MappingRules(library_version="1"))
        self.on_trial: set[str] = set()
        self.beside: list[set[str]] = []
        self._bench = bench
        self._came = threading.Event()

    def map_together(self, events: Any, event_type: Any, origins: Any, **told: Any) -> Sequence[Mapped]:
        """Map, giving others the time to come beside it."""
        key = origins[0].object_key
        crashes = {row["key"]: row["crashes"] for row in self._bench.ledger.rows()}
        if crashes[key] > 1:
            self.on_trial.add(key)
            if len(self.on_trial) > 1:
                self.beside.append(set(self.on_trial))
                self._came.set()
            self._came.wait(SOON_S)
            self.on_trial.discard(key)
        return super().map_together(events, event_type, origins, **told)


def test_suspects_of_several_workers_are_tried_one_after_the_other(bench: Bench) -> None:
    """So whatever ends the process, one object at most is charged with it."""
    group = suspects(bench, 3)
    bench.mapper = watching = Watching(bench)  # type: ignore[assignment]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda claimed: bench.deliver([claimed]), group))

    assert watching.beside == []
    assert bench.ledger.totals(NAME).books == Books(read=9, sent=9)


@pytest.mark.usefixtures("small_slices")
def test_a_trial_says_where_it_stands(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Part by part, each with its time: an end elsewhere than the time before was not the object's doing."""
    (claimed,) = suspects(bench, 1)
    rows: list[int] = []
    watched: list[float] = []
    monkeypatch.setattr("faulthandler.dump_traceback_later", lambda wait_s, **_: watched.append(wait_s))
    monkeypatch.setattr("faulthandler.cancel_dump_traceback_later", lambda: watched.append(0))
    begin = bench.ledger.begin_trial

    def told(suspect: ClaimedObject, row: int) -> None:
        rows.append(row)
        begin(suspect, row)

    monkeypatch.setattr(bench.ledger, "begin_trial", told)

    bench.deliver([claimed])

    assert rows == [0, 1, 2, 3]
    assert watched == [600.0] * 4 + [0]
    assert bench.states() == {DELIVERED: 1}


def test_a_machine_without_room_for_a_trial_costs_the_suspect_a_later_try(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a read-only file system without a temporary directory: nothing is wrong with the object."""
    (claimed,) = suspects(bench, 1)

    def full(**_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile", full)

    bench.deliver([claimed])

    assert bench.states() == {FAILED: 1}
    assert "No space left on device" in bench.ledger.rows()[0]["reason"]


HANGS = """
from currents_bridge.delivery import trials
trials.LONGEST_PART_S = 0.1
with trials.COURT.turn(), trials.COURT.trial() as part_begins:
    part_begins()
    sum(range(10**12))  # without letting go of the interpreter
"""


def test_a_trial_that_hangs_ends_the_process() -> None:
    """Nothing else could stop it, and it counts as a trial that ended there; the log says where it was."""
    ended = subprocess.run([sys.executable, "-c", HANGS], capture_output=True, text=True, timeout=60, check=False)

    assert ended.returncode == 1
    assert "Timeout" in ended.stderr


class TestCourt:
    """Who waits for whom."""

    def test_a_trial_waits_for_those_who_read(self) -> None:
        """Or what they hold in memory could end it."""
        court = Court()
        story: list[str] = []
        with court.reading():
            tried = _in_thread(lambda: _hold(court.trial(), story, "tried"))
            tried.join(SOON_S)
            story.append("read")
        tried.join()
        assert story == ["read", "tried"]

    def test_nobody_begins_to_read_while_a_trial_is_under_way(self) -> None:
        """What they meet could end it."""
        court = Court()
        story: list[str] = []
        with court.trial():
            read = _in_thread(lambda: _hold(court.reading(), story, "read"))
            read.join(SOON_S)
            story.append("tried")
        read.join()
        assert story == ["tried", "read"]

    def test_many_read_at_once(self) -> None:
        """Ordinary work knows nothing of it."""
        court, meeting = Court(), threading.Barrier(3, timeout=10)

        @contextmanager
        def met() -> Iterator[None]:
            with court.reading():
                meeting.wait()
                yield

        with ThreadPoolExecutor(3) as pool:
            list(pool.map(lambda _: _hold(met(), [], ""), range(3)))

    def test_one_suspect_is_read_before_the_next_one_is_tried(self) -> None:
        """Large files that were too much together come one by one."""
        court = Court()
        story: list[str] = []

        def suspect(name: str) -> None:
            with court.turn():
                _hold(court.trial(), story, f"{name} tried")
                _hold(court.reading(), story, f"{name} read")

        with ThreadPoolExecutor(2) as pool:
            list(pool.map(suspect, "ab"))
        assert [line[0] for line in story] in (["a", "a", "b", "b"], ["b", "b", "a", "a"])


def _in_thread(work: Any) -> threading.Thread:
    thread = threading.Thread(target=work)
    thread.start()
    return thread


def _hold(context: Any, story: list[str], word: str) -> None:
    with context:
        story.append(word)
