"""What the suites of the ledger share: owners of one store, objects, and what is done with them again and again."""

import sqlite3
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from currents_bridge.model import (
    Books,
    ClaimedObject,
    CurrentsObject,
    Delivered,
    GroupLimits,
    LetterFilter,
    Selection,
)
from currents_bridge.ports import Ledger

NOW = datetime(2026, 3, 4, 12, 30, tzinfo=UTC)
HOUR = datetime(2026, 3, 4, 5, tzinfo=UTC)
CLICK, OPEN = "users.messages.email.Click", "users.messages.email.Open"
BOTH = Selection(frozenset({CLICK, OPEN}))
EVER = NOW + timedelta(days=365)  # settled before: everything that was
ONE_EVENT = Books(read=1, sent=1)
NO_LIMITS = GroupLimits()

_SUMS = (  # as they are kept, as they are added up
    (
        """
        SELECT connector, event_type, state, objects, size_bytes, rewound_events,
            read, sent, skipped_anonymous, deduplicated, dead_lettered
        FROM totals
        """,
        """
        SELECT connector, event_type, state, count(*), sum(size_bytes), sum(rewound_events),
            sum((state = 'quarantined') * read), sum((state = 'quarantined') * sent),
            sum((state = 'quarantined') * skipped_anonymous), sum((state = 'quarantined') * deduplicated),
            sum((state = 'quarantined') * dead_lettered)
        FROM objects WHERE state <> 'delivered' GROUP BY 1, 2, 3
        UNION ALL
        SELECT connector, event_type, 'delivered', sum(objects), 0, 0,
            sum(read), sum(sent), sum(skipped_anonymous), sum(deduplicated), sum(dead_lettered)
        FROM hours GROUP BY 1, 2
        """,
    ),
    (
        "SELECT connector, cause, objects FROM reasons",
        """
        SELECT connector, cause, count(*) FROM objects
        WHERE state IN ('failed', 'quarantined') AND cause IS NOT NULL GROUP BY 1, 2
        """,
    ),
)


class Case:
    """One store, any number of owners."""

    def __init__(self, opener: Callable[[], Ledger]) -> None:
        self._opener = opener
        self._opened: list[Ledger] = []

    def open(self) -> Ledger:
        """Return one owner more."""
        ledger = self._opener()
        self._opened.append(ledger)
        return ledger

    def close(self) -> None:
        """Close all that were opened."""
        for ledger in self._opened:
            ledger.close()


def an_object(key: str, event_type: str = CLICK, hour: datetime = HOUR, *, size_bytes: int = 100) -> CurrentsObject:
    """Return an object whose key says nothing of its hour and type."""
    return CurrentsObject(key, "etag-1", size_bytes, hour + timedelta(minutes=7), event_type, hour)


def objects(count: int) -> list[CurrentsObject]:
    """Return key-0000, key-0001, ... of one hour and type."""
    return [an_object(f"key-{number:04}") for number in range(count)]


def claim(ledger: Ledger, now: datetime = NOW, limits: GroupLimits = NO_LIMITS) -> Sequence[ClaimedObject]:
    """Claim from both event types."""
    return ledger.claim("acme", BOTH, limits, now)


def keys(group: Sequence[ClaimedObject]) -> list[str]:
    """Return the keys of a group, in order."""
    return [claimed.object.key for claimed in group]


def deliver(ledger: Ledger, *listed: CurrentsObject, books: Books = ONE_EVENT) -> None:
    """Admit the objects, then deliver everything that is due."""
    ledger.admit("acme", listed, NOW)
    ledger.settle([Delivered(claimed.id, books) for claimed in claim(ledger)], NOW)


def resend(ledger: Ledger, books: Books = ONE_EVENT) -> None:
    """Deliver everything that is due, as a backfill does that sends again."""
    group = ledger.claim("acme", replace(BOTH, resend=True), NO_LIMITS, NOW)
    ledger.settle([Delivered(claimed.id, books) for claimed in group], NOW)


def all_books(ledger: Ledger) -> list[Books]:
    """Return the books as each report sums them up."""
    by_hour = sum((hour.books for hour in ledger.hour_books("acme", BOTH)), Books())
    by_type = sum(ledger.books_by_type("acme").values(), Books())
    return [ledger.totals("acme").books, by_hour, by_type]


def drifted_totals(path: Path) -> list[tuple[Any, ...]]:
    """Return the rows of `totals` and `reasons` that are not what the rows of objects and hours add up to."""
    with closing(sqlite3.connect(path)) as connection:
        found = [({*connection.execute(one)}, {*connection.execute(other)}) for one, other in _SUMS]
    return [row for kept, summed in found for row in kept ^ summed if any(row[3:] or row[2:])]


def letters(ledger: Ledger) -> list[tuple[str, int, str]]:
    """Return object key, row and reason of each dead letter, oldest first."""
    found = ledger.dead_letters(LetterFilter())
    return [(stored.object_key, stored.letter.row, stored.letter.reason) for stored in found]


def remembered(ledger: Ledger, connector: str, message_ids: pl.Series) -> pl.Series:
    """Return for each message id whether any object sent it."""
    known = ledger.known(connector, ClaimedObject(0, an_object("a stranger"), 0), message_ids)
    return known.before | known.repeats


def crash(case: Case, now: datetime = NOW, *, row: int = 0) -> datetime:
    """Let an owner claim what is due and be silent for longer than its lease; returns when it is found dead.

    Suspects are on trial then, at that row.
    """
    lost = case.open()
    group = claim(lost, now)
    assert group
    for claimed in group:
        if claimed.suspect:
            lost.begin_trial(claimed, row)
    found_at = now + timedelta(seconds=91)
    survivor = case.open()
    survivor.heartbeat(found_at)
    survivor.reclaim("acme", found_at)
    return found_at
