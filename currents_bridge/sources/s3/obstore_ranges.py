"""The quick way to read a range of an object: obstore, at a fifth of the CPU of boto3, and outside of Python's lock.

It knows one good outcome only. Whatever else happens, the caller asks boto3 for the same range, which has the error
codes, the retries and the redirects. So nothing depends on how obstore words its errors.
"""

import math
from collections.abc import Callable
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import obstore
from obstore.auth.boto3 import Boto3CredentialProvider
from obstore.exceptions import PermissionDeniedError, PreconditionError
from obstore.store import S3Store

from currents_bridge.logs import get_logger
from currents_bridge.network.rules import own_authorities, proxy_for
from currents_bridge.sources.s3.answers import is_same_etag

if TYPE_CHECKING:
    import botocore.session
    from mypy_boto3_s3 import S3Client
    from obstore.store import ClientConfig

PAUSE_S = 60.0  # without quick reading, after what may go wrong for the next object too
# botocore hands out credentials that last 10 minutes or more; obstore asks for new ones 5 minutes before the end.
_CREDENTIALS_TTL = timedelta(minutes=10)

log = get_logger()


class QuickReader:
    """Reads ranges of one bucket's objects, where and as `client` would; may be used from many threads at once."""

    def __init__(
        self,
        session: "botocore.session.Session",
        client: "S3Client",
        bucket: str,
        *,
        timeout_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._session = session
        self._client = client
        self._bucket = bucket
        self._timeout = timedelta(seconds=timeout_s)
        self._clock = clock
        self._not_before_s = -math.inf

    def read(self, key: str, etag: str, start: int, end: int) -> tuple[memoryview, int] | None:
        """Return the bytes from `start` to `end` or to the object's end, and the object's size; None: ask boto3.

        One request, made once; all of it takes `timeout_s` at most.
        """
        if self._clock() < self._not_before_s:
            return None
        try:
            answer = obstore.get(self._store, key, options={"if_match": f'"{etag}"', "range": (start, end)})
            content, object_bytes = memoryview(answer.bytes()), answer.meta["size"]
        except (FileNotFoundError, PreconditionError, PermissionDeniedError):  # of this object alone, or boto3 says so
            return None
        except Exception as error:  # noqa: BLE001 - network, credentials, an odd key or server: boto3 says what it is
            self._pause(type(error).__name__)
            return None
        if not is_same_etag(etag, answer.meta["e_tag"] or ""):  # If-Match was ignored
            return None
        expected = (start, min(end, object_bytes))
        if answer.range != expected or len(content) != expected[1] - start:
            self._pause("another range than was asked for")
            return None
        return content, object_bytes

    def _pause(self, reason: str) -> None:
        self._not_before_s = self._clock() + PAUSE_S
        log.info("quick_reading_paused", bucket=self._bucket, reason=reason, pause_s=PAUSE_S)

    @cached_property
    def _store(self) -> S3Store:
        """The store at the address that botocore's endpoint rules give; made late, since it needs credentials."""
        self._client.meta.events.register("before-parameter-build.s3.GetObject", _in_its_region)
        address = self._client.generate_presigned_url("get_object", Params={"Bucket": self._bucket, "Key": "key"})
        bucket_url = address.partition("?")[0].removesuffix("/key")
        region = self._client.meta.region_name
        return S3Store(
            self._bucket,
            # the address as a virtual host's: nothing is added but the key
            config={
                "aws_endpoint_url_s3": bucket_url,
                "virtual_hosted_style_request": True,
                "region": "us-east-1" if region == "aws-global" else region,
            },
            client_options={
                "allow_http": bucket_url.startswith("http:"),
                "timeout": self._timeout,
                **_network(bucket_url),
            },
            retry_config={"max_retries": 0},
            credential_provider=Boto3CredentialProvider(self._session, ttl=_CREDENTIALS_TTL),
        )


def _network(url: str) -> "ClientConfig":
    """Return the options by the rules of `network`; obstore would read the environment by itself otherwise."""
    proxy = proxy_for(url)
    host = urlsplit(url).hostname or ""
    options: ClientConfig = (
        {"proxy_url": proxy.url} if proxy else {"proxy_url": "http://unused.invalid", "proxy_excludes": host}
    )
    if own := own_authorities():
        options["root_certificate"] = own
    return options


def _in_its_region(context: dict[str, Any], **_: object) -> None:
    """Have a presigned address name the bucket's region, as that of a request does, and not the global host."""
    context["use_global_endpoint"] = False
