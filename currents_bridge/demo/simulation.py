"""The whole program on simulated time: for `demo --scenario`, and for the tests of what takes days.

An embedded S3 server, a Segment of ours with all its endpoints and an inbox for alerts stand around the real program,
whose jobs are run by hand as the clock moves on. Nothing waits, and nothing leaves this machine.
"""

import json
from collections import deque
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol, Self

from currents_bridge.config import Settings
from currents_bridge.connector import Connector
from currents_bridge.operations.schedule import Job
from currents_bridge.sources.coverage import hour_of
from currents_bridge.testing.collector import Collector
from currents_bridge.testing.currents_files import make_events, object_key, schema_of, write_container
from currents_bridge.testing.embedded_s3 import EmbeddedS3, use_embedded_credentials
from currents_bridge.testing.faulty_s3 import FaultyS3, S3Fault
from currents_bridge.testing.loopback import Answer, LoopbackServer, Request

BUCKET = "acme-currents"
NAME = "production"
EVENT_TYPE = "users.messages.email.Click"
FIRST_KEY = "FirstKeyFirstKeyFirstKeyFirstKey"
SPARE_KEY = "SpareKeySpareKeySpareKeySpareKey"  # of the same source, never used; a source is never without a key
START = datetime(2026, 3, 2, 12, tzinfo=UTC)
STEP = timedelta(minutes=30)
EVENTS_A_FILE = 10  # one file comes each hour
PUBLIC_API_TOKEN = "public-api-token"  # noqa: S105 - as testing.segment_world has it


class OpenProgram(Protocol):
    """What a rehearsal asks of an open program; `app.Bridge` is one."""

    @property
    def connectors(self) -> Sequence[Connector]: ...  # noqa: D102 - as app.Bridge

    def jobs(self) -> list[Job]: ...  # noqa: D102 - as app.Bridge

    def once(self) -> object: ...  # noqa: D102 - as app.Bridge


OpenBridge = Callable[..., AbstractContextManager[OpenProgram]]  # app.open_bridge


@dataclass(frozen=True, slots=True)
class Told:
    """One message in the inbox."""

    at: timedelta  # since the start
    phase: str
    kind: str
    subject: str
    text: str


