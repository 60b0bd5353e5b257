"""The S3 adapter: what becomes of every failure, without a network."""

import io
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from typing import Any

import pytest
import urllib3
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError
from botocore.response import StreamingBody
from botocore.stub import ANY, Stubber
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.errors import (
    BridgeError,
    CredentialError,
    ObjectChangedError,
    ObjectGoneError,
    OneObjectError,
    RetryLaterError,
    Side,
)
from currents_bridge.network.aws import AwsSetupError
from currents_bridge.network.deadline import TooLateError
from currents_bridge.network.rules import BadNetworkSettingError
from currents_bridge.sources.s3.errors import _BY_CODE, S3_ERRORS, Access, translate
from currents_bridge.sources.s3.store import MAX_BODY_ATTEMPTS, RANGE_TIMEOUT_S, S3ObjectStore

URL = "https://acme.s3.amazonaws.com/?X-Amz-Credential=LEAKED&X-Amz-Signature=LEAKED"


def answer(code: str, status: int = 400, message: str = URL) -> boto.ClientError:
    """Return what botocore raises for an error answer of S3."""
    return boto.ClientError(
        {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item] # the rest of the metadata is not read
        "GetObject",
    )


CREDENTIAL_ERRORS = [
    (answer("AccessDenied", 403), "access denied, s3:GetObject on arn:aws:s3:::acme/a/key.avro is not granted"),
    (answer("AccessDenied", 403, "not authorized to perform: kms:Decrypt on arn"), "the KMS key"),
    (answer("KMS.DisabledException"), "the KMS key"),
    (answer("AllAccessDisabled", 403), "the AWS account is blocked"),
    (answer("AccountProblem", 403), "the AWS account is blocked"),
    (answer("403", 403), "access denied"),
    (answer("401", 401), "access denied"),
    (answer("NeverHeardOf", 403), "access denied"),
    (answer("ExpiredToken"), "session has expired"),
    (answer("ExpiredTokenException"), "session has expired"),
    (answer("TokenRefreshRequired"), "session has expired"),
    (answer("InvalidToken"), "session has expired"),
    (answer("InvalidAccessKeyId", 403), "does not know the access key"),
    (answer("InvalidClientTokenId", 403), "does not know the access key"),
    (answer("UnrecognizedClientException"), "does not know the access key"),
    (answer("SignatureDoesNotMatch", 403), "the secret key does not belong"),
    (answer("PermanentRedirect", 301), "in another region"),
    (answer("301", 301), "in another region"),
    (answer("AuthorizationHeaderMalformed"), "in another region"),
    (answer("IllegalLocationConstraintException"), "in another region"),
    (boto.NoCredentialsError(), "no complete AWS credentials"),
    (boto.PartialCredentialsError(provider="env", cred_var="AWS_SECRET_ACCESS_KEY"), "no complete AWS credentials"),
    (boto.CredentialRetrievalError(provider="sso", error_msg="LEAKED"), "could not be obtained"),
    (boto.TokenRetrievalError(provider="sso", error_msg="LEAKED"), "could not be obtained"),
    (boto.UnauthorizedSSOTokenError(), "could not be obtained"),
    (boto.LoginRefreshRequired(), "could not be obtained"),
    (boto.NoAuthTokenError(), "could not be obtained"),
    (boto.MetadataRetrievalError(error_msg="LEAKED"), "could not be obtained"),
    (boto.RefreshWithMFAUnsupportedError(), "could not be obtained"),
    (boto.ProfileNotFound(profile="acme"), "the AWS configuration"),
    (boto.ConfigNotFound(path="/x"), "the AWS configuration"),
    (boto.ConfigParseError(path="/x"), "the AWS configuration"),
    (boto.InvalidConfigError(error_msg="LEAKED"), "the AWS configuration"),
    (boto.NoRegionError(), "no AWS region is known"),
    (AwsSetupError("the role could not be assumed (Throttling)", "mend the role"), "the role could not be assumed"),
    (answer("NoSuchBucket", 404), "the bucket does not exist"),
    (answer("InvalidBucketName"), "the bucket does not exist"),
    (boto.ParamValidationError(report="LEAKED"), "this cannot be asked of S3"),
    (boto.InvalidRegionError(region_name="LEAKED"), "this cannot be asked of S3"),
    (boto.UnsupportedS3ArnError(arn="LEAKED", msg="LEAKED"), "this cannot be asked of S3"),
]

