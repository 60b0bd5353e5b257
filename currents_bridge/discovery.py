"""Which objects are new: listings of the bucket, compared with the ledger.

A poll lists of each `event_type=` folder what `coverage` says: the hot window, and what was never listed. So a stop of
days is caught up by the next poll, and the cost of a poll does not grow with the history. Key order sorts hours
(`date=YYYY-MM-DD-HH`) but not arrival inside an hour (offsets are not padded), so hours are always listed whole, and
the ledger says what is new. What lands later in an older hour is found by the audit, see audit.py.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from itertools import islice, takewhile
from typing import Literal

from currents_bridge import misplaced
from currents_bridge.catalogue import canonical_name
from currents_bridge.coverage import HOUR, HourRange, covered_by_look, hour_of, hours_to_list
from currents_bridge.errors import BridgeError, CredentialError, LedgerError
from currents_bridge.keys import DATE_FOLDER, EVENT_TYPE_FOLDER, to_currents_object
from currents_bridge.model import (
    Coverage,
    CurrentsObject,
    ListedObject,
    Notice,
    NoticeKind,
    Progress,
    Selection,
    format_hour,
)
from currents_bridge.ports import Ledger, ObjectStore
from currents_bridge.rewritten import Rewritten
from currents_bridge.unread import Line, Unread

MAX_LEVELS = 4  # of folders from the prefix down to the `event_type=` folders; Braze needs two
PAGE_OBJECTS = 1_000  # admitted at once; one LIST answer holds as many
LISTINGS_AT_ONCE = 8

StartFrom = datetime | Literal["earliest", "now"]
HoursOf = Callable[[str], Sequence[HourRange]]  # of a folder
EVERYTHING: Sequence[HourRange] = [(None, None)]


@dataclass(frozen=True, slots=True)
class Source:
    """Where to look, what for, and what is known already.

    `event_types` is given the types seen in the bucket and returns those to deliver. `catalogue_types` are the types
    that need no report. Types are canonical names, however keys spell them. `prefix` names a folder, with or without
    its '/'. `place` tells one bucket from all others, as a URL does.
    """

    store: ObjectStore
    ledger: Ledger
    connector: str
    prefix: str
    event_types: Callable[[Iterable[str]], frozenset[str]]
    catalogue_types: frozenset[str]
    start_from: StartFrom = "earliest"
    lookback: timedelta = timedelta(hours=6)
    place: str = ""
    remember: timedelta | None = None  # for how long message ids that were sent are left out


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one look found, in objects."""

    discovered: int  # new in the ledger
    listed: int
    changed: int  # have another ETag than the one they were delivered with
    unread: int  # look like Currents data, and their keys are not understood
    seen_types: frozenset[str]  # every type that has a folder, included or not
    covered: frozenset[str]  # folders of included types of which all hours asked for were listed
    failures: Mapping[str, BridgeError]  # folder -> why it could not be listed

    @property
    def complete(self) -> bool:
        """Whether there is something under the prefix, and all that was wanted of it was listed."""
        return bool(self.seen_types) and not self.failures

    def raise_failure(self) -> None:
        """Raise what kept folders from being listed, but for denials of some folders beside others that were listed.

        One that may not be listed costs itself; the notice of it says so.
        """
        denied = [error for error in self.failures.values() if isinstance(error, CredentialError)]
        for error in self.failures.values():
            if error not in denied:
                raise error
        if denied and not self.covered:
            raise denied[0]


def poll(source: Source, now: datetime) -> Discovery:
    """List of each folder the hot window and what was never listed, admit what is new, keep what is covered by that.

    Costs one LIST for the prefix, one for each integration and one for each type of an integration, and more only
    where one of them has over 1,000 objects in the window. What is covered of a folder that could not be listed stays
    as it was, and a look that found no folder at all is none.

    Raises:
        CredentialError, RetryLaterError: the bucket cannot be listed, or not all of it; the rest is admitted.
        LedgerError: the ledger cannot be used.
    """
    ledger, connector = source.ledger, source.connector
    progress = _started(source, now)
    start = resolve_start(source.start_from, progress)
    covered = ledger.coverage(connector, source.place)
    polled = Coverage(None, progress.polled_at) if progress.polled_at else None

    def hours_of(known: Coverage | None) -> Sequence[HourRange]:
        return hours_to_list(known, start, source.lookback, now)

    found = discover(
        source, lambda folder: hours_of(covered.get(folder)), now, counted=hours_of(polled), whole=not covered
    )
    _keep_coverage(source, found, start, now)
    if found.complete:
        ledger.save_progress(connector, Progress(polled_at=now))
    found.raise_failure()
    return found


