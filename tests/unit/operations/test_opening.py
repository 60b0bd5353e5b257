"""One connector whose secret cannot be read leaves the others alone, and works as soon as it can be."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from currents_bridge import wiring
from currents_bridge.bridge import Bridge
from currents_bridge.config import Settings
from currents_bridge.errors import ConfigError
from currents_bridge.testing.currents_files import object_key
from currents_bridge.testing.fake_store import FakeObjectStore
from currents_bridge.wiring_ledger import Missing

KEY = "KeyKeyKeyKeyKeyKeyKeyKeyKeyKeyKe"
EXCLUDED = "users.messages.email.Click"
NOW = datetime(2026, 3, 4, 12, tzinfo=UTC)


class Place:
    """A program of two connectors, the second of which has its key in a file that is not there yet."""

    bridge: Bridge

    def __init__(self, key_file: Path, settings: Settings) -> None:
        self.key_file = key_file
        self.settings = settings
        self.now = NOW

    def names(self) -> list[str]:
        """Return the connectors that are open."""
        return [connector.name for connector in self.bridge.connectors]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    """Return it, opened."""
    store = FakeObjectStore()
    for name in ("first", "second"):
        store.put(object_key(EXCLUDED, NOW - timedelta(hours=1), prefix=f"{name}/"), b"is not read")
    monkeypatch.setattr(wiring, "make_store", lambda _: store)
    key_file = tmp_path / "key"
    connectors = [
        {
            "name": name,
            "source": {"bucket": "acme-currents", "prefix": f"{name}/"},
            "events": {"exclude": [EXCLUDED]},
            "destination": {"write_key": key, "settings_endpoint_url": None, "endpoint_url": "http://127.0.0.1:9"},
        }
        for name, key in (("first", "env:KEY"), ("second", f"file:{key_file}"))
    ]
    settings = Settings.model_validate(
        {"ledger": {"url": f"sqlite:///{tmp_path / 'ledger.sqlite3'}"}, "connectors": connectors}
    )
    made = Place(key_file, settings)
    with wiring.open_bridge(settings, {"KEY": KEY}, now=lambda: made.now) as made.bridge:
        yield made


def test_the_others_are_opened(place: Place) -> None:
    """What is wrong with the one is kept for whoever asks."""
    assert place.names() == ["first"]
    assert "there is no such file" in place.bridge.unopened["second"].error.message


def test_once_runs_the_others_and_ends_with_2(place: Place) -> None:
    """The report names what is to be mended."""
    reports = place.bridge.once()
    assert reports["first"].error is None
    assert isinstance(reports["second"].error, ConfigError)
    assert place.bridge.exit_code(reports) == 2


def test_it_is_an_alert_when_it_fails_again(place: Place) -> None:
    """As any job that fails."""
    for _ in range(2):
        place.bridge.once()
    (failing,) = place.bridge.ledger.failing_jobs()
    assert (failing.connector, failing.job, failing.failures) == ("second", "open", 2)
    assert [alert.kind for alert in place.bridge.alerts.open() if alert.connector == "second"] == ["job_failing"]


def test_the_daemon_opens_it_once_its_secret_is_there(place: Place) -> None:
    """And does from then on what a connector does, in one job until the next start."""
    jobs = {one.name: one for one in place.bridge.jobs()}
    assert sorted(jobs) == ["alerts", "first.audit", "first.poll", "first.probe", "second.open"]
    with pytest.raises(ConfigError):
        jobs["second.open"].run()
    place.key_file.write_text(KEY)
    place.now += timedelta(minutes=1)

    jobs["second.open"].run()

    assert place.names() == ["first", "second"]
    assert place.bridge.ledger.progress("second").polled_at == place.now
    assert place.bridge.ledger.failing_jobs() == []
    place.now += timedelta(minutes=1)
    jobs["second.open"].run()
    assert place.bridge.ledger.progress("second").polled_at == place.now


def test_once_delivers_of_one_that_can_be_opened_by_then(place: Place) -> None:
    """Its secret came a moment late."""
    place.key_file.write_text(KEY)
    reports = place.bridge.once()
    assert [report.error for report in reports.values()] == [None, None]
    assert place.bridge.ledger.progress("second").polled_at == place.now


def test_the_alert_ends_with_a_start_that_opens_it(place: Place) -> None:
    """As after the secret was mended, and the program started again."""
    for _ in range(2):
        place.bridge.once()
    place.key_file.write_text(KEY)
    with wiring.open_bridge(place.settings, {"KEY": KEY}, now=lambda: place.now) as bridge:
        bridge.tell()
        assert bridge.ledger.failing_jobs() == []
        assert [alert for alert in bridge.alerts.open() if alert.kind == "job_failing"] == []


def test_starts_that_open_none_are_told(place: Place) -> None:
    """By cron nobody sees the exit code; a command that only looks says it to whoever runs it."""

    def start(missing: Missing) -> None:
        with pytest.raises(ConfigError, match="is not set"), wiring.open_bridge(place.settings, {}, missing=missing):
            pass

    start("make")
    start("refuse")
    assert place.bridge.alerts.open() == []
    start("make")
    assert {alert.kind for alert in place.bridge.alerts.open()} == {"job_failing"}
    assert {alert.subject for alert in place.bridge.alerts.open()} == {"open"}


def test_a_command_for_all_connectors_is_refused(place: Place) -> None:
    """It would leave one out; by name each of the others is had."""
    with pytest.raises(ConfigError, match="second"):
        place.bridge.named(None)
    assert [one.name for one in place.bridge.named("first")] == ["first"]
