"""What S3 servers, and proxies before them, say that is not so; each lie by its name, for `faulty_s3`.

A lie changes the request before a truthful server sees it, or the answer before the client does. All were seen in
public bug reports of servers, gateways and proxies.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import count
from urllib.parse import parse_qsl, unquote_plus, urlencode, urlsplit, urlunsplit


class Lie(StrEnum):
    """What is said that is not so."""

    NONE = "none"  # the truth
    # of a LIST: the answer is none
    EMPTY = "empty"  # 200 without a body
    NO_CONTENT = "no_content"  # 204
    HTML = "html"
    XHTML = "xhtml"
    OTHER_ROOT = "other_root"
    ERROR_WITH_200 = "error_with_200"
    BROKEN_XML = "broken_xml"
    # of a LIST: there seems to be nothing, or no more
    NO_ENTRIES = "no_entries"  # objects and folders are left out; KeyCount stays
    NO_TOKEN = "no_token"  # noqa: S105 - truncated, and no word of how to go on
    SAME_TOKEN = "same_token"  # noqa: S105
    NOT_TRUNCATED = "not_truncated"  # says so of every page
    NO_IS_TRUNCATED = "no_is_truncated"  # nor a token
    NO_FOLDERS = "no_folders"
    V1_ONLY = "v1_only"
    # of a LIST: what was not asked for
    PREFIX_IGNORED = "prefix_ignored"
    START_AFTER_IGNORED = "start_after_ignored"
    DELIMITER_IGNORED = "delimiter_ignored"
    NO_PAGES = "no_pages"  # the first page again and again, with new tokens
    # of a LIST: odd entries
    REVERSED = "reversed"
    TWICE = "twice"
    NO_KEY = "no_key"
    NO_ETAG = "no_etag"
    NO_SIZE = "no_size"
    NO_LAST_MODIFIED = "no_last_modified"
    HUGE_SIZE = "huge_size"
    NEGATIVE_SIZE = "negative_size"
    NO_DATE = "no_date"
    WEAK_ETAGS = "weak_etags"
    ENCODED_UNTOLD = "encoded_untold"
    ENCODING_UNKNOWN = "encoding_unknown"  # names come as they are, and nothing is said of it
    NOT_ENCODED = "not_encoded"  # says that names are encoded, and does not encode them
    # of a GET
    IF_MATCH_IGNORED = "if_match_ignored"
    IF_MATCH_FAILS = "if_match_fails"  # 412 whatever is asked
    RANGE_IGNORED = "range_ignored"
    OTHER_ETAG = "other_etag"
    OTHER_ETAG_AND_TIME = "other_etag_and_time"
    WEAK_ETAG = "weak_etag"
    GZIP_ETAG = "gzip_etag"
    BARE_ETAG = "bare_etag"  # without quotes
    UPPER_ETAG = "upper_etag"  # in other letters than LIST has it
    UNTOLD_ETAG = "untold_etag"
    OTHER_TOTAL = "other_total"
    UNTOLD_TOTAL = "untold_total"  # `bytes 0-9/*`, as RFC 9110 allows
    CHUNKED = "chunked"
    NO_TIME = "no_time"  # Last-Modified is none


@dataclass(frozen=True, slots=True)
class Asked:
    """A request: path and query, and headers with names in lower case."""

    target: str
    headers: Mapping[str, str]

    @property
    def is_list(self) -> bool:
        """Whether it asks for a listing, and not for an object."""
        return not urlsplit(self.target).path.strip("/").partition("/")[2]

    def asking_for(self, parameter: str) -> "Asked":
        """Return it with one parameter more."""
        return replace(self, target=f"{self.target}{'&' if '?' in self.target else '?'}{parameter}")

    def without(self, *names: str) -> "Asked":
        """Return it without these parameters."""
        parts = urlsplit(self.target)
        kept = [(name, value) for name, value in parse_qsl(parts.query, keep_blank_values=True) if name not in names]
        return replace(self, target=urlunsplit(parts._replace(query=urlencode(kept))))

    def without_header(self, name: str) -> "Asked":
        """Return it without this header."""
        return replace(self, headers={key: value for key, value in self.headers.items() if key != name})


@dataclass(frozen=True, slots=True)
class Told:
    """An answer; names of headers are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""

    def changed(self, pattern: str, new: str) -> "Told":
        """Return it with a text of its body replaced wherever it stands."""
        return replace(self, body=re.sub(pattern.encode(), new.encode(), self.body, flags=re.DOTALL))

    def with_header(self, name: str, change: Callable[[str], str | None]) -> "Told":
        """Return it with a header changed, or left out for None."""
        new = change(self.headers[name]) if name in self.headers else None
        kept = {key: value for key, value in self.headers.items() if key != name}
        return replace(self, headers=kept if new is None else kept | {name: new})


