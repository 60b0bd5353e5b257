"""`demo --scenario dead-key`: 60 simulated hours in which a write key dies behind 200s, and nothing is lost."""

from collections.abc import Callable, MutableMapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

from currents_bridge.credentials.state import LossPolicy
from currents_bridge.demo.simulation import FIRST_KEY, NAME, OpenBridge, Rehearsal
from currents_bridge.errors import Side
from currents_bridge.operations.status import read_status

SECOND_KEY = "OtherKeyOtherKeyOtherKeyOtherKey"
DIES_AT_H = 6
MENDED_AT_H = 60
ENDS_AT_H = 63
LOOK_EVERY_H = 6

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ScenarioResult:
    """How it ended, in events."""

    owed: int
    arrived: int
    missing: int
    dropped: int  # by Segment, behind 200s

    @property
    def agrees(self) -> bool:
        """Whether every event that Segment dropped was sent again, and none is missing."""
        return not self.missing and self.arrived == self.owed and self.dropped > 0


def dead_key(open_bridge: OpenBridge, environ: MutableMapping[str, str], say: Say) -> ScenarioResult:
    """Run the scenario, telling what happens line by line; `environ` is the process's own, see `demo.run`."""
    with (
        TemporaryDirectory(prefix="currents-bridge-demo-") as folder,
        Rehearsal(open_bridge, Path(folder), environ) as rehearsal,
    ):
        story = _Story(rehearsal, say)
        story.tell("a file of Currents comes each hour, and is delivered")
        story.go_on(DIES_AT_H)
        story.tell("the write key dies; Segment goes on answering 200, and drops every event")
        rehearsal.segment.world.revoke_key(FIRST_KEY)
        story.go_on(MENDED_AT_H)
        story.tell("the new write key is put into its file; the program is not restarted")
        rehearsal.segment.world.add_key(SECOND_KEY)
        rehearsal.set_key(SECOND_KEY)
        story.go_on(ENDS_AT_H)
        owed = set().union(*rehearsal.owed.values())
        arrived = rehearsal.arrived
        return ScenarioResult(len(owed), len(arrived), len(owed - arrived), len(rehearsal.segment.dropped))


class _Story:
    def __init__(self, rehearsal: Rehearsal, say: Say) -> None:
        self._rehearsal = rehearsal
        self._say = say
        self._told = 0

    def tell(self, line: str, at: timedelta | None = None) -> None:
        """Say a line with the simulated time before it."""
        elapsed = self._rehearsal.elapsed if at is None else at
        self._say(f"{_clock(elapsed)}  {line}")

    def go_on(self, until_h: float) -> None:
        """Let time pass, telling each alert when it comes, and how things stand every few hours."""
        while self._rehearsal.elapsed < timedelta(hours=until_h):
            hours = self._rehearsal.elapsed / timedelta(hours=1)
            self._rehearsal.pass_time(min(until_h, hours + LOOK_EVERY_H))
            for told in self._rehearsal.told[self._told :]:
                title, *lines = told.text.splitlines()
                self.tell(f"ALERT {title}", told.at)
                for line in lines:
                    self._say(f"             {line}")
            self._told = len(self._rehearsal.told)
            self.tell(self._standing())

    def _standing(self) -> str:
        rehearsal = self._rehearsal
        ledger = rehearsal.connector.ledger
        (status,) = read_status(ledger, {NAME: LossPolicy()}, rehearsal.now).connectors
        found, waiting = status.credential(Side.DESTINATION), status.totals.waiting
        standing = f"key {found.state}; {len(rehearsal.arrived):,} events arrived; {waiting.objects:,} files wait"
        if found.window:
            left = found.window.ends_at - rehearsal.now
            standing += f"; {_clock(max(left, timedelta(0)))} h of the loss window left"
        return standing


def _clock(elapsed: timedelta) -> str:
    minutes = int(elapsed / timedelta(minutes=1))
    return f"{minutes // 60:02}:{minutes % 60:02}"
