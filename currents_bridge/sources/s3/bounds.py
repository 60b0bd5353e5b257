"""Answers of S3 that are read whole, as listings and errors, come to an end and hold no entities.

botocore reads each of them to its end, whatever its length, and parses its XML with entities. Parts of objects are
streams, which end by themselves where a range does; of their headers botocore reads only what is read here.
"""

from collections.abc import Iterator
from contextlib import suppress
from io import BytesIO
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.exceptions import HTTPClientError, ReadTimeoutError
from botocore.httpsession import URLLib3Session
from botocore.utils import parse_timestamp
from urllib3.exceptions import HTTPError
from urllib3.exceptions import ReadTimeoutError as SocketTimeoutError

from currents_bridge.errors import RetryLaterError

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

# A page of 1,000 keys of 1,024 characters, each encoded as three, has less than 4 MB.
MAX_ANSWER_BYTES = 8 * 1024 * 1024
NOT_S3 = "see that source.endpoint_url names an S3 server, and that no proxy answers in its place; nothing is lost"

_FIRST_ERROR = 300  # status
_READ_BYTES = 64 * 1024


def bound_answers(client: "S3Client") -> None:
    """Have the client raise RetryLaterError for a longer answer, and for one with entities."""
    endpoint = client._endpoint  # type: ignore[attr-defined] # noqa: SLF001 - the one place where botocore sends
    endpoint.http_session = _BoundedSession(endpoint.http_session)


class _BoundedSession:
    """What a botocore endpoint sends requests with."""

    def __init__(self, session: URLLib3Session) -> None:
        self._session = session

    def send(self, request: AWSPreparedRequest) -> AWSResponse:
        streamed, request.stream_output = request.stream_output, True  # else all is read here
        answer = self._session.send(request)
        if streamed and answer.status_code < _FIRST_ERROR:
            for name in [name for name, value in answer.headers.items() if not _is_readable(name.lower(), value)]:
                del answer.headers[name]
            return answer
        try:
            answer.raw = _Whole(_content(answer))
        except SocketTimeoutError as error:
            raise ReadTimeoutError(endpoint_url=request.url, error=error) from error
        except HTTPError as error:
            raise HTTPClientError(error=error) from error
        return answer

    def close(self) -> None:
        self._session.close()


class _Whole(BytesIO):
    """A body that was read, as botocore reads one."""

    def stream(self) -> Iterator[bytes]:
        yield self.read()


def _content(answer: AWSResponse) -> bytes:
    content = bytearray()
    while chunk := answer.raw.read(_READ_BYTES):
        content += chunk
        if len(content) > MAX_ANSWER_BYTES:
            raise _refused(answer, f"sends a listing or an error of more than {MAX_ANSWER_BYTES:,} bytes")
    if b"<!ENTITY" in content:
        raise _refused(answer, "sends XML that defines entities, as S3 never does")
    return bytes(content)


def _is_readable(name: str, value: str) -> bool:
    """Return whether a header of a part is one that is read, and no number or time that botocore would stumble over."""
    match name:
        case "etag" | "content-range":
            return True
        case "content-length":
            return value.isascii() and value.isdigit() and len(value) < 19  # noqa: PLR2004 - digits
        case "last-modified":
            with suppress(ValueError, OverflowError, RuntimeError):
                return bool(parse_timestamp(value))
    return False


def _refused(answer: AWSResponse, what: str) -> RetryLaterError:
    answer.raw.close()
    parts = urlsplit(answer.url)
    return RetryLaterError(f"the server at {parts.scheme}://{parts.netloc} {what}", NOT_S3)
