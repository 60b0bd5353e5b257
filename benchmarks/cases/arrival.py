"""Every event owed arrives once: what makes all other numbers worth reading."""

from collections.abc import Mapping, Sequence

from benchmarks.files import BenchmarkFile, owed_ids, plan_files, plan_uneven_files
from benchmarks.outcome import Finding, Outcome, at_most
from benchmarks.rig import WRITE_KEY, Rig
from benchmarks.scale import Scale
from benchmarks.sinks import collecting
from currents_bridge.events.catalogue import supported_types
from currents_bridge.testing.collector import Collector


def correctness(rig: Rig, scale: Scale) -> Outcome:
    """Deliver files of each kind that is measured into a collector that remembers."""
    events = scale.checked_events
    kinds: Mapping[str, Sequence[BenchmarkFile]] = {
        "clicks": plan_files(events, 15_000),
        "mixed": plan_uneven_files(events, scale.mixed_object_events, event_types=supported_types()),
        "small": plan_files(events // 2, 20),
        "deflate": plan_files(2 * events, 2 * events, codec="deflate"),
    }
    checked, findings = 0, list[Finding]()
    for name, files in kinds.items():
        rig.upload(files, bucket := f"checked-{name}")
        owed = set(owed_ids(files))
        collector = Collector(write_keys=[WRITE_KEY])
        with collecting(collector, rig.folder / f"{bucket}.log") as sink:
            rig.once(bucket, files, sink=sink)
        arrived = collector.by_id.keys()
        checked += len(owed)
        wrong = len(owed - arrived) + len(arrived - owed) + collector.duplicates
        wrong += len(collector.rejected) + len(collector.dropped)
        findings.append(at_most(f"{name}: events missing, repeated, rejected or not owed", wrong, 0))
    return Outcome(
        title="Every event owed arrives once",
        about=f"{checked:,} events owed, compared by id with what fastavro reads from the files",
        findings=findings,
        correct=all(finding.reached for finding in findings),
    )
