"""Mapping: each type in the shape of Braze's connector, checked against the SDK and an oracle of plain dictionaries."""

import io
import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import fastavro
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from segment.analytics.client import Client

from currents_bridge.avro.container import Container, Slice
from currents_bridge.errors import QuarantineObjectError
from currents_bridge.events.catalogue import EventType, catalogue, general_event_type
from currents_bridge.events.mapping import (
    MAX_MESSAGE_BYTES,
    AnonymousUsers,
    Mapped,
    Mapper,
    MappingRules,
    Origin,
    Properties,
)
from currents_bridge.testing.currents_files import make_events, schema_of, write_container

HOUR = datetime(2026, 1, 2, 3, tzinfo=UTC)
MAPPED_TYPES = sorted(name for name, event_type in catalogue().items() if event_type.mapped)
KEY = "dataexport.prod-01.S3.integration.1/event_type=x/date=2026-01-02-03/1/a/f+0+1.avro"
CLICK = catalogue()["users.messages.email.Click"]
CUSTOM = catalogue()["users.behaviors.CustomEvent"]
PERSON = {"id": "e1", "user_id": "u1", "external_user_id": "x1", "time": 1767322800}


def rules(**choices: Any) -> MappingRules:
    """Return mapping rules with a fixed library version."""
    return MappingRules(library_version="1.2.3", **choices)


def map_rows(rows: Sequence[Mapping[str, Any]], event_type: EventType = CLICK, **choices: Any) -> Mapped:
    """Map events given as dictionaries; columns take the types that polars infers."""
    frame = pl.DataFrame(rows, infer_schema_length=None)
    return Mapper(rules(**choices)).map(Slice(frame, 0), event_type, KEY)


def messages(mapped: Mapped) -> list[dict[str, Any]]:
    """Return the encoded messages as JSON objects."""
    return [json.loads(text) for text in mapped.messages["message"]]


def one(row: Mapping[str, Any], event_type: EventType = CLICK, **choices: Any) -> dict[str, Any]:
    """Return the only message that the event gives."""
    (message,) = messages(map_rows([row], event_type, **choices))
    return message


def dead(row: Mapping[str, Any], event_type: EventType = CLICK, **choices: Any) -> str:
    """Return why the event cannot be sent."""
    mapped = map_rows([row], event_type, **choices)
    (letter,) = mapped.dead_letters
    assert mapped.messages.is_empty()
    return letter.reason


def placed(event_type: EventType, record: Mapping[str, Any]) -> dict[str, Any]:
    """Return `track` arguments of a record by the catalogue's placement: the slow and obvious way."""
    properties = {}
    for target, source in event_type.properties.items():
        api_id = record.get(target.removesuffix("_id") + "_api_id") if target.endswith("_id") else None
        value = api_id or record.get(source)
        if value is not None:
            properties[target] = value
    if event_type.merge_json_field and record.get(event_type.merge_json_field):
        custom = json.loads(record[event_type.merge_json_field])
        properties = {k: v for k, v in custom.items() if v is not None} | properties
    context: dict[str, Any] = {}
    for target, source in event_type.context.items():
        parent, _, leaf = target.partition(".")
        if record.get(source) is not None:
            context.setdefault(parent, {})[leaf] = record[source]
    return {
        "user_id": record["external_user_id"],
        "anonymous_id": record["user_id"],
        "event": event_type.segment_event or record["name"],
        "properties": properties,
        "context": context,
        "timestamp": datetime.fromtimestamp(record["time"], UTC),
        "message_id": record["id"],
    }