PASSING_ERRORS = [
    (TooLateError(), "there was no whole answer in time"),
    (boto.HTTPClientError(error=BadNetworkSettingError("HTTPS_PROXY is odd", "mend it")), "HTTPS_PROXY is odd"),
    (answer("TemporaryRedirect", 307), "redirects to another place for now"),
    (answer("307", 307), "redirects to another place for now"),
    (answer("PreconditionFailed", 412), "has changed since it was listed"),
    (answer("412", 412), "has changed since it was listed"),
    (answer("InvalidObjectState", 403), "archived"),
    (answer("InvalidRequest", 400, "stored using a form of Server Side Encryption"), "SSE-C"),
    (answer("InvalidRequest", 400), "the request failed"),
    (answer("InvalidRange", 416), "has changed since it was listed"),
    (answer("302", 302), "redirects to another place"),
    (answer("308", 308), "redirects to another place"),
    (answer("SlowDown", 503), "asks for fewer requests"),
    (answer("ServiceUnavailable", 503), "asks for fewer requests"),
    (answer("TooManyRequests", 429), "asks for fewer requests"),
    (answer("InternalError", 500), "internal error"),
    (answer("BadGateway", 502), "internal error"),
    (answer("504", 504), "did not answer in time"),
    (answer("408", 408), "did not answer in time"),
    (answer("RequestTimeout"), "did not answer in time"),
    (answer("RequestTimeTooSkewed", 403), "the clock of this machine"),
    (answer("NeverHeardOf"), "the request failed (NeverHeardOf)"),
    (boto.ClientError({}, "GetObject"), "the request failed (no code)"),
    (boto.ConnectTimeoutError(endpoint_url=URL), "did not answer in time"),
    (boto.ReadTimeoutError(endpoint_url=URL), "did not answer in time"),
    (boto.SSLError(endpoint_url=URL, error=OSError("LEAKED")), "no trusted TLS connection"),
    (boto.EndpointConnectionError(endpoint_url=URL), "cannot be reached"),
    (boto.ProxyConnectionError(proxy_url=URL), "cannot be reached"),
    (boto.ConnectionClosedError(endpoint_url=URL), "broke off"),
    (boto.ResponseStreamingError(error="LEAKED"), "broke off"),
    (boto.IncompleteReadError(actual_bytes=1, expected_bytes=2), "broke off"),
    (urllib3.exceptions.SSLError("LEAKED"), "broke off"),
    (ResponseParserError("LEAKED"), "not one of S3"),
    (urllib3.exceptions.ProtocolError("LEAKED"), "broke off"),
    (urllib3.exceptions.IncompleteRead(1, 2), "broke off"),
    (urllib3.exceptions.HTTPError("LEAKED"), "broke off"),
    (boto.HTTPClientError(error="LEAKED"), "broke off"),
    (boto.BotoCoreError(), "the request failed (BotoCoreError)"),
    (boto.DataNotFoundError(data_path="LEAKED"), "the request failed (DataNotFoundError)"),
]


GONE_ERRORS = [
    (answer("NoSuchKey", 404), "the object is gone"),
    (answer("404", 404), "the object is gone"),
    (answer("NeverHeardOf", 404), "the object is gone"),
]


def ids(case: object) -> str | None:
    """Name a case for its code or class."""
    if isinstance(case, boto.ClientError):
        return str(case.response.get("Error", {}).get("Code"))
    return type(case).__name__ if isinstance(case, Exception) else None


@pytest.mark.parametrize(("error", "what"), CREDENTIAL_ERRORS, ids=ids)
def test_a_credential_that_does_not_work_is_a_credential_error(error: Exception, what: str) -> None:
    """The connector pauses; the message says what is wrong with the credential."""
    translated = translate(error, Access.READ, "acme", "a/key.avro")

    assert isinstance(translated, CredentialError)
    assert translated.side is Side.SOURCE
    assert_speaks(translated, what)


@pytest.mark.parametrize(("error", "what"), PASSING_ERRORS, ids=ids)
def test_every_other_failure_may_pass(error: Exception, what: str) -> None:
    """The request is made again later, unknown errors included."""
    translated = translate(error, Access.READ, "acme", "a/key.avro")

    assert isinstance(translated, RetryLaterError)
    assert_speaks(translated, what)


