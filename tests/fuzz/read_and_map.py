"""Try files in a process of their own: deliver `crafted NAME...`, or read and map `random FIRST COUNT`.

Prints what is about to be read, and then what it cost, so that the last line names the file that ended the process.
"""

import io
import json
import logging
import signal
import sys
from collections.abc import Iterator
from typing import Any

import orjson
import structlog

from currents_bridge.avro.container import Container
from currents_bridge.events.catalogue import general_event_type
from currents_bridge.events.mapping import Mapper, MappingRules, Properties
from tests.fuzz import cost, neighbours
from tests.fuzz.crafted_files import CRAFTED
from tests.fuzz.random_files import as_json, random_file

FILE_TIMEOUT_S = 60
ADDRESS_SPACE_BYTES = 4 * 1024**3
THING = general_event_type(neighbours.THING)


def costly(names: list[str]) -> Iterator[str]:
    """Yield each crafted file, deliver it; raises AssertionError where it cost too much, or its neighbours anything."""
    neighbours.deliver(CRAFTED["thousands of gaps"](), THING.name)  # what is loaded once is no part of a file's cost
    for name in names:
        body = CRAFTED[name]()
        yield name
        with cost.measured() as spent:
            neighbours.deliver(body, THING.name)
        spent.check(len(body))


def compared(first: int, count: int) -> Iterator[str]:
    """Yield the seed of each random file; raises AssertionError where an event is not as it was written.

    Neither what is read nor the properties of its message; or where the file cost too much.
    """
    mapper = Mapper(MappingRules(library_version="1", properties=Properties.ALL))
    for seed in range(first, first + count):
        yield str(seed)
        body, events = random_file(seed)
        with cost.measured() as spent:
            rows, messages = _read_and_mapped(body, mapper)
        spent.check(len(body))
        assert rows == events, seed
        for number, message in messages:
            said = {name: value for name, value in events[number].items() if name.startswith("f") and value is not None}
            assert json.loads(message)["properties"] == said, seed


def _read_and_mapped(body: bytes, mapper: Mapper) -> tuple[list[Any], list[tuple[int, str]]]:
    container = Container(io.BytesIO(body))
    rows: list[Any] = []
    messages: list[tuple[int, str]] = []
    for piece in container.slices():
        rows += [_plain(row, container.json_fields) for row in piece.events.to_dicts()]
        mapped = mapper.map(piece, THING, "key")
        assert mapped.messages.height == piece.events.height
        messages += mapped.messages.select("row", "message").rows()
    return rows, messages


def _plain(row: dict[str, Any], json_fields: frozenset[str]) -> Any:
    return as_json({name: orjson.loads(v) if v and name in json_fields else v for name, v in row.items()})


def main(kind: str, *arguments: str) -> None:
    """Try the files that are named."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))  # stdout is for names
    cost.limit_address_space(ADDRESS_SPACE_BYTES)
    told = costly(list(arguments)) if kind == "crafted" else compared(int(arguments[0]), int(arguments[1]))
    for name in told:
        print(name, flush=True)  # noqa: T201
        signal.alarm(FILE_TIMEOUT_S)


if __name__ == "__main__":
    main(*sys.argv[1:])
