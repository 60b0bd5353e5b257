"""The words of the program as frozen values; see the glossary in docs/design.md."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    import polars as pl  # not when it runs: `status` and the like have no use for it, and it takes 0.1 s

from currents_bridge.errors import Side


def parse_hour(text: str) -> datetime:
    """Return the UTC hour that a `date=` partition (YYYY-MM-DD-HH) names; raises ValueError for any other text."""
    # Every key that is listed passes here, and `strptime` alone would be a fifth of what a new object costs.
    hour = datetime.fromisoformat(f"{text}:00+00:00")
    if format_hour(hour) != text:
        raise ValueError(f"{text!r} is no hour of the form YYYY-MM-DD-HH")
    return hour


def format_hour(hour: datetime) -> str:
    """Return the `date=` partition of an aware time, YYYY-MM-DD-HH in UTC, which sorts as time does."""
    return hour.astimezone(UTC).isoformat("-", "hours")[:13]


@dataclass(frozen=True, slots=True)
class ListedObject:
    """One line of an S3 listing."""

    key: str
    etag: str  # without quotes
    size_bytes: int
    last_modified: datetime  # aware, UTC


@dataclass(frozen=True, slots=True)
class CurrentsObject:
    """One Avro file of Currents: a listed object whose key was understood."""

    key: str
    etag: str
    size_bytes: int
    last_modified: datetime
    event_type: str
    hour: datetime  # the `date=` partition: the UTC hour in which Braze queued the events


class ObjectState(StrEnum):
    """What became of an object.

    pending -> claimed -> delivered | failed (waits, then claimed again) | quarantined;
    pending, failed -> excluded -> pending, as the rules leave the event type out and include it again;
    delivered -> pending on `backfill --resend`, quarantined -> pending on `quarantine replay`.
    """

    PENDING = "pending"
    CLAIMED = "claimed"
    DELIVERED = "delivered"
    FAILED = "failed"
    QUARANTINED = "quarantined"
    EXCLUDED = "excluded"  # by events.include and events.exclude


@dataclass(frozen=True, slots=True)
class Books:
    """Counts of events; they balance when each event read has exactly one fate."""

    read: int = 0
    sent: int = 0
    skipped_anonymous: int = 0
    deduplicated: int = 0
    dead_lettered: int = 0

    def __add__(self, other: "Books") -> "Books":
        return Books(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    @property
    def balanced(self) -> bool:
        """Whether read = sent + skipped_anonymous + deduplicated + dead_lettered."""
        return self.read == self.sent + self.skipped_anonymous + self.deduplicated + self.dead_lettered


KEPT_EVENT_BYTES = 64 * 1024  # of a dead letter's event: twice what a message may have
KEPT_ID_CHARS = 200  # of its message id: twice what Segment takes


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One event that the rules or Segment refused, kept with its reason."""

    row: int  # index of the event in its object, from 0
    message_id: str
    reason: str  # the rule's, or Segment's answer
    event: str = ""  # as read, one JSON object or what is known of it; empty where Segment refused the message
    message: str = ""  # the message that Segment refused, one JSON object; empty where a rule refused the event

    @classmethod
    def of_event(cls, row: int, message_id: str, reason: str, event: str, *, whole: bool = True) -> Self:
        """Return the letter of an event that a rule refused; of a large one only the beginning is kept.

        What is not whole, since it was cut here or could not be read, ends with words that say so: it is no JSON text.
        """
        if len(message_id) > KEPT_ID_CHARS:
            message_id = message_id[:KEPT_ID_CHARS] + "…"
        if len(event.encode()) > KEPT_EVENT_BYTES:
            event = event.encode()[:KEPT_EVENT_BYTES].decode(errors="ignore") + "… (cut)"
        elif not whole:
            event += "… (the rest could not be read)"
        return cls(row, message_id, reason, event)


@dataclass(frozen=True, slots=True)
class StoredDeadLetter:
    """A dead letter with where it came from, as the ledger keeps it."""

    id: int
    connector: str
    object_key: str
    event_type: str
    letter: DeadLetter
    attempts: int  # replays that were refused again
    created_at: datetime


