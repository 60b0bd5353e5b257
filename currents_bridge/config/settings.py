"""What can be set, with defaults, units and bounds."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    HttpUrl,
    StringConstraints,
    ValidationError,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from currents_bridge import catalogue

ENV_PREFIX = "CURRENTS_BRIDGE_"

Item = TypeVar("Item")

_DURATION_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def parse_duration(value: object) -> timedelta:
    """Return the duration that `30s`, `5m`, `6h` or `2d` names; raises ValueError for anything else."""
    if isinstance(value, timedelta):
        return value
    match = re.fullmatch(r"(\d{1,6})([smhd])", value) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a whole number with its unit, like 30s 5m 6h 2d")
    return timedelta(**{_DURATION_UNITS[match[2]]: int(match[1])})


def _between(shortest: str, longest: str) -> AfterValidator:
    def check(value: timedelta) -> timedelta:
        if not parse_duration(shortest) <= value <= parse_duration(longest):
            raise ValueError(f"must be {shortest}..{longest}")
        return value

    return AfterValidator(check)


def _parse_start(value: object) -> object:
    if value in ("earliest", "now"):
        return value
    try:
        start = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return start.replace(tzinfo=UTC) if start.tzinfo is None else start.astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("must be earliest, now or an ISO time like 2026-01-31T06:00:00Z") from None


def _parse_dedup(value: object) -> object:
    if value == "group":
        return value
    try:
        period = parse_duration(value)
    except ValueError:
        period = timedelta(0)
    if not timedelta(days=1) <= period <= timedelta(days=30):
        raise ValueError("must be group, or a time of 1d..30d like 7d")
    return period


def _check_http_url(value: str) -> str:
    try:
        url = HttpUrl(value)
    except ValidationError:
        url = None
    if url is None or url.username or url.password:
        raise ValueError("must be http://HOST or https://HOST, without user name and password")
    return value.rstrip("/")


def _check_ledger_url(value: str) -> str:
    if not value.startswith("sqlite:"):
        raise ValueError("this kind of ledger is not supported yet, use sqlite:///FILE")
    if value.removeprefix("sqlite:///") in (value, "", ":memory:"):
        raise ValueError("must name a file, like sqlite:///currents-bridge.sqlite3")
    return value


def _check_bucket(value: str) -> str:
    if not value or "://" in value:
        raise ValueError("must be the name of a bucket alone, like acme-currents")
    return value


def _normalise_prefix(value: str) -> str:
    if value.startswith("/"):
        raise ValueError("must not start with /")
    return value and value.rstrip("/") + "/"


def _check_reference(value: str) -> str:
    if re.fullmatch(r"env:[^\s=]+|file:\S.*", value) is None:
        raise ValueError("must be a reference, env:NAME or file:PATH, never the key itself")
    return value


def _check_tokens(tokens: tuple[str, ...]) -> tuple[str, ...]:
    if found := catalogue.problems(tokens):
        raise ValueError("; ".join(found))
    return tokens


def _check_switch(value: object) -> object:
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        value = None
    if not isinstance(value, bool | dict):
        raise ValueError("must be true, false or a mapping of JSON values")  # noqa: TRY004 - for pydantic
    return value


def _check_filled(values: tuple[Item, ...]) -> tuple[Item, ...]:
    if not values:
        raise ValueError("must hold at least one")
    return values


def _check_unique(connectors: "tuple[ConnectorSettings, ...]") -> "tuple[ConnectorSettings, ...]":
    names = [connector.name for connector in connectors]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each needs a name of its own, used more than once: {', '.join(twice)}")
    return connectors


Endpoint = Annotated[str, AfterValidator(_check_http_url)]
Text = Annotated[str, StringConstraints(min_length=1)]
Tokens = Annotated[tuple[str, ...], AfterValidator(_check_tokens)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class LedgerSettings(_Section):
    """Where the ledger lives."""

    url: Annotated[str, AfterValidator(_check_ledger_url)] = Field(
        default="sqlite:///currents-bridge.sqlite3",
        description="SQLAlchemy URL of the ledger; a path after `sqlite:///` is relative to the working directory",
    )


class ScheduleSettings(_Section):
    """How often the daemon looks into the bucket."""

    poll: Annotated[timedelta, BeforeValidator(parse_duration), _between("1s", "1d")] = Field(
        default=timedelta(seconds=60), description="time from one look at the recent hours to the next, 1s..1d"
    )
    sweep: Annotated[timedelta, BeforeValidator(parse_duration), _between("1s", "7d")] = Field(
        default=timedelta(hours=1), description="time from one look at the older hours to the next, 1s..7d"
    )


class DeliverySettings(_Section):
    """How much is done at once, and how fast; limits hold for each connector."""

    workers: int = Field(default=4, ge=1, le=64, description="threads that fetch, decode and map objects")
    max_in_flight: int = Field(default=16, ge=1, le=256, description="requests to Segment open at the same time")
    requests_per_second: Annotated[float, Field(gt=0)] | None = Field(
        default=50, description="requests to Segment a second; null: no limit. Segment asks partners for 50"
    )
    events_per_second: Annotated[float, Field(gt=0)] | None = Field(
        default=None, description="events to Segment a second; null: no limit"
    )
    max_batch_bytes: int = Field(
        default=475_000,
        ge=40_000,
        le=500_000,
        description="bytes of a request before compression; Segment takes 500 KB, and one message may need 32 KB",
    )
    max_batch_events: int = Field(default=2500, ge=1, le=2500, description="events in a request; Segment takes 2,500")


class SourceSettings(_Section):
    """The Currents files of one bucket and prefix."""

    bucket: Annotated[str, AfterValidator(_check_bucket)] = Field(description="name of the S3 bucket")
    prefix: Annotated[str, AfterValidator(_normalise_prefix)] = Field(
        default="", description="folder in the bucket that holds the files; empty or ends in /"
    )
    region: Text = Field(default="us-east-1", description="AWS region of the bucket")
    endpoint_url: Endpoint | None = Field(default=None, description="another S3 server than AWS; null: AWS")
    start_from: Annotated[Literal["earliest", "now"] | datetime, BeforeValidator(_parse_start)] = Field(
        default="earliest",
        description="first hour to deliver: earliest, now or an ISO time; a time without offset is UTC",
    )
    lookback: Annotated[timedelta, BeforeValidator(parse_duration), _between("1h", "30d")] = Field(
        default=timedelta(hours=6), description="how far back each poll lists, 1h..30d; older hours belong to the sweep"
    )


class DestinationSettings(_Section):
    """One Segment source."""

    write_key: Annotated[str, AfterValidator(_check_reference)] = Field(
        description="reference to the write key, env:NAME or file:PATH; never the key itself"
    )
    region: Literal["us", "eu"] = Field(default="us", description="Segment region of the workspace")
    endpoint_url: Endpoint | None = Field(default=None, description="another host than Segment's; null: the region's")
    transport: Literal["batch", "sdk"] = Field(
        default="batch", description="batch: requests packed by this program; sdk: segment-analytics-python, slower"
    )
    integrations: dict[str, Annotated[bool | dict[str, Any], BeforeValidator(_check_switch)]] = Field(
        default={},
        description="Segment's `integrations` object of every message: destination name to true, false or options",
    )
    message_id_prefix: str = Field(
        default="",
        max_length=32,
        description="put before every messageId; keeps apart two sources fed with the same events",
    )


class EventsSettings(_Section):
    """Which event types are sent, and under which names."""

    include: Annotated[Tokens, AfterValidator(_check_filled)] = Field(
        default=("supported",), description="event types, globs, families, `supported` or `all`"
    )
    exclude: Tokens = Field(default=(), description="taken away from `include`; the same words")
    names: dict[Text, Text] = Field(
        default={}, description="event type to the Segment event name to use instead of Braze's"
    )


class ConnectorSettings(_Section):
    """One source with one destination and its rules."""

    name: str = Field(
        pattern="^[a-z0-9_-]+$",
        description="unique; the ledger knows the connector by it, so a new name means a new start",
    )
    source: SourceSettings
    destination: DestinationSettings
    events: EventsSettings = EventsSettings()
    anonymous_users: Literal["skip", "send"] = Field(
        default="skip",
        description="events of users without external id: skip and count them, or send with anonymousId alone",
    )
    dedup: Annotated[Literal["group"] | timedelta, BeforeValidator(_parse_dedup)] = Field(
        default="group",
        description="repeated events: group leaves out those in objects delivered together, a time like 7d (1d..30d) "
        "also those that were sent within it",
    )
    properties: Literal["connector", "all"] = Field(
        default="connector", description="connector: as Braze's own connector; all: every field that Braze stores"
    )


class Settings(BaseSettings):
    """Everything that can be set. `Settings(...)` takes its arguments only, `load` reads a file and an environment."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        env_parse_none_str="null",
    )

    ledger: LedgerSettings = LedgerSettings()
    schedule: ScheduleSettings = ScheduleSettings()
    delivery: DeliverySettings = DeliverySettings()
    connectors: Annotated[tuple[ConnectorSettings, ...], AfterValidator(_check_filled), AfterValidator(_check_unique)]

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave out the environment of the process."""
        return (sources["init_settings"],)
