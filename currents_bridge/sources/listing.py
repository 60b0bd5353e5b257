"""What the bucket holds, in the order of its keys: the folders of event types, and the objects in their hours."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice, takewhile

from currents_bridge.errors import BridgeError, CredentialError, RetryLaterError
from currents_bridge.events.catalogue import canonical_name
from currents_bridge.model import ListedObject, format_hour
from currents_bridge.ports import ObjectStore
from currents_bridge.sources import misplaced
from currents_bridge.sources.coverage import HOUR, HourRange
from currents_bridge.sources.keys import DATE_FOLDER, EVENT_TYPE_FOLDER
from currents_bridge.sources.unread import Unread

MAX_LEVELS = 4  # of folders from the prefix down to the `event_type=` folders; Braze needs two
PAGE_OBJECTS = 1_000  # worked on at once; one LIST answer holds as many


@dataclass(slots=True)
class Tree:
    """The folders under a prefix; each ends in '/'."""

    top: str  # the prefix; empty, or ends in '/'
    by_type: dict[str, list[str]] = field(default_factory=dict)  # one for each integration that exports the type
    failures: dict[str, BridgeError] = field(default_factory=dict)  # folders that cannot be listed -> why
    unread: Unread = field(default_factory=Unread)  # whatever else was met, and Currents files that the prefix misses

    @property
    def types(self) -> frozenset[str]:
        """Every event type that has a folder."""
        return frozenset(self.by_type)

    @property
    def denied(self) -> dict[str, CredentialError]:
        """The folders that may not be listed."""
        return {folder: error for folder, error in self.failures.items() if isinstance(error, CredentialError)}

    @property
    def folders(self) -> list[str]:
        """Every folder that there is something to say of, in the order of keys."""
        return sorted({folder for of_type in self.by_type.values() for folder in of_type} | self.failures.keys())


def find_event_type_folders(store: ObjectStore, prefix: str) -> Tree:
    """Walk from the prefix down to the `event_type=` folders, at most MAX_LEVELS levels.

    A folder on the way that cannot be listed costs itself.

    Raises:
        CredentialError, RetryLaterError: the prefix cannot be listed.
    """
    tree = Tree(prefix if prefix.endswith("/") or not prefix else f"{prefix}/")
    if misplaced.is_inside_event_type(tree.top):
        misplaced.note_inside(store, tree.top, tree.unread)
        return tree
    misplaced.note_unwalked(store, _walk(store, tree), tree.unread)
    if not (tree.by_type or tree.failures or tree.unread.counts):
        misplaced.note_beside(store, tree.top, tree.unread)
    return tree


def _walk(store: ObjectStore, tree: Tree) -> list[str]:
    """Fill the tree, and return the folders that were left out."""
    unwalked: list[str] = []
    level = [tree.top]
    for _ in range(MAX_LEVELS):
        below: dict[str, None] = {}
        for parent in level:
            try:
                folders, objects = store.folders(parent)
            except (CredentialError, RetryLaterError) as error:
                if parent == tree.top:
                    raise
                tree.failures[parent] = error
                continue
            for item in objects:
                tree.unread.add(item.key)
            for folder in dict.fromkeys(folders):  # some servers name one twice
                name = folder[len(parent) : -1]
                if name.startswith(EVENT_TYPE_FOLDER) and name != EVENT_TYPE_FOLDER:
                    event_type = canonical_name(name.removeprefix(EVENT_TYPE_FOLDER))
                    tree.by_type.setdefault(event_type, []).append(folder)
                elif name.startswith(DATE_FOLDER):
                    unwalked.append(folder)  # hours outside an event type; there may be thousands
                else:
                    below[folder] = None
        level = list(below)
    return unwalked + level


def key_range(folder: str, hours: HourRange) -> tuple[str, str]:
    """Return two texts between which the keys of these hours stand in a folder."""
    first, end = hours
    dates = folder + DATE_FOLDER
    # After all keys of the hour before, since '0' sorts after '/'. The bare name of the first hour's folder would do
    # for S3, but SeaweedFS takes it for the whole folder and starts after that.
    after = f"{dates}{format_hour(first - HOUR)}0" if first else folder
    return after, dates + format_hour(end) if end else end_of(folder)


def end_of(folder: str) -> str:
    """Return a text after all keys in a folder (empty: of the bucket), and before what follows it."""
    return folder[:-1] + chr(ord("/") + 1) if folder else chr(0x10FFFF)


def find_object(store: ObjectStore, key: str) -> ListedObject | None:
    """Return an object as it is listed now, None where there is none; one LIST."""
    first = next(store.list(key), None)  # of all keys that begin like this one, itself comes first
    return first if first and first.key == key else None


def list_between(store: ObjectStore, folder: str, after: str, before: str) -> Iterator[ListedObject]:
    """Yield the objects of a folder with after < key < before, in key order; raises as the store's `list`."""
    listed = store.list(folder, start_after="" if after == folder else after)
    return listed if before == end_of(folder) else takewhile(lambda item: item.key < before, listed)


def pages_of(objects: Iterator[ListedObject]) -> Iterator[Mapping[str, ListedObject]]:
    """Yield the objects a page at a time, by key; one that is listed twice in it stands in it once."""
    while page := {item.key: item for item in islice(objects, PAGE_OBJECTS)}:
        yield page
