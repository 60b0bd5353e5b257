"""The ledger and the alert book under test: suites that ask for one hold for every database."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.ports import AlertBook, Ledger
from tests.ledger_workbench import NOW, Case


@pytest.fixture
def case(tmp_path: Path) -> Iterator[Case]:
    """Return one store, any number of owners."""
    made = Case(lambda: SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", now=NOW))
    yield made
    made.close()


@pytest.fixture
def ledger(case: Case) -> Ledger:
    """Return the one owner that most tests need."""
    return case.open()


@pytest.fixture
def book(tmp_path: Path) -> Iterator[AlertBook]:
    """Return a book without alerts."""
    ledger = SqlLedger(f"sqlite:///{tmp_path / 'ledger.sqlite3'}", now=NOW)
    yield ledger.alert_book()
    ledger.close()
