"""Files that other tools, older versions and bad disks write: from the Avro container to the messages that arrive."""

import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any

import fastavro
import pytest

from currents_bridge.model import LetterFilter, ObjectState
from currents_bridge.testing.currents_files import object_key
from tests.fuzz.crafted_files import CRAFTED
from tests.workbench import CLICK, HOUR, NAME, Bench

PIGEON = "users.messages.carrierpigeon.Send"  # no type of the catalogue, so each field becomes a property
SYNC = b"0123456789abcdef"
TIME = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
TIME_S = int(TIME.timestamp())


def encoded(avro_type: Any, value: Any) -> bytes:
    """Return a value as Avro writes it."""
    out = io.BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(avro_type), value)
    return out.getvalue()


def container(schema: Any, records: list[bytes]) -> bytes:
    """Return a container of one block, whose schema is written as it is given."""
    header = {"avro.schema": json.dumps(schema).encode(), "avro.codec": b"null"}
    content = b"".join(records)
    sizes = encoded("long", len(records)) + encoded("long", len(content))
    return b"Obj\x01" + encoded({"type": "map", "values": "bytes"}, header) + SYNC + sizes + content + SYNC


def event_schema(avro_type: Any, time_type: Any = "long", **of_field: Any) -> dict[str, Any]:
    """Return the schema of events with one more field `odd`."""
    fields = [
        {"name": "id", "type": "string"},
        {"name": "external_user_id", "type": "string"},
        {"name": "time", "type": time_type},
        {"name": "odd", "type": avro_type, **of_field},
    ]
    return {
        "type": "record",
        "name": PIGEON.rpartition(".")[2],
        "namespace": PIGEON.rpartition(".")[0],
        "fields": fields,
    }


def start(number: int) -> bytes:
    """Return all of an event but its field `odd`."""
    return encoded("string", f"event-{number}") + encoded("string", f"user-{number}") + encoded("long", TIME_S)


@pytest.fixture
def bench() -> Bench:
    """A connector's core that includes all types."""
    return Bench(include=("all",))


def delivered(bench: Bench, body: bytes) -> list[dict[str, Any]]:
    """Deliver a file; return the messages that arrived."""
    bench.store.put(object_key(PIGEON, HOUR), body, last_modified=HOUR)
    assert bench.connector().poll().error is None
    return bench.transport.messages


RECORD_A = {"type": "record", "name": "Push", "fields": [{"name": "badge", "type": "int"}]}
RECORD_B = {"type": "record", "name": "Email", "fields": [{"name": "subject", "type": "string"}]}
OF_MAPS = {"type": "record", "name": "Bag", "fields": [{"name": "m", "type": {"type": "map", "values": "int"}}]}
ODD_ENUM = {"type": "enum", "name": "Plan", "symbols": ["A-1", "b c", "GOLD"]}


@pytest.mark.parametrize(
    ("avro_type", "values", "arrive"),
    [
        ([RECORD_A, RECORD_B], [b"\x00\x06", b"\x02\x04hi"], [{"badge": 3}, {"subject": "hi"}]),
        (["null", RECORD_A, RECORD_B], [b"\x02\x06", b"\x04\x04hi"], [{"badge": 3}, {"subject": "hi"}]),
        (OF_MAPS, [b"\x02\x02a\x02\x00", b"\x02\x02b\x04\x00"], [{"m": {"a": 1}}, {"m": {"b": 2}}]),
        ({"type": "map", "values": "int"}, [b"\x02\x02a\x02\x00", b"\x02\x02b\x04\x00"], [{"a": 1}, {"b": 2}]),
        (ODD_ENUM, [b"\x00", b"\x02", b"\x04"], ["A-1", "b c", "GOLD"]),
    ],
    ids=["union of two records", "and null", "record of a map", "map with keys of its own", "odd symbols"],
)
def test_what_avro_can_say_arrives_as_it_was_written(
    bench: Bench, avro_type: Any, values: list[bytes], arrive: list[Any]
) -> None:
    """Each event with its own names and values."""
    body = container(event_schema(avro_type), [start(n) + value for n, value in enumerate(values)])
    assert [message["properties"]["odd"] for message in delivered(bench, body)] == arrive


