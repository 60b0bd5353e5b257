"""What a case found, as values, as tables and as JSON."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from rich.table import Table

from benchmarks.rig import Run


@dataclass(frozen=True, slots=True)
class Finding:
    """One measure beside its target."""

    measure: str
    measured: float
    target: float
    at_least: bool
    unit: str

    @property
    def reached(self) -> bool:
        """Whether the measure is on the right side of its target."""
        return self.measured >= self.target if self.at_least else self.measured <= self.target

    def cells(self) -> tuple[str, str, str, str]:
        """Return measure, target, measured, reached."""
        bound = "at least" if self.at_least else "at most"
        target, measured = (f"{number(value)} {self.unit}".rstrip() for value in (self.target, self.measured))
        return self.measure, f"{bound} {target}", measured, "yes" if self.reached else "NO"


def at_least(measure: str, measured: float, target: float, unit: str = "") -> Finding:
    """Return a finding of which more is better."""
    return Finding(measure, measured, target, at_least=True, unit=unit)


def at_most(measure: str, measured: float, target: float, unit: str = "") -> Finding:
    """Return a finding of which less is better."""
    return Finding(measure, measured, target, at_least=False, unit=unit)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one case found; `about` says what was run, and how many times."""

    title: str
    about: str
    findings: Sequence[Finding]
    runs: Mapping[str, Run] = field(default_factory=dict)
    compared: bool = False  # the first run is ours, the others are measured to compare it with
    correct: bool = True  # False: events were lost, sent twice, or not owed

    def as_json(self) -> dict[str, Any]:
        """Return the outcome, with rates and whether each target was reached."""
        return asdict(self) | {
            "findings": [asdict(finding) | {"reached": finding.reached} for finding in self.findings],
            "runs": {
                name: asdict(run) | {"events_per_s": run.events_per_s, "cpu_us": run.cpu_us}
                for name, run in self.runs.items()
            },
        }

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> "Outcome":
        """Return the outcome that `as_json` made the document of."""
        findings = [Finding(**_fields(Finding, finding)) for finding in document["findings"]]
        runs = {name: Run(**_fields(Run, run)) for name, run in document["runs"].items()}
        return cls(**{**document, "findings": findings, "runs": runs})


def _fields(kind: type[Finding | Run], document: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the document holds of the fields, without what follows from them."""
    return {field.name: document[field.name] for field in fields(kind)}


RUN_COLUMNS = ("", "events sent", "events/s", "CPU us an event", "peak MB", "requests", "MB on the wire")
FINDING_COLUMNS = ("measure", "target", "measured", "reached")


def run_table(outcome: Outcome) -> tuple[Sequence[str], list[Sequence[str]]]:
    """Return the columns and the rows of a case's runs."""
    columns = (*RUN_COLUMNS, "ours / this") if outcome.compared else RUN_COLUMNS
    ours = next(iter(outcome.runs.values()))
    rows: list[Sequence[str]] = []
    for name, run in outcome.runs.items():
        values = (run.sent, run.events_per_s, run.cpu_us, run.peak_mb, run.requests, run.wire_mb)
        ratio = "" if run is ours else f"{ours.events_per_s / run.events_per_s:.2f}"
        rows.append((name, *map(number, values), ratio)[: len(columns)])
    return columns, rows


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> Table:
    """Return a table for a terminal."""
    result = Table(box=None)
    for place, column in enumerate(columns):
        result.add_column(column, justify="right" if place else "left")
    for row in rows:
        result.add_row(*row)
    return result


def markdown(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table for the docs; columns of numbers stand to the right."""
    cells = list(rows)
    of_numbers = [all(cell[:1].isdigit() or not cell for cell in column) for column in zip(*cells, strict=True)]
    lines = [columns, ["---:" if right else "---" for right in of_numbers], *cells]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def number(value: float) -> str:
    """Return a number with as many digits as it deserves."""
    if value == int(value) or abs(value) >= 1000:  # noqa: PLR2004 - a thousand needs no decimals
        return f"{value:,.0f}"
    return f"{value:.3g}"
