"""Objects that are written again with another ETag: by the state in which that meets them."""

from datetime import timedelta

import pytest

from currents_bridge.alerts.rules import conditions
from currents_bridge.model import Books, Notice, NoticeKind, ObjectState
from currents_bridge.operations import backfill as job
from currents_bridge.operations.health import HealthReader
from currents_bridge.testing.currents_files import object_key
from tests.alert_workbench import LIMITS
from tests.workbench import CLICK, HOUR, NAME, OPEN, UNWELL, Bench, clicks

WEEK = timedelta(days=7)
LATER = timedelta(days=2)  # by then, no poll lists the hour any more


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes."""
    return Bench()


def changed(bench: Bench) -> list[Notice]:
    """Return what is said of objects that changed."""
    return [notice for notice in bench.ledger.totals(NAME).notices if notice.kind is NoticeKind.OBJECT_CHANGED]


def poll(bench: Bench, remember: timedelta | None = None) -> None:
    """Poll without trouble."""
    assert bench.connector(remember=remember).poll().error is None


class TestDelivered:
    """One that was delivered before."""

    def test_it_opens_an_alert_that_names_the_command(self, bench: Bench) -> None:
        """Nothing is sent by itself."""
        bench.put(3)
        poll(bench)
        bench.put(5)
        poll(bench)

        (alert,) = conditions(HealthReader(bench.connector()).read(bench.now), LIMITS)
        assert (alert.kind, alert.subject) == ("object_changed", CLICK)
        assert (
            f"currents-bridge backfill --resend --connector production --event-type '{CLICK}' "
            "--from 2026-01-02T03:00 --to 2026-01-02T04:00"
        ) in alert.what
        assert len(bench.sent_ids()) == 3

    def test_that_command_sends_it_and_ends_the_alert(self, bench: Bench) -> None:
        """What is said of other types stays."""
        bench.put(3)
        bench.put(2, offset=1, event_type=OPEN)
        poll(bench)
        bench.put(5)
        bench.put(3, offset=1, event_type=OPEN)
        poll(bench)
        assert [notice.subject for notice in changed(bench)] == [CLICK, OPEN]

        span = job.parse_span("2026-01-02T03:00", "2026-01-02T04:00")
        job.backfill(bench.connector(), job.select(bench.connector(), span, [CLICK]), resend=True)

        assert [notice.subject for notice in changed(bench)] == [OPEN]
        poll(bench)
        assert [notice.subject for notice in changed(bench)] == [OPEN]

    def test_a_folded_one_opens_the_alert_as_well(self, bench: Bench) -> None:
        """The ledger still knows its ETag; with a memory, too, since its books are not its own any more."""
        bench.put(3)
        poll(bench, WEEK)
        bench.ledger.fold(NAME, HOUR + LATER, bench.now + LATER)
        bench.put(5)
        poll(bench, WEEK)

        assert [notice.count for notice in changed(bench)] == [1]
        assert len(bench.sent_ids()) == 3

    def test_within_the_memory_it_is_delivered_again_by_itself(self, bench: Bench) -> None:
        """Only what is new in it is sent, and nobody has to do anything."""
        events = clicks(5)
        bench.put(events[:3])
        poll(bench, WEEK)
        bench.put(events)
        bench.now += timedelta(hours=1)
        poll(bench, WEEK)

        assert changed(bench) == []
        assert sorted(bench.sent_ids()) == sorted(event["id"] for event in events)
        assert bench.ledger.totals(NAME).books == Books(read=5, sent=5)
        assert bench.states() == {ObjectState.DELIVERED: 1}

    def test_what_it_sent_before_counts_as_sent_however_often_it_is_written(self, bench: Bench) -> None:
        """Three times within one second: each event went once, and none is a repeat of itself."""
        events = clicks(5)
        for count in (2, 3, 5):
            bench.put(events[:count])
            poll(bench, WEEK)

        assert bench.ledger.totals(NAME).books == Books(read=5, sent=5)
        assert sorted(bench.sent_ids()) == sorted(event["id"] for event in events)

    def test_what_another_object_sent_stays_a_repeat(self, bench: Bench) -> None:
        """Also where the file that is written again holds it."""
        events = clicks(3)
        bench.put(events[:1])
        bench.put(events[1:2], offset=1)
        poll(bench, WEEK)
        bench.put(events)
        poll(bench, WEEK)

        assert bench.ledger.totals(NAME).books == Books(read=4, sent=3, deduplicated=1)

    def test_what_was_delivered_before_the_memory_began_is_not(self, bench: Bench) -> None:
        """All of it would be sent twice: before `dedup` was set, nothing was remembered."""
        bench.put(3)
        poll(bench)
        bench.put(2, offset=1)
        bench.now += timedelta(hours=1)
        poll(bench, WEEK)
        bench.put(5)
        poll(bench, WEEK)

        assert [notice.count for notice in changed(bench)] == [1]

    def test_what_was_delivered_longer_ago_than_the_memory_is_not(self, bench: Bench) -> None:
        """Its message ids are forgotten."""
        bench.put(3)
        poll(bench, WEEK)
        bench.put(5)
        bench.now += WEEK + timedelta(hours=1)
        bench.connector(remember=WEEK).audit()

        assert [notice.count for notice in changed(bench)] == [1]

    def test_an_audit_that_finds_it_as_it_was_delivered_ends_the_alert(self, bench: Bench) -> None:
        """Somebody restored the file."""
        bench.put(3)
        poll(bench)
        bench.put(5)
        poll(bench)
        bench.put(3)
        bench.connector().audit()

        assert changed(bench) == []

    def test_with_an_audit_depth_it_ends_once_no_look_met_it_for_as_long(self, bench: Bench) -> None:
        """What lies before the depth is not looked at any more, so that nothing would ever end it."""
        bench.put(3)
        poll(bench)
        bench.put(5)
        poll(bench)
        bench.now += WEEK - timedelta(hours=1)
        bench.connector(audit_depth=timedelta(days=1)).audit()
        assert changed(bench) == []


class TestNotDelivered:
    """One that waits or was set aside takes the new ETag, and starts as new."""

    def test_a_quarantined_one_is_read_again(self, bench: Bench) -> None:
        """A good file replaced a damaged one."""
        bench.put(3, cut_bytes=50)
        poll(bench)
        assert bench.states() == {ObjectState.QUARANTINED: 1}
        bench.put(3)
        poll(bench)

        assert bench.states() == {ObjectState.DELIVERED: 1}
        assert bench.ledger.totals(NAME).books == Books(read=3, sent=3)
        assert changed(bench) == []

    def test_a_failed_one_is_due_at_once(self, bench: Bench) -> None:
        """Whatever its next attempt was put off to."""
        bench.put(3)
        bench.transport.outcomes.extend([UNWELL] * 6)
        bench.deliver()
        assert bench.states() == {ObjectState.FAILED: 1}
        bench.put(4)
        poll(bench)

        assert bench.states() == {ObjectState.DELIVERED: 1}

    def test_one_outside_of_the_hot_window_is_looked_at_when_it_cannot_be_read(self, bench: Bench) -> None:
        """The poll that meets it lists its hour again, and the next one delivers it."""
        bench.put(3)
        bench.transport.down = True
        bench.connector().poll()
        bench.now += LATER
        bench.connector().poll()
        bench.transport.down = False
        bench.put(5)
        bench.now += timedelta(hours=1)

        poll(bench)
        assert bench.states() == {ObjectState.PENDING: 1}
        poll(bench)
        assert bench.states() == {ObjectState.DELIVERED: 1}
        assert len(bench.sent_ids()) == 5

    def test_a_claimed_one_comes_right_after_its_read_failed(self, bench: Bench) -> None:
        """It was written again between claim and read."""
        bench.put(3)
        group = bench.claim()
        bench.put(4)
        bench.admit()
        assert bench.states() == {ObjectState.CLAIMED: 1}
        assert changed(bench) == []

        report = bench.deliver(group)
        assert [item.key for item in report.changed] == [object_key(CLICK, HOUR)]
        poll(bench)

        assert bench.states() == {ObjectState.DELIVERED: 1}
        assert len(bench.sent_ids()) == 4
