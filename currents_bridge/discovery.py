"""Which objects are new: listings of the bucket, compared with the ledger.

A poll lists the hot window: every hour since the last complete poll, and `lookback` before it, because files land in
an hour after it has ended. So a stop of days is caught up by the next poll, and the cost of a poll does not grow with
the history. A sweep lists closed hours again as they reach each age of SWEEP_AGES, for the files that came later
still. Key order sorts hours (`date=YYYY-MM-DD-HH`) but not arrival inside an hour (offsets are not padded), so hours
are always listed whole, and the ledger says what is new.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from itertools import islice, takewhile
from typing import Literal

from currents_bridge.catalogue import canonical_name
from currents_bridge.keys import DATE_FOLDER, EVENT_TYPE_FOLDER, to_currents_object
from currents_bridge.model import CurrentsObject, ListedObject, Notice, NoticeKind, Progress, Selection, format_hour
from currents_bridge.ports import Ledger, ObjectStore

SWEEP_AGES = (timedelta(hours=1), timedelta(hours=6), timedelta(hours=24), timedelta(days=7))
MAX_LEVELS = 4  # of folders from the prefix down to the `event_type=` folders; Braze needs two
MAX_UNRECOGNISED = 100  # keys that one look names; the rest is only counted
PAGE_OBJECTS = 1_000  # admitted at once; one LIST answer holds as many
LISTINGS_AT_ONCE = 8

StartFrom = datetime | Literal["earliest", "now"]
HOUR = timedelta(hours=1)
HourRange = tuple[datetime | None, datetime | None]  # [first hour, end hour); None: without bound

# A folder that sorts before every hour would hide from all listings but the first: sweeps look there too.
_BEFORE_ALL_HOURS: HourRange = (None, datetime(1970, 1, 1, tzinfo=UTC))


@dataclass(frozen=True, slots=True)
class Source:
    """Where to look, what for, and what is known already.

    `event_types` is given the types seen in the bucket and returns those to deliver. `catalogue_types` are the types
    that need no report. Types are canonical names, however keys spell them. `prefix` names a folder, with or without
    its '/'.
    """

    store: ObjectStore
    ledger: Ledger
    connector: str
    prefix: str
    event_types: Callable[[Iterable[str]], frozenset[str]]
    catalogue_types: frozenset[str]
    start_from: StartFrom = "earliest"
    lookback: timedelta = timedelta(hours=6)


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one look found, in objects."""

    discovered: int  # new in the ledger
    listed: int
    changed: int  # have another ETag than the one they were delivered with
    unrecognised: int  # their keys fit no layout
    seen_types: frozenset[str]  # every type that has a folder, included or not


@dataclass(slots=True)
class Unrecognised:
    """Keys that fit no layout: all of them counted, the first MAX_UNRECOGNISED kept."""

    count: int = 0
    keys: list[str] = field(default_factory=list)

    def add(self, key: str) -> None:
        """Count `key`, unless it is only the empty object with which S3 consoles mark a folder."""
        if not key.endswith("/"):
            self.merge(Unrecognised(1, [key]))

    def merge(self, other: "Unrecognised") -> None:
        """Add the keys of another look."""
        self.count += other.count
        self.keys += other.keys[: MAX_UNRECOGNISED - len(self.keys)]


def poll(source: Source, now: datetime) -> Discovery:
    """List the hot window, admit what is new and move the window on.

    Costs one LIST for the prefix, one for each integration and one for each type of an integration, and more only
    where one of them has over 1,000 objects in the window. On any error the window stays where it was.

    Raises:
        CredentialError, RetryLaterError: the bucket cannot be listed.
        LedgerError: the ledger cannot be used.
    """
    progress = source.ledger.progress(source.connector)
    if progress.started_at is None:  # kept even if this poll fails: `now` is when the user first started
        progress = replace(progress, started_at=now)
        source.ledger.save_progress(source.connector, Progress(started_at=now))
    start = resolve_start(source.start_from, progress)
    found = discover(source, [(window_start(progress, now, source.lookback, start), None)], now)
    source.ledger.save_progress(source.connector, Progress(polled_at=now))
    return found


