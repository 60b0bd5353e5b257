"""Values of settings: what a text of the file or the environment may be, and what it becomes.

Each check raises ValueError with what the value must be, and never repeats it: it may be a secret.
"""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, TypeVar

import orjson
from pydantic import AfterValidator, BeforeValidator, HttpUrl, StringConstraints, ValidationError

from currents_bridge.events import catalogue
from currents_bridge.sources.keys import FIRST_YEAR

Item = TypeVar("Item")
SLOWEST, FASTEST = 0.001, 1_000_000  # a second

_DURATION_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
_REFERENCE = re.compile(r"env:[^\s=]+|file:\S.*|aws-secretsmanager:[^\s#]+(#\S.*)?|aws-ssm:\S+")
_REFERENCE_FORMS = "env:NAME, file:PATH, aws-secretsmanager:ID#FIELD or aws-ssm:NAME"
_REGION = re.compile(r"(?![0-9]+$)(?!-)[a-zA-Z0-9-]{1,63}(?<!-)")
_NOT_IN_ENDPOINT = re.compile(r"[?#\\\s\x00-\x20]")  # paths are put after it
_BUCKET = re.compile(
    r"[A-Za-z0-9._-]{1,255}|arn:aws[a-z-]*:s3[a-z-]*:[a-z0-9-]*:\d{12}:(accesspoint|outpost)[/:][A-Za-z0-9/:.-]{1,200}",
    re.ASCII,
)
_TOPIC_ARN = re.compile(r"arn:[a-z-]+:sns:[a-z0-9-]+:\d{12}:[A-Za-z0-9_-]+")


def parse_duration(value: object) -> timedelta:
    """Return the duration that `30s`, `5m`, `6h` or `2d` names; raises ValueError for anything else."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"([0-9]{1,6})([smhd])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a whole number with its unit, like 30s 5m 6h 2d")
    return timedelta(**{_DURATION_UNITS[match[2]]: int(match[1])})


def between(shortest: str, longest: str) -> AfterValidator:
    """Return the check that a duration lies within both bounds."""

    def check(value: timedelta) -> timedelta:
        if not parse_duration(shortest) <= value <= parse_duration(longest):
            raise ValueError(f"must be {shortest}..{longest}")
        return value

    return AfterValidator(check)


def parse_start(value: object) -> object:
    """Return `earliest`, `now`, or the aware UTC time that an ISO text names; without an offset it is UTC."""
    if value in ("earliest", "now"):
        return value
    try:
        start = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        start = start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be earliest, now or an ISO time like 2026-01-31T06:00:00Z") from None
    return start if start.year >= FIRST_YEAR else "earliest"


def parse_dedup(value: object) -> object:
    """Return `group`, or a duration of 1 to 30 days."""
    if value == "group":
        return value
    try:
        period = parse_duration(value)
    except ValueError:
        period = timedelta(0)
    if not timedelta(days=1) <= period <= timedelta(days=30):
        raise ValueError("must be group, or a time of 1d..30d like 7d")
    return period


def is_reference(text: str) -> bool:
    """Whether a text says where a secret is kept, rather than being one."""
    return _REFERENCE.fullmatch(text) is not None


def check_switch(value: object) -> object:
    """Check a value of Segment's `integrations` object."""
    try:
        json.dumps(value, allow_nan=False)  # orjson makes null of what is no number
        orjson.dumps(value)  # which makes the messages: no number of more than 64 bits
    except (TypeError, ValueError):
        value = None
    if not isinstance(value, bool | dict):
        raise ValueError("must be true, false or a mapping of JSON values")  # noqa: TRY004 - for pydantic
    return value


def check_filled(values: tuple[Item, ...]) -> tuple[Item, ...]:
    """Check that a list is not empty."""
    if not values:
        raise ValueError("must hold at least one")
    return values


