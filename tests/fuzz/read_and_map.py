"""Read and map files in a process of their own: `crafted NAME...`, or `random FIRST COUNT`.

Prints what is about to be read, and then what it cost, so that the last line names the file that ended the process.
"""

import io
import signal
import sys
from collections.abc import Iterator
from typing import Any

import fastavro
import orjson

from currents_bridge.avro.container import Container
from currents_bridge.errors import QuarantineObjectError
from currents_bridge.events.catalogue import general_event_type
from currents_bridge.events.mapping import Mapper, MappingRules, Properties
from tests.fuzz import cost
from tests.fuzz.crafted_files import CRAFTED
from tests.fuzz.random_files import as_json, random_file

FILE_TIMEOUT_S = 60
ADDRESS_SPACE_BYTES = 4 * 1024**3
RULES = MappingRules(library_version="1", properties=Properties.ALL)


def read(body: bytes) -> str:
    """Read and map a whole file; return why it is not whole."""
    mapper = Mapper(RULES)
    try:
        for piece in Container(io.BytesIO(body)).slices():
            mapper.map(piece, general_event_type("users.custom.Thing"), "key")
    except QuarantineObjectError as error:
        return error.reason
    return ""


def costly(names: list[str]) -> Iterator[str]:
    """Yield what each crafted file cost; raises AssertionError where it was too much."""
    read(CRAFTED["thousands of gaps"]())  # what is loaded once is no part of a file's cost
    for name in names:
        body = CRAFTED[name]()
        yield name
        with cost.measured() as spent:
            read(body)
        spent.check(len(body))


def compared(first: int, count: int) -> Iterator[str]:
    """Yield the seed of each random file; raises AssertionError where an event is not as it was written."""
    for seed in range(first, first + count):
        yield str(seed)
        body = random_file(seed)
        container = Container(io.BytesIO(body))
        rows = [row for piece in container.slices() for row in piece.events.to_dicts()]
        for row, record in zip(rows, fastavro.reader(io.BytesIO(body)), strict=True):
            assert _plain(row, container.json_fields) == as_json(record), seed
        read(body)


def _plain(row: dict[str, Any], json_fields: frozenset[str]) -> Any:
    return as_json({name: orjson.loads(v) if v and name in json_fields else v for name, v in row.items()})


def main(kind: str, *arguments: str) -> None:
    """Read the files that are named."""
    cost.limit_address_space(ADDRESS_SPACE_BYTES)
    told = costly(list(arguments)) if kind == "crafted" else compared(int(arguments[0]), int(arguments[1]))
    for name in told:
        print(name, flush=True)  # noqa: T201
        signal.alarm(FILE_TIMEOUT_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
