"""`inspect`: the messages of one Currents file, as they would be sent, sending nothing."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import BinaryIO

from currents_bridge.avro.container import Container
from currents_bridge.connector import event_type_of
from currents_bridge.errors import UsageError
from currents_bridge.events.catalogue import canonical_name
from currents_bridge.events.json_objects import events_as_json
from currents_bridge.events.mapping import Mapper
from currents_bridge.model import DeadLetter


@dataclass(slots=True)
class Inspection:
    """What is not among the lines: filled while they are read."""

    event_type: str
    skipped_anonymous: int = 0
    dead_letters: list[DeadLetter] = field(default_factory=list)


def raw_lines(stream: BinaryIO) -> Iterator[str]:
    """Yield each event of a container as it stands there, one JSON object; raises QuarantineObjectError."""
    for piece in Container(stream).slices():
        yield from events_as_json(piece.events, piece.json_fields)


def inspect(stream: BinaryIO, key: str, mapper: Mapper) -> tuple[Inspection, Iterator[str]]:
    """Return the messages of a container in order, one JSON object each, and what else was found.

    The event type is taken from the record's name, else from `event_type=` in the key. Raises UsageError where
    neither names it, QuarantineObjectError for anything that is no Currents file.
    """
    container = Container(stream)
    _, marker, named = container.record_name.partition(".inner.")
    in_key = re.search(r"event_type=([^/]+)/", key)
    event_type = canonical_name(named if marker else in_key[1] if in_key else "")
    if not event_type:
        raise UsageError(
            f"{key}: neither the records nor the path name an event type",
            "keep the folder event_type=<type> in the path of a downloaded file",
        )
    found = Inspection(event_type)

    def lines() -> Iterator[str]:
        for piece in container.slices():
            mapped = mapper.map(piece, event_type_of(event_type), key)
            found.skipped_anonymous += mapped.skipped_anonymous
            found.dead_letters += mapped.dead_letters
            yield from mapped.messages["message"]

    return found, lines()