def check_ledger_url(value: str) -> str:
    """Check that the URL names a kind of ledger that there is, and a place that lasts."""
    if not value.startswith("sqlite:"):
        raise ValueError("this kind of ledger is not supported yet, use sqlite:///FILE")
    if value.removeprefix("sqlite:///") in (value, "", ":memory:") or "?" in value:
        raise ValueError("must name a file, like sqlite:///currents-bridge.sqlite3")
    return value


def check_pace(value: float) -> float:
    """Check that so many a second can be kept to: from one in a quarter of an hour to more than there are."""
    if not SLOWEST <= value <= FASTEST:
        raise ValueError(f"must be {SLOWEST:g}..{FASTEST}")
    return value


def check_region(value: str) -> str:
    """Check that a region can be part of the name of a host."""
    if _REGION.fullmatch(value) is None:
        raise ValueError("must be the name of a region, like us-east-1")
    return value


def check_bucket(value: str) -> str:
    """Check that S3 can have a bucket of that name, or an access point of that ARN.

    The names of old buckets and of compatible servers may hold more than those of new ones at AWS.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
    """
    if _BUCKET.fullmatch(value) is None:
        raise ValueError(
            "must be the name of a bucket alone, like acme-currents; a folder in it goes into source.prefix"
        )
    return value


def normalise_prefix(value: str) -> str:
    """Return the prefix with one slash at its end, or an empty one as it is."""
    if value.startswith("/"):
        raise ValueError("must not start with /")
    return value and value.rstrip("/") + "/"


def check_topic_arn(value: str) -> str:
    """Check that a text is the ARN of an SNS topic (a standard one: alerts need no order)."""
    if _TOPIC_ARN.fullmatch(value) is None:
        raise ValueError("must be the ARN of a topic, like arn:aws:sns:eu-west-1:123456789012:alerts")
    return value


def _check_reference(value: str) -> str:
    if not is_reference(value):
        raise ValueError(f"must be a reference, {_REFERENCE_FORMS}, never the secret itself")
    return value


def _check_channel(value: str) -> str:
    if not is_reference(value) and re.fullmatch(r"[A-Za-z][A-Za-z0-9+.-]*://\S+", value) is None:
        raise ValueError(
            f"must be an address like https://HOST/PATH or slack://..., or a reference, {_REFERENCE_FORMS}"
        )
    return value


def _check_heartbeat(value: str) -> str:
    if not is_reference(value) and _http_url(value) is None:
        raise ValueError(f"must be an address like https://HOST/PATH, or a reference, {_REFERENCE_FORMS}")
    return value


def _check_endpoint(value: str) -> str:
    url = _http_url(value)
    if url is None or url.username or url.password or _NOT_IN_ENDPOINT.search(value):
        raise ValueError(
            "must be http://HOST or https://HOST, without user name, password, query, fragment and white space"
        )
    return value.rstrip("/")


def _http_url(value: str) -> HttpUrl | None:
    try:
        return HttpUrl(value)
    except ValidationError:
        return None


def _check_tokens(tokens: tuple[str, ...]) -> tuple[str, ...]:
    if found := catalogue.problems(tokens):
        raise ValueError("; ".join(found))
    return tokens


Pace = Annotated[float, AfterValidator(check_pace)]
Duration = Annotated[timedelta, BeforeValidator(parse_duration)]
Text = Annotated[str, StringConstraints(min_length=1)]
Tokens = Annotated[tuple[str, ...], AfterValidator(_check_tokens)]  # of `catalogue.select`
Endpoint = Annotated[str, AfterValidator(_check_endpoint)]  # base URL, no slash at its end
Reference = Annotated[str, AfterValidator(_check_reference)]  # where a secret is kept
ChannelAddress = Annotated[str, AfterValidator(_check_channel)]  # for Apprise, or a reference to that; may hold secrets
HeartbeatAddress = Annotated[str, AfterValidator(_check_heartbeat)]  # http(s), or a reference; may hold secrets
