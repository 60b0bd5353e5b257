"""The commands of `ledger`."""

from pathlib import Path
from typing import Annotated

import typer

from currents_bridge.cli.options import Config, Json, Verbose, load_settings, quiet_logs

ledger = typer.Typer(help="The memory of what was done.", rich_markup_mode=None)


@ledger.callback()
def _group() -> None:
    """Keep `backup` a command of its own as long as it is the only one."""


@ledger.command("backup")
def backup(
    path: Annotated[Path, typer.Argument(help="File to write; it must not be there yet")],
    *,
    config: Config = None,
    as_json: Json = False,
    verbose: Verbose = False,
) -> None:
    """Write a copy that can be put back.

    Consistent, also beside a running daemon, which does not wait for it. To put it back: stop the program, remove the
    ledger's file and those with -wal and -shm at the end of its name, and move the copy into its place. What was
    delivered since the copy is sent again then, with the same message ids.
    """
    from currents_bridge import wiring_ledger
    from currents_bridge.cli import render

    quiet_logs(verbose=verbose)
    size = wiring_ledger.back_up(load_settings(config), path)
    if as_json:
        render.print_json({"path": str(path.absolute()), "bytes": size})
    else:
        print(f"wrote {path.absolute()}, {size:,} bytes")
