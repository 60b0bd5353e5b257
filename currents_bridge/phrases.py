"""Times, spans and numbers as people read them."""

from datetime import UTC, datetime, timedelta


def when(moment: datetime) -> str:
    """Return a time for people, like `2026-01-02 03:04 UTC`."""
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def how_long(span: timedelta) -> str:
    """Return a span for people in its two largest units, like `2 d 3 h`."""
    minutes = max(0, int(span / timedelta(minutes=1)))
    days, hours, minutes = minutes // 1440, minutes // 60 % 24, minutes % 60
    parts = [(days, "d"), (hours, "h"), (minutes, "min")]
    shown = [f"{count} {unit}" for count, unit in (parts[:2] if days else parts[1:]) if count]
    return " ".join(shown) or "less than 1 min"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, like `1 event` or `1,204 events`."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def be(number: int) -> str:
    """Return the verb for so many."""
    return "is" if number == 1 else "are"


def were(number: int) -> str:
    """Return the verb of the past for so many."""
    return "was" if number == 1 else "were"