def list_all(source: Source, now: datetime, depth: timedelta | None = None) -> Discovery:
    """List of each folder every hour from `start_from`, or `depth` before now, on, and admit what is new.

    So what landed in an hour after polls had left it is found, whatever its age. Costs one LIST for each 1,000
    objects. Raises as `poll`.
    """
    start = resolve_start(source.start_from, _started(source, now))
    if depth:
        start = max(now - depth, start) if start else now - depth
    hours: list[HourRange] = [(start and hour_of(start), None)]
    found = discover(source, lambda _: hours, now, counted=hours, whole=True)
    _keep_coverage(source, found, start, now)
    found.raise_failure()
    return found


def _started(source: Source, now: datetime) -> Progress:
    """Return the progress, with the start of the very first look, which is kept even if that look fails."""
    progress = source.ledger.progress(source.connector)
    if progress.started_at is None:
        progress = replace(progress, started_at=now)
        source.ledger.save_progress(source.connector, Progress(started_at=now))
    return progress


def _keep_coverage(source: Source, found: Discovery, start: datetime | None, now: datetime) -> None:
    known = source.ledger.coverage(source.connector, source.place)
    covered = {folder: covered_by_look(known.get(folder), start, source.lookback, now) for folder in found.covered}
    source.ledger.save_coverage(source.connector, source.place, covered)


def resolve_start(start_from: StartFrom, progress: Progress) -> datetime | None:
    """Return the time from which hours are wanted, None for all; `now` is the start of the very first look."""
    match start_from:
        case "earliest":
            return None
        case "now":
            return progress.started_at
        case _:
            return start_from


def discover(
    source: Source, hours_of: HoursOf, now: datetime, *, counted: Sequence[HourRange] = EVERYTHING, whole: bool = False
) -> Discovery:
    """List the hours of each folder that `hours_of` names, admit what is new, and keep notices of what is odd.

    The ranges of a folder must not overlap. Types of the catalogue that are not included are not listed; types that
    it does not know are counted, in the hours `counted` where they are not included. Folders that cannot be listed
    are in the result; what the others hold is admitted. A look that is `whole` leaves out no hour from `start_from`
    on, so what it does not meet is there no more.

    Raises:
        CredentialError, RetryLaterError: nothing can be listed below the prefix.
        LedgerError: the ledger cannot be used.
    """
    folders, unread, failures = find_event_type_folders(source.store, source.prefix)
    seen = frozenset(folders)
    included, unknown = source.event_types(seen), seen - source.catalogue_types
    spots = [
        _Spot(event_type, folder, event_type in included, hours_of(folder) if event_type in included else counted)
        for event_type in sorted(seen & (included | unknown))
        for folder in folders[event_type]
    ]
    with ThreadPoolExecutor(LISTINGS_AT_ONCE, thread_name_prefix="listing") as pool:
        looks = list(pool.map(lambda spot: _look(source, spot, now), spots))
    of_unknown: Counter[str] = Counter()
    rewritten = Rewritten()
    for look in looks:
        unread.merge(look.unread)
        rewritten.merge(look.rewritten)
        if look.spot.event_type in unknown:
            of_unknown[look.spot.event_type] += look.listed
        if look.failure:
            failures[look.spot.folder] = look.failure
    _note_unread(source, unread, now, whole=whole and not failures)
    unknown_types = _unknown_types(of_unknown, included)
    _note(source, NoticeKind.UNKNOWN_EVENT_TYPE, unknown_types, now, whole=whole and not failures)
    changed = rewritten.notices(source.connector)
    _note(source, NoticeKind.OBJECT_CHANGED, changed, now, whole=whole and not failures)
    if folders:
        source.ledger.replace_notices(source.connector, NoticeKind.INTEGRATION, list(_integrations(folders)), now)
    source.ledger.replace_notices(source.connector, NoticeKind.FOLDER_DENIED, list(_denied(failures)), now)
    return Discovery(
        discovered=sum(look.discovered for look in looks),
        listed=sum(look.listed for look in looks),
        changed=sum(look.changed for look in looks),
        unread=unread.odd,
        seen_types=seen,
        covered=frozenset(look.spot.folder for look in looks if look.whole),
        failures=failures,
    )


