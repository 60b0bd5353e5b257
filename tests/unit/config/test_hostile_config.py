"""Whatever stands in a configuration, an environment or a secret file gives settings or a sentence, and quickly."""

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from currents_bridge.cli import main
from currents_bridge.config import ENV_PREFIX, Settings, load
from currents_bridge.config.secrets import SecretReader
from currents_bridge.errors import ConfigError
from currents_bridge.plain import MAX_FILE_BYTES

CONNECTOR = '{name: production, source: {bucket: acme}, destination: {write_key: "env:KEY"}}'
MINIMAL = f"connectors: [{CONNECTOR}]\n"
QUICK_S = 3.0  # CPU; the worst takes a third of it
EVERY_VALUE = pytest.mark.parametrize(
    "place",
    [
        "connectors: {}",
        "ledger: {{url: {}}}",
        "delivery: {{workers: {}}}",
        "delivery: {{requests_per_second: {}}}",
        "schedule: {{poll: {}}}",
        "alerts: {{urls: [{}], heartbeat_url: {}}}",
        "connectors: [{{name: {}, source: {}}}]",
        "connectors: [{{name: p, source: {{bucket: {}, start_from: {}, region: {}}}, destination: {{write_key: {}}}}}]",
        "connectors: [{{name: p, source: {{bucket: a}}, destination: {{write_key: env:K, integrations: {{a: {}}}}}}}]",
        "connectors: [{{events: {{include: {}, names: {}}}, dedup: {}}}]",
        "{}",
    ],
)


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return where a configuration is written."""
    return tmp_path_factory.mktemp("config") / "bridge.yaml"


def outcome(read: Callable[[], object]) -> str:
    """Return the sentences of the ConfigError, or nothing where there is none; anything else passes."""
    began = time.process_time()
    try:
        read()
    except ConfigError as error:
        text = "\n".join(map(str, error.problems))
        assert text
        assert text.isprintable() or "\n" in text
        text.encode()
        return text
    finally:
        assert time.process_time() - began < QUICK_S
    return ""


def of_text(file: Path, text: str | bytes) -> str:
    """Return what comes of a file that holds the text."""
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    return outcome(lambda: load(file, {}))


def doubling(first: str, each: str) -> str:
    """Return 30 lines, each of which names the one before it twice."""
    lines = [f"a0: &a0 {first}", *(f"a{n}: &a{n} {each.replace('*', f'*a{n - 1}')}" for n in range(1, 30))]
    return "\n".join(lines) + "\n"


@pytest.mark.parametrize("bomb", [("[x, x]", "[*, *]"), ("{x: 1}", "{y: *, z: *}"), ("{x: 1}", "{<<: [*, *]}")])
def test_aliases_that_double_are_refused(file: Path, bomb: tuple[str, str]) -> None:
    """22 lines took 2 s, and each more twice as long."""
    assert "holds more than" in of_text(file, doubling(*bomb) + MINIMAL)


@pytest.mark.parametrize("text", ["connectors: &a [*a]", "connectors: &a {b: *a}", "a: &a {<<: *a}"])
def test_a_value_that_holds_itself_is_refused(file: Path, text: str) -> None:
    """It has no end."""
    assert "line 1: holds itself" in of_text(file, text)


def test_an_alias_saves_writing_a_value_twice(file: Path) -> None:
    """That is what they are for."""
    assert of_text(file, f"connectors: [{CONNECTOR.replace('source: ', 'source: &s ')}, {{<<: *s}}]") != ""
    second = '{name: other, source: *s, destination: {write_key: "env:KEY"}}'
    assert of_text(file, f"connectors: [{CONNECTOR.replace('source: ', 'source: &s ')}, {second}]") == ""


@pytest.mark.parametrize("levels", [21, 500, 100_000])
@pytest.mark.parametrize("ends", [("[", "]"), ("{a: ", "}")])
@EVERY_VALUE
def test_values_that_are_nested_deeply_are_refused(file: Path, place: str, ends: tuple[str, str], levels: int) -> None:
    """Lists 500 deep ended in a traceback."""
    deep = ends[0] * levels + ends[1] * levels
    value = place.format(*[deep] * 4)

    found = of_text(file, value)

    assert "nested more than 20 deep" in found or "is larger than" in found


@pytest.mark.parametrize(
    "value",
    [
        *("!!set {a, b}", "!!set {a: null}", "!!binary aGk=", "!!binary '#'", "!!omap [a: 1]", "!!pairs [a: 1]"),
        *("!!python/object/apply:os.getcwd []", "!!timestamp 2020-01-01", "!own x", "!!int x", "!!int ''", "!!float x"),
        *("!!bool x", "!!str [a]", "!!map [a]", "!!seq {a: b}", "!<tag:yaml.org,2002:int> 0b"),
        *(f"0x{'f' * 5000}", "1" * 5000, "1" * 400, "1e999", ".inf", "-.inf", ".nan", "999999999999d", "'999999999d'"),
        *("'٣s'", "'30s\\n'", "{}", "[]", "~", "''", "0000-01-01", "10000-01-01", "'9999-12-31T23:59:59-12:00'"),
        *("'0001-01-01T00:00:00+14:00'", "2026-01-01T00:00:00+99:99", '"a\\0b"', '"\\ud800"', '"\\e[31m"', '"\\N"'),
        *('"file:a\\0b"', '"env:\\ud800"', '"https://a/\\0"', "'http://['", "'sqlite:///a?timeout=x'", '"us east"'),
    ],
)
@EVERY_VALUE
def test_odd_values_are_refused_with_a_sentence(file: Path, place: str, value: str) -> None:
    """Each as each of the settings."""
    of_text(file, place.format(*[value] * 4))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("\tconnectors: 1", "line 1: found character '\\t' that cannot start any token"),
        ("connectors: 1\n connectors: 2", "line 2: mapping values are not allowed here"),
        ("delivery: {workers: 1, workers: 2}", "line 1: workers stands twice"),
        ("delivery: {workers: !!set {a}}", "could not determine a constructor for the tag 'tag:yaml.org,2002:set'"),
        ("delivery: {workers: !!binary aGk=}", "could not determine a constructor"),
        ("delivery: {workers: !!bool x}", "line 1: is no bool"),
        (f"delivery: {{workers: 0x{'f' * 5000}}}", "line 1: is too large a number"),
        (f"a: 1{':1' * 200_000}", "line 1: is too large a number"),  # to the base 60
        (f"a: 1{':1' * 300}.5", "line 1: is too large a number"),
        ('a: "\\ud800"', "line 1: must not hold control characters"),
        ('"\\0": 1', "line 1: must not hold control characters"),
        ("a: \0", "must not hold control characters"),
        (b"connectors: \xff", "is no plain text in UTF-8"),
        ("connectors: 1".encode("utf-16"), "is no plain text in UTF-8"),
        ("a: *b", "line 1: found undefined alias"),
        (MINIMAL + "---\n" + MINIMAL, "line 2: but found another document"),
        ("[" + "{}," * 60_000 + "]", "holds more than"),
        ("#" * MAX_FILE_BYTES + "\n", "is larger than 512 KiB"),
    ],
)
def test_the_sentence_says_what_is_odd(file: Path, text: str | bytes, sentence: str) -> None:
    """And where, if it is known."""
    assert sentence in of_text(file, text)


def test_a_file_with_a_byte_order_mark_is_read(file: Path) -> None:
    """As some editors write it."""
    assert of_text(file, b"\xef\xbb\xbf" + MINIMAL.encode()) == ""


def test_many_problems_are_told_quickly(file: Path) -> None:
    """The first of them; nobody reads 20,000."""
    assert of_text(file, "connectors: [" + "{}," * 20_000 + "]").count("\n") == 199
    assert of_text(file, "".join(f"k{n}: 1\n" for n in range(20_000))).count("\n") == 199


@pytest.fixture
def odd_files(tmp_path: Path) -> dict[str, Path]:
    """Things that are no small file of text, by what is said of them."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").touch()
    os.truncate(tmp_path / "huge", 1 << 30)
    (tmp_path / "binary").write_bytes(b"\x89PNG\xff")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    return {
        "is no file, but a": tmp_path / "pipe",
        "cannot be read: Is a directory": tmp_path,
        "is larger than 512 KiB": tmp_path / "huge",
        "is no plain text in UTF-8": tmp_path / "binary",
        "there is no such file": tmp_path / "none",
        "cannot be read: Too many levels": tmp_path / "loop",
        "cannot be read: File name too long": tmp_path / ("x" * 300),
        "is no name that a file can have": Path("a\0b"),
    }