@pytest.mark.parametrize(("error", "what"), GONE_ERRORS, ids=ids)
def test_an_object_that_is_not_found_is_gone(error: Exception, what: str) -> None:
    """Trying again would not bring it back; the store asks the listing before it believes it."""
    translated = translate(error, Access.READ, "acme", "a/key.avro")

    assert isinstance(translated, ObjectGoneError)
    assert_speaks(translated, what)


@pytest.mark.parametrize("code", sorted(_BY_CODE))
def test_a_listing_is_never_a_gone_object(code: str) -> None:
    """Whatever the answer says; nothing would be set aside for it."""
    assert not isinstance(translate(answer(code), Access.LIST, "acme", "braze/"), ObjectGoneError)


@pytest.mark.parametrize(
    "error", [answer("InvalidObjectState", 403), answer("InvalidRequest", 400, "a form of Server Side Encryption")]
)
def test_what_is_said_of_one_object_says_nothing_of_the_store(error: Exception) -> None:
    """It is neither an outage nor a failing credential."""
    assert isinstance(translate(error, Access.READ, "acme", "key"), OneObjectError)


@pytest.mark.parametrize("status", [*range(300, 309), *range(400, 430), *range(500, 512), 599])
def test_an_unknown_code_is_understood_by_its_status(status: int) -> None:
    """No status is left out, and only those of permission and of a wrong region pause the connector."""
    translated = translate(answer("NeverHeardOf", status), Access.READ, "acme", "a/key.avro")

    expected = {
        301: CredentialError,
        401: CredentialError,
        403: CredentialError,
        404: ObjectGoneError,
        412: ObjectChangedError,
        416: ObjectChangedError,
    }.get(status, RetryLaterError)
    assert type(translated) is expected


def assert_speaks(translated: BridgeError, what: str) -> None:
    """Check that the error names the object and the failure, and repeats nothing of the vendor's text."""
    assert translated.message.startswith("cannot read s3://acme/a/key.avro: ")
    assert what in translated.message
    assert "{" not in translated.message + translated.hint
    assert "LEAKED" not in translated.message + translated.hint


def test_the_tables_above_hold_every_kind_of_vendor_error() -> None:
    """Whatever the adapter catches has a case."""
    cases = [error for error, _ in CREDENTIAL_ERRORS + PASSING_ERRORS]

    assert all(any(isinstance(case, kind) for case in cases) for kind in S3_ERRORS)


@pytest.mark.parametrize(
    ("access", "name", "what", "missing", "grant"),
    [
        (Access.LIST, "braze/", "list", "s3:ListBucket on arn:aws:s3:::acme", "s3:ListBucket on arn:aws:s3:::acme"),
        (
            Access.READ,
            "a.avro",
            "read",
            "s3:GetObject on arn:aws:s3:::acme/a.avro",
            "s3:GetObject on arn:aws:s3:::acme/*",
        ),
        (
            Access.RULES,
            "",
            "read the lifecycle rules of",
            "s3:GetLifecycleConfiguration on arn:aws:s3:::acme",
            "s3:GetLifecycleConfiguration on arn:aws:s3:::acme",
        ),
    ],
)
def test_a_denial_names_the_permission_and_the_resource(
    access: Access, name: str, what: str, missing: str, grant: str
) -> None:
    """The user learns what to grant, and where."""
    translated = translate(answer("AccessDenied", 403), access, "acme", name)

    assert (
        translated.message == f"cannot {what} s3://acme/{name}: access denied, {missing} is not granted (AccessDenied)"
    )
    assert translated.hint.startswith(f"grant {grant} to the identity that this program runs as")
    assert ("its KMS key" in translated.hint) == (access is Access.READ)


def test_a_denial_says_whom_aws_denied() -> None:
    """Its answer names the caller."""
    who = "arn:aws:sts::123456789012:assumed-role/bridge-reader/i-0abc"
    said = f"User: {who} is not authorized to perform: s3:ListBucket on resource: arn:aws:s3:::acme"
    response: Any = {"Error": {"Code": "AccessDenied", "Message": said}, "ResponseMetadata": {"HTTPStatusCode": 403}}

    translated = translate(boto.ClientError(response, "ListObjectsV2"), Access.LIST, "acme", "")

    assert f"s3:ListBucket on arn:aws:s3:::acme is not granted to {who} (AccessDenied)" in translated.message
    assert translated.hint == f"grant s3:ListBucket on arn:aws:s3:::acme to {who}"


