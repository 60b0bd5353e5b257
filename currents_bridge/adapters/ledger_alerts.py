"""Open alerts and messages that no channel has taken yet, in the file of the ledger: the port `AlertBook`."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from pydantic import TypeAdapter
from sqlalchemy import bindparam, delete, or_, select, update
from sqlalchemy.dialects.sqlite import insert

from currents_bridge.adapters.ledger_schema import alert_messages, alerts
from currents_bridge.adapters.ledger_store import SqliteStore
from currents_bridge.due import LONGEST_WAIT
from currents_bridge.model import Alert, AlertMessage, QueuedMessage

KEPT = timedelta(days=7)  # for a message that its channel does not take, as where the channel is no longer there

_ALERT = TypeAdapter(Alert)
_MESSAGE = TypeAdapter(AlertMessage)


class SqlAlertBook:
    """The alerts in a ledger's file; fulfils `ports.AlertBook`."""

    def __init__(self, store: SqliteStore) -> None:
        self._store = store

    def open_alerts(self) -> list[Alert]:
        """Return the open alerts by age."""
        oldest = select(alerts.c.alert).order_by(alerts.c.since, alerts.c.connector, alerts.c.kind, alerts.c.subject)
        with self._store.reading() as connection:
            return [_ALERT.validate_json(alert) for alert in connection.execute(oldest).scalars()]

    def save(
        self,
        opened: Sequence[Alert],
        resolved: Sequence[Alert],
        messages: Sequence[AlertMessage],
        channels: Sequence[str],
    ) -> None:
        """Keep, drop and queue in one transaction."""
        ended = delete(alerts).where(
            alerts.c.connector == bindparam("of_connector"),
            alerts.c.kind == bindparam("of_kind"),
            alerts.c.subject == bindparam("of_subject"),
        )
        keep = insert(alerts)
        anew = {name: keep.excluded[name] for name in ("since", "alert")}
        queued = [
            {
                "channel": channel,
                "message": _MESSAGE.dump_json(message).decode(),
                "queued_at": message.at,
                "due_at": message.at,
            }
            for message in messages
            for channel in channels
        ]
        with self._store.writing() as connection:
            if resolved:
                names = [(alert.connector, alert.kind, alert.subject) for alert in resolved]
                connection.execute(
                    ended, [dict(zip(("of_connector", "of_kind", "of_subject"), name, strict=True)) for name in names]
                )
            if opened:
                connection.execute(
                    keep.on_conflict_do_update(set_=anew),
                    [
                        {"connector": alert.connector, "kind": alert.kind, "subject": alert.subject}
                        | {"since": alert.since, "alert": _ALERT.dump_json(alert).decode()}
                        for alert in opened
                    ],
                )
            if queued:
                connection.execute(insert(alert_messages), queued)

    def due(self, now: datetime) -> list[QueuedMessage]:
        """Drop what is too old, then return what is due by id, which is by age."""
        with self._store.writing() as connection:
            connection.execute(delete(alert_messages).where(alert_messages.c.queued_at < now - KEPT))
            # an hour is the longest that a message is put off: what lies farther ahead is of a clock that ran ahead
            came = or_(alert_messages.c.due_at <= now, alert_messages.c.due_at > now + 2 * LONGEST_WAIT)
            due = select(alert_messages).where(came).order_by(alert_messages.c.id)
            return [
                QueuedMessage(row.id, row.channel, _MESSAGE.validate_json(row.message), row.attempts)
                for row in connection.execute(due)
            ]

    def taken(self, id_: int) -> None:
        """Delete a message."""
        with self._store.writing() as connection:
            connection.execute(delete(alert_messages).where(alert_messages.c.id == id_))

    def postpone(self, id_: int, until: datetime) -> None:
        """Move the time of a message."""
        later = {"due_at": until, "attempts": alert_messages.c.attempts + 1}
        with self._store.writing() as connection:
            connection.execute(update(alert_messages).where(alert_messages.c.id == id_).values(later))