def test_what_is_no_small_file_is_no_configuration(odd_files: dict[str, Path]) -> None:
    """A pipe is not waited for, a gigabyte not read."""
    for why, path in odd_files.items():
        assert why in outcome(lambda path=path: load(path, {})), path  # type: ignore[misc]


def test_what_is_no_small_file_is_no_secret(odd_files: dict[str, Path]) -> None:
    """The same for `file:` references, and the value is never part of it."""
    reader = SecretReader({})
    for why, path in odd_files.items():
        assert why in outcome(lambda path=path: reader.read(f"file:{path}", "write_key")), path  # type: ignore[misc]


@pytest.mark.parametrize("value", ["a\0b", "\udcff", "\x1b[31m"])
def test_a_secret_of_odd_characters_is_refused(tmp_path: Path, value: str) -> None:
    """It could not be part of a request."""
    (tmp_path / "key").write_bytes(value.encode(errors="surrogateescape"))
    for reference in (f"file:{tmp_path / 'key'}", "env:KEY"):
        found = outcome(lambda of=reference: SecretReader({"KEY": value}).read(of, "write_key"))  # type: ignore[misc]
        assert "must not hold control characters" in found or "is no plain text" in found


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        ("DELIVERY__WORKERS__X", "1", "is no setting, since delivery.workers is set as a whole"),
        ("CONNECTORS__0__NAME", "x", "is no setting, since connectors is set as a whole"),
        ("ALERTS__URLS__0", "https://a", "is no setting, since alerts.urls is set as a whole"),
        ("DELIVERY____X", "1", "delivery.: unknown key"),
        ("", "1", ": unknown key"),
        ("DELIVERY", "[]", "delivery: must be a mapping, as JSON"),
        ("DELIVERY__REQUESTS_PER_SECOND", "1e-300", "must be 0.001..1000000"),
        ("DELIVERY__REQUESTS_PER_SECOND", "inf", "must be a number"),
        ("CONNECTORS", "[" * 100_000, "connectors: must be a list, as JSON"),
        ("CONNECTORS", "[" * 500 + "]" * 500, "must not be nested more than 20 deep"),
        ("CONNECTORS", '["\\ud800"]', "must not hold control characters"),
        ("LEDGER__URL", "sqlite:///\udcff", "must not hold control characters"),
        ("LED\udcff", "1", "must not hold control characters"),
    ],
)
@pytest.mark.parametrize("beside", [{}, {f"{ENV_PREFIX}DELIVERY__WORKERS": "8", f"{ENV_PREFIX}CONNECTORS": "[]"}])
def test_odd_variables_are_told(name: str, value: str, sentence: str, beside: dict[str, str]) -> None:
    """None is left out without a word, whatever others set."""
    assert sentence in outcome(lambda: load(None, beside | {f"{ENV_PREFIX}{name}": value}))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates() | st.binary()