def look_again(source: Source, objects: Sequence[CurrentsObject], now: datetime) -> None:
    """List the hours of objects that were written again while they waited, so that they take their new ETags.

    Raises CredentialError, RetryLaterError or LedgerError.
    """
    for folder in sorted({item.key[: item.key.index("/", item.key.index(DATE_FOLDER)) + 1] for item in objects}):
        listing = source.store.list(folder)
        while page := list(islice(listing, PAGE_OBJECTS)):
            source.ledger.admit(source.connector, list(filter(None, map(to_currents_object, page))), now)


def list_objects(source: Source, selection: Selection) -> Iterator[CurrentsObject]:
    """Yield the objects of a selection as the bucket holds them, recording nothing.

    Raises CredentialError or RetryLaterError where a folder cannot be listed.
    """
    folders, _, failures = find_event_type_folders(source.store, source.prefix)
    for error in failures.values():
        raise error
    for event_type in sorted(selection.event_types & folders.keys()):
        for folder in folders[event_type]:
            spot = _Spot(event_type, folder, True, [(selection.first_hour, selection.end_hour)])
            for item in _list_hours(source.store, spot):
                if currents_object := to_currents_object(item):
                    yield currents_object


def find_event_type_folders(
    store: ObjectStore, prefix: str
) -> tuple[dict[str, list[str]], Unread, dict[str, BridgeError]]:
    """Walk from the prefix down to the `event_type=` folders, at most MAX_LEVELS levels.

    Returns the folders (each ends in '/') of each event type, one for each integration that exports it; whatever else
    was met: objects beside the folders, folders too deep to be walked, and Currents files that the prefix misses; and
    the folders that may not be listed.

    Raises:
        CredentialError, RetryLaterError: the prefix cannot be listed.
    """
    top = prefix if prefix.endswith("/") or not prefix else f"{prefix}/"
    unread = Unread()
    if misplaced.is_inside_event_type(top):
        misplaced.note_inside(store, top, unread)
        return {}, unread, {}
    by_type, unwalked, denied = _walk(store, top, unread)
    misplaced.note_unwalked(store, unwalked, unread)
    if not (by_type or denied or unread.counts):
        misplaced.note_beside(store, top, unread)
    return {event_type: list(folders) for event_type, folders in by_type.items()}, unread, denied


def _walk(
    store: ObjectStore, top: str, unread: Unread
) -> tuple[dict[str, dict[str, None]], list[str], dict[str, BridgeError]]:
    """Return the folders of each event type, those that were left out, and those that may not be listed."""
    by_type: dict[str, dict[str, None]] = {}
    denied: dict[str, BridgeError] = {}
    unwalked: list[str] = []
    level = [top]
    for _ in range(MAX_LEVELS):
        below: dict[str, None] = {}
        for parent in level:
            try:
                folders, objects = store.folders(parent)
            except CredentialError as error:
                if parent == top:
                    raise
                denied[parent] = error
                continue
            for item in objects:
                unread.add(item.key)
            for folder in folders:
                name = folder[len(parent) : -1]
                if name.startswith(EVENT_TYPE_FOLDER) and name != EVENT_TYPE_FOLDER:
                    by_type.setdefault(canonical_name(name.removeprefix(EVENT_TYPE_FOLDER)), {})[folder] = None
                elif name.startswith(DATE_FOLDER):
                    unwalked.append(folder)  # hours outside an event type; there may be thousands
                else:
                    below[folder] = None
        level = list(below)
    return by_type, unwalked + level, denied


@dataclass(frozen=True, slots=True)
class _Spot:
    """What is listed of one type of one integration."""

    event_type: str
    folder: str
    included: bool
    hours: Sequence[HourRange]


