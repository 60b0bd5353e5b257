"""Avro's logical types as text: times and dates as ISO 8601, decimals and UUIDs as they are written.

What does not fit stays the number that it is of, or its bytes. Unknown logical types are their plain types.
Types: https://avro.apache.org/docs/1.12.0/specification/#logical-types
"""

import base64
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from functools import partial
from typing import Any
from uuid import UUID

from currents_bridge.avro.schema import AvroType

_MAX_DECIMAL_BYTES = 256  # conversion to digits takes the square of the length: a minute for 1 MB
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - local timestamps have no zone
_PER_SECOND = {"millis": 1_000, "micros": 1_000_000}


def logical_reading(avro_type: AvroType, *, in_column: bool) -> Callable[[Any], Any] | None:
    """Return the function from a plain value to its text; None for a type without a known logical type.

    In a column of texts a number that does not fit is a text, too.
    """
    logical = avro_type.logical
    match avro_type.kind, logical.rpartition("-"):
        case "long", ("timestamp" | "local-timestamp" as kind, _, "millis" | "micros" as unit):
            reading: Callable[[Any], str] = partial(_timestamp, _PER_SECOND[unit], None if "local" in kind else UTC)
        case ("int", ("time", _, "millis" as unit)) | ("long", ("time", _, "micros" as unit)):
            reading = partial(_time, _PER_SECOND[unit])
        case "int", (_, _, "date"):
            reading = _date
        case (("bytes" | "fixed"), (_, _, "decimal")):
            reading = partial(_decimal, avro_type.scale)
        case "fixed", (_, _, "uuid") if avro_type.size_bytes == 16:  # noqa: PLR2004 - a UUID's
            return lambda content: str(UUID(bytes=content))
        case _:
            return None

    def read(value: Any) -> Any:
        if value is None:
            return None
        try:
            return reading(value)
        except (ValueError, OverflowError):
            raw = as_base64(value) if isinstance(value, bytes) else value
            return str(raw) if in_column else raw

    return read


def as_base64(content: bytes) -> str:
    """Return bytes as JSON can hold them."""
    return base64.b64encode(content).decode()


def _timestamp(per_second: int, zone: Any, value: int) -> str:
    microseconds = value * (1_000_000 // per_second)
    return (_EPOCH + timedelta(microseconds=microseconds)).replace(tzinfo=zone).isoformat()


def _time(per_second: int, value: int) -> str:
    if not 0 <= value < 24 * 60 * 60 * per_second:
        raise ValueError("no time of a day")
    return (_EPOCH + timedelta(microseconds=value * (1_000_000 // per_second))).time().isoformat()


def _date(value: int) -> str:
    return (_EPOCH + timedelta(days=value)).date().isoformat()


def _decimal(scale: int, content: bytes) -> str:
    if len(content) > _MAX_DECIMAL_BYTES:
        raise ValueError("a decimal of so many digits takes too long")
    context = Context(prec=4 * _MAX_DECIMAL_BYTES)  # exact: a byte has less than three digits
    return str(Decimal(int.from_bytes(content, "big", signed=True)).scaleb(-scale, context))