KNOWN = st.sampled_from(
    ("connectors", "name", "source", "bucket", "start_from", "destination", "write_key", "integrations", "events", "<<")
) | st.sampled_from(("names", "dedup", "delivery", "workers", "schedule", "poll", "alerts", "urls", "ledger", "url"))
DOCUMENTS = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(KNOWN | st.text(max_size=3), inner, max_size=4)
        | st.sets(st.integers(), max_size=2)
    ),
    max_leaves=12,
)
often = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@often
@given(document=st.dictionaries(KNOWN, DOCUMENTS, max_size=4) | DOCUMENTS)
def test_any_document_gives_settings_or_a_sentence(file: Path, document: Any) -> None:
    """Of known keys and others, with values of any kind."""
    of_text(file, yaml.dump(document, allow_unicode=True).encode(errors="surrogatepass"))


@often
@given(
    text=st.text(st.sampled_from("&*a[]{}:,-?!|>%@`'\"#~ \t\n0.e<x\\u\ud800é"), max_size=60) | st.binary(max_size=40)
)
def test_any_text_gives_settings_or_a_sentence(file: Path, text: str | bytes) -> None:
    """Of the characters that mean something in YAML, and of any bytes."""
    of_text(file, text if isinstance(text, bytes) else text.encode(errors="surrogatepass"))


@often
@given(
    st.dictionaries(
        st.lists(KNOWN | st.sampled_from(["", "0", "X"]), max_size=4).map(lambda p: ENV_PREFIX + "__".join(p).upper()),
        st.text(st.characters(exclude_characters="\0"), max_size=8)
        | DOCUMENTS.map(lambda d: json.dumps(d, default=str)),
        max_size=4,
    )
)
def test_any_environment_gives_settings_or_a_sentence(environ: dict[str, str]) -> None:
    """Of any names and values."""
    outcome(lambda: load(None, environ))


@pytest.mark.parametrize("text", [doubling("[x, x]", "[*, *]"), "[" * 500, "!!set {a}", "\0", None], ids=repr)
def test_the_program_tells_it_in_two_lines_as_bad_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, text: str | None
) -> None:
    """For each command that reads a configuration, here from a file or a pipe."""
    path = tmp_path / "bridge.yaml"
    if text is None:
        os.mkfifo(path)
    else:
        path.write_text(text)
    monkeypatch.setattr("sys.argv", ["currents-bridge", "status", "--config", str(path)])
    monkeypatch.setattr(main, "quiet_logs", lambda **_: None)

    assert main.execute() == 2
    assert [line[:7] for line in capsys.readouterr().err.splitlines()] == ["Error: ", "Try:   "]


@pytest.mark.parametrize("pace", ["nan", "inf", "0", "-1", "1e-300", "1e300"])
def test_a_backfill_at_no_pace_is_bad_usage(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pace: str
) -> None:
    """As in the settings."""
    span = ["--from", "2026-01-01", "--to", "2026-01-02"]
    monkeypatch.setattr("sys.argv", ["currents-bridge", "backfill", *span, f"--requests-per-second={pace}"])

    assert main.execute() == 2
    assert "give 0.001 to 1000000" in capsys.readouterr().err


def test_settings_of_a_plain_file_are_as_they_stand(file: Path) -> None:
    """Bounds for hostile files leave room for a thousand connectors."""
    many = [CONNECTOR.replace("production", f"c{number}") for number in range(1_000)]
    file.write_text(f"connectors: [{', '.join(many)}]\n")
    loaded: Settings = load(file, {})
    assert len(loaded.connectors) == 1_000