def ask(lie: Lie, asked: Asked) -> Asked:
    """Return the request as the truthful server is to see it."""
    change = _ASKED.get(lie)
    return change(asked) if change else asked


def tell(lie: Lie, asked: Asked, told: Told) -> Told:
    """Return the answer to `asked` as the client is to see it; only what went well is lied about."""
    change = (_LISTS if asked.is_list else _OBJECTS).get(lie)
    return change(told) if change and told.status in {200, 206} else told


_ENTRY = r"<(Contents|CommonPrefixes)>.*?</\1>"
_NUMBERS = count()
_XML = {"content-type": "application/xml"}


def _document(body: str) -> Callable[[Told], Told]:
    return lambda _: Told(200, _XML, body.encode())


def _without(*names: str) -> Callable[[Told], Told]:
    return lambda told: told.changed(rf"<({'|'.join(names)})>[^<]*</\1>", "")


_no_token = _without("NextContinuationToken", "NextMarker")


def _with(name: str, value: str) -> Callable[[Told], Told]:
    return lambda told: told.changed(rf"<{name}>[^<]*</{name}>", f"<{name}>{value}</{name}>")


def _reversed(told: Told) -> Told:
    entries = [match.group(0) for match in re.finditer(_ENTRY.encode(), told.body, re.DOTALL)]
    rest = re.sub(_ENTRY.encode(), b"", told.body, flags=re.DOTALL)
    return replace(
        told, body=rest.replace(b"</ListBucketResult>", b"".join(reversed(entries)) + b"</ListBucketResult>")
    )


def _decoded(told: Told) -> Told:
    def decoded(match: re.Match[bytes]) -> bytes:
        name = unquote_plus(match.group(2).decode()).replace("&", "&amp;").replace("<", "&lt;")
        return b"<%s>%s</%s>" % (match.group(1), name.encode(), match.group(1))

    return replace(told, body=re.sub(rb"<(Key|Prefix|NextMarker)>([^<]*)</\1>", decoded, told.body))


_ASKED: dict[Lie, Callable[[Asked], Asked]] = {
    Lie.V1_ONLY: lambda asked: asked.without("list-type", "continuation-token", "start-after"),
    Lie.PREFIX_IGNORED: lambda asked: asked.without("prefix"),
    Lie.START_AFTER_IGNORED: lambda asked: asked.without("start-after"),
    Lie.DELIMITER_IGNORED: lambda asked: asked.without("delimiter"),
    Lie.SAME_TOKEN: lambda asked: asked.without("continuation-token"),
    Lie.NO_PAGES: lambda asked: asked.without("continuation-token", "marker"),
    Lie.IF_MATCH_IGNORED: lambda asked: asked.without_header("if-match"),
    Lie.IF_MATCH_FAILS: lambda asked: (
        replace(asked, headers={**asked.headers, "if-match": '"none"'}) if "if-match" in asked.headers else asked
    ),
    Lie.OTHER_ETAG: lambda asked: asked.without_header("if-match"),
    Lie.OTHER_ETAG_AND_TIME: lambda asked: asked.without_header("if-match"),
    Lie.RANGE_IGNORED: lambda asked: asked.without_header("range"),
}

