"""The object store: one S3 bucket (or that of a compatible server), read with boto3."""

import io
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, cast

import boto3
import botocore.session
import urllib3
from botocore.config import Config
from botocore.exceptions import ClientError, IncompleteReadError, ResponseStreamingError
from botocore.loaders import create_loader
from tenacity import Retrying, retry_if_exception_type, wait_exponential_jitter

from currents_bridge.adapters.interim import read_past_interim_answers
from currents_bridge.adapters.s3_answers import bare_etag
from currents_bridge.adapters.s3_errors import VENDOR_ERRORS, Access, translate
from currents_bridge.adapters.s3_lifecycle import expiry_rules
from currents_bridge.adapters.s3_listing import Listing, keep_raw_answers
from currents_bridge.adapters.s3_quick import QuickReader
from currents_bridge.errors import CredentialError, ObjectChangedError, ObjectGoneError, RetryLaterError
from currents_bridge.model import ExpiryRule, ListedObject

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client

RANGE_BYTES = 16 * 1024 * 1024  # small objects come in one GET, and memory stays bounded for large ones
BUFFER_BYTES = 256 * 1024
MAX_BODY_ATTEMPTS = 4  # of one range whose body is cut off; botocore retries only until the body begins
QUICK_TIMEOUT_S = 30.0  # of one range the quick way, 560 KB/s; then boto3 has more patience
BODY_TIMEOUT_S = 120.0  # of the body of one range, 140 KB/s; the socket's timeout starts anew with every byte
RANGE_TIMEOUT_S = 300.0  # after which a range is not asked for again
MIN_CLIENT_AGE_S = 5.0  # a new client takes 60 ms of CPU and asks wherever credentials come from
DEFAULT_CONFIG = Config(
    retries={"mode": "standard", "total_max_attempts": 3},
    connect_timeout=5,
    read_timeout=30,
    max_pool_connections=32,
    # S3 has no checksum of a range; compatible servers send that of the whole object, and botocore then refuses it.
    response_checksum_validation="when_required",
)

_DESCRIPTIONS = create_loader()  # of the services, 12 MB once read; every client may use the same
_CHUNK_BYTES = 64 * 1024  # between two looks at the clock
_CONTENT_RANGE = re.compile(r"bytes (?P<start>\d+)-\d+/(?P<total>\d+)")
_CUT_OFF = (ResponseStreamingError, IncompleteReadError, urllib3.exceptions.SSLError)


