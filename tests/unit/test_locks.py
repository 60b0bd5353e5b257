"""The lock files are closed: each name is pinned with every extra that anything asks for, and nothing else is there."""

import re
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@dataclass(frozen=True)
class Lock:
    """A lock file, and which parts of pyproject.toml it holds besides the dependencies of the program."""

    name: str
    extras: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()

    def text(self) -> str:
        """Return what the file holds."""
        return (ROOT / self.name).read_text(encoding="utf-8")

    def roots(self) -> Iterator[Requirement]:
        """Yield what pyproject.toml asks for."""
        lines = [*PROJECT["project"]["dependencies"]]
        for extra in self.extras:
            lines += PROJECT["project"]["optional-dependencies"][extra]
        for group in self.groups:
            lines += _of_group(group)
        yield from map(Requirement, lines)


LOCKS = (
    Lock("requirements.lock"),
    Lock("requirements-demo.lock", extras=("demo",)),
    Lock("requirements-dev.lock", extras=("demo",), groups=("dev",)),
    Lock("requirements-bench.lock", extras=("demo",), groups=("bench",)),
)
EVERY_LOCK = pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)


def _of_group(name: str) -> Iterator[str]:
    for line in PROJECT["dependency-groups"][name]:
        if isinstance(line, dict):
            yield from _of_group(line["include-group"])
        else:
            yield line


def pins_in(text: str) -> dict[str, Requirement]:
    """Return the pins of a lock that count on this machine, by name."""
    blocks = [block for block in re.split(r"\n(?=\S)", text) if block.strip()]
    pins = [Requirement(re.split(r"\s*\\\n", block)[0]) for block in blocks]
    return {canonicalize_name(pin.name): pin for pin in pins if pin.marker is None or pin.marker.evaluate()}


def version_of(pin: Requirement) -> str:
    """Return the version that a pin names."""
    (specifier,) = pin.specifier
    return specifier.version


def asked(roots: Iterable[Requirement], pins: dict[str, Requirement]) -> dict[str, list[Requirement]]:
    """Return what the roots ask for, directly or through what is installed here, by name."""
    found: dict[str, list[Requirement]] = {}
    seen = set()
    waiting = [root for root in roots if root.marker is None or root.marker.evaluate()]
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        found.setdefault(name, []).append(wanted)
        for extra in ("", *wanted.extras):
            if (name, extra) not in seen:
                seen.add((name, extra))
                waiting += needed_by(name, extra, pins)
    return found


def needed_by(name: str, extra: str, pins: dict[str, Requirement]) -> Iterator[Requirement]:
    """Yield what a package asks for with an extra, if it is installed here as it is pinned."""
    try:
        installed = distribution(name)
    except (
        PackageNotFoundError
    ):  # what only the benchmarks need; `make install-smoke` installs its lock with old and new pip
        return
    if name in pins:
        assert installed.version == version_of(pins[name]), f"{name}: run `make setup`, since the lock has changed"
    for needed in map(Requirement, installed.requires or ()):
        if needed.marker is None or needed.marker.evaluate({"extra": extra}):
            yield needed


def gaps(roots: Iterable[Requirement], pins: dict[str, Requirement]) -> list[str]:
    """Return what is asked for and not pinned so, a line for each."""
    lines = []
    for name, wanted in asked(roots, pins).items():
        if name not in pins:
            lines.append(f"{name} is missing")
            continue
        extras = set().union(*(one.extras for one in wanted)) - pins[name].extras
        lines += [f"{name} lacks [{extra}]" for extra in sorted(extras)]
        lines += [f"{pins[name]} is not {one}" for one in wanted if version_of(pins[name]) not in one.specifier]
    return lines


@EVERY_LOCK
def test_everything_that_is_asked_for_is_pinned_with_its_extras(lock: Lock) -> None:
    """Old versions of pip look an extra that is not pinned up afresh, and stop at the newest version's hash."""
    assert gaps(lock.roots(), pins_in(lock.text())) == []


@EVERY_LOCK
def test_an_extra_that_is_not_pinned_is_found(lock: Lock) -> None:
    """The test above fails for each extra that is taken out of a lock."""
    text = lock.text()
    pinned = re.findall(r"^([\w.-]+)\[([^]]+)\]==", text, re.MULTILINE)
    assert pinned
    for name, extras in pinned:
        stripped = text.replace(f"{name}[{extras}]==", f"{name}==")
        assert gaps(lock.roots(), pins_in(stripped)) == [f"{name} lacks [{extra}]" for extra in extras.split(", ")]


@EVERY_LOCK
def test_nothing_is_pinned_that_nothing_asks_for(lock: Lock) -> None:
    """A test server in a production install would show here."""
    pins = pins_in(lock.text())
    surplus = pins.keys() - asked(lock.roots(), pins).keys()
    assert lock.name == "requirements-bench.lock" or not surplus  # whose own packages are not installed here


def test_a_production_install_brings_no_test_server() -> None:
    """What plays S3 comes with the extra `demo`."""
    servers = {"moto", "flask", "flask-cors", "werkzeug"}
    assert not servers & pins_in(LOCKS[0].text()).keys()
    assert servers <= pins_in(LOCKS[1].text()).keys()


def test_what_was_tested_is_what_is_installed() -> None:
    """All locks pin the same versions as the development's."""
    tested = {name: version_of(pin) for name, pin in pins_in(LOCKS[2].text()).items()}
    for lock in LOCKS:
        pins = {name: version_of(pin) for name, pin in pins_in(lock.text()).items()}
        assert {name: pins[name] for name in pins.keys() & tested.keys()} == {
            name: tested[name] for name in pins.keys() & tested.keys()
        }
        assert lock.name == "requirements-bench.lock" or pins.keys() <= tested.keys()


def test_every_lock_is_checked_and_names_no_registry() -> None:
    """Each requirement has its version and its hashes."""
    assert {lock.name for lock in LOCKS} == {path.name for path in ROOT.glob("requirements*.lock")}
    for lock in LOCKS:
        assert "://" not in lock.text()
        blocks = [block for block in re.split(r"\n(?=\S)", lock.text()) if block.strip()]
        assert all("==" in block and "--hash=sha256:" in block for block in blocks)


def test_ci_installs_in_the_ways_of_the_readme() -> None:
    """Word by word, and with the oldest pip that the README promises."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    script = (ROOT / ".ci/install-smoke").read_text(encoding="utf-8")
    ways = [line.partition("  ")[0] for line in re.findall(r"^(?:pip|pipx|uv tool) install .*", readme, re.MULTILINE)]
    ways += re.findall(r"`((?:pip|pipx|uv tool) install [^`]*)`", readme)
    assert len(ways) == 6
    assert all(f'"{way}"' in script for way in ways)
    assert re.findall(r"^OLDEST_PIP=(.*)", script, re.MULTILINE) == re.findall(r"pip (\d+\.\d+)", readme)