def sweep(source: Source, now: datetime) -> Discovery:
    """List again the older hours that are due, and admit what landed in them late; raises as `poll`."""
    progress = source.ledger.progress(source.connector)
    start = resolve_start(source.start_from, progress)
    hours = sweep_hours(progress, now, source.lookback, start)
    found = discover(source, [_BEFORE_ALL_HOURS, *hours], now)
    source.ledger.save_progress(source.connector, Progress(swept_at=now))
    return found


def resolve_start(start_from: StartFrom, progress: Progress) -> datetime | None:
    """Return the time from which hours are wanted, None for all; `now` is the start of the very first poll."""
    match start_from:
        case "earliest":
            return None
        case "now":
            return progress.started_at
        case _:
            return start_from


def window_start(
    progress: Progress, now: datetime, lookback: timedelta, start_from: datetime | None
) -> datetime | None:
    """Return the first hour of the hot window; None: list everything.

    The window reaches from `lookback` before the last complete poll to the end, but never before `start_from`.
    A first poll lists everything from `start_from` on.
    """
    earliest = start_from and hour_of(start_from)
    if progress.polled_at is None:
        return earliest
    first = hour_of(min(now, progress.polled_at) - lookback)
    return max(first, earliest) if earliest else first


def sweep_hours(
    progress: Progress, now: datetime, lookback: timedelta, start_from: datetime | None
) -> list[tuple[datetime, datetime]]:
    """Return the hours to list again, as ascending ranges [first hour, end hour) that do not touch.

    An hour is due when the time since its end reaches an age of SWEEP_AGES; all that fell due since the last sweep
    (before any: since the first poll) is returned, except what the hot window holds and what lies before
    `start_from`. So however long the program stood still, no look at an hour is left out.
    """
    hot = window_start(progress, now, lookback, start_from)
    since = progress.swept_at or progress.started_at
    if hot is None or since is None:
        return []  # no poll was complete yet: the next one lists everything
    ranges: list[tuple[datetime, datetime]] = []
    for age in sorted(SWEEP_AGES, reverse=True):
        first, end = hour_of(since - age), min(hour_of(now - age), hot)
        if start_from:
            first = max(first, hour_of(start_from))
        if first >= end:
            continue
        if ranges and first <= ranges[-1][1]:
            first = ranges.pop()[0]
        ranges.append((first, end))
    return ranges


def discover(source: Source, hours: Sequence[HourRange], now: datetime) -> Discovery:
    """List the given hours of every included type, admit what is new, and keep notices of what is odd.

    The ranges must not overlap. Types of the catalogue that are not included are not listed; types that it does not
    know are listed in any case, to be counted. When a listing fails the others still run to their end, what they
    found stays admitted, and the error is raised then: the caller looks at the same hours again.

    Raises:
        CredentialError, RetryLaterError: the bucket cannot be listed.
        LedgerError: the ledger cannot be used.
    """
    folders, unrecognised = find_event_type_folders(source.store, source.prefix)
    seen = frozenset(folders)
    included, unknown = source.event_types(seen), seen - source.catalogue_types
    with ThreadPoolExecutor(LISTINGS_AT_ONCE, thread_name_prefix="listing") as pool:
        futures = [
            pool.submit(_look, source, _Spot(event_type, folder, event_type in included, span), now)
            for event_type in sorted(seen & (included | unknown))
            for folder in folders[event_type]
            for span in hours
        ]
    looks = [future.result() for future in futures]
    of_unknown: Counter[str] = Counter()
    for look in looks:
        unrecognised.merge(look.unrecognised)
        if look.event_type in unknown:
            of_unknown[look.event_type] += look.listed
    if notices := [*_integrations(folders), *_unknown_types(of_unknown, included), *_odd_keys(unrecognised)]:
        source.ledger.note(source.connector, notices, now)
    return Discovery(
        discovered=sum(look.discovered for look in looks),
        listed=sum(look.listed for look in looks),
        changed=sum(look.changed for look in looks),
        unrecognised=unrecognised.count,
        seen_types=seen,
    )


