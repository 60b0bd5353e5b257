"""The S3 servers that other tests stand on."""

import pytest
from botocore.exceptions import ClientError

from currents_bridge.testing.embedded_s3 import S3Endpoint


@pytest.fixture(params=["embedded_s3", "weed_s3"])
def server(request: pytest.FixtureRequest) -> S3Endpoint:
    """Each server in turn."""
    endpoint: S3Endpoint = request.getfixturevalue(request.param)
    return endpoint


def test_objects_come_back_as_they_were_put(server: S3Endpoint) -> None:
    """A Currents key, with its `=` and `+`, keeps its bytes, and an object can be replaced and read in ranges."""
    server.make_bucket("smoke")
    s3 = server.client()
    key = "p/event_type=users.messages.email.Click/date=2026-01-02-03/version=1/dataexport+0+0.avro"
    s3.put_object(Bucket="smoke", Key=key, Body=b"old")
    s3.put_object(Bucket="smoke", Key=key, Body=b"0123456789")

    listed = s3.list_objects_v2(Bucket="smoke", Prefix="p/", Delimiter="/")

    assert [p["Prefix"] for p in listed["CommonPrefixes"]] == ["p/event_type=users.messages.email.Click/"]
    assert [o["Key"] for o in s3.list_objects_v2(Bucket="smoke")["Contents"]] == [key]
    assert s3.get_object(Bucket="smoke", Key=key, Range="bytes=2-4")["Body"].read() == b"234"


def test_a_missing_bucket_is_an_error(server: S3Endpoint) -> None:
    """Nothing is created by the way."""
    with pytest.raises(ClientError, match="NoSuchBucket"):
        server.client().put_object(Bucket="absent", Key="k", Body=b"")
