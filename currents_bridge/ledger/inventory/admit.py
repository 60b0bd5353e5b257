"""Telling new, known and changed objects apart; the first half of `Ledger.admit`, and `Ledger.recorded`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, Row, select

from currents_bridge.due import FIRST_FILES
from currents_bridge.ledger.bulk import among, pair_among
from currents_bridge.ledger.inventory import digests, folds
from currents_bridge.ledger.schema import hours, objects, time_text
from currents_bridge.model import CurrentsObject, ObjectState, OwedObject, Recorded, format_hour, parse_hour

NOT_SETTLED = {
    ObjectState.PENDING: Recorded.WAITING,
    ObjectState.CLAIMED: Recorded.WAITING,
    ObjectState.FAILED: Recorded.FAILED,
    ObjectState.EXCLUDED: Recorded.WAITING,
    ObjectState.QUARANTINED: Recorded.QUARANTINED,
}
# Hour and event type; writing each object's hour as text would cost more than looking it up.
_Slot = tuple[datetime, str]


@dataclass(frozen=True, slots=True)
class Sorted:
    """What a listing means to the ledger; each list in the order of the listing."""

    new: list[CurrentsObject] = field(default_factory=list)
    retaken: list[CurrentsObject] = field(default_factory=list)  # was not delivered, and has another ETag now
    changed: list[CurrentsObject] = field(default_factory=list)  # has another ETag than the one that was delivered
    claimed: list[CurrentsObject] = field(default_factory=list)  # has another ETag, as whoever has it finds out itself

    @property
    def known(self) -> bool:
        """Whether each object is recorded as it is listed."""
        return not (self.new or self.retaken or self.changed or self.claimed)


class Sorter:
    """Sorts the objects of one connector within one transaction."""

    def __init__(self, connection: Connection, connector: str) -> None:
        self._connection = connection
        self._connector = connector
        self._folds: dict[_Slot, bytes | None] = {}

    def sort(self, listed: Sequence[CurrentsObject]) -> Sorted:
        """Sort at most a few hundred objects, since each is a parameter of one query."""
        by_key = {item.key: item for item in listed}
        rows = self._look_up(by_key)
        result = Sorted()
        for key, item in by_key.items():
            if row := rows.get(key):
                if item.etag != row.etag:
                    match row.state:
                        case ObjectState.DELIVERED:
                            result.changed.append(item)
                        case ObjectState.CLAIMED:
                            result.claimed.append(item)
                        case _:
                            result.retaken.append(item)
            else:
                match self._folded(item):
                    case Recorded.UNKNOWN:
                        result.new.append(item)
                    case Recorded.CHANGED:
                        result.changed.append(item)
        return result

    def recorded(self, listed: Sequence[CurrentsObject]) -> list[Recorded]:
        """Return what is recorded of each of at most a few hundred objects."""
        rows = self._look_up({item.key: item for item in listed})
        return [_recorded(row, item) if (row := rows.get(item.key)) else self._folded(item) for item in listed]

    def _look_up(self, by_key: Mapping[str, CurrentsObject]) -> dict[str, Row[str, str, int, str]]:
        """Return the rows of the objects that have one, by key, and load the folds that the others may be in."""
        wanted = (objects.c.key, objects.c.etag, objects.c.size_bytes, objects.c.state)
        of_connector = select(*wanted).where(objects.c.connector == self._connector)
        rows = {row.key: row for row in self._connection.execute(of_connector.where(among(objects.c.key, by_key)))}
        self._load_folds({_slot(item) for key, item in by_key.items() if key not in rows})
        return rows

    def _folded(self, item: CurrentsObject) -> Recorded:
        fold = self._folds[_slot(item)]
        same = None if fold is None else digests.has_etag(fold, item.key, item.etag)
        return Recorded.UNKNOWN if same is None else Recorded.DELIVERED if same else Recorded.CHANGED

    def _load_folds(self, slots: set[_Slot]) -> None:
        missing = {
            (format_hour(hour), event_type): (hour, event_type) for hour, event_type in slots - self._folds.keys()
        }
        if not missing:
            return
        self._folds.update(dict.fromkeys(missing.values()))
        of_slots = pair_among(hours.c.hour, hours.c.event_type, missing)
        found = folds.load(self._connection, hours.c.connector == self._connector, of_slots)
        self._folds.update((missing[slot], fold) for slot, fold in found.items())


def owed(connection: Connection, connector: str, after: str, before: str, limit: int) -> list[OwedObject]:
    """Return objects that are not delivered, by the unique index of connector and key."""
    names = ("key", "event_type", "hour", "state")
    within = (objects.c.connector == connector, objects.c.key > after, objects.c.key < before)
    rows = select(*(objects.c[name] for name in names)).where(*within, objects.c.state != ObjectState.DELIVERED)
    return [
        OwedObject(key, event_type, parse_hour(hour), NOT_SETTLED[state])
        for key, event_type, hour, state in connection.execute(rows.order_by(objects.c.key).limit(limit))
    ]


def columns_of(listed: CurrentsObject, now: datetime) -> dict[str, Any]:
    """Return the columns of a listed object; a time of change that cannot be is taken for now, as it came just now."""
    modified = listed.last_modified if FIRST_FILES <= listed.last_modified <= now else now
    # Spelled out because `asdict` copies each value deeply, and millions of objects pass here.
    return {
        "key": listed.key,
        "etag": listed.etag,
        "size_bytes": listed.size_bytes,
        "last_modified": time_text(modified),
        "event_type": listed.event_type,
        "hour": format_hour(listed.hour),
    }


def _slot(item: CurrentsObject) -> _Slot:
    return item.hour, item.event_type


def _recorded(row: Row[str, str, int, str], item: CurrentsObject) -> Recorded:
    match row.state:
        case ObjectState.DELIVERED:
            same = (row.etag, row.size_bytes) == (item.etag, item.size_bytes)
            return Recorded.DELIVERED if same else Recorded.CHANGED
        case _:
            return NOT_SETTLED[row.state]
