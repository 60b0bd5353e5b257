import io
import json

import pytest

from currents_bridge.errors import QuarantineObjectError, UsageError
from currents_bridge.events.mapping import Mapper, MappingRules
from currents_bridge.operations.inspect import inspect, raw_lines
from currents_bridge.testing.currents_files import schema_of, write_container
from tests.workbench import CLICK, clicks

MAPPER = Mapper(MappingRules(library_version="1"))
PLAIN_RECORD = schema_of(CLICK) | {"name": "Click", "namespace": "com.acme"}


def test_lines_are_the_messages_in_order() -> None:
    """One JSON object each, as they would be sent."""
    events = clicks(3)

    found, lines = inspect(io.BytesIO(write_container(schema_of(CLICK), events)), "download.avro", MAPPER)

    assert [json.loads(line)["messageId"] for line in lines] == [event["id"] for event in events]
    assert (found.event_type, found.skipped_anonymous, found.dead_letters) == (CLICK, 0, [])


def test_what_is_not_sent_is_told_apart() -> None:
    """Skipped events are counted, dead letters kept with their reason."""
    good, anonymous, absurd = clicks(3)
    events = [good, anonymous | {"external_user_id": None}, absurd | {"time": 0}]

    found, lines = inspect(io.BytesIO(write_container(schema_of(CLICK), events)), "download.avro", MAPPER)

    assert len(list(lines)) == 1
    assert (found.skipped_anonymous, [letter.row for letter in found.dead_letters]) == (1, [2])


def test_the_path_names_the_type_where_the_record_does_not() -> None:
    """A downloaded file keeps its folder."""
    body = write_container(PLAIN_RECORD, clicks(1))

    found, lines = inspect(io.BytesIO(body), f"saved/event_type={CLICK}/x.avro", MAPPER)

    assert (found.event_type, json.loads(next(lines))["event"]) == (CLICK, "Email Link Clicked")


def test_a_file_whose_type_nothing_names_is_refused() -> None:
    """The error says what to keep in the path."""
    with pytest.raises(UsageError, match="name an event type"):
        inspect(io.BytesIO(write_container(PLAIN_RECORD, clicks(1))), "x.avro", MAPPER)


@pytest.mark.parametrize("body", [b"", b"text", write_container(schema_of(CLICK), clicks(3))[:-50]])
def test_a_file_that_is_no_whole_container_is_refused(body: bytes) -> None:
    """As messages and raw."""
    with pytest.raises(QuarantineObjectError):
        list(inspect(io.BytesIO(body), "x.avro", MAPPER)[1])
    with pytest.raises(QuarantineObjectError):
        list(raw_lines(io.BytesIO(body)))


def test_raw_lines_are_the_events_as_they_stand_in_the_file() -> None:
    """Nulls included."""
    events = clicks(2)

    lines = raw_lines(io.BytesIO(write_container(schema_of(CLICK), events)))

    assert [json.loads(line) for line in lines] == events
