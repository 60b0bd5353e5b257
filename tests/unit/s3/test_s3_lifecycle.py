"""Lifecycle rules: which of them delete Currents files."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest
from botocore.stub import Stubber

from currents_bridge.errors import CredentialError, RetryLaterError
from currents_bridge.model import ExpiryRule
from currents_bridge.sources.s3.store import S3ObjectStore
from tests.scripted_server import scripted_server

DAYS_7 = {"Days": 7}
DATE = datetime(2026, 3, 1, tzinfo=UTC)


@pytest.fixture(scope="module")
def store() -> Iterator[S3ObjectStore]:
    """A store that no test lets reach S3."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ACCESS_KEY_ID", "id")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.delenv("AWS_PROFILE", raising=False)
        made = S3ObjectStore("acme", region="us-east-1")
    with closing(made._client):
        yield made


@pytest.fixture
def stub(store: S3ObjectStore) -> Iterator[Stubber]:
    """The answers of S3."""
    with Stubber(store._client) as stub:
        yield stub


@pytest.mark.parametrize(
    ("rule", "read"),
    [
        ({"Expiration": DAYS_7, "Filter": {}}, ExpiryRule("", 7)),
        ({"Expiration": DAYS_7, "Filter": {"Prefix": "braze/"}}, ExpiryRule("braze/", 7)),
        ({"Expiration": {"Date": DATE}, "Filter": {"Prefix": ""}}, ExpiryRule("", on=DATE)),
        ({"Expiration": DAYS_7, "Prefix": "braze/"}, ExpiryRule("braze/", 7)),  # as before 2016
        ({"Expiration": DAYS_7, "Filter": {"ObjectSizeGreaterThan": 9}}, ExpiryRule("", 7)),
        (
            {"Expiration": DAYS_7, "Filter": {"And": {"Prefix": "braze/", "ObjectSizeLessThan": 9}}},
            ExpiryRule("braze/", 7),
        ),
    ],
)
def test_a_rule_that_may_delete_currents_files_is_read(
    store: S3ObjectStore, stub: Stubber, rule: dict[str, Any], read: ExpiryRule
) -> None:
    """Wherever its prefix stands; a file can have any size."""
    stub.add_response("get_bucket_lifecycle_configuration", {"Rules": [{"Status": "Enabled", **rule}]})

    assert store.expiry_rules() == [read]


@pytest.mark.parametrize(
    "rule",
    [
        {"Status": "Disabled", "Expiration": DAYS_7, "Filter": {}},
        {"Expiration": DAYS_7, "Filter": {"Tag": {"Key": "a", "Value": "b"}}},
        {"Expiration": DAYS_7, "Filter": {"And": {"Prefix": "braze/", "Tags": [{"Key": "a", "Value": "b"}]}}},
        {"Expiration": {"ExpiredObjectDeleteMarker": True}, "Filter": {}},
        {"NoncurrentVersionExpiration": {"NoncurrentDays": 7}, "Filter": {}},
        {"Transitions": [{"Days": 7, "StorageClass": "GLACIER"}], "Filter": {}},
        {"AbortIncompleteMultipartUpload": {"DaysAfterInitiation": 7}, "Filter": {}},
        {"Expiration": {"Days": 2**31}, "Filter": {}},
        {"Expiration": {"Days": -5}, "Filter": {}},
        {"Expiration": {"Days": 0}, "Filter": {}},
    ],
)
def test_other_rules_are_left_out(store: S3ObjectStore, stub: Stubber, rule: dict[str, Any]) -> None:
    """Braze writes no tags, what is not current is not read, and some can never delete anything."""
    stub.add_response("get_bucket_lifecycle_configuration", {"Rules": [{"Status": "Enabled", **rule}]})

    assert store.expiry_rules() == []


RULE = b"<LifecycleConfiguration><Rule>%s</Rule></LifecycleConfiguration>"
ENABLED = b"<Status>Enabled</Status><Expiration>%s</Expiration>"


@pytest.mark.parametrize(
    ("body", "rules"),
    [
        (RULE % b"<Expiration><Days>3</Days></Expiration>", [ExpiryRule("", 3)]),
        (RULE % (ENABLED % b"<Days>abc</Days>"), None),
        (RULE % (ENABLED % b"<Days/>"), None),
        (RULE % (ENABLED % b"<Days>1e400</Days>"), None),
        (RULE % (ENABLED % b"<Date>nonsense</Date>"), None),
        (RULE % (ENABLED % b"<Date>99999-01-01T00:00:00Z</Date>"), None),
        (RULE % (ENABLED % b"<Date>9999-12-31T23:59:59-05:00</Date>"), []),
        (RULE % (ENABLED % b"<Date>0001-01-01T00:00:00+05:00</Date>"), []),
        (RULE % (ENABLED % b""), []),
        (b"", None),
        (b"<html>hello</html>", None),
        (b"<LifecycleConfiguration/>", None),
    ],
)
def test_an_odd_answer_is_understood_or_not_known(
    monkeypatch: pytest.MonkeyPatch, body: bytes, rules: list[ExpiryRule] | None
) -> None:
    """A rule without a status counts; what is no configuration is not taken for one without rules."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    answer = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body
    with scripted_server(answer) as (url, _):
        store = S3ObjectStore("acme", region="us-east-1", endpoint_url=url)
        with closing(store._client):
            assert store.expiry_rules() == rules


def test_a_bucket_without_rules_has_none(store: S3ObjectStore, stub: Stubber) -> None:
    """S3 says so by an error."""
    stub.add_client_error("get_bucket_lifecycle_configuration", "NoSuchLifecycleConfiguration", http_status_code=404)

    assert store.expiry_rules() == []


@pytest.mark.parametrize(
    ("code", "status"), [("AccessDenied", 403), ("403", 403), ("MethodNotAllowed", 405), ("NotImplemented", 501)]
)
def test_rules_that_may_not_be_read_are_not_known(store: S3ObjectStore, stub: Stubber, code: str, status: int) -> None:
    """The permission is optional, and other servers than AWS may have no rules."""
    stub.add_client_error("get_bucket_lifecycle_configuration", code, http_status_code=status)

    assert store.expiry_rules() is None


@pytest.mark.parametrize(
    ("code", "status", "error"),
    [
        ("ExpiredToken", 400, CredentialError),
        ("InvalidAccessKeyId", 403, CredentialError),
        ("NoSuchBucket", 404, CredentialError),
        ("404", 404, RetryLaterError),
        ("SlowDown", 503, RetryLaterError),
    ],
)
def test_other_answers_are_errors(
    store: S3ObjectStore, stub: Stubber, code: str, status: int, error: type[Exception]
) -> None:
    """A session that has expired is no missing permission."""
    stub.add_client_error("get_bucket_lifecycle_configuration", code, http_status_code=status)

    with pytest.raises(error, match="cannot read the lifecycle rules of s3://acme/"):
        store.expiry_rules()
