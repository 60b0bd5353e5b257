"""The writer of Currents files: real Avro, realistic events, the same for the same seed."""

import json
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import fastavro
import polars as pl
import pytest

from currents_bridge.events.catalogue import catalogue
from currents_bridge.testing.currents_files import (
    large_file,
    make_events,
    object_key,
    sample_file,
    schema_of,
    write_container,
)

HOUR = datetime(2026, 1, 2, 3, tzinfo=UTC)
CLICK = "users.messages.email.Click"


def read(body: bytes) -> list[dict[str, Any]]:
    """Return the records of a container."""
    return [record for record in fastavro.reader(BytesIO(body)) if isinstance(record, dict)]


def as_stored(value: Any) -> Any:
    """Return a value with floats as 32 bits keep them, to six digits."""
    match value:
        case float():
            return float(f"{value:.6g}")
        case list():
            return [as_stored(item) for item in value]
        case _:
            return value


@pytest.mark.parametrize("older", [False, True], ids=["current", "older"])
@pytest.mark.parametrize("event_type", [*catalogue(), "users.messages.carrierpigeon.Send"])
def test_every_type_can_be_read_back(event_type: str, older: bool) -> None:  # noqa: FBT001 - a parameter
    """By fastavro with the same values, and by polars with as many rows."""
    events = make_events(event_type, 30, seed=1, hour=HOUR, older=older)
    body = write_container(schema_of(event_type, older=older), events)
    assert [{k: as_stored(v) for k, v in e.items()} for e in read(body)] == [
        {k: as_stored(v) for k, v in e.items()} for e in events
    ]
    assert pl.read_avro(BytesIO(body)).height == 30


@pytest.mark.parametrize("codec", ["null", "deflate", "snappy", "zstandard", "bzip2", "xz"])
def test_every_codec_can_be_written(codec: str) -> None:
    """Braze's samples use null; others may come."""
    _, body = sample_file(CLICK, HOUR, 20, seed=1, codec=codec)
    reader = fastavro.reader(BytesIO(body))
    assert reader.codec == codec
    assert len(list(reader)) == 20


def test_the_record_is_named_after_the_event_type() -> None:
    """The second witness beside the key."""
    schema = schema_of(CLICK)
    assert (schema["namespace"], schema["name"]) == ("dataexport.S3.inner.users.messages.email", "Click")


def test_fields_that_tell_of_a_person_are_marked() -> None:
    """As in Braze's files."""
    docs = {field["name"]: field["doc"] for field in schema_of("users.messages.sms.Send")["fields"]}
    assert docs["to_phone_number"] == "to phone number [PII]"
    assert docs["campaign_id"] == "campaign id"


def test_the_same_seed_gives_the_same_file() -> None:
    """And another seed, hour or type gives other ids."""
    assert sample_file(CLICK, HOUR, 50, seed=7) == sample_file(CLICK, HOUR, 50, seed=7)
    files = [
        sample_file(CLICK, HOUR, 50, seed=7),
        sample_file(CLICK, HOUR, 50, seed=8),
        sample_file(CLICK, HOUR + timedelta(hours=1), 50, seed=7),
        sample_file("users.messages.email.Open", HOUR, 50, seed=7),
    ]
    assert len({event["id"] for _, body in files for event in read(body)}) == 200


def test_the_shares_of_nulls_are_as_asked() -> None:
    """None, all, or about the share."""
    full = make_events(CLICK, 50, seed=1, hour=HOUR, anonymous_share=0, null_share=0)
    assert not any(value is None for event in full for value in event.values())
    empty = make_events(CLICK, 50, seed=1, hour=HOUR, anonymous_share=1, null_share=1)
    assert {name for event in empty for name, value in event.items() if value is not None} == {
        "id",
        "user_id",
        "time",
        "email_address",
    }
    events = make_events(CLICK, 1000, seed=1, hour=HOUR, anonymous_share=0.3)
    assert 250 < sum(event["external_user_id"] is None for event in events) < 350


def test_a_message_comes_from_a_campaign_or_a_canvas() -> None:
    """Never from both."""
    events = make_events(CLICK, 200, seed=1, hour=HOUR)
    assert {(e["campaign_id"] is None, e["canvas_id"] is None) for e in events} == {
        (False, True),
        (True, False),
        (True, True),
    }


def test_events_happen_within_the_hour() -> None:
    """In seconds since 1970."""
    start = int(HOUR.timestamp())
    assert all(start <= e["time"] < start + 3600 for e in make_events(CLICK, 200, seed=1, hour=HOUR))


def test_older_files_hold_internal_ids_beside_api_ids() -> None:
    """As until mid-2021."""
    (event,) = make_events(CLICK, 1, seed=1, hour=HOUR, older=True, null_share=0)
    assert len(event["campaign_id"]) == 24
    assert len(event["campaign_api_id"]) == 36


def test_custom_properties_are_json_objects() -> None:
    """As text in the field `properties`."""
    events = make_events("users.behaviors.CustomEvent", 20, seed=1, hour=HOUR)
    assert all(isinstance(json.loads(event["properties"]), dict) for event in events)


def test_fields_can_be_left_out_added_and_retyped() -> None:
    """Schemas change monthly, so tests need files of other schemas."""
    overrides: dict[str, Any] = {"browser": None, "is_amp": ["null", "string"], "brand_new": "double"}
    events = make_events(CLICK, 20, seed=1, hour=HOUR, overrides=overrides)
    frame = pl.read_avro(BytesIO(write_container(schema_of(CLICK, overrides=overrides), events)))
    assert "browser" not in frame.columns
    assert frame.select("is_amp", "brand_new").dtypes == [pl.String, pl.Float64]


def test_repeated_events_follow_the_first_one() -> None:
    """Delivery by Braze is at least once: the count holds the repeats."""
    _, body = sample_file(CLICK, HOUR, 100, seed=1, duplicate_share=0.1)
    events = read(body)
    assert len(events) == 100
    assert len({event["id"] for event in events}) == 90
    assert all(event == next(e for e in events if e["id"] == event["id"]) for event in events)


def test_keys_in_both_layouts() -> None:
    """Spelt out, as Braze's Currents pages have them."""
    stem = "dataexport.prod-01.S3.integration.abc"
    assert object_key(CLICK, HOUR, integration="abc", partition=2, offset=99999) == (
        f"{stem}/event_type={CLICK}/date=2026-01-02-03/414/central/{stem}+2+99999.avro"
    )
    assert object_key(CLICK, HOUR, layout="version", prefix="raw/", integration="abc") == (
        f"raw/{stem}/event_type={CLICK}/date=2026-01-02-03/version=3/production/{stem}+0+0.avro"
    )


@pytest.mark.parametrize("event_type", [CLICK, "users.campaigns.Abort"], ids=["id comes first", "id comes later"])
def test_a_large_file_has_as_many_events_as_asked_each_with_its_own_id(event_type: str) -> None:
    """Made of a few events over and over, the same for the same seed, in blocks as Braze's."""
    body = large_file(event_type, 5000, seed=1, hour=HOUR)
    events = read(body)
    assert len({event["id"] for event in events}) == len(events) == 5000
    assert {len(event["id"]) for event in events} == {36}
    assert {k: v for k, v in events[0].items() if k != "id"} == {k: v for k, v in events[2000].items() if k != "id"}
    assert body == large_file(event_type, 5000, seed=1, hour=HOUR)
    assert {block.num_records for block in fastavro.block_reader(BytesIO(body))} == {20}
