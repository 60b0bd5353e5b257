import io
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from currents_bridge import wiring, wiring_ledger
from currents_bridge.avro.container import Container
from currents_bridge.bridge import exit_code
from currents_bridge.config import Settings, SourceSettings
from currents_bridge.delivery.group import GroupReport
from currents_bridge.delivery.workers import TransferReport
from currents_bridge.errors import ConfigError, CredentialError, LedgerError, RetryLaterError, Side, UsageError
from currents_bridge.events import catalogue
from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import Books, Delivered, Failed, Quarantined
from currents_bridge.testing.currents_files import object_key, schema_of, write_container
from currents_bridge.testing.fake_store import FakeObjectStore
from tests.ledgers import LedgerOnFile
from tests.workbench import CLICK, HOUR, clicks

ENVIRON = {"KEY": "a" * 32}
DENIED = CredentialError(Side.SOURCE, "AccessDenied", "allow it")


def settings(tmp_path: Path, *connectors: dict[str, Any]) -> Settings:
    """Return settings with a ledger in a file, and connectors that differ in what is given."""
    plain = {"name": "production", "source": {"bucket": "acme"}, "destination": {"write_key": "env:KEY"}}
    return Settings.model_validate(
        {
            "ledger": {"url": f"sqlite:///{tmp_path / 'ledger.sqlite3'}"},
            "connectors": [plain | connector for connector in connectors or ({},)],
        }
    )


def a_report(*settlements: Any, error: Any = None) -> TransferReport:
    """Return the report of a run with one group."""
    report = TransferReport(error=error)
    report.add(GroupReport(list(settlements)))
    return report


FINE = a_report(Delivered(1, Books(2, 2)))
SET_ASIDE = a_report(Quarantined(1, "no Avro"))
DEAD = a_report(Delivered(1, Books(read=1, dead_lettered=1)))
LATER = a_report(Failed(1, "unwell", HOUR))


@pytest.mark.parametrize(
    ("reports", "code"),
    [
        ([], 0),
        ([FINE], 0),
        ([SET_ASIDE], 4),
        ([DEAD], 4),
        ([TransferReport(findings={"gone": 1})], 4),
        ([TransferReport(denied_folders=1)], 1),
        ([LATER], 1),
        ([a_report(error=LedgerError("disk full"))], 1),
        ([a_report(error=RetryLaterError("503"))], 1),
        ([a_report(error=DENIED)], 3),
        ([SET_ASIDE, LATER], 1),
        ([a_report(error=DENIED), LATER, SET_ASIDE, FINE], 3),
        ([a_report(Failed(1, "x", HOUR), Quarantined(2, "y"), error=DENIED)], 3),
    ],
)
def test_the_exit_code_is_that_of_the_worst(reports: list[TransferReport], code: int) -> None:
    """A failing credential, then what is tried again, then what was set aside."""
    assert exit_code(reports) == code
    assert exit_code(reversed(reports)) == code


def test_a_program_opens_with_all_its_connectors_and_closes_the_ledger(tmp_path: Path) -> None:
    """Each with its own write key."""
    two = settings(tmp_path, {}, {"name": "second", "destination": {"write_key": "env:OTHER", "transport": "sdk"}})

    with wiring.open_bridge(two, ENVIRON | {"OTHER": "b" * 32}) as bridge:
        assert [connector.name for connector in bridge.connectors] == ["production", "second"]
        assert bridge.connectors[1].watch.key.get_secret_value() == "b" * 32
        assert "bbb" not in repr(bridge)

    with pytest.raises(RuntimeError, match="closed"):
        bridge.ledger.heartbeat(HOUR)
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}


def test_missing_secrets_are_told_before_the_ledger_is_made(tmp_path: Path) -> None:
    """Bad configuration leaves nothing behind."""
    with pytest.raises(ConfigError), wiring.open_bridge(settings(tmp_path), {}):
        pass

    assert not list(tmp_path.iterdir())


