"""What can be set, with defaults, units and bounds."""

from datetime import datetime, timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from currents_bridge.config.values import (
    ChannelAddress,
    Duration,
    Endpoint,
    HeartbeatAddress,
    Pace,
    Reference,
    Text,
    Tokens,
    between,
    check_bucket,
    check_filled,
    check_ledger_url,
    check_region,
    check_switch,
    check_topic_arn,
    normalise_prefix,
    parse_dedup,
    parse_start,
)
from currents_bridge.credentials.state import LossPolicy

ENV_PREFIX = "CURRENTS_BRIDGE_"
SEGMENT_SETTINGS_URL = "https://cdn-settings.segment.com"  # of both regions


def _check_unique(connectors: "tuple[ConnectorSettings, ...]") -> "tuple[ConnectorSettings, ...]":
    names = [connector.name for connector in connectors]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"each needs a name of its own, used more than once: {', '.join(twice)}")
    return connectors


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)


class LedgerSettings(_Section):
    """Where the ledger lives."""

    url: Annotated[str, AfterValidator(check_ledger_url)] = Field(
        default="sqlite:///currents-bridge.sqlite3",
        description="SQLAlchemy URL of the ledger; a path after `sqlite:///` is relative to the working directory",
    )


class ScheduleSettings(_Section):
    """How often the daemon looks into the bucket."""

    poll: Annotated[Duration, between("1s", "1d")] = Field(
        default=timedelta(seconds=60), description="time from one look at the recent hours to the next, 1s..1d"
    )
    audit: Annotated[Duration, between("1m", "30d")] = Field(
        default=timedelta(days=1), description="time from one look at the whole bucket to the next, 1m..30d"
    )
    probe: Annotated[Duration, between("30s", "1d")] = Field(
        default=timedelta(minutes=5), description="time from one look at the write keys to the next, 30s..1d"
    )


class DeliverySettings(_Section):
    """How much is done at once, and how fast; limits hold for each connector."""

    workers: int = Field(default=4, ge=1, le=64, description="threads that fetch, decode and map objects")
    max_in_flight: int = Field(default=16, ge=1, le=256, description="requests to Segment open at the same time")
    requests_per_second: Pace | None = Field(
        default=50,
        description="requests to Segment a second, 0.001..1000000; null: no limit. Segment asks for 50",
    )
    events_per_second: Pace | None = Field(
        default=None, description="events to Segment a second, 0.001..1000000; null: no limit"
    )
    max_batch_bytes: int = Field(
        default=475_000,
        ge=40_000,
        le=500_000,
        description="bytes of a request before compression; Segment takes 500 KB, and one message may need 32 KB",
    )
    max_batch_events: int = Field(default=2500, ge=1, le=2500, description="events in a request; Segment takes 2,500")


class AlertsSettings(_Section):
    """Who is told, of what, and how often."""

    urls: tuple[ChannelAddress, ...] = Field(
        default=(), repr=False, description="Apprise or http(s) addresses, or references to them; the latter take JSON"
    )
    sns_topic_arn: Annotated[str, AfterValidator(check_topic_arn)] | None = Field(
        default=None, description="SNS topic that is told too; null: none"
    )
    repeat: Annotated[Duration, between("5m", "30d")] = Field(
        default=timedelta(hours=12), description="time after which an open alert is told again, 5m..30d"
    )
    heartbeat_url: HeartbeatAddress | None = Field(
        default=None, repr=False, description="address, or a reference to it, that is asked while the jobs end well"
    )
    backlog_age: Annotated[Duration, between("5m", "30d")] = Field(
        default=timedelta(hours=6), description="age of the oldest waiting object that is worth an alert, 5m..30d"
    )
    dead_letters_per_hour: int = Field(
        default=100, ge=1, le=1_000_000, description="dead letters of a connector in an hour that are worth an alert"
    )
    silence: Annotated[Duration, between("1h", "30d")] = Field(
        default=timedelta(hours=24), description="time without a new file that is worth an alert, 1h..30d"
    )


class SourceSettings(_Section):
    """The Currents files of one bucket and prefix."""

    bucket: Annotated[str, AfterValidator(check_bucket)] = Field(description="name of the S3 bucket")
    prefix: Annotated[str, AfterValidator(normalise_prefix)] = Field(
        default="", description="folder in the bucket that holds the files; empty or ends in /"
    )
    region: Annotated[str, AfterValidator(check_region)] = Field(
        default="us-east-1", description="AWS region of the bucket"
    )
    endpoint_url: Endpoint | None = Field(default=None, description="another S3 server than AWS; null: AWS")
    start_from: Annotated[Literal["earliest", "now"] | datetime, BeforeValidator(parse_start)] = Field(
        default="earliest",
        description="first hour to deliver: earliest, now or an ISO time; a time without offset is UTC",
    )
    lookback: Annotated[Duration, between("1h", "30d")] = Field(
        default=timedelta(hours=6), description="how far back each poll lists, 1h..30d; older hours belong to the audit"
    )
    audit_depth: Annotated[Duration, between("1d", "3650d")] | None = Field(
        default=None, description="how far back an audit looks, 1d..3650d; null: to `start_from`"
    )

    @property
    def place(self) -> str:
        """What tells the bucket from all others."""
        return f"{self.endpoint_url or 's3:/'}/{self.bucket}"


