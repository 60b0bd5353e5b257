"""The settings: defaults, the environment, and every problem at once."""

import json
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.config import DEFAULT_PATH, Settings, config_path, load, parse_duration
from currents_bridge.errors import ConfigError

KEY = "LITERALwriteKey0123456789abcdefgh"
MINIMAL = """
connectors:
  - name: production
    source: {bucket: acme-currents}
    destination: {write_key: "env:SEGMENT_WRITE_KEY"}
"""
Load = Callable[..., Settings]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return where `load_text` writes the config."""
    return tmp_path / "bridge.yaml"


@pytest.fixture
def load_text(file: Path) -> Load:
    """Return `load` for the text of a file."""

    def load_text(text: str, environ: Mapping[str, str] | None = None) -> Settings:
        file.write_text(text, encoding="utf-8")
        return load(file, environ or {})

    return load_text


def connector(**changes: object) -> str:
    """Return a config whose one connector differs from MINIMAL by `changes`, section__key=value."""
    settings = yaml.safe_load(MINIMAL)
    for path, value in changes.items():
        *sections, key = path.split("__")
        target = settings["connectors"][0]
        for section in sections:
            target = target.setdefault(section, {})
        target[key] = value
    return json.dumps(settings)


def problems(load_text: Load, text: str, environ: Mapping[str, str] | None = None) -> list[str]:
    """Return the lines of the ConfigError."""
    with pytest.raises(ConfigError) as caught:
        load_text(text, environ)
    return [str(problem) for problem in caught.value.problems]


def test_a_connector_needs_name_bucket_and_write_key_alone(load_text: Load) -> None:
    """Everything else has a default."""
    settings = load_text(MINIMAL)

    assert settings.connectors[0].events.include == ("supported",)
    assert settings.schedule.poll == timedelta(seconds=60)


def test_environment_wins_over_the_file_key_by_key(load_text: Load) -> None:
    """A variable changes its own key and leaves the other keys of the section as the file has them."""
    environ = {"CURRENTS_BRIDGE_DELIVERY__WORKERS": "8"}

    delivery = load_text(MINIMAL + "delivery: {workers: 2, max_in_flight: 3}", environ).delivery

    assert (delivery.workers, delivery.max_in_flight) == (8, 3)


def test_null_in_the_environment_means_no_value(load_text: Load) -> None:
    """A limit can be lifted by a variable."""
    environ = {"CURRENTS_BRIDGE_DELIVERY__REQUESTS_PER_SECOND": "null"}

    assert load_text(MINIMAL, environ).delivery.requests_per_second is None


def test_connectors_of_the_environment_replace_those_of_the_file(load_text: Load) -> None:
    """The variable holds all connectors as one JSON list."""
    staging = yaml.safe_load(MINIMAL)["connectors"][0] | {"name": "staging"}

    settings = load_text(MINIMAL, {"CURRENTS_BRIDGE_CONNECTORS": json.dumps([staging])})

    assert [connector.name for connector in settings.connectors] == ["staging"]


def test_no_file_is_needed_where_the_environment_holds_the_connectors() -> None:
    """A container can be set up by variables alone."""
    connectors = json.dumps(yaml.safe_load(MINIMAL)["connectors"])

    assert load(None, {"CURRENTS_BRIDGE_CONNECTORS": connectors}).connectors[0].name == "production"


def test_variables_of_a_kubernetes_service_are_no_settings(load_text: Load) -> None:
    """A Service named currents-bridge or currents-bridge-status puts these into the pod."""
    environ = {
        "CURRENTS_BRIDGE_CONFIG": "elsewhere.yaml",
        "CURRENTS_BRIDGE_SERVICE_HOST": "10.0.0.1",
        "CURRENTS_BRIDGE_SERVICE_PORT": "8080",
        "CURRENTS_BRIDGE_SERVICE_PORT_HTTP": "8080",
        "CURRENTS_BRIDGE_PORT": "tcp://10.0.0.1:8080",
        "CURRENTS_BRIDGE_PORT_8080_TCP": "tcp://10.0.0.1:8080",
        "CURRENTS_BRIDGE_PORT_8080_TCP_ADDR": "10.0.0.1",
        "CURRENTS_BRIDGE_STATUS_SERVICE_HOST": "10.0.0.1",
    }

    assert load_text(MINIMAL, environ) == load_text(MINIMAL)


def test_settings_made_in_code_ignore_the_process_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only `load` reads an environment, and only the one that it is given."""
    monkeypatch.setenv("CURRENTS_BRIDGE_DELIVERY__WORKERS", "8")

    assert Settings(**yaml.safe_load(MINIMAL)).delivery.workers == 4


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ledger: {url: 'postgresql+psycopg://me:hidden@db/x'}", "ledger.url: this kind of ledger is not supported y"),
        ("ledger: {url: 'sqlite:///:memory:'}", "ledger.url: must name a file, like sqlite:///currents-bridge."),
        ("ledger: sqlite:///x", "ledger: must be a mapping (from"),
        ("schedule: {poll: 60}", "schedule.poll: must be a whole number with its unit, like 30s 5m 6h 2d (got 60"),
        ("schedule: {audit: 90d}", "schedule.audit: must be 1m..30d (got 90d"),
        ("schedule: {sweep: 1h}", "schedule.sweep: is gone; schedule.audit (1d) lists the whole bucket in its place"),
        ("delivery: {workers: 900}", "delivery.workers: must be 1..64 (got 900"),
        ("delivery: {workers: many}", "delivery.workers: must be a whole number (got many"),
        ("delivery: {max_in_flight: 257}", "delivery.max_in_flight: must be 1..256 (got 257"),
        ("delivery: {requests_per_second: 0}", "delivery.requests_per_second: must be 0.001..1000000 (got 0"),
        ("delivery: {events_per_second: .inf}", "delivery.events_per_second: must be a number (got Infinity"),
        ("delivery: {max_batch_bytes: 39999}", "delivery.max_batch_bytes: must be 40000..500000 (got 39999"),
        ("delivery: {max_batch_events: 2501}", "delivery.max_batch_events: must be 1..2500 (got 2501"),
        ("schedule: {probe: 29s}", "schedule.probe: must be 30s..1d (got 29s"),
        ("alerts: {repeat: 1m}", "alerts.repeat: must be 5m..30d (got 1m"),
        ("alerts: {backlog_age: 31d}", "alerts.backlog_age: must be 5m..30d (got 31d"),
        ("alerts: {silence: 5m}", "alerts.silence: must be 1h..30d (got 5m"),
        ("alerts: {dead_letters_per_hour: 0}", "alerts.dead_letters_per_hour: must be 1..1000000 (got 0"),
        ("alerts: {sns_topic_arn: alerts}", "alerts.sns_topic_arn: must be the ARN of a topic, like arn:aws:sns:eu"),
        ("alerts: {urls: 'slack://x'}", "alerts.urls: must be a list (from"),
        ("alerts: {urls: [slack]}", "alerts.urls.0: must be an address like https://HOST/PATH or slack://..., or a"),
        ("alerts: {heartbeat_url: 'slack://x'}", "alerts.heartbeat_url: must be an address like https://HOST/PATH, or"),
        ("delivery: {wrokers: 1}", "delivery.wrokers: unknown key (did you mean workers?) (from"),
        ("banana: 1", "banana: unknown key (from"),
    ],
)  # fmt: skip
def test_bad_settings_are_named_with_reason_value_and_file(load_text: Load, file: Path, text: str, line: str) -> None:
    """One line: the field, why, the value and the file."""
    (found,) = problems(load_text, MINIMAL + text)

    assert found.startswith(line)
    assert found.endswith(f"from {file})")


