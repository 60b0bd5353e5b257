"""The S3 adapter behind a proxy that says what is not so: it finds all there is, or names the server and the lie."""

import gzip
import re
from contextlib import closing
from itertools import count, repeat

import pytest
from botocore.config import Config

from currents_bridge.errors import CredentialError, ObjectChangedError, OneObjectError, RetryLaterError
from currents_bridge.model import ListedObject
from currents_bridge.sources.s3.store import S3ObjectStore
from currents_bridge.testing.embedded_s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Endpoint
from currents_bridge.testing.faulty_s3 import FaultyS3, S3Fault
from currents_bridge.testing.loopback import Answer, LoopbackServer
from currents_bridge.testing.s3_lies import LYING_LISTS, Lie

CONTENT = bytes(n * n % 251 for n in range(2_500))
RANGE_BYTES = 1_000
FOLDERS = [f"p/event_type=T{n}/" for n in range(4)]
BELOW_P = sorted([*(f"{folder}date=2026-01-02-0{n}/x+0+{n}.avro" for folder in FOLDERS for n in range(3)), "p/note"])
KEYS = [*BELOW_P, "q/x"]
ALL = list(Lie)
OF_LISTS = ALL[ALL.index(Lie.EMPTY) : ALL.index(Lie.IF_MATCH_IGNORED)]

# What is handled. Every other lie about a LIST is an error that says this of the server.
TRUTH_ALL_THE_SAME = {
    Lie.NO_TOKEN,
    Lie.NOT_TRUNCATED,
    Lie.NO_IS_TRUNCATED,
    Lie.NO_FOLDERS,
    Lie.V1_ONLY,
    Lie.START_AFTER_IGNORED,
    Lie.DELIMITER_IGNORED,
    Lie.TWICE,
    Lie.WEAK_ETAGS,
    Lie.ENCODED_UNTOLD,
    Lie.ENCODING_UNKNOWN,
    Lie.NOT_ENCODED,
}
ODD = {
    Lie.EMPTY: "an empty answer",
    Lie.NO_CONTENT: "status 204",
    Lie.HTML: "a web page",
    Lie.XHTML: "another document, <html>",
    Lie.OTHER_ROOT: "another document, <ListAllMyBucketsResult>",
    Lie.BROKEN_XML: "no whole XML document",
    Lie.NO_ENTRIES: "says that it lists",
    Lie.SAME_TOKEN: "the same part of the listing again",
    Lie.PREFIX_IGNORED: "outside of the prefix",
    Lie.NO_PAGES: "the same part of the listing again",
    Lie.REVERSED: "out of order",
    Lie.NO_KEY: "without Key",
    Lie.NO_ETAG: "without ETag",
    Lie.NO_SIZE: "without Size",
    Lie.NO_LAST_MODIFIED: "without LastModified",
    Lie.HUGE_SIZE: "impossible size",
    Lie.NEGATIVE_SIZE: "impossible size",
    Lie.NO_DATE: "a time that is none",
}

Upstream = tuple[S3Endpoint, str]
_NUMBERS = count()


