import json
import re
from pathlib import Path

import pytest

from currents_bridge.alerts.engine import AlertKind, as_json
from currents_bridge.model import AlertMessage, AlertPhase
from tests.alert_workbench import NOW, make_alert

RUNBOOK = (Path(__file__).parents[3] / "docs/runbook.md").read_text(encoding="utf-8")
SECTIONS = dict(re.findall(r"^### (\w+)\n(.*?)(?=^##|\Z)", RUNBOOK, re.MULTILINE | re.DOTALL))


@pytest.mark.parametrize("kind", AlertKind)
def test_every_kind_of_alert_is_in_the_runbook(kind: AlertKind) -> None:
    """What it means, what the program does meanwhile, what to do, when it ends; and whether it is told once."""
    section = SECTIONS[kind]
    assert re.findall(r"^- \*\*(\w+)\*\*: ", section, re.MULTILINE) == ["Means", "Meanwhile", "Do", "Ends"]
    assert bool(re.search(r"\bonce\b", section.splitlines()[0])) == kind.is_told_once


def test_the_runbook_names_no_kind_that_is_none() -> None:
    """A kind that was renamed is found here."""
    assert set(SECTIONS) == set(AlertKind)


def test_the_body_in_the_runbook_is_what_a_webhook_gets() -> None:
    """The same fields in the same order."""
    body = re.search(r"```json\n(.*?)```", RUNBOOK, re.DOTALL)
    assert body is not None
    assert list(json.loads(body[1])) == list(as_json(AlertMessage(AlertPhase.OPENED, make_alert(), NOW)))