NO_BUCKET = "must be the name of a bucket alone, like acme-currents; a folder in it goes into source.prefix"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"sorce": {}}, "sorce: unknown key (did you mean source?)"),
        ({"name": "Prod"}, "name: must match ^[a-z0-9_-]+$ (got Prod, "),
        ({"anonymous_users": "drop"}, "anonymous_users: must be 'skip' or 'send' (got drop, "),
        ({"properties": None}, "properties: must be 'connector' or 'all' (got null, "),
        ({"source": None}, "source: must be a mapping (from "),
        ({"source__bucket": ""}, "source.bucket: must be the name of a bucket alone, like acme-currents; a folder"),
        (
            {"source__bucket": "s3://x"},
            "source.bucket: must be the name of a bucket alone, like acme-currents; a folder",
        ),
        *(
            (
                {"source__bucket": bucket},
                f"source.bucket: {NO_BUCKET} (got {bucket}, ",
            )
            for bucket in ("acme/currents", "My Currents", "acme?x", "arn:aws:s3:::acme", "bücket")
        ),
        *(
            ({"source__region": region}, f"source.region: must be the name of a region, like us-east-1 (got {region}, ")
            for region in ("us east 1", "us_east_1", "us-east-1/", "eu.west.1")
        ),
        ({"source__bucket": 12}, "source.bucket: must be text, in quotes (got 12, "),
        ({"source__prefix": "/x"}, "source.prefix: must not start with / (got /x, "),
        ({"source__region": ""}, 'source.region: must be the name of a region, like us-east-1 (got "", '),
        *(
            ({"destination__endpoint_url": f"https://x{odd}"}, "destination.endpoint_url: must be http://HOST or https")
            for odd in ("?a=b", "/?", "#a", "/#", "/a b", " ", "\\\\a", "/a\\tb")
        ),
        ({"source__endpoint_url": "ftp://x"}, "source.endpoint_url: must be http://HOST or https://HOST, without user"),
        (
            {"source__start_from": "soon"},
            "source.start_from: must be earliest, now or an ISO time like 2026-01-31T06:0",
        ),
        (
            {"source__start_from": "2026-13-45"},
            "source.start_from: must be earliest, now or an ISO time like 2026-01-31",
        ),
        (
            {"source__start_from": "0001-01-01T00:00+10:00"},
            "source.start_from: must be earliest, now or an ISO time li",
        ),
        (
            {"source__endpoint_url": "http://x:port"},
            "source.endpoint_url: must be http://HOST or https://HOST, without",
        ),
        ({"source__lookback": "5m"}, "source.lookback: must be 1h..30d (got 5m, "),
        ({"destination__region": "de"}, "destination.region: must be 'us' or 'eu' (got de, "),
        ({"destination__transport": "x"}, "destination.transport: must be 'batch' or 'sdk' (got x, "),
        (
            {"destination__endpoint_url": "http://u:p@x"},
            "destination.endpoint_url: must be http://HOST or https://HOST",
        ),
        (
            {"destination__integrations": {"Braze": 1}},
            "destination.integrations.Braze: must be true, false or a mapping",
        ),
        (
            {"destination__message_id_prefix": "x" * 33},
            "destination.message_id_prefix: must have at most 32 characters",
        ),
        ({"destination__write_key": None}, "destination.write_key: is missing (from "),
        (
            {"destination__write_keys": ["env:NEW"]},
            "destination.write_key: must not stand beside write_keys (from ",
        ),
        ({"destination__write_keys": []}, "destination.write_keys: must hold at least one (from "),
        ({"destination__settings_endpoint_url": "x"}, "destination.settings_endpoint_url: must be http://HOST or h"),
        ({"destination__public_api": {"source_id": "x"}}, "destination.public_api.token: is missing (from "),
        (
            {"destination__public_api": {"token": "env:A", "source": "x", "source_id": "x"}},
            "destination.public_api.source: unknown key (did you mean source_id?) (from ",
        ),
        (
            {"destination__oauth": {"client_id": "", "key_id": "x", "private_key": "env:A"}},
            'destination.oauth.client_id: must not be empty (got "", from ',
        ),
        ({"loss_window": "59m"}, "loss_window: must be 1h..30d (got 59m, "),
        ({"after_loss_window": "keep"}, "after_loss_window: must be 'hold' or 'drop' (got keep, "),
        ({"rewind_message_ids": "new"}, "rewind_message_ids: must be 'same' or 'fresh' (got new, "),
        ({"events__include": []}, "events.include: must hold at least one (from "),
        ({"events__include": "all"}, "events.include: must be a list (from "),
        ({"events__exclude": [5]}, "events.exclude.0: must be text, in quotes (got 5, "),
        (
            {"events__names": {"users.behaviors.Uninstall": ""}},
            "events.names.users.behaviors.Uninstall: must not be em",
        ),
    ],
)
def test_bad_connector_settings_are_named_by_the_connector(
    load_text: Load, changes: dict[str, object], line: str
) -> None:
    """A connector is called by its name, not by its place in the list."""
    (found,) = problems(load_text, connector(**changes))

    assert found.startswith(f"connectors[{changes.get('name', 'production')}].{line}")


