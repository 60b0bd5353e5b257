"""Settings: what can be set, within which bounds, and how a file and the environment become one `Settings`.

Every key of the file has a name in the environment: `CURRENTS_BRIDGE_DELIVERY__WORKERS=8` sets `delivery.workers` and
wins over the file; `null` stands for no value. `connectors` is one variable, `CURRENTS_BRIDGE_CONNECTORS`, a JSON list
that replaces the file's list whole. An unknown `CURRENTS_BRIDGE_*` variable is refused like an unknown key.
"""

from currents_bridge.config.loading import DEFAULT_PATH, config_path, example_config, load
from currents_bridge.config.settings import (
    ENV_PREFIX,
    AlertsSettings,
    ConnectorSettings,
    DeliverySettings,
    DestinationSettings,
    EventsSettings,
    LedgerSettings,
    OAuthSettings,
    PublicApiSettings,
    ScheduleSettings,
    Settings,
    SourceSettings,
)
from currents_bridge.config.values import is_reference, parse_duration

__all__ = [
    "DEFAULT_PATH",
    "ENV_PREFIX",
    "AlertsSettings",
    "ConnectorSettings",
    "DeliverySettings",
    "DestinationSettings",
    "EventsSettings",
    "LedgerSettings",
    "OAuthSettings",
    "PublicApiSettings",
    "ScheduleSettings",
    "Settings",
    "SourceSettings",
    "config_path",
    "example_config",
    "is_reference",
    "load",
    "parse_duration",
]
