"""Interim answers of an S3 server, or of what stands before it."""

import pytest

from currents_bridge.sources.s3.store import S3ObjectStore
from currents_bridge.testing.embedded_s3 import ACCESS_KEY, SECRET_KEY
from tests.scripted_server import scripted_server


def listing(key: str) -> bytes:
    """Return an answer to LIST with one key, after an interim one."""
    xml = f"""<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>b</Name>
    <Prefix>{key}</Prefix><MaxKeys>1000</MaxKeys><KeyCount>1</KeyCount><IsTruncated>false</IsTruncated>
    <Contents><Key>{key}</Key><Size>1</Size><ETag>"e"</ETag><LastModified>2026-01-02T03:04:05Z</LastModified></Contents>
    </ListBucketResult>""".encode()
    return b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(xml), xml)


def test_a_listing_gets_its_own_answer_behind_an_interim_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that of the listing before it."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.delenv("AWS_PROFILE", raising=False)

    with scripted_server(listing("a"), listing("b")) as (url, _):
        store = S3ObjectStore("b", region="us-east-1", endpoint_url=url)
        found = [[item.key for item in store.list(prefix)] for prefix in ("a", "b")]
        store._client.close()

    assert found == [["a"], ["b"]]
