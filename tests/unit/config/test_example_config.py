"""The example config is valid, complete, and true about the defaults."""

import re
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from currents_bridge.config import Settings, example_config, load

EXAMPLES = {"name", "bucket", "write_key"}  # keys without a default, which the file marks as examples


def keys(model: type[BaseModel], path: str = "") -> dict[str, Any]:
    """Return the path of every key of a model with its default, as JSON would hold it."""
    found: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        section = next((t for t in (field.annotation, *get_args(field.annotation)) if is_model(t)), None)
        found |= keys(section, f"{path}{name}.") if section else {f"{path}{name}": field.default}
    return found


def is_model(candidate: object) -> bool:
    """Whether a type has keys of its own."""
    return isinstance(candidate, type) and issubclass(candidate, BaseModel)


def leaves(values: dict[str, Any], model: type[BaseModel], path: str = "") -> dict[str, Any]:
    """Return the path of every key of a file with its value; the first connector speaks for all."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        inner = value[0] if path + name == "connectors" else value
        if f"{path}{name}" in keys(model):
            found[f"{path}{name}"] = inner
        else:
            found |= leaves(inner, model, f"{path}{name}.")
    return found


def with_optional_sections() -> str:
    """Return the example with the sections that are null there as their comments show them."""

    def shown(section: re.Match[str]) -> str:
        return section["name"] + ":\n" + section["keys"].replace("#   ", "  ")

    text, count = re.subn(r"(?P<keys>(?: +#   \w+: .*\n)+)(?P<name> +\w+): null\n", shown, example_config())
    assert count == 2
    return text


@pytest.fixture
def loaded(tmp_path: Path) -> Settings:
    """Return the settings of the example, unchanged."""
    (tmp_path / "bridge.yaml").write_text(example_config(), encoding="utf-8")
    return load(tmp_path / "bridge.yaml", {})


def test_the_example_holds_every_key() -> None:
    """A key that is missing there is a key that nobody finds."""
    assert leaves(yaml.safe_load(with_optional_sections()), Settings).keys() == keys(Settings).keys()


def test_the_sections_that_the_example_shows_as_comments_are_valid(tmp_path: Path) -> None:
    """Who takes the comment signs away has settings that work."""
    (tmp_path / "bridge.yaml").write_text(with_optional_sections(), encoding="utf-8")

    destination = load(tmp_path / "bridge.yaml", {}).connectors[0].destination

    assert destination.public_api
    assert destination.public_api.token == "env:SEGMENT_API_TOKEN"
    assert destination.oauth
    assert destination.oauth.private_key == "file:/run/secrets/segment.pem"


def test_the_example_shows_the_defaults(loaded: Settings) -> None:
    """Only the keys without a default have an example's value."""
    connector = loaded.connectors[0]
    sections: list[BaseModel] = [loaded.ledger, loaded.schedule, loaded.delivery, loaded.alerts, connector]
    sections += [connector.source, connector.destination, connector.events]
    shown = {
        f"{type(section).__name__}.{name}": (getattr(section, name), field.default)
        for section in sections
        for name, field in type(section).model_fields.items()
        if not isinstance(getattr(section, name), BaseModel) and name not in EXAMPLES
    }

    assert {name: value for name, (value, _) in shown.items()} == {
        name: default for name, (_, default) in shown.items()
    }


def test_the_example_explains_every_key() -> None:
    """Each key has a comment on its own line or above it."""
    lines = example_config().splitlines()
    bare = [
        line
        for above, line in zip(["", *lines], lines, strict=False)
        if ":" in line and "#" not in line and not line.endswith(":") and not above.strip().startswith("#")
    ]

    assert bare == []


def test_the_repository_and_the_package_hold_one_and_the_same_example() -> None:
    """`init` writes the file that people read in config/."""
    root = Path(__file__).parents[3]

    assert (root / "config/bridge.example.yaml").samefile(root / "currents_bridge/bridge.example.yaml")
