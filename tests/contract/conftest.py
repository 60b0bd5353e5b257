"""The ledger and the alert book under test: each suite that asks for one runs on the fake and on SQLite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from currents_bridge.adapters.ledger import SqlLedger
from currents_bridge.ports import AlertBook, Ledger
from currents_bridge.testing.fake_alert_book import FakeAlertBook
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


@pytest.fixture(params=["fake", "sqlite"])
def book(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[AlertBook]:
    """Return a book without alerts."""
    if request.param == "fake":
        yield FakeAlertBook()
        return
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", now=NOW)
    yield ledger.alert_book()
    ledger.close()
