"""The docs say what the program does."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.core import TyperGroup

from currents_bridge import errors
from currents_bridge.cli.main import cli
from currents_bridge.sources.s3.errors import Access

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
DOCS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
GROUP = typer.main.get_command(cli)
assert isinstance(GROUP, TyperGroup)
COMMANDS = GROUP.commands


def help_of(*arguments: str) -> str:
    """Return what `--help` prints."""
    program = Path(sys.executable).with_name("currents-bridge")
    done = subprocess.run([program, *arguments, "--help"], capture_output=True, check=True, text=True)
    return done.stdout.rstrip()


def test_the_help_in_the_readme_is_the_help_of_the_program() -> None:
    """The block after `$ currents-bridge --help`."""
    block = re.search(r"\$ currents-bridge --help\n(.*?)\n```", README, re.DOTALL)
    assert block is not None
    assert block[1] == help_of()


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_is_in_the_readme_and_has_help(name: str) -> None:
    """And its short help is not cut."""
    assert re.search(rf"\b{name}\b", README)
    assert help_of(name)
    assert "..." not in COMMANDS[name].get_short_help_str()


def test_the_exit_codes_in_the_readme_are_those_of_the_error_tree() -> None:
    """Each code that an error carries has its row, and so have 0 and 4."""
    documented = {int(code) for code in re.findall(r"^\| (\d) \|", README, re.MULTILINE)}
    found: list[type[errors.BridgeError]] = [errors.BridgeError, *errors.BridgeError.__subclasses__()]
    assert {kind.exit_code for kind in found} | {0} == documented


def test_the_tree_of_errors_is_drawn_whole() -> None:
    """The docstring of errors.py names each class."""
    for kind in errors.BridgeError.__subclasses__():
        assert kind.__name__ in (errors.__doc__ or "")


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    """Every relative link names a file or folder of the project."""
    for target in re.findall(r"\]\((?!https?://)([^)#]+)\)", path.read_text(encoding="utf-8")):
        assert (path.parent / target).exists(), target


def test_every_test_that_the_guarantees_name_exists() -> None:
    """A promise without its proof is found here."""
    text = (ROOT / "docs/guarantees.md").read_text(encoding="utf-8")
    sources = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("*.py"))
    for name in re.findall(r"`(test_\w+)`", text):
        assert f"def {name}(" in sources, name
    for name in re.findall(r"`(Test\w+)`", text):
        assert f"class {name}:" in sources, name
    for file in re.findall(r"`(tests/[\w/]+\.py)`", text):
        assert (ROOT / file).exists(), file


@pytest.mark.parametrize("path", [*DOCS, ROOT / "Makefile"], ids=lambda path: path.name)
def test_every_make_target_that_is_named_exists(path: Path) -> None:
    """`make NAME` in the docs is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"(?:`|^)make ([a-z-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)) <= targets


def test_the_policy_grants_what_the_program_needs_and_marks_the_rest_as_optional() -> None:
    """Least privilege: one action a statement, on what it needs that for, and nothing that changes the bucket."""
    policy = json.loads((ROOT / "infra/iam-policy.json").read_text(encoding="utf-8"))
    granted = {statement["Sid"]: statement["Action"] for statement in policy["Statement"]}
    assert [action for sid, action in granted.items() if not sid.startswith("Optional")] == [
        permission for _, permission in (Access.LIST.value, Access.READ.value)
    ]
    assert {action for sid, action in granted.items() if sid.startswith("Optional")} == {
        Access.RULES.value[1],
        "secretsmanager:GetSecretValue",
        "ssm:GetParameter",
        "sns:Publish",
    }
    assert not any(statement["Resource"] == "*" for statement in policy["Statement"])
