import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

import pytest
from structlog.testing import capture_logs

from currents_bridge.alerts.rules import Health
from currents_bridge.alerts.service import Alerts, Outcome
from currents_bridge.errors import RetryLaterError
from currents_bridge.model import AlertMessage, AlertPhase, Decision, Notice, NoticeKind
from currents_bridge.ports import AlertBook
from tests.alert_workbench import HOUR, LIMITS, MINUTE, NOW, REPEAT, failing, health, make_alert
from tests.fake_time import FakeTime
from tests.ledgers import LedgerOnFile

NEWS = Notice(NoticeKind.SCHEMA_DRIFT, "a.B", since=NOW)


@dataclass
class FakeChannel:
    """A channel that takes messages, unless it is told not to."""

    name: str = "chat"
    fingerprint: str = "f1"
    works: bool = True
    told: list[str] = field(default_factory=list)
    tries: int = 0

    def tell(self, message: AlertMessage) -> None:
        """Remember the message."""
        self.tries += 1
        if not self.works:
            raise RetryLaterError(f"{self.name} answered 503")
        self.told.append(f"{message.phase} {message.alert.kind}")


def make_alerts(
    *channels: FakeChannel, book: AlertBook | None = None, ping: Callable[[], None] | None = None
) -> Alerts:
    """Return alerts with the usual limits."""
    return Alerts(book=book or LedgerOnFile().alert_book(), channels=channels, limits=LIMITS, repeat=REPEAT, ping=ping)


def tell(alerts: Alerts, now: datetime, *, quarantined: int = 0, dead: bool = False) -> None:
    """Look at a connector and post what is due."""
    alerts.look([health(now=now, quarantined=quarantined, destination=failing(NOW) if dead else None)], now)
    alerts.post(now)


def test_an_incident_is_told_from_its_beginning_to_its_end() -> None:
    """To every channel: the failure, the thresholds of its window, its repetitions, one recovery."""
    chat, mail = FakeChannel(), FakeChannel("mail", "f2")
    alerts = make_alerts(chat, mail)

    for hours in range(61):
        tell(alerts, NOW + hours * HOUR, dead=hours < 60)

    failing_ = "credential_failing"
    assert chat.told == [
        f"opened {failing_}",
        *(f"repeated {failing_}", "opened loss_window"),  # 12 h, 25 %
        *(f"repeated {failing_}", "opened loss_window"),  # 24 h, 50 %
        *(f"repeated {failing_}", "opened loss_window"),  # 36 h, 75 %
        "opened loss_window",  # 44 h, 90 %
        *(f"repeated {failing_}", "opened loss_window_ended"),  # 48 h
        f"resolved {failing_}",
    ]
    assert mail.told == chat.told
    assert alerts.open() == []


def test_a_restart_neither_repeats_nor_forgets() -> None:
    """What is open and what was not told yet is in the book."""
    book, chat = LedgerOnFile().alert_book(), FakeChannel()
    make_alerts(chat, book=book).look([health(quarantined=1)], NOW)

    after = make_alerts(chat, book=book)
    tell(after, NOW + HOUR, quarantined=1)
    tell(after, NOW + 2 * HOUR)

    assert chat.told == ["opened quarantined", "resolved quarantined"]


def test_a_channel_that_takes_messages_slowly_does_not_hold_up_the_rest_for_long() -> None:
    """Other channels, the heartbeat and the stop wait until all have ended; it gets what is left the next time."""
    time, book = FakeTime(), LedgerOnFile().alert_book()

    class SlowChannel(FakeChannel):
        def tell(self, message: AlertMessage) -> None:
            time.sleep(15)
            super().tell(message)

    chat = SlowChannel()
    alerts = Alerts(book=book, channels=[chat], limits=LIMITS, repeat=REPEAT, clock=time.clock)
    opened = [AlertMessage(AlertPhase.OPENED, make_alert(subject=str(number)), NOW) for number in range(5)]
    book.revise(lambda _: Decision([], [], opened), [chat.fingerprint])

    alerts.post(NOW)
    assert len(chat.told) == 2
    alerts.post(NOW)
    assert len(chat.told) == 4


def test_a_channel_that_fails_is_tried_again_in_order_and_holds_up_no_other() -> None:
    """After one minute, then two, then four, at most five; what came later waits for it."""
    mail, chat = FakeChannel("mail", "f2", works=False), FakeChannel()
    alerts = make_alerts(mail, chat)

    tell(alerts, NOW, quarantined=1)
    tried: dict[int, int] = {}  # the tries so far, and the minute they were reached in
    for minutes in range(1, 25):
        tell(alerts, NOW + minutes * MINUTE)
        tried.setdefault(mail.tries, minutes)
    assert list(tried.values()) == [1, 1 + 2, 3 + 4, 7 + 5, 12 + 5, 17 + 5]
    assert chat.told == ["opened quarantined", "resolved quarantined"]
    assert mail.told == []

    mail.works = True
    tell(alerts, NOW + 30 * MINUTE)
    assert mail.told == chat.told


def test_a_channel_that_fails_is_named_in_the_log() -> None:
    """With its reason and the time of the next attempt."""
    with capture_logs() as lines:
        tell(make_alerts(FakeChannel(works=False)), NOW, quarantined=1)
    assert lines[-1] == {
        "event": "alert_not_taken",
        "log_level": "warning",
        "channel": "chat",
        "error": "chat answered 503",
        "retry_at": NOW + MINUTE,
    }


