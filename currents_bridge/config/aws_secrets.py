"""Secrets that AWS keeps: in Secrets Manager and in the Parameter Store.

Each call has a session of its own, so that AWS credentials that were renewed are found, and takes 20 s at most.
Problems never repeat AWS's text.
"""

import json

import boto3
from botocore import exceptions as boto
from botocore.config import Config

from currents_bridge.network.aws import SETUP_ERRORS, VENDOR_ERRORS, open_session, setup, setup_error
from currents_bridge.network.clients import network_trouble
from currents_bridge.network.deadline import within

_TIMEOUT_S = 20.0
_CONFIG = Config(connect_timeout=3, read_timeout=5, retries={"mode": "standard", "total_max_attempts": 2})
_ERRORS: tuple[type[Exception], ...] = (*VENDOR_ERRORS, *SETUP_ERRORS)
_NOT_FOUND = {"ResourceNotFoundException", "ParameterNotFound", "ParameterVersionNotFound"}
_DENIED = {"AccessDeniedException", "AccessDenied", "403"}  # the last one where only a status came
_BAD_CREDENTIALS = {
    "ExpiredTokenException",
    "ExpiredToken",
    "IncompleteSignature",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "MissingAuthenticationToken",
    "UnrecognizedClientException",
}
_KMS_WORDS = ("kms:decrypt", "access to kms", "ciphertext")  # of AWS's message where the key is denied, not the secret


class UnreadableError(Exception):
    """A secret cannot be had; the message says why, without any part of it."""


def secret_string(identity: str, key: str | None, region: str | None) -> str:
    """Return a secret of Secrets Manager by name or ARN: the text of one field of its JSON object, or the whole text.

    The region is that of the ARN, else of boto3's chain, else `region`. Raises UnreadableError.
    https://docs.aws.amazon.com/secretsmanager/latest/apireference/API_GetSecretValue.html
    """
    try:
        with within(_TIMEOUT_S):
            with setup():
                session = boto3.session.Session(botocore_session=open_session())
                place = _region(identity, session, region)
                client = session.client("secretsmanager", region_name=place, config=_CONFIG)
            answer = client.get_secret_value(SecretId=identity)
    except _ERRORS as error:
        raise _unreadable(error, "secretsmanager:GetSecretValue", f"secret {identity}") from None
    text = answer.get("SecretString")
    if not isinstance(text, str):
        raise UnreadableError("is binary, not text")
    return text if key is None else _field(text, key)


def parameter(name: str, region: str | None) -> str:
    """Return a parameter of the Parameter Store by name (`:VERSION` and `:LABEL` are part of it) or ARN, decrypted.

    Region and errors as for `secret_string`.
    https://docs.aws.amazon.com/systems-manager/latest/APIReference/API_GetParameter.html
    """
    try:
        with within(_TIMEOUT_S):
            with setup():
                session = boto3.session.Session(botocore_session=open_session())
                client = session.client("ssm", region_name=_region(name, session, region), config=_CONFIG)
            answer = client.get_parameter(Name=name, WithDecryption=True)
    except _ERRORS as error:
        raise _unreadable(error, "ssm:GetParameter", f"parameter {name}") from None
    match answer:
        case {"Parameter": {"Value": str(text)}}:
            return text
    raise UnreadableError("has no value in the answer of AWS")


def _region(name: str, session: boto3.session.Session, fallback: str | None) -> str | None:
    of_arn = name.split(":")[3] if name.startswith("arn:") and name.count(":") >= 5 else None  # noqa: PLR2004
    return of_arn or session.region_name or fallback


def _field(text: str, key: str) -> str:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise UnreadableError("is no JSON object, so it has no fields")
    if key not in document:
        raise UnreadableError(f"has no field {key}")
    value = document[key]
    if not isinstance(value, str):
        raise UnreadableError(f"its field {key} is no text")
    return value


def _unreadable(error: Exception, permission: str, what: str) -> UnreadableError:
    match error:
        case _ if isinstance(error, SETUP_ERRORS):
            found = setup_error(error)
            why = f"{found.what}; {found.hint}"
        case _ if trouble := network_trouble(error):
            why = trouble
        case boto.ClientError(response={"Error": {"Code": str(code), **rest}}):
            why = f"{_meaning(code, str(rest.get('Message', '')), permission, what)} ({code})"
        case _:
            why = f"AWS cannot be asked ({type(error).__name__})"
    return UnreadableError(f"cannot be read: {why}")


def _meaning(code: str, message: str, permission: str, what: str) -> str:
    if code in _DENIED:
        of_key = any(word in message.lower() for word in _KMS_WORDS)
        return (
            f"kms:Decrypt is not granted on the key of {what}" if of_key else f"{permission} is not granted on {what}"
        )
    if code in _NOT_FOUND:
        return f"there is no {what} in this account and region"
    return "AWS does not take the credentials of this program" if code in _BAD_CREDENTIALS else "AWS does not give it"
