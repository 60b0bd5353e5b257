"""Keys of Currents files: what is read from them, and what is refused."""

import ast
import hashlib
import inspect
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.model import CurrentsObject, ListedObject, format_hour, parse_hour
from currents_bridge.sources import keys
from currents_bridge.sources.keys import READER, parse_key, to_currents_object
from currents_bridge.testing.currents_files import object_key

STEM = "dataexport.prod-01.S3.integration.5f2b1c"
CLICK = "users.messages.email.Click"
HOUR = datetime(2024, 3, 9, 17, tzinfo=UTC)
FOLDER = f"{STEM}/event_type={CLICK}/date=2024-03-09-17"
OLDER = f"braze/eu/{FOLDER}/4812/prod-01/{STEM}+3+99999.avro"
NEWER = f"{FOLDER}/version=2/prod/{STEM}+0+100000.avro"

words = st.text(st.characters(exclude_characters="/", exclude_categories=["Cs"]), min_size=1).filter(
    lambda word: "event_type=" not in word
)
hours = st.datetimes(datetime(1000, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC)).map(  # noqa: DTZ001
    lambda time: time.replace(minute=0, second=0, microsecond=0)
)


@pytest.mark.parametrize("key", [pytest.param(OLDER, id="schema id and zone"), pytest.param(NEWER, id="version")])
def test_a_key_of_each_layout_tells_type_and_hour(key: str) -> None:
    """Both of Braze's layouts are read."""
    assert parse_key(key) == (CLICK, HOUR)


def test_code_that_reads_other_keys_is_another_reader() -> None:
    """Else what the version before passed over is never listed again.

    Where keys are read that were not before, raise READER; in any case put the new digest here.
    """
    module = ast.parse(inspect.getsource(keys))
    for node in [module, *filter(lambda node: isinstance(node, ast.FunctionDef), ast.walk(module))]:
        del node.body[: ast.get_docstring(node) is not None]  # type: ignore[attr-defined, arg-type]
    code = [node for node in module.body if "READER" not in ast.dump(node)]
    digest = hashlib.sha256("".join(map(ast.unparse, code)).encode()).hexdigest()[:16]
    assert (READER, digest) == (1, "f9695ce1cf20ada4")


@given(
    event_type=words,
    hour=hours,
    layout=st.sampled_from(["schema", "version"]),
    prefix=st.lists(words).map(lambda folders: "".join(f"{folder}/" for folder in folders)),
    storage=st.from_regex(r"[A-Za-z0-9]+", fullmatch=True),
    integration=words,
    partition=st.integers(0, 10_000),
    offset=st.integers(0, 2**63),
)
def test_type_and_hour_come_back_from_every_key(event_type: str, hour: datetime, **parts: str) -> None:
    """Whatever the prefix, the kind of storage, the integration and the numbers are."""
    assert parse_key(object_key(event_type, hour, **parts)) == (event_type, hour)  # type: ignore[arg-type]


@pytest.mark.parametrize("storage", ["S3", "GCS", "AzureBlob", "R2"])
def test_the_name_of_the_connection_is_any_word(storage: str) -> None:
    """Files that were mirrored from another store keep the names that Braze gave them there."""
    assert parse_key(OLDER.replace(".S3.", f".{storage}.")) == (CLICK, HOUR)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param(OLDER.replace("4812/", "4812/x/"), id="a folder more below the hour"),
        pytest.param(OLDER.replace("4812/", ""), id="a folder less below the hour"),
        pytest.param(OLDER.replace("4812/prod-01/", ""), id="no folder below the hour"),
        pytest.param(OLDER.replace("4812/", "version=/"), id="a version without a number"),
        pytest.param(OLDER.replace("eu/", "eu/2024/copy/"), id="folders more above"),
        pytest.param(OLDER.replace(f"{STEM}/", "mirror/"), id="another name for the integration's folder"),
        pytest.param(OLDER.replace(f"{STEM}/", ""), id="no folder of the integration"),
        pytest.param(OLDER.replace("+3+99999", "+03+0000099999"), id="padded numbers"),
        pytest.param(OLDER.replace("+3+", "+"), id="no partition"),
    ],
)
def test_a_path_that_is_a_little_different_is_read(key: str) -> None:
    """Type and hour are certain, and the file's name is Braze's."""
    assert parse_key(key) == (CLICK, HOUR)


@pytest.mark.parametrize(
    "key",
    [
        pytest.param("", id="empty"),
        pytest.param(f"{OLDER}.gz", id="no avro file"),
        pytest.param(OLDER.replace("+3+99999", ""), id="no numbers"),
        pytest.param(OLDER.replace("+3+99999", "+3+99999-copy"), id="a copy"),
        pytest.param(NEWER.replace(f"{STEM}+0", "0d9c+0"), id="file of another name"),
        pytest.param(OLDER.replace("email.Click", "email/Click"), id="slash in the type"),
        pytest.param(OLDER.replace(CLICK, ""), id="empty type"),
        pytest.param(OLDER.replace("braze/", "event_type=users.X/"), id="two types"),
        pytest.param(OLDER.replace("/date=", "/app=1/date="), id="a folder between type and hour"),
        pytest.param(OLDER.replace("date=2024-03-09-17", "date=2024-03-09"), id="a day, no hour"),
        pytest.param(OLDER.replace("date=2024-03-09-17", "date=2024-02-30-17"), id="a day that never was"),
        pytest.param(OLDER.replace("date=2024-03-09-17", "date=0999-03-09-17"), id="a year with a zero in front"),
        pytest.param(OLDER.replace("/4812", "/"), id="a folder without a name"),
    ],
)
def test_a_key_that_is_not_certain_is_refused(key: str) -> None:
    """Nothing is guessed."""
    assert parse_key(key) is None


def test_a_listed_currents_file_becomes_a_currents_object() -> None:
    """Type and hour come from the key, the rest from the listing."""
    modified = datetime(2024, 3, 9, 18, 2, tzinfo=UTC)

    assert to_currents_object(ListedObject(OLDER, "abc", 123, modified)) == CurrentsObject(
        OLDER, "abc", 123, modified, CLICK, HOUR
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
