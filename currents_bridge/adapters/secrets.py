"""Secrets are references in the settings, `env:NAME` or `file:PATH`; here they become values."""

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from currents_bridge.config import Settings
from currents_bridge.errors import ConfigError, ConfigProblem

_HINT = "set the variable or write the file, then run `check`"


def read_secrets(settings: Settings, environ: Mapping[str, str]) -> dict[str, SecretStr]:
    """Return the write key of each connector, by the connector's name.

    Raises ConfigError with the problems of all connectors.
    """
    secrets: dict[str, SecretStr] = {}
    problems: list[ConfigProblem] = []
    for connector in settings.connectors:
        field = f"connectors[{connector.name}].destination.write_key"
        try:
            secrets[connector.name] = read_secret(connector.destination.write_key, environ, field)
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems, _HINT)
    return secrets


def read_secret(reference: str, environ: Mapping[str, str], field: str) -> SecretStr:
    """Return what `env:NAME` or `file:PATH` stands for, without the white space around it.

    Raises ConfigError, naming `field` and the reference, for a secret that is missing, empty or more than one word:
    none of these is a write key, yet Segment may answer 200 to it and drop the events.
    """
    kind, _, place = reference.partition(":")
    try:
        text = environ.get(place, "") if kind == "env" else Path(place).read_text(encoding="utf-8")
    except OSError as error:
        why = f"cannot be read: {error.strerror}"
    except UnicodeDecodeError:
        why = "is no plain text in UTF-8"
    else:
        words = text.split()
        if len(words) == 1:
            return SecretStr(words[0])
        if words:
            why = "holds more than one word"
        else:
            why = "is not set" if kind == "env" and place not in environ else "is empty"
    raise ConfigError([ConfigProblem(field, why, source=reference)], _HINT)
