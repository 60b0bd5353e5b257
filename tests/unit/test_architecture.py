"""The direction of imports is a test, not a habit."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

PACKAGE = Path(__file__).parents[2] / "currents_bridge"
# Only adapters talk to the world; the testing kit plays it.
EDGES = {"boto3", "botocore", "requests", "urllib3", "sqlalchemy", "alembic", "segment", "moto"}
INSIDE = [path for path in sorted(PACKAGE.rglob("*.py")) if not {"adapters", "testing"} & set(path.parts)]


def test_imports_go_downwards_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers of pyproject.toml hold."""
    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)  # it would silence our logger for later tests
    assert lint_imports(cache_dir=None) == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def imported(path: Path) -> set[str]:
    """Return the names of the modules that a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names} | {node.module or ""}
    return names


@pytest.mark.parametrize("path", INSIDE, ids=lambda path: path.name)
def test_only_adapters_import_the_worlds_libraries(path: Path) -> None:
    """The core can be read without knowing them."""
    assert not {name.partition(".")[0] for name in imported(path)} & EDGES


@pytest.mark.parametrize(
    "path", [p for p in INSIDE if p.name not in {"app.py", "app_ledger.py"}], ids=lambda path: path.name
)
def test_only_app_imports_adapters(path: Path) -> None:
    """There is one composition root."""
    assert not [name for name in imported(path) if name.startswith("currents_bridge.adapters")]