def sdk_message(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return what Segment's own library makes of the arguments, in the shape that it puts on the wire."""
    _, message = Client("unused", send=False).track(**arguments)
    del message["context"]["library"]
    message["timestamp"] = message["timestamp"].replace("+00:00", "Z")
    return {name: value for name, value in message.items() if value is not None}


def events_of(event_type: str, *, older: bool) -> list[dict[str, Any]]:
    """Return events as a real container gives them back, floats rounded as Avro stores them."""
    body = write_container(
        schema_of(event_type, older=older), make_events(event_type, 40, seed=7, hour=HOUR, older=older)
    )
    return [dict(record) for record in fastavro.reader(io.BytesIO(body)) if isinstance(record, dict)]


def rounded(value: Any) -> Any:
    """Return JSON with floats at the precision of an Avro float, so that 0.1 and its 32-bit neighbour are equal."""
    match value:
        case float():
            return float(f"{value:.6g}")
        case dict():
            return {k: rounded(v) for k, v in value.items()}
        case list():
            return [rounded(v) for v in value]
        case _:
            return value


@pytest.mark.parametrize("older", [False, True], ids=["current", "older"])
@pytest.mark.parametrize("name", MAPPED_TYPES)
def test_every_mapped_type_equals_the_catalogue_and_the_sdk(name: str, older: bool) -> None:  # noqa: FBT001 - a parameter
    """The messages of real files are those that the SDK's `track` makes of the catalogue's placement."""
    event_type = catalogue()[name]
    body = write_container(schema_of(name, older=older), make_events(name, 40, seed=7, hour=HOUR, older=older))
    (piece,) = Container(io.BytesIO(body)).slices()
    mapped = Mapper(rules()).map(piece, event_type, KEY)
    got = messages(mapped)
    for message in got:
        assert message["context"].pop("library") == {"name": "currents-bridge", "version": "1.2.3"}
    owed = [record for record in events_of(name, older=older) if record.get("external_user_id")]
    assert rounded(got) == rounded([sdk_message(placed(event_type, record)) for record in owed])
    assert mapped.skipped_anonymous == 40 - len(owed)
    assert len(owed) > 10


def test_a_message_in_full() -> None:
    """One email click, spelt out."""
    row = PERSON | {"email_address": "a@b.c", "device_model": None, "url": 'https://x/?a="b"', "is_amp": False}
    assert one(row, integrations={"Braze": False}) == {
        "type": "track",
        "messageId": "e1",
        "timestamp": "2026-01-02T03:00:00.000Z",
        "userId": "x1",
        "anonymousId": "u1",
        "event": "Email Link Clicked",
        "integrations": {"Braze": False},
        "context": {
            "library": {"name": "currents-bridge", "version": "1.2.3"},
            "traits": {"email": "a@b.c"},
        },
        "properties": {"link_url": 'https://x/?a="b"', "is_amp": False},
    }


@pytest.mark.parametrize("external", [None, ""])
def test_users_without_external_id_are_skipped_and_counted(external: str | None) -> None:
    """As Braze's connector does."""
    mapped = map_rows([PERSON | {"external_user_id": external}, PERSON])
    assert (mapped.skipped_anonymous, mapped.messages.height) == (1, 1)


@pytest.mark.parametrize("external", [None, ""])
def test_users_without_external_id_are_sent_with_the_braze_id_where_asked(external: str | None) -> None:
    """`anonymous_users: send` gives messages with an anonymousId and no userId."""
    message = one(PERSON | {"external_user_id": external}, anonymous_users=AnonymousUsers.SEND)
    assert "userId" not in message
    assert message["anonymousId"] == "u1"


def test_a_skipped_event_is_no_dead_letter_whatever_else_is_wrong_with_it() -> None:
    """Only events that are owed can be dead letters."""
    mapped = map_rows([PERSON | {"external_user_id": None, "time": -1}, PERSON])
    assert (mapped.skipped_anonymous, list(mapped.dead_letters)) == (1, [])


def test_the_api_id_of_older_files_is_the_property() -> None:
    """Files of 2021 hold Braze-internal ids in `X_id` and the public ones in `X_api_id`."""
    rows = [
        PERSON | {"campaign_id": "internal", "campaign_api_id": "public"},
        PERSON | {"campaign_id": "current", "campaign_api_id": None},
    ]
    properties = [message["properties"] for message in messages(map_rows(rows))]
    assert properties == [{"campaign_id": "public"}, {"campaign_id": "current"}]


@pytest.mark.parametrize(("fresh", "ids"), [(False, ["e1", "e2", "e3"]), (True, ["e1", "e2-r1", "e3-r2"])])
def test_ids_of_objects_that_are_sent_again_are_marked_where_that_is_wanted(fresh: bool, ids: list[str]) -> None:  # noqa: FBT001
    """With the number of times, so that each time has ids of its own."""
    frame = pl.DataFrame([PERSON | {"id": f"e{number}"} for number in (1, 2, 3)])
    origins = [Origin(f"{KEY}{rewinds}", 0, 1, rewinds) for rewinds in range(3)]

    mapped = Mapper(rules(fresh_message_ids=fresh)).map_together(frame, CLICK, origins)

    assert [of_object.messages["message_id"].item() for of_object in mapped] == ids
    assert [json.loads(of_object.messages["message"].item())["messageId"] for of_object in mapped] == ids


def test_the_message_id_prefix_stands_before_every_id() -> None:
    """It keeps two sources apart that share Segment's deduplication."""
    assert one(PERSON, message_id_prefix="eu-")["messageId"] == "eu-e1"


def test_an_event_without_id_gets_one_from_its_key_and_row() -> None:
    """The derived id is the same on every run, and differs by row and by object."""
    frame = pl.DataFrame([PERSON | {"id": None}, PERSON | {"id": ""}])
    mapper = Mapper(rules())
    ids = mapper.map(Slice(frame, 5), CLICK, KEY).messages["message_id"].to_list()
    assert ids == mapper.map(Slice(frame, 5), CLICK, KEY).messages["message_id"].to_list()
    assert ids == mapper.map(Slice(frame.drop("id"), 5), CLICK, KEY).messages["message_id"].to_list()
    assert [i.endswith(f"-{row}") for i, row in zip(ids, (5, 6), strict=True)] == [True, True]
    assert not set(ids) & set(mapper.map(Slice(frame, 5), CLICK, KEY + "x").messages["message_id"])


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"time": None}, "no time that is a number or a date"),
        ({"time": "yesterday"}, "no time that is a number or a date"),
        ({"time": float("nan")}, "no time that is a number or a date"),
        ({"time": 0}, "time 0 is not between 2010 and 2100"),
        ({"time": -(2**62)}, "is not between 2010 and 2100"),
        ({"time": "1767322800" * 1000}, f"time {'1767322800' * 10} is not between 2010 and 2100"),
        ({"time": "9999-12-31T00:00:00Z"}, "time 9999-12-31T00:00:00Z is not between 2010 and 2100"),
        ({"time": True}, "the event has no time"),
        ({"time": [1767322800]}, "the event has no time"),
        ({"time": {"seconds": 1767322800}}, "the event has no time"),
        ({"time": date(1970, 1, 2)}, "time 1970-01-02 is not between 2010 and 2100"),
        ({"id": "x" * 100}, "the message id has 100 characters"),
        ({"url": "x" * 33000}, "bytes, Segment takes 32768"),
    ],
)
def test_an_unsendable_event_is_a_dead_letter_with_its_reason(changes: Mapping[str, Any], reason: str) -> None:
    """It costs itself only, and is kept as it was read."""
    assert reason in dead({**PERSON, **changes})


