"""What the core needs of the world, as small Protocols, which other packages fulfil.

Each docstring is a contract; the suites in tests/contract hold whatever fulfils it to that.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, BinaryIO, Protocol

from pydantic import SecretStr

from currents_bridge.errors import Side
from currents_bridge.model import (
    Acknowledged,
    Alert,
    AlertMessage,
    Batch,
    Books,
    Canary,
    Checkpoint,
    ClaimedObject,
    ConnectorTotals,
    Coverage,
    Credential,
    CurrentsObject,
    DeadLetter,
    Decision,
    Evidence,
    ExpiryRule,
    FailingJob,
    GroupLimits,
    HourBooks,
    Known,
    LetterFilter,
    ListedObject,
    Notice,
    NoticeKind,
    OwedObject,
    Progress,
    QuarantinedObject,
    QueuedMessage,
    Reclaimed,
    Recorded,
    Refusal,
    Rewound,
    Selection,
    Settlement,
    StoredDeadLetter,
    TypeActivity,
    Undelivered,
)

if TYPE_CHECKING:
    import polars as pl


class ObjectStore(Protocol):
    """Read-only access to one bucket.

    Every method raises CredentialError(Side.SOURCE) naming bucket and permission where access is denied or the
    credentials are bad or missing, and RetryLaterError for a missing bucket, throttling, server and network faults, and
    for answers that are none of an object store: then it names the server and what is odd.
    """

    def folders(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
        """Return the child folders directly under `prefix` (each ends in '/') and the objects directly in it.

        `prefix` is empty or ends in '/'. Folders come in key order. An empty or missing prefix gives two empty lists.
        """
        ...

    def list(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
        """Yield all objects whose key starts with `prefix` and sorts after `start_after`, each once, in key order.

        Servers that sort by folders (`a/1` before `a-b`) are taken as they are.

        `start_after` is a key, or a text that names no folder: SeaweedFS would leave the folder's objects out.
        """
        ...

    def open(self, key: str, etag: str, size_bytes: int) -> BinaryIO:
        """Return a buffered, readable, forward-only stream (with `tell`) of the object as it was listed.

        `etag` and `size_bytes` are those of its listing. Reads in ranges, so a slow reader holds no connection and
        memory stays bounded. Opening or reading raises ObjectGoneError where the store says that there is no such
        object (any more), ObjectChangedError where it has another ETag or size by now, OneObjectError where it is
        archived or encrypted with a key that S3 does not keep, RetryLaterError where the
        connection broke or the server contradicts itself. A CredentialError may be of this object alone: of its KMS
        key, its owner, its ACL. The caller closes the stream.
        """
        ...

    def expiry_rules(self) -> Sequence[ExpiryRule] | None:
        """Return the bucket's enabled lifecycle rules that delete current objects; None where they may not be read.

        Rules that hold for tagged objects only are left out, since Braze writes no tags. Raises as `list`, but a
        missing permission to read the rules is no error.
        """
        ...


class Probe(Protocol):
    """One way to ask about a write key without sending events. May be called from any thread."""

    name: str  # unique among the probes of a connector, as shown to people

    def ask(
        self,
        key: SecretStr,
        now: datetime,
        acknowledged: Sequence[Acknowledged] = (),
        keys_seen_with: str | None = None,
    ) -> Evidence | None:
        """Return what can be said of the key, None where the answer says nothing.

        `acknowledged`: what is not proven yet, in order of time. `keys_seen_with`: see Credential. Raises ProbeError
        where the probe fails for its own reasons: network, 429, 5xx, its own credential. Never raises or shows the key.
        """
        ...


class Channel(Protocol):
    """One place that alerts go to."""

    name: str  # as shown to people, without any secret
    fingerprint: str  # of its address

    def tell(self, message: AlertMessage) -> None:
        """Deliver one message; raises RetryLaterError, without any secret in it, where it was not taken."""
        ...


class AlertBook(Protocol):
    """Open alerts, and messages that channels have not taken yet; outlives restarts. Thread-safe.

    Every method is one transaction and raises LedgerError where the store cannot be read or written.
    """

    def open_alerts(self) -> list[Alert]:
        """Return the open alerts of all connectors, oldest first."""
        ...

    def revise(self, decide: Callable[[Sequence[Alert]], Decision], channels: Sequence[str]) -> Decision:
        """Decide about the open alerts, keep opened ones (also known ones with new words), and drop resolved ones.

        Each message is queued for each channel. No other process decides in between, so nothing is told twice. `decide`
        may be called more than once, and must not use the book. Returns what was decided.
        """
        ...

    def waiting(self, now: datetime) -> set[str]:
        """Return the channels whose first message is due; later ones wait for it."""
        ...

    def claim(self, channel: str, now: datetime, until: datetime) -> QueuedMessage | None:
        """Take a channel's first message where it is due: until then nobody else gets it. None: it is not due.

        Messages that were queued more than 7 days ago are dropped: nobody takes those of a channel that is gone.
        """
        ...

    def taken(self, id_: int) -> None:
        """Drop a message that its channel has taken."""
        ...

    def postpone(self, id_: int, until: datetime) -> None:
        """Keep a message for a later attempt and count this one."""
        ...


class Transport(Protocol):
    """One way to one Segment source. Methods may be called from many threads at once."""

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Make one attempt to send the batch and return once Segment has acknowledged it.

        Returns the messages that were refused one by one (empty for most); every other message is acknowledged.
        Raises RetryLaterError (407, 408, 421, 425, 429, 460, 5xx, timeouts, network; a 2xx that is no acknowledgement;
        `wait_s` where the answer names a wait),
        CredentialError(Side.DESTINATION) (401, 403, 511; and 404, 3xx, any other 4xx: a wrong endpoint), RefusedError
        (400, 413, 422; a batch of which the client library would make two requests).
        On any error none of the batch counts as acknowledged, and sending it again is safe: message ids stay.
        """
        ...

    def close(self) -> None:
        """Free connections and threads; idempotent."""
        ...


