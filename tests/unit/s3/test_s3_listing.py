"""The S3 adapter: what is read from the answer to a LIST, without a network."""

import io
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain, repeat
from typing import Any

import pytest
from botocore import handlers
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config
from hypothesis import example, given
from hypothesis import strategies as st

from currents_bridge.errors import RetryLaterError
from currents_bridge.model import ListedObject
from currents_bridge.sources.s3 import answers as s3_answers
from currents_bridge.sources.s3 import listing
from currents_bridge.sources.s3.answers import KeptEntries, OddAnswerError, read_page
from currents_bridge.sources.s3.store import S3ObjectStore

NAMESPACE = ' xmlns="http://s3.amazonaws.com/doc/2006-03-01/"'
CONTENTS = (
    "<Contents><Key>{key}</Key><LastModified>2026-03-04T12:30:00.000Z</LastModified><ETag>&quot;{etag}&quot;</ETag>"
    "<Size>{size}</Size><Owner><ID>1</ID></Owner><StorageClass>STANDARD</StorageClass></Contents>"
)
NOON = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)


class Body(io.BytesIO):
    """The body of an answer as botocore reads it."""

    def stream(self) -> Iterator[bytes]:
        """Yield all of it."""
        yield self.read()


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign requests with something."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def store_that_answers(*bodies: str) -> S3ObjectStore:
    """Return a store whose requests get these bodies in turn and then the last one, each with status 200."""
    config = Config(retries={"total_max_attempts": 1})
    store = S3ObjectStore(
        "acme", region="us-east-1", endpoint_url="http://127.0.0.1:9", config=config, sleep=lambda _: None
    )
    waiting = chain(bodies, repeat(bodies[-1]))

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        return AWSResponse(request.url, 200, HTTPHeaders(), Body(next(waiting).encode()))

    store._client.meta.events.register("before-send.s3.ListObjects", answer)  # type: ignore[arg-type]
    store._client.meta.events.register("before-send.s3.ListObjectsV2", answer)  # type: ignore[arg-type] # the stubs know no hook that answers
    return store


def page(*contents: str, namespace: str = NAMESPACE, rest: str = "<IsTruncated>false</IsTruncated>") -> str:
    """Return the answer to a LIST, in which keys are encoded."""
    return f"<ListBucketResult{namespace}><EncodingType>url</EncodingType>{''.join(contents)}{rest}</ListBucketResult>"


@pytest.mark.parametrize("namespace", [NAMESPACE, ""])
def test_objects_are_read_with_and_without_a_namespace(namespace: str) -> None:
    """Not every server names one."""
    contents = CONTENTS.format(key="a%3D1%2B2/caf%C3%A9", etag="e1", size=7)
    store = store_that_answers(page(contents, namespace=namespace))

    assert list(store.list("a")) == [ListedObject("a=1+2/café", "e1", 7, NOON)]


def test_a_listing_goes_on_where_the_page_says_so() -> None:
    """What stands beside the objects is read, too."""
    more = "<IsTruncated>true</IsTruncated><NextContinuationToken>2</NextContinuationToken>"
    first, second = (CONTENTS.format(key=key, etag=key, size=1) for key in "ab")
    store = store_that_answers(page(first, rest=more), page(second))

    assert [item.key for item in store.list("")] == ["a", "b"]


def test_folders_stand_beside_objects() -> None:
    """One level has both."""
    folder = "<CommonPrefixes><Prefix>a%3D1/</Prefix></CommonPrefixes>"
    store = store_that_answers(page(CONTENTS.format(key="b", etag="e", size=1), rest=folder))

    assert store.folders("") == (["a=1/"], [ListedObject("b", "e", 1, NOON)])


@pytest.mark.parametrize(
    "body",
    [
        "<Error><Code>InternalError</Code><Message>try again</Message></Error>",
        page(CONTENTS.format(key="a", etag="e", size=1))[:-20],
        "no XML",
    ],
    ids=["error", "cut off", "no XML"],
)
def test_an_answer_that_is_no_listing_is_an_error(body: str) -> None:
    """It never counts as a short listing, though its status is 200."""
    with pytest.raises(RetryLaterError):
        list(store_that_answers(body).list(""))