def test_channels_are_told_at_the_same_time() -> None:
    """So that a slow one does not delay the others."""
    both_are_there = threading.Barrier(2, timeout=5)

    class SlowChannel(FakeChannel):
        def tell(self, message: AlertMessage) -> None:
            both_are_there.wait()
            super().tell(message)

    channels = SlowChannel(), SlowChannel("mail", "f2")
    tell(make_alerts(*channels), NOW, quarantined=1)
    assert [channel.told for channel in channels] == [["opened quarantined"]] * 2


def test_messages_for_a_channel_that_is_gone_are_left_to_the_book() -> None:
    """It drops them after a week."""
    book = LedgerOnFile().alert_book()
    make_alerts(FakeChannel(), book=book).look([health(quarantined=1)], NOW)
    other = FakeChannel("mail", "f2")
    make_alerts(other, book=book).post(NOW)
    assert (other.tries, book.waiting(NOW)) == (0, {FakeChannel().fingerprint})


def test_alerts_of_connectors_that_were_not_looked_at_stay() -> None:
    """Another process may watch them."""
    book = LedgerOnFile().alert_book()
    book.revise(lambda _: Decision([make_alert(connector="other")], [], []), [])
    make_alerts(book=book).look([health()], NOW)
    assert [alert.connector for alert in book.open_alerts()] == ["other"]


def test_what_is_told_is_logged_even_without_any_channel() -> None:
    """Logs are read, too."""
    with capture_logs() as lines:
        tell(make_alerts(), NOW, quarantined=1)
    (line,) = lines
    assert (line["event"], line["phase"], line["kind"]) == ("alert_told", "opened", "quarantined")
    assert line["log_level"] == "warning"


@pytest.mark.parametrize(
    ("of", "healthy", "pings"),
    [
        (health(), True, 1),
        (health(notices=[NEWS]), True, 1),
        (health(quarantined=1), True, 1),
        (health(destination=failing(NOW)), True, 0),
        (health(), False, 0),
        (None, True, 0),
    ],
    ids=["well", "news", "warning", "critical", "unhealthy", "never looked"],
)
def test_the_heartbeat_says_that_jobs_end_well(of: Health | None, healthy: bool, pings: int) -> None:  # noqa: FBT001
    """What was set aside has alerts, and does not stop it; a credential that keeps events from arriving does."""
    pinged: list[None] = []
    alerts = make_alerts(ping=lambda: pinged.append(None))
    if of:
        alerts.look([of], NOW)
    alerts.heartbeat(healthy=healthy)
    assert len(pinged) == pings


def test_a_heartbeat_that_is_not_taken_is_logged_only() -> None:
    """The watchdog will bark by itself."""

    def ping() -> None:
        raise RetryLaterError("alerts.heartbeat_url answered 500")

    alerts = make_alerts(ping=ping)
    alerts.look([health()], NOW)
    with capture_logs() as lines:
        alerts.heartbeat(healthy=True)
    assert lines[0]["error"] == "alerts.heartbeat_url answered 500"


def test_a_test_message_goes_to_each_channel_at_once() -> None:
    """And nothing of it is kept."""
    book, chat, mail = LedgerOnFile().alert_book(), FakeChannel(), FakeChannel("mail", "f2", works=False)
    outcomes = make_alerts(chat, mail, book=book).test(NOW)
    assert outcomes == [Outcome("chat", None), Outcome("mail", "mail answered 503")]
    assert chat.told == ["opened test"]
    assert (book.open_alerts(), book.waiting(NOW)) == ([], set())


def test_two_processes_on_one_ledger_tell_each_alert_once() -> None:
    """Whichever looks first; and each message is posted by one of them."""
    ledger = LedgerOnFile()
    channels = FakeChannel(), FakeChannel()
    first, second = (make_alerts(channel, book=ledger.alert_book()) for channel in channels)
    for alerts in (first, second):
        alerts.look([health(quarantined=1)], NOW)
    for alerts in (second, first):
        alerts.post(NOW)
    assert [channel.told for channel in channels] == [[], ["opened quarantined"]]


def test_a_message_on_its_way_is_left_alone_by_another_process() -> None:
    """A channel may take a while; only who has died in it is succeeded, minutes later."""
    book, other_chat = LedgerOnFile().alert_book(), FakeChannel()
    other = make_alerts(other_chat, book=book)

    class SlowChannel(FakeChannel):
        def tell(self, message: AlertMessage) -> None:
            other.post(NOW + MINUTE)
            super().tell(message)

    chat = SlowChannel()
    tell(make_alerts(chat, book=book), NOW, quarantined=1)

    assert (chat.told, other_chat.told) == (["opened quarantined"], [])


def test_a_webhook_that_was_away_for_long_is_told_within_minutes() -> None:
    """What waits may be critical."""
    chat = FakeChannel(works=False)
    alerts = make_alerts(chat)
    for minute in range(40):
        tell(alerts, NOW + minute * MINUTE, quarantined=1)
    chat.works = True
    for minute in range(40, 46):
        tell(alerts, NOW + minute * MINUTE, quarantined=1)
    assert chat.told == ["opened quarantined"]