@dataclass(slots=True)
class _Look:
    """What the listings of one spot found."""

    spot: _Spot
    discovered: int = 0
    listed: int = 0
    changed: int = 0
    unread: Unread = field(default_factory=Unread)
    rewritten: Rewritten = field(default_factory=Rewritten)
    failure: BridgeError | None = None

    @property
    def whole(self) -> bool:
        """Whether all was listed; a folder that is there though nothing is in it contradicts itself."""
        empty = not (self.listed or self.unread.counts) and self.spot.hours == EVERYTHING
        return self.spot.included and self.failure is None and not empty


def _look(source: Source, spot: _Spot, now: datetime) -> _Look:
    look = _Look(spot)
    listing = _list_hours(source.store, spot)
    try:
        while page := {item.key: item for item in islice(listing, PAGE_OBJECTS)}:
            _admit(source, page.values(), look, now)
    except LedgerError:
        raise
    except BridgeError as error:
        look.failure = error
    return look


def _admit(source: Source, page: Iterable[ListedObject], look: _Look, now: datetime) -> None:
    objects = []
    for item in page:
        currents_object = to_currents_object(item)
        if currents_object is None:
            look.unread.add(item.key)
        else:
            objects.append(currents_object)
    look.listed += len(objects)
    if objects and look.spot.included:
        discovered, changed = source.ledger.admit(source.connector, objects, now)
        look.discovered += discovered
        look.changed += len(changed)
        if changed and source.remember:
            changed = source.ledger.redeliver(source.connector, changed, now - source.remember, now)
        look.rewritten.add(changed)


def _list_hours(store: ObjectStore, spot: _Spot) -> Iterator[ListedObject]:
    dates = spot.folder + DATE_FOLDER
    for first, end in spot.hours:
        # After all keys of the hour before, since '0' sorts after '/'. The bare name of the first hour's folder would
        # do for S3, but SeaweedFS takes it for the whole folder and starts after that.
        listing = store.list(spot.folder, start_after=f"{dates}{format_hour(first - HOUR)}0" if first else "")
        if end is None:
            yield from listing
        else:
            yield from takewhile(partial(_comes_before, dates + format_hour(end)), listing)


def _comes_before(key: str, item: ListedObject) -> bool:
    return item.key < key


def _integrations(folders: Mapping[str, Sequence[str]]) -> Iterator[Notice]:
    """Yield the folders right above those of event types, with how many of these each has; never the bucket itself."""
    parents = (folder.rpartition(EVENT_TYPE_FOLDER)[0] for of_type in folders.values() for folder in of_type)
    for folder, types in sorted(Counter(parents).items()):
        if folder:
            yield Notice(NoticeKind.INTEGRATION, folder, f"event types: {types}")


def _unknown_types(objects: Counter[str], included: frozenset[str]) -> Iterator[Notice]:
    for event_type, count in objects.items():
        if count:  # hours without such objects say nothing new of the type
            fate = "delivered by the general rules" if event_type in included else "not included, not delivered"
            yield Notice(NoticeKind.UNKNOWN_EVENT_TYPE, event_type, f"not in the catalogue; {fate}", count)


def _note(source: Source, kind: NoticeKind, notices: Iterable[Notice], now: datetime, *, whole: bool) -> None:
    """Keep notices of a kind; what a look that is whole does not say holds no longer."""
    if whole:
        source.ledger.replace_notices(source.connector, kind, list(notices), now)
    else:
        source.ledger.note(source.connector, list(notices), now)


def _note_unread(source: Source, unread: Unread, now: datetime, *, whole: bool) -> None:
    """Keep a notice for each reason. What is wrong with the prefix every look sees; odd keys only one that is whole."""
    of_prefix = [_odd(NoticeKind.MISPLACED, line) for line in unread.lines() if line.of_prefix]
    of_keys = [_odd(NoticeKind.UNREAD_KEYS, line) for line in unread.lines() if not line.of_prefix]
    _note(source, NoticeKind.MISPLACED, of_prefix, now, whole=True)
    _note(source, NoticeKind.UNREAD_KEYS, of_keys, now, whole=whole)


def _odd(kind: NoticeKind, line: Line) -> Notice:
    return Notice(kind, line.reason, f"{line.what}; {line.todo}", line.count)


def _denied(failures: Mapping[str, BridgeError]) -> Iterator[Notice]:
    for folder, error in failures.items():
        if isinstance(error, CredentialError):
            yield Notice(NoticeKind.FOLDER_DENIED, folder, f"{error.message}; {error.hint}")
