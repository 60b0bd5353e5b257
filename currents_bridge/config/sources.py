"""The two places that settings come from: a YAML file and variables of the environment."""

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from itertools import chain
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, InitSettingsSource
from pydantic_settings.sources.utils import parse_env_vars

from currents_bridge.config.settings import ENV_PREFIX, Settings
from currents_bridge.errors import ConfigError, ConfigProblem
from currents_bridge.plain import MAX_LEVELS, NotPlainError, check_text, check_value, read_text

CONFIG_VARIABLE = f"{ENV_PREFIX}CONFIG"

# Kubernetes sets these in every pod beside a Service whose name starts with currents-bridge:
# https://kubernetes.io/docs/concepts/services-networking/service/#environment-variables
_SERVICE_LINK = re.compile(r"_SERVICE_(HOST|PORT)(_|=)|_PORT_\d+_(TCP|UDP|SCTP)(_|=)|_PORT=(tcp|udp|sctp)://")


MAX_VALUES = 50_000  # of a file, with its aliases put in
_INT_BITS = 64
_NUMBER_CHARS = 64  # 1:1:1... is a number of YAML, to the base 60, and takes the square of its length
_TYPES = {"null", "bool", "int", "float", "str", "seq", "map"}


class _StrictLoader(yaml.SafeLoader):
    """YAML whose keys are text and stand once; times stay text, for the settings to read or refuse.

    Plain values only, and no more of them than a person writes, with aliases put in: the time for a file is bounded.
    """

    yaml_implicit_resolvers = {  # noqa: RUF012 - as in PyYAML
        first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
        for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }
    yaml_constructors = {  # noqa: RUF012 - as in PyYAML
        tag: construct
        for tag, construct in yaml.SafeLoader.yaml_constructors.items()
        if tag is None or tag.removeprefix("tag:yaml.org,2002:") in _TYPES
    }

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._levels = 0
        self._sizes: dict[yaml.Node, int] = {}  # in values, with aliases put in

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]
        mark = event.start_mark
        if isinstance(event, yaml.CollectionStartEvent) and self._levels >= MAX_LEVELS:
            raise yaml.MarkedYAMLError(problem=f"nested more than {MAX_LEVELS} deep", problem_mark=mark)
        self._levels += 1
        node = super().compose_node(parent, index)
        self._levels -= 1
        if node is None:
            return None
        if isinstance(event, yaml.AliasEvent) and node not in self._sizes:
            raise yaml.MarkedYAMLError(problem="holds itself", problem_mark=mark)
        if node not in self._sizes:
            self._sizes[node] = 1 + sum(self._sizes[child] for child in _children(node))
        if self._sizes[node] > MAX_VALUES:
            raise yaml.MarkedYAMLError(problem=f"holds more than {MAX_VALUES} values", problem_mark=mark)
        return node

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        try:
            check_text(node.value)
        except NotPlainError as error:
            raise yaml.MarkedYAMLError(problem=str(error), problem_mark=node.start_mark) from None
        return node

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

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:  # noqa: FBT001, FBT002 - as in PyYAML
        kind = node.tag.removeprefix("tag:yaml.org,2002:")
        if kind in ("int", "float") and len(node.value) > _NUMBER_CHARS:
            raise yaml.MarkedYAMLError(problem="is too large a number", problem_mark=node.start_mark)
        try:
            value = super().construct_object(node, deep)
        except (KeyError, ValueError, IndexError):  # of a value that is not what its tag says
            raise yaml.MarkedYAMLError(problem=f"is no {kind}", problem_mark=node.start_mark) from None
        if isinstance(value, int) and value.bit_length() > _INT_BITS:
            raise yaml.MarkedYAMLError(problem="is too large a number", problem_mark=node.start_mark)
        return value


def _children(node: yaml.Node) -> Iterable[yaml.Node]:
    if isinstance(node, yaml.ScalarNode):
        return ()
    return chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else iter(node.value)


class FileSource(InitSettingsSource):
    """The values of a YAML file; raises ConfigError for a file that is no YAML mapping. None: no values."""

    def __init__(self, path: Path | None) -> None:
        super().__init__(Settings, {} if path is None else _read(path))


def _read(path: Path) -> dict[str, Any]:
    field, hint = str(path), "mend the file"
    try:
        text = read_text(path)
        check_text(text)
        data = yaml.load(text, Loader=_StrictLoader)  # noqa: S506 - a SafeLoader
    except NotPlainError as error:
        why, hint = str(error), "write one with `currents-bridge init`, or name another with --config"
    except yaml.MarkedYAMLError as error:
        field += f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        why = error.problem or "is no YAML"
    except (ValueError, yaml.YAMLError):
        why = "is no YAML"
    else:
        if data is None or isinstance(data, dict):
            return data or {}
        why = "must be a mapping of keys to values"
    raise ConfigError([ConfigProblem(field, why)], hint)


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
        except (ValueError, RecursionError):
            return value

    @cached_property
    def _values(self) -> dict[str, Any]:
        sections = {name.upper().removeprefix(ENV_PREFIX).split("__")[0].lower() for name in self._environ}
        return super().__call__() | dict.fromkeys(sorted(sections - Settings.model_fields.keys()))

    def __call__(self) -> dict[str, Any]:
        """Return the values by section, and each unknown section without a value; raises ConfigError."""
        problems = [ConfigProblem(name, why) for name in self._environ if (why := _odd_name(name))]
        problems += [
            ConfigProblem(section, why, source=self.variable((section,)))
            for section, value in self._values.items()
            if (why := _not_plain(value))
        ]
        if problems:
            raise ConfigError(problems)
        return self._values

    def variable(self, loc: Sequence[int | str]) -> str | None:
        """Return the variable that set the value at `loc` or a part of it; None where none did."""
        section = self._values.get(str(loc[0]), {})
        if isinstance(section, dict) and len(loc) > 1 and loc[1] not in section:
            return None
        names = {name.upper(): name for name in self._environ}
        paths = [ENV_PREFIX + "__".join(map(str, loc[:end])).upper() for end in range(len(loc), 0, -1)]
        whole = [names[path] for path in paths if path in names]
        parts = [names[name] for name in sorted(names) if name.startswith(f"{paths[0]}__")]
        return next(iter(whole + parts), None)


def _not_plain(value: object) -> str | None:
    try:
        check_value(value)
    except NotPlainError as error:
        return str(error)
    return None


def _odd_name(name: str) -> str | None:
    """Return why a variable can set nothing, if it goes on below a value; unknown keys are found elsewhere."""
    model: type[BaseModel] = Settings
    *parents, _ = name.upper().removeprefix(ENV_PREFIX).lower().split("__")
    for depth, part in enumerate(parents, 1):
        if part not in model.model_fields:
            break
        annotation = model.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return f"is no setting, since {'.'.join(parents[:depth])} is set as a whole"
        model = annotation
    return _not_plain(name)
