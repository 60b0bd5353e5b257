"""The Currents files of a benchmark: seeded, so that every run reads the same bytes."""

import io
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from typing import Any

import fastavro

from currents_bridge.testing.currents_files import large_file, object_key
from currents_bridge.testing.embedded_s3 import S3Endpoint

FIRST_HOUR = datetime(2026, 1, 1, tzinfo=UTC)
FILES_AN_HOUR = 12  # Braze writes one each five minutes


@dataclass(frozen=True, slots=True)
class BenchmarkFile:
    """One Currents file to be; a fifth of its events have no external_user_id, the writer's default."""

    number: int  # from 0; seeds the events
    event_type: str
    events: int
    codec: str

    @property
    def hour(self) -> datetime:
        """The `date=` partition."""
        return FIRST_HOUR + timedelta(hours=self.number // FILES_AN_HOUR)

    @property
    def key(self) -> str:
        """The object's key."""
        return object_key(self.event_type, self.hour, offset=self.number)

    def body(self) -> bytes:
        """Make the file."""
        return large_file(self.event_type, self.events, seed=self.number, hour=self.hour, codec=self.codec)


def plan_files(event_types: Sequence[str], *, events: int, events_per_object: int, codec: str) -> list[BenchmarkFile]:
    """Return files of so many events altogether, their types in turn; the last one holds what is left."""
    sizes = [min(events_per_object, events - start) for start in range(0, events, events_per_object)]
    return [
        BenchmarkFile(number, event_type, size, codec)
        for number, (size, event_type) in enumerate(zip(sizes, cycle(event_types), strict=False))
    ]


def upload(files: Sequence[BenchmarkFile], server: S3Endpoint, bucket: str) -> int:
    """Make the bucket, write the files into it, and return their bytes."""
    server.make_bucket(bucket)
    client = server.client()
    total_bytes = 0
    for file in files:
        body = file.body()
        client.put_object(Bucket=bucket, Key=file.key, Body=body)
        total_bytes += len(body)
    return total_bytes


def owed_ids(files: Sequence[BenchmarkFile]) -> Iterator[str]:
    """Yield the messageId of each event that must arrive, as fastavro reads the files: those with an external id."""
    for file in files:
        events: Iterable[Any] = fastavro.reader(io.BytesIO(file.body()))
        yield from (event["id"] for event in events if event["external_user_id"])