class Ledger(Protocol):
    """The record of objects and what became of them, shared by all connectors. Thread-safe.

    Every method is one transaction and raises LedgerError where the store cannot be read or written.
    Times are aware UTC; `now` is always given. `connector` is the connector's name.
    """

    def admit(
        self, connector: str, objects: Sequence[CurrentsObject], now: datetime
    ) -> tuple[int, list[CurrentsObject]]:
        """Record objects that are not yet known as pending; known ones (also folded) stay as they are.

        Returns the number of new objects, and the delivered ones whose ETag differs from the recorded one. One that
        was not delivered yet (pending, failed, excluded, quarantined) takes the new ETag and size and is as new; a
        claimed one is left to a later look. A time of change that cannot be counts as `now`. Idempotent.
        """
        ...

    def redeliver(
        self, connector: str, changed: Sequence[CurrentsObject], since: datetime, now: datetime
    ) -> list[CurrentsObject]:
        """Make delivered objects that `admit` returned pending with their new ETag; returns the others.

        Only of those that were settled since, and since the oldest message id that is remembered: what was sent of them
        is left out then. Their books leave the sums, their dead letters are forgotten. Folded objects stay as they are.
        """
        ...

    def claim(
        self, connector: str, selection: Selection, limits: GroupLimits, now: datetime
    ) -> Sequence[ClaimedObject]:
        """Take the next group for this process: pending objects, and failed ones whose retry time has come.

        Oldest hour first, then event type, then key; a suspect is a group of its own, and so is what has failed before.
        At least one object if any is due, at most what `limits` allow. No object is ever claimed by two live owners at
        once. Empty when nothing is due. What a living owner has reopened is left to selections with
        `resend`, also by `claim_canary`.

        An object whose claim is taken away, by `reclaim` or `rewind`, has a new id from then on. So what is said of a
        lost claim by its id never counts for a later one, also where the same owner has claimed the object anew.
        """
        ...

    def claim_canary(
        self, connector: str, selection: Selection, now: datetime, but: Collection[int] = ()
    ) -> Sequence[ClaimedObject]:
        """Take the one object that goes ahead, to see whether a side works; empty where no other waits.

        It is chosen among all that wait `but` these, whatever their retry time: the newest of an hour and type none of
        whose objects went ahead before; else the newest that did not; else the one that did so longest ago. One that
        was never sent comes before those that were rewound: Segment may have seen their ids, and does not count them.
        """
        ...

    def witnesses(self, connector: str, limit: int) -> list[tuple[CurrentsObject, datetime]]:
        """Return objects that were delivered, each of another hour or type, with when; the latest first."""
        ...

    def canary(self, connector: str, since: datetime, until: datetime) -> Canary | None:
        """Return the message that is kept, if it was acknowledged from `since` to `until`."""
        ...

    def keep_canary(self, connector: str, canary: Canary | None, now: datetime) -> None:
        """Keep a message that was acknowledged now, in place of the one before; None: keep none."""
        ...

    def settle(self, settlements: Sequence[Settlement], now: datetime) -> None:
        """Record what became of claimed objects, their books and their dead letters, in one transaction.

        Dead letters of an object replace its earlier ones from the checkpoint's rows on; Failed leaves them as they
        are. Any settlement ends a suspicion, and any but Failed the checkpoint, too. Message ids are remembered (see
        `known`). Failed counts as one attempt more.

        Raises ValueError for books that do not balance and for an object that is settled twice in one call; then
        nothing is recorded. Raises ClaimLostError where objects are not claimed by this owner (any more), after all
        others were recorded: of the lost ones nothing is, since whoever claims them next sends them again.
        """
        ...

    def checkpoint(
        self,
        id_: int,
        checkpoint: Checkpoint,
        dead_letters: Sequence[DeadLetter],
        now: datetime,
        message_ids: "pl.Series | None" = None,
    ) -> None:
        """Record how far a claimed object has come, with dead letters and message ids since its last checkpoint.

        What is claimed again later goes on from there. Raises as `settle`. Checkpoints only move forwards: one that
        is not ahead of the recorded one changes nothing. It ends a suspicion.
        """
        ...

    def begin_trial(self, claimed: ClaimedObject, row: int) -> None:
        """Say that a claimed suspect is about to be decoded from a row on; again for each part of it.

        Should the process end before `clear_suspicion`, that counts as one crash more, if the trial before ended at the
        same row; elsewhere it was not the object, so the count begins with this crash. A process that ends at any
        other time, as one that is killed does, proves nothing against the objects in its hands.
        An object that this owner has not claimed (any more) is left alone.
        """
        ...

    def clear_suspicion(self, id_: int) -> None:
        """Say that a claimed suspect was read through without harm; its crashes count from none again.

        An object that this owner has not claimed (any more) is left alone.
        """
        ...

    def release(self, ids: Sequence[int]) -> None:
        """Give claimed objects back as they were before the claim; no attempt is counted.

        Objects that this owner has not claimed (any more) are left alone.
        """
        ...

    def heartbeat(self, now: datetime) -> None:
        """Say that this owner lives; call at least every 30 s while objects are claimed."""
        ...

    def reclaim(self, connector: str, now: datetime) -> Reclaimed:
        """Give back the connector's claims of dead owners, and to everybody what these had reopened (see `reopen`).

        Ended processes of this host are dead at once, others once their last heartbeat is older than 90 s. Each
        object that comes free this way is a suspect from then on, and `claim` gives suspects one at a time. One that
        did so after three trials (see `begin_trial`), without `clear_suspicion`, a checkpoint or a settlement in
        between, is quarantined with the books of its checkpoint. It is counted as well. Where no owner died, nothing
        is written.
        """
        ...

    def outstanding(self, connector: str, objects: Sequence[CurrentsObject]) -> list[CurrentsObject]:
        """Return those of the objects that are not delivered and not quarantined: what a delivery would take."""
        ...

    def books_by_type(self, connector: str) -> Mapping[str, Books]:
        """Return the books of delivered and quarantined objects, by event type."""
        ...

    def known(self, connector: str, of: ClaimedObject, message_ids: "pl.Series") -> Known:
        """Return which of an object's message ids were sent and settled, by which objects, and are not forgotten yet.

        Of an object that is sent again only those count that were settled since it was reopened.
        """
        ...

    def forget(self, connector: str, before: datetime) -> int:
        """Forget message ids that were settled before; returns how many."""
        ...

    def dead_letters(self, which: LetterFilter, limit: int | None = None, after: int = 0) -> list[StoredDeadLetter]:
        """Return dead letters by their ids, oldest first; with ids above `after`, as that of the last one of a page."""
        ...

    def count_dead_letters(self, which: LetterFilter) -> int:
        """Return how many dead letters there are."""
        ...

    def replayed(self, refusals: Mapping[int, str | None], now: datetime, *, remember: bool = False) -> Collection[int]:
        """Record replays of dead letters, by id; returns which are there (the others were replayed or purged before).

        None: it was acknowledged: it is no dead letter any more, though `rewind` remembers it until `fold` forgets it,
        and the books of its object, hour and type move one event from dead_lettered to sent. Books that do not hold
        the letter stay as they are: an object that was reopened is counted anew when it is settled. Else it stays,
        with the new reason and one attempt more. `remember`: the message id is then remembered as its object's.
        """
        ...

    def purge(self, which: LetterFilter) -> int:
        """Delete dead letters for good, keeping the books as they are; returns how many.

        Many are deleted in steps, each of them a transaction of its own.
        """
        ...

    def quarantined(self, connector: str | None) -> list[QuarantinedObject]:
        """Return quarantined objects, oldest first."""
        ...

    def replay_quarantined(self, ids: Sequence[int], now: datetime) -> int:
        """Make quarantined objects pending again, their books and dead letters forgotten; returns how many.

        What they sent is not forgotten: `known` has it as sent before.
        """
        ...

    def recorded(self, connector: str, objects: Sequence[CurrentsObject]) -> list[Recorded]:
        """Return what is recorded of each listed object, in the order given; folded ones by key and ETag.

        An object that waits or is quarantined counts as such, whatever its ETag.
        """
        ...

    def owed(self, connector: str, after: str, before: str, limit: int) -> list[OwedObject]:
        """Return the first `limit` objects that wait, failed or are quarantined, in key order, after < key < before."""
        ...

    def hour_books(self, connector: str, selection: Selection) -> list[HourBooks]:
        """Return the books of delivered and quarantined objects by hour and event type, in this order.

        So the sums of `hour_books`, `books_by_type` and `totals` are the same. Quarantined objects of which nothing
        could be read have no part in it.
        """
        ...

    def reopen(self, connector: str, objects: Sequence[CurrentsObject], now: datetime) -> int:
        """Make these listed objects wait to be sent again by this owner; returns how many had been delivered.

        Folded ones too, each with the ETag of the listing; those that wait begin from their first row. Claimed,
        quarantined and unknown ones are left alone, and so are the books of all that is not given.

        While this owner lives, only a selection with `resend` claims them. What was remembered before is no reason to
        leave out any of their messages, see `known`, whoever delivers them.
        """
        ...

    def leave_resent(self, connector: str) -> None:
        """Leave to everybody what this owner has reopened and what was not delivered since."""
        ...

    def spare(self, ids: Sequence[int]) -> None:
        """Take one attempt of each back, for each time it is named, and make it due: of failed objects only."""
        ...

    def hasten(self, connector: str, selection: Selection) -> int:
        """Make failed objects of the selection due at once, for `backfill`; returns how many."""
        ...

    def fold(self, connector: str, before_hour: datetime, settled_before: datetime) -> int:
        """Fold delivered objects of hours before `before_hour` into one row per hour and type; returns how many.

        Hours and types with an object settled at `settled_before` or later are left alone, since those may have to be
        rewound. Replays of dead letters before that time are forgotten.

        Books and counts stay the same; folded objects stay known to `admit` (key and ETag, as digests). Hours and
        types with an object that is not delivered are left alone.
        """
        ...

    def rewind(self, connector: str, since: datetime, now: datetime, *, spare_since: datetime | None = None) -> Rewound:
        """Make pending again all that was acknowledged since, wholly or in part; returns what that was.

        These are: objects that were delivered since, or quarantined since with events that could be read, every object
        with a checkpoint, and every claimed object (its owner loses the claim, see ClaimLostError). Their books leave
        the sums, their dead letters are forgotten as on `replay_quarantined`, their checkpoint is none, `rewinds`
        counts one more, and their events that had been acknowledged count as waiting until the object is settled
        again (Failed does not). Message ids remembered since are forgotten. Dead letters of other objects whose replay
        was acknowledged since are dead letters again, with the reason that the key was dead. Folded objects stay as
        they are, and so do delivered ones that began from none again after `spare_since`, where that is given.

        Message ids may be forgotten before all else; the rest is one transaction.
        """
        ...

    def undelivered(self, connector: str) -> list[Undelivered]:
        """Return for each event type how many objects wait, and how many are excluded; no type that has none."""
        ...

    def exclude(self, connector: str, event_types: frozenset[str]) -> None:
        """Make pending and failed objects of these types excluded, and excluded ones of all other types pending."""
        ...

    def set_aside(self, connector: str, modified_before: datetime, reason: str, now: datetime) -> int:
        """Quarantine pending and failed objects that were last modified before, with the books of their checkpoint.

        Returns how many.
        """
        ...

    def save_expiry_rules(self, connector: str, rules: Sequence[ExpiryRule]) -> None:
        """Keep the lifecycle rules that may delete the connector's objects, in place of those kept before."""
        ...

    def newest_hour(self, connector: str, event_types: frozenset[str], until: datetime) -> datetime | None:
        """Return the newest hour up to `until` that has objects of these types.

        Later ones are left out, as of a clock that is wrong or of the year 9999: they say nothing of when files come.
        """
        ...

    def activity(self, connector: str, since: datetime, until: datetime) -> list[TypeActivity]:
        """Return each event type that has objects in the hours from `since` up to `until`, with how many of them."""
        ...

    def dead_lettered(self, connector: str, since: datetime, until: datetime) -> int:
        """Return how many of the dead letters that are there were made from `since` to `until`."""
        ...

    def coverage(self, connector: str, place: str) -> Mapping[str, Coverage]:
        """Return what was listed whole of a bucket (`place`), by folder, by a version that reads the same keys."""
        ...

    def save_coverage(self, connector: str, place: str, folders: Mapping[str, Coverage]) -> None:
        """Keep what was listed whole of these folders, in place of what was kept of them before."""
        ...

    def progress(self, connector: str) -> Progress:
        """Return how far discovery has come."""
        ...

    def save_progress(self, connector: str, progress: Progress) -> None:
        """Keep how far discovery has come; fields that are None stay as they are."""
        ...

    def note(self, connector: str, notices: Sequence[Notice], now: datetime) -> None:
        """Keep notices, one for each kind and subject.

        A repeated one replaces the detail, and the count by a larger one; `since` stays. MOST_NOTICES of a kind are
        kept, and one of the subject MORE, which counts the others.
        """
        ...

    def replace_notices(
        self,
        connector: str,
        kind: NoticeKind,
        notices: Sequence[Notice],
        now: datetime,
        *,
        met_before: datetime | None = None,
    ) -> None:
        """Keep these notices of a kind with just these counts, and drop all others of the kind: they hold no longer.

        With `met_before`, only those others that were last noted before. `since` stays; as many are kept as by `note`.
        """
        ...

    def forget_notice(self, connector: str, kind: NoticeKind, subject: str) -> None:
        """Drop a notice that holds no longer, if it is there."""
        ...

    def job_ended(self, connector: str, job: str, error: str | None, now: datetime) -> None:
        """Record how a run of a job ended; None: well, which ends its failures."""
        ...

    def failing_jobs(self) -> list[FailingJob]:
        """Return the jobs of all connectors whose latest run failed, by connector and job."""
        ...

    def credential(self, connector: str, side: Side) -> Credential:
        """Return what is known of one credential; a blank one where nothing is."""
        ...

    def save_credential(self, connector: str, side: Side, credential: Credential) -> None:
        """Keep what is known of one credential."""
        ...

    def acknowledge(self, connector: str, events: Acknowledged) -> None:
        """Count events that Segment acknowledged; they are not proven."""
        ...

    def acknowledged(self, connector: str) -> list[Acknowledged]:
        """Return what was acknowledged and not forgotten since, in order of time, at most one entry a minute."""
        ...

    def forget_acknowledged(self, connector: str, until: datetime | None = None) -> None:
        """Forget what was acknowledged until a time, since that is proven; None: all, since it is sent again."""
        ...

    def totals(self, connector: str) -> ConnectorTotals:
        """Return what is held of the connector; all zero for an unknown one.

        Books include those of quarantined objects.
        """
        ...

    def close(self) -> None:
        """Release this owner's claims, forget the owner, free the store; idempotent."""
        ...
