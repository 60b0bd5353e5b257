"""Where results go: JSON files, tables on the terminal, and the marked parts of docs/performance.md."""

import json
import os
import platform
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil
from rich.console import Console

from benchmarks.cases import CASES
from benchmarks.outcome import FINDING_COLUMNS, Outcome, markdown, run_table, table
from benchmarks.rig import CORES

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results"
PAGE = ROOT / "docs" / "performance.md"
LIBRARIES = ("polars", "fastavro", "boto3", "urllib3")


def conditions(sink: str) -> dict[str, Any]:
    """Return when, on what and beside how much other work something is measured."""
    memory_gb = psutil.virtual_memory().total / 1e9
    return {
        "at": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": f"{CORES} cores of {_processor()}, {memory_gb:.0f} GB, {platform.system()}",
        "software": ", ".join([f"Python {platform.python_version()}", *(f"{lib} {version(lib)}" for lib in LIBRARIES)]),
        "load_1min_before": round(os.getloadavg()[0], 2),
        "sink": sink,
    }


def write_result(folder: Path, name: str, document: Mapping[str, Any]) -> None:
    """Write one result as JSON."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")


def show(console: Console, outcome: Outcome) -> None:
    """Print what a case found."""
    console.print(f"\n[bold]{outcome.title}[/bold]\n{outcome.about}")
    if outcome.runs:
        console.print(table(*run_table(outcome)))
    console.print(table(FINDING_COLUMNS, [finding.cells() for finding in outcome.findings]))


def write_page(folder: Path) -> None:
    """Write the newest result of each case into the docs."""
    replace_part("bench", "\n\n".join(_parts(folder)))


def replace_part(name: str, text: str) -> None:
    """Replace what stands between the markers of this name in the docs."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    page = PAGE.read_text(encoding="utf-8")
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    page, count = pattern.subn(lambda _: f"{begin}\n\n{text}\n\n{end}", page)
    if count != 1:
        raise RuntimeError(f"{PAGE} has {count} parts between {begin} and {end}")
    PAGE.write_text(page, encoding="utf-8")


def measured_on(documents: Iterable[Mapping[str, Any]]) -> str:
    """Return a sentence on the machine, one for each that results come from."""
    return "\n".join(sorted({f"{doc['machine']}; {doc['software']}; sink: {doc['sink']}." for doc in documents}))


def when(document: Mapping[str, Any]) -> str:
    """Return when a result was measured, and beside how much other work."""
    return f"{document['at'].replace('T', ' ')[:16]} UTC, load before: {document['load_1min_before']}"


def _parts(folder: Path) -> Iterator[str]:
    documents = {
        name: json.loads(path.read_text(encoding="utf-8"))
        for name in CASES
        if (path := folder / f"{name}.json").exists()
    }
    outcomes = {name: Outcome.from_json(document["outcome"]) for name, document in documents.items()}
    yield measured_on(documents.values())
    rows = [(f"`make bench CASE={name}`", *finding.cells()) for name in outcomes for finding in outcomes[name].findings]
    rows += [(f"`make bench CASE={name}`", "not measured yet", "", "", "") for name in CASES if name not in outcomes]
    yield markdown(("command", *FINDING_COLUMNS), rows)
    for name, outcome in outcomes.items():
        document = documents[name]
        about = outcome.about[0].upper() + outcome.about[1:]
        yield f"### {outcome.title}\n\n`make bench CASE={name}` ({when(document)}). {about}."
        if outcome.runs:
            yield markdown(*run_table(outcome))


def _processor() -> str:
    """Return the name of the processor, which Python knows on few systems."""
    try:
        found = re.search(r"^model name\s*: (.+)$", Path("/proc/cpuinfo").read_text(encoding="utf-8"), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.machine()
