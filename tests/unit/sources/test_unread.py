"""Keys that are not read: what is said of them."""

import pytest

from currents_bridge.sources.keys import parse_key
from currents_bridge.sources.unread import MAX_EXAMPLES, Reason, Unread, prefix_for, reason_of

STEM = "dataexport.prod-01.S3.integration.5f2b1c"
KEY = f"braze/{STEM}/event_type=users.messages.email.Click/date=2024-03-09-17/4812/prod-01/{STEM}+3+99.avro"


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (f"{KEY}.gz", Reason.ENDING),
        (KEY.replace(".avro", ".AVRO"), Reason.ENDING),
        (KEY.replace(".avro", ""), Reason.ENDING),
        (KEY.replace(".avro", ".parquet"), Reason.ENDING),
        (KEY.replace(f"{STEM}+3+99", "0d9c7c1e-8d6f-4a52-9d57-0a4a3b6f6a11"), Reason.FILE_NAME),
        (KEY.replace("+3+99", "+3+99 (1)"), Reason.FILE_NAME),
        (KEY.replace("date=2024-03-09-17", "date=2024-03-09/hour=17"), Reason.NO_HOUR),
        (KEY.replace("date=2024-03-09-17", "date=2024-03-09"), Reason.NO_HOUR),
        (KEY.replace("date=2024-03-09-17", "date=2024-13-40-99"), Reason.NO_HOUR),
        (KEY.replace("date=2024-03-09-17", "2024/03/09/17"), Reason.NO_HOUR),
        (KEY.replace("date=", "app=1/date="), Reason.NO_HOUR),
        (KEY.replace("date=2024-03-09-17/4812/prod-01/", ""), Reason.NO_HOUR),
        (KEY.replace("event_type=", ""), Reason.NO_EVENT_TYPE),
        (KEY.replace("event_type=", "eventtype="), Reason.NO_EVENT_TYPE),
        ("braze/events.avro", Reason.NO_EVENT_TYPE),
        (KEY.replace("=", "%3D"), Reason.ENCODED),
        (KEY.replace("date=", "date%3D"), Reason.ENCODED),
        (KEY.replace("+", "%2B"), Reason.ENCODED),
        (f"old/event_type=users.X/{KEY}", Reason.SEVERAL_EVENT_TYPES),
        ("braze/notes.txt", Reason.NOT_CURRENTS),
        ("AWSLogs/123/2024/03/09/x.json.gz", Reason.NOT_CURRENTS),
        (KEY.replace(f"{STEM}+3+99.avro", "_SUCCESS"), Reason.NOT_CURRENTS),
        (KEY.replace(f"4812/prod-01/{STEM}+3+99.avro", "._x.avro.crc"), Reason.NOT_CURRENTS),
        ("braze/event_type=users.messages.email.Click_$folder$", Reason.NOT_CURRENTS),
    ],
)
def test_what_is_odd_about_a_key_is_named(key: str, reason: Reason) -> None:
    """Each of these is refused, for one reason."""
    assert parse_key(key) is None
    assert reason_of(key) is reason


def test_all_are_counted_and_a_few_of_each_reason_kept() -> None:
    """A million odd keys do not fill the memory; the empty object that marks a folder is none."""
    unread, other = Unread(), Unread()
    for number in range(1_000):
        unread.add(f"notes/{number}.txt")
        other.add(f"data/{number}.avro")
    unread.add("notes/")
    unread.merge(other)
    unread.merge(other)

    assert unread.counts == {Reason.NOT_CURRENTS: 1_000, Reason.NO_EVENT_TYPE: 2_000}
    assert unread.odd == 2_000
    assert [len(kept) for kept in unread.examples.values()] == [MAX_EXAMPLES, MAX_EXAMPLES]


def test_what_is_said_has_an_example_and_what_to_do() -> None:
    """One line for each reason."""
    unread = Unread()
    unread.add(f"{KEY}.gz")
    unread.count(Reason.PREFIX_TOO_LOW, KEY)

    ending, prefix = unread.lines()

    assert (ending.count, ending.odd, ending.of_prefix) == (1, True, False)
    assert f"{KEY}.gz" in ending.what
    assert "rename" in ending.todo
    assert (prefix.count, prefix.of_prefix) == (1, True)
    assert prefix.todo.startswith("set source.prefix to braze/, and events.include to [users.messages.email.Click]")


@pytest.mark.parametrize(
    ("key", "prefix"), [(KEY, "braze/"), (KEY.removeprefix("braze/"), '""'), (f"a/b/{KEY}", "a/b/braze/")]
)
def test_the_prefix_to_set_stands_before_the_folder_of_the_integration(key: str, prefix: str) -> None:
    """So other integrations beside it are read, too."""
    assert prefix_for(key) == prefix
