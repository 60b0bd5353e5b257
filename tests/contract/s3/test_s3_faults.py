"""The S3 adapter behind a proxy that does to it what networks and S3 do on a bad day."""

import os
from collections.abc import Iterable
from contextlib import closing, suppress
from itertools import count, repeat
from typing import Any

import obstore
import pytest
from botocore.config import Config
from obstore.store import S3Store

from currents_bridge.errors import CredentialError, ObjectGoneError, RetryLaterError
from currents_bridge.sources.s3.obstore_ranges import PAUSE_S
from currents_bridge.sources.s3.store import MAX_BODY_ATTEMPTS, S3ObjectStore
from currents_bridge.testing.embedded_s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Endpoint
from currents_bridge.testing.faulty_s3 import PASSING, FaultyS3, S3Fault, seeded_faults

CONTENT = bytes(n * n % 251 for n in range(5_000))
QUICK = 1  # request of the quick way, before boto3 is asked
ATTEMPTS = 3  # of a request, by botocore


@pytest.fixture
def upstream(embedded_s3: S3Endpoint, monkeypatch: pytest.MonkeyPatch) -> tuple[S3Endpoint, str, str]:
    """A healthy server, a bucket of it with the object `object`, and the object's ETag."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    monkeypatch.setattr("botocore.retries.standard.time.sleep", lambda _: None)  # botocore takes no clock
    bucket = f"faulty-{next(_NUMBERS)}"
    embedded_s3.make_bucket(bucket)
    with closing(embedded_s3.client()) as client:
        etag = client.put_object(Bucket=bucket, Key="object", Body=CONTENT)["ETag"].strip('"')
    return embedded_s3, bucket, etag


_NUMBERS = count()


def store_of(proxy: FaultyS3, bucket: str, read_timeout_s: float = 5.0) -> S3ObjectStore:
    """Return the adapter behind the proxy; it does not wait between attempts."""
    config = Config(proxies={}, read_timeout=read_timeout_s)
    return S3ObjectStore(
        bucket,
        region=REGION,
        endpoint_url=proxy.url,
        config=config,
        range_bytes=1_000,
        quick_timeout_s=read_timeout_s,
        sleep=lambda _: None,
    )


def read(upstream: tuple[S3Endpoint, str, str], faults: Iterable[S3Fault | None]) -> tuple[bytes, FaultyS3]:
    """Read the object through a proxy with these faults."""
    server, bucket, etag = upstream
    with (
        FaultyS3(server, faults, slow_s=2.0) as proxy,
        store_of(proxy, bucket, read_timeout_s=0.3).open("object", etag, len(CONTENT)) as stream,
    ):
        return stream.read(), proxy


@pytest.mark.parametrize(
    "fault", [S3Fault.SLOW_DOWN, S3Fault.INTERNAL_ERROR, S3Fault.CLOSED, S3Fault.CUT, S3Fault.SHORT]
)
def test_a_fault_that_passes_costs_a_request_and_no_byte(upstream: tuple[S3Endpoint, str, str], fault: S3Fault) -> None:
    """In the middle of an object, too."""
    content, proxy = read(upstream, [None, fault, None])

    assert content == CONTENT
    assert proxy.served[fault] == 1
    assert proxy.requests == 6


@pytest.mark.parametrize(
    ("fault", "requests", "what"),
    [
        (S3Fault.SLOW_DOWN, QUICK + ATTEMPTS, "asks for fewer requests"),
        (S3Fault.INTERNAL_ERROR, QUICK + ATTEMPTS, "internal error"),
        (S3Fault.CLOSED, QUICK + ATTEMPTS, "broke off"),
        (S3Fault.CUT, QUICK + MAX_BODY_ATTEMPTS, "broke off"),
        (S3Fault.SHORT, QUICK + MAX_BODY_ATTEMPTS, "broke off"),
        (S3Fault.SLOW, QUICK + 1, "did not answer in time"),
    ],
)
def test_a_fault_that_lasts_is_tried_a_few_times_in_a_pass(
    upstream: tuple[S3Endpoint, str, str], fault: S3Fault, requests: int, what: str
) -> None:
    """Then the object waits for a later pass, and the others go on."""
    server, bucket, etag = upstream
    with (
        FaultyS3(server, repeat(fault), slow_s=2.0) as proxy,
        store_of(proxy, bucket, read_timeout_s=0.3).open("object", etag, len(CONTENT)) as stream,
        pytest.raises(RetryLaterError, match=what),
    ):
        stream.read()
    assert proxy.requests == requests


def test_a_wrong_clock_is_named(upstream: tuple[S3Endpoint, str, str]) -> None:
    """It is no bad credential: all is kept until the clock is right."""
    with pytest.raises(RetryLaterError, match="the clock of this machine is wrong"):
        read(upstream, repeat(S3Fault.CLOCK_SKEW))


def test_an_object_that_is_deleted_while_it_is_read_is_gone(upstream: tuple[S3Endpoint, str, str]) -> None:
    """Asking again would not bring it back."""
    server, bucket, etag = upstream
    with FaultyS3(server, []) as proxy, closing(server.client()) as client:
        with store_of(proxy, bucket).open("object", etag, len(CONTENT)) as stream:
            assert stream.read(10) == CONTENT[:10]
            client.delete_object(Bucket=bucket, Key="object")
            with pytest.raises(ObjectGoneError, match="object: the object is gone"):
                stream.read()
        assert proxy.requests == 3 + QUICK  # one range, none, and the listing that confirms it


def test_an_object_that_is_not_found_but_listed_is_not_gone(upstream: tuple[S3Endpoint, str, str]) -> None:
    """Else a server that answers 404 to everything would have every object set aside."""
    with pytest.raises(RetryLaterError, match="is listed and yet not found"):
        read(upstream, [S3Fault.GONE] * (QUICK + 1))


@pytest.mark.parametrize(
    ("fault", "requests"),
    [(S3Fault.SLOW_DOWN, 2), (S3Fault.INTERNAL_ERROR, 2), (S3Fault.CLOSED, 2), (S3Fault.CUT, 2)],
)
def test_a_listing_gets_over_a_fault(upstream: tuple[S3Endpoint, str, str], fault: S3Fault, requests: int) -> None:
    """An answer that breaks off is no short listing."""
    server, bucket, _ = upstream
    with FaultyS3(server, [fault]) as proxy:
        assert [item.key for item in store_of(proxy, bucket).list("")] == ["object"]
        assert proxy.requests == requests


@pytest.mark.parametrize("fault", PASSING)
def test_a_listing_fails_where_a_fault_lasts(upstream: tuple[S3Endpoint, str, str], fault: S3Fault) -> None:
    """It never looks like an empty or a shorter one."""
    server, bucket, _ = upstream
    with FaultyS3(server, repeat(fault), slow_s=2.0) as proxy, pytest.raises(RetryLaterError):
        list(store_of(proxy, bucket, read_timeout_s=0.3).list(""))


def test_reading_on_a_bad_day_gives_the_whole_object_or_an_error(upstream: tuple[S3Endpoint, str, str]) -> None:
    """Whatever the order of the faults, no byte is wrong and none is missing."""
    server, bucket, etag = upstream
    kinds = [S3Fault.SLOW_DOWN, S3Fault.INTERNAL_ERROR, S3Fault.CLOSED, S3Fault.CUT, S3Fault.SHORT]
    whole = 0
    with FaultyS3(server, seeded_faults(3, 0.3, kinds)) as proxy:
        store = store_of(proxy, bucket)
        for _ in range(20):
            try:
                with store.open("object", etag, len(CONTENT)) as stream:
                    assert stream.read() == CONTENT
                whole += 1
            except RetryLaterError:
                pass
    assert whole > 10
    assert set(proxy.served) == set(kinds)


@pytest.fixture
def quick_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The keys that were asked for the quick way."""
    keys: list[str] = []

    def get(store: S3Store, key: str, *, options: Any) -> Any:
        keys.append(key)
        return obstore_get(store, key, options=options)

    obstore_get = obstore.get
    monkeypatch.setattr("obstore.get", get)
    return keys


