"""From a YAML file and an environment to `Settings`, or to every problem at once."""

import json
import re
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from importlib.resources import files
from pathlib import Path
from textwrap import shorten
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from currents_bridge.config.settings import ENV_PREFIX, Settings
from currents_bridge.config.sources import CONFIG_VARIABLE, EnvironmentSource, FileSource
from currents_bridge.errors import ConfigError, ConfigProblem

DEFAULT_PATH = Path("config/bridge.yaml")

_WHY = {
    "dict_type": "must be a mapping",
    "finite_number": "must be a number",
    "float_parsing": "must be a number",
    "float_type": "must be a number",
    "int_from_float": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_type": "must be a whole number",
    "literal_error": "must be {expected}",
    "missing": "is missing",
    "model_type": "must be a mapping",
    "string_pattern_mismatch": "must match {pattern}",
    "string_too_long": "must have at most {max_length} characters",
    "string_too_short": "must not be empty",
    "string_type": "must be text, in quotes",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}
_RENAMED: dict[tuple[int | str, ...], str] = {
    ("schedule", "sweep"): "is gone; schedule.audit (1d) lists the whole bucket in its place",
}
_STRUCTURES = {"dict_type", "model_type", "tuple_type"}
_SHOWN_CHARACTERS = 80
_SHOWN_PROBLEMS = 200
_MAY_BE_SECRET = {"write_key", "write_keys", "token", "private_key", "urls", "heartbeat_url"}


def config_path(flag: Path | None, environ: Mapping[str, str]) -> Path | None:
    """Return the file to load: the flag, then $CURRENTS_BRIDGE_CONFIG, then config/bridge.yaml.

    None where neither is given, config/bridge.yaml does not exist and the environment holds the connectors.
    """
    if flag or environ.get(CONFIG_VARIABLE):
        return flag or Path(environ[CONFIG_VARIABLE])
    return None if f"{ENV_PREFIX}CONNECTORS" in environ and not DEFAULT_PATH.exists() else DEFAULT_PATH


def example_config() -> str:
    """Return the commented example, config/bridge.example.yaml, which holds every key."""
    return files("currents_bridge").joinpath("bridge.example.yaml").read_text(encoding="utf-8")


def load(path: Path | None, environ: Mapping[str, str]) -> Settings:
    """Return the settings of a file, overridden by the environment; path None: of the environment alone.

    Raises ConfigError with every problem of both; no problem shows a secret.
    """
    environment, file = EnvironmentSource(environ), FileSource(path)
    try:
        return Settings(_build_sources=((environment, file), {}))  # type: ignore[call-arg]  # of BaseSettings
    except ValidationError as error:
        values = file() | environment()  # not merged deeper: only connectors are looked up
        problems = [_problem(details, values, environment, path) for details in error.errors()[:_SHOWN_PROBLEMS]]
        raise ConfigError(problems) from None  # the cause holds values that may be secret


def _problem(
    details: ErrorDetails, values: Mapping[str, Any], environment: EnvironmentSource, path: Path | None
) -> ConfigProblem:
    variable = environment.variable(details["loc"])
    why = _why(details)
    if variable and details["type"] in _STRUCTURES:
        why += ", as JSON"
    source = variable or (str(path) if path else None)
    return ConfigProblem(_field(details["loc"], values), why, _got(details), source)


def _field(loc: Sequence[int | str], values: Mapping[str, Any]) -> str:
    head, *rest = loc
    if head == "connectors" and rest:
        index = rest.pop(0)
        connector = values["connectors"][index]
        name = connector.get("name") if isinstance(connector, dict) else None
        head = f"connectors[{name if isinstance(name, str) else index}]"
    return ".".join(map(str, [head, *rest]))


def _why(details: ErrorDetails) -> str:
    kind, (*parents, key) = details["type"], details["loc"]
    if kind == "extra_forbidden":
        if renamed := _RENAMED.get(tuple(details["loc"])):
            return renamed
        near = get_close_matches(str(key), _model_at(parents).model_fields, n=1)
        return "unknown key" + (f" (did you mean {near[0]}?)" if near else "")
    if kind in ("greater_than_equal", "less_than_equal"):
        metadata = _model_at(parents).model_fields[str(key)].metadata
        bounds = {name: getattr(bound, name) for bound in metadata for name in ("ge", "le") if hasattr(bound, name)}
        return "must be {ge}..{le}".format(**bounds)
    return _WHY.get(kind, details["msg"]).format(**details.get("ctx", {}))


def _model_at(loc: Sequence[int | str]) -> type[BaseModel]:
    model: type[BaseModel] = Settings
    for key in loc:
        if isinstance(key, str):
            annotation = model.model_fields[key].annotation
            candidates = (annotation, *get_args(annotation))
            model = next(t for t in candidates if isinstance(t, type) and issubclass(t, BaseModel))
    return model


def _got(details: ErrorDetails) -> str | None:
    """Return the value as shown to the user; None where it has no short form or may be or hold a secret."""
    value = details["input"]
    if details["type"] in {"extra_forbidden", *_STRUCTURES} or not _MAY_BE_SECRET.isdisjoint(details["loc"]):
        return None
    if isinstance(value, dict | list | tuple):
        return None
    text = value if isinstance(value, str) and value else json.dumps(value, default=str)
    return shorten(re.sub(r"//.*@", "//***@", text), _SHOWN_CHARACTERS, placeholder="...")
