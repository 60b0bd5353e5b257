"""The S3 adapter: what is read whole of a server's answers is bounded."""

from contextlib import closing

import pytest
from botocore.config import Config

from currents_bridge.errors import RetryLaterError
from currents_bridge.sources.s3 import bounds
from currents_bridge.sources.s3.store import S3ObjectStore
from currents_bridge.testing.loopback import Answer, LoopbackServer

BOMB = (
    '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>'
    "<ListBucketResult><Prefix>&b;</Prefix></ListBucketResult>"
)
EMPTY = "<ListBucketResult><IsTruncated>false</IsTruncated></ListBucketResult>"


@pytest.fixture(autouse=True)
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sign requests with something."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")


def store_at(server: LoopbackServer) -> S3ObjectStore:
    """Return an adapter that makes each request once."""
    config = Config(retries={"total_max_attempts": 1}, proxies={})
    return S3ObjectStore("acme", region="us-east-1", endpoint_url=server.url, config=config, sleep=lambda _: None)


@pytest.mark.parametrize("status", [200, 403, 500])
@pytest.mark.parametrize(
    ("body", "what"),
    [("x" * 2_000, "sends a listing or an error of more than 1,000 bytes"), (BOMB, "XML that defines entities")],
    ids=["long", "entities"],
)
def test_an_answer_that_is_read_whole_is_bounded(
    status: int, body: str, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing, an error of one, and an error of an object; the message names the server."""
    monkeypatch.setattr(bounds, "MAX_ANSWER_BYTES", 1_000)
    with closing(LoopbackServer(lambda _: Answer(status, body=body), "long")) as server:
        store = store_at(server)
        with pytest.raises(RetryLaterError, match=what) as raised:
            list(store.list(""))
        assert server.url in raised.value.message
        if status != 200:
            with store.open("key", "etag", 5) as stream, pytest.raises(RetryLaterError, match=what):
                stream.read()


def test_a_connection_is_used_again_for_the_next_page() -> None:
    """A new one for each takes a TLS handshake."""
    with closing(LoopbackServer(lambda _: Answer(body=EMPTY), "listing")) as server:
        store = store_at(server)
        for _ in range(3):
            assert list(store.list("")) == []
        assert len(server._open) == 1
