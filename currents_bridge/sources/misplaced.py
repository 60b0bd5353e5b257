"""Currents files that the walk from `source.prefix` does not reach, since it names another folder than theirs."""

from collections.abc import Sequence

from currents_bridge.errors import CredentialError, RetryLaterError
from currents_bridge.ports import ObjectStore
from currents_bridge.sources.keys import EVENT_TYPE_FOLDER
from currents_bridge.sources.unread import Reason, Unread, looks_like_currents, reason_of

MAX_SAMPLES = 20  # folders of which a key is looked at, one LIST each; the others are judged by their names


def is_inside_event_type(prefix: str) -> bool:
    """Return whether a prefix names the folder of an event type or one below it, so that a walk would find none."""
    return any(folder.startswith(EVENT_TYPE_FOLDER) for folder in prefix.split("/"))


def note_inside(store: ObjectStore, prefix: str, unread: Unread) -> None:
    """Count a prefix inside an event type, if anything lies under it; raises as the store's `list`."""
    if first := next(store.list(prefix), None):
        unread.count(Reason.PREFIX_TOO_LOW, first.key)
    else:
        note_beside(store, prefix, unread)


def note_unwalked(store: ObjectStore, folders: Sequence[str], unread: Unread) -> None:
    """Count folders that the walk left out, each by a key that lies in it."""
    likely_first = sorted(folders, key=looks_like_currents, reverse=True)
    for number, folder in enumerate(likely_first):
        key = (_first_key(store, folder) if number < MAX_SAMPLES else None) or folder
        below = EVENT_TYPE_FOLDER in key.removeprefix(folder)
        unread.count(Reason.PREFIX_TOO_HIGH if below else reason_of(key), key)


def note_beside(store: ObjectStore, prefix: str, unread: Unread) -> None:
    """Where nothing lies under a prefix, say where Currents files lie beside it or above; costs a LIST a level."""
    folders = prefix.rstrip("/").split("/")
    starts = [
        prefix.rstrip("/"),
        *("".join(f"{name}/" for name in folders[:end]) for end in range(len(folders) - 1, -1, -1)),
    ]
    for start in starts:
        key = _first_key(store, start)
        if key and EVENT_TYPE_FOLDER in key:
            unread.count(Reason.PREFIX_ELSEWHERE, key)
            return


def _first_key(store: ObjectStore, prefix: str) -> str | None:
    """Return the first key under a prefix that may be any; what cannot be listed is not there to be told of."""
    try:
        return first.key if (first := next(store.list(prefix), None)) else None
    except (CredentialError, RetryLaterError):
        return None
