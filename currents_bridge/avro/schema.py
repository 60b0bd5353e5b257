"""The schema of a container as types to read by; refused where reading by it could end the process or never end.

Only what bytes are read by counts: names may hold any character, defaults, aliases and unknown attributes say nothing
about the bytes, and an unknown logical type is its plain type. All that a schema could be made to cost is bounded here,
in time linear to its length; a type that is named in many places is one object.
Schemas: https://avro.apache.org/docs/1.12.0/specification/#schema-declaration
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 32  # levels of types, through named types too; Currents has three
MAX_LEAVES = 4_096  # values in a record that has no arrays or maps; Currents has a hundred
MAX_NAMED_TYPES = 1_024
MAX_NAME_CHARS = 256  # of a field or an enum symbol; each may stand in the JSON of every event

_MAX_FIXED_BYTES = 1024 * 1024
_MAX_SCALE = 1_000
_PRIMITIVES = frozenset({"null", "boolean", "int", "long", "float", "double", "bytes", "string"})
_RECORDS = frozenset({"record", "error"})
_SMALLEST = {"null": 0, "float": 4, "double": 8}  # bytes of an encoded value; others take one or more


@dataclass(slots=True, eq=False)
class AvroType:
    """One type, its names resolved. `parts` are a record's fields, a union's branches, an array's or map's values."""

    kind: str  # a primitive, record, enum, fixed, array, map or union
    parts: Sequence["AvroType"] = ()
    names: Sequence[str] = ()  # of a record's fields, or an enum's symbols
    size_bytes: int = 0  # of a fixed
    logical: str = ""
    scale: int = 0  # of a decimal
    name: str = ""  # full, of a named type
    smallest: int = 1  # bytes that a value takes at least
    depth: int = 1
    leaves: int = 1
    plain: bool = True  # a column can hold all values: scalars and arrays of them, null or not

    @property
    def values(self) -> Sequence["AvroType"]:
        """Return a union's branches that are not null, or the type alone."""
        return [part for part in self.parts if part.kind != "null"] if self.kind == "union" else [self]


def parse(text: bytes) -> AvroType:
    """Return the type of a container's values; raises ValueError for a schema that is none, or is refused."""
    try:
        document = json.loads(text)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    return _Parser().type_of(document, "", MAX_DEPTH)


_TOO_DEEP = "the schema is nested too deeply"
_OPEN = AvroType("open")  # a named type whose definition has begun
_AMBIGUOUS = AvroType("ambiguous")  # a name that was given to two different types


