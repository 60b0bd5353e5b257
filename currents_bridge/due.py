"""When something is due. A time that lies ahead of now is of a clock that ran ahead once: it must leave no trace."""

from datetime import UTC, datetime, timedelta

FIRST_FILES = datetime(2010, 1, 1, tzinfo=UTC)  # Braze was founded in 2011: a clock before that is wrong
FIRST_RETRY = timedelta(minutes=1)
LAST_RETRY = timedelta(hours=6)
LONGEST_WAIT = timedelta(minutes=5)  # from one attempt at a channel to the next: what waits may be critical


def retry_at(now: datetime, attempts: int) -> datetime:
    """Return when what failed `attempts` times before is due again: one minute, doubling up to six hours."""
    return now + min(FIRST_RETRY * (1 << min(attempts, 16)), LAST_RETRY)


def lately(at: datetime | None, now: datetime, span: timedelta) -> bool:
    """Return whether a time lies no longer ago than a span; one ahead of now does not, whenever it was in truth."""
    return at is not None and timedelta(0) <= now - at < span