@dataclass(frozen=True, slots=True)
class LetterFilter:
    """Which dead letters are meant; None: any."""

    connector: str | None = None
    event_type: str | None = None  # glob
    reason: str | None = None  # part of the reason; ASCII letters in any case
    since: datetime | None = None  # set aside at this time or later
    until: datetime | None = None  # set aside before
    ids: frozenset[int] | None = None


@dataclass(frozen=True, slots=True)
class QuarantinedObject:
    """An object that was set aside, as the ledger keeps it."""

    id: int
    connector: str
    object: CurrentsObject
    reason: str
    books: Books  # of what could be read
    settled_at: datetime


@dataclass(frozen=True, slots=True)
class Reclaimed:
    """What came free of the claims of dead owners."""

    objects: int = 0
    set_aside: Sequence[QuarantinedObject] = ()  # of these: quarantined, as they took too many processes down


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a large object has come: every message that its first rows owe was acknowledged or set aside."""

    rows: int = 0  # events from the start of the object
    books: Books = field(default_factory=Books)  # of those rows


@dataclass(frozen=True, slots=True)
class ClaimedObject:
    """An object that this process, and no other, works on."""

    id: int
    object: CurrentsObject
    attempts: int  # earlier attempts that failed
    checkpoint: Checkpoint = field(default_factory=Checkpoint)  # go on behind these rows
    crashes: int = 0  # processes that ended while they worked on it; see Ledger.begin_trial
    trial_row: int = 0  # where the latest trial was that did not end well
    rewinds: int = 0  # times that what was acknowledged of it went back to be sent again
    restarted_at: datetime | None = None  # when its books began from none again, a whole second
    resend: bool = False  # ... because it is to be sent again, whatever was remembered before

    @property
    def suspect(self) -> bool:
        """Whether it may have been this object that ended a process; then it is claimed alone, and tried first."""
        return self.crashes > 0


@dataclass(frozen=True, slots=True)
class Known:
    """Which of an object's messages were acknowledged before (bool each, in the order that was asked for)."""

    before: "pl.Series"  # in an earlier delivery of the object itself
    repeats: "pl.Series"  # in other objects, or earlier in this delivery


