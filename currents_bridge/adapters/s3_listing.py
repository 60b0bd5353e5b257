"""Pages of a LIST, believed only if they are what a LIST is; else an error names the server and what is odd.

botocore reads forgivingly: an empty body, a web page or another document is a listing without objects to it. "Nothing
there" said by mistake hides data, so a page has to have the right root, be complete or say how to go on, keep to what
was asked, and name everything that is read of an object.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from operator import le
from typing import TYPE_CHECKING, Any

from currents_bridge.errors import RetryLaterError
from currents_bridge.model import ListedObject

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PAGE_KEYS = 1_000  # of one answer at most

_ROOT = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*\?>\s*)?(?:<!--.*?-->\s*)*<(?:[\w.-]+:)?ListBucketResult[\s/>]", re.DOTALL
)
_HINT = "see that source.endpoint_url names an S3 server, and that no proxy answers in its place; nothing is lost"


@dataclass(slots=True)
class Page:
    """One page."""

    folders: list[str] = field(default_factory=list)
    objects: list[ListedObject] = field(default_factory=list)


class Listing:
    """A LIST of one prefix, page by page.

    Args:
        client: of the server.
        bucket: what is listed.
        prefix: of the keys.
        start_after: a key; keys up to it are left out, also where the server does not know the parameter.
        delimiter: "" or "/", which makes folders of all that lies deeper, whether the server knows it or not.
        flat: do not ask the server for folders.
    """

    def __init__(  # noqa: PLR0913 - each is a part of the question
        self,
        client: "S3Client",
        bucket: str,
        prefix: str,
        start_after: str = "",
        *,
        delimiter: str = "",
        flat: bool = False,
    ) -> None:
        self._client = client
        self._bucket = bucket
        self._prefix = prefix
        self._start_after = start_after
        self._delimiter = delimiter
        self._asked = "" if flat else delimiter

    def __iter__(self) -> Iterator[Page]:
        last, tokens = "", set[str]()
        answer = self._ask(self._client.list_objects_v2, StartAfter=self._start_after)
        while True:
            page = self._page(answer)
            names = [*(item.key for item in page.objects), *page.folders]
            if last and names and max(names) <= last:
                raise self._odd("sends the same part of the listing again")
            last = max([last, *names])
            page.objects = [item for item in page.objects if item.key > self._start_after]
            yield page
            token = answer.get("NextContinuationToken")
            if not (answer.get("IsTruncated") or token or (_is_full(answer) and "IsTruncated" not in answer)):
                return
            if token:
                if token in tokens:
                    raise self._odd("sends the same continuation token twice")
                tokens.add(token)
                answer = self._ask(self._client.list_objects_v2, ContinuationToken=token)
            elif names:  # a server of the older LIST
                answer = self._ask(self._client.list_objects, Marker=last)
            else:
                raise self._odd("says that there is more, but not where")

    def _ask(self, ask: Callable[..., Any], **more: str) -> Mapping[str, Any]:
        try:
            return ask(Bucket=self._bucket, Prefix=self._prefix, Delimiter=self._asked, **more)  # type: ignore[no-any-return]
        except (ValueError, OverflowError) as error:  # a number or a date that is none
            raise self._odd("has a value that cannot be read") from error

    def _page(self, answer: Mapping[str, Any]) -> Page:
        page = Page([str(item.get("Prefix") or "") for item in answer.get("CommonPrefixes", ())])
        for item in answer.get("Contents", ()):
            page.objects.append(self._listed(item))
        page.objects = list({item.key: item for item in page.objects}.values())
        page.folders = list(dict.fromkeys(page.folders))
        keys = [item.key for item in page.objects]
        if not all(name.startswith(self._prefix) for name in (*keys, *page.folders)):
            raise self._odd("lists keys outside of the prefix that was asked for")
        if not (_ascending(keys) or _ascending([key.replace("/", "\0") for key in keys])):
            raise self._odd("lists keys out of order")
        if self._delimiter:
            self._sort_out(page)
        return page

    def _sort_out(self, page: Page) -> None:
        """Make folders of keys that a server without delimiters lists flat."""
        level = len(self._prefix)
        deeper = [item for item in page.objects if self._delimiter in item.key[level:]]
        if deeper:
            found = (item.key[: item.key.index(self._delimiter, level) + 1] for item in deeper)
            page.folders = sorted({*page.folders, *found})
            page.objects = [item for item in page.objects if self._delimiter not in item.key[level:]]

    def _listed(self, item: Mapping[str, Any]) -> ListedObject:
        try:
            key, etag, size, modified = item["Key"], item["ETag"], item["Size"], item["LastModified"]
        except KeyError as error:
            raise self._odd(f"lists an object without {error.args[0]}") from error
        if not isinstance(modified, datetime) or not 0 <= size < 2**63:
            raise self._odd("lists an object of an impossible size or time")
        return ListedObject(key, bare_etag(etag), size, modified.astimezone(UTC))

    def _odd(self, what: str) -> RetryLaterError:
        where = f"s3://{self._bucket}/{self._prefix}"
        return RetryLaterError(f"{self._client.meta.endpoint_url} {what}, asked to list {where}", _HINT)


def bare_etag(etag: str) -> str:
    """Return an ETag without its quotes and the mark of a weak one, which a proxy that compresses puts there."""
    return etag.removeprefix("W/").strip('"')


def refuse_what_is_no_listing(client: "S3Client", bucket: str) -> None:
    """Have the client raise RetryLaterError where a LIST is answered 2xx with something else than a listing."""

    def check(http_response: Any, parsed: Mapping[str, Any], **_: object) -> None:
        answered = 200 <= http_response.status_code < 300 and "Error" not in parsed  # noqa: PLR2004 - 2xx
        if answered and not _ROOT.match(http_response.content):
            said = f"answered {http_response.status_code} to a LIST of s3://{bucket}, but with no listing"
            raise RetryLaterError(f"{client.meta.endpoint_url} {said}", _HINT)

    for operation in ("ListObjects", "ListObjectsV2"):
        client.meta.events.register(f"after-call.s3.{operation}", check)


def _is_full(answer: Mapping[str, Any]) -> bool:
    return len(answer.get("Contents", ())) + len(answer.get("CommonPrefixes", ())) >= PAGE_KEYS


def _ascending(keys: Sequence[str]) -> bool:
    return all(map(le, keys, keys[1:]))
