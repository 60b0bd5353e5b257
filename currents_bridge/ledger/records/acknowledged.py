"""What Segment acknowledged and no probe has proven yet, by the minute: what is counted, and what a dead key costs."""

from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, func, select
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.ledger.schema import acknowledged
from currents_bridge.model import Acknowledged

_STEP = timedelta(minutes=1)


def add(connection: Connection, connector: str, events: Acknowledged) -> None:
    """Add to the minute's counts; the time of a minute is that of the last acknowledgement in it."""
    minute = int(events.at.timestamp() // _STEP.total_seconds())
    row = insert(acknowledged).values(
        connector=connector, minute=minute, at=events.at, first=events.first, again=events.again
    )
    summed = {name: acknowledged.c[name] + row.excluded[name] for name in ("first", "again")}
    at = func.max(acknowledged.c.at, row.excluded.at)
    connection.execute(row.on_conflict_do_update(set_=summed | {"at": at}))


def read(connection: Connection, connector: str) -> list[Acknowledged]:
    """Return what is not proven, in order of time."""
    rows = select(acknowledged.c.at, acknowledged.c.first, acknowledged.c.again).where(
        acknowledged.c.connector == connector
    )
    return [Acknowledged(*row) for row in connection.execute(rows.order_by(acknowledged.c.minute))]


def count(connection: Connection, connector: str) -> int:
    """Return how many events are not proven."""
    events = func.sum(acknowledged.c.first + acknowledged.c.again)
    return connection.scalar(select(events).where(acknowledged.c.connector == connector)) or 0


def forget(connection: Connection, connector: str, until: datetime | None) -> None:
    """Forget what was acknowledged until a time; None: all."""
    old = () if until is None else (acknowledged.c.at <= until,)
    connection.execute(delete(acknowledged).where(acknowledged.c.connector == connector, *old))
