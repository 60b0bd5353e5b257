"""Objects that were written again after they were recorded: they take the new ETag, and start as new."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, func, null, select, text, update

from currents_bridge.ledger.bulk import among, execute_many
from currents_bridge.ledger.records.rewind import take_from_hours
from currents_bridge.ledger.schema import BOOKS, DELIVERED, dead_letters, objects, sent_messages, time_text
from currents_bridge.ledger.work.seen_ids import restart_at
from currents_bridge.model import ObjectState

AS_NEW = (
    update(objects)
    .where(objects.c.connector == bindparam("of_connector"), objects.c.key == bindparam("of_key"))
    .values(
        {"state": text(f"'{ObjectState.PENDING}'")}
        | dict.fromkeys(("attempts", "crashes", "checkpoint_rows", "rewound_events", *BOOKS), text("0"))
        | dict.fromkeys(("retry_at", "reason", "settled_at"), null())
    )
)
_FORGET_LETTERS = delete(dead_letters).where(
    dead_letters.c.connector == bindparam("of_connector"), dead_letters.c.object_key == bindparam("of_key")
)


def retake(connection: Connection, connector: str, recorded: Sequence[Mapping[str, Any]], now: datetime) -> None:
    """Make objects that are not delivered as new; `recorded` are their columns as they are listed now."""
    if recorded:
        named = [{"of_connector": connector, "of_key": columns["key"]} for columns in recorded]
        connection.execute(_FORGET_LETTERS, named)
        keys = [columns["key"] for columns in recorded]
        before = select(objects.c.key, objects.c.restarted_at).where(
            objects.c.connector == connector, objects.c.key.in_(keys)
        )
        at = {key: time_text(restart_at(now, restarted_at)) for key, restarted_at in connection.execute(before)}
        rows = [
            {**name, "restarted_at": at[name["of_key"]], **columns}
            for name, columns in zip(named, recorded, strict=True)
        ]
        execute_many(connection, AS_NEW, rows)


def redeliver(
    connection: Connection, connector: str, recorded: Mapping[str, Mapping[str, Any]], since: datetime, now: datetime
) -> set[str]:
    """Take back those of the delivered objects (by key, a few hundred) that were settled since; returns their keys."""
    oldest_s = connection.execute(
        select(func.min(sent_messages.c.settled_s)).where(sent_messages.c.connector == connector)
    ).scalar()
    if oldest_s is None:
        return set()
    since = max(since, datetime.fromtimestamp(oldest_s, UTC))
    which = (DELIVERED, objects.c.connector == connector, among(objects.c.key, recorded), objects.c.settled_at >= since)
    keys = set(connection.execute(select(objects.c.key).where(*which)).scalars())
    take_from_hours(connection, connector, *which)
    retake(connection, connector, [recorded[key] for key in sorted(keys)], now)
    return keys
