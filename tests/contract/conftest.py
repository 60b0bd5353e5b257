"""The ledger under test: each suite that asks for it runs on the fake and on SQLite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from currents_bridge.adapters.ledger import SqlLedger
from currents_bridge.ports import Ledger
from currents_bridge.testing.fake_ledger import FakeLedger
from tests.ledger_workbench import NOW, Case


@pytest.fixture(params=["fake", "sqlite"])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Case]:
    """Return one store, any number of owners."""
    memory = FakeLedger().memory
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    made = Case(lambda: FakeLedger(memory) if request.param == "fake" else SqlLedger(url, now=NOW))
    yield made
    made.close()


@pytest.fixture
def ledger(case: Case) -> Ledger:
    """Return the one owner that most tests need."""
    return case.open()
