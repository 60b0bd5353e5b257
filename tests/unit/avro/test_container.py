"""Decoding: whatever Avro the container holds becomes columns, or the object is set aside."""

import io
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from currents_bridge.avro.container import Container, decode_together
from currents_bridge.errors import QuarantineObjectError, RetryLaterError

Fields = Mapping[str, Any]


def record(fields: Fields) -> dict[str, Any]:
    """Return an Avro schema with these fields, named as Braze names its records."""
    listed = [{"name": name, "type": avro_type} for name, avro_type in fields.items()]
    namespace = "dataexport.S3.inner.users.messages.email"
    return {"type": "record", "name": "Click", "namespace": namespace, "fields": listed}


def container(schema: Any, records: Sequence[Any], **options: Any) -> bytes:
    """Return a real Avro container."""
    out = io.BytesIO()
    fastavro.writer(out, schema, records, **options)
    return out.getvalue()


def rows(body: bytes, slice_bytes: int = 1 << 20) -> list[dict[str, Any]]:
    """Return all events of a container as dictionaries."""
    slices = Container(io.BytesIO(body)).slices(slice_bytes)
    return [row for piece in slices for row in piece.events.to_dicts()]


PLAIN = record({"id": "string", "n": ["null", "int"], "tags": ["null", {"type": "array", "items": ["null", "string"]}]})
PLAIN_ROWS = [{"id": f"é{i}", "n": i or None, "tags": ["a", None] if i % 2 else None} for i in range(50)]


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard"])
def test_every_codec_gives_the_same_events(codec: str) -> None:
    """The codec of a container does not show in its events."""
    assert rows(container(PLAIN, PLAIN_ROWS, codec=codec)) == PLAIN_ROWS


def test_the_record_name_is_the_full_name() -> None:
    """The second witness of an object's event type."""
    assert Container(io.BytesIO(container(PLAIN, []))).record_name.endswith("users.messages.email.Click")


def test_slices_hold_whole_blocks_and_number_their_rows() -> None:
    """A large object comes in slices of bounded size, each with the index of its first event."""
    body = container(PLAIN, PLAIN_ROWS, sync_interval=50)
    slices = list(Container(io.BytesIO(body)).slices(slice_bytes=120))
    assert len(slices) > 5
    assert [piece.first_row for piece in slices] == [
        sum(p.events.height for p in slices[:i]) for i in range(len(slices))
    ]
    assert sum(piece.events.height for piece in slices) == 50


@given(st.lists(st.fixed_dictionaries({"a": st.none() | st.text(), "b": st.floats(allow_nan=False, width=64)})))
@settings(max_examples=40)
def test_values_come_through_unchanged(records: list[dict[str, Any]]) -> None:
    """Text and numbers are what the file holds."""
    assert rows(container(record({"a": ["null", "string"], "b": "double"}), records)) == records


@pytest.mark.parametrize(
    ("avro_type", "values", "expected"),
    [
        ({"type": "map", "values": "string"}, [{"k": "v"}, {"l": "w"}], ['{"k":"v"}', '{"l":"w"}']),
        ({"type": "enum", "name": "E", "symbols": ["x", "y"]}, ["y", "x"], ["y", "x"]),
        (["null", "string", "long"], [2**60 + 1, "s", None], ["1152921504606846977", '"s"', None]),
        (
            {"type": "map", "values": ["double", "bytes"]},
            [{"k": float("nan"), "l": b"\xff"}],
            ['{"k":null,"l":"/w=="}'],
        ),
        (["string", "null"], [None, "s"], [None, "s"]),
        (["null", {"type": "record", "name": "S", "fields": [{"name": "b", "type": "int"}]}], [{"b": 1}], ['{"b":1}']),
        ("bytes", [b"\xff"], ["/w=="]),
        ({"type": "bytes", "logicalType": "decimal", "precision": 6, "scale": 2}, [Decimal("1.25")], ["1.25"]),
        ({"type": "string", "logicalType": "uuid"}, [UUID(int=7)], [str(UUID(int=7))]),
        (
            {"type": "long", "logicalType": "timestamp-millis"},
            [datetime(2026, 1, 2, tzinfo=UTC)],
            ["2026-01-02T00:00:00+00:00"],
        ),
    ],
)
def test_types_beside_those_of_currents_are_decoded_all_the_same(
    avro_type: Any, values: list[Any], expected: list[Any]
) -> None:
    """They come as values that JSON can say, however they are decoded."""
    schema = record({"id": "string", "a": avro_type})
    body = container(schema, [{"id": "x", "a": value} for value in values])
    assert [row["a"] for row in rows(body)] == expected


