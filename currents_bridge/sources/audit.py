"""The audit: what the bucket holds, what the ledger says of it and what the books add up to, compared with each other.

The bucket and the ledger's objects both come in the order of keys, so they are compared page by page: memory does not
grow with either. Each event type is closed with its books, by hour.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Container, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import chain

from currents_bridge.errors import BridgeError, CredentialError, RetryLaterError
from currents_bridge.model import (
    Books,
    CurrentsObject,
    HourBooks,
    OwedObject,
    Progress,
    Recorded,
    Selection,
    format_hour,
)
from currents_bridge.sources.coverage import HourRange, hour_of
from currents_bridge.sources.discovery import (
    Source,
    admit,
    keep_coverage,
    problem_with,
    raise_if_all_failed,
    resolve_start,
    started,
)
from currents_bridge.sources.findings import Audit, AuditedHour, AuditedType, Difference
from currents_bridge.sources.keys import to_currents_object
from currents_bridge.sources.listing import (
    PAGE_OBJECTS,
    Tree,
    end_of,
    find_event_type_folders,
    key_range,
    list_between,
    pages_of,
)
from currents_bridge.sources.notices import Seen, note_denied, note_look
from currents_bridge.sources.rewritten import Rewritten
from currents_bridge.sources.unread import Unread

TYPES_AT_ONCE = 4  # half of what a poll lists at once, since polls go on beside an audit
MAX_NAMED = 100  # objects of one event type and kind that are named; the rest is only counted

# What to say of an object that is not as it should be. Delivered ones need no word, and a quarantined one is accounted
# for as long as it can be replayed.
_WORDS = {
    Recorded.UNKNOWN: "is not in the ledger; `once` or `backfill` delivers it",
    Recorded.WAITING: "is not delivered yet",
    Recorded.FAILED: "failed and will be tried again; `status` says why",
    Recorded.CHANGED: "has another ETag or size than what was delivered; `backfill --resend` sends it again",
    Recorded.GONE: "was deleted from the bucket before it was delivered: its events are lost",
}
_QUARANTINED_AND_GONE = "is quarantined, and deleted from the bucket: it cannot be replayed"

Wait = Callable[[], None]


def audit(source: Source, now: datetime, depth: timedelta | None = None, wait: Wait = lambda: None) -> Audit:
    """Compare everything from `start_from`, or `depth` before now, on; admit what the ledger lacks.

    Costs one LIST for each 1,000 objects of a folder; `wait` is called between full pages. What was found is kept as
    the last audit, and the folders that were listed are covered.

    Raises:
        CredentialError, RetryLaterError: nothing can be listed, or there is no folder of an event type at all.
        LedgerError: the ledger cannot be used.
    """
    start = resolve_start(source.start_from, started(source, now))
    if depth:
        start = max(now - depth, start) if start else now - depth
    comparison = _Comparison(source, (start and hour_of(start), None), wait=wait, admitted_at=now, depth=depth)
    tree = find_event_type_folders(source.store, source.prefix)
    if not tree.types and (problem := problem_with(source, tree)):
        raise problem  # where nothing is listed, all that waits would seem to be gone
    found = comparison.of(tree, source.event_types(tree.types))
    keep_coverage(source, found.covered, start, now)
    note_denied(source.ledger, source.connector, tree.denied, now)
    source.ledger.save_progress(source.connector, Progress(audited_at=now, findings=found.findings))
    return found


def compare(source: Source, selection: Selection) -> Audit:
    """Compare a selection and write nothing; without a first hour it begins at `start_from`. Raises as `audit`."""
    first = selection.first_hour or resolve_start(source.start_from, source.ledger.progress(source.connector))
    hours = (first and hour_of(first), selection.end_hour)
    tree = find_event_type_folders(source.store, source.prefix)
    return _Comparison(source, hours, all_hours=True).of(tree, selection.event_types)


@dataclass(frozen=True, slots=True)
class _Comparison:
    """How to compare."""

    source: Source
    hours: HourRange
    wait: Wait = lambda: None
    admitted_at: datetime | None = None  # None: nothing is written
    all_hours: bool = False  # keep also those that are well
    depth: timedelta | None = None  # of an audit; None: no hour from `start_from` on is left out

    def of(self, tree: Tree, types: frozenset[str]) -> Audit:
        """Compare these types; types that the catalogue does not know are counted in any case."""
        unknown = tree.types - self.source.catalogue_types
        accounts = {name: _Account(name, included=name in types) for name in sorted(types | unknown)}
        for owed in self._missing_outside(tree):
            if owed.event_type in types:
                accounts[owed.event_type].miss(owed)
        with ThreadPoolExecutor(TYPES_AT_ONCE, thread_name_prefix="audit") as pool:
            closed = list(pool.map(lambda account: self._close(account, tree), accounts.values()))
        rewritten = Rewritten()
        for account in accounts.values():
            rewritten.merge(account.rewritten)
            tree.unread.merge(account.unread)
            tree.failures.update(account.failures)
        tried = any(name in accounts for name in tree.types)
        raise_if_all_failed(tree, anything=not tried or any(account.listed for account in accounts.values()))
        if self.admitted_at:
            of_unknown = {name: sum(accounts[name].objects.values()) for name in unknown}
            seen = Seen(tree, of_unknown, rewritten, types, whole=not self.depth, depth=self.depth)
            note_look(self.source.ledger, self.source.connector, seen, self.admitted_at)
        return Audit(
            types=[of_type for of_type in closed if of_type.event_type in types],
            tree=tree,
            excluded=tree.types - types,
            discovered=sum(account.discovered for account in accounts.values()),
            covered=frozenset(folder for name in types for folder in accounts[name].listed),
        )

    def _close(self, account: "_Account", tree: Tree) -> AuditedType:
        """List the type's folders, then take its books, which may only have grown since."""
        for folder in tree.by_type.get(account.event_type, ()):
            try:
                self._list(account, folder)
            except (CredentialError, RetryLaterError) as error:
                account.failures[folder] = error
        selection = Selection(frozenset({account.event_type}), *self.hours)
        books = self.source.ledger.hour_books(self.source.connector, selection)
        return account.close(books, all_hours=self.all_hours)

    def _list(self, account: "_Account", folder: str) -> None:
        """Compare a folder; raises as the store's `list`, also where a folder that is there is listed as empty."""
        start, before = key_range(folder, self.hours)
        after = start
        for page in pages_of(list_between(self.source.store, folder, after, before)):
            new = [item for key, item in page.items() if key > after]  # some servers repeat a page
            objects = []
            for item in new:
                if found := to_currents_object(item):
                    objects.append(found)
                else:
                    account.unread.add(item.key)
            account.count(objects, self._recorded(account, objects))
            if new:
                for owed in self._missing(folder, after, new[-1].key, page):
                    account.miss(owed)
                after = new[-1].key
            if len(page) == PAGE_OBJECTS:
                self.wait()
        if after != start:
            account.listed.append(folder)
        elif self.hours == (None, None):  # S3 has no empty folders: else all that waits in it would seem to be gone
            raise RetryLaterError(f"{folder} is named by one LIST and empty by another", "see what the S3 server does")
        for owed in self._missing(folder, after, before, ()):
            account.miss(owed)

    def _recorded(self, account: "_Account", objects: Sequence[CurrentsObject]) -> list[Recorded]:
        """Return what is recorded of the objects, once those that are not delivered were admitted."""
        ledger, connector = self.source.ledger, self.source.connector
        recorded = ledger.recorded(connector, objects)
        if not (self.admitted_at and account.included):
            return recorded
        ill = [n for n, of_object in enumerate(recorded) if of_object is not Recorded.DELIVERED]
        if ill:
            not_delivered = [objects[n] for n in ill]
            account.discovered += admit(self.source, not_delivered, account.rewritten, self.admitted_at)[0]
            for n, of_object in zip(ill, ledger.recorded(connector, not_delivered), strict=True):
                recorded[n] = of_object
        return recorded

    def _missing(self, folder: str, after: str, before: str, listed: Container[str]) -> Iterator[OwedObject]:
        """Yield what is owed with after < key < before and neither listed nor, since that takes time, listed again."""
        while owed := self.source.ledger.owed(self.source.connector, after, before, PAGE_OBJECTS):
            missing = [item for item in owed if item.key not in listed]
            last = owed[-1].key
            if missing:
                again = {item.key for item in list_between(self.source.store, folder, after, f"{last}\0")}
                yield from (item for item in missing if item.key not in again)
            after = last

    def _missing_outside(self, tree: Tree) -> Iterator[OwedObject]:
        """Yield what is owed under the prefix and in no folder that is there: all of such a folder was deleted."""
        first, end = self.hours
        after = tree.top
        for folder in [*tree.folders, None]:
            before = folder or end_of(tree.top)
            for owed in self._missing(tree.top, after, before, ()) if after < before else ():
                if (first is None or owed.hour >= first) and (end is None or owed.hour < end):
                    yield owed
            after = max(after, end_of(folder)) if folder else after


