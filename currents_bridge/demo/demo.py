"""`demo`: the main job from end to end, without any account, leaving nothing behind.

An embedded S3 server gets sample files of every supported type, the program delivers them to an embedded collector
that checks what Segment checks, and what arrived is compared with what the ledger says.
"""

import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from currents_bridge.config import Settings
from currents_bridge.connector import Connector
from currents_bridge.events.catalogue import catalogue, supported_types
from currents_bridge.model import Books, ObjectState
from currents_bridge.ports import Ledger
from currents_bridge.testing.collector import Collector
from currents_bridge.testing.currents_files import sample_file
from currents_bridge.testing.embedded_s3 import EmbeddedS3, use_embedded_credentials
from currents_bridge.testing.faults import FaultSchedule

BUCKET = "acme-currents"
WRITE_KEY = "DemoDemoDemoDemoDemoDemoDemoDemo"
EVENTS_A_FILE = 60
ANONYMOUS_SHARE = 0.2
FAULT_SHARE = 0.3
FAULT_SEED = 3
BATCH_EVENTS = 2500
FAULTY_BATCH_EVENTS = 50  # small, so that there are requests enough to meet faults

OpenConnector = Callable[[Settings, Mapping[str, str]], AbstractContextManager[Connector]]


@dataclass(frozen=True, slots=True)
class DemoResult:
    """What the demo saw, by event type."""

    books: Mapping[str, Books]
    arrived: Mapping[str, int]  # distinct messages at the collector, by Segment event name
    requests: int
    repeated: int  # messages that arrived again, with the same id
    quarantined: int
    faults: Mapping[str, int]  # requests that met each kind of fault

    @property
    def agrees(self) -> bool:
        """Whether every supported type was delivered, and the sums equal what the collector holds."""
        sent: Counter[str] = Counter()
        for name, books in self.books.items():
            sent[str(catalogue()[name].segment_event)] += books.sent
        complete = set(self.books) == set(supported_types()) and not self.quarantined
        return complete and sent == Counter(self.arrived) and all(books.balanced for books in self.books.values())


def run(open_connector: OpenConnector, environ: MutableMapping[str, str], now: datetime, *, faults: bool) -> DemoResult:
    """Write sample files, deliver them, and return what arrived; with `faults`, through a Segment on a bad day.

    `environ` is the process's own: boto3 reads it, so the user's AWS settings make way for those of the demo.
    """
    use_embedded_credentials(environ)
    environ["DEMO_WRITE_KEY"] = WRITE_KEY
    with EmbeddedS3() as s3, Collector(write_keys=[WRITE_KEY]) as collector, _workplace() as folder:
        schedule = FaultSchedule(seed=FAULT_SEED, share=FAULT_SHARE if faults else 0)
        collector.answer_with(schedule)
        s3.make_bucket(BUCKET)
        client = s3.client()
        for key, body in sample_files(now):
            client.put_object(Bucket=BUCKET, Key=key, Body=body)
        batch_events = FAULTY_BATCH_EVENTS if faults else BATCH_EVENTS
        settings = demo_settings(s3.url, collector.url, folder, max_batch_events=batch_events)
        with open_connector(settings, environ) as connector:
            report = connector.poll()
            if report.error:
                raise report.error
            ledger: Ledger = connector.ledger
            arrived = Counter(message["event"] for message in collector.by_id.values())
            quarantined = ledger.totals(connector.name).objects[ObjectState.QUARANTINED]
            return DemoResult(
                ledger.books_by_type(connector.name),
                arrived,
                collector.request_count,
                collector.duplicates,
                quarantined,
                {str(fault): count for fault, count in schedule.counts.items()},
            )


def sample_files(now: datetime) -> Iterator[tuple[str, bytes]]:
    """Yield key and body of a file of each supported type, over the last three hours, in both layouts."""
    hour = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    for number, event_type in enumerate(supported_types()):
        yield sample_file(
            event_type,
            hour - timedelta(hours=number % 3),
            EVENTS_A_FILE,
            seed=number,
            layout="version" if number % 2 else "schema",
            codec=("null", "deflate", "snappy", "zstandard")[number % 4],
            anonymous_share=ANONYMOUS_SHARE,
            duplicate_share=0.05,
        )


def demo_settings(s3_url: str, collector_url: str, folder: Path, *, max_batch_events: int) -> Settings:
    """Return settings that read the embedded S3 server and send to the embedded collector."""
    return Settings.model_validate(
        {
            "ledger": {"url": f"sqlite:///{folder / 'ledger.sqlite3'}"},
            "delivery": {"max_batch_events": max_batch_events},
            "connectors": [
                {
                    "name": "demo",
                    "source": {"bucket": BUCKET, "endpoint_url": s3_url},
                    "destination": {"write_key": "env:DEMO_WRITE_KEY", "endpoint_url": collector_url},
                }
            ],
        }
    )


@contextmanager
def _workplace() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="currents-bridge-demo-") as folder:
        yield Path(folder)
