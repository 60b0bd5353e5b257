"""The catalogue: its facts hold together, and tokens select event types."""

import pytest

from currents_bridge.events.catalogue import (
    ArrayType,
    EventType,
    Field,
    catalogue,
    general_event_type,
    problems,
    select,
    supported_types,
)

CLICK = catalogue()["users.messages.email.Click"]
UNKNOWN = "users.messages.carrierpigeon.Send"
IDENTITY = {"id", "user_id", "external_user_id", "time"}
by_name = pytest.mark.parametrize("event", catalogue().values(), ids=list(catalogue()))


def test_the_catalogue_is_complete() -> None:
    """100 types, 55 of them supported, 93 sent to Segment by Braze, sorted by name."""
    events = catalogue().values()
    assert len(events) == 100
    assert len(supported_types()) == 55
    assert sum(event.mapped for event in events) == 93
    assert list(catalogue()) == sorted(catalogue())


def test_families_are_the_documented_ones() -> None:
    """A user names them in the configuration."""
    assert {event.family for event in catalogue().values()} == {"behaviors", "campaigns", "canvas", "messages", "other"}


def test_supported_types_are_mapped() -> None:
    """What is delivered by default has a name and a placement."""
    assert all(catalogue()[name].mapped and catalogue()[name].segment_event for name in supported_types())


@by_name
def test_each_placement_is_fed_by_a_field(event: EventType) -> None:
    """Every target takes its value from a field of current or older files, and no field is in two places."""
    names = {field.name for field in event.fields + event.older_fields}
    placed = [*event.context.values(), *event.properties.values(), *event.storage_only]
    assert set(placed) <= names
    assert len(placed) == len(set(placed))
    assert IDENTITY.isdisjoint(placed)
    assert event.merge_json_field is None or event.merge_json_field in event.storage_only


@by_name
def test_each_current_field_of_a_mapped_type_has_a_place(event: EventType) -> None:
    """Identity, context, property or storage only: nothing is left out by oversight."""
    if event.mapped:
        placed = {*event.context.values(), *event.properties.values(), *event.storage_only}
        assert {field.name for field in event.fields} - IDENTITY <= placed
        assert {field.name for field in event.fields} >= IDENTITY


@by_name
def test_each_mapped_type_has_a_name_for_its_events(event: EventType) -> None:
    """A fixed one, or a field that holds it; types that Braze keeps from Segment have neither."""
    assert [event.segment_event is not None, event.event_name_field is not None].count(True) == int(event.mapped)


@by_name
def test_fields_have_avro_types(event: EventType) -> None:
    """Primitives, or arrays of primitives; a field of older files is not a current one."""
    primitives = {"string", "int", "long", "float", "double", "boolean"}
    for field in event.fields + event.older_fields:
        assert (field.type.items if isinstance(field.type, ArrayType) else field.type) in primitives
    assert {f.name for f in event.fields}.isdisjoint(f.name for f in event.older_fields)


def test_an_event_type_in_full() -> None:
    """Spot checks against Braze's glossary."""
    assert CLICK.segment_event == "Email Link Clicked"
    assert CLICK.context == {"device.model": "device_model", "traits.email": "email_address"}
    assert CLICK.properties["link_url"] == "url"
    assert CLICK.properties["campaign_id"] == "campaign_id"
    assert CLICK.storage_only == ("timezone",)
    assert Field("external_user_id", "string", nullable=True) in CLICK.fields
    assert Field("suspected_bot_click_reason", ArrayType("string", nullable_items=False), nullable=True) in CLICK.fields
    assert Field("time_custom_attributes", ArrayType("long", nullable_items=True), nullable=True) in CLICK.older_fields
    custom = catalogue()["users.behaviors.CustomEvent"]
    assert (custom.event_name_field, custom.merge_json_field) == ("name", "properties")
    assert catalogue()["users.behaviors.app.NewsFeedImpression"].retired


