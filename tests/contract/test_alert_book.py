"""What every alert book promises; ports.AlertBook is the text."""

from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from currents_bridge.adapters.ledger import SqlLedger
from currents_bridge.model import Alert, AlertMessage, AlertPhase, QueuedMessage
from currents_bridge.ports import AlertBook
from tests.ledger_workbench import NOW

MINUTE = timedelta(minutes=1)
DEAD_KEY = Alert(
    connector="acme",
    kind="credential_failing",
    subject="destination",
    severity="critical",
    since=NOW - MINUTE,
    what="the write key of “acme” does not work",
    waits="3 objects",
    todo="put a new one into the secret",
    told_at=NOW,
)
BACKLOG = replace(DEAD_KEY, kind="backlog", subject="", since=NOW, told_at=None)
OPENED = AlertMessage(AlertPhase.OPENED, DEAD_KEY, NOW)
RESOLVED = AlertMessage(AlertPhase.RESOLVED, DEAD_KEY, NOW + MINUTE)


def queued(book: AlertBook, after: timedelta = MINUTE) -> list[tuple[str, AlertMessage, int]]:
    """Return channel, message and attempts of what is due by then."""
    return [(item.channel, item.message, item.attempts) for item in book.due(NOW + after)]


class TestAlerts:
    """What is open."""

    def test_the_oldest_comes_first(self, book: AlertBook) -> None:
        """With all that is known of it; a blank book has none."""
        assert book.open_alerts() == []
        book.save([BACKLOG, DEAD_KEY], [], [], [])
        assert book.open_alerts() == [DEAD_KEY, BACKLOG]

    def test_a_known_one_is_replaced(self, book: AlertBook) -> None:
        """There is one of each connector, kind and subject."""
        others = [replace(DEAD_KEY, connector="beta"), replace(DEAD_KEY, subject="source")]
        book.save([DEAD_KEY, *others], [], [], [])
        told = replace(DEAD_KEY, told_at=NOW + MINUTE, waits="5 objects")
        book.save([told], [], [], [])
        assert book.open_alerts() == [told, others[1], others[0]]

    def test_a_resolved_one_is_dropped(self, book: AlertBook) -> None:
        """Whatever is said of it by then; one that is not there is no error."""
        book.save([DEAD_KEY, BACKLOG], [], [], [])
        book.save([], [replace(DEAD_KEY, waits="nothing"), replace(BACKLOG, connector="beta")], [], [])
        assert book.open_alerts() == [BACKLOG]


class TestMessages:
    """What channels have not taken yet."""

    def test_each_channel_gets_each_message(self, book: AlertBook) -> None:
        """In the order of telling."""
        book.save([DEAD_KEY], [], [OPENED, RESOLVED], ["mail", "sns"])
        assert queued(book) == [(of, message, 0) for message in (OPENED, RESOLVED) for of in ("mail", "sns")]

    def test_one_that_was_taken_is_dropped(self, book: AlertBook) -> None:
        """Once is enough, twice does no harm."""
        book.save([], [], [OPENED], ["mail", "sns"])
        first, second = book.due(NOW)
        book.taken(first.id)
        book.taken(first.id)
        assert book.due(NOW) == [second]

    def test_one_that_was_not_taken_waits(self, book: AlertBook) -> None:
        """Behind its time nothing is due, and attempts are counted."""
        book.save([], [], [OPENED], ["mail"])
        (first,) = book.due(NOW)
        book.postpone(first.id, NOW + MINUTE)
        assert queued(book, MINUTE / 2) == []
        assert queued(book) == [("mail", OPENED, 1)]
        book.taken(first.id)
        book.postpone(first.id, NOW)
        assert queued(book) == []

    def test_one_that_nobody_takes_is_dropped_after_a_week(self, book: AlertBook) -> None:
        """As those of a channel that is no longer configured, also while they wait."""
        book.save([], [], [OPENED], ["gone"])
        (first,) = book.due(NOW + timedelta(days=7))
        book.postpone(first.id, NOW + timedelta(days=9))
        assert queued(book, timedelta(days=8)) == []
        assert queued(book, timedelta(days=9)) == []


def test_alerts_outlive_the_process(tmp_path: Path) -> None:
    """A restart neither repeats nor forgets."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    ledger = SqlLedger(url, now=NOW)
    ledger.alert_book().save([DEAD_KEY], [], [OPENED], ["mail"])
    ledger.close()
    ledger = SqlLedger(url, now=NOW)
    assert ledger.alert_book().open_alerts() == [DEAD_KEY]
    assert ledger.alert_book().due(NOW) == [QueuedMessage(1, "mail", OPENED, 0)]
    ledger.close()
