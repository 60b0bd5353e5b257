"""The object store: one S3 bucket (or that of a compatible server), read with boto3."""

import io
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, cast

import boto3
import urllib3
from botocore.config import Config
from botocore.exceptions import IncompleteReadError, ResponseStreamingError
from tenacity import Retrying, retry_if_exception_type, wait_exponential_jitter

from currents_bridge.errors import CredentialError, ObjectChangedError, ObjectGoneError, RetryLaterError
from currents_bridge.logs import get_logger
from currents_bridge.model import ExpiryRule, ListedObject
from currents_bridge.network.aws import open_session, setup
from currents_bridge.network.deadline import within
from currents_bridge.sources.listing import find_object
from currents_bridge.sources.s3.answers import is_same_etag
from currents_bridge.sources.s3.bounds import NOT_S3, bound_answers
from currents_bridge.sources.s3.errors import S3_ERRORS, Access, translate
from currents_bridge.sources.s3.lifecycle import expiry_rules
from currents_bridge.sources.s3.listing import Listing, keep_raw_answers
from currents_bridge.sources.s3.obstore_ranges import QuickReader
from currents_bridge.sources.s3.stream import RangeStream

if TYPE_CHECKING:
    from botocore.response import StreamingBody
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import GetObjectOutputTypeDef

RANGE_BYTES = 16 * 1024 * 1024  # small objects come in one GET, and memory stays bounded for large ones
BUFFER_BYTES = 256 * 1024
MAX_BODY_ATTEMPTS = 4  # of one range whose body is cut off; botocore retries only until the body begins
QUICK_TIMEOUT_S = 30.0  # of one range the quick way, 560 KB/s; then boto3 has more patience
ASK_TIMEOUT_S = 120.0  # of one range, 140 KB/s, with botocore's repetitions
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

_CHUNK_BYTES = 64 * 1024
_CONTENT_RANGE = re.compile(r"bytes (?P<start>\d{1,18})-(?P<end>\d{1,18})/(?P<total>\d{1,18}|\*)", re.ASCII)
_CUT_OFF = (ResponseStreamingError, IncompleteReadError, urllib3.exceptions.SSLError)

log = get_logger()


