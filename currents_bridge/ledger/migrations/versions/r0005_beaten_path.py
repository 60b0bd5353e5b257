"""What finds everything new and lets poison cost itself only."""

import sqlalchemy as sa
from alembic import op

from currents_bridge.text import cause_of

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    _coverage()
    _canaries()
    _jobs()
    _resends()
    _notices()
    _trials()
    _credentials()
    _claims()
    _totals()


def _coverage() -> None:
    # Without rows, so every folder is listed whole once: what an older version overlooked is found by that.
    op.create_table(
        "coverage",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("place", sa.Text, primary_key=True),
        sa.Column("folder", sa.Text, primary_key=True),
        sa.Column("since", sa.Text),
        sa.Column("until", sa.DateTime, nullable=False),
        sa.Column("reader", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )
    op.add_column("connectors", sa.Column("audited_at", sa.DateTime))
    op.add_column("connectors", sa.Column("looked_at", sa.DateTime))
    op.add_column("connectors", sa.Column("poll_error", sa.Text))
    op.add_column("connectors", sa.Column("findings", sa.Text))
    op.drop_column("connectors", "swept_at")


def _canaries() -> None:
    op.add_column("objects", sa.Column("canary_at", sa.DATETIME))
    tried = sa.text("canary_at IS NOT NULL")
    op.create_index("objects_canaries", "objects", ["connector", "hour", "event_type"], sqlite_where=tried)
    op.create_table(
        "canary_messages",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("acknowledged_at", sa.DATETIME, nullable=False),
    )


def _jobs() -> None:
    op.create_table(
        "jobs",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("job", sa.Text, primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("since", sa.DATETIME, nullable=False),
        sa.Column("error", sa.Text, nullable=False),
    )


def _notices() -> None:
    # These were kept for each key; the next whole look says again what holds of them, by reason or event type.
    op.execute("DELETE FROM notices WHERE kind IN ('unrecognised_key', 'object_changed')")
    op.add_column("notices", sa.Column("met_at", sa.DATETIME))


def _resends() -> None:
    op.add_column("objects", sa.Column("restarted_at", sa.DATETIME))
    op.add_column("objects", sa.Column("resend", sa.Boolean, nullable=False, server_default="0"))
    op.add_column("objects", sa.Column("resender", sa.Text))
    op.add_column("objects", sa.Column("summed", sa.Boolean, nullable=False, server_default="0"))
    op.create_index(
        "objects_resent", "objects", ["connector", "resender"], sqlite_where=sa.text("resender IS NOT NULL")
    )
    op.add_column("sent_messages", sa.Column("sender", sa.Integer))


def _trials() -> None:
    op.add_column("objects", sa.Column("trial_row", sa.Integer, nullable=False, server_default="0"))


def _credentials() -> None:
    for name in ("suspected_at", "uncounted_at", "probed_at"):
        op.add_column("credentials", sa.Column(name, sa.DATETIME))
    op.add_column("credentials", sa.Column("good_answers", sa.Integer, nullable=False, server_default="0"))
    op.add_column("credentials", sa.Column("sent_in_vain", sa.Integer, nullable=False, server_default="0"))
    for name in ("keys_seen_with", "proven_by"):
        op.add_column("credentials", sa.Column(name, sa.Text))
    op.execute("UPDATE credentials SET suspected_at = since WHERE state = 'suspect'")
    op.create_table(
        "acknowledged",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("minute", sa.Integer, primary_key=True),
        sa.Column("at", sa.DATETIME, nullable=False),
        sa.Column("first", sa.Integer, nullable=False),
        sa.Column("again", sa.Integer, nullable=False),
        sqlite_with_rowid=False,
    )


def _claims() -> None:
    op.drop_index("objects_not_delivered")
    slot = ["connector", "hour", "event_type"]
    lane = [*slot, "key"]
    for name, columns, condition in (
        ("objects_not_delivered", slot, "state <> 'delivered'"),
        ("objects_pending", lane, "state = 'pending' AND resender IS NULL"),
        ("objects_pending_resent", lane, "state = 'pending' AND resender IS NOT NULL"),
        ("objects_failed", ["connector", "retry_at"], "state = 'failed'"),
        ("objects_by_age", ["connector", "state", "last_modified"], "state <> 'delivered'"),
        ("objects_quarantined_read", slot, "state = 'quarantined' AND read > 0"),
    ):
        op.create_index(name, "objects", columns, sqlite_where=sa.text(condition))


BOOKS = ("read", "sent", "skipped_anonymous", "deduplicated", "dead_lettered")
COUNTS = ("objects", "size_bytes", "rewound_events", *BOOKS)


def _totals() -> None:
    """Make the totals, and the triggers that keep them, so that no change of an object or an hour can go past them."""
    for name, key, counts in (
        ("totals", ("connector", "event_type", "state"), COUNTS),
        ("reasons", ("connector", "cause"), ("objects",)),
    ):
        op.create_table(
            name,
            *(sa.Column(column, sa.Text, primary_key=True) for column in key),
            *(sa.Column(column, sa.Integer, nullable=False) for column in counts),
            sqlite_with_rowid=False,
        )
    op.add_column("objects", sa.Column("cause", sa.Text))
    _fill_causes()
    for add, table in ((_add_object, "objects"), (_add_cause, "objects"), (_add_hour, "hours")):
        op.execute(add("NEW", 1, f"FROM {table} AS NEW"))
    object_out, object_in = ([_add_object(*row), _add_cause(*row)] for row in (("OLD", -1), ("NEW", 1)))
    drop_cause = "DELETE FROM reasons WHERE connector = OLD.connector AND cause = OLD.cause AND objects = 0"
    counted = ", ".join(("connector", "event_type", "state", "size_bytes", "rewound_events", "cause", *BOOKS))
    _trigger("objects_in", "INSERT ON objects", object_in)
    _trigger("objects_out", "DELETE ON objects", [*object_out, drop_cause])
    _trigger("objects_change", f"UPDATE OF {counted} ON objects", [*object_out, *object_in, drop_cause])
    hour_out, hour_in = _add_hour("OLD", -1), _add_hour("NEW", 1)
    _trigger("hours_in", "INSERT ON hours", [hour_in])
    _trigger("hours_out", "DELETE ON hours", [hour_out])
    _trigger("hours_change", f"UPDATE OF {', '.join(('objects', *BOOKS))} ON hours", [hour_out, hour_in])


def _fill_causes() -> None:
    connection = op.get_bind()
    troubled = sa.text("SELECT DISTINCT reason FROM objects WHERE state IN ('failed', 'quarantined')")
    causes = [{"reason": reason, "cause": cause_of(reason)} for (reason,) in connection.execute(troubled) if reason]
    if causes:
        op.execute("CREATE TEMP TABLE causes (reason TEXT PRIMARY KEY, cause TEXT)")
        connection.execute(sa.text("INSERT INTO causes VALUES (:reason, :cause)"), causes)
        op.execute(
            "UPDATE objects SET cause = (SELECT causes.cause FROM causes WHERE causes.reason = objects.reason) "
            "WHERE state IN ('failed', 'quarantined')"
        )
        op.execute("DROP TABLE causes")


def _trigger(name: str, event: str, statements: list[str]) -> None:
    op.execute(f"CREATE TRIGGER {name} AFTER {event} BEGIN {'; '.join(statements)}; END")


def _add_object(row: str, factor: int, source: str = "") -> str:
    """Return what adds an object to its totals, or takes it out: its books only where it is quarantined."""
    books = (f"({row}.state = 'quarantined') * {row}.{name}" for name in BOOKS)
    counts = ["1", f"{row}.size_bytes", f"{row}.rewound_events", *books]
    values = [f"{row}.{name}" for name in ("connector", "event_type", "state")] + [f"{factor} * {n}" for n in counts]
    return _add("totals", values, COUNTS, f"{source} WHERE {row}.state <> 'delivered'")


def _add_hour(row: str, factor: int, source: str = "") -> str:
    """Return what adds an hour's delivered objects and their books to the totals, or takes them out."""
    counts = [f"{row}.objects", "0", "0", *(f"{row}.{name}" for name in BOOKS)]
    values = [f"{row}.connector", f"{row}.event_type", "'delivered'", *(f"{factor} * {count}" for count in counts)]
    return _add("totals", values, COUNTS, f"{source} WHERE true")


def _add_cause(row: str, factor: int, source: str = "") -> str:
    """Return what counts the cause of an object that failed or is quarantined, or counts it no longer."""
    troubled = f"{row}.state IN ('failed', 'quarantined') AND {row}.cause IS NOT NULL"
    values = [f"{row}.connector", f"{row}.cause", f"{factor}"]
    return _add("reasons", values, ("objects",), f"{source} WHERE {troubled}")


def _add(table: str, values: list[str], counts: tuple[str, ...], source: str) -> str:
    added = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in counts)
    return f"INSERT INTO {table} SELECT {', '.join(values)} {source} ON CONFLICT DO UPDATE SET {added}"
