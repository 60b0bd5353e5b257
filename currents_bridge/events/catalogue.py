"""What is known of each Currents event type: its fields, and how Braze's Segment connector places them.

The facts, and where they came from, stand in `catalogue.json` beside this file.
"""

import difflib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any

SUPPORTED = "supported"
ALL = "all"
DOCUMENTED_SPELLINGS: Mapping[str, str] = MappingProxyType(
    {"users_campaigns_abort": "users.campaigns.Abort", "users_canvas_abort": "users.canvas.Abort"}
)  # Braze's pages spell these two as no object key does

# Where a field of a type without a placement goes: the places that the catalogue has for fields of these names.
# `user_phone_number`, the phone of inbound messages, shares its place with `to_phone_number` and stays a property.
_GENERAL_CONTEXT: Mapping[str, str] = MappingProxyType(
    {
        "device.model": "device_model",
        "device.type": "platform",
        "traits.email": "email_address",
        "traits.phone": "to_phone_number",
    }
)
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_TYPE_NAME = re.compile(r"[A-Za-z0-9_]+(\.[A-Za-z0-9_]+)+")


@dataclass(frozen=True, slots=True)
class ArrayType:
    """An Avro array of one primitive type."""

    items: str
    nullable_items: bool


@dataclass(frozen=True, slots=True)
class Field:
    """One field of an event's Avro record."""

    name: str
    type: str | ArrayType  # str: string, int, long, float, double, boolean
    nullable: bool


@dataclass(frozen=True, slots=True)
class EventType:
    """One event type and how its events become Segment track calls; hashed by its name, mostly."""

    name: str  # as in `event_type=` of the object key
    family: str  # behaviors, campaigns, canvas, messages, other
    supported: bool = False  # delivered by default
    retired: bool = False  # Braze writes it no longer; files of it remain
    segment_event: str | None = None  # the track call's event name
    event_name_field: str | None = None  # the field that holds the event name, where `segment_event` is None
    context: Mapping[str, str] = field(default_factory=dict, hash=False)  # dotted path under `context` -> field
    properties: Mapping[str, str] = field(default_factory=dict, hash=False)  # property -> field
    storage_only: tuple[str, ...] = ()  # fields that Braze's connector does not send
    merge_json_field: str | None = None  # holds a JSON object whose keys become properties
    fields: tuple[Field, ...] = field(default=(), hash=False)
    older_fields: tuple[Field, ...] = field(default=(), hash=False)  # further fields of files of earlier versions
    open_ended: bool = False  # fields that are placed nowhere become properties of the same name

    @property
    def mapped(self) -> bool:
        """Whether Braze's connector sends this type, so that its placement is known."""
        return bool(self.properties)


@cache
def catalogue() -> Mapping[str, EventType]:
    """Return every known event type by its name, in the order of names."""
    text = resources.files("currents_bridge.events").joinpath("catalogue.json").read_text(encoding="utf-8")
    events = map(_event_type, json.loads(text)["events"])
    return MappingProxyType({event.name: event for event in events})


def supported_types() -> tuple[str, ...]:
    """Return the names of the types that are delivered by default, sorted."""
    return tuple(name for name, event in catalogue().items() if event.supported)


def canonical_name(name: str) -> str:
    """Return the type's name where `name` is another documented spelling of it, else `name` itself."""
    return DOCUMENTED_SPELLINGS.get(name, name)


def select(include: Sequence[str], exclude: Sequence[str], known: Iterable[str] = ()) -> frozenset[str]:
    """Return the names of the event types that `include` takes in and `exclude` does not take out.

    A token is a type's name (also one that the catalogue lacks), a glob (`users.messages.email.*`, case-sensitive),
    `supported`, a family, or `all`. A family holds its mapped types; `other` has none, so it holds all of its types.
    `all` holds the mapped types and whatever of `known` the catalogue lacks, so that a type that Braze adds is not
    lost; what Braze keeps from Segment on purpose takes its name, a glob or `other`.

    Args:
        include: tokens.
        exclude: tokens; they win.
        known: names seen in the bucket; those that the catalogue lacks are matched by name, glob and `all`.
    """
    unknown = frozenset(known) - catalogue().keys()
    included = _named(include, unknown)
    return included - _named(exclude, unknown | (included - catalogue().keys()))


