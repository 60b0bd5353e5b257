"""`make bench`: this program beside what anyone would use instead, from a real S3 server into a local sink.

Each case prints its table and its targets, and whether they are reached; a missed target is no failure. The exit code
is 1 if events were lost, sent twice or not owed. What comes out, and on which machine: docs/performance.md.
"""

import logging
import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from benchmarks.cases import CASES
from benchmarks.report import RESULTS, conditions, show, write_page, write_result
from benchmarks.rig import has_dlt, running_rig
from benchmarks.scale import FULL, QUICK
from benchmarks.sinks import SinkKind
from currents_bridge.logs import configure_logs

WIDTH = 140  # where the terminal does not say


def main(
    *,
    case: Annotated[
        list[str] | None, typer.Option(help=f"One of {', '.join(CASES)}; repeatable [default: all]")
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Tiny sizes, to see that all of it works")] = False,
    sink: Annotated[SinkKind, typer.Option(help="auto: nginx where it is installed")] = SinkKind.AUTO,
    results: Annotated[Path, typer.Option(help="Folder of the JSON files")] = RESULTS,
    write_docs: Annotated[
        bool, typer.Option("--write-docs", help="Write the results into docs/performance.md")
    ] = False,
) -> None:
    """Measure."""
    names = case or list(CASES)
    if unknown := set(names) - CASES.keys():
        raise typer.BadParameter(f"there is no case {', '.join(sorted(unknown))}", param_hint="--case")
    scale = QUICK if quick else FULL
    configure_logs(json=True, level=logging.WARNING, stream=sys.stderr)
    console = Console(width=None if shutil.get_terminal_size((0, 0)).columns else WIDTH)
    console.print(f"sink: {sink.chosen()}" + ("" if has_dlt() else "; without the dlt pipeline: dlt is not installed"))
    correct = True
    with running_rig(sink) as rig:
        for name in names:
            about = conditions(rig.sink_kind)
            outcome = CASES[name](rig, scale)
            show(console, outcome)
            write_result(results, name, about | {"case": name, "outcome": outcome.as_json()})
            correct = correct and outcome.correct
            if write_docs:
                write_page(results)
    console.print(f"\nwrote {results}")
    raise typer.Exit(0 if correct else 1)


if __name__ == "__main__":
    typer.run(main)