_LISTS: dict[Lie, Callable[[Told], Told]] = {
    Lie.EMPTY: lambda _: Told(200),
    Lie.NO_CONTENT: lambda _: Told(204),
    Lie.HTML: _document("<!DOCTYPE html><html><body>Please sign in<br></body></html>"),
    Lie.XHTML: _document('<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body>Sign in</body></html>'),
    Lie.OTHER_ROOT: _document("<ListAllMyBucketsResult><Buckets/></ListAllMyBucketsResult>"),
    Lie.ERROR_WITH_200: _document("<Error><Code>InternalError</Code><Message>try again</Message></Error>"),
    Lie.BROKEN_XML: lambda told: replace(told, body=told.body[:-20]),
    Lie.NO_ENTRIES: lambda told: told.changed(_ENTRY, ""),
    Lie.NO_TOKEN: _no_token,
    Lie.SAME_TOKEN: _with("NextContinuationToken", "again"),
    Lie.NOT_TRUNCATED: lambda told: _without("NextContinuationToken", "NextMarker")(
        _with("IsTruncated", "false")(told)
    ),
    Lie.NO_IS_TRUNCATED: _without("IsTruncated", "NextContinuationToken", "NextMarker"),
    Lie.NO_FOLDERS: lambda told: _without("KeyCount")(told.changed("<CommonPrefixes>.*?</CommonPrefixes>", "")),
    Lie.NO_PAGES: lambda told: told.changed("<NextContinuationToken>", f"<NextContinuationToken>{next(_NUMBERS)}"),
    Lie.REVERSED: _reversed,
    Lie.TWICE: lambda told: told.changed(f"({_ENTRY.replace('1', '2')})", r"\1\1"),
    Lie.NO_KEY: _without("Key"),
    Lie.NO_ETAG: _without("ETag"),
    Lie.NO_SIZE: _without("Size"),
    Lie.NO_LAST_MODIFIED: _without("LastModified"),
    Lie.HUGE_SIZE: _with("Size", str(2**63)),
    Lie.NEGATIVE_SIZE: _with("Size", "-1"),
    Lie.NO_DATE: _with("LastModified", "yesterday"),
    Lie.WEAK_ETAGS: lambda told: told.changed("<ETag>", "<ETag>W/"),
    Lie.ENCODED_UNTOLD: _without("EncodingType"),
    Lie.ENCODING_UNKNOWN: lambda told: _without("EncodingType")(_decoded(told)),
    Lie.NOT_ENCODED: _decoded,
}

_OBJECTS: dict[Lie, Callable[[Told], Told]] = {
    Lie.OTHER_ETAG: lambda told: told.with_header("etag", lambda _: '"other-2"'),
    Lie.OTHER_ETAG_AND_TIME: lambda told: told.with_header("etag", lambda _: '"other-2"').with_header(
        "last-modified", lambda _: "Mon, 01 Jan 2001 00:00:00 GMT"
    ),
    Lie.WEAK_ETAG: lambda told: told.with_header("etag", "W/{}".format),
    Lie.GZIP_ETAG: lambda told: told.with_header("etag", lambda etag: f'{etag[:-1]}-gzip"'),
    Lie.BARE_ETAG: lambda told: told.with_header("etag", lambda etag: etag.strip('"')),
    Lie.UPPER_ETAG: lambda told: told.with_header("etag", str.upper),
    Lie.UNTOLD_ETAG: lambda told: told.with_header("etag", lambda _: None),
    Lie.OTHER_TOTAL: lambda told: told.with_header("content-range", lambda text: f"{text}0"),
    Lie.UNTOLD_TOTAL: lambda told: told.with_header("content-range", lambda text: f"{text.partition('/')[0]}/*"),
    Lie.NO_TIME: lambda told: told.with_header("last-modified", lambda _: "yesterday"),
    Lie.CHUNKED: lambda told: replace(told, headers={**told.headers, "transfer-encoding": "chunked"}),
}

# Answers to a LIST that show by themselves that they are none: for the faults of a long run.
LYING_LISTS = (Lie.EMPTY, Lie.NO_CONTENT, Lie.HTML, Lie.XHTML, Lie.OTHER_ROOT, Lie.BROKEN_XML)
