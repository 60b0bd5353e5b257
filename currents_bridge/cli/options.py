"""What several commands share: options, settings, logs."""

import gc
import logging
import os
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from currents_bridge.cli import streams
from currents_bridge.errors import BridgeError, ConfigError

if TYPE_CHECKING:
    from currents_bridge.bridge import Bridge
    from currents_bridge.config import Settings
    from currents_bridge.wiring_ledger import Missing

Config = Annotated[
    Path | None,
    typer.Option("--config", envvar="CURRENTS_BRIDGE_CONFIG", help="Configuration file [default: config/bridge.yaml]"),
]
Verbose = Annotated[bool, typer.Option("--verbose", "-v", help="Debug logs, and tracebacks of errors")]
Json = Annotated[bool, typer.Option("--json", help="One JSON document on stdout")]
ConnectorName = Annotated[str | None, typer.Option("--connector", help="Only this connector")]


def load_settings(config: Path | None) -> "Settings":
    """Return the settings of a file and the environment; raises ConfigError."""
    from currents_bridge.config import config_path, load

    return load(config_path(config, os.environ), os.environ)


def configure_logs(*, verbose: bool, level: int) -> None:
    """Write logs to stderr from `level` on, all of ours with -v."""
    from currents_bridge import logs

    logs.configure_logs(json=not sys.stderr.isatty(), level=logging.DEBUG if verbose else level, stream=sys.stderr)


def quiet_logs(*, verbose: bool) -> None:
    """Write only warnings, for commands whose result is what they print."""
    configure_logs(verbose=verbose, level=logging.WARNING)


def _write_failure(why: str, hint: str) -> None:
    """Write the one document of a command that ends by force, where one is wanted and none is begun."""
    if "--json" in sys.argv:
        streams.write_last(streams.json_document(failure([why], hint)))


def _hang_up(bridge: "Bridge", config: Path | None) -> None:
    from currents_bridge.cli import hangup

    bridge.read_secrets_again()
    hangup.answer(bridge.settings, lambda: load_settings(config))


@contextmanager
def opened(
    config: Path | None, missing: "Missing", *, verbose: bool, level: int = logging.INFO, grace_s: float | None = None
) -> "Iterator[Bridge]":
    """Open the program as the configuration says; signals stop it from before anything is opened.

    `level` is that of the logs without -v; `grace_s` what a stop may take, by default COMMAND_GRACE_S.
    """
    from currents_bridge.process.memory import share_arena
    from currents_bridge.process.signals import COMMAND_GRACE_S, stopped_by_signals

    share_arena()  # before polars and obstore are imported, which start threads
    configure_logs(verbose=verbose, level=level)
    stop = threading.Event()
    with stopped_by_signals(stop, COMMAND_GRACE_S if grace_s is None else grace_s) as signals:
        signals.on_force = _write_failure
        from currents_bridge import wiring

        with (
            wiring.ended_by(signals),
            wiring.open_bridge(load_settings(config), os.environ, stop, missing=missing) as bridge,
        ):
            signals.on_hangup = partial(_hang_up, bridge, config)
            # What is loaded by now stays, and little of what comes makes cycles: looking for them took 10 % of a
            # delivery.
            gc.freeze()
            gc.set_threshold(10_000)
            yield bridge


def failure(problems: Sequence[str], hint: str) -> dict[str, object]:
    """Return the document of a command that ended before it had one."""
    return {"error": "; ".join(problems), "reasons": dict.fromkeys(problems, 1), "hint": hint}


def tell(error: BridgeError) -> None:
    """Tell on stderr what went wrong, every problem of a configuration on a line of its own, and what to do."""
    problems = error.problems if isinstance(error, ConfigError) else [error.message]
    for problem in problems:
        say(f"Error: {problem}")
    say(f"Try:   {error.hint}")


def say(line: str) -> None:
    """Print a line on stderr."""
    print(line, file=sys.stderr)
