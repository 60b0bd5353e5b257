"""What a settlement writes: the object's row, the sums of its hour, its dead letters, what was sent."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from sqlalchemy import Connection, Row, bindparam, case, exists, func, null, or_, select, text, update
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.ledger.bulk import among, as_json, execute_many
from currents_bridge.ledger.records import letters
from currents_bridge.ledger.schema import BOOKS, dead_letters, hours, objects, reasons, time_text
from currents_bridge.ledger.work import seen_ids
from currents_bridge.model import Books, Checkpoint, Delivered, Failed, ObjectState, Quarantined, Settlement
from currents_bridge.text import cause_of, words

if TYPE_CHECKING:
    import polars as pl

MOST_CAUSES = 100  # of one connector; what is more has none of its own
OTHER_CAUSES = "for other reasons; `quarantine list` and the log name them"

_books = attrgetter(*BOOKS)

_OF_ROW = ("id", "connector", "key", "hour", "event_type", "checkpoint_rows", "restarted_at", "summed")
# Made once, since SQLAlchemy takes longer to make a statement than SQLite to execute it.
_OWNED = select(
    *(objects.c[name] for name in _OF_ROW),
    exists()
    .where(dead_letters.c.connector == objects.c.connector, dead_letters.c.object_key == objects.c.key)
    .label("has_letters"),
).where(among(objects.c.id, bindparam("ids")), objects.c.owner == bindparam("of_owner"))
_NONE = text("0")
_SETTLED: dict[str, Any] = {"owner": null(), "crashes": _NONE}
_ENDED = _SETTLED | {"retry_at": null(), "checkpoint_rows": _NONE, "rewound_events": _NONE}
_ENDED |= {"resend": _NONE, "resender": null(), "summed": _NONE}
_OF_OBJECT = update(objects).where(objects.c.id == bindparam("of_id"))
_DELIVER = _OF_OBJECT.values(_ENDED | {"state": text(f"'{ObjectState.DELIVERED}'"), "reason": null()})
_of_connector = reasons.c.connector == objects.c.connector
_CAUSE = case(
    (
        or_(
            exists().where(_of_connector, reasons.c.cause == bindparam("the_cause")),
            select(func.count()).select_from(reasons).where(_of_connector).scalar_subquery() < text(str(MOST_CAUSES)),
        ),
        bindparam("the_cause"),
    ),
    else_=text(f"'{OTHER_CAUSES}'"),
)
_QUARANTINE = _OF_OBJECT.values(_ENDED | {"state": text(f"'{ObjectState.QUARANTINED}'"), "cause": _CAUSE})
_FAIL = _OF_OBJECT.values(
    _SETTLED | {"state": text(f"'{ObjectState.FAILED}'"), "attempts": objects.c.attempts + text("1"), "cause": _CAUSE}
)
_SPARE = _OF_OBJECT.where(text(f"state = '{ObjectState.FAILED}'")).values(
    attempts=text("attempts - 1"),
    state=text(f"CASE WHEN attempts > 1 THEN '{ObjectState.FAILED}' ELSE '{ObjectState.PENDING}' END"),
)
_ADVANCE = _OF_OBJECT.values(crashes=_NONE)
_add = insert(hours)
_ADD_TO_HOURS = _add.on_conflict_do_update(
    set_={name: hours.c[name] + _add.excluded[name] for name in ("objects", *BOOKS)}
)


def owned(connection: Connection, ids: Sequence[int], owner: str) -> dict[int, Row[*tuple[Any, ...]]]:
    """Return those of the objects that the owner has claimed, by id, with what the functions below ask of a row."""
    return {row.id: row for row in connection.execute(_OWNED, {"ids": as_json(ids), "of_owner": owner})}


def write(connection: Connection, settled: Sequence[tuple[Row[Any], Settlement]], now: datetime) -> None:
    """Write at least one settlement; each comes with the row of its object, which the caller owns."""
    ended = [(row, settlement) for row, settlement in settled if not isinstance(settlement, Failed)]
    _write_outcomes(connection, [settlement for _, settlement in settled], now)
    if sums := _sums(ended):
        add_to_hours(connection, sums)
    if ended:
        letters.replace(connection, [(row, settlement.dead_letters) for row, settlement in ended], now)
        remember(connection, [(row, settlement.message_ids) for row, settlement in ended], now)


def spare(connection: Connection, ids: Sequence[int], due: datetime) -> None:
    """Write that failures of objects do not count, once for each time an object is named."""
    execute_many(connection, _SPARE, [{"of_id": id_, "retry_at": time_text(due)} for id_ in ids])


def advance(connection: Connection, id_: int, checkpoint: Checkpoint) -> None:
    """Write how far the object has come."""
    connection.execute(_ADVANCE, {"of_id": id_, "checkpoint_rows": checkpoint.rows} | _columns(checkpoint.books))


def remember(connection: Connection, sent: Iterable[tuple[Row[Any], "pl.Series | None"]], now: datetime) -> None:
    """Remember the message ids that objects, given by their rows, sent; None: the connector remembers none."""
    kept = [
        seen_ids.Sent(row.connector, row.key, message_ids.to_list(), row.restarted_at)
        for row, message_ids in sent
        if message_ids is not None
    ]
    seen_ids.remember(connection, kept, now)


def add_to_hours(connection: Connection, sums: Sequence[dict[str, Any]]) -> None:
    """Add objects and books to those of an hour and type; each of the sums names all columns but the digests."""
    connection.execute(_ADD_TO_HOURS, sums)


def _write_outcomes(connection: Connection, settlements: Sequence[Settlement], now: datetime) -> None:
    """Write the new values of the objects' rows, those of each kind at once."""
    delivered, quarantined, failed = [], [], []
    now_text = time_text(now)
    for settlement in settlements:
        values = {"of_id": settlement.id, "settled_at": now_text}
        match settlement:
            case Delivered(books=books):
                delivered.append(values | _columns(books))
            case Quarantined(reason=reason, books=books):
                quarantined.append(values | _columns(books) | _why(reason))
            case Failed(reason=reason, retry_at=at):
                failed.append(values | _why(reason) | {"retry_at": time_text(at)})
    execute_many(connection, _DELIVER, delivered)
    execute_many(connection, _QUARANTINE, quarantined)
    execute_many(connection, _FAIL, failed)


def _sums(ended: Sequence[tuple[Row[Any], Delivered | Quarantined]]) -> list[dict[str, Any]]:
    """Add up objects and books first: one row for each hour and type of which anything was delivered.

    Of an object whose earlier delivery the sums still hold, they change by what its own row does not say.
    """
    of_slot: dict[tuple[str, str, str], list[tuple[int, ...]]] = defaultdict(list)
    for row, settled in ended:
        delivered = isinstance(settled, Delivered)
        factor = delivered - row.summed
        if delivered or factor:
            books = [factor * count for count in _books(settled.books)] if factor != 1 else _books(settled.books)
            of_slot[row.connector, row.hour, row.event_type].append((int(delivered), *books))
    return [
        {"connector": connector, "hour": hour, "event_type": event_type}
        | dict(zip(("objects", *BOOKS), map(sum, zip(*counts, strict=True)), strict=True))
        for (connector, hour, event_type), counts in of_slot.items()
    ]


def _why(reason: str) -> dict[str, str]:
    return {"reason": words(reason), "the_cause": cause_of(reason)}


def _columns(books: Books) -> dict[str, int]:
    return dict(zip(BOOKS, _books(books), strict=True))  # dataclasses.asdict takes ten times as long