PARTS = st.none() | st.text() | st.integers() | st.dictionaries(st.text(), st.text()) | st.lists(st.text())


@given(
    PARTS | st.fixed_dictionaries({}, optional={"Code": PARTS | st.from_regex(r"\A\d+\Z"), "Message": PARTS}),
    st.sampled_from([0, 200, 403, 404, 503]),
    st.sampled_from(Access),
)
def test_an_error_answer_of_any_shape_has_its_error(parts: Any, status: int, access: Access) -> None:
    """The XML of a server that is none of AWS's may hold anything."""
    response: Any = {"Error": parts, "ResponseMetadata": {"HTTPStatusCode": status}}

    error = translate(
        boto.ClientError({}, "GetObject") if parts is None else _client_error(response), access, "acme", "k"
    )

    assert isinstance(error, CredentialError | ObjectGoneError | RetryLaterError)
    assert len(error.message) < 200


def _client_error(response: Any) -> boto.ClientError:
    """Return an error with that answer; botocore's own text of it needs one that is well formed."""
    error = boto.ClientError({}, "GetObject")
    error.response = response
    return error


def test_a_listing_that_is_not_found_lacks_its_bucket() -> None:
    """A server, or a proxy, that answers only a status may mean the bucket: it is asked again."""
    translated = translate(answer("404", 404), Access.LIST, "acme", "")

    assert isinstance(translated, RetryLaterError)
    assert "the bucket is not found" in translated.message


