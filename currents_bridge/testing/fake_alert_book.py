"""An alert book in memory: SqlAlertBook must answer as this does."""

import threading
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from currents_bridge.model import Alert, AlertMessage, QueuedMessage

KEPT = timedelta(days=7)


class FakeAlertBook:
    """Alerts and queued messages, to be looked at by tests; fulfils `ports.AlertBook`."""

    def __init__(self) -> None:
        self.alerts: dict[tuple[str, str, str], Alert] = {}
        self.queued: dict[int, tuple[QueuedMessage, datetime]] = {}  # id -> message, when it is due
        self._last_id = 0
        self._lock = threading.Lock()

    def open_alerts(self) -> list[Alert]:
        """Return the open alerts by age."""
        with self._lock:
            return [alert for _, alert in sorted(self.alerts.items(), key=lambda item: (item[1].since, item[0]))]

    def save(
        self,
        opened: Sequence[Alert],
        resolved: Sequence[Alert],
        messages: Sequence[AlertMessage],
        channels: Sequence[str],
    ) -> None:
        """Keep, drop and queue."""
        with self._lock:
            for alert in resolved:
                self.alerts.pop((alert.connector, alert.kind, alert.subject), None)
            self.alerts.update({(alert.connector, alert.kind, alert.subject): alert for alert in opened})
            for message in messages:
                for channel in channels:
                    self._last_id += 1
                    self.queued[self._last_id] = QueuedMessage(self._last_id, channel, message, 0), message.at

    def due(self, now: datetime) -> list[QueuedMessage]:
        """Drop what is too old, then return what is due."""
        with self._lock:
            self.queued = {id_: kept for id_, kept in self.queued.items() if kept[0].message.at >= now - KEPT}
            return [queued for queued, due_at in self.queued.values() if due_at <= now]

    def taken(self, id_: int) -> None:
        """Drop a message."""
        with self._lock:
            self.queued.pop(id_, None)

    def postpone(self, id_: int, until: datetime) -> None:
        """Move the time of a message."""
        with self._lock:
            if id_ in self.queued:
                queued, _ = self.queued[id_]
                self.queued[id_] = replace(queued, attempts=queued.attempts + 1), until