def problems(tokens: Iterable[str]) -> list[str]:
    """Return, one sentence each, the tokens of `select` that can match no event type."""
    return [_problem(token) for token in tokens if not _can_match(token)]


def general_event_type(name: str) -> EventType:
    """Return an event type mapped by the general rules, for a name that the catalogue lacks or has no placement for.

    Device, e-mail address and phone go into the context, every other field becomes a property, and the Segment event
    is named by the words of the type's last two parts: `users.messages.carrierpigeon.DropOff` is
    `Carrierpigeon Drop Off`.
    """
    listed = catalogue().get(name)
    words = (word for part in name.split(".")[-2:] for word in _WORD.findall(part))
    return EventType(
        name=name,
        family=listed.family if listed else "other",
        segment_event=" ".join(word[0].upper() + word[1:] for word in words) or name,
        context=_GENERAL_CONTEXT,
        fields=listed.fields if listed else (),
        open_ended=True,
    )


def _event_type(event: dict[str, Any]) -> EventType:
    placed = {name: name for name in event.get("properties", ())} | event.get("renamed", {})
    return EventType(
        name=event["event_type"],
        family=event["family"],
        supported=event.get("supported", False),
        retired=event.get("retired", False),
        segment_event=event.get("segment_event"),
        event_name_field=event.get("event_name_field"),
        context=MappingProxyType(event.get("context", {})),
        properties=MappingProxyType(placed),
        storage_only=tuple(event.get("storage_only", ())),
        merge_json_field=event.get("merge_json_field"),
        fields=_fields(event["fields"]),
        older_fields=_fields(event.get("older_fields", {})),
    )


def _fields(types: Mapping[str, str]) -> tuple[Field, ...]:
    return tuple(Field(name, _avro_type(text.removesuffix("?")), text.endswith("?")) for name, text in types.items())


def _avro_type(text: str) -> str | ArrayType:
    if not text.startswith("["):
        return text
    items = text[1:-1]
    return ArrayType(items.removesuffix("?"), items.endswith("?"))


@cache
def _families() -> Mapping[str, frozenset[str]]:
    families: dict[str, list[EventType]] = {}
    for event in catalogue().values():
        families.setdefault(event.family, []).append(event)
    return {
        family: frozenset(e.name for e in events if e.mapped) or frozenset(e.name for e in events)
        for family, events in families.items()
    }


def _named(tokens: Iterable[str], unknown: frozenset[str]) -> frozenset[str]:
    """Return the names that the tokens stand for, among the catalogue's and `unknown`, and exact names as they are."""
    return frozenset().union(*(_named_by(token, unknown) for token in tokens))


def _named_by(token: str, unknown: frozenset[str]) -> frozenset[str]:
    token = canonical_name(token)
    if token == SUPPORTED:
        return frozenset(supported_types())
    if token == ALL:
        return unknown.union(name for name, event in catalogue().items() if event.mapped)
    if token in _families():
        return _families()[token]
    if _is_glob(token):
        return frozenset(name for name in unknown.union(catalogue()) if fnmatchcase(name, token))
    return frozenset([token])


def _is_glob(token: str) -> bool:
    return any(sign in token for sign in "*?[")


def _can_match(token: str) -> bool:
    if token in {SUPPORTED, ALL, *DOCUMENTED_SPELLINGS, *_families(), *catalogue()}:
        return True
    if _is_glob(token):
        return bool(_named_by(token, frozenset())) or token.startswith("users.")  # Braze may yet add what it matches
    return _TYPE_NAME.fullmatch(token) is not None and not _types_ending_in(token)


def _problem(token: str) -> str:
    if _is_glob(token):
        near = [longer] if _named_by(longer := f"*.{token}", frozenset()) else []
    else:
        words = [SUPPORTED, ALL, *_families(), *DOCUMENTED_SPELLINGS]
        near = _types_ending_in(token) or difflib.get_close_matches(token, [*words, *catalogue()], n=1)
    guess = f"did you mean `{near[0]}`?" if near else "`events --all` lists the types"
    return f"`{token}` matches no event type, and is no family; {guess}"


def _types_ending_in(token: str) -> list[str]:
    """Return the types of which the token is the end or another case: no type that Braze adds is named so."""
    return [name for name in catalogue() if f".{name}".lower().endswith(f".{token}".lower())]
