"""Fixtures of the whole-program tests."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from currents_bridge.testing.collector import Collector
from currents_bridge.testing.embedded_s3 import S3Endpoint
from tests.installation import WRITE_KEY, Site


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A Segment-like server that knows one write key."""
    with Collector(write_keys=[WRITE_KEY]) as server:
        yield server


@pytest.fixture
def site(embedded_s3: S3Endpoint, collector: Collector, tmp_path: Path) -> Site:
    """An installation with an empty bucket."""
    return Site(embedded_s3, collector, tmp_path)
