"""The two places that settings come from: a YAML file and variables of the environment."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, YamlConfigSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

from currents_bridge.config.settings import ENV_PREFIX, Settings
from currents_bridge.errors import ConfigError, ConfigProblem

CONFIG_VARIABLE = f"{ENV_PREFIX}CONFIG"

# Kubernetes sets these in every pod beside a Service whose name starts with currents-bridge:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|=)|_PORT_\d+_(TCP|UDP|SCTP)(_|=)|_PORT=(tcp|udp|sctp)://")


class _StrictLoader(yaml.SafeLoader):
    """YAML whose keys are text and stand once; times stay text, for the settings to read or refuse."""

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in PyYAML
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if key.tag not in ("tag:yaml.org,2002:str", "tag:yaml.org,2002:merge"):
                raise yaml.MarkedYAMLError(problem="a key must be text, in quotes", problem_mark=key.start_mark)
            if key.value in seen:
                raise yaml.MarkedYAMLError(problem=f"{key.value} stands twice", problem_mark=key.start_mark)
            seen.add(key.value)
        return node


class FileSource(YamlConfigSettingsSource):
    """The values of a YAML file; raises ConfigError for a file that is no YAML mapping. None: no values."""

    def __init__(self, path: Path | None) -> None:
        if path is not None and not path.is_file():
            hint = "write one with `currents-bridge init`, or name another with --config"
            raise ConfigError([ConfigProblem(str(path), "there is no such file")], hint)
        super().__init__(Settings, yaml_file=path)

    def _read_file(self, file_path: Any) -> dict[str, Any]:
        field = str(file_path)
        try:
            with file_path.open(encoding="utf-8") as stream:
                data = yaml.load(stream, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
        except yaml.MarkedYAMLError as error:
            field += f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
            why = error.problem or "is no YAML"
        except OSError as error:
            why = f"cannot be read: {error.strerror}"
        except (ValueError, yaml.YAMLError):
            why = "is no YAML in UTF-8"
        else:
            if data is None or isinstance(data, dict):
                return data or {}
            why = "must be a mapping of keys to values"
        raise ConfigError([ConfigProblem(field, why)])


class EnvironmentSource(EnvSettingsSource):
    """The values of the CURRENTS_BRIDGE_* variables of `environ`, misspelt ones among them."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = {
            name: value
            for name, value in environ.items()
            if name.upper().startswith(ENV_PREFIX)
            and name.upper() != CONFIG_VARIABLE
            and not _SERVICE_LINK.search(f"{name}={value}")
        }
        super().__init__(Settings)

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return parse_env_vars(self._environ, parse_none_str=self.env_parse_none_str)

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Return what the JSON text holds; other text as it is, for the model to refuse together with the rest."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value

    def __call__(self) -> dict[str, Any]:
        """Return the values by section, and each unknown section without a value."""
        sections = {name.upper().removeprefix(ENV_PREFIX).split("__")[0].lower() for name in self._environ}
        return super().__call__() | dict.fromkeys(sorted(sections - Settings.model_fields.keys()))

    def variable(self, loc: Sequence[int | str]) -> str | None:
        """Return the variable that set the value at `loc` or a part of it; None where none did."""
        section = self().get(str(loc[0]), {})
        if isinstance(section, dict) and len(loc) > 1 and loc[1] not in section:
            return None
        names = {name.upper(): name for name in self._environ}
        paths = [ENV_PREFIX + "__".join(map(str, loc[:end])).upper() for end in range(len(loc), 0, -1)]
        whole = [names[path] for path in paths if path in names]
        parts = [names[name] for name in sorted(names) if name.startswith(f"{paths[0]}__")]
        return next(iter(whole + parts), None)