TRUNCATED = "<IsTruncated>true</IsTruncated>"
HTML = "<!DOCTYPE html><html><body>please log in</body></html>"
XHTML = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><body/></html>'


def contents(key: str, etag: str = "e", size: str = "5") -> str:
    """Return one object of a page."""
    return CONTENTS.format(key=key, etag=etag, size=size)


def without(name: str) -> str:
    """Return an object that lacks one of its values."""
    return re.sub(f"<{name}>.*?</{name}>", "", contents("a"))


@pytest.mark.parametrize(
    "body",
    ["", " ", HTML, XHTML, "<ListAllMyBucketsResult/>", "<Other><ListBucketResult/></Other>", "ok", "{}"],
)
def test_an_answer_that_is_no_listing_is_an_error_and_never_an_empty_bucket(body: str) -> None:
    """Neither for objects nor for folders."""
    with pytest.raises(RetryLaterError):
        list(store_that_answers(body).list(""))
    with pytest.raises(RetryLaterError):
        store_that_answers(body).folders("")


@pytest.mark.parametrize("body", [page(), f"<!-- hi -->{page()}", page(rest=""), f"\n{page()}"])
def test_an_empty_listing_is_one(body: str) -> None:
    """A bucket may be empty."""
    assert list(store_that_answers(body).list("")) == []


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        pytest.param(page(contents("b"), contents("a")), "out of order", id="order"),
        pytest.param(page(contents("x/1")), "outside of the prefix", id="prefix"),
        pytest.param(page(without("ETag")), "without ETag", id="no ETag"),
        pytest.param(page(without("Size")), "without Size", id="no Size"),
        pytest.param(page(without("LastModified")), "without LastModified", id="no LastModified"),
        pytest.param(page(contents("a", size="-1")), "impossible size", id="negative size"),
        pytest.param(page(contents("a", size="99999999999999999999")), "impossible size", id="huge size"),
        pytest.param(page(rest=TRUNCATED), "not where", id="more, and nothing said"),
    ],
)
def test_a_listing_that_contradicts_itself_is_an_error(odd: str, what: str) -> None:
    """It says what is odd, and about which server."""
    prefix = "p/" if what == "outside of the prefix" else ""
    with pytest.raises(RetryLaterError, match=what) as raised:
        list(store_that_answers(odd).list(prefix))
    assert "http://127.0.0.1:9" in raised.value.message


@pytest.mark.parametrize("odd", [contents("a", size="many"), contents("a").replace("2026-03-04T12", "2026-99-04T12")])
def test_a_value_that_cannot_be_read_is_an_error(odd: str) -> None:
    """Never a traceback."""
    with pytest.raises(RetryLaterError):
        list(store_that_answers(page(odd)).list(""))


def test_a_truncated_page_without_a_token_is_gone_on_from_by_its_last_key() -> None:
    """As servers of the older LIST have it."""
    store = store_that_answers(page(contents("a"), rest=TRUNCATED), page(contents("b")))
    assert [item.key for item in store.list("")] == ["a", "b"]


def test_a_server_that_sends_the_same_page_again_is_told() -> None:
    """It would go on for ever."""
    same = page(contents("a"), rest=TRUNCATED)
    with pytest.raises(RetryLaterError, match="same part of the listing again"):
        list(store_that_answers(same, same).list(""))


def test_a_token_that_comes_twice_is_told() -> None:
    """It would go on for ever, too."""
    rest = f"{TRUNCATED}<NextContinuationToken>t</NextContinuationToken>"
    with pytest.raises(RetryLaterError, match="token twice"):
        list(store_that_answers(page(contents("a"), rest=rest), page(contents("b"), rest=rest)).list(""))


