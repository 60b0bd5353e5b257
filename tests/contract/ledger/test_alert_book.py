"""What every alert book promises; ports.AlertBook is the text."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from currents_bridge.ledger.sql_ledger import SqlLedger
from currents_bridge.model import Alert, AlertMessage, AlertPhase, Decision, QueuedMessage
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


def save(
    book: AlertBook,
    opened: Sequence[Alert] = (),
    resolved: Sequence[Alert] = (),
    messages: Sequence[AlertMessage] = (),
    channels: Sequence[str] = (),
) -> None:
    """Decide this, whatever is open."""
    book.revise(lambda _: Decision(opened, resolved, messages), channels)


def claim(book: AlertBook, channel: str = "mail", at: datetime = NOW) -> QueuedMessage:
    """Take the first message of a channel for a minute."""
    claimed = book.claim(channel, at, at + MINUTE)
    assert claimed
    return claimed


class TestAlerts:
    """What is open."""

    def test_the_oldest_comes_first(self, book: AlertBook) -> None:
        """With all that is known of it; a blank book has none."""
        assert book.open_alerts() == []
        save(book, [BACKLOG, DEAD_KEY])
        assert book.open_alerts() == [DEAD_KEY, BACKLOG]

    def test_a_known_one_is_replaced(self, book: AlertBook) -> None:
        """There is one of each connector, kind and subject."""
        others = [replace(DEAD_KEY, connector="beta"), replace(DEAD_KEY, subject="source")]
        save(book, [DEAD_KEY, *others], [], [], [])
        told = replace(DEAD_KEY, told_at=NOW + MINUTE, waits="5 objects")
        save(book, [told], [], [], [])
        assert book.open_alerts() == [told, others[1], others[0]]

    def test_a_resolved_one_is_dropped(self, book: AlertBook) -> None:
        """Whatever is said of it by then; one that is not there is no error."""
        save(book, [DEAD_KEY, BACKLOG], [], [], [])
        save(book, [], [replace(DEAD_KEY, waits="nothing"), replace(BACKLOG, connector="beta")], [], [])
        assert book.open_alerts() == [BACKLOG]


class TestDecisions:
    """One process decides at a time."""

    def test_what_another_process_told_meanwhile_is_not_told_again(self, book: AlertBook) -> None:
        """The decision is made anew on what is open by then."""
        seen: list[list[Alert]] = []

        def decide(known: Sequence[Alert]) -> Decision:
            seen.append(list(known))
            if len(seen) == 1:
                save(book, [DEAD_KEY], [], [OPENED], ["mail"])
            new = [] if DEAD_KEY in known else [DEAD_KEY]
            return Decision(new, [], [OPENED] * len(new))

        assert book.revise(decide, ["mail"]).messages == []
        assert seen == [[], [DEAD_KEY]]
        book.taken(claim(book).id)
        assert book.waiting(NOW) == set()

    def test_a_decision_that_changes_nothing_is_made_once(self, book: AlertBook) -> None:
        """As nearly always; it needs no lock."""
        calls: list[None] = []
        book.revise(lambda _: calls.append(None) or Decision([], [], []), ["mail"])  # type: ignore[func-returns-value]
        assert len(calls) == 1


class TestMessages:
    """What channels have not taken yet."""

    def test_each_channel_gets_each_message(self, book: AlertBook) -> None:
        """In the order of telling."""
        save(book, [DEAD_KEY], [], [OPENED, RESOLVED], ["mail", "sns"])
        assert book.waiting(NOW) == {"mail", "sns"}
        for channel in ("mail", "sns"):
            for message in (OPENED, RESOLVED):
                claimed = claim(book, channel, NOW + MINUTE)
                assert (claimed.channel, claimed.message, claimed.attempts) == (channel, message, 0)
                book.taken(claimed.id)

    def test_one_that_was_taken_is_dropped(self, book: AlertBook) -> None:
        """Once is enough, twice does no harm."""
        save(book, [], [], [OPENED], ["mail", "sns"])
        first = claim(book)
        book.taken(first.id)
        book.taken(first.id)
        assert book.waiting(NOW) == {"sns"}

    def test_one_that_is_claimed_is_nobody_elses(self, book: AlertBook) -> None:
        """Until the time of its claim is over, should its process be gone; later ones wait for it."""
        save(book, [], [], [OPENED, RESOLVED], ["mail"])
        first = claim(book)
        assert book.claim("mail", NOW + MINUTE / 2, NOW + MINUTE) is None
        assert claim(book, at=NOW + MINUTE) == first

    def test_one_that_was_not_taken_waits(self, book: AlertBook) -> None:
        """Before its time nothing of its channel is due, and attempts are counted."""
        save(book, [], [], [OPENED, RESOLVED], ["mail"])
        first = claim(book)
        book.postpone(first.id, NOW + MINUTE)
        assert book.waiting(NOW + MINUTE / 2) == set()
        again = claim(book, at=NOW + MINUTE)
        assert (again.id, again.attempts) == (first.id, 1)

    def test_one_that_nobody_takes_is_dropped_after_a_week(self, book: AlertBook) -> None:
        """As those of a channel that is no longer configured, also while they wait."""
        save(book, [], [], [OPENED], ["gone"])
        week = NOW + timedelta(days=7)
        book.postpone(claim(book, "gone", week).id, week + 2 * MINUTE)
        assert book.claim("gone", week + 3 * MINUTE, week + 4 * MINUTE) is None


def test_alerts_outlive_the_process(tmp_path: Path) -> None:
    """A restart neither repeats nor forgets."""
    url = f"sqlite:///{tmp_path / 'ledger.sqlite3'}"
    ledger = SqlLedger(url, now=NOW)
    save(ledger.alert_book(), [DEAD_KEY], [], [OPENED], ["mail"])
    ledger.close()
    ledger = SqlLedger(url, now=NOW)
    assert ledger.alert_book().open_alerts() == [DEAD_KEY]
    assert claim(ledger.alert_book()) == QueuedMessage(1, "mail", OPENED, 0)
    ledger.close()
