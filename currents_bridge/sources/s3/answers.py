"""What one answer to a LIST says, read from its bytes and believed only if it is a listing.

botocore reads forgivingly: an empty body, a web page or another document is to it a listing without objects, and an
object without a key ends it with a KeyError. "Nothing there" said by mistake hides data, so here an answer has to be
whole, and all that is read of an object has to be there.
https://docs.aws.amazon.com/AmazonS3/latest/API/API_ListObjectsV2.html, API_ListObjects.html beside it
"""

import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import blake2b
from urllib.parse import unquote, unquote_plus
from xml.etree import ElementTree as ET

from botocore.utils import parse_timestamp

from currents_bridge.model import ListedObject

PAGE_KEYS = 1_000  # of one answer at most
MAX_OBJECT_BYTES = 2**50  # S3 ends at 50 * 2**40

KEPT_OBJECTS = 10_000  # in 5 MB

_FIRST, _LAST = b"<Contents>", b"</Contents>"
_CUT = "EntriesOfThePage"  # an element in their place
_ETAG = re.compile(r"[\x21\x23-\x7e]{1,256}")  # RFC 9110, 8.8.3; it becomes a header


class OddAnswerError(ValueError):
    """An answer is none of S3; the message says what is odd, e.g. "sends an empty answer". Stays in the adapter."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, in the order of the answer."""

    objects: Sequence[ListedObject]
    folders: Sequence[str]
    truncated: bool  # the server says that there is more
    full: bool  # as many names as a page may have: there may be more, whatever the server says
    token: str  # to go on with; empty where the server gives none
    marker: str  # of the older LIST, to go on with; a name, or opaque; empty where the server gives none

    @property
    def names(self) -> list[str]:
        """All keys and folders."""
        return [*(item.key for item in self.objects), *self.folders]

    @property
    def last_name(self) -> str:
        """The last key or folder; empty where there is none."""
        return max((*(item.key for item in self.objects[-1:]), *self.folders[-1:]), default="")


@dataclass(frozen=True, slots=True)
class _Answer:
    """What stands in one answer."""

    objects: Sequence[ListedObject]
    folders: Sequence[str]
    told: Mapping[str, str]  # all else, by its name
    decode: Callable[[str], str]  # of names


def _read(body: bytes) -> _Answer:
    told: dict[str, str] = {}
    entries: list[dict[str, str]] = []
    prefixes: list[str] = []
    for child in _root(body):
        match _name(child):
            case "Contents":
                entries.append({_name(field): field.text or "" for field in child})
            case "CommonPrefixes":
                prefixes += [field.text or "" for field in child if _name(field) == "Prefix"]
            case name:
                told[name] = (child.text or "").strip()
    encoded = told.get("EncodingType") == "url"
    decode = _decoding([entry.get("Key", "") for entry in entries], encoded)
    decode_folder = _decoding(prefixes, encoded)  # moto encodes keys and not folders
    objects = [_listed(entry, decode) for entry in entries]
    return _Answer(objects, list(map(decode_folder, prefixes)), told, decode if objects else decode_folder)


class KeptEntries:
    """The objects of pages that were read lately; thread-safe.

    A poll gets what the one before got, and reading it takes nine times as long as seeing that it is that. What stands
    around the entries is read each time.
    """

    def __init__(self, most_objects: int = KEPT_OBJECTS) -> None:
        self._most = most_objects
        self._count = 0
        self._lock = threading.Lock()
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()  # by digest; those used last at the end

    def read(self, body: bytes) -> _Answer:
        """Return what an answer says; raises OddAnswerError."""
        digest, around = _cut(body)
        if digest is None:
            return _read(body)
        with self._lock:
            if known := self._answers.get(digest):
                self._answers.move_to_end(digest)
        if known and (told := _told(around)) and told.get("EncodingType") == known.told.get("EncodingType"):
            return replace(known, told=told)
        answer = _read(body)
        if answer.objects and not answer.folders and _told(around) == answer.told:
            self._keep(digest, answer)
        return answer

    def _keep(self, digest: bytes, answer: _Answer) -> None:
        with self._lock:
            before = self._answers.pop(digest, None)
            self._answers[digest] = answer
            self._count += len(answer.objects) - (len(before.objects) if before else 0)
            while self._count > self._most:
                _, dropped = self._answers.popitem(last=False)
                self._count -= len(dropped.objects)


def _cut(body: bytes) -> tuple[bytes | None, bytes]:
    """Return a digest of the entries, None where there are none, and the answer without them."""
    start, end = body.find(_FIRST), body.rfind(_LAST) + len(_LAST)
    if not 0 <= start < end:
        return None, body
    digest = blake2b(memoryview(body)[start:end], digest_size=16).digest()
    return digest, b"%b<%b/>%b" % (body[:start], _CUT.encode(), body[end:])


def _told(around: bytes) -> Mapping[str, str] | None:
    """Return what stands around the entries; None where they do not stand by themselves, right below the root."""
    try:
        answer = _read(around)
    except OddAnswerError:
        return None
    if answer.objects or answer.folders or _CUT not in answer.told:
        return None
    return {name: text for name, text in answer.told.items() if name != _CUT}


