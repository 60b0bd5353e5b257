"""The LISTs of one bucket: page after page, in whatever way the server can go on, and checked against each other.

What is odd about one answer is found by `s3_answers`; here is what is odd about several: a token that repeats, the same
part again, keys that go back. Every error names the server and what is odd about it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from operator import lt
from typing import TYPE_CHECKING, Any

from botocore.exceptions import ClientError
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_exponential_jitter

from currents_bridge.errors import RetryLaterError
from currents_bridge.model import ListedObject
from currents_bridge.network.deadline import within
from currents_bridge.sources.s3.answers import KeptEntries, OddAnswerError, Page, read_page
from currents_bridge.sources.s3.bounds import NOT_S3

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

PAGE_TIMEOUT_S = 120.0  # of a page, with botocore's repetitions
MAX_ATTEMPTS = 3  # of a page that is odd by itself, as one in a thousand from behind a proxy may be
MAX_BARREN_PAGES = 10_000  # in a row without a new name; S3 sends some where many versions were deleted

_RAW = "RawAnswer"
_ROOT, _START = b"<ListBucketResult", 1_000  # in so many bytes it begins


def keep_raw_answers(client: "S3Client") -> None:
    """Have answers to LISTs come as their bytes, instead of as what botocore makes of them."""

    def spare(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
        """Keep what seems to be a listing before botocore parses it, to see whether it is an error after all."""
        if response_dict["status_code"] == 200 and _ROOT in response_dict["body"][:_START]:  # noqa: PLR2004
            customized_response_dict[_RAW] = (200, response_dict["body"])
            response_dict["body"] = _ROOT + b"/>"

    def keep(response_dict: dict[str, Any], customized_response_dict: dict[str, Any], **_: object) -> None:
        customized_response_dict.setdefault(_RAW, (response_dict["status_code"], response_dict["body"]))
        if response_dict["status_code"] < 300:  # noqa: PLR2004 - no error: botocore need not read it
            response_dict["body"] = b""

    for operation in ("ListObjects", "ListObjectsV2"):
        client.meta.events.register_first(f"before-parse.*.{operation}", spare)  # the star goes before botocore's s3.*
        client.meta.events.register(f"before-parse.s3.{operation}", keep)


@dataclass(frozen=True, slots=True)
class Listing:
    """LISTs a bucket; may be used from many threads at once.

    `client` gives a client with `keep_raw_answers`. All methods raise what botocore raises, and RetryLaterError for an
    odd server.
    """

    client: Callable[[], "S3Client"]
    bucket: str
    sleep: Callable[[float], None]
    kept: KeptEntries = field(default_factory=KeptEntries)

    def objects(self, prefix: str, start_after: str = "") -> Iterator[Sequence[ListedObject]]:
        """Yield the pages of all objects under `prefix` after `start_after`, each key once and in order."""
        previous: Sequence[ListedObject] = ()
        for page in self._pages(prefix, "", start_after):
            objects = self._in_order(prefix, page.objects, previous)
            previous = objects or previous
            # not every server knows the parameter
            yield [item for item in objects if item.key > start_after] if start_after else objects

    def folders(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
        """Return the folders and the objects of one level, in key order.

        Folders that are missing, or are none of this level, are those of a server that does not know the delimiter or
        not below a prefix: then they are made of the keys.
        """
        folders: dict[str, None] = {}
        objects: dict[str, ListedObject] = {}
        for page in self._pages(prefix, "/"):
            folders.update(dict.fromkeys(page.folders))
            objects.update((item.key, item) for item in page.objects)
            direct = all(_is_direct(item.key, prefix) for item in page.objects)
            if not (direct and all(_is_child(folder, prefix) for folder in page.folders)):
                return self._folders_of_keys(prefix)
        if not folders:
            return self._folders_of_keys(prefix)
        return sorted(folders), [objects[key] for key in sorted(objects)]

    def _folders_of_keys(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
        """Return what `folders` does, of keys; goes on after a folder as soon as it is known, a page for each."""
        folders: dict[str, None] = {}
        objects: list[ListedObject] = []
        pages = self.objects(prefix)
        while (page := next(pages, None)) is not None:
            for item in page:
                if _is_direct(item.key, prefix):
                    objects.append(item)
                else:
                    folders[item.key[: item.key.index("/", len(prefix)) + 1]] = None
            if page and not _is_direct(page[-1].key, prefix):
                folder = page[-1].key[: page[-1].key.index("/", len(prefix))]
                pages = self.objects(prefix, folder + chr(ord("/") + 1))
        return list(folders), objects

    def _pages(self, prefix: str, delimiter: str, start_after: str = "") -> Iterator[Page]:
        """Yield pages as they come, by token, or by name where the server gives none, as in the older LIST.

        A full page is not believed to be the last: some servers say so of a page that they cut off.
        """
        older = {"Bucket": self.bucket, "Prefix": prefix, "Delimiter": delimiter}
        asked = older | {"StartAfter": start_after}
        tokens, barren = set[str](), 0
        page, seen = self._page("list_objects_v2", asked), set[str]()
        while True:
            yield page
            names = page.names
            is_new = not seen.issuperset(names)
            barren = 0 if is_new else barren + 1
            # Pages of keys that are all in one folder name only that, again and again.
            if barren > MAX_BARREN_PAGES or (page.truncated and names and not is_new and not delimiter):
                raise self._odd(prefix, "sends the same part of the listing again")
            seen = {*names, *(seen if delimiter else ())}
            if page.truncated and page.token:
                if page.token in tokens:
                    raise self._odd(prefix, "sends the same continuation token twice")
                tokens.add(page.token)
                page = self._page("list_objects_v2", asked | {"ContinuationToken": page.token})
            elif page.truncated or (page.full and is_new):
                if not (page.marker or names):
                    raise self._odd(prefix, "says that there is more, but not where")
                marker = page.marker or max(page.last_name, start_after)
                page = self._page("list_objects", older | {"Marker": marker})
            else:
                return

    def _page(self, operation: str, asked: dict[str, str]) -> Page:
        retrying = Retrying(
            retry=retry_if_exception_type(OddAnswerError),
            stop=stop_after_attempt(MAX_ATTEMPTS),
            wait=wait_exponential_jitter(max=5),
            sleep=self.sleep,
            reraise=True,
        )
        try:
            return retrying(self._ask, operation, asked)
        except OddAnswerError as error:
            raise self._odd(asked["Prefix"], str(error)) from error

    def _ask(self, operation: str, asked: dict[str, str]) -> Page:
        try:
            with within(PAGE_TIMEOUT_S):
                answer = getattr(self.client(), operation)(**asked)
        except ClientError as error:
            response: Mapping[str, Any] = error.response
            status, body = response.get(_RAW, (0, b""))
            if status == 500 and body and b"<Error" not in body:  # noqa: PLR2004 - botocore's word for a 200 that is no XML
                raise self._odd(asked["Prefix"], _oddity(body, asked["Prefix"])) from error
            raise
        status, body = answer[_RAW]
        return read_page(status, body, asked["Prefix"], self.kept.read)

    def _in_order(
        self, prefix: str, objects: Sequence[ListedObject], previous: Sequence[ListedObject]
    ) -> Sequence[ListedObject]:
        """Return the objects of a page, each once; one that stood on the page before is left out."""
        keys = [item.key for item in objects]
        if all(map(lt, keys, keys[1:])) and not (keys and previous and keys[0] <= previous[-1].key):
            return objects
        known, kept, last = set(previous), list[ListedObject](), previous[-1] if previous else None
        for item in objects:
            if item in known:
                continue
            if last and not (last.key < item.key or _by_folders(last.key) < _by_folders(item.key)):
                what = "twice, and differently" if last.key == item.key else "out of order"
                raise self._odd(prefix, f"lists keys {what}")
            kept.append(item)
            known.add(item)
            last = item
        return kept

    def _odd(self, prefix: str, what: str) -> RetryLaterError:
        server = self.client().meta.endpoint_url
        return RetryLaterError(f"cannot list s3://{self.bucket}/{prefix}: the server at {server} {what}", NOT_S3)


def _is_direct(key: str, prefix: str) -> bool:
    return key.find("/", len(prefix)) < 0


def _is_child(folder: str, prefix: str) -> bool:
    return len(prefix) < folder.find("/", len(prefix)) == len(folder) - 1


def _by_folders(key: str) -> str:
    """Return a text that sorts as servers do that keep keys in folders: `a/1` before `a-b`."""
    return key.replace("/", "\0")


def _oddity(body: bytes, prefix: str) -> str:
    try:
        read_page(200, body, prefix)
    except OddAnswerError as error:
        return str(error)
    return "answers a LIST with status 500"
