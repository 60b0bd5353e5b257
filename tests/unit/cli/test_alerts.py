import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from currents_bridge import wiring, wiring_ledger
from currents_bridge.alerts.service import Outcome
from currents_bridge.cli import alerts as cli_alerts
from currents_bridge.errors import UsageError
from currents_bridge.model import Alert
from tests.alert_workbench import NOW, make_alert


class FakeAlerts:
    """Alerts of which a test says what they answer."""

    alerts: tuple[Alert, ...] = ()
    outcomes: tuple[Outcome, ...] = ()

    def open(self) -> list[Alert]:
        """Return the alerts."""
        return list(self.alerts)

    def test(self, _: object) -> list[Outcome]:
        """Return the outcomes."""
        return list(self.outcomes)


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> FakeAlerts:
    """The alerts that the commands open."""
    told = FakeAlerts()

    @contextmanager
    def open_alerts(*_: Any) -> Iterator[FakeAlerts]:
        yield told

    monkeypatch.setattr(wiring, "open_alerts", open_alerts, raising=False)
    monkeypatch.setattr(wiring_ledger, "utc_now", lambda: NOW)
    monkeypatch.setattr(cli_alerts, "quiet_logs", lambda **_: None)
    monkeypatch.setattr(cli_alerts, "load_settings", lambda _: None)
    return told


def run(*args: str, code: int = 0) -> Result:
    """Run a command in this process."""
    result = CliRunner().invoke(cli_alerts.alerts, args)
    assert result.exit_code == code, (result.output, result.exception)
    return result


def test_open_alerts_are_listed_in_words(told: FakeAlerts) -> None:
    """A title, and what there is to say under it."""
    told.alerts = (make_alert(),)
    assert run("list").stdout.splitlines() == [
        "WARNING production: backlog",
        "  It is wrong.",
        "  Since 2026-01-10 12:00 UTC, less than 1 min ago.",
        "  Waiting: 1 object, 1 byte.",
        "  To do: mend it.",
    ]


def test_that_nothing_is_open_is_said(told: FakeAlerts) -> None:
    """Rather than an empty page."""
    assert told.alerts == ()
    assert run("list").stdout == "no alert is open\n"
    assert json.loads(run("list", "--json").stdout) == {"alerts": []}


def test_open_alerts_are_listed_as_json(told: FakeAlerts) -> None:
    """Each part by name; one that opened silently has no time of telling."""
    told.alerts = (make_alert("caught_up", "source", told_at=None),)
    (alert,) = json.loads(run("list", "--json").stdout)["alerts"]
    assert alert == {
        "connector": "production",
        "kind": "caught_up",
        "subject": "source",
        "severity": "warning",
        "since": "2026-01-10T12:00:00+00:00",
        "what": "It is wrong",
        "waits": "1 object, 1 byte",
        "todo": "mend it",
        "told_at": None,
    }


@pytest.mark.parametrize(("error", "code"), [(None, 0), ("mail answered 503", 1)])
def test_a_test_ends_with_whether_every_channel_took_it(told: FakeAlerts, error: str | None, code: int) -> None:
    """And says so of each."""
    told.outcomes = (Outcome("chat", None), Outcome("mail", error))

    assert run("test", code=code).stdout.splitlines() == ["chat: taken", f"mail: {error or 'taken'}"]
    assert json.loads(run("test", "--json", code=code).stdout) == {
        "channels": [{"channel": "chat", "error": None}, {"channel": "mail", "error": error}],
        "error": error and "1 channels did not take it",
        "reasons": {"mail: mail answered 503": 1} if error else {},
    }


def test_a_test_without_any_channel_is_bad_usage(told: FakeAlerts) -> None:
    """The hint names the settings."""
    assert told.outcomes == ()
    error = run("test", code=1).exception  # `main` makes it 2
    assert isinstance(error, UsageError)
    assert "alerts.urls" in error.hint
