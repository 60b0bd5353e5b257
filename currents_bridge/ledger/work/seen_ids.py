"""The memory of what was sent: digests of message ids, for connectors that leave out repeats across groups."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import TYPE_CHECKING

from sqlalchemy import ColumnElement, Connection, delete, select, tuple_
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.ledger.bulk import execute_many
from currents_bridge.ledger.schema import sent_messages
from currents_bridge.model import ClaimedObject, Known

if TYPE_CHECKING:
    import polars as pl

_DIGEST_BYTES = 16  # of a billion ids, two share a digest with a chance of 10^-21
_CHUNKS_IDS = (100, 2_000)  # in one query, filled up to one of these, so that there are two queries to keep
FORGOTTEN_AT_ONCE = 20_000  # in one transaction: well under a second, in which no other writer gets in

_add = insert(sent_messages)
_REMEMBER = _add.on_conflict_do_update(set_={name: _add.excluded[name] for name in ("settled_s", "sender")})


def sender(key: str) -> int:
    """Return what tells objects apart as senders; 32 bits, since it only matters among those that hold one event."""
    return int.from_bytes(blake2b(key.encode(), digest_size=4).digest(), signed=True)


@dataclass(frozen=True, slots=True)
class Sent:
    """What an object sent, and when it was restarted."""

    connector: str
    key: str
    message_ids: Sequence[str]
    restarted_at: datetime | None = None


def remember(connection: Connection, sent: Iterable[Sent], now: datetime) -> None:
    """Keep the message ids; one that is already kept becomes the new sender's.

    The time is `now`, and never before that of the object's restart, whose second may not be over yet.
    """
    rows = [
        {
            "connector": one.connector,
            "digest": digest,
            "settled_s": int(max(now, one.restarted_at or now).timestamp()),
            "sender": sender(one.key),
        }
        for one in sent
        for digest in sorted(_digests(one.message_ids))  # in the order of the table, which is a third faster
    ]
    execute_many(connection, _REMEMBER, rows)


def restart_at(now: datetime, before: datetime | None = None) -> datetime:
    """Return when an object is restarted that was so `before`: a whole second after all that was remembered until now.

    What is sent from now on does not lie before it: `remember` sees to that.
    """
    this_second = now.replace(microsecond=0)
    return max(this_second, before or this_second) + timedelta(seconds=1)


def lookup(connection: Connection, connector: str, of: ClaimedObject, message_ids: "pl.Series") -> Known:
    """Return what is remembered of an object's message ids."""
    import polars as pl  # noqa: PLC0415 - who has message ids has it already; `status` does without

    digests = _digests(message_ids.to_list())
    own, restarted_s = sender(of.object.key), int(of.restarted_at.timestamp()) if of.restarted_at else 0
    before: set[bytes] = set()
    repeats: set[bytes] = set()
    few, many = _CHUNKS_IDS
    for start in range(0, len(digests), many):
        chunk = digests[start : start + many]
        chunk += chunk[-1:] * ((few if len(chunk) <= few else many) - len(chunk))
        of_chunk = sent_messages.c.digest.in_(chunk)
        found = select(sent_messages.c.digest, sent_messages.c.settled_s, sent_messages.c.sender).where(
            sent_messages.c.connector == connector, of_chunk
        )
        for digest, settled_s, by in connection.execute(found):
            if settled_s >= restarted_s:
                repeats.add(digest)
            elif not of.resend:
                (before if by == own else repeats).add(digest)
    return Known(*(pl.Series([digest in known for digest in digests], dtype=pl.Boolean) for known in (before, repeats)))


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


def _digests(message_ids: Sequence[str]) -> list[bytes]:
    return [blake2b(id_.encode(), digest_size=_DIGEST_BYTES).digest() for id_ in message_ids]