class S3ObjectStore:
    """Fulfils `ports.ObjectStore` for one bucket; may be used from many threads at once.

    Credentials come from boto3's own chain, and so does the region where none is given. After a CredentialError the
    next request takes them from there anew, at most once in MIN_CLIENT_AGE_S. A server at `endpoint_url` is
    asked for `<endpoint_url>/<bucket>`, since few of them have a host name for each bucket. `config` is laid over
    DEFAULT_CONFIG.

    How long a read may take where all goes wrong: a request is made three times, each with 5 s to connect, 30 s until
    the answer begins and up to 2 s of waiting, so 110 s; its body takes 120 s at most. A body that is cut off is asked
    for again until 300 s have passed. With the 30 s of the quick way before, that is 10 minutes for a range of 16 MiB.
    (Only a server that keeps sending single bytes, less than 64 KiB in two minutes, can stretch that.) A page of a
    listing takes 110 s plus its body.

    Raises:
        CredentialError, RetryLaterError: the client cannot be made, e.g. for an AWS profile that does not exist.
    """

    def __init__(  # noqa: PLR0913 - each is a setting of its own
        self,
        bucket: str,
        *,
        region: str | None = None,
        endpoint_url: str | None = None,
        config: Config | None = None,
        range_bytes: int = RANGE_BYTES,
        quick_timeout_s: float = QUICK_TIMEOUT_S,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        read_past_interim_answers()
        self._bucket = bucket
        self._range_bytes = range_bytes
        self._sleep = sleep
        self._clock = clock
        merged = DEFAULT_CONFIG.merge(Config(s3={"addressing_style": "path"})) if endpoint_url else DEFAULT_CONFIG
        whole_config = merged.merge(config) if config else merged

        def connect() -> "tuple[S3Client, QuickReader]":
            # A session of its own, because boto3's default one is not thread-safe and keeps its credentials.
            session = botocore.session.Session()
            session.register_component("data_loader", _DESCRIPTIONS)
            client: S3Client = boto3.session.Session(botocore_session=session).client(
                "s3", region_name=region, endpoint_url=endpoint_url, config=whole_config
            )
            keep_raw_answers(client)
            return client, QuickReader(session, client, bucket, timeout_s=quick_timeout_s, clock=clock)

        self._connect = connect
        self._lock = threading.Lock()
        self._refused = False  # whether the credentials of the client were, since it was made
        with self._translated(Access.LIST, ""):
            self._current = connect()
        self._made_s = clock()
        self._listing = Listing(lambda: self._client, bucket, sleep)

    @property
    def _client(self) -> "S3Client":
        return self._connection()[0]

    @property
    def _quick(self) -> QuickReader:
        return self._connection()[1]

    def _connection(self) -> tuple["S3Client", QuickReader]:
        """Return the client and its quick reader, made anew where credentials were refused."""
        with self._lock:
            if self._refused and (now_s := self._clock()) - self._made_s >= MIN_CLIENT_AGE_S:
                self._made_s = now_s
                self._current = self._connect()
                self._refused = False
            return self._current

    def folders(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
        """List one level with `Delimiter=/`; see the port."""
        with self._translated(Access.LIST, prefix):
            return self._listing.folders(prefix)

    def list(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
        """List all levels, 1,000 keys a request, as the caller goes on; see the port."""
        with self._translated(Access.LIST, prefix):
            for page in self._listing.objects(prefix, start_after):
                yield from page

    def expiry_rules(self) -> Sequence[ExpiryRule] | None:
        """Read the bucket's lifecycle configuration; see the port."""
        with self._translated(Access.RULES, ""):
            return expiry_rules(self._client, self._bucket)

    def open(self, key: str, etag: str) -> BinaryIO:
        """Read in ranges, the first one on the first read; see the port."""
        # BufferedReader is a BinaryIO in all but name.
        return cast("BinaryIO", io.BufferedReader(_RangeReader(lambda at: self._fetch(key, etag, at)), BUFFER_BYTES))

    def _fetch(self, key: str, etag: str, start: int) -> "_Range":
        """Return the bytes of the object from `start` on, as many as one range has."""
        quick = self._quick.read(key, etag, start, start + self._range_bytes)
        return _Range(*quick) if quick else self._fetch_by_boto3(key, etag, start)

    def _fetch_by_boto3(self, key: str, etag: str, start: int) -> "_Range":
        last_start_s = self._clock() + RANGE_TIMEOUT_S
        retrying = Retrying(
            retry=retry_if_exception_type(_CUT_OFF),
            stop=lambda state: state.attempt_number >= MAX_BODY_ATTEMPTS or self._clock() > last_start_s,
            wait=wait_exponential_jitter(max=5),
            sleep=self._sleep,
            reraise=True,
        )
        try:
            with self._translated(Access.READ, key):
                return retrying(self._fetch_once, key, etag, start)
        except ObjectGoneError as gone:
            # Some servers say so of a missing bucket too, and a proxy may say it of anything: the listing decides.
            if next(self.list(key), None) is None:
                raise
            raise RetryLaterError(gone.message.replace("is gone", "is listed and yet not found")) from gone

    def _fetch_once(self, key: str, etag: str, start: int) -> "_Range":
        wanted = f"bytes={start}-{start + self._range_bytes - 1}"
        try:
            answer = self._client.get_object(Bucket=self._bucket, Key=key, IfMatch=f'"{etag}"', Range=wanted)
        except ClientError as error:
            if start == 0 and error.response["Error"]["Code"] == "InvalidRange":
                return _Range(b"", 0)  # an empty object has no first byte
            raise
        with closing(answer["Body"]) as body:
            content = self._body(body, key)
        if bare_etag(answer.get("ETag", etag)) != etag:  # a server that does not know If-Match
            raise ObjectChangedError(
                f"cannot read s3://{self._bucket}/{key}: it has another ETag than it is listed with",
                "it was written again, and is looked at once more; if this goes on, the server's ETags contradict each"
                " other: see what stands between here and source.endpoint_url",
            )
        got = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        if got is None or int(got["start"]) != start:
            raise RetryLaterError(
                f"cannot read s3://{self._bucket}/{key}: the server did not send the range that was asked for",
                "see that source.endpoint_url names a server that knows the Range header",
            )
        total = int(got["total"])
        expected = min(self._range_bytes, total - start)
        if len(content) != expected:
            raise IncompleteReadError(actual_bytes=len(content), expected_bytes=expected)
        return _Range(content, total)

    def _body(self, body: "StreamingBody", key: str) -> bytes:
        end_s = self._clock() + BODY_TIMEOUT_S
        chunks = []
        while chunk := body.read(_CHUNK_BYTES):
            chunks.append(chunk)
            if self._clock() > end_s:
                raise RetryLaterError(
                    f"cannot read s3://{self._bucket}/{key}: S3 sends too slowly",
                    f"nothing is lost: it is tried again; {self._range_bytes} bytes may take {BODY_TIMEOUT_S:.0f} s",
                )
        return b"".join(chunks)

    @contextmanager
    def _translated(self, access: Access, name: str) -> Iterator[None]:
        try:
            yield
        except VENDOR_ERRORS as error:
            translated = translate(error, access, self._bucket, name)
            if isinstance(translated, CredentialError):
                self._refused = True
            raise translated from error


@dataclass(frozen=True, slots=True)
class _Range:
    content: bytes | memoryview
    object_bytes: int  # of the whole object


class _RangeReader(io.RawIOBase):
    """Reads an object forwards, one range after the other."""

    def __init__(self, fetch: Callable[[int], _Range]) -> None:
        super().__init__()
        self._fetch = fetch
        self._at = 0  # where the next range starts
        self._object_bytes: int | None = None  # not known before the first range
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at - len(self._rest)

    def readinto(self, buffer: "WriteableBuffer") -> int:
        self._fetch_more()
        target = memoryview(buffer).cast("B")
        count = min(len(target), len(self._rest))
        target[:count] = self._rest[:count]
        self._rest = self._rest[count:]
        return count

    def readall(self) -> bytes:
        pieces = []
        while self._fetch_more():
            pieces.append(self._rest)
            self._rest = memoryview(b"")
        return b"".join(pieces)

    def _fetch_more(self) -> bool:
        """Have some bytes at hand; returns whether there are any before the object's end."""
        if not self._rest and self._at != self._object_bytes:
            self._rest = memoryview(b"")  # an empty view would still hold the last range in memory
            fetched = self._fetch(self._at)
            self._rest, self._object_bytes = memoryview(fetched.content), fetched.object_bytes
            self._at += len(fetched.content)
        return bool(self._rest)
