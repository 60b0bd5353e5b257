"""The cases of `make bench`, by the names that `--case` takes."""

from collections.abc import Callable, Mapping

from benchmarks.cases.arrival import correctness
from benchmarks.cases.standing import audit, idle, ledger, polling, start
from benchmarks.cases.throughput import growth, latency, memory, mixed, small, steady
from benchmarks.outcome import Outcome
from benchmarks.rig import Rig
from benchmarks.scale import Scale

Case = Callable[[Rig, Scale], Outcome]

CASES: Mapping[str, Case] = {
    case.__name__: case
    for case in (correctness, steady, mixed, small, latency, memory, growth, idle, polling, audit, ledger, start)
}
