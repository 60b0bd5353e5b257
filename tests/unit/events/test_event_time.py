"""The time of an event, however a file says it."""

from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import polars as pl
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from currents_bridge.events.event_time import EARLIEST, LATEST, is_plausible, milliseconds

SECOND = 1767322800
WHOLE = SECOND * 1000
BERLIN = timezone(timedelta(hours=1))
moments = st.datetimes(EARLIEST.replace(tzinfo=None), LATEST.replace(tzinfo=None), timezones=st.just(UTC))


def read(values: Any, dtype: Any = None) -> list[int | None]:
    """Return a column's times in milliseconds."""
    column = pl.Series("time", values, dtype=dtype)
    return column.to_frame().select(milliseconds(pl.col("time"), column.dtype)).to_series().to_list()


def exact_ms(moment: datetime) -> int:
    """Return milliseconds since 1970, rounded down."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1)


@pytest.mark.parametrize("values", [[SECOND], [f" {SECOND} "], [f"{SECOND}.0"], [float(SECOND)], [Decimal(SECOND)]])
def test_seconds_of_every_type_are_read(values: Any) -> None:
    """As numbers and as text."""
    assert read(values) == [WHOLE]


@given(moments, st.sampled_from([1, 10**3, 10**6, 10**9]), st.booleans())
@example(EARLIEST, 1, True)
@example(LATEST, 10**9, False)
def test_a_numbers_unit_is_known_by_its_size(moment: datetime, per_second: int, as_text: bool) -> None:  # noqa: FBT001
    """Seconds, milli-, micro- and nanoseconds, each second of the years that count."""
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    count = microseconds * per_second // 10**6
    wanted = count * 1000 // per_second
    assert read([str(count) if as_text else count]) == [wanted]
    assert pl.select(is_plausible(pl.lit(wanted))).item() == (EARLIEST <= moment <= LATEST)


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin"])
def test_timestamps_are_read(unit: Any, zone: str | None) -> None:
    """Of every unit; without a zone they are UTC."""
    column = pl.Series([datetime(2026, 1, 2, 3, 0, 0, 123456)]).dt.cast_time_unit(unit).dt.replace_time_zone(zone)  # noqa: DTZ001
    assert read(column) == [WHOLE + 123 - (3_600_000 if zone == "Europe/Berlin" else 0)]


def test_a_date_is_its_midnight() -> None:
    """As a column of dates and as text."""
    assert read([date(2026, 1, 2)]) == read(["2026-01-02"]) == [WHOLE - 3 * 3_600_000]


@given(moments, st.sampled_from(["T", "t", " "]), st.sampled_from([UTC, BERLIN, timezone(timedelta(hours=-9.5)), None]))
def test_iso_text_is_read(moment: datetime, separator: str, zone: timezone | None) -> None:
    """As Python writes it, in any zone; without one it is UTC."""
    shown = moment.astimezone(zone) if zone else moment.replace(tzinfo=None)
    assert read([shown.isoformat(separator)]) == [exact_ms(moment)]


@pytest.mark.parametrize(
    "text",
    [
        "2026-01-02T03:00:00Z",
        "2026-01-02T03:00:00.000z",
        "2026-01-02 03:00:00 UTC",
        "2026-01-02 03:00:00 +0000",
        "2026-01-02T04:00+01",
        "2026-01-02T03:00:00,000000000Z",
        "\t2026-01-02 03:00\n",
    ],
)
def test_other_ways_of_iso_text_are_read(text: str) -> None:
    """As other programs write it."""
    assert read([text]) == [WHOLE]


@pytest.mark.parametrize(
    "value",
    ["", "yesterday", "NaN", "2026-13-02", "2026-01-02T25:00:00Z", "2026-01-02T03", "02.01.2026", None],
)
def test_text_that_is_no_time_says_nothing(value: str | None) -> None:
    """It is not guessed at."""
    assert read([value], pl.String) == [None]


@given(st.integers(-(2**63), 2**63 - 1))
def test_no_number_is_taken_for_another_time(count: int) -> None:
    """What is read as plausible is that number of one of the units; all else stays absurd."""
    (found,) = read([count])
    assert found is not None
    if pl.select(is_plausible(pl.lit(found))).item():
        assert found in {count * 1000, count, count // 10**3, count // 10**6}


@pytest.mark.parametrize("values", [[True], [[1]], [b"1"], [timedelta(seconds=1)], [float("nan")], [None]])
def test_values_that_are_no_time_say_nothing(values: Any) -> None:
    """Nor does one stop the column."""
    assert read(values) == [None]