def read_page(status: int, body: bytes, prefix: str, read: Callable[[bytes], _Answer] = _read) -> Page:
    """Return what an answer says that was asked for `prefix`, as its body is `read`; raises OddAnswerError."""
    if status != 200:  # noqa: PLR2004 - the one status of a listing
        raise OddAnswerError(f"answers a LIST with status {status}")
    answer = read(body)
    told, folders = answer.told, answer.folders
    page = Page(
        answer.objects,
        folders,
        truncated=_is_truncated(told),
        full=len(answer.objects) + len(folders) >= _page_keys(told.get("MaxKeys", "")),
        token=told.get("NextContinuationToken", ""),
        marker=answer.decode(told.get("NextMarker", "")),
    )
    _check(page, told, prefix)
    return page


def bare_etag(etag: str) -> str:
    """Return an ETag without its quotes and the mark of a weak one, which a proxy that compresses puts there."""
    return etag.strip().removeprefix("W/").strip('"')


def is_same_etag(listed: str, told: str) -> bool:
    """Return whether a GET tells the ETag that was listed; servers that compress add to it."""
    bare = bare_etag(told)
    return bare == listed or (bare.startswith(listed) and bare[len(listed) :] in {"-gzip", "--gzip", ";gzip"})


def _root(body: bytes) -> ET.Element:
    if not body.strip():
        raise OddAnswerError("sends an empty answer to a LIST")
    try:
        root = ET.fromstring(body)  # noqa: S314 - `s3_bounds` lets no entities through
    except (ET.ParseError, ValueError, LookupError) as error:  # the latter two: an encoding that nobody knows
        kind = "a web page" if b"<html" in body[:1_000].lower() else "no whole XML document"
        raise OddAnswerError(f"answers a LIST with {kind}") from error
    if _name(root) != "ListBucketResult":
        raise OddAnswerError(f"answers a LIST with another document, <{_name(root)[:40]}>")
    return root


def _name(element: ET.Element) -> str:
    tag: str = element.tag
    return tag[tag.find("}") + 1 :]  # not every server names a namespace


def _decoding(names: Sequence[str], told: bool) -> Callable[[str], str]:  # noqa: FBT001 - whether the answer says so
    """Return how names of this answer are read; `encoding-type=url` was asked for, which means four things.

    S3 writes `=` as %3D, `+` as %2B, and a space as `+`. SeaweedFS leaves `=` as it is; some servers leave `+`, too, so
    that it is no space; some say that they encode, and do not; some encode without saying so.
    """
    text = "\n".join(names)
    if not text.isascii() or " " in text or not (told or ("%3D" in text and "=" not in text)):
        return str
    return unquote if "%2B" not in text and ("=" in text or "%20" in text) else unquote_plus


def _listed(entry: Mapping[str, str], decode: Callable[[str], str]) -> ListedObject:
    missing = [name for name in ("Key", "ETag", "Size", "LastModified") if not entry.get(name, "").strip()]
    if missing:
        raise OddAnswerError(f"lists an object without {', '.join(missing)}")
    etag, size, modified = bare_etag(entry["ETag"]), entry["Size"].strip(), _time(entry["LastModified"].strip())
    if not (size.isascii() and size.isdigit() and len(size) < 20 and int(size) <= MAX_OBJECT_BYTES):  # noqa: PLR2004 - digits
        raise OddAnswerError("lists an object of an impossible size")
    if modified is None:
        raise OddAnswerError("lists an object with a time that is none")
    if not _ETAG.fullmatch(etag):
        raise OddAnswerError("lists an object with an ETag that is none")
    return ListedObject(decode(entry["Key"]), etag, int(size), modified)


def _time(text: str) -> datetime | None:
    """Return a time of an answer in UTC; None where it is none."""
    try:
        time = datetime.fromisoformat(text)
    except ValueError:  # another format; botocore knows more of them, and takes 50 us
        try:
            time = parse_timestamp(text)
        except (ValueError, OverflowError, OSError, RuntimeError):
            return None
    try:
        return time.astimezone(UTC) if time.tzinfo else time.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # at either end of time
        return None


def _is_truncated(told: Mapping[str, str]) -> bool:
    said = told.get("IsTruncated", "").lower()
    if said not in {"", "true", "false"}:
        raise OddAnswerError("does not say whether there is more")
    return said == "true" or (not said and bool(told.get("NextContinuationToken") or told.get("NextMarker")))


def _page_keys(told: str) -> int:
    keys = int(told) if told.isascii() and told.isdigit() and len(told) < 5 else 0  # noqa: PLR2004 - digits
    return keys if 0 < keys < PAGE_KEYS else PAGE_KEYS


def _check(page: Page, told: Mapping[str, str], prefix: str) -> None:
    names = page.names
    if not all(name.startswith(prefix) for name in names):
        raise OddAnswerError("lists keys outside of the prefix that was asked for")
    said = told.get("KeyCount", "")
    if said.isascii() and said.isdigit() and len(said) < 10 and int(said) > len(names):  # noqa: PLR2004 - digits
        raise OddAnswerError(f"says that it lists {int(said)} names, and lists {len(names)}")
    about = told.get("Prefix", "")
    if not names and about and prefix not in {about, unquote(about), unquote_plus(about)}:
        raise OddAnswerError("answers for another prefix than was asked for")
