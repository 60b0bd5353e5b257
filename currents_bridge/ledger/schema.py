"""The tables of the ledger, as they are after the newest migration, and what every query of them shares."""

from collections.abc import Callable, Iterator
from dataclasses import fields
from datetime import UTC, datetime, timedelta

from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    Dialect,
    Float,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    text,
)
from sqlalchemy.types import UserDefinedType

from currents_bridge.ledger.bulk import among
from currents_bridge.model import Books, Credential, Selection, format_hour
from currents_bridge.text import MAX_REASON_CHARS, words

MAX_EVENT_CHARS = 128 * 1024  # Braze drops events over 900 KB, Segment takes 32 KB


class UtcTime(UserDefinedType[datetime]):
    """An aware time, kept as UTC without its zone because SQLite has no type for one.

    The text is that of SQLAlchemy's DateTime, which takes three times as long to write and to read it.
    """

    cache_ok = True

    def get_col_spec(self, **_: object) -> str:  # noqa: D102
        return "DATETIME"

    def bind_processor(self, dialect: Dialect) -> Callable[[datetime | None], str | None]:  # noqa: ARG002, D102
        return lambda time: None if time is None else time_text(time)

    def result_processor(self, dialect: Dialect, coltype: object) -> Callable[[str | None], datetime | None]:  # noqa: ARG002, D102
        return lambda text: None if text is None else datetime.fromisoformat(f"{text}+00:00")


def time_text(time: datetime) -> str:
    """Return an aware time as the tables hold it; such texts sort as the times do."""
    return time.astimezone(UTC).isoformat(" ", "microseconds")[:26]


class Words(UserDefinedType[str]):
    """What is said of something, which may quote a hostile file or answer: kept as `words` leaves it."""

    cache_ok = True

    def __init__(self, max_chars: int) -> None:
        self.max_chars = max_chars

    def get_col_spec(self, **_: object) -> str:  # noqa: D102
        return "TEXT"

    def bind_processor(self, dialect: Dialect) -> Callable[[str | None], str | None]:  # noqa: ARG002, D102
        return lambda text: None if text is None else words(text, self.max_chars)


BOOKS = tuple(field.name for field in fields(Books))


def _books() -> list[Column[int]]:
    return [Column(name, Integer, nullable=False, server_default="0") for name in BOOKS]


# SQLite uses a partial index only for a query that repeats its condition word for word, so these are shared.
DELIVERED = text("state = 'delivered'")
NOT_DELIVERED = text("state <> 'delivered'")
QUARANTINED = text("state = 'quarantined'")
READ_QUARANTINED = text("state = 'quarantined' AND read > 0")
PENDING = text("state = 'pending' AND resender IS NULL")
PENDING_RESENT = text("state = 'pending' AND resender IS NOT NULL")
FAILED = text("state = 'failed'")  # of anybody
OWNED = text("owner IS NOT NULL")
RESENT = text("resender IS NOT NULL")
BEGUN = text("checkpoint_rows > 0")
CANARIES = text("canary_at IS NOT NULL")
NOT_SENT = text("sent_at IS NULL")  # dead letters; of the others, a rewind may want some back
SENT = text("sent_at IS NOT NULL")

REVISION = "0005"  # of the newest migration, which makes these tables

metadata = MetaData()