def list_objects(source: Source, selection: Selection) -> Iterator[CurrentsObject]:
    """Yield the objects of a selection as the bucket holds them, recording nothing; raises as `discover`."""
    folders, _ = find_event_type_folders(source.store, source.prefix)
    hours = (selection.first_hour, selection.end_hour)
    for event_type in sorted(selection.event_types & folders.keys()):
        for folder in folders[event_type]:
            for item in _list_hours(source.store, _Spot(event_type, folder, True, hours)):
                if currents_object := to_currents_object(item):
                    yield currents_object


def find_event_type_folders(store: ObjectStore, prefix: str) -> tuple[dict[str, list[str]], Unrecognised]:
    """Walk from the prefix down to the `event_type=` folders, at most MAX_LEVELS levels.

    Returns the folders (each ends in '/') of each event type, one for each integration that exports it, and whatever
    else was met: objects beside the folders, and folders too deep to be walked.
    """
    by_type: dict[str, list[str]] = {}
    unrecognised = Unrecognised()
    level = [prefix if prefix.endswith("/") or not prefix else f"{prefix}/"]
    for _ in range(MAX_LEVELS):
        below = []
        for parent in level:
            folders, objects = store.folders(parent)
            for item in objects:
                unrecognised.add(item.key)
            for folder in folders:
                before, marker, event_type = folder[len(parent) : -1].partition(EVENT_TYPE_FOLDER)
                if marker and event_type and not before:
                    by_type.setdefault(canonical_name(event_type), []).append(folder)
                else:
                    below.append(folder)
        level = below
    unrecognised.merge(Unrecognised(len(level), level))
    return by_type, unrecognised


@dataclass(frozen=True, slots=True)
class _Spot:
    """One flat listing: the hours of one type of one integration."""

    event_type: str
    folder: str
    included: bool
    hours: HourRange


@dataclass(slots=True)
class _Look:
    """What one flat listing found."""

    event_type: str
    discovered: int = 0
    listed: int = 0
    changed: int = 0
    unrecognised: Unrecognised = field(default_factory=Unrecognised)


def _look(source: Source, spot: _Spot, now: datetime) -> _Look:
    look = _Look(spot.event_type)
    listing = _list_hours(source.store, spot)
    while page := list(islice(listing, PAGE_OBJECTS)):
        objects = []
        for item in page:
            currents_object = to_currents_object(item)
            if currents_object is None:
                look.unrecognised.add(item.key)
            else:
                objects.append(currents_object)
        look.listed += len(objects)
        if objects and spot.included:
            discovered, changed = source.ledger.admit(source.connector, objects, now)
            look.discovered += discovered
            look.changed += len(changed)
            if changed:
                source.ledger.note(source.connector, [_changed(item) for item in changed], now)
    return look


def _list_hours(store: ObjectStore, spot: _Spot) -> Iterator[ListedObject]:
    first, end = spot.hours
    dates = spot.folder + DATE_FOLDER
    # Behind all keys of the hour before, since '0' sorts after '/'. The bare name of the first hour's folder would do
    # for S3, but SeaweedFS takes it for the whole folder and starts behind that.
    listing = store.list(spot.folder, start_after=f"{dates}{format_hour(first - HOUR)}0" if first else "")
    if end is None:
        return listing
    stop = dates + format_hour(end)
    return takewhile(lambda item: item.key < stop, listing)


def _changed(changed: CurrentsObject) -> Notice:
    return Notice(
        NoticeKind.OBJECT_CHANGED,
        changed.key,
        f"has ETag {changed.etag} now; what was delivered is not sent again unless by `backfill --resend`",
    )


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


def _odd_keys(unrecognised: Unrecognised) -> Iterator[Notice]:
    for key in unrecognised.keys:
        yield Notice(NoticeKind.UNRECOGNISED_KEY, key, "fits no layout of Currents files; it is not read")


def hour_of(time: datetime) -> datetime:
    """Return the UTC hour that a time lies in."""
    return time.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
