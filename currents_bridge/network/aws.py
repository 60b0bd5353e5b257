"""AWS sessions whose credentials fail with one kind of error, whatever goes wrong while they are made or renewed.

The chain of botocore runs programs, reads files and asks other services, and raises what these raise: OSError for a
token file, JSONDecodeError for a `credential_process` that prints text, a ClientError of STS that looks like one of S3.
https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import botocore.session
import urllib3
from botocore import exceptions as boto
from botocore.credentials import Credentials
from botocore.loaders import create_loader
from botocore.parsers import ResponseParserError

from currents_bridge.errors import RetryLaterError
from currents_bridge.network.botocore_rules import lay_aws_rules
from currents_bridge.network.clients import PROXY_LOGIN, network_trouble, proxy_refusal
from currents_bridge.network.deadline import TooLateError
from currents_bridge.text import words

VENDOR_ERRORS: tuple[type[Exception], ...] = (
    boto.BotoCoreError,
    boto.ClientError,
    ResponseParserError,
    urllib3.exceptions.HTTPError,
    TooLateError,
)

_DESCRIPTIONS = create_loader()  # of the services, 12 MB once read; every client may use the same
_PATH_CHARS, _CODE_CHARS = 200, 64
_WHO_AM_I = "run `aws sts get-caller-identity` as the user and with the environment of this program"
_NONE_FOUND = (
    "no complete AWS credentials were found",
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, a profile, or a role",
)
_NOT_OBTAINED = (
    "AWS credentials could not be obtained",
    f"sign in again, or see that the role, STS or metadata service answers: {_WHO_AM_I}",
)
_NOT_UNDERSTOOD = (
    "what should give AWS credentials cannot be understood",
    f"see what credential_process prints, and what the token or credentials file holds; {_WHO_AM_I}",
)
_BAD_CONFIG = (
    "the AWS configuration cannot be used",
    "mend ~/.aws/config, AWS_PROFILE, the region or AWS_ENDPOINT_URL (which begins with http:// or https://)",
)
_BY_CLASS: tuple[tuple[type[Exception], tuple[str, str]], ...] = (
    (boto.NoCredentialsError, _NONE_FOUND),
    (boto.PartialCredentialsError, _NONE_FOUND),
    (boto.NoAuthTokenError, _NOT_OBTAINED),
    (boto.CredentialRetrievalError, _NOT_OBTAINED),
    (boto.TokenRetrievalError, _NOT_OBTAINED),
    (boto.SSOError, _NOT_OBTAINED),
    (boto.LoginError, _NOT_OBTAINED),
    (boto.MetadataRetrievalError, _NOT_OBTAINED),
    (boto.RefreshWithMFAUnsupportedError, _NOT_OBTAINED),
    (boto.NoRegionError, ("no AWS region is known", "set AWS_DEFAULT_REGION")),
    (boto.ProfileNotFound, _BAD_CONFIG),
    (boto.ConfigNotFound, _BAD_CONFIG),
    (boto.ConfigParseError, _BAD_CONFIG),
    (boto.InvalidConfigError, _BAD_CONFIG),
)
_ROLES = {  # operations of STS, and what they need
    "AssumeRole": "grant this identity sts:AssumeRole on the role, and let the role's trust policy name it",
    "AssumeRoleWithWebIdentity": "let the role's trust policy name the token's issuer, audience and service account",
    "AssumeRoleWithSAML": "let the role's trust policy name the identity provider",
}
_DENIALS = {"AccessDenied", "AccessDeniedException", "InvalidIdentityToken"}


class AwsSetupError(Exception):
    """AWS credentials cannot be had, or a client cannot be made; nothing was asked of the service itself.

    Args:
        what: what is wrong, with the kind of error, and nothing that the error itself says: it may hold secrets.
        hint: what to do next.
    """

    def __init__(self, what: str, hint: str) -> None:
        super().__init__(what)
        self.what = what
        self.hint = hint


# what a client raises before it asks its service, the classes of botocore where a request finds no credentials
SETUP_ERRORS: tuple[type[Exception], ...] = (AwsSetupError, *(kind for kind, _ in _BY_CLASS))


def open_session() -> botocore.session.Session:
    """Return a session for boto3's, which by default share one that is not thread-safe and keeps its credentials.

    Clients are made of it inside `setup`. Whatever credentials raise then and later is an AwsSetupError.
    """
    lay_aws_rules()
    session = _Session()
    session.register_component("data_loader", _DESCRIPTIONS)
    session.register("before-parse", _refuse_proxys_answer)
    return session


def _refuse_proxys_answer(**event: Any) -> None:
    """Raise HTTPClientError for a proxy's answer: it has none of the shapes that a service's answer is parsed by."""
    if event["response_dict"]["status_code"] == PROXY_LOGIN:
        raise boto.HTTPClientError(error=RetryLaterError(proxy_refusal(PROXY_LOGIN)))


@contextmanager
def setup() -> Iterator[None]:
    """Raise AwsSetupError for whatever goes wrong while a session or client is made."""
    try:
        yield
    except SETUP_ERRORS as error:
        raise setup_error(error) from error
    except Exception as error:
        raise _error(_BAD_CONFIG, type(error).__name__) from error


def setup_error(error: Exception) -> AwsSetupError:
    """Return one of SETUP_ERRORS, or whatever was raised while credentials were made or renewed, in our words."""
    label = type(error).__name__
    match error:
        case AwsSetupError():
            return error
        case boto.ClientError(operation_name=operation, response=answer):
            code = words(str(answer.get("Error", {}).get("Code", "no code")), _CODE_CHARS)
            return _refused(operation, code)
        case OSError(filename=str(path), strerror=why):
            what = f"AWS credentials need {words(path, _PATH_CHARS)}, which cannot be used: {why}"
            return _error((what, f"mend that file or program; {_WHO_AM_I}"), label)
    if trouble := network_trouble(error):
        return _error((f"{_NOT_OBTAINED[0]}: {trouble}", _NOT_OBTAINED[1]), label)
    for kind, meaning in _BY_CLASS:
        if isinstance(error, kind):
            return _error(meaning, label)
    return _error(_NOT_OBTAINED if isinstance(error, (*VENDOR_ERRORS, OSError)) else _NOT_UNDERSTOOD, label)


def _refused(operation: str, code: str) -> AwsSetupError:
    """Return what the answer of a service means that gives out credentials."""
    if operation not in _ROLES:
        return _error((f"{_NOT_OBTAINED[0]}, {operation} was refused", _NOT_OBTAINED[1]), code)
    denied = "AWS does not let this program assume its role" if code in _DENIALS else "the role could not be assumed"
    return _error((f"{denied}, sts:{operation} was refused", f"{_ROLES[operation]}; {_WHO_AM_I}"), code)


def _error(meaning: tuple[str, str], label: str) -> AwsSetupError:
    what, hint = meaning
    return AwsSetupError(f"{what} ({label})", hint)


class _Session(botocore.session.Session):
    """A session of botocore, but for the errors of its credentials."""

    def get_credentials(self) -> "Credentials | None":
        with _translated():
            made = super().get_credentials()
        return made and cast("Credentials", _Credentials(made))


class _Credentials:
    """Credentials as botocore made them, but for the errors while they are renewed."""

    def __init__(self, made: Any) -> None:
        self._made = made

    def get_frozen_credentials(self) -> Any:
        with _translated():
            return self._made.get_frozen_credentials()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._made, name)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise setup_error(error) from error
