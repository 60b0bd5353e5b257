"""Which objects are new: listings of the bucket, compared with the ledger.

A poll lists of each `event_type=` folder what `coverage` says: the hot window, and what was never listed. So a stop of
days is caught up by the next poll, and the cost of a poll does not grow with the history. Key order sorts hours
(`date=YYYY-MM-DD-HH`) but not arrival inside an hour (offsets are not padded), so hours are always listed whole, and
the ledger says what is new. What lands later in an older hour is found by the audit, see audit.py.
"""

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Literal

from currents_bridge.due import FIRST_FILES
from currents_bridge.errors import BridgeError, CredentialError, RetryLaterError
from currents_bridge.model import Coverage, CurrentsObject, ListedObject, Progress, Selection
from currents_bridge.ports import Ledger, ObjectStore
from currents_bridge.sources.coverage import HourRange, covered_by_look, hours_to_list
from currents_bridge.sources.keys import DATE_FOLDER, to_currents_object
from currents_bridge.sources.listing import Tree, find_event_type_folders, key_range, list_between, pages_of
from currents_bridge.sources.notices import Seen, note_denied, note_look
from currents_bridge.sources.rewritten import Rewritten
from currents_bridge.sources.unread import Unread

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
    remember: timedelta | None = None  # for how long message ids that were sent are left out
    place: str = ""


@dataclass(frozen=True, slots=True)
class Discovery:
    """What one look found, in objects."""

    discovered: int  # new in the ledger
    listed: int
    changed: int  # have another ETag than the one they were delivered with
    unread: int  # look like Currents data, and their keys are not understood
    seen_types: frozenset[str]  # every type that has a folder, included or not
    covered: frozenset[str]  # folders of included types of which all hours asked for were listed
    denied: Mapping[str, CredentialError]  # folders that may not be listed, while others may: each costs itself
    problem: RetryLaterError | None  # what else keeps the look from being complete

    @property
    def shortcoming(self) -> str:
        """Why the look is not complete, empty where it is."""
        return self.problem.message if self.problem else "; ".join(error.message for error in self.denied.values())


def poll(source: Source, now: datetime) -> Discovery:
    """List of each folder the hot window and what was never listed, admit what is new, keep what is covered by that.

    Costs one LIST for the prefix, one for each integration and one for each type of an integration, and more only
    where one of them has over 1,000 objects in the window. What is covered of a folder that could not be listed stays
    as it was, and a look that found no folder at all is none.

    Raises:
        CredentialError, RetryLaterError: nothing can be listed.
        LedgerError: the ledger cannot be used.
    """
    ledger, connector = source.ledger, source.connector
    progress = started(source, now)
    start = resolve_start(source.start_from, progress)
    covered = ledger.coverage(connector, source.place)
    polled = Coverage(None, progress.polled_at) if progress.polled_at else None

    def hours_of(known: Coverage | None) -> Sequence[HourRange]:
        return hours_to_list(known, start, source.lookback, now)

    try:
        found = discover(
            source, lambda folder: hours_of(covered.get(folder)), now, counted=hours_of(polled), whole=not covered
        )
    except (CredentialError, RetryLaterError) as error:
        ledger.save_progress(connector, Progress(looked_at=now, poll_error=error.message))
        raise
    keep_coverage(source, found.covered, start, now)
    note_denied(ledger, connector, found.denied, now)
    polled_at = None if found.problem else now
    ledger.save_progress(connector, Progress(polled_at=polled_at, looked_at=now, poll_error=found.shortcoming))
    return found


def started(source: Source, now: datetime) -> Progress:
    """Return the progress, with the start of the very first look, which is kept even if that look fails.

    One that cannot be is that of a clock that was wrong: then it is `lookback` ago, since what came meanwhile must not
    be passed over. Raises RetryLaterError where now itself cannot be, and the start is to be now.
    """
    if now < FIRST_FILES and source.start_from == "now":
        what = f"source.start_from is now, and the clock of this machine says {now:%Y-%m-%d %H:%M} UTC"
        raise RetryLaterError(what, "set the clock; nothing is lost, it is tried again at the next poll")
    progress = source.ledger.progress(source.connector)
    at = progress.started_at
    if at is not None and FIRST_FILES <= at <= now:
        return progress
    at = now if at is None else now - source.lookback
    source.ledger.save_progress(source.connector, Progress(started_at=at))
    return replace(progress, started_at=at)


