"""Secrets in Secrets Manager and in the Parameter Store, as moto plays them, and what AWS answers besides."""

import json
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from botocore import exceptions as boto
from moto import mock_aws
from moto.core import set_initial_no_auth_action_count

from currents_bridge.config import ConnectorSettings, DestinationSettings, SourceSettings
from currents_bridge.config.aws_secrets import _unreadable
from currents_bridge.config.secrets import SecretReader, connector_write_keys
from currents_bridge.errors import ConfigError

KEY = "abcdefghij0123456789abcdefghij01"
REGION = "eu-west-1"


def read(reference: str, region: str | None = REGION) -> str:
    """Return what a reference stands for; `region` is that of the source."""
    return SecretReader({}).read(reference, "field", region=region).get_secret_value()


def problem(reference: str, region: str | None = REGION) -> str:
    """Return why a reference cannot be read."""
    with pytest.raises(ConfigError) as caught:
        read(reference, region)
    (found,) = caught.value.problems
    assert (found.field, found.source) == ("field", reference)
    return found.why


@pytest.fixture(autouse=True)
def _aws(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Dummy credentials, no region of boto3's own, and no AWS."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    with mock_aws():
        yield


@pytest.fixture
def vault() -> Any:
    """Secrets Manager, of the source's region."""
    return boto3.client("secretsmanager", region_name=REGION)


def test_a_write_key_is_looked_for_in_the_region_of_the_source(vault: Any) -> None:
    """Without a field, the text of the secret is the key."""
    vault.create_secret(Name="prod/key", SecretString=f"{KEY}\n")
    connector = ConnectorSettings(
        name="production",
        source=SourceSettings(bucket="acme", region=REGION),
        destination=DestinationSettings(write_key="aws-secretsmanager:prod/key"),
    )

    (key,) = connector_write_keys(connector, SecretReader({}))

    assert key.get_secret_value() == KEY


def test_a_field_of_a_secret_is_read_by_name_and_by_arn(vault: Any) -> None:
    """The console keeps secrets as JSON objects; an ARN knows its own region."""
    arn = vault.create_secret(Name="prod/segment", SecretString=json.dumps({"write key": KEY}))["ARN"]

    for identity, region in (("prod/segment", REGION), (arn, "us-east-1")):
        assert read(f"aws-secretsmanager:{identity}#write key", region) == KEY


def test_a_parameter_is_decrypted() -> None:
    """A SecureString comes as what it stands for."""
    boto3.client("ssm", region_name=REGION).put_parameter(Name="/prod/key", Value=KEY, Type="SecureString")

    assert read("aws-ssm:/prod/key") == KEY


def test_the_region_of_the_aws_configuration_goes_before_that_of_the_source(
    vault: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Secrets need not be where the bucket is."""
    vault.create_secret(Name="a", SecretString=KEY)
    monkeypatch.setenv("AWS_DEFAULT_REGION", REGION)

    assert read("aws-secretsmanager:a", "us-east-1") == KEY


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (f"{KEY}", "is no JSON object, so it has no fields"),
        (json.dumps([KEY]), "is no JSON object, so it has no fields"),
        (json.dumps({"other": KEY}), "has no field key"),
        (json.dumps({"key": {"inner": KEY}}), "its field key is no text"),
        (json.dumps({"key": ""}), "is empty"),
        (json.dumps({"key": f"{KEY} {KEY}"}), "holds more than one word"),
    ],
)
def test_a_secret_without_the_field_is_a_problem_that_shows_nothing_of_it(vault: Any, text: str, why: str) -> None:
    """Neither the value nor the names of its other fields."""
    vault.create_secret(Name="a", SecretString=text)

    assert problem("aws-secretsmanager:a#key") == why


def test_a_binary_secret_is_a_problem(vault: Any) -> None:
    """A write key is text."""
    vault.create_secret(Name="a", SecretBinary=KEY.encode())

    assert problem("aws-secretsmanager:a") == "is binary, not text"


@pytest.mark.parametrize(
    ("reference", "what"),
    [("aws-secretsmanager:none", "secret none"), ("aws-ssm:/none", "parameter /none")],
)
def test_a_secret_that_is_not_there_is_a_problem(reference: str, what: str) -> None:
    """The line says where it was looked for."""
    assert problem(reference).startswith(f"cannot be read: there is no {what} in this account and region (")


@pytest.mark.parametrize(
    ("reference", "grant"),
    [
        ("aws-secretsmanager:a#key", "secretsmanager:GetSecretValue is not granted on secret a"),
        ("aws-ssm:/a", "ssm:GetParameter is not granted on parameter /a"),
    ],
)
def test_a_denial_names_the_permission_and_the_resource(
    monkeypatch: pytest.MonkeyPatch, reference: str, grant: str
) -> None:
    """The reader knows what to grant."""
    iam = boto3.client("iam")
    iam.create_user(UserName="bridge")
    key = iam.create_access_key(UserName="bridge")["AccessKey"]
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])

    @set_initial_no_auth_action_count(0)  # moto asks for permissions
    def denied() -> str:
        return problem(reference)

    assert denied() == f"cannot be read: {grant} (403)"  # AWS itself says AccessDeniedException


def test_no_region_at_all_is_a_problem() -> None:
    """There is a remedy."""
    assert problem("aws-ssm:/a", region=None) == (
        "cannot be read: no AWS region is known (NoRegionError); set AWS_DEFAULT_REGION"
    )


def test_an_unknown_profile_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is wrong before the request is translated, too."""
    monkeypatch.setenv("AWS_PROFILE", "none")

    assert problem("aws-ssm:/a").startswith("cannot be read: the AWS configuration cannot be used (ProfileNotFound); ")


@pytest.mark.parametrize(
    ("code", "message", "why"),
    [
        ("AccessDeniedException", "Access to KMS is not allowed", "kms:Decrypt is not granted on the key of secret a"),
        (
            "AccessDeniedException",
            "perform: kms:Decrypt on LEAKED",
            "kms:Decrypt is not granted on the key of secret a",
        ),
        ("ExpiredTokenException", "LEAKED", "AWS does not take the credentials of this program"),
        ("UnrecognizedClientException", "LEAKED", "AWS does not take the credentials of this program"),
        ("ThrottlingException", "LEAKED", "AWS does not give it"),
    ],
)
def test_an_answer_of_aws_is_told_in_our_words(code: str, message: str, why: str) -> None:
    """Its code stands behind them; its text may hold anything."""
    error = boto.ClientError({"Error": {"Code": code, "Message": message}}, "GetSecretValue")

    found = _unreadable(error, "secretsmanager:GetSecretValue", "secret a")

    assert str(found) == f"cannot be read: {why} ({code})"


@pytest.mark.parametrize(
    ("error", "why"),
    [
        (boto.NoCredentialsError(), "no complete AWS credentials were found (NoCredentialsError)"),
        (boto.ConnectTimeoutError(endpoint_url="LEAKED"), "AWS cannot be asked (ConnectTimeoutError)"),
        (boto.ClientError({}, "GetSecretValue"), "AWS cannot be asked (ClientError)"),
    ],
)
def test_what_keeps_aws_from_answering_is_told(error: Exception, why: str) -> None:
    """By its kind."""
    assert str(_unreadable(error, "ssm:GetParameter", "parameter a")).startswith(f"cannot be read: {why}")