GOOD = container(record({"a": "string"}), [{"a": "xyz"}] * 3)


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not readable as Avro: the file is empty"),
        (b"id,time\n1,2\n" * 9, "not readable as Avro: the file does not begin as one"),
        (GOOD[:50], "not readable as Avro: the file ends in its header"),
        (GOOD.replace(b"avro.codec\x08null", b"avro.codec\x08nill"), "not readable as Avro: unknown codec 'nill'"),
        (GOOD[:-5], "1 of 1 blocks is unreadable (3 events); first at byte 189: the file ends in a block"),
        (GOOD[:-20], "1 of 1 blocks is unreadable (3 events); first at byte 189: the file ends in a block"),
        (GOOD.replace(b"\x06xyz", b"\x03xyz"), "1 of 1 blocks is unreadable (3 events); first at byte 189: "),
        (
            GOOD.replace(b"\x06\x18", b"\xfe\xff\x03\x18"),
            "1 of 1 blocks is unreadable (0 events, and an unknown number in 1 of them); first at byte 189: a block",
        ),
        (container("string", ["x"]), "the Avro file holds no records"),
    ],
    ids=[
        "empty",
        "text",
        "cut header",
        "unknown codec",
        "cut sync marker",
        "cut block",
        "bad length",
        "hostile count",
        "no records",
    ],
)
def test_what_is_no_readable_container_is_quarantined(body: bytes, reason: str) -> None:
    """The reason names what is wrong with the file."""
    with pytest.raises(QuarantineObjectError) as caught:
        rows(body)
    assert caught.value.reason.startswith(reason)


def test_a_broken_stream_is_no_fault_of_the_object() -> None:
    """Errors of the connection are tried again, not quarantined."""

    class Broken(io.BytesIO):
        def read(self, size: int | None = -1, /) -> bytes:
            if self.tell() > 100:
                raise RetryLaterError("the connection broke")
            return super().read(size)

    with pytest.raises(RetryLaterError):
        list(Container(Broken(container(PLAIN, PLAIN_ROWS))).slices())


def opened(*bodies: bytes) -> list[Container]:
    """Return the containers of these bodies."""
    return [Container(io.BytesIO(body)) for body in bodies]


@given(st.lists(st.integers(0, 30), min_size=1, max_size=5), st.sampled_from(["null", "deflate"]))
@settings(max_examples=40)
def test_containers_decoded_together_give_what_each_gives_alone(heights: list[int], codec: str) -> None:
    """In order, and it is told how many events are of which."""
    bodies = [container(PLAIN, PLAIN_ROWS[:height], codec=codec, sync_interval=200) for height in heights]

    together = decode_together(opened(*bodies))

    assert together is not None
    assert together.heights == tuple(heights)
    assert together.events.to_dicts() == [row for body in bodies for row in rows(body)]


OTHER = container(record({"id": "string"}), [{"id": "x"}])
FOR_FASTAVRO = container(record({"id": {"type": "enum", "name": "E", "symbols": ["x"]}}), [{"id": "x"}])
LARGE = container(PLAIN, PLAIN_ROWS, codec="deflate")
SMALL = container(PLAIN, PLAIN_ROWS[:2], codec="deflate")


@pytest.mark.parametrize("bodies", [[SMALL, OTHER], [FOR_FASTAVRO] * 2, [SMALL, LARGE]])
def test_containers_that_do_not_go_together_can_still_be_read_alone(bodies: list[bytes]) -> None:
    """Other schemas, types that polars cannot read, and more bytes than are allowed."""
    containers = opened(*bodies)

    assert decode_together(containers, max_bytes=200) is None
    for body, one in zip(bodies, containers, strict=True):
        assert [row for piece in one.slices() for row in piece.events.to_dicts()] == rows(body)


def test_a_schema_that_was_seen_before_reads_as_it_did_at_first() -> None:
    """What is kept of it for the next file is not changed by reading."""
    first, second = opened(FOR_FASTAVRO, FOR_FASTAVRO)

    assert first.schema_key == second.schema_key
    assert [next(one.slices()).events.rows() for one in (first, second)] == [[("x",)]] * 2
