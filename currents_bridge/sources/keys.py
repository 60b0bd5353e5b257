"""What the keys of Braze Currents files tell: event type and hour.

Braze's layouts, as its Currents pages show them (`<file>` repeats the name of the integration's folder; `S3` is the
kind of storage that Braze wrote to, and stays when files are mirrored to another one):

    <prefix>/dataexport.<cluster>.S3.integration.<id>/event_type=<type>/date=<hour>/<schema-id>/<zone>/<file>
    <prefix>/dataexport.<cluster>.S3.integration.<id>/event_type=<type>/date=<hour>/version=<n>/<environment>/<file>
    <file> = dataexport.<cluster>.S3.integration.<id>+<partition>+<offset>.avro

Braze says that naming may change again. So a file is read wherever its path says for certain what has to be known of
it: one `event_type=<type>`, right below it `date=<hour>`, and a file name of Braze's. Other folders may be named as
they like. `unread` says what is odd about any other key.
"""

import re
from datetime import datetime
from functools import lru_cache

from currents_bridge.events.catalogue import canonical_name
from currents_bridge.model import CurrentsObject, ListedObject, parse_hour

# Counts the versions of this module that read keys which the one before did not: raise it with such a change, and
# every folder is listed whole once more, so that what was passed over is found.
READER = 1

EVENT_TYPE_FOLDER = "event_type="
DATE_FOLDER = "date="
FIRST_YEAR = 1001  # before it no hour is read that has another one before it

_FOLDER = re.compile(
    r"""
    (?:.*/)?
    event_type=([^/]+)/
    date=([1-9][0-9]{3}-[0-9]{2}-[0-9]{2}-[0-9]{2})/
    (?:[^/]+/)*
    """,
    re.VERBOSE | re.DOTALL,
)
_FILE = re.compile(r"dataexport\.[^/]*\+[0-9]+\.avro", re.DOTALL)


def parse_key(key: str) -> tuple[str, datetime] | None:
    """Return event type, as the key spells it, and UTC hour; None where the key does not tell both for certain."""
    folder, slash, file = key.rpartition("/")
    if _FILE.fullmatch(file) is None or EVENT_TYPE_FOLDER in file:
        return None
    return _parse_folder(folder + slash)


@lru_cache(1_024)  # a page of a listing has few folders
def _parse_folder(folder: str) -> tuple[str, datetime] | None:
    match = _FOLDER.fullmatch(folder)
    if match is None or folder.count(EVENT_TYPE_FOLDER) > 1:
        return None
    event_type, hour = match.groups()
    try:
        return event_type, parse_hour(hour)
    except ValueError:  # digits that are no hour
        return None


def to_currents_object(listed: ListedObject) -> CurrentsObject | None:
    """Return the listed object with what its key tells, or None where that is not enough to read it."""
    told = parse_key(listed.key)
    if told is None:
        return None
    event_type, hour = told
    # Positional, since each of millions of keys passes here.
    return CurrentsObject(
        listed.key, listed.etag, listed.size_bytes, listed.last_modified, canonical_name(event_type), hour
    )
