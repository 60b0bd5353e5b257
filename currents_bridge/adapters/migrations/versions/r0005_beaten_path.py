"""What finds everything new and lets poison cost itself only."""

import sqlalchemy as sa
from alembic import op

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


def _resends() -> None:
    op.add_column("objects", sa.Column("restarted_at", sa.DATETIME))
    op.add_column("objects", sa.Column("resend", sa.Boolean, nullable=False, server_default="0"))
    op.add_column("objects", sa.Column("resender", sa.Text))
    op.add_column("objects", sa.Column("summed", sa.Boolean, nullable=False, server_default="0"))
    op.create_index("objects_resent", "objects", ["resender"], sqlite_where=sa.text("resender IS NOT NULL"))
    op.drop_index("objects_not_delivered")
    waiting = ["connector", "hour", "event_type", "state", "last_modified", "size_bytes", "rewound_events", "resender"]
    op.create_index("objects_not_delivered", "objects", waiting, sqlite_where=sa.text("state <> 'delivered'"))
    op.add_column("sent_messages", sa.Column("sender", sa.Integer))


def _trials() -> None:
    op.add_column("objects", sa.Column("trial_row", sa.Integer, nullable=False, server_default="0"))


def _credentials() -> None:
    for name in ("suspected_at", "uncounted_at", "probed_at"):
        op.add_column("credentials", sa.Column(name, sa.DATETIME))
    op.add_column("credentials", sa.Column("good_answers", sa.Integer, nullable=False, server_default="0"))
    op.add_column("credentials", sa.Column("keys_seen_with", sa.Text))
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