@pytest.mark.parametrize("key", ["include", "exclude"])
def test_event_types_that_match_nothing_are_refused(load_text: Load, key: str) -> None:
    """A misspelt family or glob would otherwise send nothing, or everything, without a word."""
    (found,) = problems(load_text, connector(**{f"events__{key}": ["suported"]}))

    assert found.startswith(f"connectors[production].events.{key}: ")
    assert "suported" in found


@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        ("DELIVERY__WORKERS", "900", "delivery.workers: must be 1..64 (got 900, from {})"),
        ("DELIVERY__WROKERS", "9", "delivery.wrokers: unknown key (did you mean workers?) (from {})"),
        ("DELIVRY__WORKERS", "9", "delivry: unknown key (did you mean delivery?) (from {})"),
        ("DELIVERY_WORKERS", "9", "delivery_workers: unknown key (did you mean delivery?) (from {})"),
        ("DELIVERY", "{", "delivery: must be a mapping, as JSON (from {})"),
        ("DELIVERY", '{"workers": 0}', "delivery.workers: must be 1..64 (got 0, from {})"),
        ("CONNECTORS", f"[{KEY}", "connectors: must be a list, as JSON (from {})"),
        ("CONNECTORS", "[]", "connectors: must hold at least one (from {})"),
    ],
)
def test_bad_variables_are_named_as_the_source(load_text: Load, name: str, value: str, line: str) -> None:
    """The line names the variable and not the file."""
    variable = f"CURRENTS_BRIDGE_{name}"

    assert problems(load_text, MINIMAL, {variable: value}) == [line.format(variable)]


