"""Secret references become values, read anew each time, and never show them."""

from pathlib import Path
from typing import Any

import pytest

from currents_bridge.config import ConnectorSettings, DestinationSettings, Settings, SourceSettings
from currents_bridge.config.secrets import SecretReader, connector_write_keys, read_write_keys
from currents_bridge.errors import ConfigError

KEY = "abcdefghij0123456789abcdefghij01"
PEM = "-----BEGIN PRIVATE KEY-----\nAAAA\nBBBB\n-----END PRIVATE KEY-----"


def connector(name: str, *references: str) -> ConnectorSettings:
    """Return a connector with one write key, or with several."""
    keys: dict[str, Any] = {"write_key": references[0]} if len(references) == 1 else {"write_keys": references}
    return ConnectorSettings(name=name, source=SourceSettings(bucket="b"), destination=DestinationSettings(**keys))


def settings(**references: str) -> Settings:
    """Return settings with one connector for each name and its write key's reference."""
    return Settings(connectors=tuple(connector(name, reference) for name, reference in references.items()))


def test_a_secret_comes_from_a_variable_or_a_file_without_white_space(tmp_path: Path) -> None:
    """Editors end files with a newline, which is no part of a key."""
    (tmp_path / "key").write_text(f"{KEY}\r\n")

    keys = read_write_keys(settings(a="env:A_KEY", b=f"file:{tmp_path / 'key'}"), SecretReader({"A_KEY": f" {KEY}"}))

    assert {name: [key.get_secret_value() for key in of_one] for name, of_one in keys.items()} == {
        "a": [KEY],
        "b": [KEY],
    }


def test_a_connector_without_its_secret_leaves_the_others_alone() -> None:
    """It is told of by whoever opens it."""
    assert list(read_write_keys(settings(a="env:A_KEY", b="env:GONE"), SecretReader({"A_KEY": KEY}))) == ["a"]


def test_a_secret_that_was_replaced_is_found(tmp_path: Path) -> None:
    """A rotation needs no restart."""
    reader = SecretReader({})
    for content in ("old", "new"):
        (tmp_path / "key").write_text(content)

        assert reader.read(f"file:{tmp_path / 'key'}", "field").get_secret_value() == content


def test_several_write_keys_come_in_the_order_of_the_settings() -> None:
    """Oldest first."""
    keys = connector_write_keys(connector("a", "env:OLD", "env:NEW"), SecretReader({"OLD": "old", "NEW": "new"}))

    assert [key.get_secret_value() for key in keys] == ["old", "new"]


def test_each_of_several_write_keys_has_a_problem_of_its_own() -> None:
    """The problem names the place in the list."""
    with pytest.raises(ConfigError) as caught:
        connector_write_keys(connector("a", "env:OLD", "env:GOOD", "env:NEW"), SecretReader({"GOOD": KEY}))

    assert [p.field.removeprefix("connectors[a].destination.") for p in caught.value.problems] == [
        "write_keys.0",
        "write_keys.2",
    ]


def test_a_private_key_may_have_several_lines() -> None:
    """Where that is asked for."""
    assert SecretReader({"A": PEM}).read("env:A", "field", multiline=True).get_secret_value() == PEM


def test_an_address_may_be_a_reference() -> None:
    """Addresses of alert channels stand in the settings, or hold a token and stand elsewhere."""
    reader = SecretReader({"A": "slack://a/b/c"})

    assert reader.read_address("env:A", "field").get_secret_value() == "slack://a/b/c"
    assert reader.read_address("https://example.org", "field").get_secret_value() == "https://example.org"


def test_a_secret_is_masked_wherever_it_is_printed() -> None:
    """Logs and tracebacks print values by str and repr."""
    secret = SecretReader({"A_KEY": KEY}).read("env:A_KEY", "field")

    assert KEY not in f"{secret} {secret!r} {[secret]}"


def test_all_connectors_without_a_secret_are_named_at_once(tmp_path: Path) -> None:
    """Each line has the field, the reason and the reference."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "two").write_text(f"{KEY}\n{KEY}\n")
    places = {name: f"file:{tmp_path / name}" for name in ("none", "empty", "binary", "two")}

    with pytest.raises(ConfigError) as caught:
        read_write_keys(
            settings(unset="env:UNSET", blank="env:BLANK", **places),
            SecretReader({"BLANK": ""}),
        )

    reasons = {
        "unset": "is not set (from env:UNSET)",
        "blank": "is empty (from env:BLANK)",
        "none": f"there is no such file (from {places['none']})",
        "empty": f"is empty (from {places['empty']})",
        "binary": f"is no plain text in UTF-8 (from {places['binary']})",
        "two": f"holds more than one word (from {places['two']})",
    }
    assert [str(problem) for problem in caught.value.problems] == [
        f"connectors[{name}].destination.write_key: {reason}" for name, reason in reasons.items()
    ]
    assert caught.value.exit_code == 2
