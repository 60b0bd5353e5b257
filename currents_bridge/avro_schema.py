"""The schema of a container: refused where reading by it could end the process or never end.

Measured with fastavro 1.13: a recursive type takes one level of the C stack for each byte of a hostile block and ends
in a segmentation fault, and so does a schema of 100,000 levels; an array of nulls can be as long as it says in no
bytes at all; a decimal of 1 MB takes more than a minute.
"""

import json
from collections.abc import Iterable
from decimal import Context, Decimal
from typing import Any

import fastavro
from fastavro.read import LOGICAL_READERS

MAX_DEPTH = 32  # levels of types, through named types too; Currents has three

_MAX_JSON_DEPTH = 4 * MAX_DEPTH
_MAX_DECIMAL_BYTES = 1024
_DECIMAL = "bounded-decimal"  # a name of our own: fastavro's "decimal" stays as it is for everybody else


def parse(text: bytes) -> Any:
    """Return a container's schema with full names, as fastavro reads by; raises ValueError for a refused one.

    Decimals get the logical type "bounded-decimal", whose reader is registered here.
    """
    document = json.loads(text)
    level = [document]
    for _ in range(_MAX_JSON_DEPTH):
        level = [child for node in level for child in _opened(node)]
        if not level:
            break
    else:
        raise ValueError("the schema is nested too deeply")
    schema = fastavro.parse_schema(document)
    if isinstance(schema, dict) and schema.get("type") == "record":
        fields = schema["fields"]
        if len({field["name"] for field in fields}) < len(fields):
            raise ValueError("the schema names a field twice")
        depths: dict[str, int | None] = {schema["name"]: None}
        for field in fields:
            if field["type"] != "null":  # takes no bytes, yet harms nothing: there is one in each record
                _depth(field["type"], depths)
    return schema


def _opened(node: Any) -> Iterable[Any]:
    """Return the children of a JSON value, its decimals made ours and fastavro's own marks removed."""
    if isinstance(node, dict):
        node.pop("__fastavro_parsed__", None)
        node.pop("__named_schemas", None)
        if node.get("logicalType") == "decimal":
            node["logicalType"] = _DECIMAL
        return node.values()
    return node if isinstance(node, list) else ()


def _depth(avro_type: Any, depths: dict[str, int | None]) -> int:  # noqa: C901 - a case for each kind of type
    """Return the levels of a type whose values take a byte or more each; `depths` holds named types, None: open."""
    below: Iterable[Any] = ()
    name = None
    match avro_type:
        case "null" | {"type": "null"} | {"type": "fixed", "size": 0} | {"type": "record", "fields": []}:
            raise ValueError("the schema has values that take no bytes")
        case str() if avro_type in depths:
            known = depths[avro_type]
            if known is None:
                raise ValueError("the schema has a recursive type")
            return known
        case list():
            below = [branch for branch in avro_type if branch != "null"]
        case {"type": "array", "items": items} | {"type": "map", "values": items}:
            below = [items]
        case {"type": "record" | "error", "name": name, "fields": fields}:
            depths[name] = None
            below = [field["type"] for field in fields]
        case {"type": "enum" | "fixed", "name": name}:
            pass
        case {"type": dict() | list() as inner}:
            below = [inner]
    depth = 1 + max((_depth(one, depths) for one in below), default=0)
    if depth > MAX_DEPTH:
        raise ValueError("the schema is nested too deeply")
    if name is not None:
        depths[name] = depth
    return depth


def _bounded_decimal(content: bytes, writer_schema: Any = None, _: Any = None) -> Decimal:
    if len(content) > _MAX_DECIMAL_BYTES:
        raise ValueError(f"a decimal of {len(content)} bytes")
    context = Context(prec=4 * _MAX_DECIMAL_BYTES)  # exact: a byte has less than three digits
    return Decimal(int.from_bytes(content, "big", signed=True)).scaleb(-writer_schema.get("scale", 0), context)


LOGICAL_READERS[f"bytes-{_DECIMAL}"] = LOGICAL_READERS[f"fixed-{_DECIMAL}"] = _bounded_decimal