def test_a_problem_of_the_file_is_not_blamed_on_a_variable_of_the_same_section(load_text: Load, file: Path) -> None:
    """Each problem has its own source."""
    environ = {"CURRENTS_BRIDGE_DELIVERY": '{"max_in_flight": 8}'}

    found = problems(load_text, MINIMAL + "delivery: {workers: 900}", environ)

    assert found == [f"delivery.workers: must be 1..64 (got 900, from {file})"]


def test_all_problems_of_file_and_environment_come_at_once(load_text: Load, file: Path) -> None:
    """Nobody mends one line to be shown the next."""
    text = """
delivery: {workers: 900, max_in_flight: 0}
connectors:
  - name: production
    source: {bucket: a, sorce: b}
    destination: {region: us}
  - 5
"""
    found = problems(load_text, text, {"CURRENTS_BRIDGE_SCHEDULE__POLL": "2d"})

    assert found == [
        "schedule.poll: must be 1s..1d (got 2d, from CURRENTS_BRIDGE_SCHEDULE__POLL)",
        f"delivery.workers: must be 1..64 (got 900, from {file})",
        f"delivery.max_in_flight: must be 1..256 (got 0, from {file})",
        f"connectors[production].source.sorce: unknown key (from {file})",
        f"connectors[production].destination.write_key: is missing (from {file})",
        f"connectors[1]: must be a mapping (from {file})",
    ]


def test_passwords_in_urls_are_not_shown(load_text: Load, file: Path) -> None:
    """A URL is echoed without its user name and password."""
    (found,) = problems(load_text, MINIMAL + "ledger: {url: 'postgresql://me:p@ss@db/x'}")

    assert found.endswith(f"(got postgresql://***@db/x, from {file})")