class Rehearsal:
    """Runs inside `with`; one at a time in a process, since the embedded S3 is.

    Args:
        open_bridge: opens the program.
        folder: for the ledger and the file that holds the write keys.
        environ: the process's own: boto3 reads it.
        public_api: whether the program may ask the Public API; it may always ask the settings endpoint.
        destination: settings laid over those of the destination.
        connector: settings laid over those of the connector.
        schedule: settings in place of the scenarios' own, of which each job runs every half hour.

    Attributes:
        now: the time; starts at START.
        step: time from one look at what is due to the next.
        segment: what plays Segment.
        told: the messages that came to the inbox, in order.
        owed: id of each event that has to arrive, by the hour of its file.
        s3_fault: what S3 answers to every GET; None: as usual.
    """

    def __init__(  # noqa: PLR0913 - what a scenario may choose
        self,
        open_bridge: OpenBridge,
        folder: Path,
        environ: MutableMapping[str, str],
        *,
        public_api: bool = True,
        destination: Mapping[str, Any] | None = None,
        connector: Mapping[str, Any] | None = None,
        schedule: Mapping[str, Any] | None = None,
    ) -> None:
        self.now = START
        self.step = STEP
        self.told: list[Told] = []
        self.owed: dict[datetime, set[str]] = {}
        self.s3_fault: S3Fault | None = None
        self._open_bridge = open_bridge
        self._folder = folder
        self._environ = environ
        self._public_api = public_api
        self._destination = dict(destination or {})
        self._connector = dict(connector or {})
        self._schedule = {"poll": "30m", "audit": "1d", "probe": "30m"} if schedule is None else dict(schedule)
        self._due: dict[str, datetime] = {}
        self._world = ExitStack()
        self._program = ExitStack()

    def __enter__(self) -> Self:
        use_embedded_credentials(self._environ)
        self._environ["PUBLIC_API_TOKEN"] = PUBLIC_API_TOKEN
        self._s3 = self._world.enter_context(EmbeddedS3(lambda: self.now))
        self._s3.make_bucket(BUCKET)
        self._client = self._s3.client()
        self._gate = self._world.enter_context(FaultyS3(self._s3, iter(lambda: self.s3_fault, object())))
        self.segment = self._world.enter_context(Collector(write_keys=[FIRST_KEY, SPARE_KEY], now=lambda: self.now))
        self._inbox = LoopbackServer(self._take, "inbox")
        self._world.callback(self._inbox.close)
        self.set_key(FIRST_KEY)
        self._open()
        return self

    def __exit__(self, *_: object) -> None:
        self._program.close()
        self._world.close()

    @property
    def connector(self) -> Connector:
        """The one connector, for a look at what it knows."""
        return self._bridge.connectors[0]

    @property
    def elapsed(self) -> timedelta:
        """Time since the start."""
        return self.now - START

    @property
    def arrived(self) -> set[str]:
        """Ids of the events that the living source has received."""
        return set(self.segment.by_id)

    @property
    def missing(self) -> set[str]:
        """Ids of the events that have to arrive and have not."""
        return set().union(*self.owed.values()) - self.arrived

    def set_key(self, *keys: str) -> None:
        """Put the write keys where the program finds them: one, or an older and a newer one after a restart."""
        self._key_files = [self._folder / f"write_key_{number}" for number in range(len(keys))]
        for file, key in zip(self._key_files, keys, strict=True):
            file.write_text(key)

    def configure(self, **destination: object) -> None:
        """Change settings of the destination, and restart."""
        self._destination |= destination
        self.restart()

    def restart(self) -> None:
        """End the program, and start it anew on the same ledger."""
        self._program.close()
        self._due.clear()
        self._open()

    def pass_time(self, until: float) -> None:
        """Let time pass up to so many hours since the start: a file comes each hour, and jobs run as they fall due."""
        while self.elapsed < timedelta(hours=until):
            if hour_of(self.now) not in self.owed:
                self._write_file(hour_of(self.now))
            self._run_due_jobs()
            self.now += self.step

    def once(self) -> None:
        """Run the program once, as cron does, in a process of its own; then time passes."""
        if hour_of(self.now) not in self.owed:
            self._write_file(hour_of(self.now))
        self.restart()
        self._bridge.once()
        self.now += self.step

    def poll(self) -> None:
        """Have a file come, and have it delivered; no other job runs."""
        self.now += timedelta(hours=1)
        self._write_file(hour_of(self.now))
        self.connector.poll()

    def _write_file(self, hour: datetime) -> None:
        seed = len(self.owed)
        events = make_events(EVENT_TYPE, EVENTS_A_FILE, seed=seed, hour=hour)
        body = write_container(schema_of(EVENT_TYPE), events)
        self._client.put_object(Bucket=BUCKET, Key=object_key(EVENT_TYPE, hour, offset=seed), Body=body)
        self.owed[hour] = {event["id"] for event in events if event["external_user_id"]}

    def _run_due_jobs(self) -> None:
        jobs = deque(self._bridge.jobs())
        jobs.rotate(-1)  # people are told of what the others found
        for job in jobs:
            if self.now >= self._due.get(job.name, self.now):
                job.run()
                self._due[job.name] = self.now + job.every

    def _open(self) -> None:
        settings = Settings.model_validate(self._settings())
        self._bridge = self._program.enter_context(
            self._open_bridge(settings, self._environ, None, now=lambda: self.now)
        )

    def _settings(self) -> dict[str, Any]:
        api = {"token": "env:PUBLIC_API_TOKEN", "source_id": "braze-source", "endpoint_url": self.segment.url}
        return {
            "ledger": {"url": f"sqlite:///{self._folder / 'ledger.sqlite3'}"},
            "schedule": self._schedule,
            "alerts": {"urls": [f"{self._inbox.url}/alerts"]},
            "connectors": [
                {
                    "name": NAME,
                    "source": {"bucket": BUCKET, "endpoint_url": self._gate.url},
                    "destination": {
                        **self._write_keys(),
                        "endpoint_url": self.segment.url,
                        "settings_endpoint_url": self.segment.url,
                        "public_api": api if self._public_api else None,
                    }
                    | self._destination,
                }
                | self._connector
            ],
        }

    def _write_keys(self) -> dict[str, object]:
        references = [f"file:{file}" for file in self._key_files]
        return {"write_keys": references} if len(references) > 1 else {"write_key": references[0]}

    def _take(self, request: Request) -> Answer:
        message = json.loads(request.wire)
        fields = (message[name] for name in ("phase", "kind", "subject", "text"))
        self.told.append(Told(self.elapsed, *fields))
        return Answer()