@dataclass(slots=True)
class _Account:
    """What one event type comes to, while it is listed."""

    event_type: str
    included: bool
    objects: Counter[tuple[datetime, Recorded]] = field(default_factory=Counter)
    named: defaultdict[Recorded, list[Difference]] = field(default_factory=lambda: defaultdict(list))
    unread: Unread = field(default_factory=Unread)
    rewritten: Rewritten = field(default_factory=Rewritten)
    listed: list[str] = field(default_factory=list)  # folders in which something was
    failures: dict[str, BridgeError] = field(default_factory=dict)
    discovered: int = 0

    def count(self, objects: Sequence[CurrentsObject], recorded: Sequence[Recorded]) -> None:
        """Count objects of the bucket."""
        self.objects.update(zip((item.hour for item in objects), recorded, strict=True))
        for item, of_object in zip(objects, recorded, strict=True):
            if of_object in _WORDS:
                self._name(of_object, item.key, _WORDS[of_object])

    def miss(self, owed: OwedObject) -> None:
        """Count an object that is not in the bucket any more."""
        if owed.recorded is Recorded.QUARANTINED:
            self.objects[owed.hour, Recorded.QUARANTINED] += 1
            self._name(Recorded.QUARANTINED, owed.key, _QUARANTINED_AND_GONE)
        else:
            self.objects[owed.hour, Recorded.GONE] += 1
            self._name(Recorded.GONE, owed.key, _WORDS[Recorded.GONE])

    def close(self, books: Sequence[HourBooks], *, all_hours: bool) -> AuditedType:
        """Return the sums of all hours, and the hours that are not well, or all."""
        by_hour: defaultdict[datetime, dict[Recorded, int]] = defaultdict(dict)
        for (hour, recorded), count in self.objects.items():
            by_hour[hour][recorded] = count
        known = {of_hour.hour: of_hour for of_hour in books}
        hours = [
            AuditedHour(known.get(hour) or HourBooks(self.event_type, hour, 0, Books()), by_hour.get(hour, {}))
            for hour in sorted(known.keys() | by_hour.keys())
        ]
        unproven = [
            Difference(f"{self.event_type} {format_hour(hour.books.hour)}", problem, "unproven")
            for hour in hours
            if (problem := hour.problem)
        ]
        totals: Counter[Recorded] = Counter()
        for (_, recorded), count in self.objects.items():
            totals[recorded] += count
        return AuditedType(
            event_type=self.event_type,
            objects=totals,
            deleted=sum(hour.deleted for hour in hours),
            books=sum((of_hour.books for of_hour in books), Books()),
            hours=hours if all_hours else [hour for hour in hours if not hour.well],
            unproven=len(unproven),
            differences=[*chain.from_iterable(self.named.values()), *unproven[:MAX_NAMED]],
        )

    def _name(self, recorded: Recorded, key: str, words: str) -> None:
        if len(self.named[recorded]) < MAX_NAMED:
            self.named[recorded].append(Difference(key, words, str(recorded)))
