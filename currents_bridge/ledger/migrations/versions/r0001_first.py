"""The first tables: objects, hours, dead letters, notices, connectors, owners."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    op.create_table(
        "objects",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("connector", sa.Text, nullable=False),
        sa.Column("key", sa.Text, nullable=False),
        sa.Column("etag", sa.Text, nullable=False),
        sa.Column("size_bytes", sa.Integer, nullable=False),
        sa.Column("last_modified", sa.DateTime, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("hour", sa.Text, nullable=False),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False, server_default="0"),
        sa.Column("retry_at", sa.DateTime),
        sa.Column("owner", sa.Text),
        sa.Column("reason", sa.Text),
        *_books(),
        sa.Column("admitted_at", sa.DateTime, nullable=False),
        sa.Column("settled_at", sa.DateTime),
        sa.UniqueConstraint("connector", "key"),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "objects_not_delivered",
        "objects",
        ["connector", "hour", "event_type", "state", "last_modified"],
        sqlite_where=sa.text("state <> 'delivered'"),
    )
    op.create_index(
        "objects_delivered",
        "objects",
        ["connector", "hour", "event_type"],
        sqlite_where=sa.text("state = 'delivered'"),
    )
    op.create_index("objects_owned", "objects", ["owner"], sqlite_where=sa.text("owner IS NOT NULL"))
    op.create_table(
        "hours",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("hour", sa.Text, primary_key=True),
        sa.Column("event_type", sa.Text, primary_key=True),
        sa.Column("objects", sa.Integer, nullable=False),
        *_books(),
        sa.Column("digests", sa.LargeBinary),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("connector", sa.Text, nullable=False),
        sa.Column("object_key", sa.Text, nullable=False),
        sa.Column("row", sa.Integer, nullable=False),
        sa.Column("event_type", sa.Text, nullable=False),
        sa.Column("message_id", sa.Text, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("event", sa.Text, nullable=False),
        sa.Column("created_at", sa.DateTime, nullable=False),
        sa.UniqueConstraint("connector", "object_key", "row"),
    )
    op.create_table(
        "notices",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("detail", sa.Text, nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("noted_at", sa.DateTime, nullable=False),
    )
    op.create_table(
        "connectors",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("polled_at", sa.DateTime),
        sa.Column("swept_at", sa.DateTime),
        sa.Column("started_at", sa.DateTime),
        sa.Column("credential_state", sa.Text),
        sa.Column("credential_since", sa.DateTime),
        sa.Column("credential_evidence", sa.Text),
    )
    op.create_table(
        "owners",
        sa.Column("id", sa.Text, primary_key=True),
        sa.Column("host", sa.Text, nullable=False),
        sa.Column("pid", sa.Integer, nullable=False),
        sa.Column("started_s", sa.Float, nullable=False),
        sa.Column("heartbeat_at", sa.DateTime, nullable=False),
    )


def _books() -> list[sa.Column[int]]:
    names = ("read", "sent", "skipped_anonymous", "deduplicated", "dead_lettered")
    return [sa.Column(name, sa.Integer, nullable=False, server_default="0") for name in names]