def keep_coverage(source: Source, folders: Iterable[str], start: datetime | None, now: datetime) -> None:
    """Keep that the folders were listed by a look that began at `now` and wanted all from `start` on."""
    known = source.ledger.coverage(source.connector, source.place)
    covered = {folder: covered_by_look(known.get(folder), start, source.lookback, now) for folder in folders}
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
    on.

    Raises:
        CredentialError, RetryLaterError: nothing can be listed.
        LedgerError: the ledger cannot be used.
    """
    tree = find_event_type_folders(source.store, source.prefix)
    included, unknown = source.event_types(tree.types), tree.types - source.catalogue_types
    spots = [
        _Spot(event_type, folder, event_type in included, hours_of(folder) if event_type in included else counted)
        for event_type in sorted(tree.types & (included | unknown))
        for folder in tree.by_type[event_type]
    ]
    with ThreadPoolExecutor(LISTINGS_AT_ONCE, thread_name_prefix="listing") as pool:
        looks = list(pool.map(lambda spot: _look(source, spot, now), spots))
    of_unknown: Counter[str] = Counter()
    rewritten = Rewritten()
    for look in looks:
        rewritten.merge(look.rewritten)
        tree.unread.merge(look.unread)
        if look.spot.event_type in unknown:
            of_unknown[look.spot.event_type] += look.listed
        if look.failure:
            tree.failures[look.spot.folder] = look.failure
    seen = Seen(tree, of_unknown, rewritten, included, whole=whole)
    note_look(source.ledger, source.connector, seen, now)
    raise_if_all_failed(tree, anything=not looks or any(look.failure is None for look in looks))
    return Discovery(
        discovered=sum(look.discovered for look in looks),
        listed=sum(look.listed for look in looks),
        changed=sum(look.changed for look in looks),
        unread=tree.unread.odd,
        seen_types=tree.types,
        covered=frozenset(look.spot.folder for look in looks if look.whole),
        denied=tree.denied,
        problem=problem_with(source, tree),
    )


def raise_if_all_failed(tree: Tree, *, anything: bool) -> None:
    """Raise what kept folders from being listed unless anything else could be: one folder costs itself.

    Raises:
        CredentialError: none could be listed, and some may not be.
        RetryLaterError: none could be listed.
    """
    if tree.failures and not (tree.types and anything):
        errors = list(tree.failures.values())
        raise next((error for error in errors if isinstance(error, CredentialError)), errors[0])


def problem_with(source: Source, tree: Tree) -> RetryLaterError | None:
    """Return why a look should be made again: there is no folder at all, or some could not be listed.

    That a folder may not be listed is none: it costs itself.
    """
    if not tree.types:
        hint = "see that source.bucket and source.prefix name the place that Braze writes to, and that it has written"
        hints = (line.todo for line in tree.unread.lines() if line.of_prefix)
        what = f"there is no folder event_type=... under {source.place}/{source.prefix}"
        return RetryLaterError(what, next(hints, hint))
    failures = {folder: error for folder, error in tree.failures.items() if folder not in tree.denied}
    if not failures:
        return None
    folder, error = min(failures.items())
    more = f" (and {len(failures) - 1} folders more)" if len(failures) > 1 else ""
    return RetryLaterError(f"the folder {folder} could not be listed{more}: {error.message}", error.hint)


def admit(source: Source, objects: Sequence[CurrentsObject], rewritten: Rewritten, now: datetime) -> tuple[int, int]:
    """Record objects of included types; returns how many are new, and how many changed after they were delivered.

    Those of the latter that are not delivered again by themselves are added to `rewritten`.
    """
    discovered, changed = source.ledger.admit(source.connector, objects, now)
    count = len(changed)
    if changed and source.remember:
        changed = source.ledger.redeliver(source.connector, changed, now - source.remember, now)
    rewritten.add(changed)
    return discovered, count


def look_again(source: Source, objects: Sequence[CurrentsObject], now: datetime) -> None:
    """List the hours of objects that were written again while they waited, so that they take their new ETags.

    Raises CredentialError, RetryLaterError or LedgerError.
    """
    for folder in sorted({item.key[: item.key.index("/", item.key.index(DATE_FOLDER)) + 1] for item in objects}):
        for page in pages_of(source.store.list(folder)):
            source.ledger.admit(source.connector, list(filter(None, map(to_currents_object, page.values()))), now)


def list_objects(source: Source, selection: Selection) -> Iterator[CurrentsObject]:
    """Yield the objects of a selection as the bucket holds them, recording nothing.

    Raises CredentialError or RetryLaterError where a folder cannot be listed.
    """
    tree = find_event_type_folders(source.store, source.prefix)
    for error in tree.failures.values():
        raise error
    hours = (selection.first_hour, selection.end_hour)
    for event_type in sorted(selection.event_types & tree.types):
        for folder in tree.by_type[event_type]:
            for page in pages_of(list_between(source.store, folder, *key_range(folder, hours))):
                yield from filter(None, map(to_currents_object, page.values()))


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
        """Whether all was listed. An answer without any object is not relied on: the next look asks for as much."""
        return self.spot.included and self.failure is None and bool(self.listed or self.unread.counts)


def _look(source: Source, spot: _Spot, now: datetime) -> _Look:
    look = _Look(spot)
    try:
        for hours in spot.hours:
            for page in pages_of(list_between(source.store, spot.folder, *key_range(spot.folder, hours))):
                _take(source, page.values(), look, now)
    except (CredentialError, RetryLaterError) as error:
        look.failure = error
    return look


def _take(source: Source, page: Collection[ListedObject], look: _Look, now: datetime) -> None:
    objects = list(filter(None, map(to_currents_object, page)))
    if len(objects) < len(page):
        for item in page:
            if to_currents_object(item) is None:
                look.unread.add(item.key)
    look.listed += len(objects)
    if objects and look.spot.included:
        discovered, changed = admit(source, objects, look.rewritten, now)
        look.discovered += discovered
        look.changed += changed
