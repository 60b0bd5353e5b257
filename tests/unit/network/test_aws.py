"""AWS credentials that cannot be had: whatever goes wrong is one kind of error, and says nothing secret."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from currents_bridge.errors import CredentialError, Side
from currents_bridge.sources.s3.store import S3ObjectStore

NOBODY = "http://127.0.0.1:9"  # is never asked: there are no credentials to ask with

Setup = Callable[[pytest.MonkeyPatch, Path], None]


def process(command: str) -> Setup:
    """Return what has a program give the credentials."""

    def set_up(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        config = folder / "config"
        config.write_text(f"[default]\ncredential_process = {command}\n")
        monkeypatch.setenv("AWS_CONFIG_FILE", str(config))

    return set_up


def variables(**values: str) -> Setup:
    """Return what sets these, `FOLDER` being a folder that exists."""

    def set_up(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
        for name, value in values.items():
            monkeypatch.setenv(name, value.replace("FOLDER", str(folder)))

    return set_up


ROLE = {"AWS_ROLE_ARN": "arn:aws:iam::123456789012:role/bridge", "AWS_DEFAULT_REGION": "us-east-1"}
OLD = json.dumps({"Version": 1, "AccessKeyId": "LEAKED"})


@pytest.mark.parametrize(
    ("set_up", "told"),
    [
        (process("echo LEAKED"), "what should give AWS credentials cannot be understood"),
        (process(f"echo '{OLD}'"), "AWS credentials could not be obtained"),
        (process("sh -c 'echo LEAKED >&2; exit 3'"), "AWS credentials could not be obtained"),
        (process("/no/such/program"), "AWS credentials need /no/such/program, which cannot be used"),
        (variables(AWS_WEB_IDENTITY_TOKEN_FILE="FOLDER/gone", **ROLE), "gone, which cannot be used: No such file"),
        (variables(AWS_WEB_IDENTITY_TOKEN_FILE="FOLDER", **ROLE), "which cannot be used: Is a directory"),
        (variables(AWS_PROFILE="gone"), "the AWS configuration cannot be used (ProfileNotFound)"),
        (variables(), "no complete AWS credentials were found"),
    ],
    ids=["text", "half", "fails", "no-program", "no-token", "token-folder", "no-profile", "none"],
)
def test_credentials_that_cannot_be_had_are_a_credential_error(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, set_up: Setup, told: str
) -> None:
    """A store is made all the same: another connector needs not suffer."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    set_up(monkeypatch, tmp_path)
    store = S3ObjectStore("acme", region="us-east-1", endpoint_url=NOBODY)

    with pytest.raises(CredentialError) as raised:
        store.folders("")

    assert raised.value.side is Side.SOURCE
    assert told in raised.value.message
    assert raised.value.hint
    assert "LEAKED" not in raised.value.message + raised.value.hint


def test_an_address_of_aws_without_a_scheme_is_a_credential_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever is wrong while a client is made stops the connector with a sentence."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", "s3.acme.example")

    with pytest.raises(CredentialError, match="the AWS configuration cannot be used") as raised:
        S3ObjectStore("acme", region="us-east-1").folders("")

    assert "AWS_ENDPOINT_URL" in raised.value.hint
