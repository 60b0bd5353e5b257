"""The S3 adapter: what is read from the answer to a LIST, without a network."""

import io
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.awsrequest import AWSPreparedRequest, AWSResponse
from botocore.compat import HTTPHeaders
from botocore.config import Config

from currents_bridge.adapters.s3 import S3ObjectStore
from currents_bridge.errors import RetryLaterError
from currents_bridge.model import ListedObject

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
    """Return a store whose requests, made once each, get these bodies in turn, each with status 200."""
    config = Config(retries={"total_max_attempts": 1})
    store = S3ObjectStore("acme", region="us-east-1", endpoint_url="http://127.0.0.1:9", config=config)
    waiting = iter(bodies)

    def answer(request: AWSPreparedRequest, **_: Any) -> AWSResponse:
        return AWSResponse(request.url, 200, HTTPHeaders(), Body(next(waiting).encode()))

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
