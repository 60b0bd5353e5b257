"""Log lines: one pipeline, each line with its action."""

import ast
import io
import json
import logging
import re
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
from pydantic import SecretStr

import currents_bridge
from currents_bridge.logs import configure_logs, get_logger

PACKAGE = Path(currents_bridge.__file__).parent
LEVELS = {"debug", "info", "warning", "error", "exception", "critical"}


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    """Undo what `configure_logs` does to the process."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    root.handlers.clear()  # basicConfig(force=True) would close pytest's own
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.getLogger("currents_bridge").setLevel(logging.NOTSET)
    structlog.reset_defaults()


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    """Return the JSON lines written so far."""
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_line_holds_time_level_action_and_ids(stream: io.StringIO) -> None:
    """The time is ISO 8601 in UTC."""
    configure_logs(json=True, level=logging.INFO, stream=stream)

    get_logger().info("objects_discovered", connector="production", objects=2)

    (line,) = lines(stream)
    assert datetime.fromisoformat(line.pop("timestamp")).utcoffset() is not None
    assert line == {"level": "info", "action": "objects_discovered", "connector": "production", "objects": 2}


def test_a_terminal_gets_words_instead_of_json(stream: io.StringIO) -> None:
    """The action comes first, then the ids."""
    configure_logs(json=False, level=logging.INFO, stream=stream)

    get_logger().info("objects_discovered", connector="production")

    assert re.search(r"\[info +\] objects_discovered +connector=production\n", stream.getvalue())


def test_libraries_log_warnings_through_the_same_pipeline(stream: io.StringIO) -> None:
    """Their sentence is the message, even where a library has set a lower level of its own."""
    configure_logs(json=True, level=logging.DEBUG, stream=stream)
    library = logging.getLogger("botocore.test")
    library.setLevel(logging.DEBUG)

    library.info("Signing with %s", "a secret")
    library.warning("Retry %d", 2)

    (line,) = lines(stream)
    assert (line["action"], line["message"], line["logger"]) == ("message", "Retry 2", "botocore.test")


@pytest.mark.parametrize(("level", "written"), [(logging.INFO, []), (logging.DEBUG, ["group_claimed"])])
def test_the_level_holds_for_our_lines(stream: io.StringIO, level: int, written: list[str]) -> None:
    """Details are for -v."""
    configure_logs(json=True, level=level, stream=stream)

    get_logger().debug("group_claimed")

    assert [line["action"] for line in lines(stream)] == written


@pytest.mark.parametrize(("level", "traceback"), [(logging.INFO, False), (logging.DEBUG, True)])
@pytest.mark.parametrize("as_json", [True, False])
def test_tracebacks_are_for_debugging_only(stream: io.StringIO, level: int, *, traceback: bool, as_json: bool) -> None:
    """Otherwise an exception is one line with its type and message."""
    configure_logs(json=as_json, level=level, stream=stream)

    try:
        int("x")
    except ValueError:
        get_logger().exception("poll_failed")

    assert "ValueError: invalid literal" in stream.getvalue()
    assert ("Traceback" in stream.getvalue()) is traceback


def test_a_secret_is_masked_in_a_line(stream: io.StringIO) -> None:
    """A key that is logged by mistake stays unknown."""
    configure_logs(json=True, level=logging.INFO, stream=stream)

    get_logger().info("connector_started", write_key=SecretStr("abc"))

    assert lines(stream)[0]["write_key"] == "**********"


def test_configuring_again_replaces_the_stream(stream: io.StringIO) -> None:
    """No line is written twice."""
    configure_logs(json=True, level=logging.INFO, stream=io.StringIO())
    configure_logs(json=True, level=logging.INFO, stream=stream)

    get_logger().info("daemon_started")

    assert len(lines(stream)) == 1


def unnamed(source: str) -> list[str]:
    """Return the calls of `log` or `logger` whose first argument is no action: snake_case, or a variable `action`."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        ast.unparse(call)
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and call.func.attr in LEVELS
        and ast.unparse(call.func.value).removeprefix("self.").lstrip("_").split(".")[0] in ("log", "logger")
        and not (call.args and re.fullmatch("'[a-z0-9_]+'|action", ast.unparse(call.args[0])))
    ]


@pytest.mark.parametrize("call", ["log.info('Objects discovered')", "_log.error(f'{x}')", "self.log.warning(n=1)"])
def test_a_line_without_an_action_is_found(call: str) -> None:
    """The next test can fail."""
    assert unnamed(call) == [call]


@pytest.mark.parametrize("module", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_every_line_of_the_program_has_an_action(module: Path) -> None:
    """Whoever reads logs by machine matches actions, never prose."""
    assert unnamed(module.read_text(encoding="utf-8")) == []
