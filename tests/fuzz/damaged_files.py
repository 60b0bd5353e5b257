"""Deliver damaged Avro files, each between two healthy ones: `python -m tests.fuzz.damaged_files FIRST COUNT`.

Prints each seed before its file is touched, so that the last line names the file that took the process down, and at
the end one JSON document. SIGALRM ends the process where a file takes longer than FILE_TIMEOUT_S, also in native code.
"""

import bz2
import json
import lzma
import signal
import sys
import zlib
from collections import Counter
from collections.abc import Callable
from decimal import Decimal
from functools import cache
from io import BytesIO
from random import Random
from typing import Any

import fastavro
from backports import zstd
from cramjam import snappy

from currents_bridge.avro.framing import Block, Frames
from currents_bridge.testing.currents_files import make_events, schema_of, write_container
from tests.fuzz import cost
from tests.fuzz.neighbours import deliver
from tests.workbench import CLICK, HOUR

FILE_TIMEOUT_S = 60
ADDRESS_SPACE_BYTES = 8 * 1024**3
EVENTS = 24
RARE = 300  # one file in so many is a large one

_COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "null": bytes,
    "deflate": lambda data: zlib.compress(data, 1)[2:-4],
    "snappy": lambda data: bytes(snappy.compress_raw(data)) + zlib.crc32(data).to_bytes(4, "big"),
    "zstandard": zstd.compress,
    "bzip2": bz2.compress,
    "xz": lambda data: lzma.compress(data, preset=0),
}
_HOSTILE = [0, 1, -1, 2, -2, 63, 64, 127, 255, 2**15, 2**20, 2**26, 2**26 + 1, 2**31 - 1, 2**31, 2**32, -(2**31)]
_HOSTILE += [2**40, 2**62, 2**63 - 1, -(2**63), 250_000, 250_001]
_TYPES = ["null", "int", "bytes", "Click", {"type": "array", "items": "null"}, ["null", "Click"], ["int", "string"], []]
_ODD = {
    "odd_map": {"type": "map", "values": ["null", "string", "long"]},
    "odd_enum": {"type": "enum", "name": "Odd", "symbols": ["a", "b"]},
    "odd_decimal": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2},
}


def damaged_file(seed: int) -> bytes:
    """Return an Avro file that was damaged, or made to do harm; the same seed gives the same file."""
    r = Random(seed)
    body = r.choice([_inner, _outer, _outer])(r)
    for _ in range(r.choice([0, 0, 0, 1, 3])):
        body = _scratched(body, r)
    return body


@cache
def _healthy(codec: str, *, odd: bool) -> bytes:
    """Return a healthy file of several blocks; an odd one has types that only fastavro reads."""
    events = make_events(CLICK, EVENTS, seed=1, hour=HOUR)
    if odd:
        for n, event in enumerate(events):
            event |= {"odd_map": {"k": n, "l": None, "m": "x"}, "odd_enum": "b", "odd_decimal": Decimal(n)}
    return write_container(schema_of(CLICK, overrides=_ODD if odd else None), events, codec=codec, sync_interval=2_000)


def _inner(r: Random) -> bytes:
    """Damage what a block holds, or the header, and frame it well."""
    frames = Frames(BytesIO(_healthy("null", odd=r.random() < 0.3)))
    schema, codec = frames.metadata["avro.schema"], r.choice(list(_COMPRESS))
    blocks = [(block.rows, block.content) for block in frames if isinstance(block, Block)]
    number = r.randrange(len(blocks))
    rows, content = blocks[number]
    match r.randrange(6):
        case 0:
            rows = r.choice(_HOSTILE)
        case 1:
            document = json.loads(schema)
            for _ in range(r.randint(1, 3)):
                field = r.choice(document["fields"])
                field.pop("default", None)  # or it would be refused for that
                field["type"] = r.choice(_TYPES)
            schema = json.dumps(document).encode()
        case 2:
            schema = _scratched(schema, r)
        case 3 if r.randrange(RARE // 18) == 0:
            content = bytes([r.choice([0, 2, 255])]) * r.choice([2**20, 2**24, 2**26, 2**26 + 1])
            rows = r.choice([rows, 250_000])
        case _:
            for _ in range(r.randint(1, 4)):
                content = _scratched(content, r)
    blocks[number] = rows, content
    metadata = {"avro.schema": schema, "avro.codec": codec.encode()}
    sync = r.randbytes(16)
    body = [b"Obj\x01", _encoded({"type": "map", "values": "bytes"}, metadata), sync]
    for count, plain in blocks:
        packed = _COMPRESS[codec](plain)
        body += [_encoded("long", count), _encoded("bytes", packed), sync]
    return b"".join(body)


def _outer(r: Random) -> bytes:
    """Damage a file as a whole."""
    body = _healthy(r.choice(list(_COMPRESS)), odd=r.random() < 0.2)
    other = _healthy(r.choice(list(_COMPRESS)), odd=r.random() < 0.2)
    sync = body[-16:]
    match r.randrange(5):
        case 0:  # cut off
            return body[: r.randrange(len(body))]
        case 1:  # spliced with another
            return body[: r.randrange(len(body))] + other[r.randrange(len(other)) :]
        case 2:  # a hostile count and size at the start of a block
            starts = [at + 16 for at in range(len(body)) if body.startswith(sync, at)]
            at = r.choice(starts)
            head = _encoded("long", r.choice(_HOSTILE)) + _encoded("long", r.choice(_HOSTILE))
            return body[:at] + head + body[at + r.choice([0, 3, 4]) :]
        case 3:  # markers everywhere
            return body[: r.randrange(len(body))] + r.choice([b"", b"\x02", b"\x02\x02x"]).join([sync] * 500) + body
        case _:
            for _ in range(r.randint(1, 6)):
                body = _scratched(body, r)
            return body


def _scratched(data: bytes, r: Random) -> bytes:
    """Flip, remove, repeat, overwrite or put in a few bytes somewhere."""
    start = r.randrange(len(data) + 1)
    end = min(len(data), start + r.choice([1, 1, 2, 8, 64, 500]))
    match r.randrange(6):
        case 0 | 1:
            middle = bytes(byte ^ (1 << r.randrange(8)) for byte in data[start : start + 1])
            end = start + len(middle)
        case 2:
            middle = b""
        case 3:
            middle = data[start:end] * 2
        case 4:
            middle = bytes([r.choice([0, 1, 2, 0x7F, 0x80, 0xFF])]) * (end - start)
        case _:
            middle = _encoded("long", r.choice(_HOSTILE))
            end = start + r.choice([0, 1, len(middle)])
    return data[:start] + middle + data[end:]


def _encoded(schema: Any, value: Any) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, schema, value)
    return out.getvalue()


def main(first: int, count: int) -> None:
    """Deliver `count` files from the seed `first` on; raises AssertionError where one costs more than is promised."""
    cost.limit_address_space(ADDRESS_SPACE_BYTES)
    deliver(_healthy("null", odd=False))  # what is loaded once is no part of a file's cost
    outcomes: Counter[str] = Counter()
    for seed in range(first, first + count):
        print(seed, flush=True)  # noqa: T201
        body = damaged_file(seed)
        signal.alarm(FILE_TIMEOUT_S)
        with cost.measured() as spent:
            outcomes[deliver(body)] += 1
        signal.alarm(0)
        spent.check(len(body))
    print(json.dumps(outcomes))  # noqa: T201


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