class S3ObjectStore:
    """Fulfils `ports.ObjectStore` for one bucket; may be used from many threads at once.

    Credentials come from boto3's own chain, and so does the region where none is given. After a CredentialError the
    next request takes them from there anew, at most once in MIN_CLIENT_AGE_S. Nothing is asked, read or run before the
    first request, and whatever fails then is an error of that request. A server at `endpoint_url` is
    asked for `<endpoint_url>/<bucket>`, since few of them have a host name for each bucket. `config` is laid over
    DEFAULT_CONFIG.

    How long a read may take where all goes wrong: a request is made three times, each with 5 s to connect, 30 s until
    the answer begins and up to 2 s of waiting, and with its body it takes 120 s at most, whatever the server does. A
    body that is cut off is asked for again until 300 s have passed. With the 30 s of the quick way before, that is 7.5
    minutes for a range of 16 MiB. A page of a listing takes 120 s at most.
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
        self._bucket = bucket
        self._range_bytes = range_bytes
        self._sleep = sleep
        self._clock = clock
        merged = DEFAULT_CONFIG.merge(Config(s3={"addressing_style": "path"})) if endpoint_url else DEFAULT_CONFIG
        whole_config = merged.merge(config) if config else merged

        def connect() -> "tuple[S3Client, QuickReader]":
            session = open_session()
            client: S3Client = boto3.session.Session(botocore_session=session).client(
                "s3", region_name=region, endpoint_url=endpoint_url, config=whole_config
            )
            bound_answers(client)
            keep_raw_answers(client)
            return client, QuickReader(session, client, bucket, timeout_s=quick_timeout_s, clock=clock)

        self._connect = connect
        self._lock = threading.Lock()
        self._refused = False  # whether the credentials of the client were, since it was made
        self._current: tuple[S3Client, QuickReader] | None = None  # made late, since that may fail
        self._made_s = 0.0
        self._listing = Listing(lambda: self._client, bucket, sleep)

    @property
    def _client(self) -> "S3Client":
        return self._connection()[0]

    @property
    def _quick(self) -> QuickReader:
        return self._connection()[1]

    def _connection(self) -> tuple["S3Client", QuickReader]:
        """Return the client and its quick reader, made anew where credentials were refused; raises AwsSetupError."""
        with self._lock:
            if self._current is None or (self._refused and self._clock() - self._made_s >= MIN_CLIENT_AGE_S):
                self._made_s = self._clock()
                with setup():
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
        with self._translated(Access.RULES, ""), within(ASK_TIMEOUT_S):
            return expiry_rules(self._client, self._bucket)

    def open(self, key: str, etag: str, size_bytes: int) -> BinaryIO:
        """Read in ranges, the first one on the first read; see the port."""
        if not size_bytes:
            return io.BytesIO()  # servers answer a range of nothing in four ways
        wanted = _Wanted(key, etag, size_bytes)
        # BufferedReader is a BinaryIO in all but name.
        raw = RangeStream(size_bytes, lambda at: self._fetch(wanted, at))
        return cast("BinaryIO", io.BufferedReader(raw, BUFFER_BYTES))

    def _fetch(self, wanted: "_Wanted", start: int) -> bytes | memoryview:
        """Return the bytes of the object from `start` on, as many as one range has."""
        with self._translated(Access.READ, wanted.key):
            quick = self._quick.read(wanted.key, wanted.etag, start, start + self._range_bytes)
        if quick and quick[1] == wanted.size_bytes:
            return quick[0]
        try:
            return self._fetch_by_boto3(wanted, start)
        except ObjectGoneError as gone:
            # Some servers say so of a missing bucket too, and a proxy may say it of anything: the listing decides.
            if find_object(self, wanted.key) is None:
                raise
            raise RetryLaterError(gone.message.replace("is gone", "is listed and yet not found")) from gone
        except ObjectChangedError:
            listed = find_object(self, wanted.key)
            if listed is None or (listed.etag, listed.size_bytes) != (wanted.etag, wanted.size_bytes):
                raise
            return self._fetch_by_boto3(wanted, start, listed)  # the server contradicts itself

    def _fetch_by_boto3(self, wanted: "_Wanted", start: int, listed: ListedObject | None = None) -> bytes:
        last_start_s = self._clock() + RANGE_TIMEOUT_S
        retrying = Retrying(
            retry=retry_if_exception_type(_CUT_OFF),
            stop=lambda state: state.attempt_number >= MAX_BODY_ATTEMPTS or self._clock() > last_start_s,
            wait=wait_exponential_jitter(max=5),
            sleep=self._sleep,
            reraise=True,
        )
        with self._translated(Access.READ, wanted.key):
            return retrying(self._fetch_once, wanted, start, listed)

    def _fetch_once(self, wanted: "_Wanted", start: int, listed: ListedObject | None) -> bytes:
        """Ask for one range; with `listed`, for whatever the server has, which then has to agree with the listing."""
        asked = {"Bucket": self._bucket, "Key": wanted.key, "Range": f"bytes={start}-{start + self._range_bytes - 1}"}
        if_match = {} if listed else {"IfMatch": f'"{wanted.etag}"'}
        with within(ASK_TIMEOUT_S):
            answer = self._client.get_object(**asked, **if_match)  # type: ignore[arg-type] # a typed dict
            with closing(answer["Body"]) as body:
                part = self._part(wanted, answer, start)
                told = part.total_bytes, answer.get("ETag", "")
                if part.total_bytes != wanted.size_bytes or not is_same_etag(wanted.etag, told[1]):
                    self._accept(wanted, told, answer.get("LastModified"), listed)
                content = _read(body, part.length)
        if len(content) != part.length:
            raise IncompleteReadError(actual_bytes=len(content), expected_bytes=part.length)
        return content

    def _part(self, wanted: "_Wanted", answer: "GetObjectOutputTypeDef", start: int) -> "_Part":
        """Return which part of the object an answer holds; raises RetryLaterError where it is none from `start` on."""
        got = _CONTENT_RANGE.fullmatch(answer.get("ContentRange", ""))
        if got and int(got["start"]) == start and start <= int(got["end"]) < start + self._range_bytes:
            total = wanted.size_bytes if got["total"] == "*" else int(got["total"])
            return _Part(int(got["end"]) + 1 - start, total)
        if not got and start == 0 and wanted.size_bytes <= self._range_bytes:  # the whole is a range, too
            length = answer.get("ContentLength", wanted.size_bytes)
            return _Part(length, length)
        raise self._odd(
            wanted,
            "did not send the range that was asked for",
            "see that source.endpoint_url names a server that knows the Range header",
        )

    def _accept(
        self, wanted: "_Wanted", told: tuple[int, str], modified: datetime | None, listed: ListedObject | None
    ) -> None:
        """Judge an answer for another ETag or size than was listed: whether it is the object that was listed anyway.

        Without `listed` it counts as changed. With it, the listing stands by what was asked for; then size and time
        decide, and the ETag of the first range holds for the others.
        """
        size_bytes, etag = told
        if listed is None:
            raise ObjectChangedError(
                f"cannot read s3://{self._bucket}/{wanted.key}: it has changed since it was listed",
                "nothing is lost: it is listed again, and tried again",
            )
        same_time = modified and modified.timestamp() == int(listed.last_modified.timestamp())
        if size_bytes != wanted.size_bytes or not same_time or wanted.told_etag not in {None, etag}:
            raise self._odd(
                wanted,
                f"lists it with {wanted.size_bytes} bytes, and sends {size_bytes} bytes with another ETag and time",
                "see what stands between here and source.endpoint_url, as a proxy that caches or compresses",
            )
        if wanted.told_etag is None:
            log.info("etags_of_list_and_get_differ", bucket=self._bucket, key=wanted.key, compared="size and time")
        wanted.told_etag = etag

    def _odd(self, wanted: "_Wanted", what: str, hint: str = NOT_S3) -> RetryLaterError:
        server = self._client.meta.endpoint_url
        return RetryLaterError(f"cannot read s3://{self._bucket}/{wanted.key}: the server at {server} {what}", hint)

    @contextmanager
    def _translated(self, access: Access, name: str) -> Iterator[None]:
        try:
            yield
        except S3_ERRORS as error:
            translated = translate(error, access, self._bucket, name)
            if isinstance(translated, CredentialError):
                self._refused = True
            raise translated from error


@dataclass(slots=True)
class _Wanted:
    """An object as it was listed."""

    key: str
    etag: str
    size_bytes: int
    told_etag: str | None = None  # of the first range, where it is another


@dataclass(frozen=True, slots=True)
class _Part:
    length: int
    total_bytes: int  # of the whole object


def _read(body: "StreamingBody", length: int) -> bytes:
    """Return the body, and no more of it than shows that it is longer than `length`."""
    chunks: list[bytes] = []
    left = length
    while left >= 0 and (chunk := body.read(_CHUNK_BYTES)):
        chunks.append(chunk)
        left -= len(chunk)
    return b"".join(chunks)
