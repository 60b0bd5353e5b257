"""What a look at the bucket keeps notices of: integrations, unknown types, odd keys, what was rewritten."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from currents_bridge.errors import CredentialError
from currents_bridge.model import Notice, NoticeKind
from currents_bridge.ports import Ledger
from currents_bridge.sources.keys import EVENT_TYPE_FOLDER
from currents_bridge.sources.listing import Tree
from currents_bridge.sources.rewritten import Rewritten
from currents_bridge.sources.unread import Line, Reason


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look met."""

    tree: Tree  # the folders, with all that was met in them
    of_unknown: Mapping[str, int]  # objects of types that the catalogue does not know
    rewritten: Rewritten
    included: frozenset[str]  # types that are delivered
    whole: bool  # it left out no hour from `start_from` on, so what it did not meet is there no more
    depth: timedelta | None = None  # of an audit that looks back no further: what none met for as long is over, too


def note_look(ledger: Ledger, connector: str, seen: Seen, now: datetime) -> None:
    """Keep notices of what a look met."""
    tells = (seen.whole or seen.depth) and not seen.tree.failures
    met_before = None if seen.whole or not seen.depth else now - seen.depth
    lines = list(seen.tree.unread.lines())
    of_prefix = [_odd(NoticeKind.MISPLACED, line) for line in lines if line.of_prefix]
    of_keys = [_odd(NoticeKind.UNREAD_KEYS, line) for line in lines if not line.of_prefix]
    unknown = list(_unknown_types(seen.of_unknown, seen.included))
    for kind, notices, replaced in (
        (NoticeKind.MISPLACED, of_prefix, True),  # what is wrong with the prefix every look sees
        (NoticeKind.UNREAD_KEYS, of_keys, tells),
        (NoticeKind.UNKNOWN_EVENT_TYPE, unknown, tells),
        (NoticeKind.OBJECT_CHANGED, list(seen.rewritten.notices(connector)), tells),
    ):
        if replaced:
            before = None if kind is NoticeKind.MISPLACED else met_before
            ledger.replace_notices(connector, kind, notices, now, met_before=before)
        else:
            ledger.note(connector, notices, now)
    if seen.tree.types:
        ledger.replace_notices(connector, NoticeKind.INTEGRATION, list(_integrations(seen.tree.by_type)), now)


def note_denied(ledger: Ledger, connector: str, denied: Mapping[str, CredentialError], now: datetime) -> None:
    """Keep notices of the folders that may not be listed, and of no others; for looks at all that is included."""
    notices = [
        Notice(NoticeKind.FOLDER_DENIED, folder, f"{error.message}; {error.hint}") for folder, error in denied.items()
    ]
    ledger.replace_notices(connector, NoticeKind.FOLDER_DENIED, notices, now)


def _integrations(folders: Mapping[str, Sequence[str]]) -> Iterator[Notice]:
    """Yield the folders right above those of event types, with how many of these each has; never the bucket itself."""
    parents = (folder.rpartition(EVENT_TYPE_FOLDER)[0] for of_type in folders.values() for folder in of_type)
    for folder, types in sorted(Counter(parents).items()):
        if folder:
            yield Notice(NoticeKind.INTEGRATION, folder, f"event types: {types}")


def _unknown_types(objects: Mapping[str, int], included: frozenset[str]) -> Iterator[Notice]:
    for event_type, count in objects.items():
        if count:  # hours without such objects say nothing new of the type
            fate = "delivered by the general rules" if event_type in included else "not included, not delivered"
            yield Notice(NoticeKind.UNKNOWN_EVENT_TYPE, event_type, f"not in the catalogue; {fate}", count)


def _odd(kind: NoticeKind, line: Line) -> Notice:
    return Notice(kind, line.reason, f"{line.what}; {line.todo}", line.count)


def is_unexplained(notice: Notice) -> bool:
    """Return whether a notice says that something in the bucket is neither delivered nor left out by a rule."""
    kinds = {NoticeKind.UNREAD_KEYS, NoticeKind.MISPLACED, NoticeKind.OBJECT_CHANGED}
    return notice.kind in kinds and notice.subject != Reason.NOT_CURRENTS
