"""One object while it is worked on: what was read of it, what it owes, and how far it has come."""

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Self

import polars as pl

from currents_bridge.delivery.acks import Acknowledgements
from currents_bridge.errors import BridgeError, QuarantineObjectError
from currents_bridge.events.catalogue import EventType
from currents_bridge.model import Books, ClaimedObject, DeadLetter, Delivered, Quarantined

MAX_LETTERS = 10_000  # of one object,
BYTES_A_LETTER = 100  # and one more for so many bytes of it, which is what an event of Currents takes packed


@dataclass(frozen=True, slots=True)
class Fence:
    """A row of an object, with everything before it, that is behind once a batch is acknowledged."""

    rows: int
    books: Books
    batch: int  # its number in the group


@dataclass(slots=True)
class Work:
    """One object of a group."""

    claimed: ClaimedObject
    alone: bool  # in its group
    rows: int  # read so far, from the start of the object
    behind: int  # rows that the latest checkpoint has
    books: Books  # of all rows read, with those of the checkpoint; refused messages still count as sent
    dead_letters: list[DeadLetter] = field(default_factory=list)  # that the rules made, behind the latest checkpoint
    message_ids: list[tuple[int, pl.Series]] = field(default_factory=list)  # to be remembered, with their first row
    fences: deque[Fence] = field(default_factory=deque)
    damaged: bool = False  # something before `rows` was lost, so it is no place to go on from
    ended: bool = False  # read to its end
    last_batch: int = 0  # every message that it owes so far is in a batch up to this number
    settled: bool = False
    failure: BridgeError | None = None

    @classmethod
    def of(cls, claimed: ClaimedObject, *, alone: bool = True) -> Self:
        """Return the work that goes on behind the object's checkpoint."""
        return cls(claimed, alone, claimed.checkpoint.rows, claimed.checkpoint.rows, claimed.checkpoint.books)

    def check_letters(self) -> None:
        """Have an object set aside that would fill the ledger with dead letters, more than so small a file may make."""
        most = MAX_LETTERS + self.claimed.object.size_bytes // BYTES_A_LETTER
        if self.books.dead_lettered > most and not self.failure:
            self.failure = QuarantineObjectError(f"more than {most} of its events are dead letters")

    def put_fence(self, batch: int) -> None:
        """Note that the rows read so far are behind once the batch is acknowledged."""
        self.last_batch = batch
        if not self.damaged:
            self.fences.append(Fence(self.rows, self.books, batch))

    def reached(self, sent: Acknowledgements) -> Fence | None:
        """Return the last fence that is behind by now, and forget those before it."""
        reached = None
        while self.fences and self.fences[0].batch <= sent.through:
            reached = self.fences.popleft()
        return reached

    def pass_by(self, rows: int) -> None:
        """Go on from a checkpoint: what it recorded need not be held any longer."""
        self.behind = rows
        self.dead_letters = [letter for letter in self.dead_letters if letter.row >= rows]
        self.message_ids = [(first_row, ids) for first_row, ids in self.message_ids if first_row >= rows]

    def failure_with(self, sent: Acknowledgements) -> BridgeError | None:
        """Return why the object is not delivered; a quarantine has to wait until what could be read has arrived."""
        of_batches = sent.failure_of(self.claimed.id, alone=not self.books.deduplicated)
        if isinstance(self.failure, QuarantineObjectError):
            return of_batches or self.failure
        return self.failure or of_batches

    def ending(self, sent: Acknowledgements) -> Delivered | Quarantined | None:
        """Return the settlement of an object of which all that could be read has arrived; None where it has to wait."""
        failure = self.failure_with(sent)
        if failure and not isinstance(failure, QuarantineObjectError):
            return None
        books = self._without_refused(self.books, sent, self.rows)
        letters, ids = self.letters(sent, self.rows), self.ids(sent, self.rows)
        if failure:
            return Quarantined(self.claimed.id, failure.message, books, letters, ids)
        return Delivered(self.claimed.id, books, letters, ids)

    def books_at(self, fence: Fence, sent: Acknowledgements) -> Books:
        """Return the books of the rows before a fence that is behind."""
        return self._without_refused(fence.books, sent, fence.rows)

    def letters(self, sent: Acknowledgements, rows: int) -> list[DeadLetter]:
        """Return the dead letters from the latest checkpoint up to a row, in order."""
        letters = [*self.dead_letters, *sent.refused(self.claimed.id)]
        return sorted((letter for letter in letters if self.behind <= letter.row < rows), key=lambda letter: letter.row)

    def ids(self, sent: Acknowledgements, rows: int) -> pl.Series | None:
        """Return the ids of acknowledged messages from the latest checkpoint up to a row, if they are remembered."""
        sent_ids = [ids for first_row, ids in self.message_ids if self.behind <= first_row < rows]
        if not sent_ids:
            return None
        ids = pl.concat(sent_ids)
        refused = [letter.message_id for letter in sent.refused(self.claimed.id)]
        return ids.filter(~ids.is_in(refused)) if refused else ids

    def _without_refused(self, books: Books, sent: Acknowledgements, rows: int) -> Books:
        """Return the books with the messages that Segment refused, before a row, as dead letters."""
        refused = sum(letter.row < rows for letter in sent.refused(self.claimed.id))
        return replace(books, sent=books.sent - refused, dead_lettered=books.dead_lettered + refused)


