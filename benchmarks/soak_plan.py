"""What a soak's bucket holds, what goes wrong with it for good or for a while, and what must be so at the end."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from benchmarks.files import BenchmarkFile, owed_ids, total_events
from currents_bridge.events.catalogue import supported_types
from currents_bridge.model import Recorded

EVENTS_A_FILE = (20, 400, 3_000, 15_000, 60_000)
FEWEST_FILES = 8
REFUSED = 4
CODECS = ("null", "deflate", "snappy")


@dataclass(frozen=True, slots=True)
class SoakPlan:
    """The files and their fate; `denied` is one of them, and `changed` holds it and another in its second version."""

    files: Sequence[BenchmarkFile]
    changed: Sequence[BenchmarkFile]
    denied: BenchmarkFile
    owed: frozenset[str]  # ids of messages that must arrive in the end
    of_denied: frozenset[str]  # those of them that are in the denied file
    refused: frozenset[str]  # ids of messages that Segment will never take

    def proof(self, *, denied: bool) -> Mapping[str, Any]:
        """Return what `reconcile` must say once all is done that can be done."""
        versions = {file.number: file for file in (*self.files, *self.changed)}
        read = total_events(versions.values()) - denied * versions[self.denied.number].events
        sent = len(self.owed) - denied * len(self.of_denied)
        objects = {Recorded.DELIVERED: len(self.files) - denied, Recorded.FAILED: int(denied)}
        events = {
            "read": read,
            "sent": sent,
            "skipped_anonymous": read - sent - len(self.refused),
            "deduplicated": 0,
            "dead_lettered": len(self.refused),
        }
        return {
            "exit": 1 if denied else 4,
            "objects": {str(kind): objects.get(kind, 0) for kind in Recorded},
            "events": events,
        }


def plan_soak(events: int, seed: int, first_hour: datetime) -> SoakPlan:
    """Return files of mixed types and sizes with so many events; of two of them some are written later."""
    dice = random.Random(seed)
    types, files = supported_types(), list[BenchmarkFile]()
    while (left := events - total_events(files)) > 0:
        size = min(left, dice.choice(EVENTS_A_FILE), events // FEWEST_FILES)
        files += [BenchmarkFile(len(files), types[len(files) % len(types)], size, dice.choice(CODECS), first_hour)]
    denied, rewritten = dice.sample(files, 2)
    changed = [replace(file, events=file.events + 10) for file in (denied, rewritten)]
    others = [file for file in files if file not in (denied, rewritten)]
    of_denied, of_rewritten, of_others = (frozenset(owed_ids(part)) for part in ([changed[0]], [changed[1]], others))
    # one beside few others, so that it soon stands alone, the rest among many
    smallest = min(others, key=lambda file: file.events)
    refused = {next(owed_ids([smallest])), *dice.sample(sorted(of_others), REFUSED - 1)}
    first_versions = frozenset(owed_ids([denied, rewritten]))
    if not first_versions <= of_denied | of_rewritten:
        raise AssertionError("a file's second version does not hold all events of the first")
    return SoakPlan(
        files=files,
        changed=changed,
        denied=denied,
        owed=(of_denied | of_rewritten | of_others) - refused,
        of_denied=of_denied,
        refused=frozenset(refused),
    )
