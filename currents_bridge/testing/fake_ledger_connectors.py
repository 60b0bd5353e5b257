"""What a ledger in memory says of a connector as a whole; as adapters/ledger_connectors.py does."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from datetime import datetime

from currents_bridge.errors import Side
from currents_bridge.model import (
    Books,
    ConnectorTotals,
    Credential,
    ExpiryRule,
    HourBooks,
    Notice,
    NoticeKind,
    ObjectState,
    Progress,
    Rewound,
    Selection,
    TypeActivity,
    Waiting,
)
from currents_bridge.testing.fake_ledger_memory import LedgerMemory, Record


class FakeConnectors:
    """The part of `ports.Ledger` that needs no claims and touches no object."""

    def __init__(self, memory: LedgerMemory | None = None) -> None:
        self.memory = memory or LedgerMemory()

    def books_by_type(self, connector: str) -> dict[str, Books]:
        """Add up the books of each type."""
        books: dict[str, Books] = {}
        with self.memory.lock:
            for record in _counted(self.memory.records):
                if record.connector == connector:
                    of_type = record.object.event_type
                    books[of_type] = books.get(of_type, Books()) + record.books
        return books

    def hour_books(self, connector: str, selection: Selection) -> list[HourBooks]:
        """Add up the books of each hour and type."""
        found: dict[tuple[datetime, str], HourBooks] = {}
        with self.memory.lock:
            for record in _counted(self.memory.selected(connector, selection)):
                slot = record.object.hour, record.object.event_type
                held = found.get(slot, HourBooks(slot[1], slot[0], 0, Books()))
                delivered = record.state == ObjectState.DELIVERED
                found[slot] = replace(held, objects=held.objects + delivered, books=held.books + record.books)
        return [found[slot] for slot in sorted(found)]

    def totals(self, connector: str) -> ConnectorTotals:
        """Add up everything."""
        with self.memory.lock:
            records = [record for record in self.memory.records if record.connector == connector]
            states = Counter(record.state for record in records)
            waiting = [record for record in records if record.waits]
            return ConnectorTotals(
                objects={state: states[state] for state in ObjectState},
                books=sum((record.books for record in _counted(records)), Books()),
                waiting=Waiting(
                    objects=len(waiting),
                    size_bytes=sum(record.object.size_bytes for record in waiting),
                    events=sum(record.rewound_events for record in waiting),
                    oldest_at=min((record.object.last_modified for record in waiting), default=None),
                ),
                credentials={side: self.memory.credentials.get((connector, side), Credential()) for side in Side},
                rewound=self.memory.rewound.get(connector, Rewound()),
                notices=[notice for (of, *_), notice in sorted(self.memory.notices.items()) if of == connector],
                progress=self.memory.progress.get(connector, Progress()),
                expiry_rules=self.memory.expiry_rules.get(connector, ()),
                failed_reasons=dict(
                    Counter(
                        record.reason
                        for record in records
                        if record.reason is not None and record.state in (ObjectState.FAILED, ObjectState.QUARANTINED)
                    )
                ),
            )

    def activity(self, connector: str, since: datetime) -> list[TypeActivity]:
        """Look at every object."""
        with self.memory.lock:
            held = {(r.object.event_type, r.object.hour) for r in self.memory.records if r.connector == connector}
        by_type = {name: sorted(hour for of, hour in held if of == name) for name, _ in sorted(held)}
        return [TypeActivity(name, hours[-1], sum(hour >= since for hour in hours)) for name, hours in by_type.items()]

    def dead_lettered(self, connector: str, since: datetime) -> int:
        """Count dead letters by their age."""
        with self.memory.lock:
            letters = self.memory.open_letters()
        return sum(stored.connector == connector and stored.created_at >= since for stored in letters)

    def progress(self, connector: str) -> Progress:
        """Return how far discovery has come."""
        with self.memory.lock:
            return self.memory.progress.get(connector, Progress())

    def save_progress(self, connector: str, progress: Progress) -> None:
        """Keep the fields that are not None."""
        with self.memory.lock:
            known = self.memory.progress.get(connector, Progress())
            given = {name: at for name, at in asdict(progress).items() if at is not None}
            self.memory.progress[connector] = replace(known, **given)

    def save_expiry_rules(self, connector: str, rules: Sequence[ExpiryRule]) -> None:
        """Keep the rules."""
        with self.memory.lock:
            self.memory.expiry_rules[connector] = tuple(rules)

    def note(self, connector: str, notices: Sequence[Notice], now: datetime) -> None:
        """Keep notices, the latest of each kind and subject, with the time of the first."""
        with self.memory.lock:
            for notice in notices:
                name = (connector, notice.kind, notice.subject)
                known = self.memory.notices.get(name)
                self.memory.notices[name] = replace(notice, since=known.since if known else now)

    def forget_notice(self, connector: str, kind: NoticeKind, subject: str) -> None:
        """Delete a notice."""
        with self.memory.lock:
            self.memory.notices.pop((connector, kind, subject), None)

    def credential(self, connector: str, side: Side) -> Credential:
        """Return what is known of one credential."""
        with self.memory.lock:
            return self.memory.credentials.get((connector, side), Credential())

    def save_credential(self, connector: str, side: Side, credential: Credential) -> None:
        """Keep what is known of one credential."""
        with self.memory.lock:
            self.memory.credentials[connector, side] = credential


def _counted(records: Iterable[Record]) -> Iterator[Record]:
    """Yield the objects whose books count: delivered ones, and quarantined ones of which something could be read."""
    for record in records:
        salvaged = record.state == ObjectState.QUARANTINED and record.books.read > 0
        if record.state == ObjectState.DELIVERED or salvaged:
            yield record
