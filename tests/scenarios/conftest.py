"""Rehearsals for tests, and what is asked of them."""

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from currents_bridge import wiring
from currents_bridge.credentials.state import state_at
from currents_bridge.demo.simulation import Rehearsal
from currents_bridge.errors import Side
from currents_bridge.model import Credential, CredentialState

SECOND_KEY = "OtherKeyOtherKeyOtherKeyOtherKey"
WINDOW = timedelta(hours=48)

Rehearse = Callable[..., Rehearsal]


@pytest.fixture
def rehearse(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Rehearse]:
    """Return what opens a rehearsal."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    with ExitStack() as stack:

        def start(**options: Any) -> Rehearsal:
            return stack.enter_context(Rehearsal(wiring.open_bridge, tmp_path, os.environ, **options))

        yield start


def credential(rehearsal: Rehearsal, side: Side = Side.DESTINATION) -> Credential:
    """Return what is known of a credential."""
    return rehearsal.connector.watch.credential(side)


def state(rehearsal: Rehearsal, side: Side = Side.DESTINATION) -> CredentialState:
    """Return its state now."""
    return state_at(credential(rehearsal, side), rehearsal.now, WINDOW)


def told(rehearsal: Rehearsal, *kinds: str) -> list[tuple[float, str, str, str]]:
    """Return hour, phase, kind and subject of the messages of some kinds, of all without any, in order."""
    return [
        (message.at / timedelta(hours=1), message.phase, message.kind, message.subject)
        for message in rehearsal.told
        if not kinds or message.kind in kinds
    ]


def replace_key(rehearsal: Rehearsal) -> None:
    """Put another write key into the file; the program is not restarted."""
    rehearsal.segment.world.add_key(SECOND_KEY)
    rehearsal.set_key(SECOND_KEY)