@pytest.mark.parametrize("default", ["text", None, [], {}, 1.5, True])
def test_a_default_of_a_wrong_type_says_nothing_about_the_events(bench: Bench, default: Any) -> None:
    """A reader with the writer's own schema never needs it."""
    body = container(event_schema("int", default=default), [start(0) + b"\x0e"])
    assert [message["properties"]["odd"] for message in delivered(bench, body)] == [7]


@pytest.mark.parametrize(
    ("avro_type", "bad"),
    [
        (["null", "int"], b"\x04"),
        ("boolean", b"\x02"),
        ("long", b"\x80" * 10 + b"\x01"),
        ("int", encoded("long", 1 << 33)),
        ({"type": "enum", "name": "Few", "symbols": ["A"]}, b"\x02"),
    ],
    ids=["branch 2 of 2", "boolean 2", "varint of 11 bytes", "int of 33 bits", "symbol 1 of 1"],
)
def test_what_the_bytes_cannot_mean_is_never_delivered_as_good(bench: Bench, avro_type: Any, bad: bytes) -> None:
    """Before it all arrives; what cannot be told from it is kept, with its reason, and never guessed."""
    good = {"boolean": b"\x01", "long": b"\x02", "int": b"\x02"}.get(str(avro_type), b"\x00")
    schema = event_schema(avro_type)
    body = container(schema, [start(0) + good]) + encoded("long", 1)  # and a second block with the bad event
    body += encoded("long", len(start(1) + bad)) + start(1) + bad + SYNC
    body += encoded("long", 1) + encoded("long", len(start(2) + good)) + start(2) + good + SYNC

    arrived = [message["messageId"] for message in delivered(bench, body)]

    assert arrived == ["event-0", "event-2"]
    letters = [stored.letter for stored in bench.ledger.dead_letters(LetterFilter(NAME))]
    assert [letter.row for letter in letters] == [1] or [row["reason"] for row in bench.ledger.rows()] != [None]


@pytest.mark.parametrize(
    ("time_type", "value"),
    [
        ("long", TIME_S),
        ("long", TIME_S * 1000 + 678),
        ({"type": "long", "logicalType": "timestamp-millis"}, TIME_S * 1000 + 678),
        ({"type": "long", "logicalType": "timestamp-micros"}, TIME_S * 1_000_000 + 678_000),
        (["null", {"type": "long", "logicalType": "timestamp-millis"}], TIME_S * 1000 + 678),
        ("string", "2026-01-02T03:04:05.678Z"),
        ("string", "2026-01-02T04:04:05.678+01:00"),
        ("double", TIME_S + 0.678),
    ],
    ids=str,
)
def test_the_time_of_an_event_is_read_however_a_file_says_it(bench: Bench, time_type: Any, value: Any) -> None:
    """Seconds, longer numbers, logical types, text: the message has the moment that was meant."""
    plain = "string" if time_type == "string" else "double" if time_type == "double" else "long"
    in_union = b"\x02" if isinstance(time_type, list) else b""
    record = encoded("string", "event") + encoded("string", "user") + in_union + encoded(plain, value) + b"\x02"

    (message,) = delivered(bench, container(event_schema("int", time_type), [record]))

    said = datetime.fromisoformat(message["timestamp"])
    assert TIME - said <= timedelta(seconds=1 if value == TIME_S else 0)
    assert said <= TIME


def test_a_small_file_of_dead_letters_only_does_not_fill_the_ledger() -> None:
    """It is set aside as a whole; what it had made by then is kept, and its neighbours arrive."""
    bench = Bench()
    healthy = bench.put(3, offset=0)
    key = object_key(CLICK, HOUR, offset=1)
    bench.store.put(key, CRAFTED["bad symbols"](), last_modified=HOUR)
    while group := bench.claim():
        bench.deliver(group)

    assert bench.states_by_key() == {healthy: ObjectState.DELIVERED, key: ObjectState.QUARANTINED}
    assert "events are dead letters" in str(bench.ledger.rows())
    assert len(bench.ledger.rows("dead_letters")) < 50_000
