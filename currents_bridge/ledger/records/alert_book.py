"""Open alerts and messages that no channel has taken yet, in the file of the ledger: the port `AlertBook`."""

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta

from pydantic import TypeAdapter
from sqlalchemy import Connection, bindparam, delete, select, update
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.due import LONGEST_WAIT
from currents_bridge.ledger.database import SqliteStore
from currents_bridge.ledger.schema import alert_messages, alerts
from currents_bridge.model import Alert, AlertMessage, Decision, QueuedMessage

KEPT = timedelta(days=7)  # for a message that its channel does not take, as where the channel is no longer there

_NEWEST_FIRST = alert_messages.c.id.desc()
_ALERT = TypeAdapter(Alert)
_MESSAGE = TypeAdapter(AlertMessage)


class SqlAlertBook:
    """The alerts in a ledger's file; fulfils `ports.AlertBook`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def open_alerts(self) -> list[Alert]:
        """Return the open alerts by age."""
        with self._store.reading() as connection:
            return _open_alerts(connection)

    def revise(self, decide: Callable[[Sequence[Alert]], Decision], channels: Sequence[str]) -> Decision:
        """Decide in the transaction that keeps it; where nothing is to be kept, as nearly always, none is needed."""
        decision = decide(self.open_alerts())
        if not (decision.opened or decision.resolved or decision.messages):
            return decision
        with self._store.writing() as connection:
            decision = decide(_open_alerts(connection))
            _save(connection, decision, channels)
        return decision

    def waiting(self, now: datetime) -> set[str]:
        """Look at the first message of each channel."""
        with self._store.reading() as connection:
            rows = connection.execute(select(alert_messages.c.channel, alert_messages.c.due_at).order_by(_NEWEST_FIRST))
            first = {row.channel: row.due_at for row in rows}  # the last one stays
        return {channel for channel, due_at in first.items() if _is_due(due_at, now)}

    def claim(self, channel: str, now: datetime, until: datetime) -> QueuedMessage | None:
        """Put off the first message, so that nobody else takes it meanwhile."""
        of_channel = select(alert_messages).where(alert_messages.c.channel == channel).order_by(alert_messages.c.id)
        with self._store.writing() as connection:
            connection.execute(delete(alert_messages).where(alert_messages.c.queued_at < now - KEPT))
            row = connection.execute(of_channel.limit(1)).one_or_none()
            if row is None or not _is_due(row.due_at, now):
                return None
            it = alert_messages.c.id == row.id
            connection.execute(update(alert_messages).where(it).values(due_at=until))
        return QueuedMessage(row.id, row.channel, _MESSAGE.validate_json(row.message), row.attempts)

    def taken(self, id_: int) -> None:
        """Delete a message."""
        with self._store.writing() as connection:
            connection.execute(delete(alert_messages).where(alert_messages.c.id == id_))

    def postpone(self, id_: int, until: datetime) -> None:
        """Move the time of a message."""
        later = {"due_at": until, "attempts": alert_messages.c.attempts + 1}
        with self._store.writing() as connection:
            connection.execute(update(alert_messages).where(alert_messages.c.id == id_).values(later))


def _is_due(due_at: datetime, now: datetime) -> bool:
    """What lies farther ahead than any message is put off is of a clock that ran ahead."""
    return due_at <= now or due_at > now + 2 * LONGEST_WAIT


def _open_alerts(connection: Connection) -> list[Alert]:
    oldest = select(alerts.c.alert).order_by(alerts.c.since, alerts.c.connector, alerts.c.kind, alerts.c.subject)
    return [_ALERT.validate_json(alert) for alert in connection.execute(oldest).scalars()]


def _save(connection: Connection, decision: Decision, channels: Sequence[str]) -> None:
    names = ("of_connector", "of_kind", "of_subject")
    ended = delete(alerts).where(
        *(alerts.c[name.removeprefix("of_")] == bindparam(name) for name in names),
    )
    keep = insert(alerts)
    new = {name: keep.excluded[name] for name in ("since", "alert")}
    if gone := [(alert.connector, alert.kind, alert.subject) for alert in decision.resolved]:
        connection.execute(ended, [dict(zip(names, name, strict=True)) for name in gone])
    if decision.opened:
        rows = [
            {"connector": alert.connector, "kind": alert.kind, "subject": alert.subject}
            | {"since": alert.since, "alert": _ALERT.dump_json(alert).decode()}
            for alert in decision.opened
        ]
        connection.execute(keep.on_conflict_do_update(set_=new), rows)
    queued = [
        {"channel": channel, "message": _MESSAGE.dump_json(message).decode()}
        | {"queued_at": message.at, "due_at": message.at}
        for message in decision.messages
        for channel in channels
    ]
    if queued:
        connection.execute(insert(alert_messages), queued)
