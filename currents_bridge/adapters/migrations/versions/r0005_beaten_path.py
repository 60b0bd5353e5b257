"""What finds everything new and lets poison cost itself only."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
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
    op.drop_column("connectors", "swept_at")
