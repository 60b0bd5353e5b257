"""What a benchmark says of its targets is what it measured."""

import json

import pytest

from benchmarks.outcome import Finding, Outcome, at_least, at_most, markdown, run_table
from benchmarks.rig import Run

OURS = Run(sent=800_000, seconds=10.0, cpu_s=12.0, peak_mb=450.0, requests=2_000, wire_mb=200.0, body_mb=900.0)
PEER = Run(sent=24_000, seconds=4.0, cpu_s=3.0, peak_mb=100.0, requests=240, wire_mb=30.0)


@pytest.mark.parametrize(
    ("finding", "cells"),
    [
        (at_least("events/s", 80_000.4, 70_000), ("events/s", "at least 70,000", "80,000", "yes")),
        (at_least("events/s", 69_999, 70_000), ("events/s", "at least 70,000", "69,999", "NO")),
        (at_most("memory", 150.0, 150, "MB"), ("memory", "at most 150 MB", "150 MB", "yes")),
        (at_most("start", 0.412, 0.4, "s"), ("start", "at most 0.4 s", "0.412 s", "NO")),
    ],
)
def test_a_missed_target_is_printed_plainly(finding: Finding, cells: tuple[str, ...]) -> None:
    """The measure stands beside its target, and the last cell says whether it was reached."""
    assert finding.cells() == cells


def test_runs_are_compared_with_ours() -> None:
    """By the rate: events sent by seconds."""
    columns, rows = run_table(Outcome("title", "about", [], {"ours": OURS, "peer": PEER}, compared=True))
    assert dict(zip(columns, rows[1], strict=True)) == {
        "": "peer",
        "events sent": "24,000",
        "events/s": "6,000",
        "CPU us an event": "125",
        "peak MB": "100",
        "requests": "240",
        "MB on the wire": "30",
        "ours / this": "13.33",
    }


def test_the_page_is_written_from_what_was_kept() -> None:
    """An outcome comes back from its JSON as it was."""
    outcome = Outcome("title", "about", [at_least("events/s", 80_000, 70_000)], {"ours": OURS}, correct=False)
    assert Outcome.from_json(json.loads(json.dumps(outcome.as_json()))) == outcome


def test_columns_of_numbers_stand_to_the_right() -> None:
    """As the eye compares them."""
    assert markdown(("name", "seconds"), [("a", "1.5"), ("b", "")]).splitlines()[1] == "| --- | ---: |"
