"""Both credentials of a connector, rewinds, replays that may have to be taken back, and alerts."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    _make_credentials()
    _make_rewinds()
    _make_alerts()


def _make_credentials() -> None:
    """Give each side a row; what was known to fail until now was the destination."""
    op.create_table(
        "credentials",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("side", sa.Text, primary_key=True),
        sa.Column("state", sa.Text, nullable=False),
        sa.Column("since", sa.DateTime),
        sa.Column("evidence", sa.Text),
        sa.Column("hint", sa.Text),
        sa.Column("cause", sa.Text),
        sa.Column("key", sa.Text),
        sa.Column("accepted_at", sa.DateTime),
        sa.Column("proven_at", sa.DateTime),
        sa.Column("first_used_at", sa.DateTime),
        sa.Column("rewind_from", sa.DateTime),
        sa.Column("doubted_at", sa.DateTime),
        sa.Column("recovered_at", sa.DateTime),
        _count("sent_before"),
    )
    op.execute(
        """
        INSERT INTO credentials (connector, side, state, since, evidence, cause)
        SELECT name, 'destination', 'failing', credential_since, credential_evidence, 'denied'
        FROM connectors WHERE credential_state = 'failing'
        """
    )
    for name in ("credential_state", "credential_since", "credential_evidence"):
        op.drop_column("connectors", name)
    op.add_column("connectors", sa.Column("expiry_rules", sa.Text))


def _make_rewinds() -> None:
    op.add_column("objects", _count("rewinds"))
    op.add_column("objects", _count("rewound_events"))
    for name in ("rewound_objects", "rewound_events", "rewound_letters"):
        op.add_column("connectors", _count(name))
    op.drop_index("objects_not_delivered", "objects")
    op.create_index(
        "objects_not_delivered",
        "objects",
        ["connector", "hour", "event_type", "state", "last_modified", "size_bytes", "rewound_events"],
        sqlite_where=sa.text("state <> 'delivered'"),
    )
    op.drop_index("objects_owned", "objects")
    op.create_index("objects_owned", "objects", ["connector", "owner"], sqlite_where=sa.text("owner IS NOT NULL"))
    op.drop_index("objects_quarantined", "objects")
    for name, condition in (
        ("objects_delivered_by_age", "state = 'delivered'"),
        ("objects_quarantined", "state = 'quarantined'"),
    ):
        op.create_index(name, "objects", ["connector", "settled_at"], sqlite_where=sa.text(condition))
    op.create_index("objects_begun", "objects", ["connector"], sqlite_where=sa.text("checkpoint_rows > 0"))
    op.add_column("dead_letters", sa.Column("sent_at", sa.DateTime))
    for name, column, condition in (
        ("dead_letters_by_age", "created_at", "sent_at IS NULL"),
        ("dead_letters_sent", "sent_at", "sent_at IS NOT NULL"),
    ):
        op.create_index(name, "dead_letters", ["connector", column], sqlite_where=sa.text(condition))


def _make_alerts() -> None:
    op.create_table(
        "alerts",
        sa.Column("connector", sa.Text, primary_key=True),
        sa.Column("kind", sa.Text, primary_key=True),
        sa.Column("subject", sa.Text, primary_key=True),
        sa.Column("since", sa.DateTime, nullable=False),
        sa.Column("alert", sa.Text, nullable=False),
    )
    op.create_table(
        "alert_messages",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("channel", sa.Text, nullable=False),
        sa.Column("message", sa.Text, nullable=False),
        sa.Column("queued_at", sa.DateTime, nullable=False),
        sa.Column("due_at", sa.DateTime, nullable=False),
        _count("attempts"),
        sqlite_autoincrement=True,
    )


def _count(name: str) -> sa.Column[int]:
    return sa.Column(name, sa.Integer, nullable=False, server_default="0")
