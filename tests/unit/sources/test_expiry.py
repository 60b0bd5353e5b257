"""The deadline that lifecycle rules set to what waits."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.model import ExpiryRule
from currents_bridge.sources.expiry import deadline

DAY = timedelta(days=1)
CREATED = datetime(2026, 1, 15, 10, 30, tzinfo=UTC)
MIDNIGHT_AFTER = datetime(2026, 1, 16, tzinfo=UTC)


def test_days_are_added_and_rounded_up_to_midnight() -> None:
    """The example of AWS's page: three days after 15 January, 10:30, is 19 January, 00:00."""
    assert deadline(CREATED, "", [ExpiryRule("", days=3)]) == datetime(2026, 1, 19, tzinfo=UTC)


def test_midnight_is_that_of_utc() -> None:
    """Whatever the offset that a time comes with."""
    created = datetime(2026, 1, 16, 1, tzinfo=timezone(timedelta(hours=3)))  # 22:00 of the day before in UTC

    assert deadline(created, "", [ExpiryRule("", days=1)]) == datetime(2026, 1, 17, tzinfo=UTC)


@pytest.mark.parametrize(
    ("on", "end"), [(CREATED + 10 * DAY, CREATED + 10 * DAY), (CREATED - 10 * DAY, MIDNIGHT_AFTER)]
)
def test_a_date_deletes_on_it_and_ever_after(on: datetime, end: datetime) -> None:
    """Past its date a rule deletes whatever comes, at the next midnight."""
    assert deadline(CREATED, "", [ExpiryRule("", on=on)]) == end


def test_the_earliest_rule_counts() -> None:
    """S3 deletes by whichever comes first."""
    rules = [ExpiryRule("", days=30), ExpiryRule("braze/", days=1), ExpiryRule("", on=CREATED + 9 * DAY)]

    assert deadline(CREATED, "braze/", rules) == MIDNIGHT_AFTER + DAY


@pytest.mark.parametrize(
    ("rule", "prefix", "counts"),
    [
        ("", "braze/", True),
        ("braze", "braze/", True),
        ("braze/dataexport.prod-01", "braze/", True),  # some of the keys
        ("logs/", "braze/", False),
        ("braze-old/", "braze/", False),
        ("logs/", "", True),
    ],
)
def test_a_rule_counts_where_it_holds_for_some_key_under_the_prefix(rule: str, prefix: str, counts: bool) -> None:  # noqa: FBT001
    """Which of the keys it is that waits longest is not known here."""
    assert (deadline(CREATED, prefix, [ExpiryRule(rule, days=1)]) is not None) == counts


@given(st.datetimes(datetime(2010, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC)), st.integers(1, 4000))  # noqa: DTZ001 - hypothesis wants them so
def test_an_object_lives_its_days_and_less_than_one_more(created: datetime, days: int) -> None:
    """The deadline is a midnight."""
    end = deadline(created, "", [ExpiryRule("", days=days)])

    assert end is not None
    assert end.time() == MIDNIGHT_AFTER.time()
    assert timedelta(0) <= end - created - days * DAY < DAY


@pytest.mark.parametrize(
    "rule",
    [
        ExpiryRule("", days=3_000_000),
        ExpiryRule("", days=2**31),
        ExpiryRule("", days=10**40),
        ExpiryRule("", days=(datetime.max.replace(tzinfo=UTC) - CREATED).days),
    ],
)
def test_a_rule_that_ends_after_all_time_is_no_deadline(rule: ExpiryRule) -> None:
    """Nor does it hide another rule."""
    assert deadline(CREATED, "", [rule]) is None
    assert deadline(CREATED, "", [rule, ExpiryRule("", days=3)]) == datetime(2026, 1, 19, tzinfo=UTC)


def test_an_object_of_the_end_of_time_has_no_deadline() -> None:
    """A clock was wrong."""
    last = datetime.max.replace(tzinfo=UTC)

    assert deadline(last, "", [ExpiryRule("", days=1), ExpiryRule("", on=CREATED)]) is None
