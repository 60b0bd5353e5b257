"""Keys of Currents files: what is read from them, and what is refused."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.keys import CurrentsKey, Layout, parse_key, to_currents_object
from currents_bridge.model import CurrentsObject, ListedObject, format_hour, parse_hour

STEM = "dataexport.prod-01.S3.integration.5f2b1c"
HOUR = f"{STEM}/event_type=users.messages.email.Click/date=2024-03-09-17"
OLDER = f"braze/eu/{HOUR}/4812/prod-01/{STEM}+3+99999.avro"
NEWER = f"{HOUR}/version=2/prod/{STEM}+0+100000.avro"

words = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1)
names = st.from_regex(r"[a-z0-9-]+(\.[a-z0-9]+)?", fullmatch=True)
keys = st.builds(
    CurrentsKey,
    prefix=st.lists(words).map(lambda folders: "".join(f"{folder}/" for folder in folders)),
    cluster=names,
    integration=words,
    event_type=words,
    hour=st.datetimes(datetime(2016, 1, 1), datetime(2099, 12, 31), timezones=st.just(UTC)).map(  # noqa: DTZ001
        lambda time: time.replace(minute=0, second=0, microsecond=0)
    ),
    layout=st.sampled_from(Layout),
    revision=words.filter(lambda word: not word.startswith("version=")),
    place=words,
    partition=st.integers(0, 10_000),
    offset=st.integers(0, 2**63),
)


def test_a_key_of_the_older_layout_tells_its_parts() -> None:
    """Schema id and zone stand between hour and file."""
    assert parse_key(OLDER) == CurrentsKey(
        prefix="braze/eu/",
        cluster="prod-01",
        integration="5f2b1c",
        event_type="users.messages.email.Click",
        hour=datetime(2024, 3, 9, 17, tzinfo=UTC),
        layout=Layout.SCHEMA,
        revision="4812",
        place="prod-01",
        partition=3,
        offset=99_999,
    )


def test_a_key_of_the_newer_layout_tells_its_parts() -> None:
    """`version=<n>` and the environment stand between hour and file."""
    assert parse_key(NEWER) == CurrentsKey(
        prefix="",
        cluster="prod-01",
        integration="5f2b1c",
        event_type="users.messages.email.Click",
        hour=datetime(2024, 3, 9, 17, tzinfo=UTC),
        layout=Layout.VERSION,
        revision="2",
        place="prod",
        partition=0,
        offset=100_000,
    )


@given(keys)
def test_every_key_comes_back_from_its_text(key: CurrentsKey) -> None:
    """Writing a key and reading it again changes nothing."""
    assert parse_key(str(key)) == key


@pytest.mark.parametrize("key", [OLDER, NEWER])
def test_every_text_comes_back_from_its_key(key: str) -> None:
    """Reading a key and writing it again changes nothing."""
    assert str(parse_key(key)) == key


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="empty"),
        pytest.param(f"{OLDER}.gz", id="no avro file"),
        pytest.param(OLDER.replace("99999", "099999"), id="padded offset"),
        pytest.param(OLDER.replace("+3+", "+"), id="no partition"),
        pytest.param(OLDER.replace("4812/", ""), id="a folder too few"),
        pytest.param(OLDER.replace("4812/", "4812/x/"), id="a folder too many"),
        pytest.param(NEWER.replace("version=2", "version="), id="empty version"),
        pytest.param(OLDER.replace("email.Click", "email/Click"), id="slash in the type"),
        pytest.param(OLDER.replace("users.messages.email.Click", ""), id="empty type"),
        pytest.param(OLDER.replace("date=2024-03-09-17", "date=2024-03-09"), id="a day, no hour"),
        pytest.param(OLDER.replace("date=2024-03-09-17", "date=2024-02-30-17"), id="a day that never was"),
        pytest.param(OLDER.replace("5f2b1c/", "ffffff/"), id="file of another integration"),
        pytest.param(OLDER.replace(".S3.", ".GCS."), id="export of another storage"),
        pytest.param(f"x{NEWER}", id="no folder border before the integration"),
    ],
)
def test_a_key_that_fits_neither_layout_is_refused(key: str) -> None:
    """Nothing is guessed."""
    assert parse_key(key) is None


def test_a_listed_currents_file_becomes_a_currents_object() -> None:
    """Type and hour come from the key, the rest from the listing."""
    modified = datetime(2024, 3, 9, 18, 2, tzinfo=UTC)

    assert to_currents_object(ListedObject(OLDER, "abc", 123, modified)) == CurrentsObject(
        OLDER, "abc", 123, modified, "users.messages.email.Click", datetime(2024, 3, 9, 17, tzinfo=UTC)
    )


def test_any_other_listed_object_becomes_none() -> None:
    """Objects that Braze did not write are told apart."""
    assert to_currents_object(ListedObject("notes.txt", "abc", 1, datetime(2024, 1, 1, tzinfo=UTC))) is None


def test_an_hour_is_named_in_utc_whatever_the_zone() -> None:
    """The name holds no minutes, and four digits of the year."""
    time = datetime(2024, 3, 10, 1, 59, tzinfo=timezone(timedelta(hours=2)))
    assert format_hour(time) == "2024-03-09-23"
    assert parse_hour("2024-03-09-23") == datetime(2024, 3, 9, 23, tzinfo=UTC)


@pytest.mark.parametrize(
    "text",
    [
        "none",
        "2024-03-09",
        "2024-03-09-24",
        "2024-02-30-01",
        "2024-3-9-7",
        "2024-03-09T17",
        "2024-03-09-17:30",
        "20240309-17",
        "2024-W10-6-17",
    ],
)
def test_another_text_names_no_hour(text: str) -> None:
    """Only YYYY-MM-DD-HH does."""
    with pytest.raises(ValueError, match=r".+"):
        parse_hour(text)
