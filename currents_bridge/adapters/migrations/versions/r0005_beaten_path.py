"""What finds everything new and lets poison cost itself only."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Nothing yet."""
