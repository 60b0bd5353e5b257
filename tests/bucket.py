"""Keys of Currents files in a bucket whose folders tests look at, and the times of these looks."""

from datetime import UTC, datetime, timedelta

from currents_bridge.testing.currents_files import object_key

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOW = datetime(2024, 3, 9, 17, 20, tzinfo=UTC)
THIS_HOUR = datetime(2024, 3, 9, 17, tzinfo=UTC)
CLICK = "users.messages.email.Click"
OPEN = "users.messages.email.Open"
CATALOGUE = frozenset({CLICK, OPEN})


def key(
    hour: datetime = THIS_HOUR,
    event_type: str = CLICK,
    offset: int = 0,
    integration: str = "aaa",
    prefix: str = "braze/",
) -> str:
    """Return the key of a Currents file."""
    return object_key(event_type, hour, offset=offset, integration=integration, prefix=prefix)


def folder(event_type: str = CLICK, integration: str = "aaa") -> str:
    """Return the folder that holds the files of a type."""
    return key(event_type=event_type, integration=integration).partition("date=")[0]
