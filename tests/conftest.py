"""Fixtures that more than one test file uses."""

from collections.abc import Iterator

import pytest

from currents_bridge.testing.embedded_s3 import EmbeddedS3, S3Endpoint
from tests.s3_servers import weed_server


@pytest.fixture(scope="session")
def embedded_s3() -> Iterator[S3Endpoint]:
    """Moto's S3 server; make a bucket of your own in it."""
    with EmbeddedS3() as server:
        yield server


@pytest.fixture(scope="session")
def weed_s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Endpoint]:
    """A real S3 server; make a bucket of your own in it."""
    with weed_server(tmp_path_factory.mktemp("weed")) as server:
        yield server
