"""What an audit compared, and what came of it. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from currents_bridge.model import Books, HourBooks, Recorded
from currents_bridge.sources.listing import Tree

UNEXPLAINED = frozenset({"gone", "unproven"})  # findings that have no notice of their own


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that should not be so."""

    subject: str  # an object's key, a folder, or an event type and hour
    detail: str
    kind: str  # a Recorded, unproven (books of an hour) or unlisted (a folder)


@dataclass(frozen=True, slots=True)
class AuditedHour:
    """One hour of an event type: its objects by what is said of them, beside its books."""

    books: HourBooks
    objects: Mapping[Recorded, int]

    @property
    def problem(self) -> str | None:
        """Why the books cannot be right, None if they can."""
        if not self.books.books.balanced:
            return f"the books do not balance: {asdict(self.books.books)}"
        delivered = self.objects.get(Recorded.DELIVERED, 0) + self.objects.get(Recorded.CHANGED, 0)
        if delivered > self.books.objects:
            return f"{delivered} objects were delivered, and the books have {self.books.objects}"
        return None

    @property
    def well(self) -> bool:
        """Whether all that is there was delivered, and every event of it was sent or left out by a rule."""
        ill = any(count for kind, count in self.objects.items() if kind is not Recorded.DELIVERED)
        return not (ill or self.problem or self.books.books.dead_lettered)

    @property
    def deleted(self) -> int:
        """How many objects were delivered, and are not in the bucket any more; as it should be once they are old."""
        listed = sum(self.objects.values()) - self.objects.get(Recorded.GONE, 0)
        return max(0, self.books.objects - listed)


@dataclass(frozen=True, slots=True)
class AuditedType:
    """One event type: the sums of its hours, and what is not as it should be."""

    event_type: str
    objects: Mapping[Recorded, int]
    deleted: int  # objects that were delivered, and are not in the bucket any more
    books: Books
    hours: Sequence[AuditedHour]  # all, or those that are not well
    unproven: int  # hours whose books cannot be right
    differences: Sequence[Difference]  # the first of each kind; `objects` and `unproven` count them all


@dataclass(frozen=True, slots=True)
class Audit:
    """What was compared."""

    types: Sequence[AuditedType]  # in order of their names
    tree: Tree  # with all keys that were not understood, and all folders that could not be listed
    excluded: frozenset[str]  # types in the bucket that the rules leave out
    discovered: int  # objects that were not in the ledger before, and are now
    covered: frozenset[str]  # folders that were listed

    @property
    def objects(self) -> dict[Recorded, int]:
        """Objects by what is said of them."""
        total = sum((Counter(of_type.objects) for of_type in self.types), Counter[Recorded]())
        total[Recorded.UNREAD] = self.tree.unread.odd
        return {recorded: total[recorded] for recorded in Recorded}

    @property
    def books(self) -> Books:
        """The books of all types."""
        return sum((of_type.books for of_type in self.types), Books())

    @property
    def unproven(self) -> int:
        """Hours of a type whose books cannot be right."""
        return sum(of_type.unproven for of_type in self.types)

    @property
    def findings(self) -> dict[str, int]:
        """What an audit must not find, by kind, as far as it was found.

        What waits will be delivered, and what was set aside was set aside with a reason: neither is a finding.
        """
        found = {str(kind): self.objects[kind] for kind in (Recorded.GONE, Recorded.CHANGED, Recorded.UNREAD)}
        found |= {"unproven": self.unproven, "unlisted": len(self.tree.failures)}
        return {kind: count for kind, count in found.items() if count}
