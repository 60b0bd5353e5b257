"""How fast events pass through the pure core alone: from bytes in memory to compressed request bodies.

No S3, no ledger, no network, and no search for repeated events: what is left is the floor under every real run.
"""

import io
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime

from isal import igzip

from benchmarks.files import BenchmarkFile
from currents_bridge import __version__
from currents_bridge.config import DeliverySettings
from currents_bridge.connector import event_type_of
from currents_bridge.decode import Container
from currents_bridge.mapping import Mapper, MappingRules
from currents_bridge.model import Batch
from currents_bridge.packing import Packer
from currents_bridge.sending import ENVELOPE_BYTES, request_body


@dataclass(slots=True)
class Floor:
    """What one pass over all files took.

    `stages_s` sums the wall seconds of all threads, also those in which a thread waited for a core.
    """

    read: int = 0
    sent: int = 0
    body_bytes: int = 0
    wire_bytes: int = 0
    wall_s: float = 0.0
    cpu_s: float = 0.0
    stages_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall seconds of the `with` to a stage."""
        began_s = time.perf_counter()
        yield
        self.add_seconds(name, time.perf_counter() - began_s)

    def add_seconds(self, stage: str, seconds: float) -> None:
        """Add to a stage."""
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds


def measure_floor(files: Sequence[BenchmarkFile], threads: int) -> Floor:
    """Pass all files through the core, each by one of so many threads, and return the sums."""
    bodies = [file.body() for file in files]
    mapper = Mapper(MappingRules(library_version=__version__))
    began_s, began_cpu_s = time.perf_counter(), time.process_time()
    with ThreadPoolExecutor(threads) as pool:
        parts = list(pool.map(lambda file, body: _pass(file, body, mapper), files, bodies))
    total = Floor(wall_s=time.perf_counter() - began_s, cpu_s=time.process_time() - began_cpu_s)
    for part in parts:
        total.read += part.read
        total.sent += part.sent
        total.body_bytes += part.body_bytes
        total.wire_bytes += part.wire_bytes
        for stage, seconds in part.stages_s.items():
            total.add_seconds(stage, seconds)
    return total


def _pass(file: BenchmarkFile, body: bytes, mapper: Mapper) -> Floor:
    done = Floor()
    limits = DeliverySettings()
    packer = Packer(max_bytes=limits.max_batch_bytes, max_events=limits.max_batch_events, envelope_bytes=ENVELOPE_BYTES)
    event_type = event_type_of(file.event_type)
    slices = Container(io.BytesIO(body)).slices()
    while True:
        with done.stage("decode"):
            piece = next(slices, None)
        if piece is None:
            break
        with done.stage("map"):
            messages = mapper.map(piece, event_type, file.key).messages
        with done.stage("pack"):
            batches = list(packer.add(1, messages))
        done.read += piece.events.height
        done.sent += messages.height
        for batch in batches:
            _encode(batch, done)
    for batch in packer.flush():
        _encode(batch, done)
    return done


def _encode(batch: Batch, done: Floor) -> None:
    with done.stage("body"):
        body = request_body([part.messages["message"] for part in batch.parts], datetime.now(UTC))
    with done.stage("gzip"):
        wire = igzip.compress(body, 1)
    done.body_bytes += len(body)
    done.wire_bytes += len(wire)
