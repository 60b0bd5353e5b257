"""How fast events go from S3 into the sink: events a second, CPU, memory, requests."""

from collections.abc import Callable, Mapping
from functools import partial
from itertools import pairwise

from benchmarks.files import plan_files, plan_uneven_files, total_events
from benchmarks.outcome import Outcome, at_least, at_most
from benchmarks.rig import Rig, Run, has_dlt, median
from benchmarks.scale import Scale
from benchmarks.sinks import python_sink
from currents_bridge.events.catalogue import supported_types

LATENCY_S = 0.1
DEFAULT_IN_FLIGHT, LATE_IN_FLIGHT = 16, 64  # requests under way at most: as ever, and for a sink that is far away
BATCH_BYTES = 475_000
OURS = "currents-bridge once"


def steady(rig: Rig, scale: Scale) -> Outcome:
    """Objects as Braze writes them, beside the peers and the floor."""
    files = plan_files(scale.events, 15_000)
    rig.upload(files, "steady")
    objects = scale.peer_objects
    contenders: dict[str, Callable[[], Run]] = {
        OURS: lambda: rig.once("steady", files),
        "floor": lambda: rig.floor(scale.floor_events),
        "plain script": lambda: rig.plain_script("steady", objects),
        "plain script, tuned": lambda: rig.plain_script("steady", objects, tuned=True),
    }
    if has_dlt():
        contenders["dlt pipeline"] = lambda: rig.dlt_pipeline("steady", objects)
    runs = in_turns(scale.rounds, contenders)
    ours, floor = runs[OURS], runs["floor"]
    plain = max(runs["plain script"].events_per_s, runs["plain script, tuned"].events_per_s)
    findings = [
        at_least("events/s", ours.events_per_s, 70_000),
        at_least("times the plain script's better setting", ours.events_per_s / plain, 12),
        at_least("the whole to the floor", 100 * ours.events_per_s / floor.events_per_s, 60, "%"),
        at_most("CPU an event, all threads", ours.cpu_us, 16, "us"),
    ]
    if has_dlt():
        findings.append(at_least("times the dlt pipeline", ours.events_per_s / runs["dlt pipeline"].events_per_s, 12))
    return Outcome(
        title="Steady: objects of 15,000 email clicks",
        about=f"{total_events(files):,} events in {len(files)} objects; the floor {scale.floor_events:,} from memory, "
        f"each peer the first {objects} objects",
        findings=findings,
        runs=runs,
        compared=True,
    )


def mixed(rig: Rig, scale: Scale) -> Outcome:
    """All supported types, in objects of any size."""
    types = supported_types()
    fewest, most = scale.mixed_object_events
    files = plan_uneven_files(scale.events, (fewest, most), event_types=types)
    rig.upload(files, "mixed")
    runs = in_turns(scale.rounds, {OURS: lambda: rig.once("mixed", files)})
    return Outcome(
        title=f"Mixed: the {len(types)} supported types, {fewest:,} to {most:,} events an object",
        about=f"{total_events(files):,} events in {len(files)} objects",
        findings=[at_least("events/s", runs[OURS].events_per_s, 50_000)],
        runs=runs,
    )


def small(rig: Rig, scale: Scale) -> Outcome:
    """Many objects with next to nothing in them, beside the plain script."""
    files = plan_files(20 * scale.small_objects, 20)
    rig.upload(files, "small")
    objects = scale.small_peer_objects
    runs = in_turns(
        scale.rounds,
        {
            OURS: lambda: rig.once("small", files),
            "plain script": lambda: rig.plain_script("small", objects),
            "plain script, tuned": lambda: rig.plain_script("small", objects, tuned=True),
        },
    )
    ours = runs[OURS]
    plain = max(run.events_per_s for name, run in runs.items() if name != OURS)
    return Outcome(
        title="Small objects: 20 email clicks each",
        about=f"{len(files):,} objects; the plain script the first {objects:,}",
        findings=[
            at_least("times the plain script's better setting", ours.events_per_s / plain, 8),
            at_most("requests", ours.requests, 1.1 * 1e6 * ours.body_mb / BATCH_BYTES + 20),
        ],
        runs=runs,
        compared=True,
    )


