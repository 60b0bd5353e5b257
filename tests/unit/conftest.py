"""Fixtures that more than one unit test file uses."""

import pytest

from currents_bridge.avro.container import Container
from currents_bridge.delivery import reading


@pytest.fixture
def small_slices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each block, so each event of a file of the bench, is a slice of its own, as if the file were large."""
    monkeypatch.setattr(reading, "SMALL_BYTES", 0)
    monkeypatch.setattr(Container.slices, "__defaults__", (1,))
