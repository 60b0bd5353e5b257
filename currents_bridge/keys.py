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

from currents_bridge.catalogue import canonical_name
from currents_bridge.model import CurrentsObject, ListedObject, parse_hour

# Counts the versions of this module that read keys which the one before did not: raise it with such a change, and
# every folder is listed whole once more, so that what was passed over is found.
READER = 1

EVENT_TYPE_FOLDER = "event_type="
DATE_FOLDER = "date="
FIRST_YEAR = 1001  # before it no hour is read that has another one before it

_KEY = re.compile(
    r"""
    (?:.*/)?
    event_type=([^/]+)/
    date=([1-9][0-9]{3}-[0-9]{2}-[0-9]{2}-[0-9]{2})/
    (?:[^/]+/)*
    dataexport\.[^/]*\+[0-9]+\.avro
    """,
    re.VERBOSE | re.DOTALL,
)


def parse_key(key: str) -> tuple[str, datetime] | None:
    """Return event type, as the key spells it, and UTC hour; None where the key does not tell both for certain."""
    match = _KEY.fullmatch(key)
    if match is None or key.count(EVENT_TYPE_FOLDER) > 1:
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
    return CurrentsObject(
        key=listed.key,
        etag=listed.etag,
        size_bytes=listed.size_bytes,
        last_modified=listed.last_modified,
        event_type=canonical_name(event_type),
        hour=hour,
    )
