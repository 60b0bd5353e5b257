"""The Currents files of a benchmark: seeded, so that every run reads the same bytes."""

import io
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import cycle
from random import Random
from typing import Any

import fastavro

from currents_bridge.testing.currents_files import large_file, object_key
from currents_bridge.testing.embedded_s3 import S3Endpoint

CLICK = "users.messages.email.Click"
FIRST_HOUR = datetime(2026, 1, 1, tzinfo=UTC)
FILES_AN_HOUR = 12  # Braze writes one each five minutes
UPLOADS_AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class BenchmarkFile:
    """One Currents file to be; a fifth of its events have no external_user_id, the writer's default."""

    number: int  # from 0; seeds the events
    event_type: str
    events: int
    codec: str = "null"
    first_hour: datetime = FIRST_HOUR  # that of file 0

    @property
    def hour(self) -> datetime:
        """The `date=` partition."""
        return self.first_hour + timedelta(hours=self.number // FILES_AN_HOUR)

    @property
    def key(self) -> str:
        """The object's key."""
        return object_key(self.event_type, self.hour, offset=self.number)

    def body(self) -> bytes:
        """Make the file."""
        return large_file(self.event_type, self.events, seed=self.number, hour=self.hour, codec=self.codec)


def plan_files(
    events: int, events_per_object: int, *, event_types: Sequence[str] = (CLICK,), codec: str = "null"
) -> list[BenchmarkFile]:
    """Return files of so many events altogether, their types in turn; the last one holds what is left."""
    sizes = [min(events_per_object, events - start) for start in range(0, events, events_per_object)]
    return [
        BenchmarkFile(number, event_type, size, codec)
        for number, (size, event_type) in enumerate(zip(sizes, cycle(event_types), strict=False))
    ]


def plan_uneven_files(events: int, sizes: tuple[int, int], *, event_types: Sequence[str]) -> list[BenchmarkFile]:
    """Return files of random sizes between these two, of at least so many events altogether, their types in turn."""
    dice = Random(1)
    files: list[BenchmarkFile] = []
    while (number := len(files)) < len(event_types) or total_events(files) < events:
        files.append(BenchmarkFile(number, event_types[number % len(event_types)], dice.randint(*sizes)))
    return files


def total_events(files: Iterable[BenchmarkFile]) -> int:
    """Return how many events the files hold."""
    return sum(file.events for file in files)


def upload(files: Sequence[BenchmarkFile], server: S3Endpoint, bucket: str) -> None:
    """Write the files into a bucket."""
    client = server.client()
    with ThreadPoolExecutor(UPLOADS_AT_ONCE) as pool:
        for _ in pool.map(lambda file: client.put_object(Bucket=bucket, Key=file.key, Body=file.body()), files):
            pass


def owed_ids(files: Sequence[BenchmarkFile]) -> Iterator[str]:
    """Yield the messageId of each event that must arrive, as fastavro reads the files: those with an external id."""
    for file in files:
        events: Iterable[Any] = fastavro.reader(io.BytesIO(file.body()))
        yield from (event["id"] for event in events if event["external_user_id"])
