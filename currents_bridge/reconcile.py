"""`reconcile`: the proof that what the bucket holds is what the ledger delivered, and that the books balance."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import islice

from currents_bridge.connector import Connector
from currents_bridge.discovery import list_objects
from currents_bridge.model import Books, HourBooks, Recorded, Selection, format_hour

PAGE_OBJECTS = 1_000

# What is wrong with an object of the listing, by what the ledger says of it; delivered ones are as they should be,
# and quarantined ones are accounted for.
_WRONG = {
    Recorded.UNKNOWN: "is not in the ledger; `once` or `backfill` delivers it",
    Recorded.WAITING: "is not delivered yet",
    Recorded.CHANGED: "has another ETag or size than what was delivered; `backfill --resend` sends it again",
}


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that should not be so."""

    subject: str  # an object's key, or an event type and hour
    detail: str


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What was compared for one connector, and each difference."""

    hours: Sequence[HourBooks]
    listed: dict[Recorded, int]  # objects of the bucket, by what the ledger says of them
    differences: Sequence[Difference]

    @property
    def books(self) -> Books:
        """The books of all hours."""
        return sum((hour.books for hour in self.hours), Books())

    @property
    def exit_code(self) -> int:
        """0: proven; 1: there are differences; 4: none, but objects or events were set aside."""
        if self.differences:
            return 1
        return 4 if self.listed[Recorded.QUARANTINED] or self.books.dead_lettered else 0

    def as_json(self) -> dict[str, object]:
        """Return the connector's part of the JSON document."""
        return {
            "objects": {str(state): count for state, count in self.listed.items()},
            "events": asdict(self.books),
            "hours": [
                {"hour": format_hour(h.hour), "event_type": h.event_type, "objects": h.objects, **asdict(h.books)}
                for h in self.hours
            ],
            "differences": [asdict(difference) for difference in self.differences],
        }


def reconcile(connector: Connector, selection: Selection) -> Reconciliation:
    """Compare bucket and ledger for a selection; raises as the bucket and the ledger do."""
    hours = connector.ledger.hour_books(connector.name, selection)
    differences = [
        Difference(f"{hour.event_type} {format_hour(hour.hour)}", f"the books do not balance: {asdict(hour.books)}")
        for hour in hours
        if not hour.books.balanced
    ]
    listed: Counter[Recorded] = Counter()
    objects = list_objects(connector.source, selection)
    while page := list(islice(objects, PAGE_OBJECTS)):
        for item, recorded in zip(page, connector.ledger.recorded(connector.name, page), strict=True):
            listed[recorded] += 1
            if recorded in _WRONG:
                differences.append(Difference(item.key, _WRONG[recorded]))
    return Reconciliation(hours, {recorded: listed[recorded] for recorded in Recorded}, differences)
