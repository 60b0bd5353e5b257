"""What S3 and botocore answer when they fail, in the words of `errors`.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html. Compatible servers may send only a status.
Messages name bucket and key or prefix, and never repeat the vendor's text: it can hold signed URLs and key ids.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

import urllib3
from botocore import exceptions as boto
from botocore.parsers import ResponseParserError

from currents_bridge.errors import (
    BridgeError,
    CredentialError,
    ObjectChangedError,
    ObjectGoneError,
    OneObjectError,
    RetryLaterError,
    Side,
)
from currents_bridge.network.aws import SETUP_ERRORS, VENDOR_ERRORS, setup_error
from currents_bridge.network.clients import network_trouble

S3_ERRORS: tuple[type[Exception], ...] = (
    *VENDOR_ERRORS,
    *SETUP_ERRORS,
)  # whatever a client raises, for reasons of its own or of a server

_CODE = re.compile(r"[\w.-]{1,64}", re.ASCII)
_CALLER = re.compile(r"arn:aws[\w-]*:(?:iam|sts)::[\w:+=,.@/-]{1,300}", re.ASCII)  # AWS names it in a denial
_ANYBODY = "the identity that this program runs as (`aws sts get-caller-identity` names it)"
_STATUS = re.compile(r"[1-9]\d\d", re.ASCII)


class Access(Enum):
    """What was asked of S3: the verb, and the permission that it needs."""

    LIST = ("list", "s3:ListBucket")
    READ = ("read", "s3:GetObject")
    RULES = ("read the lifecycle rules of", "s3:GetLifecycleConfiguration")


@dataclass(frozen=True, slots=True)
class _Meaning:
    what: str
    hint: str
    credential: bool = False


_DENIED = _Meaning(
    "access denied, {permission} on {resource} is not granted{to}",
    "grant {permission} on {grant} to {who}",
    credential=True,
)
_NO_KMS = _Meaning(
    "the KMS key of the object cannot be used",
    "grant kms:Decrypt on that key, and see that it is enabled",
    credential=True,
)
_EXPIRED = _Meaning("the AWS session has expired", "renew the session or the role's credentials", credential=True)
_BAD_KEY = _Meaning(
    "AWS does not know the access key", "set a valid access key (AWS_ACCESS_KEY_ID or a profile)", credential=True
)
_BAD_SECRET = _Meaning(
    "the secret key does not belong to the access key", "set AWS_SECRET_ACCESS_KEY or the profile anew", credential=True
)
_ACCOUNT = _Meaning("the AWS account is blocked", "ask AWS support about the account of the bucket", credential=True)
_NO_BUCKET = _Meaning(
    "the bucket does not exist", "see that source.bucket and source.endpoint_url are right", credential=True
)
_NOT_FOUND = _Meaning(
    "the bucket is not found", "see that source.bucket and source.endpoint_url are right, and what proxy answers"
)
_NOT_ASKED = _Meaning(
    "this cannot be asked of S3", "see that source.bucket, source.region and source.prefix are right", credential=True
)
_REGION = _Meaning(
    "the bucket is in another region", "set source.region to the region of bucket {bucket}", credential=True
)
_ELSEWHERE = _Meaning(
    "S3 redirects to another place for now",
    "nothing is lost: it is tried again; if it goes on, see that source.endpoint_url is the address of S3 itself",
)
_GONE = _Meaning("the object is gone", "see whether a lifecycle rule or a person deleted it")
_CHANGED = _Meaning(
    "the object has changed since it was listed", "nothing is lost: it is listed again, and tried again"
)
_ARCHIVED = _Meaning(
    "the object is archived, restore it from its storage class",
    "once it is restored, it is read; a lifecycle rule that archives later keeps this from happening again",
)
_OWN_KEY = _Meaning(
    "the object is encrypted with a key of its writer's (SSE-C), which S3 does not keep",
    "have Braze write without SSE-C, and write the object again without it",
)
_BUSY = _Meaning("S3 asks for fewer requests", "nothing is lost: it is tried again")
_UNWELL = _Meaning("S3 has an internal error", "nothing is lost: it is tried again")
_TIMEOUT = _Meaning("S3 did not answer in time", "nothing is lost: it is tried again; see that the network is well")
_CLOCK = _Meaning("the clock of this machine is wrong", "set the clock: S3 accepts 15 minutes of difference")
_UNREACHABLE = _Meaning("S3 cannot be reached", "see that the network, source.region and source.endpoint_url are right")
_TLS = _Meaning("no trusted TLS connection", "see that the certificate of source.endpoint_url or of a proxy is trusted")
_CUT_OFF = _Meaning("the connection broke off", "nothing is lost: it is tried again")
_NOT_S3 = _Meaning("the answer is not one of S3", "see that source.endpoint_url names an S3 server")
_OTHER = _Meaning("the request failed", "it is tried again; run the same command with -v to see the cause")

_BY_CODE = {
    "AccessDenied": _DENIED,
    "AccessDeniedException": _DENIED,
    "AccountProblem": _ACCOUNT,
    "AllAccessDisabled": _ACCOUNT,
    "ExpiredToken": _EXPIRED,
    "ExpiredTokenException": _EXPIRED,
    "TokenRefreshRequired": _EXPIRED,
    "InvalidToken": _EXPIRED,
    "InvalidAccessKeyId": _BAD_KEY,
    "InvalidClientTokenId": _BAD_KEY,
    "UnrecognizedClientException": _BAD_KEY,
    "SignatureDoesNotMatch": _BAD_SECRET,
    "NoSuchBucket": _NO_BUCKET,
    "InvalidBucketName": _NO_BUCKET,
    "PermanentRedirect": _REGION,
    "AuthorizationHeaderMalformed": _REGION,
    "IllegalLocationConstraintException": _REGION,
    "TemporaryRedirect": _ELSEWHERE,
    "NoSuchKey": _GONE,
    "PreconditionFailed": _CHANGED,
    "InvalidRange": _CHANGED,  # no empty object is asked for, so it is shorter now
    "InvalidObjectState": _ARCHIVED,
    "SlowDown": _BUSY,
    "RequestTimeout": _TIMEOUT,
    "RequestTimeTooSkewed": _CLOCK,
}

_NETWORK_HINT = "nothing is lost: it is tried again; docs/networks.md says what is read from the environment"

_BY_STATUS = {
    301: _REGION,
    302: _ELSEWHERE,
    303: _ELSEWHERE,
    307: _ELSEWHERE,
    308: _ELSEWHERE,
    401: _DENIED,
    403: _DENIED,
    408: _TIMEOUT,
    412: _CHANGED,
    416: _CHANGED,
    429: _BUSY,
    500: _UNWELL,
    502: _UNWELL,
    503: _BUSY,
    504: _TIMEOUT,
}

_BY_CLASS: tuple[tuple[type[Exception], _Meaning], ...] = (  # the first that fits, so narrow classes come first
    (boto.ConnectTimeoutError, _TIMEOUT),
    (boto.ReadTimeoutError, _TIMEOUT),
    (boto.SSLError, _TLS),
    (boto.ConnectionError, _UNREACHABLE),
    (boto.HTTPClientError, _CUT_OFF),
    (boto.IncompleteReadError, _CUT_OFF),
    (urllib3.exceptions.HTTPError, _CUT_OFF),
    (ResponseParserError, _NOT_S3),
    (boto.ParamValidationError, _NOT_ASKED),
    (boto.ValidationError, _NOT_ASKED),
    (boto.UnsupportedS3ConfigurationError, _NOT_ASKED),
    (boto.UnsupportedS3ArnError, _NOT_ASKED),
    (boto.UnsupportedS3AccesspointConfigurationError, _NOT_ASKED),
)


def translate(error: Exception, access: Access, bucket: str, name: str) -> BridgeError:
    """Return one of S3_ERRORS as CredentialError(Side.SOURCE), ObjectGoneError or RetryLaterError.

    The first is for all that does not pass by itself: it pauses the source, and is told at once. The last is an
    ObjectChangedError for a key that was written again, a OneObjectError for one that S3 holds back as it is.

    `name` is the key that was to be read, or the prefix that was to be listed; empty for the bucket itself.
    """
    verb, permission = access.value
    who, to = _ANYBODY, ""
    failed = f"cannot {verb} s3://{bucket}/{name}"
    if isinstance(error, SETUP_ERRORS):
        of_setup = setup_error(error)
        return CredentialError(Side.SOURCE, f"{failed}: {of_setup.what}", of_setup.hint)
    if isinstance(error, boto.ClientError):
        code, said, status = _parts_of(error.response)
        if caller := _CALLER.search(said):
            who, to = caller[0], f" to {caller[0]}"
        label = code or "no code"
        meaning = _meaning_of_answer(code, said, status, access)
    else:
        label = type(error).__name__
        meaning = next((meaning for kind, meaning in _BY_CLASS if isinstance(error, kind)), _OTHER)
    if not meaning.credential and (trouble := network_trouble(error)):
        meaning = _Meaning(trouble.replace("{", "{{").replace("}", "}}"), _NETWORK_HINT)
    arn = f"arn:aws:s3:::{bucket}"
    resource, grant = (f"{arn}/{name}", f"{arn}/*") if access is Access.READ else (arn, arn)
    what = meaning.what.format(permission=permission, resource=resource, to=to)
    message = f"{failed}: {what} ({label})"
    hint = meaning.hint.format(permission=permission, grant=grant, bucket=bucket, who=who)
    if meaning is _DENIED and access is Access.READ:
        hint += "; where it is this object alone, see its owner, its ACL and its KMS key"
    if meaning.credential:
        return CredentialError(Side.SOURCE, message, hint)
    if meaning is _GONE and access is Access.READ:
        return ObjectGoneError(message, hint)
    if meaning in {_ARCHIVED, _OWN_KEY}:
        return OneObjectError(message, hint)
    return (ObjectChangedError if meaning is _CHANGED else RetryLaterError)(message, hint)


def _parts_of(answer: Mapping[str, Any]) -> tuple[str, str, int]:
    """Return code, message and status of an error answer; empty or 0 where it has none, whatever XML the server sent.

    The code is what such codes are, short and of plain characters, since it is shown.
    """
    error = answer.get("Error")
    error = error if isinstance(error, Mapping) else {}
    code, said = error.get("Code"), error.get("Message")
    code = code if isinstance(code, str) and _CODE.fullmatch(code) else ""
    status = answer.get("ResponseMetadata", {}).get("HTTPStatusCode") or (int(code) if _STATUS.fullmatch(code) else 0)
    return code, said if isinstance(said, str) else "", status


def _meaning_of_answer(code: str, said: str, status: int, access: Access) -> _Meaning:
    if code.startswith("KMS.") or (code == "AccessDenied" and "kms:" in said):
        return _NO_KMS
    if code == "InvalidRequest" and "Server Side Encryption" in said:
        return _OWN_KEY
    not_found = _GONE if access is Access.READ else _NOT_FOUND
    return _BY_CODE.get(code) or (_BY_STATUS | {404: not_found}).get(status, _OTHER)