@pytest.fixture
def upstream(embedded_s3: S3Endpoint, monkeypatch: pytest.MonkeyPatch) -> Upstream:
    """A truthful server, and a bucket of it with KEYS."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr("botocore.retries.standard.time.sleep", lambda _: None)  # botocore takes no clock
    bucket = f"lies-{next(_NUMBERS)}"
    embedded_s3.make_bucket(bucket)
    with closing(embedded_s3.client()) as client:
        for key in KEYS:
            client.put_object(Bucket=bucket, Key=key, Body=CONTENT)
    return embedded_s3, bucket


def store_at(server: S3Endpoint, bucket: str) -> S3ObjectStore:
    """Return the adapter; it does not wait between attempts."""
    config = Config(proxies={})
    return S3ObjectStore(
        bucket,
        region=REGION,
        endpoint_url=server.url,
        config=config,
        range_bytes=RANGE_BYTES,
        sleep=lambda _: None,
    )


def the_object(upstream: Upstream) -> ListedObject:
    """Return an object as the truth lists it."""
    return next(store_at(*upstream).list(KEYS[0]))


def read(store: S3ObjectStore, item: ListedObject) -> bytes:
    """Return the whole object."""
    with store.open(item.key, item.etag, item.size_bytes) as stream:
        return stream.read()


@pytest.mark.parametrize("page_keys", [None, 2])
@pytest.mark.parametrize("lie", OF_LISTS)
def test_no_lie_about_a_listing_hides_an_object(upstream: Upstream, lie: Lie, page_keys: int | None) -> None:
    """All objects and folders, or an error that names the server; in one page and in several."""
    with FaultyS3(upstream[0], lie=lie, page_keys=page_keys) as proxy:
        store = store_at(proxy, upstream[1])
        try:
            found = [item.key for item in store.list("p/")]
        except RetryLaterError as error:
            assert lie not in TRUTH_ALL_THE_SAME
            assert proxy.url in error.message or lie is Lie.ERROR_WITH_200  # noqa: PT017 - or the truth
        else:
            assert found == BELOW_P
        try:
            folders, objects = store.folders("p/")
        except RetryLaterError as error:
            assert lie not in TRUTH_ALL_THE_SAME
            assert proxy.url in error.message or lie is Lie.ERROR_WITH_200  # noqa: PT017 - or the truth
        else:
            assert (folders, [item.key for item in objects]) == (FOLDERS, ["p/note"])


@pytest.mark.parametrize(("lie", "what"), ODD.items())
def test_what_is_odd_is_said(upstream: Upstream, lie: Lie, what: str) -> None:
    """With the server that says so."""
    with FaultyS3(upstream[0], lie=lie, page_keys=5) as proxy:
        with pytest.raises(RetryLaterError, match=what) as raised:
            list(store_at(proxy, upstream[1]).list("p/"))
        assert f"cannot list s3://{upstream[1]}/p/: the server at {proxy.url} " in raised.value.message


def test_keys_up_to_the_start_stay_out_whether_the_server_knows_of_a_start_or_not(upstream: Upstream) -> None:
    """Else what came before `start_from` would be sent."""
    for lie in (Lie.START_AFTER_IGNORED, Lie.V1_ONLY):
        with FaultyS3(upstream[0], lie=lie, page_keys=5) as proxy:
            found = [item.key for item in store_at(proxy, upstream[1]).list("p/", start_after=KEYS[3])]
        assert found == BELOW_P[4:]


def test_where_there_is_nothing_each_lie_that_is_handled_says_so(upstream: Upstream) -> None:
    """An empty prefix stays an empty prefix."""
    for lie in TRUTH_ALL_THE_SAME:
        with FaultyS3(upstream[0], lie=lie, page_keys=5) as proxy:
            store = store_at(proxy, upstream[1])
            assert list(store.list("none/")) == []
            assert store.folders("none/") == ([], [])


def test_folders_that_are_made_of_keys_cost_a_request_each(upstream: Upstream) -> None:
    """And not one for a thousand objects."""
    with FaultyS3(upstream[0], lie=Lie.DELIMITER_IGNORED, page_keys=2) as proxy:
        store_at(proxy, upstream[1]).folders("p/")
        assert proxy.requests <= 2 * len(FOLDERS) + 3


def test_one_odd_answer_costs_a_request(upstream: Upstream) -> None:
    """As one in a thousand from a proxy; the listing goes on."""
    faults = [S3Fault.LYING_LIST, None] * len(LYING_LISTS)
    with FaultyS3(upstream[0], faults, page_keys=2) as proxy:
        assert [item.key for item in store_at(proxy, upstream[1]).list("p/")] == BELOW_P
        assert proxy.served[S3Fault.LYING_LIST] == len(LYING_LISTS)


def test_a_list_that_lies_all_the_time_is_no_listing(upstream: Upstream) -> None:
    """Objects come through."""
    item = the_object(upstream)
    with FaultyS3(upstream[0], repeat(S3Fault.LYING_LIST)) as proxy:
        store = store_at(proxy, upstream[1])
        for _ in LYING_LISTS:
            with pytest.raises(RetryLaterError):
                list(store.list(""))
        assert read(store, item) == CONTENT


@pytest.mark.parametrize(
    "lie",
    [
        Lie.IF_MATCH_IGNORED,
        Lie.IF_MATCH_FAILS,
        Lie.OTHER_ETAG,
        Lie.WEAK_ETAG,
        Lie.GZIP_ETAG,
        Lie.BARE_ETAG,
        Lie.UPPER_ETAG,
        Lie.UNTOLD_ETAG,
        Lie.UNTOLD_TOTAL,
        Lie.CHUNKED,
        Lie.NO_TIME,
    ],
)
def test_an_object_is_read_whatever_the_server_says_of_its_etag_and_time(upstream: Upstream, lie: Lie) -> None:
    """Where LIST and GET contradict each other for ever, size and time decide."""
    item = the_object(upstream)
    with FaultyS3(upstream[0], lie=lie) as proxy:
        assert read(store_at(proxy, upstream[1]), item) == CONTENT


@pytest.mark.parametrize("lie", [Lie.OTHER_ETAG_AND_TIME, Lie.OTHER_TOTAL])
def test_an_object_that_is_sent_otherwise_than_listed_is_not_read(upstream: Upstream, lie: Lie) -> None:
    """The error names the server, and is not that of an object that changed."""
    item = the_object(upstream)
    with FaultyS3(upstream[0], lie=lie) as proxy:
        with pytest.raises(RetryLaterError, match="lists it with 2500 bytes, and sends") as raised:
            read(store_at(proxy, upstream[1]), item)
        assert proxy.url in raised.value.message
    assert not isinstance(raised.value, ObjectChangedError)


@pytest.mark.parametrize(
    "lie", [Lie.NONE, Lie.IF_MATCH_IGNORED, Lie.UNTOLD_ETAG, Lie.UPPER_ETAG, Lie.WEAK_ETAG, Lie.OTHER_ETAG]
)
def test_no_stream_holds_two_versions_of_an_object(upstream: Upstream, lie: Lie) -> None:
    """It is replaced by one of the same size while it is read."""
    item = the_object(upstream)
    with (
        FaultyS3(upstream[0], lie=lie) as proxy,
        closing(upstream[0].client()) as client,
        store_at(proxy, upstream[1]).open(item.key, item.etag, item.size_bytes) as stream,
    ):
        assert stream.read(10) == CONTENT[:10]
        client.put_object(Bucket=upstream[1], Key=item.key, Body=CONTENT[::-1])

        with pytest.raises(ObjectChangedError):
            stream.read()


@pytest.mark.parametrize(("fault", "error"), [(S3Fault.DENIED, CredentialError), (S3Fault.ARCHIVED, OneObjectError)])
def test_an_object_that_cannot_be_had_slows_no_other(
    upstream: Upstream, fault: S3Fault, error: type[Exception]
) -> None:
    """The quick way goes on for those beside it; whose trouble a denial is, the core decides."""
    item = the_object(upstream)
    with FaultyS3(upstream[0], [fault, fault]) as proxy:
        store = store_at(proxy, upstream[1])
        with pytest.raises(error, match=re.escape(item.key)):
            read(store, item)
        requests = proxy.requests
        assert read(store, item) == CONTENT
        assert proxy.requests - requests == 3  # one for each range


@pytest.mark.parametrize(("status", "error"), [(301, CredentialError), (302, RetryLaterError), (307, RetryLaterError)])
def test_a_server_that_redirects_is_not_followed(upstream: Upstream, status: int, error: type[Exception]) -> None:
    """Neither in a listing nor for an object: what is elsewhere is not what was set up."""
    item = the_object(upstream)
    elsewhere = Answer(status, {"Location": f"{upstream[0].url}/{upstream[1]}"})
    with closing(LoopbackServer(lambda _: elsewhere, "redirects")) as server:
        store = store_at(S3Endpoint(server.url), upstream[1])
        with pytest.raises(error, match=r"region|redirects"):
            list(store.list(""))
        with pytest.raises(error, match=r"region|redirects"):
            read(store, item)


def test_a_small_object_is_read_where_the_server_knows_no_ranges(upstream: Upstream) -> None:
    """All of it is a range; a large one would be sent again for each."""
    item = the_object(upstream)
    with FaultyS3(upstream[0], lie=Lie.RANGE_IGNORED) as proxy:
        store = store_at(proxy, upstream[1])
        with pytest.raises(RetryLaterError, match="did not send the range"):
            read(store, item)
        store._range_bytes = len(CONTENT)
        assert read(store, item) == CONTENT


@pytest.mark.parametrize("quick", [True, False])
def test_an_object_is_read_as_it_is_stored_whatever_is_said_of_its_encoding(upstream: Upstream, quick: bool) -> None:  # noqa: FBT001 - a parameter
    """Metadata of whoever copied it; the two ways to read see the same bytes."""
    content = gzip.compress(CONTENT)
    with closing(upstream[0].client()) as client:
        client.put_object(Bucket=upstream[1], Key="gz", Body=content, ContentEncoding="gzip")
    store = store_at(upstream[0], upstream[1])
    if not quick:
        store._quick._pause("a test")
    (item,) = store.list("gz")

    assert read(store, item) == content


def test_an_empty_object_is_read_without_a_request(upstream: Upstream) -> None:
    """Servers answer a range of nothing with 200, 206, 416 or 500."""
    with FaultyS3(upstream[0]) as proxy:
        with store_at(proxy, upstream[1]).open("empty", "etag", 0) as stream:
            assert stream.read() == b""
        assert proxy.requests == 0