def test_a_dead_letter_keeps_the_event_its_row_and_its_message_id() -> None:
    """Enough to find it in the file and to send it again."""
    mapped = map_rows([PERSON, PERSON | {"id": "e2", "time": 5}])
    (letter,) = mapped.dead_letters
    assert (letter.row, letter.message_id) == (1, "e2")
    assert json.loads(letter.event) == PERSON | {"id": "e2", "time": 5}


def test_an_event_with_neither_user_id_is_a_dead_letter_when_anonymous_users_are_sent() -> None:
    """Segment takes no message without userId and anonymousId."""
    row = PERSON | {"external_user_id": None, "user_id": None}
    frame = [row, PERSON]
    mapped = map_rows(frame, anonymous_users=AnonymousUsers.SEND)
    assert [letter.reason for letter in mapped.dead_letters] == ["the event has neither external_user_id nor user_id"]


def test_a_fractional_time_keeps_its_milliseconds() -> None:
    """A `time` retyped to a float loses nothing."""
    assert one(PERSON | {"time": 1767322800.25})["timestamp"] == "2026-01-02T03:00:00.250Z"


def test_retyped_fields_keep_their_value() -> None:
    """Ids become text, properties stay what the file holds."""
    message = one(PERSON | {"external_user_id": 17, "id": 5, "is_amp": "yes", "link_id": 3})
    assert (message["userId"], message["messageId"]) == ("17", "5")
    assert message["properties"] == {"is_amp": "yes", "link_id": 3}


def test_names_from_the_configuration_win() -> None:
    """`events.names` renames a type."""
    assert one(PERSON, names={CLICK.name: "Clicked!"})["event"] == "Clicked!"


def test_all_properties_adds_every_other_field() -> None:
    """Storage-only fields and fields that the catalogue does not know keep their own name."""
    row = PERSON | {"url": "u", "timezone": "UTC", "brand_new": [1, 2], "email_address": "a@b.c", "gender": None}
    every = {"link_url": "u", "timezone": "UTC", "brand_new": [1, 2]}
    assert one(row, properties=Properties.ALL)["properties"] == every
    assert one(row)["properties"] == {"link_url": "u"}


def test_a_type_outside_the_catalogue_is_mapped_by_the_general_rules() -> None:
    """Identity, context, every other field as a property, a name from the type."""
    row = PERSON | {"device_model": "Pixel", "platform": "android", "wing_span": 3, "dispatch_id": None}
    message = one(row, general_event_type("users.messages.carrierpigeon.Send"))
    assert message["event"] == "Carrierpigeon Send"
    assert message["context"]["device"] == {"model": "Pixel", "type": "android"}
    assert message["properties"] == {"wing_span": 3}


