"""Isolation: a connector that is broken costs the others nothing."""

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import repeat
from time import monotonic
from typing import Any

import pytest

from currents_bridge.testing.collector import Answer, Collector
from currents_bridge.testing.embedded_s3 import S3Endpoint
from currents_bridge.testing.faulty_s3 import FaultyS3, S3Fault
from tests.installation import WRITE_KEY, Site, until

BOUND_S = 15.0  # of a busy machine; a healthy connector alone takes one or two
OBJECTS = 10
EVENTS = 200


@dataclass
class BadNeighbour:
    """The connector that comes first in the configuration, and what it depends on."""

    connector: dict[str, Any]
    segment: Collector
    slow_s3: str  # answers 503 to everything
    skewed_s3: str  # answers 403 to everything
    hollow_s3: str  # lists objects and has none


@pytest.fixture
def neighbour(site: Site, embedded_s3: S3Endpoint) -> Iterator[BadNeighbour]:
    """A second connector of the same bucket, with a Segment of its own."""
    with ExitStack() as stack:
        segment = stack.enter_context(Collector(write_keys=[WRITE_KEY]))
        faults = (S3Fault.SLOW_DOWN, S3Fault.CLOCK_SKEW, S3Fault.GONE)
        urls = [stack.enter_context(FaultyS3(embedded_s3, repeat(fault))).url for fault in faults]
        connector = json.loads(json.dumps(site.connector)) | {"name": "broken"}
        connector["destination"]["endpoint_url"] = segment.url
        site.config["connectors"].insert(0, connector)
        yield BadNeighbour(connector, segment, *urls)


def answers(answer: Answer) -> Callable[[BadNeighbour], None]:
    """Return what makes its Segment give this answer to everything."""
    return lambda broken: broken.segment.answer_with(lambda _: answer)


def reads(source: Callable[[BadNeighbour], dict[str, str]]) -> Callable[[BadNeighbour], None]:
    """Return what changes where it reads from."""
    return lambda broken: broken.connector["source"].update(source(broken))


@pytest.mark.parametrize(
    "breaks",
    [
        pytest.param(reads(lambda _: {"endpoint_url": "http://127.0.0.1:9"}), id="S3 unreachable"),
        pytest.param(reads(lambda _: {"bucket": "no-such-bucket"}), id="no bucket"),
        pytest.param(reads(lambda broken: {"endpoint_url": broken.slow_s3}), id="S3 slows down"),
        pytest.param(reads(lambda broken: {"endpoint_url": broken.skewed_s3}), id="S3 denies"),
        pytest.param(reads(lambda broken: {"endpoint_url": broken.hollow_s3}), id="objects gone"),
        pytest.param(answers(Answer(401)), id="Segment 401"),
        pytest.param(answers(Answer(400)), id="Segment 400"),
        pytest.param(answers(Answer(500)), id="Segment 500"),
        pytest.param(answers(Answer(429, {"Retry-After": "600"})), id="Segment 429"),
        pytest.param(answers(Answer(delay_s=600)), id="Segment hangs"),
    ],
)
def test_a_broken_connector_leaves_the_other_its_pace_and_its_schedule(
    site: Site, neighbour: BadNeighbour, breaks: Callable[[BadNeighbour], None]
) -> None:
    """Of one `run`: all events of the other arrive in time, also those that come later."""
    for offset in range(OBJECTS):
        site.put_sample(count=EVENTS, seed=offset, offset=offset)
    breaks(neighbour)
    site.config["schedule"] = {"poll": "1s"}
    process = site.start("run")
    try:
        arrive(site, OBJECTS * EVENTS, process)
        site.put_sample(count=EVENTS, seed=OBJECTS, offset=OBJECTS)
        arrive(site, (OBJECTS + 1) * EVENTS, process)
    finally:
        process.kill()
        process.communicate()
    assert site.collector.duplicates == 0
    assert not neighbour.segment.by_id


def arrive(site: Site, events: int, process: subprocess.Popen[str]) -> None:
    """Wait until the healthy connector's Segment has so many events; they must come within the bound."""
    end_s = monotonic() + BOUND_S
    until(lambda: len(site.collector.by_id) == events or monotonic() > end_s, process)
    assert len(site.collector.by_id) == events
