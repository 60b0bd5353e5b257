"""Secret references become values, and never show them."""

from pathlib import Path

import pytest

from currents_bridge.adapters.secrets import read_secret, read_secrets
from currents_bridge.config import ConnectorSettings, DestinationSettings, Settings, SourceSettings
from currents_bridge.errors import ConfigError

KEY = "abcdefghij0123456789abcdefghij01"


def settings(**references: str) -> Settings:
    """Return settings with one connector for each name and its write key's reference."""
    return Settings(
        connectors=tuple(
            ConnectorSettings(
                name=name, source=SourceSettings(bucket="b"), destination=DestinationSettings(write_key=reference)
            )
            for name, reference in references.items()
        )
    )


def test_a_secret_comes_from_a_variable_or_a_file_without_white_space(tmp_path: Path) -> None:
    """Editors end files with a newline, which is no part of a key."""
    (tmp_path / "key").write_text(f"{KEY}\r\n")

    secrets = read_secrets(settings(a="env:A_KEY", b=f"file:{tmp_path / 'key'}"), {"A_KEY": f" {KEY}"})

    assert {name: secret.get_secret_value() for name, secret in secrets.items()} == {"a": KEY, "b": KEY}


def test_a_secret_is_masked_wherever_it_is_printed() -> None:
    """Logs and tracebacks print values by str and repr."""
    secret = read_secret("env:A_KEY", {"A_KEY": KEY}, "field")

    assert KEY not in f"{secret} {secret!r} {[secret]}"


def test_all_connectors_without_a_secret_are_named_at_once(tmp_path: Path) -> None:
    """Each line has the field, the reason and the reference."""
    (tmp_path / "empty").write_text("\n")
    (tmp_path / "binary").write_bytes(b"\xff\xfe")
    (tmp_path / "two").write_text(f"{KEY}\n{KEY}\n")
    places = {name: f"file:{tmp_path / name}" for name in ("none", "empty", "binary", "two")}

    with pytest.raises(ConfigError) as caught:
        read_secrets(
            settings(good="env:GOOD", unset="env:UNSET", blank="env:BLANK", **places), {"GOOD": KEY, "BLANK": ""}
        )

    reasons = {
        "unset": "is not set (from env:UNSET)",
        "blank": "is empty (from env:BLANK)",
        "none": f"cannot be read: No such file or directory (from {places['none']})",
        "empty": f"is empty (from {places['empty']})",
        "binary": f"is no plain text in UTF-8 (from {places['binary']})",
        "two": f"holds more than one word (from {places['two']})",
    }
    assert [str(problem) for problem in caught.value.problems] == [
        f"connectors[{name}].destination.write_key: {reason}" for name, reason in reasons.items()
    ]
    assert caught.value.exit_code == 2