def test_connector_names_are_unique(load_text: Load, file: Path) -> None:
    """The ledger keeps connectors apart by their names."""
    twice = yaml.safe_load(MINIMAL)["connectors"] * 2

    assert problems(load_text, json.dumps({"connectors": twice})) == [
        f"connectors: each needs a name of its own, used more than once: production (from {file})"
    ]


@pytest.mark.parametrize(
    "text",
    [
        connector(destination__write_key=KEY),
        connector(destination__write_key=[KEY]),
        connector(destination__write_key=None, destination__write_keys=["env:OLD", KEY]),
        connector(destination__write_key=None, destination__write_keys=KEY),
        connector(destination__public_api={"token": KEY, "source_id": "x"}),
        connector(destination__oauth={"client_id": "x", "key_id": "x", "private_key": KEY}),
        MINIMAL + f"alerts: {{urls: [{KEY}]}}",
        MINIMAL + f"alerts: {{urls: {KEY}}}",
        MINIMAL + f"alerts: {{heartbeat_url: {KEY}}}",
        MINIMAL + f"alerts: {{heartbeat_url: 'slack://{KEY}'}}",
        connector(destination__write_key={"env": KEY}),
        connector(destination__write_key=f"env: {KEY}"),
        connector(destination__writekey=KEY),
        connector(destination=KEY),
        connector(destination=[KEY]),
    ],
)
def test_a_literal_secret_is_refused_and_never_shown(load_text: Load, text: str) -> None:
    """Neither the lines nor the traceback repeat what may be a secret."""
    with pytest.raises(ConfigError) as caught:
        load_text(text)

    assert KEY not in str(caught.value)
    assert caught.value.__suppress_context__


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "{}: is missing"),
        ("- a\n", "must be a mapping of keys to values"),
        ("ledger: {}\nledger: {}\n", "line 2: ledger stands twice"),
        ("ledger: {}\n1: 2\n", "line 2: a key must be text, in quotes"),
        ("ledger: [\n", "line 2: expected the node content, but found '<stream end>'"),
        ("ledger: \x01\n", "must not hold control characters"),
    ],
)
def test_a_file_that_is_no_config_is_named_with_the_line(load_text: Load, text: str, line: str) -> None:
    """Broken YAML, doubled keys and empty files are problems like any other."""
    (found,) = problems(load_text, text)

    assert line.format("connectors") in found


def test_a_missing_file_points_to_init(tmp_path: Path) -> None:
    """The hint says how to get a config."""
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "none.yaml", {})

    assert str(caught.value) == f"{tmp_path / 'none.yaml'}: there is no such file"
    assert "currents-bridge init" in caught.value.hint


@pytest.mark.parametrize(
    ("flag", "environ", "path"),
    [
        (Path("flag.yaml"), {"CURRENTS_BRIDGE_CONFIG": "env.yaml"}, Path("flag.yaml")),
        (None, {"CURRENTS_BRIDGE_CONFIG": "env.yaml"}, Path("env.yaml")),
        (None, {"CURRENTS_BRIDGE_CONFIG": ""}, DEFAULT_PATH),
        (None, {"CURRENTS_BRIDGE_CONNECTORS": "[]"}, None),
    ],
)
def test_the_flag_goes_before_the_variable_before_the_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: Path | None, environ: dict[str, str], path: Path | None
) -> None:
    """No path is needed where the environment holds the connectors and the default file is not there."""
    monkeypatch.chdir(tmp_path)

    assert config_path(flag, environ) == path


def test_another_server_can_take_the_place_of_segment(load_text: Load) -> None:
    """Paths are put after the endpoint, so its last slash goes."""
    text = connector(destination__endpoint_url="http://127.0.0.1:8080/segment/")

    assert load_text(text).connectors[0].destination.endpoint_url == "http://127.0.0.1:8080/segment"


def test_integrations_hold_switches_and_options(load_text: Load) -> None:
    """Segment takes true, false or an object for each destination."""
    integrations = {"All": False, "Amplitude": {"session_id": 1}}

    found = load_text(connector(destination__integrations=integrations)).connectors[0].destination.integrations

    assert found == integrations