def test_keys_up_to_start_after_are_left_out_where_the_server_ignores_it() -> None:
    """Hours before `start_from` would be sent."""
    store = store_that_answers(page(contents("a"), contents("b"), contents("c")))
    assert [item.key for item in store.list("", start_after="b")] == ["c"]


def test_a_key_that_is_listed_twice_counts_once() -> None:
    """Within a page."""
    assert [item.key for item in store_that_answers(page(contents("a"), contents("a"))).list("")] == ["a"]


def test_the_order_of_servers_that_sort_by_folders_is_an_order() -> None:
    """`a/1` comes before `a-b` where a folder is named `a`."""
    store = store_that_answers(page(contents("a/1"), contents("a-b")))
    assert [item.key for item in store.list("")] == ["a/1", "a-b"]


def test_folders_are_made_of_keys_where_the_server_ignores_the_delimiter() -> None:
    """Flat as they come."""
    store = store_that_answers(page(contents("a/1"), contents("a/2"), contents("b/c/1"), contents("d")))
    folders, objects = store.folders("")
    assert (folders, [item.key for item in objects]) == (["a/", "b/"], ["d"])


def test_folders_are_looked_for_where_the_server_lists_none() -> None:
    """Two public servers leave out folders that hold folders only."""
    assert store_that_answers(page(), page(contents("a/b/1"))).folders("") == (["a/"], [])


def test_a_weak_etag_is_the_etag() -> None:
    """As a proxy that compresses makes it."""
    (item,) = store_that_answers(page(contents("a").replace("&quot;e&quot;", "W/&quot;e&quot;"))).list("")
    assert item.etag == "e"


def test_a_page_that_overlaps_the_one_before_counts_once() -> None:
    """A key that stands in both is delivered and counted once."""
    more = f"{TRUNCATED}<NextContinuationToken>2</NextContinuationToken>"
    store = store_that_answers(page(contents("a"), contents("b"), rest=more), page(contents("b"), contents("c")))
    assert [item.key for item in store.list("")] == ["a", "b", "c"]


def test_a_key_that_is_listed_twice_with_other_values_is_an_error() -> None:
    """As of a server that lists versions: which is the object, only it knows."""
    with pytest.raises(RetryLaterError, match="twice, and differently"):
        list(store_that_answers(page(contents("a"), contents("a", etag="older"))).list(""))


def test_pages_that_go_back_are_an_error() -> None:
    """Whoever stops at an hour's end would miss what comes later."""
    more = f"{TRUNCATED}<NextContinuationToken>2</NextContinuationToken>"
    with pytest.raises(RetryLaterError, match="out of order"):
        list(store_that_answers(page(contents("m"), contents("z"), rest=more), page(contents("a"))).list(""))


def test_a_full_page_is_not_believed_to_be_the_last() -> None:
    """Some servers cut off at a thousand names, and say that this is all."""
    first = page(*(contents(f"{n:04}") for n in range(1_000)))
    store = store_that_answers(first, page(contents("1000")))
    assert len(list(store.list(""))) == 1_001


def test_a_bucket_of_exactly_one_full_page_is_listed_whole() -> None:
    """Also at a server that sends the same page whatever is asked."""
    keys = [f"{n:04}" for n in range(1_000)]
    for after in (page(), page(*map(contents, keys))):
        assert [item.key for item in store_that_answers(page(*map(contents, keys)), after).list("")] == keys


