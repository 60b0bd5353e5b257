"""The memory of what was sent: digests of message ids, for connectors that leave out repeats across groups."""

from collections.abc import Sequence
from datetime import datetime
from hashlib import blake2b
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, delete, select, tuple_
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.adapters.ledger_many import execute_many
from currents_bridge.adapters.ledger_schema import sent_messages

if TYPE_CHECKING:
    import polars as pl

_DIGEST_BYTES = 16  # of a billion ids, two share a digest with a chance of 10^-21
_CHUNK_IDS = 2_000  # in one query; SQLite takes 32,766 parameters
FORGOTTEN_AT_ONCE = 20_000  # in one transaction: well under a second, in which no other writer gets in

_add = insert(sent_messages)
_REMEMBER = _add.on_conflict_do_update(set_={"settled_s": _add.excluded.settled_s})


def remember(connection: Connection, sent: Sequence[tuple[str, "pl.Series | None"]], now: datetime) -> None:
    """Keep the message ids (str) of each connector; the time of one that is already kept becomes `now`."""
    settled_s = int(now.timestamp())
    rows = [
        {"connector": connector, "digest": digest, "settled_s": settled_s}
        for connector, message_ids in sent
        if message_ids is not None
        for digest in sorted(_digests(message_ids))  # in the order of the table, which is a third faster
    ]
    execute_many(connection, _REMEMBER, rows)


def remembered(connection: Connection, connector: str, message_ids: "pl.Series") -> "pl.Series":
    """Return for each message id whether it is kept (bool, same order)."""
    import polars as pl  # noqa: PLC0415 - who has message ids has it already; `status` does without

    digests = _digests(message_ids)
    known: set[bytes] = set()
    for start in range(0, len(digests), _CHUNK_IDS):
        of_chunk = sent_messages.c.digest.in_(digests[start : start + _CHUNK_IDS])
        known.update(
            connection.execute(
                select(sent_messages.c.digest).where(sent_messages.c.connector == connector, of_chunk)
            ).scalars()
        )
    return pl.Series(message_ids.name, [digest in known for digest in digests], dtype=pl.Boolean)


def settled_before(connector: str, before: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return what holds of the message ids that are too old to be kept."""
    return sent_messages.c.connector == connector, sent_messages.c.settled_s < int(before.timestamp())


def settled_since(connector: str, since: datetime) -> tuple[ColumnElement[bool], ...]:
    """Return what holds of the message ids that a rewind forgets; a second is the smallest step."""
    return sent_messages.c.connector == connector, sent_messages.c.settled_s >= int(since.timestamp())


def forget_some(connection: Connection, which: Sequence[ColumnElement[bool]]) -> int:
    """Forget at most FORGOTTEN_AT_ONCE of the message ids of one connector; returns how many."""
    some = select(sent_messages.c.connector, sent_messages.c.digest).where(*which).limit(FORGOTTEN_AT_ONCE)
    key = tuple_(sent_messages.c.connector, sent_messages.c.digest)
    return connection.execute(delete(sent_messages).where(key.in_(some))).rowcount


def _digests(message_ids: "pl.Series") -> list[bytes]:
    return [blake2b(id_.encode(), digest_size=_DIGEST_BYTES).digest() for id_ in message_ids.to_list()]