@pytest.mark.parametrize("odd", ["size: .nan", "size: .inf"])
def test_integrations_that_are_no_json_are_refused(load_text: Load, odd: str) -> None:
    """A bare NaN in a message would make Segment refuse the whole request."""
    (found,) = problems(load_text, MINIMAL.replace('KEY"', f'KEY", integrations: {{Braze: {{{odd}}}}}'))

    assert found.startswith("connectors[production].destination.integrations.Braze: must be true, false or a mapping")


@pytest.mark.parametrize("odd", ["NaN", "18446744073709551616", "-1e999", "[-9223372036854775809]"])
def test_integrations_of_the_environment_that_are_no_json_are_refused(odd: str) -> None:
    """Whatever Python reads there: a message could not carry it, and no event would be sent."""
    connectors = json.dumps(yaml.safe_load(MINIMAL)["connectors"])
    text = connectors.replace('"destination": {', f'"destination": {{"integrations": {{"Braze": {{"size": {odd}}}}}, ')
    assert odd in text
    with pytest.raises(ConfigError, match=r"integrations|CURRENTS_BRIDGE_CONNECTORS"):
        load(None, {"CURRENTS_BRIDGE_CONNECTORS": text})


@pytest.mark.parametrize(("prefix", "normalised"), [("", ""), ("a", "a/"), ("a/b//", "a/b/")])
def test_a_prefix_ends_in_a_slash_or_is_empty(load_text: Load, prefix: str, normalised: str) -> None:
    """So a prefix never takes in a sibling folder whose name it starts."""
    assert load_text(connector(source__prefix=prefix)).connectors[0].source.prefix == normalised


def test_a_start_before_all_files_is_the_earliest(load_text: Load) -> None:
    """There is no hour before the first one to list from."""
    config = MINIMAL.replace("acme-currents", "acme-currents, start_from: 0001-01-01")

    assert load_text(config).connectors[0].source.start_from == "earliest"


@pytest.mark.parametrize("text", ["2026-01-31T07:00:00+01:00", "2026-01-31T06:00:00Z", "2026-01-31 06:00:00"])
@pytest.mark.parametrize("quote", ["", '"'])
def test_start_from_is_an_aware_time_in_utc(load_text: Load, text: str, quote: str) -> None:
    """A time without offset is taken as UTC, whether YAML reads a time or a string."""
    config = MINIMAL.replace("acme-currents", f"acme-currents, start_from: {quote}{text}{quote}")

    assert load_text(config).connectors[0].source.start_from == datetime(2026, 1, 31, 6, tzinfo=UTC)


def test_an_impossible_time_is_a_problem_of_its_field(load_text: Load) -> None:
    """YAML's own reading of times would refuse the file without a word on where."""
    config = MINIMAL.replace("acme-currents", "acme-currents, start_from: 2026-02-30")

    (found,) = problems(load_text, config)

    assert found.startswith("connectors[production].source.start_from: must be earliest, now or an ISO time")


def test_a_date_starts_at_midnight_utc(load_text: Load) -> None:
    """A whole day can be named without its time."""
    config = MINIMAL.replace("acme-currents", "acme-currents, start_from: 2026-01-31")

    assert load_text(config).connectors[0].source.start_from == datetime(2026, 1, 31, tzinfo=UTC)


@given(st.integers(0, 999_999), st.sampled_from([("s", 1), ("m", 60), ("h", 3600), ("d", 86_400)]))
def test_a_duration_is_its_number_times_its_unit(number: int, unit: tuple[str, int]) -> None:
    """Seconds, minutes, hours and days."""
    assert parse_duration(f"{number}{unit[0]}").total_seconds() == number * unit[1]