class TestStore:
    """The store on a client that answers what the test says."""

    @pytest.fixture
    def waits_s(self) -> list[float]:
        """The waits between attempts, in seconds."""
        return []

    @pytest.fixture
    def store(self, monkeypatch: pytest.MonkeyPatch, waits_s: list[float]) -> S3ObjectStore:
        """A store of ranges of 4 bytes that does not really wait."""
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        monkeypatch.delenv("AWS_PROFILE", raising=False)
        store = S3ObjectStore("acme", region="us-east-1", range_bytes=4, sleep=waits_s.append)
        monkeypatch.setattr(store._quick, "read", lambda *_: None)  # the stub is boto3's
        return store

    @pytest.fixture
    def stub(self, store: S3ObjectStore) -> Iterator[Stubber]:
        """The answers of S3, all of which must be asked for."""
        with closing(store._client), Stubber(store._client) as stub:
            yield stub
            stub.assert_no_pending_responses()

    def test_each_range_is_asked_for_under_the_etag(self, store: S3ObjectStore, stub: Stubber) -> None:
        """The ETag goes out in quotes, as HTTP wants it."""
        asked = {"Bucket": "acme", "Key": "key", "IfMatch": '"abc"'}
        stub.add_response("get_object", part(b"1234", "bytes 0-3/6"), {**asked, "Range": "bytes=0-3"})
        stub.add_response("get_object", part(b"56", "bytes 4-5/6"), {**asked, "Range": "bytes=4-7"})

        assert read(store, 6) == b"123456"

    def test_a_body_that_is_cut_off_is_asked_for_again(
        self, store: S3ObjectStore, stub: Stubber, waits_s: list[float]
    ) -> None:
        """A few broken connections cost a wait each and no byte."""
        stub.add_response("get_object", part(b"12", "bytes 0-3/4", announced_bytes=4))
        stub.add_response("get_object", part(b"1234", "bytes 0-3/4"))

        assert read(store) == b"1234"
        assert len(waits_s) == 1

    def test_a_body_that_is_always_cut_off_fails_for_now(self, store: S3ObjectStore, stub: Stubber) -> None:
        """The object waits for a later attempt."""
        for _ in range(MAX_BODY_ATTEMPTS):
            stub.add_response("get_object", part(b"12", "bytes 0-3/4", announced_bytes=4))

        with pytest.raises(RetryLaterError, match="cannot read s3://acme/key: the connection broke off"):
            read(store)

    def test_a_range_shorter_than_it_should_be_counts_as_cut_off(self, store: S3ObjectStore, stub: Stubber) -> None:
        """A proxy that shortens a body and its length is found out."""
        for _ in range(MAX_BODY_ATTEMPTS):
            stub.add_response("get_object", part(b"12", "bytes 0-3/4"))

        with pytest.raises(RetryLaterError, match="the connection broke off"):
            read(store)

    def test_a_server_that_sends_less_than_was_asked_for_is_asked_for_the_rest(
        self, store: S3ObjectStore, stub: Stubber
    ) -> None:
        """A range may be cut, as long as the answer says so."""
        stub.add_response("get_object", part(b"12", "bytes 0-1/4"))
        stub.add_response("get_object", part(b"34", "bytes 2-3/4"))

        assert read(store) == b"1234"

    @pytest.mark.parametrize("told", ["bytes 1-4/5", "bytes 0-9/10", "bytes 3-2/4", "bytes */4", "items 0-3/4"])
    def test_another_range_than_was_asked_for_is_refused(self, store: S3ObjectStore, stub: Stubber, told: str) -> None:
        """The error names the server."""
        stub.add_response("get_object", part(b"1234", told))

        with pytest.raises(RetryLaterError, match=r"the server at https://.* did not send the range"):
            read(store, 10)

    def test_a_body_that_does_not_end_is_not_read_to_its_end(self, store: S3ObjectStore, stub: Stubber) -> None:
        """It would fill the memory; what is beyond the range counts as cut off."""
        bodies = [Endless(b"1" * 1_000_000) for _ in range(MAX_BODY_ATTEMPTS)]
        for body in bodies:
            stub.add_response("get_object", part(b"", "bytes 0-3/4") | {"Body": StreamingBody(body, None)})  # type: ignore[arg-type] # chunked

        with pytest.raises(RetryLaterError, match="the connection broke off"):
            read(store)
        assert all(0 < body.taken < 100_000 for body in bodies)

    def test_an_answer_without_the_range_is_refused(self, store: S3ObjectStore, stub: Stubber) -> None:
        """A server that sends the whole object each time would fill the memory."""
        stub.add_response("get_object", part(b"12345678"))

        with pytest.raises(RetryLaterError, match="did not send the range"):
            read(store, 8)

    def test_a_range_is_not_asked_for_again_after_minutes(
        self, store: S3ObjectStore, stub: Stubber, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What is slow and breaks off would take attempts times timeouts."""
        ticks = count(step=RANGE_TIMEOUT_S / 1.5)
        monkeypatch.setattr(store, "_clock", lambda: next(ticks))
        for _ in range(2):
            stub.add_response("get_object", part(b"12", "bytes 0-3/4"))

        with pytest.raises(RetryLaterError, match="the connection broke off"):
            read(store)

    def test_a_refusal_is_not_asked_for_again(self, store: S3ObjectStore, stub: Stubber, waits_s: list[float]) -> None:
        """Only broken connections are worth another attempt at once."""
        stub.add_client_error("get_object", "AccessDenied", http_status_code=403, expected_params=ANY_PARAMS)

        with pytest.raises(CredentialError, match="s3:GetObject"):
            read(store)
        assert waits_s == []

    def test_a_listing_that_fails_is_translated(self, store: S3ObjectStore, stub: Stubber) -> None:
        """Errors come while the caller goes through the listing."""
        stub.add_client_error("list_objects_v2", "AccessDenied", http_status_code=403)

        with pytest.raises(CredentialError, match="cannot list s3://acme/braze/: access denied, s3:ListBucket") as info:
            list(store.list("braze/"))
        assert isinstance(info.value.__cause__, boto.ClientError)


ANY_PARAMS = {"Bucket": "acme", "Key": "key", "IfMatch": ANY, "Range": ANY}


class Endless(io.BytesIO):
    """A body that counts what is read of it."""

    taken = 0

    def read(self, size: int | None = -1) -> bytes:
        """Return some of it."""
        chunk = super().read(size)
        self.taken += len(chunk)
        return chunk


def part(content: bytes, content_range: str | None = None, announced_bytes: int | None = None) -> dict[str, Any]:
    """Return an answer of S3; `announced_bytes` is its Content-Length where the body is cut off."""
    body = StreamingBody(io.BytesIO(content), announced_bytes or len(content))
    return {"Body": body, "ETag": '"abc"', **({"ContentRange": content_range} if content_range else {})}


def read(store: S3ObjectStore, size_bytes: int = 4) -> bytes:
    """Read the object to its end."""
    with store.open("key", "abc", size_bytes) as stream:
        return stream.read()