@pytest.mark.parametrize(
    ("include", "exclude", "expected"),
    [
        (["users.messages.sms.Send"], [], {"users.messages.sms.Send"}),
        (["users.messages.sms.S*"], ["*.ShortLinkClick"], {"users.messages.sms.Send"}),
        (["users.messages.SMS.*"], [], set()),
        (["users_campaigns_abort", "users_canvas_abort"], [], {"users.campaigns.Abort", "users.canvas.Abort"}),
        (["supported"], ["supported"], set()),
        (["campaigns"], ["users_campaigns_abort"], {"users.campaigns.Conversion", "users.campaigns.EnrollInControl"}),
        (["users.profile.*"], [], {"users.profile.Update"}),
        ([], ["all"], set()),
        ([UNKNOWN], [], {UNKNOWN}),
        ([UNKNOWN], ["users.messages.*"], set()),
    ],
)
def test_tokens_select_types(include: list[str], exclude: list[str], expected: set[str]) -> None:
    """Names, globs, `supported`, families and the documented spellings; what is excluded wins."""
    assert select(include, exclude) == expected


def test_supported_selects_the_supported_types() -> None:
    """The default of the configuration."""
    assert select(["supported"], [], known=[UNKNOWN]) == set(supported_types())


def test_all_selects_mapped_and_unknown_types() -> None:
    """What Braze keeps from Segment on purpose stays out; what Braze added since does not."""
    assert select(["all"], [], known=[UNKNOWN, "users.profile.Update"]) == {
        UNKNOWN,
        *(name for name, event in catalogue().items() if event.mapped),
    }


def test_a_family_selects_its_mapped_types() -> None:
    """And the family that has none selects all of its types, rather than nothing."""
    assert "users.canvas.Entry" in select(["canvas"], [])
    assert "users.canvas.costep.Send" not in select(["canvas"], [])
    assert "users.profile.Update" in select(["other"], [])


def test_globs_match_unknown_types_seen_in_the_bucket() -> None:
    """The catalogue need not know a type for a glob to take it in."""
    assert UNKNOWN in select(["users.messages.*"], [], known=[UNKNOWN])
    assert select(["all"], ["*.carrierpigeon.*"], known=[UNKNOWN]) == select(["all"], [])


@pytest.mark.parametrize(
    "token",
    ["all", "supported", "other", "users_canvas_abort", "users.campaigns.Abort", "*.email.*", "users.new.*", UNKNOWN],
)
def test_tokens_that_can_match_are_no_problem(token: str) -> None:
    """Also names and globs of types that Braze may yet add."""
    assert problems([token]) == []


@pytest.mark.parametrize(
    ("token", "advice"),
    [
        ("suported", "did you mean `supported`?"),
        ("message", "did you mean `messages`?"),
        ("email.Click", "did you mean `users.messages.email.Click`?"),
        ("users.messages.email.click", "did you mean `users.messages.email.Click`?"),
        ("email.*", "did you mean `*.email.*`?"),
        ("xyz*", "`events --all` lists the types"),
        ("", "`events --all` lists the types"),
    ],
)
def test_a_token_that_can_never_match_is_a_problem(token: str, advice: str) -> None:
    """With what was probably meant."""
    (problem,) = problems(["all", token])
    assert problem.startswith(f"`{token}` matches no event type")
    assert problem.endswith(advice)


@pytest.mark.parametrize(
    ("name", "segment_event"),
    [
        (UNKNOWN, "Carrierpigeon Send"),
        ("users.canvas.sendtodestination.NotSent", "Sendtodestination Not Sent"),
        ("users.RandomBucketNumberUpdate", "Users Random Bucket Number Update"),
        ("users.messages.rich_card.SMSRetry2", "Rich Card SMS Retry 2"),
        ("plain", "Plain"),
        ("дом", "дом"),
    ],
)
def test_a_general_type_is_named_by_its_last_words(name: str, segment_event: str) -> None:
    """The words of the last two parts, each with a capital, verbs as they are."""
    assert general_event_type(name).segment_event == segment_event


def test_a_general_type_has_the_usual_context_and_takes_every_field() -> None:
    """No placement is known, so fields keep their names."""
    event = general_event_type(UNKNOWN)
    assert event.context == {
        "device.model": "device_model",
        "device.type": "platform",
        "traits.email": "email_address",
        "traits.phone": "to_phone_number",
    }
    assert event.open_ended
    assert event.properties == {}
    assert event.fields == ()


def test_a_general_type_keeps_what_the_catalogue_knows() -> None:
    """Types without a Segment payload have a family and fields all the same."""
    event = general_event_type("users.canvas.costep.Send")
    assert (event.family, event.segment_event) == ("canvas", "Costep Send")
    assert event.fields == catalogue()["users.canvas.costep.Send"].fields
