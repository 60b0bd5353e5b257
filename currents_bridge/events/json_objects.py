"""Columns to JSON objects, one for each event, with members that are null left out, whatever names and values hold.

polars encodes a struct with its null members, many times faster than anything that looks at single events, and one
regular expression cuts them out. That is exact only where names are words, so a struct holds no others: each further
member is encoded by itself and joined to it, as are fields that come as JSON text.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import orjson
import polars as pl

# Objects whose first member may be null begin with this member, so that ',"name":null' is all a null can look like.
# No word is empty, and inside strings quotes are escaped: a quote with a letter of a name after it opens a string, so
# neither pattern can match there. JSON text has no line break; naming one makes the search a third faster.
_FIRST = pl.lit(0, dtype=pl.Int8).alias("")
_NULL_MEMBER = r'(?-u)[,\n]"\w+":null'
_FIRST_MEMBER = r'"":0,?'
_WORD = re.compile(r"\w+", re.ASCII)


@dataclass(frozen=True, slots=True)
class JsonText:
    """A column that holds JSON text, null where there is no value."""

    text: pl.Expr


@dataclass(frozen=True, slots=True)
class JsonObject:
    """An object of named columns; an optional one is left out where all of its members are."""

    members: Mapping[str, "pl.Expr | JsonText | JsonObject"]
    optional: bool = False


def encoded(tree: JsonObject) -> pl.Expr:
    """Return the column of each event's JSON object; members that are null, also within, are left out.

    Floats in it must be finite or null.
    """
    plain = {name: value for name, value in tree.members.items() if _is_plain(name, value)}
    text = _struct(plain).struct.json_encode().str.replace_all(_NULL_MEMBER, "").str.replace_all(_FIRST_MEMBER, "")
    others = [_quoted(name) + _text(value) for name, value in tree.members.items() if name not in plain]
    return _joined(text, others) if others else text


def field_value(column: pl.Expr, dtype: pl.DataType, *, is_json: bool) -> pl.Expr | JsonText:
    """Return what JSON says of a field: bytes as base64, what JSON has no number for as null.

    A nested value is JSON text without its null members; `is_json` says that the column holds such text already.
    """
    if is_json:
        return JsonText(column.map_batches(_without_nulls, return_dtype=pl.String, is_elementwise=True))
    if _holds_struct(dtype):
        return field_value(_alone(column), pl.String(), is_json=True)
    return _plain_value(column, dtype)


def as_text(value: pl.Expr | JsonText, dtype: pl.DataType) -> pl.Expr:
    """Return a field's value as text: a string as it is, anything else as JSON writes it."""
    match value:
        case JsonText(text):
            return text.map_batches(_strings_as_they_are, return_dtype=pl.String, is_elementwise=True)
        case _ if dtype.is_nested():
            return _alone(value)
        case _:
            return value.cast(pl.String, strict=False)


def events_as_json(events: pl.DataFrame, json_fields: frozenset[str] = frozenset()) -> list[str]:
    """Return each event as read, one JSON object, null values included; `json_fields` are as in Slice."""
    columns = {name: pl.nth(at) for at, name in enumerate(events.columns)}
    plain = [
        _plain_value(column, dtype).alias(name)
        for (name, column), dtype in zip(columns.items(), events.dtypes, strict=True)
        if name not in json_fields
    ]
    nested = [_quoted(name) + column.fill_null("null") for name, column in columns.items() if name in json_fields]
    text = pl.struct(plain).struct.json_encode() if plain else pl.lit("{}")
    return events.select(_joined(text, nested)).to_series().to_list()


def _is_plain(name: str, value: pl.Expr | JsonText | JsonObject) -> bool:
    if not _WORD.fullmatch(name) or isinstance(value, JsonText):
        return False
    return not isinstance(value, JsonObject) or all(_is_plain(*member) for member in value.members.items())


def _struct(plain: Mapping[str, Any]) -> pl.Expr:
    return pl.struct(_FIRST, *(_nested(value).alias(name) for name, value in plain.items()))


def _nested(value: pl.Expr | JsonObject) -> pl.Expr:
    if isinstance(value, pl.Expr):
        return value
    struct = _struct(value.members)
    return pl.when(pl.any_horizontal(*_has_values(value))).then(struct) if value.optional else struct


def _has_values(tree: JsonObject) -> Iterator[pl.Expr]:
    for value in tree.members.values():
        if isinstance(value, pl.Expr):
            yield value.is_not_null()


def _text(value: pl.Expr | JsonText | JsonObject) -> pl.Expr:
    """Return a value as JSON text, null where there is none."""
    match value:
        case JsonText(text):
            return text
        case JsonObject(optional=optional):
            text = encoded(value)
            return pl.when(text != "{}").then(text) if optional else text
        case _:
            return _alone(value)


def _alone(value: pl.Expr) -> pl.Expr:
    text = pl.struct(value.alias("")).struct.json_encode().str.strip_prefix('{"":').str.strip_suffix("}")
    return pl.when(value.is_not_null()).then(text)


def _quoted(name: str) -> pl.Expr:
    return pl.lit(orjson.dumps(name).decode() + ":")


def _joined(text: pl.Expr, members: list[pl.Expr]) -> pl.Expr:
    """Return objects with further members, each `"name":value`, or null where there is none."""
    within = text.str.strip_prefix("{").str.strip_suffix("}")
    within = pl.when(within != "").then(within)
    return pl.concat_str(pl.lit("{"), pl.concat_str(within, *members, separator=",", ignore_nulls=True), pl.lit("}"))


def _plain_value(value: pl.Expr, dtype: pl.DataType) -> pl.Expr:
    match dtype:
        case pl.Binary():
            return value.bin.encode("base64")
        case pl.List(inner=inner) if _of(inner).is_nested() or inner == pl.Binary:
            return value.list.eval(_plain_value(pl.element(), _of(inner)))
        case _ if dtype.is_float():
            return pl.when(value.is_finite()).then(value)
        case _:
            return value


def _holds_struct(dtype: pl.DataType) -> bool:
    match dtype:
        case pl.List(inner=inner) | pl.Array(inner=inner):
            return _holds_struct(_of(inner))
        case _:
            return isinstance(dtype, pl.Struct)


def _of(dtype: Any) -> pl.DataType:
    return dtype if isinstance(dtype, pl.DataType) else dtype()


def _without_nulls(texts: pl.Series) -> pl.Series:
    """Return JSON texts without null members, at any depth; items of lists stay."""
    return _each(texts, lambda text: orjson.dumps(_pruned(orjson.loads(text))).decode() if "null" in text else text)


def _strings_as_they_are(texts: pl.Series) -> pl.Series:
    return _each(texts, lambda text: orjson.loads(text) if text.startswith('"') else text)


def _each(texts: pl.Series, change: Callable[[str], str]) -> pl.Series:
    changed = [None if text is None or text == "null" else change(text) for text in texts.to_list()]
    return pl.Series(texts.name, changed, dtype=pl.String)


def _pruned(value: Any) -> Any:
    match value:
        case dict():
            return {name: _pruned(member) for name, member in value.items() if member is not None}
        case list():
            return [_pruned(item) for item in value]
        case _:
            return value
