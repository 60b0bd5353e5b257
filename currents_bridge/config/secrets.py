"""Secrets are references in the settings; here they become values, read anew each time.

A reference is `env:NAME`, `file:PATH`, `aws-secretsmanager:ID` (or `ID#FIELD`, of a JSON secret) or `aws-ssm:NAME`.
"""

from collections.abc import Mapping
from pathlib import Path

from pydantic import SecretStr

from currents_bridge.config import ConnectorSettings, Settings, is_reference
from currents_bridge.config.aws_secrets import UnreadableError, parameter, secret_string
from currents_bridge.errors import ConfigError, ConfigProblem
from currents_bridge.plain import NotPlainError, check_text, read_text

_HINT = "set the variable, write the file or mend the secret in AWS"


class SecretReader:
    """Reads what references stand for; remembers nothing, so that a secret that was replaced is found.

    `environ` is for `env:` alone: AWS credentials come from boto3's own chain. May be used from many threads at once.
    """

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ

    def read(self, reference: str, field: str, *, region: str | None = None, multiline: bool = False) -> SecretStr:
        """Return the secret without the white space around it.

        Args:
            reference: one that `config.is_reference` knows.
            field: the setting that holds it, for the problem.
            region: of AWS, where neither the reference nor boto3's chain has one.
            multiline: whether it may be more than one word, as a key in PEM is. Other secrets may not: Segment answers
                200 to such a write key, too, and drops the events.

        Raises:
            ConfigError: names `field` and the reference, never a part of the value, for a secret that is missing, empty
                or more than one word, or that cannot be read now (in AWS, also for want of a network).
        """
        try:
            text = self._text(reference, region).strip()
            check_text(text)
        except (UnreadableError, NotPlainError) as error:
            why = str(error)
        else:
            words = text.split()
            if len(words) == 1 or (words and multiline):
                return SecretStr(text)
            why = "holds more than one word" if words else "is empty"
        raise ConfigError([ConfigProblem(field, why, source=reference)], _HINT)

    def read_address(self, address: str, field: str, *, region: str | None = None) -> SecretStr:
        """Return an address of an alert channel or of the heartbeat, or what a reference to it stands for.

        Raises as `read`.
        """
        return self.read(address, field, region=region) if is_reference(address) else SecretStr(address)

    def _text(self, reference: str, region: str | None) -> str:
        kind, _, place = reference.partition(":")
        match kind:
            case "env":
                if place not in self._environ:
                    raise UnreadableError("is not set")
                return self._environ[place]
            case "file":
                return read_text(Path(place))
            case "aws-secretsmanager":
                identity, _, key = place.partition("#")
                return secret_string(identity, key or None, region)
            case "aws-ssm":
                return parameter(place, region)
        raise ValueError("this is no reference")  # not shown: it may be the secret


def read_write_keys(settings: Settings, reader: SecretReader) -> dict[str, tuple[SecretStr, ...]]:
    """Return the write keys of each connector that has some, oldest first, by the connector's name.

    Raises ConfigError with the problems of all where none has.
    """
    keys: dict[str, tuple[SecretStr, ...]] = {}
    problems: list[ConfigProblem] = []
    for connector in settings.connectors:
        try:
            keys[connector.name] = connector_write_keys(connector, reader)
        except ConfigError as error:
            problems += error.problems
    if problems and not keys:
        raise ConfigError(problems, _HINT)
    return keys


def connector_write_keys(connector: ConnectorSettings, reader: SecretReader) -> tuple[SecretStr, ...]:
    """Return the write keys of one connector, oldest first; raises ConfigError with the problems of all of them."""
    field = f"connectors[{connector.name}].destination.write_key"
    keys: list[SecretStr] = []
    problems: list[ConfigProblem] = []
    for index, reference in enumerate(connector.destination.write_key_references):
        place = f"{field}s.{index}" if connector.destination.write_keys else field
        try:
            keys.append(reader.read(reference, place, region=connector.source.region))
        except ConfigError as error:
            problems += error.problems
    if problems:
        raise ConfigError(problems, _HINT)
    return tuple(keys)
