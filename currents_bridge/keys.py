"""The keys of Braze Currents files in S3, in the older and the newer layout.

Both layouts, as Braze's Currents pages show them (`<file>` repeats the name of the integration's folder):

    <prefix>/dataexport.<cluster>.S3.integration.<id>/event_type=<type>/date=<hour>/<schema-id>/<zone>/<file>
    <prefix>/dataexport.<cluster>.S3.integration.<id>/event_type=<type>/date=<hour>/version=<n>/<environment>/<file>
    <file> = dataexport.<cluster>.S3.integration.<id>+<partition>+<offset>.avro
"""

import re
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from currents_bridge.catalogue import canonical_name
from currents_bridge.model import CurrentsObject, ListedObject, format_hour, parse_hour

# Counts the versions of this module that read keys which the one before did not: raise it with such a change, and
# every folder is listed whole once more, so that what was passed over is found.
READER = 1

EVENT_TYPE_FOLDER = "event_type="
DATE_FOLDER = "date="


class Layout(StrEnum):
    """What stands between the hour and the file."""

    SCHEMA = "schema"  # <schema-id>/<zone>, until 2026
    VERSION = "version"  # version=<n>/<environment>, since 2026


@dataclass(frozen=True, slots=True)
class CurrentsKey:
    """The parts of one key; `str(key)` puts them together again."""

    prefix: str  # empty, or ends in '/'
    cluster: str  # e.g. prod-01
    integration: str  # Braze's id of the Currents integration
    event_type: str
    hour: datetime  # aware; the UTC hour in which Braze queued the events
    layout: Layout
    revision: str  # <schema-id>, or the <n> of version=<n>
    place: str  # <zone>, or <environment>
    partition: int
    offset: int  # not padded in the key, so key order is not arrival order

    def __str__(self) -> str:
        stem = f"dataexport.{self.cluster}.S3.integration.{self.integration}"
        revision = f"version={self.revision}" if self.layout is Layout.VERSION else self.revision
        return (
            f"{self.prefix}{stem}/{EVENT_TYPE_FOLDER}{self.event_type}/{DATE_FOLDER}{format_hour(self.hour)}"
            f"/{revision}/{self.place}/{stem}+{self.partition}+{self.offset}.avro"
        )


_KEY = re.compile(
    r"""
    (?P<prefix>(?:.*/)?)
    (?P<stem>dataexport\.(?P<cluster>[^/]+?)\.S3\.integration\.(?P<integration>[^/]+))/
    event_type=(?P<event_type>[^/]+)/
    date=(?P<hour>[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}-[0-9]{2})/
    (?:version=(?P<version>[^/]+)|(?P<schema_id>(?!version=)[^/]+))/
    (?P<place>[^/]+)/
    (?P=stem)\+(?P<partition>0|[1-9][0-9]*)\+(?P<offset>0|[1-9][0-9]*)\.avro
    """,
    re.VERBOSE | re.DOTALL,
)


def parse_key(key: str) -> CurrentsKey | None:
    """Return the parts of a Currents file's key, or None where the key fits neither layout."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    try:
        hour = parse_hour(match["hour"])
    except ValueError:  # digits that are no hour
        return None
    return CurrentsKey(
        prefix=match["prefix"],
        cluster=match["cluster"],
        integration=match["integration"],
        event_type=match["event_type"],
        hour=hour,
        layout=Layout.SCHEMA if match["version"] is None else Layout.VERSION,
        revision=match["schema_id"] or match["version"],
        place=match["place"],
        partition=int(match["partition"]),
        offset=int(match["offset"]),
    )


def to_currents_object(listed: ListedObject) -> CurrentsObject | None:
    """Return the listed object with what its key tells, or None where the key fits neither layout."""
    key = parse_key(listed.key)
    if key is None:
        return None
    return CurrentsObject(
        key=listed.key,
        etag=listed.etag,
        size_bytes=listed.size_bytes,
        last_modified=listed.last_modified,
        event_type=canonical_name(key.event_type),
        hour=key.hour,
    )
