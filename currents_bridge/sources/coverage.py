"""What of a folder has to be listed, by what of it was listed before. Pure; hours are those of `date=` partitions.

"I have looked" is remembered for what was looked at: one `event_type=` folder of one bucket. So whatever was not listed
yet is listed whole, be it because the type, the integration, the prefix or the bucket is new to the configuration,
because a mistake in it was corrected, or because this version reads keys that the one before did not.
"""

from datetime import UTC, datetime, timedelta

from currents_bridge.model import Coverage

HOUR = timedelta(hours=1)
HourRange = tuple[datetime | None, datetime | None]  # [first hour, end hour); None: without bound


def hour_of(time: datetime) -> datetime:
    """Return the UTC hour that a time lies in."""
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)


def hours_to_list(
    covered: Coverage | None, start: datetime | None, lookback: timedelta, now: datetime
) -> list[HourRange]:
    """Return the hours to list, as one or two ascending ranges that do not touch; the last one has no end.

    The hot window reaches from `lookback` before the last whole listing on, because files land in an hour after it has
    ended. Before it comes what `start` (None: the earliest file) asks for and was never listed. A listing that lies
    ahead of now, as a clock that ran ahead labels it, counts for nothing: who knows when it was.
    """
    first = start and hour_of(start)
    if covered is None or covered.until > now:
        return [(first, None)]
    hot = _hot(covered, lookback)
    if first and first >= hot:
        return [(first, None)]
    if covered.since is None or (first and first >= covered.since):
        return [(hot, None)]
    return [(first, None)] if covered.since >= hot else [(first, covered.since), (hot, None)]


def covered_by_look(covered: Coverage | None, start: datetime | None, lookback: timedelta, now: datetime) -> Coverage:
    """Return what is covered once `hours_to_list` was listed by a look that began at `now`.

    A start inside the hot window leaves a gap before it, so all that was covered before the gap is given up.
    """
    first = start and hour_of(start)
    if covered is None or covered.until > now or first is None or first > _hot(covered, lookback):
        return Coverage(first, now)
    return Coverage(covered.since and min(covered.since, first), now)


def _hot(covered: Coverage, lookback: timedelta) -> datetime:
    return hour_of(covered.until - lookback)
