"""Why a key under the prefix is not read, and what would help. Pure.

Keys are counted by reason, and only a few of each are kept: a bucket may hold a million odd ones.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import unquote

from currents_bridge.sources.keys import EVENT_TYPE_FOLDER, parse_key

MAX_EXAMPLES = 3  # of each reason
_HIDDEN = ("_", ".")  # how Hadoop and file systems mark what is no data: _SUCCESS, ._copy.avro.crc


class Reason(StrEnum):
    """What is odd about a key, or about `source.prefix`."""

    NOT_CURRENTS = "not_currents"  # plainly something else
    ENCODED = "encoded"
    NO_EVENT_TYPE = "no_event_type"
    SEVERAL_EVENT_TYPES = "several_event_types"
    ENDING = "ending"
    NO_HOUR = "no_hour"
    FILE_NAME = "file_name"
    PREFIX_TOO_HIGH = "prefix_too_high"
    PREFIX_TOO_LOW = "prefix_too_low"
    PREFIX_ELSEWHERE = "prefix_elsewhere"


_OF_PREFIX = frozenset({Reason.PREFIX_TOO_HIGH, Reason.PREFIX_TOO_LOW, Reason.PREFIX_ELSEWHERE})
_OTHER_FOLDERS = (
    "copy the files again in the folders that Braze gave them; if Braze names folders so by now, update currents-bridge"
)
_WORDS = {
    Reason.NOT_CURRENTS: ("are no Currents files", "nothing; without them under source.prefix, looks are quicker"),
    Reason.ENCODED: (
        "have URL-encoded names (%3D for =)",
        "copy the files again under their plain names, event_type=... and date=...",
    ),
    Reason.NO_EVENT_TYPE: (
        "stand in no folder event_type=TYPE",
        _OTHER_FOLDERS,
    ),
    Reason.SEVERAL_EVENT_TYPES: (
        "stand in several folders event_type=TYPE, one in the other",
        "move the inner folder beside the outer one",
    ),
    Reason.ENDING: (
        "have names that do not end in .avro",
        "unpack or rename files of Braze's; move other files out of source.prefix",
    ),
    Reason.NO_HOUR: (
        "do not stand in a folder date=YYYY-MM-DD-HH right below event_type=TYPE",
        _OTHER_FOLDERS,
    ),
    Reason.FILE_NAME: (
        "have names that Braze does not give (dataexport.....+PARTITION+OFFSET.avro)",
        "copy the files again under Braze's names; move files that Braze did not write out of source.prefix",
    ),
    Reason.PREFIX_TOO_HIGH: ("lie too deep below source.prefix", "set source.prefix to {prefix}"),
    Reason.PREFIX_TOO_LOW: (
        "lie in one event type, which source.prefix ends in",
        "set source.prefix to {prefix}, and events.include to [{event_type}] if nothing else is wanted",
    ),
    Reason.PREFIX_ELSEWHERE: ("lie beside source.prefix, where nothing lies", "set source.prefix to {prefix}"),
}


@dataclass(slots=True)
class Unread:
    """Keys that are not read: all of them counted, the first MAX_EXAMPLES of each reason kept."""

    counts: Counter[Reason] = field(default_factory=Counter)
    examples: dict[Reason, list[str]] = field(default_factory=dict)

    def add(self, key: str) -> None:
        """Count a key that `parse_key` refuses, unless it is only the empty object that marks a folder."""
        if not key.endswith("/"):
            self.count(reason_of(key), key)

    def count(self, reason: Reason, key: str) -> None:
        """Count a key for a reason."""
        self.counts[reason] += 1
        kept = self.examples.setdefault(reason, [])
        if len(kept) < MAX_EXAMPLES:
            kept.append(key)

    def merge(self, other: "Unread") -> None:
        """Add the keys of another look."""
        self.counts.update(other.counts)
        for reason, keys in other.examples.items():
            kept = self.examples.setdefault(reason, [])
            kept += keys[: MAX_EXAMPLES - len(kept)]

    @property
    def odd(self) -> int:
        """How many keys look like Currents data, so that something should be done about them."""
        return self.counts.total() - self.counts[Reason.NOT_CURRENTS]

    def lines(self) -> Iterator["Line"]:
        """Yield what there is to say, one line a reason."""
        for reason in Reason:
            if count := self.counts[reason]:
                yield Line(reason, count, self.examples[reason])


@dataclass(frozen=True, slots=True)
class Line:
    """What there is to say of the keys that are not read for one reason."""

    reason: Reason
    count: int
    examples: list[str]

    @property
    def odd(self) -> bool:
        """Whether they look like Currents data."""
        return self.reason is not Reason.NOT_CURRENTS

    @property
    def of_prefix(self) -> bool:
        """Whether `source.prefix` is at fault, and no key."""
        return self.reason in _OF_PREFIX

    @property
    def what(self) -> str:
        """What is odd about them, with an example."""
        return f"{_WORDS[self.reason][0]}, like {self.examples[0]}"

    @property
    def todo(self) -> str:
        """What would help."""
        key = self.examples[0]
        return _WORDS[self.reason][1].format(prefix=prefix_for(key), event_type=_event_type_of(key))


def reason_of(key: str) -> Reason:
    """Return what is odd about a key that `parse_key` refuses."""
    folder, _, name = key.rpartition("/")
    types = key.count(EVENT_TYPE_FOLDER)
    fits = {
        Reason.NOT_CURRENTS: not looks_like_currents(key),
        Reason.ENCODED: parse_key(unquote(key)) is not None,
        Reason.NO_EVENT_TYPE: types == 0,
        Reason.SEVERAL_EVENT_TYPES: types > 1,
        Reason.ENDING: not name.endswith(".avro"),
        Reason.FILE_NAME: parse_key(f"{folder}/dataexport.+0.avro") is not None,
        Reason.NO_HOUR: True,
    }
    return next(reason for reason, holds in fits.items() if holds)


def looks_like_currents(key: str) -> bool:
    """Return whether a key looks like Currents data that is named a little differently."""
    plain = unquote(key)
    name = plain.rpartition("/")[2]
    if name.startswith(_HIDDEN) or name.endswith("_$folder$"):
        return False
    return EVENT_TYPE_FOLDER in plain or "dataexport." in plain or ".avro" in name.lower()


def prefix_for(key: str) -> str:
    """Return the prefix under which a key would be found: what stands before the folder of its integration."""
    folders = key.split("/")
    at = next((number for number, name in enumerate(folders) if name.startswith(EVENT_TYPE_FOLDER)), 0)
    return "".join(f"{folder}/" for folder in folders[: max(0, at - 1)]) or '""'


def _event_type_of(key: str) -> str:
    return key.partition(EVENT_TYPE_FOLDER)[2].partition("/")[0]
