from collections.abc import Callable
from typing import Any

import pytest
from structlog.testing import capture_logs

from currents_bridge.cli.hangup import answer
from currents_bridge.config import Settings
from currents_bridge.errors import ConfigError, ConfigProblem


def settings(**changed: Any) -> Settings:
    """Return settings of one connector."""
    source = {"bucket": "acme", "prefix": changed.pop("prefix", "")}
    names = changed.pop("names", ["production"])
    connectors = [{"name": name, "source": source, "destination": {"write_key": "env:KEY"}} for name in names]
    return Settings.model_validate({"connectors": connectors} | changed)


def answered(load: Callable[[], Settings]) -> list[Any]:
    """Return the log lines about the configuration; that secrets are read again is said each time."""
    with capture_logs() as logs:
        answer(settings(), load)
    first, *others = logs
    assert first["event"] == "secrets_read_again"
    return others


def test_that_nothing_changed_is_said() -> None:
    """An operator who asks gets an answer."""
    (line,) = answered(settings)
    assert (line["event"], line["log_level"]) == ("configuration_unchanged", "info")


@pytest.mark.parametrize(
    ("changed", "names"),
    [
        ({"prefix": "secret/"}, ["connectors.0.source.prefix"]),
        ({"delivery": {"workers": 3}, "schedule": {"poll": "5m"}}, ["delivery.workers", "schedule.poll"]),
        ({"names": ["production", "second"]}, ["connectors"]),
        ({"alerts": {"urls": ["env:SECRET"]}}, ["alerts.urls"]),
    ],
)
def test_what_changed_is_named_and_waits_for_a_restart(changed: dict[str, Any], names: list[str]) -> None:
    """By its name, never by its value."""
    (line,) = answered(lambda: settings(**changed))
    assert (line["event"], line["log_level"]) == ("configuration_changed", "warning")
    assert sorted(line["settings"]) == names
    assert "restart" in line["todo"]
    assert "secret" not in str(line).lower()


def test_a_configuration_that_cannot_be_used_changes_nothing() -> None:
    """It is told before the restart that it would spoil."""

    def load() -> Settings:
        raise ConfigError([ConfigProblem("delivery.workers", "must be at least 1")])

    (line,) = answered(load)
    assert (line["event"], line["problems"]) == (
        "configuration_cannot_be_used",
        ["delivery.workers: must be at least 1"],
    )
