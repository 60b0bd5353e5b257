"""Where the columns of a file differ from what the catalogue knows of its event type.

Braze adds fields each month, and at times removes or retypes one; a user wants to know before a report is empty.
"""

from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

import polars as pl

from currents_bridge.events.catalogue import ArrayType, EventType, Field

MAX_NAMED = 20  # fields of one kind of difference; the rest is only counted

_IDENTITY = ("id", "user_id", "external_user_id", "time")
_KINDS = {"string": "string", "int": "int", "long": "int", "float": "float", "double": "float", "boolean": "boolean"}
_NESTED = "nested value"  # a map, a record or a union, which comes as JSON
_UNKNOWN = "null"  # of a column without values: its type is not seen


class Drifts:
    """What the newest file of each event type has of drift, for types whose fields the catalogue knows.

    Thread-safe enough: the newest of two at once may lose.
    """

    def __init__(self) -> None:
        self._newest: dict[str, tuple[datetime, tuple[pl.Schema, frozenset[str]], str]] = {}
        self._told: dict[str, str] = {}

    def saw(
        self, event_type: EventType, schema: pl.Schema, hour: datetime, json_fields: frozenset[str] = frozenset()
    ) -> None:
        """Take in the columns of a file of some hour; older files than the newest say nothing."""
        known = self._newest.get(event_type.name)
        if not event_type.fields or (known and hour < known[0]):
            return
        columns = (schema, json_fields)
        words = known[2] if known and columns == known[1] else drift(event_type, schema, json_fields)
        self._newest[event_type.name] = (hour, columns, words)

    def changed(self) -> dict[str, str]:
        """Return event types whose drift is another than when this was asked last, "" for none; at first, all."""
        now = {name: words for name, (_, _, words) in self._newest.items()}
        changed = {name: words for name, words in now.items() if self._told.get(name) != words}
        self._told = now
        return changed


def drift(event_type: EventType, schema: pl.Schema, json_fields: frozenset[str] = frozenset()) -> str:
    """Return how a file's columns differ from the catalogue, in plain words; empty where they agree.

    E.g. `new: x (string); missing: y; retyped: z is a string, was an int`. Fields of files of earlier versions are no
    news. A field is missing where the event's identity, name, context or properties need it. Int and long are one, and
    float and double. `json_fields` are as in Slice. An event type of which the catalogue knows no fields has no drift.
    """
    if not event_type.fields:
        return ""
    kinds = {name: _NESTED if name in json_fields else _kind(dtype) for name, dtype in schema.items()}
    known = {field.name: field for field in (*event_type.older_fields, *event_type.fields)}
    parts = {
        "new": [f"{name} ({kind})" for name, kind in kinds.items() if name not in known],
        "missing": list(_missing(event_type, schema)),
        "retyped": list(_retyped(known, kinds)),
    }
    return "; ".join(f"{what}: {_list(found)}" for what, found in parts.items() if found)


def _missing(event_type: EventType, schema: pl.Schema) -> Iterator[str]:
    needed = {*_IDENTITY, event_type.event_name_field, event_type.merge_json_field}
    needed |= {*event_type.properties.values(), *event_type.context.values()}
    for field in event_type.fields:
        if field.name not in schema and (field.name in needed or event_type.open_ended):
            yield field.name


def _retyped(known: Mapping[str, Field], kinds: Mapping[str, str]) -> Iterator[str]:
    for name, now in kinds.items():
        if name in known:
            was = _known_kind(known[name].type)
            if was != now and _UNKNOWN not in now.split():
                yield f"{name} is {_with_article(now)}, was {_with_article(was)}"


def _known_kind(avro_type: str | ArrayType) -> str:
    return f"array of {_KINDS[avro_type.items]}" if isinstance(avro_type, ArrayType) else _KINDS[avro_type]


def _kind(dtype: pl.DataType) -> str:
    """Return a column's type in the words of Avro."""
    match dtype:
        case pl.List(inner=inner):
            return f"array of {_kind(inner if isinstance(inner, pl.DataType) else inner())}"
        case _ if dtype.is_integer():
            return "int"
        case _ if dtype.is_float():
            return "float"
        case _:
            return str(dtype).lower()


def _with_article(kind: str) -> str:
    return f"an {kind}" if kind[0] in "aeiou" else f"a {kind}"


def _list(found: Iterable[str]) -> str:
    names = list(found)
    more = [f"{len(names) - MAX_NAMED} more"] if len(names) > MAX_NAMED else []
    return ", ".join([*names[:MAX_NAMED], *more])
