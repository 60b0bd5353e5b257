"""An S3 server inside this process, for `demo` and the tests: moto's, on a free loopback port.

It needs the extra `demo`; without it the import raises UsageError, which says how to install it.
"""

import logging
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self
from unittest.mock import patch

import boto3
import urllib3
from botocore.config import Config

from currents_bridge.errors import UsageError

try:
    from moto.server import ThreadedMotoServer
except ModuleNotFoundError as error:
    raise UsageError(
        "the embedded S3 server is not installed",
        "install the extra `demo` beside the program: pip install 'currents-bridge[demo]'",
    ) from error

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

REGION = "us-east-1"
ACCESS_KEY = "embedded"
SECRET_KEY = "embedded"  # noqa: S105 - our servers take any key


def use_embedded_credentials(environ: MutableMapping[str, str]) -> None:
    """Let the user's AWS settings make way for credentials of the embedded server: boto3 reads the environment."""
    for name in [name for name in environ if name.startswith("AWS_")]:
        del environ[name]
    environ.update({"AWS_ACCESS_KEY_ID": ACCESS_KEY, "AWS_SECRET_ACCESS_KEY": SECRET_KEY})


class S3Endpoint:
    """An S3 server of ours at `url`, e.g. `http://127.0.0.1:41234`; it takes any credentials."""

    def __init__(self, url: str) -> None:
        self.url = url

    def client(self) -> "S3Client":
        """Return a new boto3 client of the server: dummy credentials, path addressing, never by way of a proxy."""
        # A session of its own, because boto3's default one is not thread-safe.
        return boto3.session.Session().client(
            "s3",
            endpoint_url=self.url,
            region_name=REGION,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}, proxies={}),
        )

    def make_bucket(self, name: str) -> None:
        """Create an empty bucket."""
        self.client().create_bucket(Bucket=name)


class EmbeddedS3(S3Endpoint):
    """Context manager: moto's server runs inside the `with`; afterwards its buckets are gone.

    moto keeps buckets per process, so run one server at a time. `clock` tells what becomes LastModified, an aware time.
    """

    def __init__(self, clock: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        super().__init__("")
        self._clock = clock
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
        self._request_log = logging.getLogger("werkzeug")

    def __enter__(self) -> Self:
        self._log_level = self._request_log.level
        self._request_log.setLevel(logging.ERROR)  # else each request is a line on stderr
        self._modified_by_clock = patch(
            "moto.s3.models.utcnow", lambda: self._clock().astimezone(UTC).replace(tzinfo=None)
        )
        self._modified_by_clock.start()
        self._server.start()
        host, port = self._server.get_host_and_port()
        self.url = f"http://{host}:{port}"
        return self

    def __exit__(self, *_: object) -> None:
        urllib3.request("POST", f"{self.url}/moto-api/reset")  # frees memory and open files
        self._server.stop()
        self._modified_by_clock.stop()
        self._request_log.setLevel(self._log_level)
