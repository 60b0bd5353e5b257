"""`reconcile`: the proof that what the bucket holds is what the ledger delivered, and that the books balance."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from currents_bridge.connector import Connector
from currents_bridge.model import Recorded, Selection, format_hour
from currents_bridge.sources.audit import compare
from currents_bridge.sources.findings import Audit, AuditedHour, Difference

# Trouble that ends by itself, as far as the program knows; the rest needs a person.
_TRIED_AGAIN = (Recorded.UNKNOWN, Recorded.WAITING, Recorded.FAILED)
_NEEDS_A_PERSON = (Recorded.QUARANTINED, Recorded.CHANGED, Recorded.GONE, Recorded.UNREAD)


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """An audit of a selection, as it is shown."""

    audit: Audit

    @property
    def hours(self) -> list[AuditedHour]:
        """Every hour of every type, in order."""
        hours = [hour for of_type in self.audit.types for hour in of_type.hours]
        return sorted(hours, key=lambda hour: (hour.books.hour, hour.books.event_type))

    @property
    def differences(self) -> list[Difference]:
        """What should not be so, by kind; of each kind the first of each event type."""
        unread = (
            Difference(line.examples[0], f"{line.count:,} objects {line.what}: {line.todo}", "unread")
            for line in self.audit.tree.unread.lines()
            if line.odd
        )
        of_types = (difference for of_type in self.audit.types for difference in of_type.differences)
        return sorted([*of_types, *unread, *self._folders()], key=lambda difference: difference.kind)

    def counted(self, kind: str) -> int:
        """Return how many differences of a kind there are, also those that are not named."""
        named = sum(difference.kind == kind for difference in self.differences)
        counts = self.audit.findings | {str(recorded): self.audit.objects[recorded] for recorded in _TRIED_AGAIN}
        return max(named, counts.get(kind, 0))

    @property
    def exit_code(self) -> int:
        """0: proven; 1: something is not delivered yet or could not be listed; 4: a person has to look."""
        objects = self.audit.objects
        if any(objects[kind] for kind in _TRIED_AGAIN) or self.audit.tree.failures or not self.audit.tree.types:
            return 1
        ill = any(objects[kind] for kind in _NEEDS_A_PERSON)
        return 4 if ill or self.audit.unproven or self.audit.books.dead_lettered else 0

    @property
    def reasons(self) -> Counter[str]:
        """What keeps it from being proven, by kind; empty where it is."""
        kinds = (*_TRIED_AGAIN, *_NEEDS_A_PERSON)
        objects = Counter({f"objects {kind}": self.audit.objects[kind] for kind in kinds if self.audit.objects[kind]})
        letters = self.audit.books.dead_lettered
        differences = Counter(difference.kind for difference in self.differences if difference.kind not in kinds)
        return objects + differences + Counter({"dead letters": letters} if letters else {})

    def as_json(self) -> dict[str, object]:
        """Return the connector's part of the JSON document."""
        audit = self.audit
        return {
            "objects": {str(recorded): count for recorded, count in audit.objects.items()},
            "events": asdict(audit.books),
            "types": [
                {
                    "event_type": of_type.event_type,
                    "objects": {str(recorded): count for recorded, count in of_type.objects.items()},
                    "deleted": of_type.deleted,
                    "events": asdict(of_type.books),
                }
                for of_type in audit.types
                if of_type.hours
            ],
            "hours": [
                {
                    "hour": format_hour(hour.books.hour),
                    "event_type": hour.books.event_type,
                    "objects": hour.books.objects,
                    "well": hour.well,
                    **asdict(hour.books.books),
                }
                for hour in self.hours
            ],
            "differences": [asdict(difference) for difference in self.differences],
            "excluded": sorted(audit.excluded),
        }

    def _folders(self) -> Iterator[Difference]:
        for folder, error in sorted(self.audit.tree.failures.items()):
            yield Difference(folder, f"could not be listed: {error.message}; {error.hint}", "unlisted")
        if not self.audit.tree.types:
            words = "holds no folder event_type=...; see source.bucket and source.prefix"
            yield Difference(self.audit.tree.top or "the bucket", words, "unlisted")


def reconcile(connector: Connector, selection: Selection) -> Reconciliation:
    """Compare bucket, ledger and books for a selection, and write nothing; raises as the bucket and the ledger do."""
    return Reconciliation(compare(connector.source, selection))