def test_connectors_are_chosen_by_name(tmp_path: Path) -> None:
    """All without a name; an unknown one is refused with those that there are."""
    with wiring.open_bridge(settings(tmp_path, {}, {"name": "second"}), ENVIRON) as bridge:
        assert [connector.name for connector in bridge.named(None)] == ["production", "second"]
        assert [connector.name for connector in bridge.named("second")] == ["second"]
        with pytest.raises(UsageError, match="no connector third") as caught:
            bridge.named("third")

    assert caught.value.hint == "the configuration has: production, second"


def test_a_single_connector_can_be_opened_alone(tmp_path: Path) -> None:
    """For the demo."""
    with wiring.open_single(settings(tmp_path), ENVIRON) as connector:
        assert connector.name == "production"


def test_an_audit_goes_as_deep_as_the_settings_say(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is older than `source.audit_depth` is not found."""
    store = FakeObjectStore()
    monkeypatch.setattr(wiring, "make_store", lambda _: store)
    now = datetime.now(UTC)
    shallow = {"source": {"bucket": "acme", "audit_depth": "1d"}}
    with wiring.open_bridge(settings(tmp_path, shallow, {"name": "deep"}), ENVIRON) as bridge:
        store.put(object_key(CLICK, now - timedelta(hours=1)), b"", now)
        found = [connector.once(timedelta(days=1)).discovered for connector in bridge.connectors]
        store.put(object_key(CLICK, now - timedelta(hours=30)), b"", now)
        found += [connector.audit().discovered for connector in bridge.connectors]

    assert found == [1, 1, 0, 1]


def test_the_source_is_as_the_settings_say(tmp_path: Path) -> None:
    """Prefix, start, lookback, and the rules for event types."""
    (connector,) = settings(
        tmp_path,
        {
            "source": {"bucket": "acme", "prefix": "a/b", "start_from": "now", "lookback": "2h"},
            "events": {"include": ["users.messages.*"], "exclude": [CLICK]},
        },
    ).connectors

    source = wiring.make_source(connector, LedgerOnFile())

    assert (source.connector, source.prefix, source.start_from) == ("production", "a/b/", "now")
    assert source.lookback.total_seconds() == 7200
    types = source.event_types(["users.messages.carrierpigeon.Send", "users.other.Thing"])
    assert "users.messages.carrierpigeon.Send" in types
    assert not {CLICK, "users.other.Thing"} & types


def test_the_mapper_follows_the_rules_of_the_connector(tmp_path: Path) -> None:
    """Names, anonymous users, properties, integrations and prefix; the defaults without a connector."""
    (connector,) = settings(
        tmp_path,
        {
            "anonymous_users": "send",
            "properties": "all",
            "events": {"names": {CLICK: "Clicked"}},
            "destination": {
                "write_key": "env:KEY",
                "integrations": {"All": False},
                "message_id_prefix": "b-",
            },
        },
    ).connectors
    event = clicks(1)[0] | {"external_user_id": None}
    (piece,) = Container(io.BytesIO(write_container(schema_of(CLICK), [event]))).slices()

    mapped = wiring.make_mapper(connector).map(piece, catalogue.catalogue()[CLICK], "key")
    by_default = wiring.make_mapper(None).map(piece, catalogue.catalogue()[CLICK], "key")

    message = json.loads(mapped.messages["message"][0])
    assert (message["event"], message["messageId"]) == ("Clicked", f"b-{event['id']}")
    assert message["integrations"] == {"All": False}
    left_out = set(catalogue.catalogue()[CLICK].storage_only) & {name for name, value in event.items() if value}
    assert left_out <= message["properties"].keys()
    assert (by_default.messages.height, by_default.skipped_anonymous) == (0, 1)


def test_a_local_file_is_opened(tmp_path: Path) -> None:
    """Its path is its key, and no connector is meant."""
    path = tmp_path / "x.avro"
    path.write_bytes(b"body")

    stream, key, connector = wiring.open_file(str(path), None)

    with stream:
        assert (stream.read(), key, connector) == (b"body", str(path), None)


@pytest.mark.parametrize("name", ["missing.avro", ""])
def test_a_local_file_that_cannot_be_read_is_refused(tmp_path: Path, name: str) -> None:
    """Also a folder."""
    with pytest.raises(UsageError, match="cannot be read"):
        wiring.open_file(str(tmp_path / name), None)


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> FakeObjectStore:
    """What every source reads."""
    store = FakeObjectStore()
    monkeypatch.setattr(wiring, "make_store", lambda source: store if source.bucket == "acme" else FakeObjectStore())
    return store


@pytest.mark.parametrize("key", ["a/x.avro", "a/x?y#z.avro", "a/b c/ä.avro"])
def test_an_object_is_opened_with_the_rules_of_the_connector_that_reads_it(
    tmp_path: Path, bucket: FakeObjectStore, key: str
) -> None:
    """By bucket and prefix; whatever its key holds."""
    bucket.put(key, b"body")
    known = settings(
        tmp_path,
        {"name": "elsewhere", "source": {"bucket": "other"}},
        {"name": "beside", "source": {"bucket": "acme", "prefix": "b/"}},
        {"name": "meant", "source": {"bucket": "acme", "prefix": "a/"}},
    )

    stream, opened, connector = wiring.open_file(f"s3://acme/{key}", known)

    with stream:
        assert (stream.read(), opened, connector and connector.name) == (b"body", key, "meant")


def test_an_object_is_opened_without_a_configuration(bucket: FakeObjectStore) -> None:
    """With the defaults."""
    bucket.put("x.avro", b"body")

    stream, _, connector = wiring.open_file("s3://acme/x.avro", None)

    with stream:
        assert (stream.read(), connector) == (b"body", None)


@pytest.mark.parametrize("place", ["s3://acme/x", "s3://acme/", "s3://acme", "s3://other/x.avro"])
def test_an_object_that_is_not_there_is_refused_after_one_listing(bucket: FakeObjectStore, place: str) -> None:
    """However many keys begin like it."""
    for number in range(1500):
        bucket.put(f"x.avro{number}", b"")

    with pytest.raises(UsageError, match=f"{place} is not there"):
        wiring.open_file(place, None)

    assert bucket.list_calls <= 1


@pytest.mark.parametrize("place", ["s3:///x.avro", "s3://My Bucket/x.avro", "s3://[acme/x.avro", "s3://"])
def test_an_address_without_a_bucket_is_refused(place: str) -> None:
    """Before anything is asked."""
    with pytest.raises(UsageError, match="names no bucket"):
        wiring.open_file(place, None)


def test_the_store_of_a_source_is_made_from_its_settings() -> None:
    """No request is made for it."""
    assert "acme" in repr(vars(wiring.make_store(SourceSettings(bucket="acme"))))


def test_the_ledger_is_told_that_the_program_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Again and again, also after the ledger has failed; not after the end."""
    monkeypatch.setattr(wiring, "HEARTBEAT_S", 0.001)
    third = threading.Event()

    class Beating(LedgerOnFile):
        beats = -1  # the first one is its opening

        def heartbeat(self, now: datetime) -> None:
            self.beats += 1
            if self.beats == 1:
                raise LedgerError("disk full")
            if self.beats == 3:
                third.set()
            assert now.tzinfo is not None

    ledger = Beating()
    with capture_logs() as logs, wiring._heartbeat(ledger):
        assert third.wait(10)
    beats = ledger.beats

    assert [line["error"] for line in logs] == ["disk full"]
    assert "heartbeat" not in {thread.name for thread in threading.enumerate()}
    assert ledger.beats == beats


def test_verdicts_are_those_of_all_connectors(tmp_path: Path, bucket: FakeObjectStore) -> None:
    """The configuration and the ledger come first: without them there is nothing to check."""
    assert bucket.list_calls == 0
    nowhere = {"write_key": "env:KEY", "endpoint_url": "http://127.0.0.1:9"}
    two = settings(tmp_path, {"destination": nowhere}, {"name": "second", "destination": nowhere})
    with wiring.open_bridge(two, ENVIRON) as bridge:
        subjects = [verdict.subject for verdict in wiring.verdicts(bridge)]

    assert {"production: write key", "second: write key"} <= set(subjects)


def test_the_ledger_can_be_opened_alone(tmp_path: Path) -> None:
    """`status` needs no secret."""
    with wiring_ledger.open_ledger(settings(tmp_path), missing="make") as ledger:
        assert isinstance(ledger, SqlLedger)