@dataclass(slots=True)
class _Parser:
    """Resolves one document."""

    named: dict[str, AvroType] = field(default_factory=dict)
    defined: dict[str, Any] = field(default_factory=dict)

    def type_of(self, node: Any, namespace: str, levels: int) -> AvroType:
        """Return the type that a JSON value stands for."""
        for _ in range(4 * MAX_DEPTH):
            if not isinstance(node, dict) or not isinstance(node.get("type"), (dict, list)):
                break
            node = node["type"]  # {"type": {"type": ...}}
        else:
            raise ValueError(_TOO_DEEP)
        if levels <= 0:
            raise ValueError(_TOO_DEEP)
        match node:
            case str():
                return self._by_name(node, namespace)
            case list():
                return _union([self.type_of(branch, namespace, levels - 1) for branch in node])
            case {"type": "array", "items": items}:
                return _array(self.type_of(items, namespace, levels - 1))
            case {"type": "map", "values": values}:
                return _container("map", [self.type_of(values, namespace, levels - 1)])
            case {"type": "record" | "error" | "enum" | "fixed"}:
                return self._define(node, namespace, levels)
            case {"type": str() as name} if name not in ("array", "map"):
                return _with_logical(self._by_name(name, namespace), node)
            case _:
                raise ValueError(f"the schema has no type where one should be: {str(node)[:40]}")

    def _by_name(self, name: str, namespace: str) -> AvroType:
        if name in _PRIMITIVES:
            return AvroType(name, smallest=_SMALLEST.get(name, 1))
        found = self.named.get(_full_name(name, namespace)) or self.named.get(name)
        if found is _OPEN:
            raise ValueError("the schema has a recursive type")
        if found is None or found is _AMBIGUOUS:
            what = "unknown" if found is None else "ambiguous"
            raise ValueError(f"the schema has an {what} type {name[:MAX_NAME_CHARS]}")
        return found

    def _define(self, node: dict[str, Any], namespace: str, levels: int) -> AvroType:
        """Return a named type. A name may be given twice, to the same type."""
        own_space = node.get("namespace")
        name = _full_name(_string(node.get("name", "")), own_space if isinstance(own_space, str) else namespace)
        if len(self.named) >= MAX_NAMED_TYPES:
            raise ValueError(f"the schema has more than {MAX_NAMED_TYPES} named types")
        again = name in self.defined and self.defined[name] != node
        self.named[name], self.defined[name] = _OPEN, node
        match node:
            case {"type": "enum", "symbols": list() as symbols}:
                made = AvroType("enum", names=[_name(symbol) for symbol in symbols], name=name)
            case {"type": "fixed", "size": int() as size} if 0 <= size <= _MAX_FIXED_BYTES:
                made = _with_logical(AvroType("fixed", size_bytes=size, name=name, smallest=size), node)
            case {"type": "record" | "error", "fields": list() as fields}:
                made = self._record(fields, name, levels)
            case _:
                raise ValueError(f"the schema has a {node['type']} that is not complete")
        self.named[name] = _AMBIGUOUS if again else made
        return made

    def _record(self, fields: list[Any], name: str, levels: int) -> AvroType:
        if not all(isinstance(one, dict) and "name" in one and "type" in one for one in fields):
            raise ValueError("the schema has a field without a name or a type")
        names = [_name(one["name"]) for one in fields]
        if len(set(names)) < len(names):
            raise ValueError("the schema names a field twice")
        namespace, _, _ = name.rpartition(".")
        parts = []
        for one in fields:  # a field may hold its type's attributes itself, as {"type": "array", "items": ...}
            inline = isinstance(one["type"], str) and one["type"] in ("array", "map", "enum", "fixed", *_RECORDS)
            part = self.type_of(one if inline else one["type"], namespace, levels - 1)
            parts.append(_with_logical(part, one) if part.kind in _PRIMITIVES and not part.logical else part)
        smallest = sum(part.smallest for part in parts)
        return _checked(AvroType("record", parts, names, name=name, smallest=smallest, plain=False))


def _union(parts: Sequence[AvroType]) -> AvroType:
    plain = all(part.plain for part in parts) and sum(part.kind != "null" for part in parts) < 2  # noqa: PLR2004
    return _checked(AvroType("union", parts, plain=plain))


def _array(items: AvroType) -> AvroType:
    if items.smallest == 0:
        raise ValueError("the schema has arrays of values that take no bytes")
    return _container("array", [items])


def _container(kind: str, parts: Sequence[AvroType]) -> AvroType:
    return _checked(AvroType(kind, parts, plain=kind == "array" and parts[0].plain))


def _checked(made: AvroType) -> AvroType:
    """Count the depth and the leaves of a type made of others; each of those was counted once, wherever it stands."""
    made.depth = 1 + max((part.depth for part in made.parts), default=0)
    made.leaves = 1 + sum(part.leaves for part in made.parts)
    if made.depth > MAX_DEPTH:
        raise ValueError(_TOO_DEEP)
    if made.leaves > MAX_LEAVES:
        raise ValueError(f"the schema has more than {MAX_LEAVES} values in a record")
    return made


def _with_logical(made: AvroType, attributes: dict[str, Any]) -> AvroType:
    logical = attributes.get("logicalType")
    if not isinstance(logical, str) or made.kind not in (*_PRIMITIVES, "fixed"):
        return made
    scale = attributes.get("scale", 0)
    if logical == "decimal" and not (isinstance(scale, int) and 0 <= scale <= _MAX_SCALE):
        return made
    return AvroType(
        made.kind,
        size_bytes=made.size_bytes,
        logical=logical,
        scale=scale if logical == "decimal" else 0,
        name=made.name,
        smallest=made.smallest,
    )


def _full_name(name: str, namespace: str) -> str:
    return f"{namespace}.{name}" if namespace and "." not in name else name


def _string(value: Any) -> str:
    """Return a text that can be stored anywhere: JSON may spell halves of a character."""
    if not isinstance(value, str):
        raise ValueError("the schema has a name that is no text")  # noqa: TRY004 - of outside text, as all others
    return value.encode("utf-8", "replace").decode()


def _name(value: Any) -> str:
    name = _string(value)
    if len(name) > MAX_NAME_CHARS:
        raise ValueError(f"the schema has a name of {len(name)} characters, more than {MAX_NAME_CHARS}")
    if "\0" in name:
        raise ValueError("the schema has a name with a zero byte")
    return name
