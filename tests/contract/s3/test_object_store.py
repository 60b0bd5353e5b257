"""What every object store does: the fake, and the S3 adapter on moto and on a real S3 server."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import TYPE_CHECKING, BinaryIO

import pytest
from botocore.config import Config

from currents_bridge.errors import BridgeError, CredentialError, ObjectGoneError, RetryLaterError
from currents_bridge.model import ExpiryRule, ListedObject
from currents_bridge.ports import ObjectStore
from currents_bridge.sources.discovery import Source, discover
from currents_bridge.sources.s3.store import S3ObjectStore
from currents_bridge.testing.embedded_s3 import ACCESS_KEY, REGION, SECRET_KEY, S3Endpoint
from currents_bridge.testing.fake_store import FakeObjectStore
from tests.ledgers import LedgerOnFile

if TYPE_CHECKING:
    from mypy_boto3_s3.type_defs import LifecycleExpirationTypeDef, LifecycleRuleTypeDef

RANGE_BYTES = 1_000
ODD_KEYS = ["a+b=c/d e.avro", "a+b=c/%2B.avro", "a+b=c/ü→.avro", "a+b=c/&?#'\".avro"]


@dataclass(frozen=True)
class Bucket:
    """A store under test, and the ways to change what it reads."""

    store: ObjectStore
    put: Callable[[str, bytes], object]
    delete: Callable[[str], object]
    put_rules: Callable[[Sequence[ExpiryRule]], object]

    def listed(self, key: str) -> ListedObject:
        """Return an object as listed."""
        return next(item for item in self.store.list(key) if item.key == key)

    def open(self, item: ListedObject) -> BinaryIO:
        """Open an object."""
        return self.store.open(item.key, item.etag, item.size_bytes)

    def read(self, item: ListedObject) -> bytes:
        """Return the whole object."""
        with self.open(item) as stream:
            return stream.read()


@pytest.fixture(params=["fake", "moto", "weed"])
def server(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> S3Endpoint | None:
    """The server behind the store; None: the fake needs none."""
    fixture = {"fake": None, "moto": "embedded_s3", "weed": "weed_s3"}[request.param]
    server = request.getfixturevalue(fixture) if fixture else None
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)  # after weed has started, which would take it for its own
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    return server


@pytest.fixture
def bucket(server: S3Endpoint | None) -> Iterator[Bucket]:
    """An empty bucket."""
    if server is None:
        fake = FakeObjectStore()
        yield Bucket(fake, fake.put, fake.delete, lambda rules: setattr(fake, "rules", rules))
        return
    name = f"object-store-{next(_NUMBERS)}"
    server.make_bucket(name)
    with closing(server.client()) as client:
        yield Bucket(
            open_store(server, name),
            lambda key, content: client.put_object(Bucket=name, Key=key, Body=content),
            lambda key: client.delete_object(Bucket=name, Key=key),
            lambda rules: client.put_bucket_lifecycle_configuration(
                Bucket=name, LifecycleConfiguration={"Rules": [expiring(rule) for rule in rules]}
            ),
        )


_NUMBERS = count()


def expiring(rule: ExpiryRule) -> "LifecycleRuleTypeDef":
    """Return a rule as S3 takes it."""
    expiration: LifecycleExpirationTypeDef = {"Days": rule.days} if rule.days else {"Date": rule.on or ""}
    return {"ID": rule.prefix, "Status": "Enabled", "Filter": {"Prefix": rule.prefix}, "Expiration": expiration}


def open_store(server: S3Endpoint, bucket: str) -> S3ObjectStore:
    """Return the adapter, with ranges so small that tests read several."""
    return S3ObjectStore(
        bucket, region=REGION, endpoint_url=server.url, config=Config(proxies={}), range_bytes=RANGE_BYTES
    )


def test_a_listing_goes_on_after_a_thousand_keys(bucket: Bucket) -> None:
    """Everything is listed, in key order, however many answers it takes."""
    keys = [f"many/{n:04}" for n in range(1_005)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: bucket.put(key, b"x"), keys))

    assert [item.key for item in bucket.store.list("many/")] == keys


def test_a_listing_tells_etag_size_and_time(bucket: Bucket) -> None:
    """The ETag comes without quotes, the time aware and in UTC."""
    bucket.put("a", b"12345")

    (item,) = bucket.store.list("")

    assert item.etag
    assert '"' not in item.etag
    assert item.size_bytes == 5
    assert item.last_modified.utcoffset() == timedelta(0)
    assert item.last_modified <= datetime.now(UTC) + timedelta(minutes=1)


def test_a_listing_holds_only_keys_after_the_given_one(bucket: Bucket) -> None:
    """`start_after` may be a key, or lie between keys or folders."""
    for key in ("t/date=01/x", "t/date=02/x", "t/date=02/y", "t/date=03/x", "u/x"):
        bucket.put(key, b"x")

    assert [item.key for item in bucket.store.list("t/", "t/date=010")] == ["t/date=02/x", "t/date=02/y", "t/date=03/x"]
    assert [item.key for item in bucket.store.list("t/", "t/date=02/x")] == ["t/date=02/y", "t/date=03/x"]
    assert list(bucket.store.list("t/", "t/date=030")) == []


def test_a_listing_that_changes_while_it_is_read_misses_nothing_that_stays(bucket: Bucket) -> None:
    """Objects come and go behind, at and before the place where the listing stands."""
    keys = [f"many/{n:04}" for n in range(1_200)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda key: bucket.put(key, b"x"), keys))
    gone = {"many/0000", "many/0999", "many/1000", "many/1001", "many/1100"}
    listed: list[str] = []
    for item in bucket.store.list("many/"):
        listed.append(item.key)
        if len(listed) == 500:  # within the first page
            for key in gone:
                bucket.delete(key)
            for key in ("many/0000a", "many/0998a", "many/1000a", "many/9999"):
                bucket.put(key, b"x")

    assert set(listed) >= set(keys) - gone
    assert len(listed) == len(set(listed))


def test_folders_are_told_from_objects(bucket: Bucket) -> None:
    """One level down, in key order, without what lies deeper."""
    for key in ("p/b/x", "p/a/x", "p/a/y/z", "p/file", "q/x", "top"):
        bucket.put(key, b"x")

    folders, objects = bucket.store.folders("p/")
    top_folders, top_objects = bucket.store.folders("")

    assert (folders, [item.key for item in objects]) == (["p/a/", "p/b/"], ["p/file"])
    assert (top_folders, [item.key for item in top_objects]) == (["p/", "q/"], ["top"])


def test_a_prefix_without_objects_is_empty(bucket: Bucket) -> None:
    """Nothing there is no error."""
    assert bucket.store.folders("none/") == ([], [])
    assert list(bucket.store.list("none/")) == []


@pytest.mark.parametrize("size_bytes", [0, 1, RANGE_BYTES - 1, RANGE_BYTES, RANGE_BYTES + 1, 3 * RANGE_BYTES + 7])
def test_an_object_is_read_exactly(bucket: Bucket, size_bytes: int) -> None:
    """Every byte once, in order, whether it takes one range or several."""
    content = bytes(n * n % 251 for n in range(size_bytes))
    bucket.put("object", content)

    assert bucket.read(bucket.listed("object")) == content


def test_an_object_can_be_read_in_small_steps(bucket: Bucket) -> None:
    """The stream goes forwards only; its end is an empty read."""
    content = bytes(n % 251 for n in range(2 * RANGE_BYTES + 1))
    bucket.put("object", content)

    with bucket.open(bucket.listed("object")) as stream:
        assert not stream.seekable()
        assert b"".join(iter(lambda: stream.read(7), b"")) == content


def test_an_object_that_changed_is_not_read(bucket: Bucket) -> None:
    """The content belongs to the ETag, or there is none."""
    bucket.put("object", b"first")
    listed = bucket.listed("object")
    bucket.put("object", b"second")

    with pytest.raises(RetryLaterError, match="object"):
        bucket.read(listed)


def test_an_object_that_is_gone_is_not_read(bucket: Bucket) -> None:
    """The error names the object, and is one that trying again does not mend."""
    bucket.put("object", b"first")
    listed = bucket.listed("object")
    bucket.delete("object")

    with pytest.raises(ObjectGoneError, match="object"):
        bucket.read(listed)


@pytest.mark.parametrize("key", ODD_KEYS)
def test_keys_with_special_characters_are_listed_and_read(bucket: Bucket, key: str) -> None:
    """A key comes back as it was written, and opens its own object."""
    bucket.put(key, key.encode())

    assert [item.key for item in bucket.store.list("a+b=c/")] == [key]
    assert [item.key for item in bucket.store.folders("a+b=c/")[1]] == [key]
    assert bucket.store.folders("")[0] == ["a+b=c/"]
    assert bucket.read(bucket.listed(key)) == key.encode()


def test_a_missing_bucket_is_a_mistake(server: S3Endpoint | None) -> None:
    """Every method fails, and listings say why."""
    store: ObjectStore = FakeObjectStore(exists=False) if server is None else open_store(server, "no-such-bucket")

    with pytest.raises(CredentialError, match="bucket does not exist"):
        store.folders("")
    with pytest.raises(CredentialError, match="bucket does not exist"):
        list(store.list(""))
    with pytest.raises(CredentialError, match="bucket does not exist"):
        store.expiry_rules()
    with pytest.raises(BridgeError), store.open("key", "etag", 1) as stream:
        stream.read()


def test_a_bucket_without_lifecycle_rules_has_none(bucket: Bucket) -> None:
    """That is known, unlike the rules of a bucket that does not show them."""
    rules = bucket.store.expiry_rules()

    assert rules is not None
    assert len(rules) == 0


def test_the_rules_that_delete_objects_are_read(bucket: Bucket) -> None:
    """By days, and by a date."""
    rules = [ExpiryRule("braze/", days=30), ExpiryRule("logs/", on=datetime(2030, 1, 1, tzinfo=UTC))]
    bucket.put_rules(rules)

    assert sorted(bucket.store.expiry_rules() or (), key=lambda rule: rule.prefix) == rules


def test_discovery_lists_whole_hours(bucket: Bucket) -> None:
    """The first hour is not skipped, and the end is not listed, on servers that sort by folders too."""
    stem = "dataexport.prod-01.S3.integration.aaa"
    for hour in ("16", "17", "18", "19"):
        bucket.put(f"{stem}/event_type=Open/date=2024-03-09-{hour}/12/zone/{stem}+0+1.avro", b"x")
    source = Source(bucket.store, LedgerOnFile(), "production", "", frozenset, frozenset({"Open"}))
    first, end = datetime(2024, 3, 9, 17, tzinfo=UTC), datetime(2024, 3, 9, 19, tzinfo=UTC)

    assert discover(source, lambda _: [(first, end)], end).discovered == 2


@pytest.mark.parametrize("server", ["moto", "weed"], indirect=True)
def test_an_object_that_changes_while_it_is_read_breaks_the_reading(bucket: Bucket) -> None:
    """No stream mixes two versions of an object."""
    bucket.put("object", b"a" * 3 * RANGE_BYTES)
    with bucket.open(bucket.listed("object")) as stream:
        assert stream.read(1) == b"a"
        bucket.put("object", b"b" * 3 * RANGE_BYTES)

        with pytest.raises(RetryLaterError, match="has changed"):
            stream.read()


def test_a_second_store_reads_no_description_of_s3_again() -> None:
    """They take 12 MB, and a program may have many connectors."""
    nobody = S3Endpoint("http://127.0.0.1:9")
    open_store(nobody, "one")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("botocore.loaders.JSONFileLoader.load_file", None)
        open_store(nobody, "two")