def test_custom_events_take_their_name_from_the_record() -> None:
    """And their own properties are merged; Braze's fields win, null values are left out."""
    row = PERSON | {"name": "Bought tea", "properties": '{"cups": 2, "name": "x", "note": null, "n": {"a": [1]}}'}
    message = one(row, CUSTOM)
    assert message["event"] == "Bought tea"
    assert message["properties"] == {"cups": 2, "name": "Bought tea", "n": {"a": [1]}}


@pytest.mark.parametrize("name", [None, ""])
def test_a_custom_event_without_name_is_a_dead_letter(name: str | None) -> None:
    """Segment takes no track call without an event name."""
    assert dead(PERSON | {"name": name, "properties": "{}"}, CUSTOM) == "the event has no name"


def test_text_that_looks_like_a_null_member_arrives() -> None:
    """In a list, the end of one text and the start of the next may look like one."""
    row = PERSON | {"many": ["a,", ":null", "b,", 'c":null'], "none": None}
    assert one(row, properties=Properties.ALL)["properties"] == {"many": row["many"]}


def test_nested_records_leave_out_their_nulls() -> None:
    """Also inside lists."""
    row = PERSON | {"extra": {"a": None, "b": {"c": None, "d": 1}}, "many": [{"x": None, "y": 1}, None]}
    properties = one(row, properties=Properties.ALL)["properties"]
    assert properties == {"extra": {"b": {"d": 1}}, "many": [{"y": 1}, None]}


@pytest.mark.parametrize("missing", [["time"], ["user_id", "external_user_id"]])
def test_a_file_without_time_or_user_ids_is_foreign(missing: list[str]) -> None:
    """The whole object is set aside."""
    with pytest.raises(QuarantineObjectError, match="no Currents file"):
        map_rows([{k: v for k, v in PERSON.items() if k not in missing}])


fates = st.lists(st.sampled_from(["sent", "anonymous", "refused", "too large", "without id"]), max_size=6)


@given(st.lists(st.tuples(fates, st.integers(0, 100)), min_size=1, max_size=5), st.sampled_from(AnonymousUsers))
@settings(max_examples=60, deadline=None)
def test_objects_mapped_together_give_what_each_gives_alone(
    objects: list[tuple[list[str], int]], anonymous_users: AnonymousUsers
) -> None:
    """Messages, rows, derived ids, counts and dead letters, whatever became of the others."""
    change: dict[str, dict[str, Any]] = {
        "sent": {},
        "anonymous": {"external_user_id": None},
        "refused": {"time": 0},
        "too large": {"url": "u" * MAX_MESSAGE_BYTES},
        "without id": {"id": None},
    }
    schema = {"id": pl.String, "user_id": pl.String, "external_user_id": pl.String, "time": pl.Int64, "url": pl.String}
    frames = [pl.DataFrame([PERSON | change[fate] for fate in fates], schema=schema) for fates, _ in objects]
    origins = [Origin(f"key {n}", first, frames[n].height) for n, (_, first) in enumerate(objects)]
    mapper = Mapper(rules(anonymous_users=anonymous_users))

    together = mapper.map_together(pl.concat(frames), CLICK, origins)

    for mapped, frame, origin in zip(together, frames, origins, strict=True):
        alone = mapper.map(Slice(frame, origin.first_row), CLICK, origin.object_key)
        assert mapped.messages.rows() == alone.messages.rows()
        assert (mapped.skipped_anonymous, mapped.dead_letters) == (alone.skipped_anonymous, alone.dead_letters)
        assert mapped.messages.height + mapped.skipped_anonymous + len(mapped.dead_letters) == frame.height


tricky = st.text() | st.sampled_from(['","y":null', '"":0,', "\\", '{"":0}', ',"a":null', "\u2028", "\x00", "😀"])


@given(st.lists(st.tuples(tricky, tricky, st.none() | st.floats(), st.none() | tricky), min_size=1, max_size=8))
@settings(max_examples=200)
def test_any_text_and_number_makes_valid_json(values: list[tuple[str, str, float | None, str | None]]) -> None:
    """Whatever a field holds arrives as it was; NaN and infinity, which JSON cannot say, are left out."""
    frame = [PERSON | {"url": a, "link_alias": b, "ip_pool": c, "browser": d} for a, b, c, d in values]
    finite = float("inf")
    for message, (a, b, c, d) in zip(messages(map_rows(frame)), values, strict=True):
        expected = {"link_url": a, "link_alias": b, "ip_pool": c, "browser": d}
        left_out = [k for k, v in expected.items() if v is None or (isinstance(v, float) and not -finite < v < finite)]
        assert message["properties"] == {k: v for k, v in expected.items() if k not in left_out}