@dataclass(frozen=True, slots=True)
class Delivered:
    """Every message that the object owes was acknowledged or set aside; `books` balance.

    `books` are of the whole object, with those of its checkpoint; `dead_letters` of the rows behind the checkpoint.
    `message_ids` (str) are those that were sent behind the checkpoint, where the connector remembers them.
    """

    id: int
    books: Books
    dead_letters: Sequence[DeadLetter] = ()
    message_ids: "pl.Series | None" = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The object waits until `retry_at`.

    It may have been a side that was unreachable, instead of the object: `side`, None where it was the object for sure.
    """

    id: int
    reason: str
    retry_at: datetime
    side: Side | None = None


@dataclass(frozen=True, slots=True)
class Quarantined:
    """The object cannot be read, or not whole; it is not tried again by itself.

    `books` and `dead_letters` are of the events that could be read, all of them delivered or set aside.
    """

    id: int
    reason: str
    books: Books = field(default_factory=Books)
    dead_letters: Sequence[DeadLetter] = ()
    message_ids: "pl.Series | None" = None  # as Delivered's


Settlement = Delivered | Failed | Quarantined


@dataclass(frozen=True, slots=True)
class Selection:
    """Which objects of a connector are meant: event types, and hours in [first_hour, end_hour)."""

    event_types: frozenset[str]
    first_hour: datetime | None = None  # None: from the beginning
    end_hour: datetime | None = None  # None: without end
    resend: bool = False  # also what waits to be sent again by a backfill at work, see Ledger.reopen


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """How much one group of objects may hold; a single larger object is a group of its own."""

    max_bytes: int = 32 * 1024 * 1024
    max_objects: int = 500


@dataclass(frozen=True, slots=True)
class Part:
    """A run of one object's messages inside a batch.

    `messages` has one row a message: `row` (u32, index in the object), `message_id` (str),
    `message` (str, one JSON object).
    """

    object_id: int
    messages: "pl.DataFrame"


@dataclass(frozen=True, slots=True)
class Batch:
    """The messages of one request to Segment, in order."""

    parts: tuple[Part, ...]
    events: int
    size_bytes: int  # of the serialised request body, before compression
    envelope_bytes: int  # of these, what is around the messages and their commas


@dataclass(frozen=True, slots=True)
class Canary:
    """A message that Segment acknowledged; sent once more, it shows whether the destination works."""

    message_id: str
    message: str  # one JSON object


@dataclass(frozen=True, slots=True)
class Refusal:
    """One message of a batch that Segment or its client library refused for what it is."""

    object_id: int
    row: int
    message_id: str
    reason: str


class Recorded(StrEnum):
    """What ledger and bucket say of an object; `Ledger.recorded` never says the last two."""

    DELIVERED = "delivered"  # with this ETag and size
    WAITING = "waiting"  # pending or claimed
    FAILED = "failed"  # waits for its next attempt
    QUARANTINED = "quarantined"
    CHANGED = "changed"  # delivered with another ETag or size
    UNKNOWN = "unknown"
    GONE = "gone"  # waits or failed, and is not in the bucket any more
    UNREAD = "unread"  # in the bucket, under a key that is not understood


@dataclass(frozen=True, slots=True)
class OwedObject:
    """An object that the ledger needs the bucket to have."""

    key: str
    event_type: str
    hour: datetime
    recorded: Recorded  # waiting, failed or quarantined


@dataclass(frozen=True, slots=True)
class HourBooks:
    """The books of one hour and event type."""

    event_type: str
    hour: datetime
    objects: int  # delivered
    books: Books  # of these, and of what could be read of quarantined ones


class NoticeKind(StrEnum):
    """What discovery reports without acting on it."""

    UNKNOWN_EVENT_TYPE = "unknown_event_type"  # subject: the event type
    UNREAD_KEYS = "unread_keys"  # subject: unread.Reason; detail: what is odd, what would help
    EXCLUDED = "excluded"  # subject: an event type that the rules leave out; count: its objects that would wait
    MISPLACED = "misplaced"  # as unread_keys: Currents files that `source.prefix` misses
    OBJECT_CHANGED = "object_changed"  # subject: an event type; objects of it have another ETag than was delivered
    INTEGRATION = "integration"  # subject: the folder of one Currents integration
    FOLDER_DENIED = "folder_denied"  # subject: a folder that may not be listed, beside others that may
    SCHEMA_DRIFT = "schema_drift"  # subject: the event type; detail: its fields against the catalogue
    ROTATION = "rotation"  # subject: the setting; detail: why a newer write key is not used; gone once it is
    PROBE = "probe"  # subject: the probe's name; detail: why it cannot tell; gone once it can, or is not needed
    SHORTFALL = "shortfall"  # subject: first or again; detail: events acknowledged that did not arrive
    UNPROVEN = "unproven"  # subject: write_key; detail: what a key was told that was replaced and never proven


MOST_NOTICES = 100  # of one kind and connector that are kept by name
MORE = "(more)"  # the subject of the notice that counts what is not kept by name


@dataclass(frozen=True, slots=True)
class Notice:
    """Something seen in the bucket that a person should know of."""

    kind: NoticeKind
    subject: str
    detail: str = ""
    count: int = 1  # e.g. objects of an unknown type, as many as a look has seen
    since: datetime | None = None  # when it was noted first; the ledger fills it in


@dataclass(frozen=True, slots=True)
class Coverage:
    """What of one `event_type=` folder was listed whole: every hour from `since` on, as it was at `until`."""

    since: datetime | None  # the first hour; None: from the earliest file on
    until: datetime  # start of the latest look


@dataclass(frozen=True, slots=True)
class Progress:
    """How far discovery of a connector has come; None: never."""

    polled_at: datetime | None = None  # start of the last poll that found folders and listed all it was not denied
    audited_at: datetime | None = None  # start of the last audit that came to its end
    started_at: datetime | None = None  # start of the first poll; what `start_from: now` means for ever after
    looked_at: datetime | None = None  # start of the last poll, complete or not
    poll_error: str | None = None  # what kept that one from being complete; "": nothing
    findings: Mapping[str, int] | None = None  # of the last audit, by kind (see audit.py); those that are none left out


HANGS = -1  # in place of a number of failures


@dataclass(frozen=True, slots=True)
class FailingJob:
    """A job whose latest runs failed, one after the other, or whose run does not end."""

    connector: str
    job: str  # poll, audit, probe, alerts
    failures: int  # in a row, or HANGS
    since: datetime  # the first of these; the last sign of life of one that hangs
    error: str  # the latest


class CredentialState(StrEnum):
    """How a credential stands."""

    VERIFIED = "verified"  # seen to work, lately
    UNVERIFIED = "unverified"  # nothing speaks against it; Segment's 200 says no more than that
    SUSPECT = "suspect"  # weak evidence against it: sending goes on, and is repeated once all is well
    FAILING = "failing"  # sending is paused, everything is kept
    EXPIRED = "expired"  # failing for longer than the loss window; never stored, it follows from the time


class EvidenceKind(StrEnum):
    """What a piece of evidence says of a credential."""

    WORKED = "worked"  # S3 answered as it should
    ACCEPTED = "accepted"  # Segment took a request; behind a 2xx a dead key may hide
    DENIED = "denied"  # a request was refused because of the credential or the endpoint
    CONFIRMED = "confirmed"  # the Public API: the source is enabled and has the key
    RECEIVED = "received"  # the Public API: what was acknowledged has arrived
    REVOKED = "revoked"  # the Public API: the source does not have the key
    DISABLED = "disabled"  # the Public API: the source is disabled
    NOT_RECEIVED = "not_received"  # the Public API: nothing of what was acknowledged has arrived
    KNOWN = "known"  # the settings endpoint knew the key within about the last day
    UNKNOWN = "unknown"  # the settings endpoint does not know the key


@dataclass(frozen=True, slots=True)
class Evidence:
    """One thing seen that speaks for or against a credential."""

    kind: EvidenceKind
    at: datetime  # up to when it speaks; no later than it was asked
    detail: str  # what was seen
    hint: str = ""  # what to do, where it speaks against
    counted_until: datetime | None = None  # latest acknowledgement that was compared with what arrived
    keys_seen_with: str | None = None  # fingerprint of the token that showed the source's keys; None: it showed none
    shortfall: "Shortfall | None" = None


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """Events that Segment acknowledged within one minute."""

    at: datetime  # of the last of them
    first: int  # sent for the first time
    again: int = 0  # sent once more after a rewind


@dataclass(frozen=True, slots=True)
class Shortfall:
    """Events that Segment acknowledged and did not count as received."""

    since: datetime
    until: datetime
    acknowledged: int
    received: int
    again: bool = False  # they had been sent before: Segment may have dropped them as repeats


@dataclass(frozen=True, slots=True)
class Credential:
    """What is known of one credential of a connector; outlives restarts. See credentials.py for how it changes."""

    state: CredentialState = CredentialState.UNVERIFIED
    since: datetime | None = None  # in this state
    evidence: str | None = None  # what tells the state
    hint: str | None = None  # what to do about it
    cause: EvidenceKind | None = None  # of suspicion or failure; tells what ends it
    key: str | None = None  # fingerprint of the write key and its endpoint, no secret
    accepted_at: datetime | None = None  # latest request that was taken
    proven_at: datetime | None = None  # latest proof that it worked
    proven_by: EvidenceKind | None = None  # what proved it
    first_used_at: datetime | None = None  # where it was never proven, the loss window counts from here
    rewind_from: datetime | None = None  # what was acknowledged since has no proof
    doubted_at: datetime | None = None  # first of the settings endpoint's denials in a row
    suspected_at: datetime | None = None  # since when they are suspicion, which an open refusal does not end
    good_answers: int = 0  # of the settings endpoint, in a row since the suspicion
    uncounted_at: datetime | None = None  # first time that nothing of what was acknowledged had been counted
    keys_seen_with: str | None = None  # fingerprint of the Public API's token that showed the source's keys
    probed_at: datetime | None = None  # when probes were last asked
    recovered_at: datetime | None = None  # end of the latest incident whose backlog is not caught up yet
    sent_before: int = 0  # events sent in all, when it ended
    sent_in_vain: int = 0  # events acknowledged in the latest incident, or just before, that were sent again for it


@dataclass(frozen=True, slots=True)
class Rewound:
    """What went back to be sent again."""

    objects: int = 0
    events: int = 0  # that had been acknowledged
    letters: int = 0  # dead letters whose replay had been acknowledged; dead letters again


@dataclass(frozen=True, slots=True)
class Waiting:
    """What waits to be delivered: pending, claimed and failed objects."""

    objects: int = 0
    size_bytes: int = 0
    events: int = 0  # of those whose events were counted already, as rewound ones
    oldest_at: datetime | None = None  # last_modified of the oldest one


@dataclass(frozen=True, slots=True)
class Undelivered:
    """Objects of one event type that are neither delivered nor quarantined nor worked on."""

    event_type: str
    waiting: int  # pending and failed
    excluded: int


@dataclass(frozen=True, slots=True)
class TypeActivity:
    """When files of one event type came."""

    event_type: str
    latest_hour: datetime
    active_hours: int  # hours with files, of those that were asked for


@dataclass(frozen=True, slots=True)
class ExpiryRule:
    """A lifecycle rule of the bucket that deletes objects."""

    prefix: str  # of the keys that it holds for
    days: int | None = None  # after which S3 deletes an object, at the next midnight UTC
    on: datetime | None = None  # date on which S3 deletes, where the rule names one


@dataclass(frozen=True, slots=True)
class ConnectorTotals:
    """What the ledger holds of one connector."""

    objects: dict[ObjectState, int]  # each state, also at 0
    books: Books
    waiting: Waiting
    credentials: Mapping[Side, Credential]  # both sides
    rewound: Rewound  # in all
    notices: Sequence[Notice]
    progress: Progress
    unproven_events: int = 0  # that Segment acknowledged since the last proof that the write key works
    failed_reasons: dict[str, int] = field(default_factory=dict)  # reason -> objects, failed and quarantined
    expiry_rules: Sequence[ExpiryRule] = ()  # lifecycle rules that may delete the connector's objects, as last read


class AlertPhase(StrEnum):
    """Why an alert is told."""

    OPENED = "opened"
    REPEATED = "repeated"
    RESOLVED = "resolved"


@dataclass(frozen=True, slots=True)
class Alert:
    """One thing that is wrong; `connector`, `kind` and `subject` say which."""

    connector: str
    kind: str  # alerting.AlertKind
    subject: str  # "" where there is only one of the kind
    severity: str  # info, warning or critical
    since: datetime
    what: str  # what is wrong, one sentence
    waits: str  # how much waits, "" where nothing does
    todo: str  # what to do
    told_at: datetime | None = None  # when it was last put out; None: it opens silently, only its end is told


@dataclass(frozen=True, slots=True)
class AlertMessage:
    """One telling of an alert, the same for every channel."""

    phase: AlertPhase
    alert: Alert
    at: datetime


@dataclass(frozen=True, slots=True)
class Decision:
    """What a look at the open alerts changes, for `AlertBook.save`."""

    opened: Sequence[Alert]  # new ones, and known ones that have new words or were told again
    resolved: Sequence[Alert]
    messages: Sequence[AlertMessage]


@dataclass(frozen=True, slots=True)
class QueuedMessage:
    """A message that one channel has not taken yet."""

    id: int
    channel: str  # fingerprint of the channel's address, no secret
    message: AlertMessage
    attempts: int
