"""When S3 deletes what waits: the real end of the data, whatever a loss window says."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from currents_bridge.model import ConnectorTotals, ExpiryRule

_DAY = timedelta(days=1)


def rules_under(prefix: str, rules: Sequence[ExpiryRule]) -> list[ExpiryRule]:
    """Return those of the bucket's rules that hold for any key under a prefix, which is empty or ends in '/'."""
    return [rule for rule in rules if rule.prefix.startswith(prefix) or prefix.startswith(rule.prefix)]


def deadline(waiting_oldest_at: datetime, prefix: str, rules: Sequence[ExpiryRule]) -> datetime | None:
    """Return the earliest midnight UTC at which S3 deletes the oldest waiting object; None where no rule does.

    A rule counts as for `rules_under`. S3 adds its days to the time at which the object was created, and rounds up to
    the next midnight; a rule with a date goes on deleting after that date.
    https://docs.aws.amazon.com/AmazonS3/latest/userguide/intro-lifecycle-rules.html

    Args:
        waiting_oldest_at: last_modified of the oldest object that waits, aware.
        prefix: of the connector.
        rules: of the bucket.
    """
    ends = (_end(waiting_oldest_at, rule) for rule in rules_under(prefix, rules))
    return min((end for end in ends if end), default=None)


def waiting_deadline(totals: ConnectorTotals) -> datetime | None:
    """Return when S3 deletes the oldest object that waits; None where nothing waits or no rule deletes it."""
    oldest_at = totals.waiting.oldest_at
    return deadline(oldest_at, "", totals.expiry_rules) if oldest_at else None  # rules of other prefixes are not kept


def _end(created_at: datetime, rule: ExpiryRule) -> datetime | None:
    """Return when the rule deletes what was created then; None: after the year 9999."""
    try:
        if rule.on is not None:
            return max(rule.on, _midnight_after(created_at))
        return _midnight_after(created_at + (rule.days or 0) * _DAY)
    except OverflowError:
        return None


def _midnight_after(time: datetime) -> datetime:
    """Return the next midnight UTC, or the time itself where it is one: the earlier reading of `rounded up`."""
    midnight = time.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return midnight if midnight == time else midnight + _DAY
