"""Telling new, known and changed objects apart; the first half of `Ledger.admit`."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from sqlalchemy import Connection, select, tuple_

from currents_bridge.adapters import ledger_digests
from currents_bridge.adapters.ledger_schema import hours, objects
from currents_bridge.model import CurrentsObject, ObjectState, format_hour

_RETAKEN = {ObjectState.PENDING, ObjectState.FAILED}

Slot = tuple[str, str]  # hour as text, event type


@dataclass(frozen=True, slots=True)
class Sorted:
    """What a listing means to the ledger; each list in the order of the listing."""

    new: list[CurrentsObject] = field(default_factory=list)
    retaken: list[CurrentsObject] = field(default_factory=list)  # waits for delivery, and has another ETag now
    changed: list[CurrentsObject] = field(default_factory=list)  # has another ETag than the one that was worked on


class Sorter:
    """Sorts the objects of one connector within one transaction."""

    def __init__(self, connection: Connection, connector: str) -> None:
        self._connection = connection
        self._connector = connector
        self._folds: dict[Slot, bytes | None] = {}

    def sort(self, listed: Sequence[CurrentsObject]) -> Sorted:
        """Sort at most a few hundred objects, since each is a parameter of one query."""
        by_key = {item.key: item for item in listed}
        recorded = {
            key: (etag, state)
            for key, etag, state in self._connection.execute(
                select(objects.c.key, objects.c.etag, objects.c.state).where(
                    objects.c.connector == self._connector, objects.c.key.in_(by_key)
                )
            )
        }
        slots = {key: (format_hour(item.hour), item.event_type) for key, item in by_key.items() if key not in recorded}
        self._load_folds(set(slots.values()))
        result = Sorted()
        for key, item in by_key.items():
            if key in recorded:
                etag, state = recorded[key]
                if item.etag != etag:
                    (result.retaken if state in _RETAKEN else result.changed).append(item)
            else:
                fold = self._folds[slots[key]]
                if fold is None or not ledger_digests.knows(fold, key):
                    result.new.append(item)
                elif not ledger_digests.has_etag(fold, key, item.etag):
                    result.changed.append(item)
        return result

    def _load_folds(self, slots: set[Slot]) -> None:
        missing = slots - self._folds.keys()
        if not missing:
            return
        self._folds.update(dict.fromkeys(missing))
        for hour, event_type, digests in self._connection.execute(
            select(hours.c.hour, hours.c.event_type, hours.c.digests).where(
                hours.c.connector == self._connector,
                tuple_(hours.c.hour, hours.c.event_type).in_(missing),
                hours.c.digests.is_not(None),
            )
        ):
            self._folds[hour, event_type] = digests
