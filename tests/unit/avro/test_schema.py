"""Schemas: whatever bytes can be read by is read by; what could cost hours or gigabytes is refused at once."""

import json
import time
from typing import Any

import pytest

from currents_bridge.avro.schema import MAX_LEAVES, MAX_NAMED_TYPES, parse


def record(*types: Any, **attributes: Any) -> dict[str, Any]:
    """Return a schema with fields of these types."""
    fields = [{"name": f"f{n}", "type": t} for n, t in enumerate(types)]
    return {"type": "record", "name": "R", "fields": fields, **attributes}


def named(name: str, avro_type: Any, **attributes: Any) -> dict[str, Any]:
    """Return a schema with one field."""
    return {"type": "record", "name": "R", "fields": [{"name": name, "type": avro_type, **attributes}]}


def kinds(schema: Any) -> list[str]:
    """Return the kinds of a record's fields, with their branches."""
    text = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    return ["|".join([part.kind, *(branch.kind for branch in part.parts)]) for part in parse(text).parts]


ENUM = {"type": "enum", "name": "E", "symbols": ["a"]}


@pytest.mark.parametrize(
    ("schema", "wanted"),
    [
        (named("a", "int", default="x"), ["int"]),
        (named("a", ["null", "int"], default=7), ["union|null|int"]),
        (record({"type": "enum", "name": "E", "symbols": ["A-1", "", "1", "A-1", "é"]}), ["enum"]),
        (record({"type": "enum", "name": "E", "symbols": ["a"], "default": "b"}), ["enum"]),
        ({"type": "record", "name": "1-a.b c", "fields": [{"name": "x.y-z", "type": "int"}]}, ["int"]),
        ({"type": "record", "fields": [{"name": "a", "type": "int"}]}, ["int"]),
        (record({"type": "long", "logicalType": "no-such"}, {"type": "int", "logicalType": 7}), ["long", "int"]),
        (record({"type": "bytes", "logicalType": "decimal", "precision": -1, "scale": "x"}), ["bytes"]),
        (record("int", aliases=[7], doc=[], order="x", **{"connect.name": {}}), ["int"]),
        (record({"type": {"type": {"type": "string", "avro.java.string": "String"}}}), ["string"]),
        (record({"type": ["null", {"type": "string"}]}), ["union|null|string"]),
        (record(["int", "int", ["null", "string"]]), ["union|int|int|union"]),
        (record({**ENUM, "namespace": "a"}, {**ENUM, "namespace": "b"}, "a.E", "b.E"), ["enum"] * 4),
        (record(ENUM, ENUM, "E"), ["enum"] * 3),
        (record({**ENUM, "namespace": "x"}, namespace="y") | {"name": "q.R"}, ["enum"]),
        ({"type": "record", "name": "R", "fields": [{"name": "a", "type": "array", "items": "int"}]}, ["array|int"]),
        ({"type": "error", "name": "R", "fields": [{"name": "a", "type": "int"}]}, ["int"]),
        (record({"type": "record", "name": "Empty", "fields": []}, "null"), ["record", "null"]),
        (b"\xef\xbb\xbf \n" + json.dumps(record("int")).encode() + b"\n ", ["int"]),
        (json.dumps(record("int")).encode("utf-16"), ["int"]),
        (record({"type": "enum", "name": "E", "symbols": ["\ud83d"]}), ["enum"]),
    ],
)  # fmt: skip
def test_what_says_nothing_about_the_bytes_does_not_matter(schema: Any, wanted: list[str]) -> None:
    """Defaults, names, aliases, attributes and ways of writing are for others to be strict about."""
    assert kinds(schema) == wanted


def doubling(levels: int) -> list[Any]:
    """Return records that each hold the one before twice."""
    return [
        {"type": "record", "name": f"T{n}", "fields": [{"name": x, "type": f"T{n - 1}" if n else "int"} for x in "ab"]}
        for n in range(levels)
    ]


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        (b'"\\ud800"', "unknown type"),
        (record(*doubling(30)), f"more than {MAX_LEAVES} values"),
        (record(*[{"type": "fixed", "name": f"F{n}", "size": 1} for n in range(MAX_NAMED_TYPES + 1)]), "named types"),
        (record(*["int"] * (MAX_LEAVES + 1)), f"more than {MAX_LEAVES} values"),
        (record({"type": "record", "name": "S", "fields": [{"name": "a", "type": ["null", "S"]}]}), "recursive"),
        (record({"type": "array", "items": {"type": "error", "name": "E", "fields": []}}), "take no bytes"),
        (record({"type": "array", "items": record("null", name="N")}), "take no bytes"),
        (record({"type": "array", "items": {"type": {"type": "null"}}}), "take no bytes"),
        (named("n" * 257, "int"), "a name of 257 characters"),
        (record({"type": "enum", "name": "E", "symbols": ["s" * 257]}), "a name of 257 characters"),
        (named("\0row", "int"), "a zero byte"),
        ({"type": "record", "name": "R", "fields": [{"name": n, "type": "int"} for n in ("\ud800", "?")]}, "twice"),
        (record({**ENUM}, {**ENUM, "symbols": ["b"]}, "E"), "ambiguous"),
        (record({"type": "fixed", "name": "F", "size": 2**40}), "not complete"),
        ({"type": "record", "name": "R"}, "not complete"),
        (record({"type": "enum", "name": "E"}), "not complete"),
        (record({"type": "array"}), "no type where one should be"),
        (record(None), "no type where one should be"),
        ({"type": "record", "name": 7, "fields": []}, "a name that is no text"),
        (b'{"type":' * 10_000, "nested too deeply|Expecting"),
    ],
)  # fmt: skip
def test_what_could_cost_too_much_is_refused_at_once(schema: Any, reason: str) -> None:
    """So is what no bytes can be read by."""
    text = schema if isinstance(schema, bytes) else json.dumps(schema).encode()
    began_s = time.process_time()
    with pytest.raises(ValueError, match=reason):
        parse(text)
    assert time.process_time() - began_s < 1
