"""Good files of random schemas: maps, unions, records, logical types, all nested; the same seed, the same file.

Named types are used again by their names, and are branches of unions; names and defaults are odd now and then.
"""

import io
import json
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


_SYMBOLS = {f"Q{n}": odd for n, odd in enumerate(["a", "A-1", "b c", "é", "0", "true", "null", "S" * 200])}

Schema = Any  # of a type, as JSON has it
Named = dict[str, Schema]  # the named types that stand before a place


def random_file(seed: int) -> tuple[bytes, list[Any]]:
    """Return a container of a random schema, and its events as fastavro reads them, as JSON."""
    r = Random(seed)
    named: Named = {}
    fields = [{"name": f"f{n}", "type": _type(r, 3, named), **_default(r)} for n in range(r.randint(1, 8))]
    known = [{"name": name, "type": "string"} for name in ("id", "external_user_id")]
    schema = {"type": "record", "name": "R", "fields": [{"name": "time", "type": "int"}, *known, *fields]}
    events = [
        {"time": r.randrange(2**30 + 2**28, 2**31), "id": f"e{n}", "external_user_id": "u"}
        | {field["name"]: _value(field["type"], r, named) for field in fields}
        for n in range(r.choice([0, 1, 5, 40]))
    ]
    out = io.BytesIO()
    strict = json.loads(json.dumps(schema), object_hook=_without_default)  # fastavro refuses odd defaults and symbols
    fastavro.writer(out, strict, events, codec=r.choice(_CODECS), sync_interval=r.choice([1, 200, 16_000]))
    out.seek(0)
    return _with_schema(out.getvalue(), schema), [_with_odd_symbols(as_json(event)) for event in fastavro.reader(out)]


def _default(r: Random) -> dict[str, Any]:
    """Return a default, mostly none. It need not be of the field's type: who reads all fields has no use for it."""
    return {"default": r.choice([None, "", 0, [], {}, 1.5, True])} if r.randrange(4) == 0 else {}


def _without_default(found: dict[str, Any]) -> dict[str, Any]:
    found.pop("default", None)
    return found


def _with_odd_symbols(value: Any) -> Any:
    match value:
        case dict():
            return {name: _with_odd_symbols(member) for name, member in value.items()}
        case list():
            return [_with_odd_symbols(item) for item in value]
        case str():
            return _SYMBOLS.get(value, value)
        case _:
            return value


def _with_schema(body: bytes, schema: Schema) -> bytes:
    """Return a container with this schema in place of its own, and odd symbols in it."""
    metadata_type = {"type": "map", "values": "bytes"}
    stream = io.BytesIO(body[4:])
    metadata: Any = fastavro.schemaless_reader(stream, metadata_type, None)
    head = io.BytesIO()
    fastavro.schemaless_writer(
        head, metadata_type, metadata | {"avro.schema": json.dumps(_with_odd_symbols(schema)).encode()}
    )
    return body[:4] + head.getvalue() + stream.read()


def _type(r: Random, levels: int, named: Named) -> Schema:  # noqa: PLR0911 - a case for each kind
    match r.randrange(13) if levels else r.randrange(6):
        case 3 if named:
            return r.choice(list(named))
        case 6 | 7:
            return ["null", _branch(r, levels - 1, named)]
        case 8:
            return {"type": "array", "items": _branch(r, levels - 1, named)}
        case 9:
            return {"type": "map", "values": _type(r, levels - 1, named)}
        case 10:
            fields = [{"name": f"g{n}", "type": _type(r, levels - 1, named)} for n in range(r.randrange(3))]
            fields.append({"name": "last", "type": _branch(r, levels - 1, named)})  # or it would take no bytes
            return _new({"type": "record", "fields": fields}, r, named)
        case 11:
            return r.sample(["null", "boolean", "long", "double", "string"], r.randint(1, 4))
        case 12:
            records = [_record_of_one(r, named) for _ in range(r.randint(1, 3))]
            return [*r.sample(["null", "long", "string"], r.randint(0, 2)), *records]
        case 4:
            return r.choice(_LOGICAL)
        case 5:
            symbols = r.sample(list(_SYMBOLS), r.randint(1, 4))
            return _new({"type": "enum", "symbols": symbols}, r, named)
        case _:
            return r.choice(_SCALARS)


def _record_of_one(r: Random, named: Named) -> Schema:
    member = {"name": f"m{r.randrange(3)}", "type": _branch(r, 1, named)}
    return _new({"type": "record", "fields": [member]}, r, named)


def _new(schema: Schema, r: Random, named: Named) -> Schema:
    """Return the schema with a name of its own."""
    schema["name"] = f"N{len(named)}_{r.randrange(10**6)}"
    named[schema["name"]] = schema
    return schema


def _branch(r: Random, levels: int, named: Named) -> Schema:
    """Return a type that may be a union's branch, or an item."""
    before = dict(named)
    while isinstance(found := _type(r, levels, named), list) or found == "null":
        for name in named.keys() - before.keys():  # as it is not used
            del named[name]
    return found


def _value(avro_type: Schema, r: Random, named: Named) -> Any:  # noqa: PLR0911 - a case for each kind
    match avro_type:
        case [*branches]:
            return _of_branch(r.choice(branches), branches, r, named)
        case {"type": "array", "items": items}:
            return [_value(items, r, named) for _ in range(r.randrange(4))]
        case {"type": "map", "values": values}:
            return {_text(r): _value(values, r, named) for _ in range(r.randrange(4))}
        case {"type": "record", "fields": fields}:
            return {field["name"]: _value(field["type"], r, named) for field in fields}
        case {"type": "enum", "symbols": symbols}:
            return r.choice(symbols)
        case {"logicalType": logical}:
            return _logical_value(logical, r)
        case str() if avro_type in named:
            return _value(named[avro_type], r, named)
        case name:
            return _scalar(name, r)


def _of_branch(branch: Schema, union: list[Schema], r: Random, named: Named) -> Any:
    """Return a value of a union; one of several records says which, since fastavro would guess."""
    value = _value(branch, r, named)
    records = [one for one in union if isinstance(one, dict) and one["type"] == "record"]
    return (branch["name"], value) if branch in records and len(records) > 1 else value


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