def test_on_a_good_day_boto3_reads_nothing(
    upstream: tuple[S3Endpoint, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick way takes one request for a range."""
    server, bucket, etag = upstream
    with FaultyS3(server, []) as proxy:
        store = store_of(proxy, bucket)
        monkeypatch.setattr(store, "_fetch_by_boto3", None)
        with store.open("object", etag, len(CONTENT)) as stream:
            assert stream.read() == CONTENT
        assert proxy.requests == 5


def test_after_a_fault_boto3_reads_for_a_while(
    upstream: tuple[S3Endpoint, str, str], quick_reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows how to wait, and a server that the quick way cannot read gets no second request for each object."""
    server, bucket, etag = upstream
    now_s = [0.0]
    with FaultyS3(server, [S3Fault.SLOW_DOWN]) as proxy:
        store = store_of(proxy, bucket)
        monkeypatch.setattr(store._quick, "_clock", lambda: now_s[0])
        for now_s[0], asked in ((0.0, 1), (PAUSE_S - 1, 1), (PAUSE_S, 6)):
            with store.open("object", etag, len(CONTENT)) as stream:
                assert stream.read() == CONTENT
            assert len(quick_reads) == asked


def test_what_is_wrong_with_one_object_slows_no_other(
    upstream: tuple[S3Endpoint, str, str], quick_reads: list[str]
) -> None:
    """An object that is gone or has changed says nothing about the next one."""
    server, bucket, etag = upstream
    with FaultyS3(server, []) as proxy:
        store = store_of(proxy, bucket)
        for key, its_etag in (("none", etag), ("object", "other"), ("object", etag)):
            with store.open(key, its_etag, len(CONTENT)) as stream, suppress(ObjectGoneError, RetryLaterError):
                stream.read()

    assert quick_reads == ["none", "object", *["object"] * 5]


def test_without_credentials_nothing_is_sent(
    upstream: tuple[S3Endpoint, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The quick way has no other chain of credentials than boto3."""
    server, bucket, etag = upstream
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    with FaultyS3(server, []) as proxy:
        with store_of(proxy, bucket).open("object", etag, len(CONTENT)) as stream, pytest.raises(CredentialError):
            stream.read()
        assert proxy.requests == 0


def test_one_seed_gives_one_schedule() -> None:
    """A failure can be had again."""
    first, second = (list(zip(range(50), seeded_faults(7, 0.5), strict=False)) for _ in range(2))
    assert first == second
    assert {fault for _, fault in first} > {None}
