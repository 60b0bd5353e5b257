"""Good files of random schemas: maps, unions, records, logical types, all nested; the same seed, the same file."""

import io
import math
import string
from base64 import b64encode
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from random import Random
from typing import Any
from uuid import UUID

import fastavro

_EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
_CODECS = ("null", "deflate", "snappy", "zstandard", "bzip2", "xz")
_SCALARS = ("null", "boolean", "int", "long", "float", "double", "bytes", "string")
_LOGICAL: list[dict[str, Any]] = [
    {"type": "long", "logicalType": "timestamp-millis"},
    {"type": "long", "logicalType": "timestamp-micros"},
    {"type": "long", "logicalType": "local-timestamp-millis"},
    {"type": "int", "logicalType": "date"},
    {"type": "int", "logicalType": "time-millis"},
    {"type": "long", "logicalType": "time-micros"},
    {"type": "string", "logicalType": "uuid"},
    {"type": "bytes", "logicalType": "decimal", "precision": 12, "scale": 3},
    {"type": "long", "logicalType": "no-such-type"},
]


def random_file(seed: int) -> bytes:
    """Return a container of a random schema, with random events."""
    r = Random(seed)
    fields = [{"name": f"f{n}", "type": _type(r, 3)} for n in range(r.randint(1, 8))]
    known = [{"name": "time", "type": "int"}, {"name": "user_id", "type": ["null", "string"]}]
    schema = {"type": "record", "name": "R", "fields": [*known, *fields]}
    events = [
        {"time": r.randrange(2**31), "user_id": "u", **{field["name"]: _value(field["type"], r) for field in fields}}
        for _ in range(r.choice([0, 1, 5, 40]))
    ]
    out = io.BytesIO()
    fastavro.writer(out, schema, events, codec=r.choice(_CODECS), sync_interval=r.choice([1, 200, 16_000]))
    return out.getvalue()


def _type(r: Random, levels: int) -> Any:  # noqa: PLR0911 - a case for each kind
    match r.randrange(12) if levels else r.randrange(6):
        case 6 | 7:
            return ["null", _type_but_null(r, levels - 1)]
        case 8:
            return {"type": "array", "items": _type_but_null(r, levels - 1)}
        case 9:
            return {"type": "map", "values": _type(r, levels - 1)}
        case 10:
            fields = [{"name": f"g{n}", "type": _type(r, levels - 1)} for n in range(r.randrange(3))]
            fields.append({"name": "last", "type": _type_but_null(r, levels - 1)})  # or it would take no bytes
            return {"type": "record", "name": f"T{r.randrange(10**9)}", "fields": fields}
        case 11:
            return r.sample(["null", "boolean", "long", "double", "string"], r.randint(1, 4))
        case 4:
            return r.choice(_LOGICAL)
        case 5:
            return {"type": "enum", "name": f"E{r.randrange(10**9)}", "symbols": ["a", "b", "c"]}
        case _:
            return r.choice(_SCALARS)


def _type_but_null(r: Random, levels: int) -> Any:
    """Return a type that may be a union's branch, or an item."""
    while isinstance(found := _type(r, levels), list) or found == "null":
        pass
    return found


def _value(avro_type: Any, r: Random) -> Any:  # noqa: PLR0911 - a case for each kind
    match avro_type:
        case [*branches]:
            return _value(r.choice(branches), r)
        case {"type": "array", "items": items}:
            return [_value(items, r) for _ in range(r.randrange(4))]
        case {"type": "map", "values": values}:
            return {_text(r): _value(values, r) for _ in range(r.randrange(4))}
        case {"type": "record", "fields": fields}:
            return {field["name"]: _value(field["type"], r) for field in fields}
        case {"type": "enum", "symbols": symbols}:
            return r.choice(symbols)
        case {"logicalType": logical}:
            return _logical_value(logical, r)
        case name:
            return _scalar(name, r)


def _scalar(name: str, r: Random) -> Any:
    return {
        "null": None,
        "boolean": r.random() < 0.5,
        "int": r.choice([0, -1, r.randint(-(2**31), 2**31 - 1)]),
        "long": r.choice([0, -1, r.randint(-(2**63), 2**63 - 1)]),
        "float": float(r.randint(-1000, 1000)) / 8,
        "double": r.choice([0.1, r.uniform(-1e300, 1e300)]),
        "bytes": r.randbytes(r.randrange(4)),
        "string": _text(r),
    }[name]


def _logical_value(logical: str, r: Random) -> Any:
    moment = _EPOCH + timedelta(milliseconds=r.randint(-(10**12), 10**12))
    return {
        "timestamp-millis": moment,
        "timestamp-micros": moment,
        "local-timestamp-millis": moment.replace(tzinfo=None),
        "date": moment.date(),
        "time-millis": moment.time(),
        "time-micros": moment.time(),
        "uuid": UUID(int=r.getrandbits(128)),
        "decimal": Decimal(r.randint(-(10**9), 10**9)).scaleb(-3),
        "no-such-type": r.randrange(2**40),
    }[logical]


def _text(r: Random) -> str:
    return "".join(r.choice(string.ascii_letters + '"\\é\n\0😀') for _ in range(r.choice([0, 3, 100])))


def as_json(value: Any) -> Any:  # noqa: PLR0911 - a case for each kind
    """Return a value as JSON holds it; a record's null members say nothing."""
    match value:
        case dict():
            return {name: as_json(member) for name, member in value.items() if member is not None}
        case list():
            return [as_json(item) for item in value]
        case float() if not math.isfinite(value):
            return None
        case bytes():
            return b64encode(value).decode()
        case datetime() | date() | time():
            return value.isoformat()
        case Decimal() | UUID():
            return str(value)
        case _:
            return value