class PublicApiSettings(_Section):
    """Segment's Public API, which can tell whether the source takes the write key."""

    token: Reference = Field(description="reference to a token that may read the source; never the token itself")
    source_id: Text = Field(description="id of the Segment source, as in its URL in Segment's app")
    endpoint_url: Endpoint | None = Field(default=None, description="another host than Segment's; null: Segment's")


class OAuthSettings(_Section):
    """The OAuth application of a source that enforces OAuth."""

    client_id: Text = Field(description="id of the OAuth application")
    key_id: Text = Field(description="id of its public key in Segment")
    private_key: Reference = Field(description="reference to its private key, in PEM; never the key itself")
    endpoint_url: Endpoint | None = Field(default=None, description="another token server; null: Segment's")


class DestinationSettings(_Section):
    """One Segment source."""

    write_keys: Annotated[tuple[Reference, ...], AfterValidator(check_filled)] | None = Field(
        default=None, description="references to write keys of one source, oldest first, while they are rotated"
    )
    write_key: Reference | None = Field(  # behind `write_keys`, since its check looks there
        default=None, description="reference to the write key, never the key itself"
    )
    region: Literal["us", "eu"] = Field(default="us", description="Segment region of the workspace")
    endpoint_url: Endpoint | None = Field(default=None, description="another host than Segment's; null: the region's")
    settings_endpoint_url: Endpoint | None = Field(
        default=None, description="host to ask whether the key is known; null: Segment's, if `endpoint_url` is null too"
    )
    public_api: PublicApiSettings | None = Field(default=None, description="null: it is not asked")
    oauth: OAuthSettings | None = Field(default=None, description="null: the write key alone")
    transport: Literal["batch", "sdk"] = Field(
        default="batch", description="batch: requests packed by this program; sdk: segment-analytics-python, slower"
    )
    integrations: dict[str, Annotated[bool | dict[str, Any], BeforeValidator(check_switch)]] = Field(
        default={},
        description="Segment's `integrations` object of every message: destination name to true, false or options",
    )
    message_id_prefix: str = Field(
        default="",
        max_length=32,
        description="put before every messageId; keeps apart two sources fed with the same events",
    )

    @field_validator("write_key")
    @classmethod
    def _one_of_both(cls, write_key: str | None, others: ValidationInfo) -> str | None:
        if "write_keys" in others.data and (write_key is None) == (others.data["write_keys"] is None):
            raise ValueError("is missing" if write_key is None else "must not stand beside write_keys")
        return write_key

    @property
    def write_key_references(self) -> tuple[str, ...]:
        """The references to all write keys, oldest first."""
        return self.write_keys or ((self.write_key,) if self.write_key else ())

    @property
    def settings_url(self) -> str | None:
        """The host that knows the source's settings; None: whoever takes the events has none that is known."""
        return self.settings_endpoint_url or (SEGMENT_SETTINGS_URL if self.endpoint_url is None else None)


class EventsSettings(_Section):
    """Which event types are sent, and under which names."""

    include: Annotated[Tokens, AfterValidator(check_filled)] = Field(
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
    dedup: Annotated[Literal["group"] | timedelta, BeforeValidator(parse_dedup)] = Field(
        default="group",
        description="repeated events: group leaves out those in objects delivered together, a time like 7d (1d..30d) "
        "also those that were sent within it",
    )
    properties: Literal["connector", "all"] = Field(
        default="connector", description="connector: as Braze's own connector; all: every field that Braze stores"
    )
    loss_window: Annotated[Duration, between("1h", "30d")] = Field(
        default=timedelta(hours=48), description="time that a credential may fail before data counts as late, 1h..30d"
    )
    after_loss_window: Literal["hold", "drop"] = Field(
        default="hold",
        description="objects older than the window: hold and deliver them, or drop: set them aside as Braze would",
    )
    rewind_message_ids: Literal["same", "fresh"] = Field(
        default="same",
        description="messageIds of events sent again after a dead key: same, or fresh: marked, so that Segment cannot "
        "take them for repeats",
    )

    @property
    def loss(self) -> LossPolicy:
        """What a failing credential may cost."""
        return LossPolicy(self.loss_window, drop=self.after_loss_window == "drop")


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
    alerts: AlertsSettings = AlertsSettings()
    connectors: Annotated[tuple[ConnectorSettings, ...], AfterValidator(check_filled), AfterValidator(_check_unique)]

    @classmethod
    def settings_customise_sources(cls, *_: Any, **sources: Any) -> tuple[PydanticBaseSettingsSource, ...]:
        """Leave out the environment of the process."""
        return (sources["init_settings"],)
