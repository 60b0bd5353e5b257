"""The program as users run it: a subprocess, a configuration file, a real S3 server, a Segment-like collector."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import yaml

from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.testing.collector import Collector
from currents_bridge.testing.currents_files import sample_file
from currents_bridge.testing.embedded_s3 import S3Endpoint

WRITE_KEY = "k" * 32
TIMEOUT_S = 60
HOUR = timedelta(hours=1)


def this_hour() -> datetime:
    """Return the hour that Braze would write to now."""
    return datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


class Site:
    """One installation: a bucket, a collector, a folder with configuration and ledger."""

    def __init__(self, s3: S3Endpoint, collector: Collector, folder: Path) -> None:
        self.bucket = f"bucket-{uuid.uuid4().hex[:12]}"
        self.collector = collector
        self.folder = folder
        self.config: dict[str, Any] = {
            "ledger": {"url": f"sqlite:///{folder / 'ledger.sqlite3'}"},
            "delivery": {"requests_per_second": None},
            "connectors": [
                {
                    "name": "production",
                    "source": {"bucket": self.bucket, "endpoint_url": s3.url},
                    "destination": {"write_key": "env:TEST_WRITE_KEY", "endpoint_url": collector.url},
                }
            ],
        }
        self.environ = {name: value for name, value in os.environ.items() if not name.startswith("CURRENTS_BRIDGE_")}
        self.environ |= {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test", "TEST_WRITE_KEY": WRITE_KEY}
        self._s3 = s3.client()
        s3.make_bucket(self.bucket)

    @property
    def connector(self) -> dict[str, Any]:
        """The only connector of the configuration, to be changed."""
        connector: dict[str, Any] = self.config["connectors"][0]
        return connector

    @property
    def ledger_url(self) -> str:
        """Where the ledger lives."""
        url: str = self.config["ledger"]["url"]
        return url

    def make_ledger(self) -> None:
        """Make an empty ledger, as a first run in an empty bucket would."""
        SqlLedger(self.ledger_url, now=datetime.now(UTC)).close()

    def put(self, key: str, body: bytes) -> str:
        """Write an object as Braze would, and return its key."""
        self._s3.put_object(Bucket=self.bucket, Key=key, Body=body)
        return key

    def delete(self, key: str) -> None:
        """Delete an object, as a lifecycle rule or a person would."""
        self._s3.delete_object(Bucket=self.bucket, Key=key)

    def put_sample(self, event_type: str = "users.messages.email.Click", count: int = 20, **choices: Any) -> str:
        """Write a sample file, of this hour and without anonymous users unless told otherwise."""
        options: dict[str, Any] = {"seed": 1, "anonymous_share": 0.0, "hour": this_hour()} | choices
        return self.put(*sample_file(event_type, count=count, **options))

    def start(self, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[str]:
        """Start the program; the caller waits for it."""
        path = self.folder / "bridge.yaml"
        path.write_text(yaml.safe_dump(self.config), encoding="utf-8")
        words = 2 if arguments[0] in {"alerts", "dead-letters", "ledger", "quarantine"} else 1
        options = ["--config", str(path), *arguments[words:]]
        command = [sys.executable, "-m", "currents_bridge", *arguments[:words], *options]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, env={**self.environ, **(environ or {})}, cwd=self.folder, stdout=pipe, stderr=pipe, text=True
        )

    def run(self, *arguments: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run the program to its end."""
        process = self.start(*arguments, environ=environ)
        out, err = process.communicate(timeout=TIMEOUT_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def json(self, *arguments: str, exit_code: int = 0) -> Any:
        """Run the program with --json and return its document; its exit code is checked."""
        done = self.run(*arguments, "--json")
        assert done.returncode == exit_code, done.stderr
        return json.loads(done.stdout)

    def once(self, *, exit_code: int = 0) -> Any:
        """Run `once --json` and return the only connector's part."""
        return self.json("once", exit_code=exit_code)["connectors"]["production"]


def until(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Return once the condition holds; the process must not end before."""
    while not condition():
        with_timeout(process)


def with_timeout(process: subprocess.Popen[str]) -> None:
    """Wait a moment for the process, which must go on."""
    try:
        process.wait(0.02)
    except subprocess.TimeoutExpired:
        return
    raise AssertionError(process.communicate())
