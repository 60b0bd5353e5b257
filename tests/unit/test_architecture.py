"""The direction of imports is a test, not a habit."""

import ast
from pathlib import Path

import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

PACKAGE = Path(__file__).parents[2] / "currents_bridge"
MODULES = sorted(PACKAGE.rglob("*.py"))
MAX_MODULES = 15  # of a folder, beside its __init__.py
# Which folders and modules may import a library that speaks to the world; the testing kit plays it.
EDGES = {
    "alembic": {"ledger"},
    "apprise": {"alerts/channels.py"},
    "boto3": {"alerts/sns.py", "config/aws_secrets.py", "network/", "sources/s3/"},
    "botocore": {"alerts/sns.py", "config/aws_secrets.py", "network/", "sources/s3/"},
    "moto": set(),
    "obstore": {"sources/s3/"},
    "requests": {"network/"},
    "segment": {"destinations/segment/"},
    "sqlalchemy": {"ledger/"},
    "urllib3": {"alerts/channels.py", "destinations/segment/", "network/", "sources/s3/"},
}


def test_imports_go_downwards_only(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The layers of pyproject.toml hold."""
    monkeypatch.setattr("logging.config.dictConfig", lambda _: None)  # it would silence our logger for later tests
    assert lint_imports(cache_dir=None) == EXIT_STATUS_SUCCESS, capsys.readouterr().out


def imported(path: Path) -> set[str]:
    """Return the top-level names of what a file imports."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("library", EDGES)
def test_a_library_that_speaks_to_the_world_stays_in_its_folders(library: str) -> None:
    """The core can be read without knowing it."""
    users = [path.relative_to(PACKAGE).as_posix() for path in MODULES if library in imported(path)]
    assert [user for user in users if not user.startswith((*EDGES[library], "testing/"))] == []


def test_no_folder_holds_more_modules_than_one_can_know() -> None:
    """Else it is several concerns."""
    folders = {path.parent for path in MODULES if path.parent.name != "versions"}
    counts = {
        f.relative_to(PACKAGE).as_posix(): len([p for p in f.glob("*.py") if p.stem != "__init__"]) for f in folders
    }
    assert {folder: count for folder, count in counts.items() if count > MAX_MODULES} == {}