def latency(rig: Rig, scale: Scale) -> Outcome:
    """A sink that takes its time, beside one that does not."""
    files = plan_files(scale.events, 15_000)
    rig.upload(files, "latency")
    with python_sink(rig.folder) as prompt, python_sink(rig.folder, delay_s=LATENCY_S) as late:
        runs = in_turns(
            scale.rounds,
            {
                f"{name}, max_in_flight {most}": partial(rig.once, "latency", files, sink=sink, max_in_flight=most)
                for name, sink in (("100 ms", late), ("0 ms", prompt))
                for most in (DEFAULT_IN_FLIGHT, LATE_IN_FLIGHT)
            },
        )
    rates = {name: run.events_per_s for name, run in runs.items()}
    shares = {
        most: 100 * rates[f"100 ms, max_in_flight {most}"] / rates[f"0 ms, max_in_flight {most}"]
        for most in (DEFAULT_IN_FLIGHT, LATE_IN_FLIGHT)
    }
    return Outcome(
        title="Latency of the sink: 100 ms against 0 ms",
        about=f"{total_events(files):,} events in {len(files)} objects; both sinks are collectors in Python. By "
        "default 16 requests are under way at most: 160 a second at 100 ms, or 64,000 events",
        findings=[
            at_least(f"of the throughput at 0 ms, max_in_flight {most}", share, 80, "%")
            for most, share in shares.items()
        ],
        runs=runs,
    )


def memory(rig: Rig, scale: Scale) -> Outcome:
    """The largest objects that Braze writes, plain and compressed."""
    runs = {}
    for codec in ("null", "deflate"):
        events = scale.large_object_events
        files = plan_files(scale.large_objects * events, events, codec=codec)
        rig.upload(files, f"large-{codec}")
        tried = [rig.once(f"large-{codec}", files) for _ in range(scale.rounds)]
        runs[f"codec {codec}"] = max(tried, key=lambda run: run.peak_mb)
    return Outcome(
        title=f"Memory: objects of {scale.large_object_events:,} email clicks, 4 workers",
        about=f"{scale.large_objects} objects of each codec; of {scale.rounds} runs that with the highest peak",
        findings=[at_most("peak memory", max(run.peak_mb for run in runs.values()), 600, "MB")],
        runs=runs,
    )


def growth(rig: Rig, scale: Scale) -> Outcome:
    """Ever more events, each time twice as many."""
    files = plan_files(scale.growth_events[-1], 15_000)
    contenders: dict[str, Callable[[], Run]] = {}
    for size in scale.growth_events:
        bucket, some = f"growth-{size}", files[: -(-size // 15_000)]
        rig.upload(some, bucket)
        contenders[f"{total_events(some):,} events"] = partial(rig.once, bucket, some)
    runs = in_turns(scale.rounds, contenders)
    seconds = [run.seconds for run in runs.values()]
    worst = max(after / before for before, after in pairwise(seconds))
    return Outcome(
        title="Growth: twice the events, how many times the seconds",
        about=f"the median of {scale.rounds} runs of each size, in turns; objects of 15,000 email clicks, a new ledger "
        "each time",
        findings=[at_most("times as long for twice the events", worst, 2.1)],
        runs=runs,
    )


def in_turns(rounds: int, contenders: Mapping[str, Callable[[], Run]]) -> dict[str, Run]:
    """Run each in each round, another one first each time, and return the median run of each."""
    names = list(contenders)
    runs: dict[str, list[Run]] = {name: [] for name in names}
    for round_ in range(rounds):
        first = round_ % len(names)
        for name in names[first:] + names[:first]:
            runs[name].append(contenders[name]())
    return {name: median(tried) for name, tried in runs.items()}