@pytest.mark.parametrize("value", ["5", "5 m", "1h30m", "-5m", "5w", "", "9999999d", 5, None])
def test_other_durations_are_refused(value: object) -> None:
    """A number needs its unit."""
    with pytest.raises(ValueError, match="30s 5m 6h 2d"):
        parse_duration(value)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("group", "group"), ("1d", timedelta(days=1)), ("7d", timedelta(days=7)), ("720h", timedelta(days=30))],
)
def test_repeats_are_left_out_within_a_group_or_for_days(load_text: Load, text: str, expected: object) -> None:
    """One day to thirty."""
    assert load_text(connector(dedup=text)).connectors[0].dedup == expected


def test_repeats_are_left_out_within_a_group_by_default(load_text: Load) -> None:
    """A store of message ids is a choice."""
    assert load_text(MINIMAL).connectors[0].dedup == "group"


@pytest.mark.parametrize("value", ["23h", "31d", "always", "", 7, None, True])
def test_other_spans_for_repeats_are_refused(load_text: Load, value: object) -> None:
    """The store is bounded, and shorter is no help against a day's repeats."""
    assert any("dedup: must be group, or a time" in line for line in problems(load_text, connector(dedup=value)))


@pytest.mark.parametrize(
    "reference",
    [
        "env:A_KEY",
        "file:/run/secrets/a key",
        "aws-secretsmanager:prod/segment",
        "aws-secretsmanager:prod/segment#write key",
        "aws-secretsmanager:arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/segment-AbCdEf#key",
        "aws-ssm:/prod/segment/write-key",
        "aws-ssm:write-key:3",
    ],
)
def test_a_write_key_is_kept_in_one_of_four_places(load_text: Load, reference: str) -> None:
    """The reference stays as it is until the secret is read."""
    destination = load_text(connector(destination__write_key=reference)).connectors[0].destination

    assert destination.write_key_references == (reference,)


@pytest.mark.parametrize(
    "text",
    ["", "env:", "env:A=B", "file:", "aws-ssm:", "aws-secretsmanager:", "aws-secretsmanager:a#", "vault:a", "env:A B"],
)
def test_other_references_are_refused(load_text: Load, text: str) -> None:
    """The line names the four forms."""
    (found,) = problems(load_text, connector(destination__write_key=text))

    assert "env:NAME, file:PATH, aws-secretsmanager:ID#FIELD or aws-ssm:NAME, never the secret itself" in found


def test_several_write_keys_stand_in_the_order_of_their_age(load_text: Load) -> None:
    """A rotation overlaps: the old key goes on until the new one is known to work."""
    text = connector(destination__write_key=None, destination__write_keys=["env:OLD", "env:NEW"])

    assert load_text(text).connectors[0].destination.write_key_references == ("env:OLD", "env:NEW")


@pytest.mark.parametrize(
    ("endpoint", "settings_endpoint", "url"),
    [
        (None, None, "https://cdn-settings.segment.com"),
        ("http://sink", None, None),
        ("http://sink", "http://sink/settings/", "http://sink/settings"),
        (None, "http://proxy", "http://proxy"),
    ],
)
def test_segment_is_not_asked_for_settings_where_another_host_takes_the_events(
    load_text: Load, endpoint: str | None, settings_endpoint: str | None, url: str | None
) -> None:
    """Segment does not know the keys of another host, and would make a good key look dead."""
    text = connector(destination__endpoint_url=endpoint, destination__settings_endpoint_url=settings_endpoint)

    assert load_text(text).connectors[0].destination.settings_url == url


def test_alerts_go_to_addresses_and_references(load_text: Load) -> None:
    """An address of any service of Apprise, of a webhook, or a place where it is kept."""
    urls = ("slack://a/b/c", "https://hooks.example.org/x?y=1", "mailtos://me:pw@example.org", "aws-ssm:/alerts/url")

    assert load_text(MINIMAL + f"alerts: {{urls: {json.dumps(urls)}}}").alerts.urls == urls


def test_addresses_of_alerts_are_not_printed(load_text: Load) -> None:
    """The addresses of most services hold their tokens."""
    alerts = {"urls": [f"slack://{KEY}"], "heartbeat_url": f"https://ping.example.org/{KEY}"}

    assert KEY not in repr(load_text(MINIMAL + f"alerts: {json.dumps(alerts)}"))
