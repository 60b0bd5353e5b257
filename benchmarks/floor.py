"""The floor under every real run: a bare loop of decode, map, pack, encode, gzip and POST, from bytes in memory.

No S3, no ledger, no search for repeated events, no retries. Runs as a process of its own and prints one JSON document;
its seconds and CPU begin when the files are in memory.
"""

import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Annotated

import typer
import urllib3
from isal import igzip

from benchmarks.files import BenchmarkFile, plan_files
from currents_bridge import __version__
from currents_bridge.avro.container import Container
from currents_bridge.config import DeliverySettings
from currents_bridge.connector import event_type_of
from currents_bridge.events.mapping import Mapper, MappingRules
from currents_bridge.model import Batch
from currents_bridge.sending.packing import Packer
from currents_bridge.sending.sender import ENVELOPE_BYTES, request_body


@dataclass(slots=True)
class Floor:
    """What one pass over all files took.

    `stages_s` sums the wall seconds of all threads, also those in which a thread waited for a core.
    """

    sent: int = 0
    seconds: float = 0.0
    cpu_s: float = 0.0
    stages_s: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the wall seconds of the `with` to a stage."""
        began_s = time.perf_counter()
        yield
        self._add(name, time.perf_counter() - began_s)

    def add(self, part: "Floor") -> None:
        """Add what one thread did."""
        self.sent += part.sent
        for stage, seconds in part.stages_s.items():
            self._add(stage, seconds)

    def _add(self, stage: str, seconds: float) -> None:
        self.stages_s[stage] = self.stages_s.get(stage, 0.0) + seconds


def main(
    url: Annotated[str, typer.Argument(help="Base URL of the sink")],
    *,
    events: Annotated[int, typer.Option(help="Email clicks")] = 300_000,
    threads: Annotated[int, typer.Option(help="As many as the program has workers")] = 4,
) -> None:
    """Pass all files through the core, each by one of the threads."""
    files = plan_files(events, 15_000)
    bodies = [file.body() for file in files]
    mapper = Mapper(MappingRules(library_version=__version__))
    total = Floor()
    with urllib3.connection_from_url(url, maxsize=threads) as connections, ThreadPoolExecutor(threads) as pool:
        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        for part in pool.map(lambda file, body: _pass(file, body, mapper, connections), files, bodies):
            total.add(part)
        total.seconds, total.cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
    print(json.dumps(asdict(total)))


def _pass(file: BenchmarkFile, body: bytes, mapper: Mapper, connections: urllib3.HTTPConnectionPool) -> Floor:
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
        done.sent += messages.height
        for batch in batches:
            _send(batch, connections, done)
    for batch in packer.flush():
        _send(batch, connections, done)
    return done


def _send(batch: Batch, connections: urllib3.HTTPConnectionPool, done: Floor) -> None:
    with done.stage("encode"):
        body = request_body([part.messages["message"] for part in batch.parts], datetime.now(UTC))
    with done.stage("gzip"):
        wire = igzip.compress(body, 1)
    with done.stage("post"):
        connections.urlopen("POST", "/v1/batch", body=wire, headers={"Content-Encoding": "gzip"})


if __name__ == "__main__":
    typer.run(main)