@dataclass(frozen=True, slots=True)
class Share:
    """What one object has in a run."""

    work: Work
    first_row: int  # in the object
    height: int  # events in the run, behind those of the objects before it
    damaged: bool = False  # something of the object before the end of the share was lost


@dataclass(frozen=True, slots=True)
class Run:
    """Events of one type as columns that are mapped together: of one object, or of several small ones."""

    event_type: EventType
    events: pl.DataFrame
    shares: Sequence[Share]
    json_fields: frozenset[str] = frozenset()  # as in Slice
    unreadable: Sequence[tuple[int, str]] = ()  # as in Slice; only of a run of one share

    def each_alone(self) -> Iterator["Run"]:
        """Yield each object's share as a run of its own."""
        first = 0
        for share in self.shares:
            yield Run(self.event_type, self.events.slice(first, share.height), [share])
            first += share.height


class Repeats:
    """The message ids of one group, so that an event that stands in it twice is sent once.

    The latest are kept as they are, 140 bytes each; of an object of millions, the earlier ones as 128 bits each, in
    which no two ids meet by chance.

    Args:
        most_kept: ids that are kept as they are.
    """

    def __init__(self, most_kept: int = 100_000) -> None:
        self._most_kept = most_kept
        self._seen: set[str] = set()  # grows in place; a join would look at all of them again for each small object
        self._earlier = _digests(pl.Series([], dtype=pl.String))  # sorted

    def leave_out(self, messages: pl.DataFrame) -> pl.DataFrame:
        """Return the messages whose id the group has not had yet, in order."""
        if self._earlier.height:
            messages = messages.filter(~self._were_earlier(messages["message_id"]))
        ids = set(messages["message_id"].to_list())
        again = ids & self._seen
        self._seen |= ids
        if len(ids) != messages.height or again:
            fresh = pl.col("message_id").is_first_distinct() & ~pl.col("message_id").is_in(list(again))
            messages = messages.filter(fresh)
        if len(self._seen) > self._most_kept:
            kept = _digests(pl.Series(list(self._seen), dtype=pl.String))
            self._earlier = pl.concat([self._earlier, kept]).sort("first")
            self._seen = set()
        return messages

    def _were_earlier(self, ids: pl.Series) -> pl.Series:
        asked, known = _digests(ids), self._earlier
        at = known["first"].search_sorted(asked["first"]).clip(upper_bound=known.height - 1)
        return (known["first"].gather(at) == asked["first"]) & (known["second"].gather(at) == asked["second"])


def _digests(ids: pl.Series) -> pl.DataFrame:
    """Return 128 bits of each id, which are the same within this process."""
    return pl.DataFrame({"first": ids.hash(1), "second": ids.hash(2)})