def test_empty_pages_without_end_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each with another token."""
    monkeypatch.setattr(listing, "MAX_BARREN_PAGES", 20)
    bodies = [page(rest=f"{TRUNCATED}<NextContinuationToken>{n}</NextContinuationToken>") for n in range(30)]
    for look in (lambda store: list(store.list("")), lambda store: store.folders("")):
        with pytest.raises(RetryLaterError, match="same part of the listing again"):
            look(store_that_answers(*bodies))


def test_pages_that_name_one_folder_again_and_again_come_to_an_end() -> None:
    """Some servers make a page of a thousand keys, and one folder of these."""
    folder = "<CommonPrefixes><Prefix>a/</Prefix></CommonPrefixes>"
    bodies = [page(folder, rest=f"{TRUNCATED}<NextContinuationToken>{n}</NextContinuationToken>") for n in range(5)]
    last = page(folder.replace("a/", "b/"))
    assert store_that_answers(*bodies, last).folders("") == (["a/", "b/"], [])


@pytest.mark.parametrize("beside", ["p/", "p/_SUCCESS"])
def test_folders_are_looked_for_also_where_an_object_stands_beside_them(beside: str) -> None:
    """As the mark of a folder that a console has made."""
    folders, _ = store_that_answers(page(contents(beside)), page(contents("p/a/1"))).folders("p/")
    assert folders == ["p/a/"]


@pytest.mark.parametrize("odd", ["p/", "p/a", "p/a/b/", "a/"])
def test_folders_that_are_none_of_this_level_are_made_of_keys(odd: str) -> None:
    """The prefix itself, one without '/', one of a level below, one without the prefix."""
    answers = [page(f"<CommonPrefixes><Prefix>{odd}</Prefix></CommonPrefixes>"), page(contents("p/a/b/1"))]
    if odd == "a/":
        with pytest.raises(RetryLaterError, match="outside of the prefix"):
            store_that_answers(answers[0]).folders("p/")
    else:
        assert store_that_answers(*answers).folders("p/") == (["p/a/"], [])


def test_folders_may_stand_together() -> None:
    """Several in one element."""
    body = page("<CommonPrefixes><Prefix>a/</Prefix><Prefix>b/</Prefix></CommonPrefixes>")
    assert store_that_answers(body).folders("") == (["a/", "b/"], [])


@pytest.mark.parametrize(
    ("odd", "what"),
    [
        ("<Contents/>", "without Key, ETag, Size, LastModified"),
        (contents("a", etag=""), "an ETag that is none"),
        (contents("a", etag="a b"), "an ETag that is none"),
        (contents("a", etag="x" * 300), "an ETag that is none"),
        (contents("a").replace("<Size>5", "<Size>5</Size><Size>"), "without Size"),
        (contents("a").replace("<Size>5", "<Size><Deep>5</Deep>"), "without Size"),
        (contents("a", size="٣"), "impossible size"),
        (contents("a", size="9" * 5_000), "impossible size"),
        (contents("a").replace("2026-03-04T12:30:00.000Z", "0001-01-01T00:00:00+05:00"), "time that is none"),
        (contents("a").replace("2026-03-04T12:30:00.000Z", "9" * 30), "time that is none"),
        ("<KeyCount>3</KeyCount>", "says that it lists 3 names, and lists 0"),
        ("<IsTruncated>maybe</IsTruncated>", "whether there is more"),
        ("<Prefix>other/</Prefix>", "for another prefix"),
        ("&#1;", "no whole XML document"),
    ],
)
def test_whatever_a_listing_holds_it_is_read_or_named(odd: str, what: str) -> None:
    """Never a traceback, and never nothing."""
    with pytest.raises(RetryLaterError, match=what) as raised:
        list(store_that_answers(page(odd, rest="")).list(""))
    assert raised.value.message.startswith("cannot list s3://acme/: the server at http://127.0.0.1:9 ")


def test_times_of_other_formats_are_read() -> None:
    """Without a zone they are in UTC."""
    for text in ("Wed, 04 Mar 2026 12:30:00 GMT", "2026-03-04T12:30:00", "2026-03-04T13:30:00+01:00"):
        body = page(contents("a").replace("2026-03-04T12:30:00.000Z", text))
        assert [item.last_modified for item in store_that_answers(body).list("")] == [NOON]


@pytest.mark.parametrize(
    ("told", "name", "key"),
    [
        ("url", "p/t%3DA/x%2B0%2B1", "p/t=A/x+0+1"),  # S3
        ("url", "p/t=A/x%2B0%2B1+a", "p/t=A/x+0+1 a"),  # SeaweedFS
        ("url", "p/t=A/x+0+1%C3%BC", "p/t=A/x+0+1ü"),  # what leaves `+` as it is
        ("url", "p/t=A/x 0%1ü", "p/t=A/x 0%1ü"),  # what says so, and does not encode
        ("", "p/t%3DA/x%2B0%2B1", "p/t=A/x+0+1"),  # what encodes, and does not say so
        ("", "p/t=A/x%2B0+1", "p/t=A/x%2B0+1"),  # what does not know of it
    ],
)
def test_names_are_read_however_they_are_encoded(told: str, name: str, key: str) -> None:
    """Keys as well as folders."""
    start = f"<ListBucketResult><EncodingType>{told}</EncodingType>"
    folder = f"<CommonPrefixes><Prefix>{name}/</Prefix></CommonPrefixes>"
    keys = store_that_answers(f"{start}{contents(name)}</ListBucketResult>")
    assert [item.key for item in keys.list("p/")] == [key]
    folder_page = read_page(200, f"{start}{folder}</ListBucketResult>".encode(), "p/")
    assert folder_page.folders == [f"{key}/"]


def test_a_comment_before_the_root_takes_no_time() -> None:
    """A pattern with two ways to read it would take minutes for a hundred."""
    assert list(store_that_answers("<!---->" * 10_000 + page()).list("")) == []


@given(st.text(alphabet="<>/&;#x 01aContentsKeyETag\"'=", max_size=200))
def test_any_text_in_a_listing_is_read_or_named(text: str) -> None:
    """Whatever stands where objects do."""
    for body in (text.encode(), page(text).encode(), page(f"<Contents>{text}</Contents>").encode()):
        with suppress(OddAnswerError):
            read_page(200, body, "")


def test_what_is_listed_as_before_is_parsed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """An idle poll lists what the one before listed; only what stands around the objects is read again."""
    store = store_that_answers(page(contents("a"), contents("b")))
    before = list(store.list(""))
    monkeypatch.setattr(s3_answers, "_listed", None)
    assert list(store.list("")) == before


def test_botocore_does_not_parse_a_listing_for_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take as long as to read it."""
    sizes: list[int] = []
    parse = handlers._looks_like_special_case_error  # type: ignore[attr-defined]

    def note(status: int, body: bytes) -> bool:
        sizes.append(len(body))
        return parse(status, body)  # type: ignore[no-any-return]

    monkeypatch.setattr(handlers, "_looks_like_special_case_error", note)
    list(store_that_answers(page(*map(contents, "abcdef"))).list(""))
    assert max(sizes) < 100


