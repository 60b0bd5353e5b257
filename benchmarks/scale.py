"""How much each case does: in full, and in the smoke test."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Scale:
    """Sizes of all cases; the defaults are those of `make bench`."""

    rounds: int = 3  # in turns; the tables show the median
    checked_events: int = 50_000  # of each kind of files
    events: int = 1_000_000  # of each throughput case, read
    floor_events: int = 300_000
    peer_objects: int = 2  # of 15,000 events
    mixed_object_events: tuple[int, int] = (100, 5_000)  # fewest and most
    small_objects: int = 10_000
    small_peer_objects: int = 1_000
    large_objects: int = 10
    large_object_events: int = 100_000
    growth_events: tuple[int, ...] = (630_000, 1_260_000, 2_520_000, 5_040_000)  # whole objects
    idle_s: float = 50.0
    daemon_events: int = 300_000
    history_days: int = 90
    polled_types: int = 60
    polled_per_hour: int = 8  # real objects of each type in the hours that a poll lists
    polled_every_days: int = 3  # one real object of each type before
    poll_histories: tuple[int, int] = (100_000, 1_000_000)  # objects in the ledger
    polls: int = 9
    audited_objects: int = 1_000_000
    audited_types: int = 8
    folded_objects: int = 10_000_000
    starts: int = 5  # of a command that is timed


FULL = Scale()
QUICK = Scale(
    rounds=1,
    checked_events=2_000,
    events=6_000,
    floor_events=6_000,
    peer_objects=1,
    mixed_object_events=(20, 60),
    small_objects=30,
    small_peer_objects=10,
    large_objects=1,
    large_object_events=10_000,
    growth_events=(15_000, 30_000),
    idle_s=0.5,
    daemon_events=2_000,
    history_days=12,
    polled_types=3,
    polled_per_hour=1,
    polled_every_days=6,
    poll_histories=(500, 1_000),
    polls=2,
    audited_objects=300,
    audited_types=2,
    folded_objects=2_000,
    starts=1,
)
