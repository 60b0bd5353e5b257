"""The `time` of events as milliseconds since 1970, however a file says it.

Currents writes long seconds. A connector between, or a later version, may write a timestamp, milliseconds or ISO text.
A number's unit is certain from its size: no second, milli-, micro- or nanosecond between 2010 and 2100 is another one.
"""

from datetime import UTC, datetime

import polars as pl

# Braze was founded in 2011; a clock that shows anything outside these years is no evidence of when
EARLIEST = datetime(2010, 1, 1, tzinfo=UTC)
LATEST = datetime(2100, 1, 1, tzinfo=UTC)

_UNITS_PER_SECOND = (1, 10**3, 10**6, 10**9)
_FAR_S = 2**40  # an absurd second whose milliseconds still fit into 64 bits
# date, then perhaps time of day, seconds, fraction, and the distance to UTC
_ISO = (
    r"^\s*(?<date>\d{4}-\d\d-\d\d)(?:[Tt ]\s*(?<minute>\d\d:\d\d)(?::(?<second>\d\d)(?:[.,](?<fraction>\d+))?)?"
    r"\s*(?:(?<zone>[+-]\d\d:?\d\d)|(?<hours>[+-]\d\d)|Z|z|UTC|GMT)?)?\s*$"
)


def milliseconds(time: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    """Return a column's times in milliseconds, rounded down; null where they say nothing, and absurd ones as absurd.

    Text may be a number or ISO 8601; without a zone it is UTC, as a timestamp without one is. A date is its midnight.
    """
    match dtype:
        case pl.Date() | pl.Datetime():
            return time.cast(pl.Datetime("ms")).dt.epoch("ms")
        case pl.String():
            iso = _of_iso(time)
            number = time.str.strip_chars()
            return pl.coalesce(iso, _of_integers(number.cast(pl.Int64, strict=False)), _of_floats(number))
        case _ if dtype.is_integer():
            return _of_integers(time.cast(pl.Int64, strict=False))
        case _ if dtype.is_numeric() or dtype == pl.Null:
            return _of_floats(time)
        case _:
            return pl.lit(None, dtype=pl.Int64)


def is_plausible(time_ms: pl.Expr) -> pl.Expr:
    """Whether milliseconds lie in the years that Currents can tell of."""
    return _counts(time_ms, 1000)


def _of_integers(count: pl.Expr) -> pl.Expr:
    by_unit = [
        pl.when(_counts(count, per_second)).then(
            count * (1000 // per_second) if per_second <= 1000 else count // (per_second // 1000)  # noqa: PLR2004
        )
        for per_second in _UNITS_PER_SECOND
    ]
    return pl.coalesce(*by_unit, count.clip(-_FAR_S, _FAR_S) * 1000)


def _of_floats(value: pl.Expr) -> pl.Expr:
    count = value.cast(pl.Float64, strict=False)
    by_unit = [
        pl.when(_counts(count, per_second)).then(count / (per_second / 1000)) for per_second in _UNITS_PER_SECOND
    ]
    found = pl.coalesce(*by_unit, count.clip(-_FAR_S, _FAR_S) * 1000)
    return found.round().cast(pl.Int64, strict=False)


def _counts(count: pl.Expr, per_second: int) -> pl.Expr:
    """Whether numbers are plausible as a count of this unit."""
    earliest, latest = (int(moment.timestamp()) * per_second for moment in (EARLIEST, LATEST))
    return count.is_between(earliest, latest)


def _of_iso(text: pl.Expr) -> pl.Expr:
    part = text.str.extract_groups(_ISO).struct.field
    whole = pl.concat_str(
        part("date"),
        pl.lit("T"),
        part("minute").fill_null("00:00"),
        pl.lit(":"),
        part("second").fill_null("00"),
        pl.lit("."),
        part("fraction").fill_null("").str.pad_end(3, "0").str.head(3),
        pl.coalesce(part("zone"), part("hours") + pl.lit("00"), pl.lit("+0000")),
    )
    return whole.str.to_datetime("%Y-%m-%dT%H:%M:%S%.3f%z", time_unit="ms", strict=False).dt.epoch("ms")
