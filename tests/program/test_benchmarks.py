"""The benchmarks work: the same code as `make bench` on tiny sizes, and no time is judged."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TIMEOUT_S = 180
ROOT = Path(__file__).parents[2]
CASES = ("correctness", "steady", "idle", "polling", "ledger")  # one of each kind; `make bench-quick` runs them all


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a quick run found, by case."""
    results = tmp_path_factory.mktemp("results")
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "--results", str(results)]
    command += [word for case in CASES for word in ("--case", case)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    return {case: json.loads((results / f"{case}.json").read_text(encoding="utf-8"))["outcome"] for case in CASES}


def test_every_event_owed_arrives_once(outcomes: dict[str, Any]) -> None:
    """The run itself compares what arrives with what fastavro reads, for each kind of files."""
    assert outcomes["correctness"]["correct"]
    assert [finding["measured"] for finding in outcomes["correctness"]["findings"]] == [0, 0, 0, 0]


def test_everyone_is_measured_side_by_side(outcomes: dict[str, Any]) -> None:
    """This program, the floor and the peers send the same events, and the sink counts their requests."""
    runs = outcomes["steady"]["runs"]
    assert {"currents-bridge once", "floor", "plain script", "plain script, tuned"} <= runs.keys()
    assert len({run["sent"] for run in runs.values()}) == 1
    assert all(run["requests"] and run["wire_mb"] and run["cpu_s"] for run in runs.values())


def test_a_poll_with_nothing_new_lists_each_type_once(outcomes: dict[str, Any]) -> None:
    """And the two levels of folders above."""
    assert outcomes["polling"]["findings"][0]["measured"] == 3 + 2


def test_each_case_says_what_was_to_be_reached(outcomes: dict[str, Any]) -> None:
    """Every finding has its measure and its target."""
    for outcome in outcomes.values():
        assert outcome["findings"]
        assert all(finding["measure"] and finding["target"] is not None for finding in outcome["findings"])


def test_the_cost_of_what_may_grow_is_measured() -> None:
    """One row for each thing that may grow, small beside large."""
    command = [sys.executable, "-m", "benchmarks.cost", "--quick"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False, text=True, timeout=TIMEOUT_S)
    assert done.returncode == 0, done.stdout + done.stderr
    assert {"quarantined", "pending", "folded", "letters"} <= set(done.stdout.split())