ODD_PARTS = (
    contents("a"),
    contents("b%2Bc"),
    "<KeyCount>1</KeyCount>",
    "<!--",
    "-->",
    "<X>",
    "</X>",
    "<Contents>",
    "</Contents>",
)


@given(st.lists(st.lists(st.sampled_from(ODD_PARTS), max_size=4), min_size=2, max_size=4), st.booleans())
@example([[contents("a"), "<X>", "</X>"], ["<X>", contents("a"), "</X>"], ["<!--", contents("a"), "-->"]], True)
def test_a_page_is_read_alike_with_and_without_those_before(pages: list[list[str]], encoded: bool) -> None:  # noqa: FBT001
    """Whatever pages came before, and whatever stands between the objects."""
    kept = KeptEntries()
    for number, parts in enumerate(pages):
        told = "url" if encoded or number % 2 else ""
        body = f"<ListBucketResult><EncodingType>{told}</EncodingType>{''.join(parts)}</ListBucketResult>".encode()
        with suppress(OddAnswerError):
            assert read_page(200, body, "", kept.read) == read_page(200, body, "")


def test_as_many_objects_are_kept_as_were_allowed() -> None:
    """The pages that were read last: a bucket of any size takes no more memory."""
    kept = KeptEntries(most_objects=3)
    for first in range(10):
        read_page(200, page(contents(f"{first}-a"), contents(f"{first}-b")).encode(), "", kept.read)
    assert sum(len(answer.objects) for answer in kept._answers.values()) == 2
