"""Fixtures that more than one test file uses."""

from collections.abc import Iterator

import pytest
import structlog
from hypothesis import settings

from currents_bridge.testing.embedded_s3 import EmbeddedS3, S3Endpoint
from tests import ledgers
from tests.s3_servers import weed_server

# A busy machine is no failure; pytest's own time limit is CI's.
settings.register_profile("any-machine", deadline=None)
settings.load_profile("any-machine")


@pytest.fixture(scope="session", autouse=True)
def _logs_stay_off_stdout() -> None:
    """Hand log lines to the standard library, where pytest captures them, until a test configures them itself."""
    structlog.configure(wrapper_class=structlog.stdlib.BoundLogger, logger_factory=structlog.stdlib.LoggerFactory())


@pytest.fixture(autouse=True)
def _ledgers_closed() -> Iterator[None]:
    """Close the ledgers of the test."""
    yield
    ledgers.close_all()


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