objects = Table(
    "objects",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("connector", Text, nullable=False),
    Column("key", Text, nullable=False),
    Column("etag", Text, nullable=False),
    Column("size_bytes", Integer, nullable=False),
    Column("last_modified", UtcTime, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("hour", Text, nullable=False),  # as model.format_hour writes it
    Column("state", Text, nullable=False),  # model.ObjectState
    Column("attempts", Integer, nullable=False, server_default="0"),  # that failed
    Column("retry_at", UtcTime),
    Column("owner", Text),  # owners.id of the claim; not a foreign key, since an owner may vanish before its claims
    Column("reason", Words(MAX_REASON_CHARS)),  # of the latest failure or of the quarantine
    Column("cause", Words(MAX_REASON_CHARS)),  # words.cause_of the reason; `reasons` counts by it
    Column("crashes", Integer, nullable=False, server_default="0"),  # of its owners, one after the other
    Column("trial_row", Integer, nullable=False, server_default="0"),  # where the latest trial stands, or ended
    Column("checkpoint_rows", Integer, nullable=False, server_default="0"),  # 0 once delivered or quarantined
    *_books(),  # of what was delivered, could be read before the quarantine, or stands before the checkpoint
    Column("admitted_at", UtcTime, nullable=False),
    Column("settled_at", UtcTime),
    Column("rewinds", Integer, nullable=False, server_default="0"),
    Column("rewound_events", Integer, nullable=False, server_default="0"),  # known to wait; 0 once settled again
    Column("restarted_at", UtcTime),  # whole second from which it is delivered again, its books from none
    Column("resend", Boolean, nullable=False, server_default="0"),  # then also what was remembered before is sent
    Column("resender", Text),  # owners.id of the backfill that sends it again: left to that one while it lives
    Column("summed", Boolean, nullable=False, server_default="0"),  # its hour's sums hold its earlier, folded delivery
    Column("canary_at", UtcTime),  # when it last went ahead of all others, to see whether a side works
    UniqueConstraint("connector", "key"),
    sqlite_autoincrement=True,  # a settlement that comes too late must never meet a new claim under an old id
)
_SLOT = ("connector", "hour", "event_type")
# Each object is in one of these two.
Index("objects_not_delivered", *(objects.c[name] for name in _SLOT), sqlite_where=NOT_DELIVERED)
Index("objects_delivered", *(objects.c[name] for name in _SLOT), sqlite_where=DELIVERED)
# The lanes of ledger_claims: each holds nothing but what may be next, in its order.
Index("objects_pending", *(objects.c[name] for name in (*_SLOT, "key")), sqlite_where=PENDING)
Index("objects_pending_resent", *(objects.c[name] for name in (*_SLOT, "key")), sqlite_where=PENDING_RESENT)
Index("objects_failed", objects.c.connector, objects.c.retry_at, sqlite_where=FAILED)
# The oldest of a state.
Index(
    "objects_by_age", *(objects.c[name] for name in ("connector", "state", "last_modified")), sqlite_where=NOT_DELIVERED
)
# Together, these find all that a rewind takes back.
Index("objects_delivered_by_age", objects.c.connector, objects.c.settled_at, sqlite_where=DELIVERED)
Index("objects_quarantined", objects.c.connector, objects.c.settled_at, sqlite_where=QUARANTINED)
Index("objects_quarantined_read", *(objects.c[name] for name in _SLOT), sqlite_where=READ_QUARANTINED)
Index("objects_begun", objects.c.connector, sqlite_where=BEGUN)
Index("objects_canaries", objects.c.connector, objects.c.hour, objects.c.event_type, sqlite_where=CANARIES)
Index("objects_resent", objects.c.connector, objects.c.resender, sqlite_where=RESENT)
Index("objects_owned", objects.c.connector, objects.c.owner, sqlite_where=OWNED)

# What was delivered, by hour and type. Folding deletes rows of `objects` and leaves these sums alone.
hours = Table(
    "hours",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("hour", Text, primary_key=True),
    Column("event_type", Text, primary_key=True),
    Column("objects", Integer, nullable=False),  # all delivered ones, folded or not; so are the books
    *_books(),
    Column("fold", Integer),  # folds.id of the folded ones
    sqlite_with_rowid=False,
)

# What there is, by event type and state; triggers keep it in step with `objects` and `hours`, see migration 0005.
totals = Table(
    "totals",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("event_type", Text, primary_key=True),
    Column("state", Text, primary_key=True),  # model.ObjectState
    Column("objects", Integer, nullable=False),
    Column("size_bytes", Integer, nullable=False),  # none of delivered ones, as `hours` has none; so the next
    Column("rewound_events", Integer, nullable=False),
    *_books(),  # of delivered and quarantined objects; none of others, which are not at their end
    sqlite_with_rowid=False,
)

# Why objects failed or were quarantined; kept by the same triggers.
reasons = Table(
    "reasons",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("cause", Text, primary_key=True),
    Column("objects", Integer, nullable=False),  # one at least
    sqlite_with_rowid=False,
)

# What the ledger still knows of folded objects, see ledger_digests. A fold has a row for each few digests, because
# SQLite moves what is longer than a quarter of a page to pages that it shares with nothing.
folds = Table(
    "folds",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True),  # from 0
    Column("digests", LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

# Holds no id of an object, since a letter outlives the row of its object.
dead_letters = Table(
    "dead_letters",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("connector", Text, nullable=False),
    Column("object_key", Text, nullable=False),
    Column("row", Integer, nullable=False),
    Column("hour", Text, nullable=False),
    Column("event_type", Text, nullable=False),
    Column("message_id", Words(MAX_REASON_CHARS), nullable=False),
    Column("reason", Words(MAX_REASON_CHARS), nullable=False),
    Column("event", Words(MAX_EVENT_CHARS), nullable=False),
    Column("message", Words(MAX_EVENT_CHARS), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),  # replays that were refused
    Column("created_at", UtcTime, nullable=False),
    Column("sent_at", UtcTime),  # acknowledged replay; the row is kept for a rewind until it is folded away
    UniqueConstraint("connector", "object_key", "row"),
    sqlite_autoincrement=True,  # a replay that comes too late must never meet a new letter under an old id
)
Index("dead_letters_by_age", dead_letters.c.connector, dead_letters.c.created_at, sqlite_where=NOT_SENT)
Index("dead_letters_sent", dead_letters.c.connector, dead_letters.c.sent_at, sqlite_where=SENT)

# What was sent and settled, for connectors that remember it; `ledger_memory` forgets it again.
sent_messages = Table(
    "sent_messages",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("digest", LargeBinary, primary_key=True),  # of the message id
    Column("settled_s", Integer, nullable=False),  # whole seconds of Unix time, as there may be millions of rows
    Column("sender", Integer),  # ledger_memory.sender of the object's key; null of an older version
    sqlite_with_rowid=False,
)
Index("sent_messages_by_age", sent_messages.c.connector, sent_messages.c.settled_s)

notices = Table(
    "notices",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("kind", Text, primary_key=True),  # model.NoticeKind
    Column("subject", Words(MAX_REASON_CHARS), primary_key=True),
    Column("detail", Words(MAX_REASON_CHARS), nullable=False),
    Column("count", Integer, nullable=False),
    Column("noted_at", UtcTime, nullable=False),  # first
    Column("met_at", UtcTime),  # last; null of an older version
)

connectors = Table(
    "connectors",
    metadata,
    Column("name", Text, primary_key=True),
    Column("polled_at", UtcTime),
    Column("audited_at", UtcTime),
    Column("started_at", UtcTime),
    Column("looked_at", UtcTime),
    Column("poll_error", Text),
    Column("findings", Text),  # a JSON object
    Column("expiry_rules", Text),  # model.ExpiryRule, as a JSON list
    Column("rewound_objects", Integer, nullable=False, server_default="0"),  # in all; so are the next two
    Column("rewound_events", Integer, nullable=False, server_default="0"),
    Column("rewound_letters", Integer, nullable=False, server_default="0"),
)

# What discovery has listed whole, see coverage.py.
coverage = Table(
    "coverage",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("place", Text, primary_key=True),  # endpoint and bucket
    Column("folder", Text, primary_key=True),  # of one integration's event type, ends in '/'
    Column("since", Text),  # hour; null: all
    Column("until", UtcTime, nullable=False),
    Column("reader", Integer, nullable=False),  # keys.READER of who listed it
    sqlite_with_rowid=False,
)

CREDENTIAL = tuple(field.name for field in fields(Credential))

# One column for each field of model.Credential.
credentials = Table(
    "credentials",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("side", Text, primary_key=True),  # errors.Side
    Column("state", Text, nullable=False),  # model.CredentialState, never expired
    Column("since", UtcTime),
    Column("evidence", Words(MAX_REASON_CHARS)),
    Column("hint", Words(MAX_REASON_CHARS)),
    Column("cause", Text),  # model.EvidenceKind
    Column("key", Text),  # a fingerprint
    Column("accepted_at", UtcTime),
    Column("proven_at", UtcTime),
    Column("proven_by", Text),  # model.EvidenceKind
    Column("first_used_at", UtcTime),
    Column("rewind_from", UtcTime),
    Column("doubted_at", UtcTime),
    Column("suspected_at", UtcTime),
    Column("good_answers", Integer, nullable=False, server_default="0"),
    Column("uncounted_at", UtcTime),
    Column("keys_seen_with", Text),  # a fingerprint
    Column("probed_at", UtcTime),
    Column("recovered_at", UtcTime),
    Column("sent_before", Integer, nullable=False, server_default="0"),
    Column("sent_in_vain", Integer, nullable=False, server_default="0"),
)

# What Segment acknowledged in each minute (since 1970) and is not proven yet; see model.Acknowledged.
acknowledged = Table(
    "acknowledged",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("minute", Integer, primary_key=True),
    Column("at", UtcTime, nullable=False),
    Column("first", Integer, nullable=False),
    Column("again", Integer, nullable=False),
    sqlite_with_rowid=False,
)

# The message of each connector that Segment acknowledged last: sent once more, it proves that the destination works.
canary_messages = Table(
    "canary_messages",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("message_id", Text, nullable=False),
    Column("message", Text, nullable=False),
    Column("acknowledged_at", UtcTime, nullable=False),
)

# Jobs whose latest run failed; a run that ends well deletes its row.
jobs = Table(
    "jobs",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("job", Text, primary_key=True),
    Column("failures", Integer, nullable=False),  # in a row
    Column("since", UtcTime, nullable=False),
    Column("error", Text, nullable=False),
)

alerts = Table(
    "alerts",
    metadata,
    Column("connector", Text, primary_key=True),
    Column("kind", Text, primary_key=True),
    Column("subject", Text, primary_key=True),
    Column("since", UtcTime, nullable=False),
    Column("alert", Text, nullable=False),  # model.Alert as JSON
)

alert_messages = Table(
    "alert_messages",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("channel", Text, nullable=False),  # a fingerprint
    Column("message", Text, nullable=False),  # model.AlertMessage as JSON
    Column("queued_at", UtcTime, nullable=False),
    Column("due_at", UtcTime, nullable=False),
    Column("attempts", Integer, nullable=False, server_default="0"),
    sqlite_autoincrement=True,  # an answer that comes too late must never meet a new message under an old id
)

owners = Table(
    "owners",
    metadata,
    Column("id", Text, primary_key=True),
    Column("host", Text, nullable=False),
    Column("pid", Integer, nullable=False),
    Column("started_s", Float, nullable=False),  # since the boot of its host
    Column("heartbeat_at", UtcTime, nullable=False),
)


def hour_from(time: datetime) -> str:
    """Return the first whole hour at or after `time`, as the tables hold it."""
    return format_hour(time + timedelta(hours=1, microseconds=-1))


def selected(table: Table, connector: str, selection: Selection) -> Iterator[ColumnElement[bool]]:
    """Yield the conditions of a selection on a table with connector, hour and event type."""
    yield table.c.connector == connector
    yield among(table.c.event_type, sorted(selection.event_types))
    if selection.first_hour is not None:
        yield table.c.hour >= hour_from(selection.first_hour)
    if selection.end_hour is not None:
        yield table.c.hour < hour_from(selection.end_hour)
