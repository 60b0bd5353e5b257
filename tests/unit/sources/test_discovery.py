"""Discovery: what is found in the bucket, and what becomes of it."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from currents_bridge.errors import CredentialError, RetryLaterError, Side
from currents_bridge.model import Books, Delivered, GroupLimits, ListedObject, NoticeKind, Selection
from currents_bridge.sources import discovery
from currents_bridge.sources.audit import audit
from currents_bridge.sources.coverage import HourRange
from currents_bridge.sources.discovery import EVERYTHING, Discovery, Source, poll
from currents_bridge.testing.fake_store import FakeObjectStore
from tests.bucket import CATALOGUE, CLICK, DAY, HOUR, NOW, OPEN, THIS_HOUR, folder, key
from tests.ledgers import LedgerOnFile


@pytest.fixture
def store() -> FakeObjectStore:
    """An empty bucket."""
    return FakeObjectStore()


@pytest.fixture
def source(store: FakeObjectStore) -> Source:
    """A connector to the bucket that includes every type of the catalogue."""
    return Source(store, LedgerOnFile(), "production", "braze/", lambda seen: CATALOGUE & frozenset(seen), CATALOGUE)


def discover(source: Source, hours: Sequence[HourRange], now: datetime) -> Discovery:
    """Look at these hours of every folder."""
    return discovery.discover(source, lambda _: hours, now, counted=hours)


def found(look: Discovery) -> tuple[int, int, int, int]:
    """Return what a look counted: discovered, listed, changed, unread."""
    return look.discovered, look.listed, look.changed, look.unread


def waiting(source: Source) -> list[str]:
    """Return the keys that the ledger holds as not delivered, in the order in which they are claimed."""
    selection = Selection(frozenset({CLICK, OPEN, "users.new.Thing"}))
    claimed = source.ledger.claim(source.connector, selection, GroupLimits(), NOW)
    source.ledger.release([item.id for item in claimed])
    return [item.object.key for item in claimed]


def deliver_all(source: Source) -> None:
    """Settle everything that waits as delivered."""
    claimed = source.ledger.claim(source.connector, Selection(CATALOGUE), GroupLimits(), NOW)
    source.ledger.settle([Delivered(item.id, Books()) for item in claimed], NOW)


def notices(source: Source) -> dict[tuple[NoticeKind, str], int]:
    """Return the counts of the notices kept of what is odd."""
    kept = source.ledger.totals(source.connector).notices
    return {(n.kind, n.subject): n.count for n in kept if n.kind is not NoticeKind.INTEGRATION}


def integrations(source: Source) -> dict[str, str]:
    """Return the integrations that a notice is kept of, with what it says."""
    kept = source.ledger.totals(source.connector).notices
    return {n.subject: n.detail for n in kept if n.kind is NoticeKind.INTEGRATION}


class TestDiscover:
    """One look at given hours."""

    def test_new_objects_are_admitted_once(self, store: FakeObjectStore, source: Source) -> None:
        """A second look at the same hours finds nothing new."""
        store.put(key(offset=1))
        store.put(key(event_type=OPEN))

        assert found(discover(source, EVERYTHING, NOW)) == (2, 2, 0, 0)
        assert found(discover(source, EVERYTHING, NOW)) == (0, 2, 0, 0)
        assert waiting(source) == [key(offset=1), key(event_type=OPEN)]

    def test_objects_of_several_integrations_are_admitted(self, store: FakeObjectStore, source: Source) -> None:
        """Both integrations under the prefix are read."""
        store.put(key(integration="aaa"))
        store.put(key(integration="bbb"))

        assert discover(source, EVERYTHING, NOW).discovered == 2

    def test_each_integration_is_noted(self, store: FakeObjectStore, source: Source) -> None:
        """One that appears later is noted then; types that are not included count as well."""
        store.put(key())
        store.put(key(event_type=OPEN))
        poll(replace(source, event_types=lambda _: frozenset()), NOW)
        first = "braze/dataexport.prod-01.S3.integration.aaa/"
        assert integrations(source) == {first: "event types: 2"}

        store.put(key(integration="bbb"))
        poll(source, NOW + HOUR)

        second = "braze/dataexport.prod-01.S3.integration.bbb/"
        assert integrations(source) == {first: "event types: 2", second: "event types: 1"}

    def test_a_bucket_that_is_an_integration_itself_has_no_name_to_note(self, store: FakeObjectStore) -> None:
        """Event types at the top of the bucket stand in no folder."""
        store.put("event_type=users.messages.email.Click/x.avro")
        source = Source(store, LedgerOnFile(), "production", "", frozenset, CATALOGUE)

        discover(source, EVERYTHING, NOW)

        assert integrations(source) == {}

    def test_only_the_given_hours_are_listed(self, store: FakeObjectStore, source: Source) -> None:
        """Ranges hold their first hour and not their end."""
        for n in range(5):
            store.put(key(hour=THIS_HOUR - n * HOUR))

        look = discover(source, [(THIS_HOUR - 3 * HOUR, THIS_HOUR - HOUR)], NOW)

        assert look.listed == 2
        assert waiting(source) == [key(hour=THIS_HOUR - 3 * HOUR), key(hour=THIS_HOUR - 2 * HOUR)]

    def test_a_type_that_is_not_included_is_not_listed(self, store: FakeObjectStore, source: Source) -> None:
        """Types of the catalogue that nobody wants cost no request."""
        store.put(key())
        store.put(key(event_type=OPEN))

        look = discover(replace(source, event_types=lambda _: frozenset({CLICK})), EVERYTHING, NOW)

        assert (look.listed, look.seen_types) == (1, CATALOGUE)
        assert store.list_calls == 3  # prefix, integration, clicks

    @pytest.mark.parametrize("included", [True, False])
    def test_an_unknown_type_is_counted_and_admitted_only_where_included(
        self, store: FakeObjectStore, source: Source, *, included: bool
    ) -> None:
        """A type that the catalogue lacks is reported instead of being lost."""
        new = "users.new.Thing"
        for offset in range(3):
            store.put(key(event_type=new, offset=offset))

        look = discover(replace(source, event_types=lambda seen: frozenset(seen if included else ())), EVERYTHING, NOW)

        assert (look.discovered, look.seen_types) == (3 if included else 0, frozenset({new}))
        assert notices(source) == {(NoticeKind.UNKNOWN_EVENT_TYPE, new): 3}

    def test_hours_without_an_unknown_type_keep_its_count(self, store: FakeObjectStore, source: Source) -> None:
        """A later look that meets no such object does not bring the count to 0."""
        store.put(key(event_type="users.new.Thing"))

        discover(source, EVERYTHING, NOW)
        discover(source, [(THIS_HOUR + HOUR, None)], NOW)

        assert notices(source) == {(NoticeKind.UNKNOWN_EVENT_TYPE, "users.new.Thing"): 1}

    def test_keys_that_are_not_understood_are_reported(self, store: FakeObjectStore, source: Source) -> None:
        """By reason; their neighbours are admitted. What is plainly something else is told, but not as odd."""
        for name in ["braze/notes.txt", key().replace(".avro", ".parquet"), key()]:
            store.put(name)

        assert found(discover(source, EVERYTHING, NOW)) == (1, 1, 0, 1)
        assert notices(source) == {(NoticeKind.UNREAD_KEYS, "ending"): 1, (NoticeKind.UNREAD_KEYS, "not_currents"): 1}

    def test_many_odd_keys_are_one_notice(self, store: FakeObjectStore, source: Source) -> None:
        """All are counted; the notice names one."""
        for n in range(2_500):
            store.put(f"{folder()}date=2024-03-09-17/{n:04}.avro")

        assert discover(source, EVERYTHING, NOW).unread == 2_500
        assert notices(source) == {(NoticeKind.UNREAD_KEYS, "file_name"): 2_500}

    def test_what_is_gone_is_said_no_longer_after_a_whole_look(self, store: FakeObjectStore, source: Source) -> None:
        """Odd keys, unknown types and integrations; a look at the newest hours only leaves them."""
        odd = [key(integration="bbb").replace(".avro", ".json"), key(event_type="users.new.Thing", integration="bbb")]
        for name in [key(), *odd]:
            store.put(name)
        poll(source, NOW)
        for name in odd:
            store.delete(name)

        poll(source, NOW + DAY)
        assert len(notices(source)) == 2
        assert len(integrations(source)) == 1
        audit(source, NOW + DAY)

        assert notices(source) == {}

    def test_an_object_that_changed_after_delivery_is_reported(self, store: FakeObjectStore, source: Source) -> None:
        """Another ETag is a notice, never a second delivery."""
        store.put(key(), b"first")
        discover(source, EVERYTHING, NOW)
        deliver_all(source)
        store.put(key(), b"second")

        assert found(discover(source, EVERYTHING, NOW)) == (0, 1, 1, 0)
        assert notices(source) == {(NoticeKind.OBJECT_CHANGED, CLICK): 1}
        assert waiting(source) == []

    def test_more_objects_than_a_page_are_admitted(self, store: FakeObjectStore, source: Source) -> None:
        """Admission page by page leaves nothing out."""
        for offset in range(2_001):
            store.put(key(offset=offset))

        assert discover(source, EVERYTHING, NOW).discovered == 2_001

    def test_a_folder_whose_listing_fails_costs_itself(self, store: FakeObjectStore, source: Source) -> None:
        """What the other listings found stays admitted."""
        store.put(key())
        store.put(key(event_type=OPEN))
        store.faults[folder(CLICK)] = RetryLaterError("slow down")

        look = discover(source, EVERYTHING, NOW)

        assert str(look.problem) == f"the folder {folder(CLICK)} could not be listed: slow down"
        assert look.covered == {folder(OPEN)}
        assert waiting(source) == [key(event_type=OPEN)]

    def test_a_folder_or_key_that_is_listed_twice_counts_once(self, store: FakeObjectStore, source: Source) -> None:
        """Some servers repeat what stands at the end of a page."""
        store.put(key())

        class Repeating(FakeObjectStore):
            def folders(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
                folders, objects = store.folders(prefix)
                return folders * 2, objects

            def list(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
                for item in store.list(prefix, start_after):
                    yield from (item, item)

        assert found(discover(replace(source, store=Repeating()), EVERYTHING, NOW)) == (1, 1, 0, 0)


class TestDeniedFolder:
    """One folder that may not be listed, beside others that may."""

    @pytest.fixture(autouse=True)
    def _denied(self, store: FakeObjectStore) -> None:
        store.put(key())
        store.put(key(integration="bbb"))

    @pytest.mark.parametrize(
        "denied", [folder(), folder().partition("event_type=")[0]], ids=["event type", "integration"]
    )
    def test_the_rest_is_delivered_and_the_folder_is_noted(
        self, store: FakeObjectStore, source: Source, denied: str
    ) -> None:
        """A poll succeeds, but is not complete: the loss is shown until the folder may be listed."""
        store.faults[denied] = CredentialError(Side.SOURCE, "denied", "grant it")

        look = poll(source, NOW)

        assert (look.discovered, list(look.denied), look.problem) == (1, [denied], None)
        progress = source.ledger.progress(source.connector)
        assert (progress.polled_at, progress.looked_at, progress.poll_error) == (NOW, NOW, "denied")
        assert notices(source) == {(NoticeKind.FOLDER_DENIED, denied): 1}

    def test_once_it_may_be_listed_it_is_listed_whole_and_the_notice_goes(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """What is covered of it did not move meanwhile."""
        store.faults[folder()] = CredentialError(Side.SOURCE, "denied", "grant it")
        poll(source, NOW)
        store.faults.clear()

        assert poll(source, NOW + 30 * DAY).discovered == 1
        assert notices(source) == {}

    def test_where_nothing_may_be_listed_it_is_the_credential(self, store: FakeObjectStore, source: Source) -> None:
        """Then the poll raises."""
        for name in ("aaa", "bbb"):
            store.faults[folder(integration=name)] = CredentialError(Side.SOURCE, "denied", "grant it")

        with pytest.raises(CredentialError, match="denied"):
            poll(source, NOW)


class TestPoll:
    """What the hot window makes of time."""

    def test_the_first_poll_finds_all_hours(self, store: FakeObjectStore, source: Source) -> None:
        """`start_from: earliest` reaches back to the first file."""
        store.put(key(hour=THIS_HOUR - 400 * DAY))

        assert poll(source, NOW).discovered == 1

    def test_start_from_now_leaves_older_hours_out_for_ever(self, store: FakeObjectStore, source: Source) -> None:
        """The lookback of later polls does not reach behind the first one."""
        from_now = replace(source, start_from="now")
        store.put(key(hour=THIS_HOUR - HOUR))
        store.put(key(hour=THIS_HOUR))

        assert poll(from_now, NOW).discovered == 1
        assert poll(from_now, NOW + HOUR).discovered == 0

    def test_start_from_now_still_finds_late_files_of_its_first_hours(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """`now` is the first poll, not the latest one."""
        from_now = replace(source, start_from="now")
        poll(from_now, NOW)
        poll(from_now, NOW + HOUR)
        store.put(key(hour=THIS_HOUR))

        assert poll(from_now, NOW + HOUR).discovered == 1

    def test_start_from_now_counts_from_a_first_poll_that_failed(self, store: FakeObjectStore, source: Source) -> None:
        """Hours that passed while the bucket could not be listed are wanted too."""
        from_now = replace(source, start_from="now")
        store.exists = False
        with pytest.raises(CredentialError):
            poll(from_now, NOW)
        store.exists = True
        store.put(key(hour=THIS_HOUR))

        assert poll(from_now, NOW + 5 * HOUR).discovered == 1

    def test_a_stop_of_three_days_is_caught_up(self, store: FakeObjectStore, source: Source) -> None:
        """The window starts where the last complete poll left off, with the lookback before it."""
        poll(source, NOW)
        for n in range(-6, 72):
            store.put(key(hour=THIS_HOUR + n * HOUR))

        assert poll(source, NOW + 3 * DAY).discovered == 78

    def test_a_failed_poll_does_not_move_the_window(self, store: FakeObjectStore, source: Source) -> None:
        """The next poll looks at everything that the failed one owed."""
        store.put(key())
        poll(source, NOW)
        store.faults[folder()] = RetryLaterError("slow down")
        with pytest.raises(RetryLaterError):
            poll(source, NOW + DAY)
        store.faults.clear()
        store.put(key(offset=1))

        assert poll(source, NOW + 2 * DAY).discovered == 1

    def test_a_smaller_key_that_comes_later_is_found(self, store: FakeObjectStore, source: Source) -> None:
        """Offset 99999 sorts after 100000, so key order in an hour is not arrival order."""
        store.put(key(offset=99_999))
        poll(source, NOW)
        store.put(key(offset=100_000))

        assert poll(source, NOW + timedelta(minutes=1)).discovered == 1

    def test_a_poll_with_nothing_new_costs_a_request_for_each_type(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """The history does not count: one LIST for the prefix, one for each integration, one for each type."""
        for n in range(2_000):
            store.put(key(hour=THIS_HOUR - n * HOUR))
        store.put(key(event_type=OPEN, integration="bbb"))
        poll(source, NOW)
        before = store.list_calls

        poll(source, NOW + timedelta(minutes=1))

        assert store.list_calls - before == 1 + 2 + 2


class TestCoverage:
    """What was looked at before is remembered for each folder, so a mistake in the first look costs a later one."""

    HISTORY = 9  # files, one a day

    @pytest.fixture(autouse=True)
    def _history(self, store: FakeObjectStore) -> None:
        for n in range(self.HISTORY):
            store.put(key(hour=THIS_HOUR - n * DAY))

    @pytest.mark.parametrize(
        "mistake",
        [
            pytest.param({"prefix": "brase/"}, id="a typo in the prefix"),
            pytest.param({"prefix": "braze/dataexport.prod-01.S3.integration.bbb/"}, id="a narrower prefix"),
            pytest.param({"store": FakeObjectStore(), "place": "s3://wrong"}, id="another bucket"),
            pytest.param({"start_from": NOW}, id="a later start_from"),
            pytest.param({"start_from": "now"}, id="start_from: now"),
            pytest.param({"event_types": lambda _: frozenset({OPEN})}, id="fewer events.include"),
        ],
    )
    def test_what_a_mistake_in_the_configuration_left_out_is_found_once_it_is_corrected(
        self, source: Source, mistake: dict[str, Any]
    ) -> None:
        """By the next poll, however long ago the first one was."""
        first = poll(replace(source, **mistake), NOW).discovered

        assert first + poll(source, NOW + 30 * DAY).discovered == self.HISTORY
        assert poll(source, NOW + 30 * DAY).discovered == 0

    def test_an_integration_whose_first_files_are_older_than_the_lookback_is_found(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """A folder that was not there before is listed whole."""
        poll(source, NOW)
        store.put(key(hour=THIS_HOUR - 100 * DAY, integration="bbb"))

        assert poll(source, NOW + HOUR).discovered == 1

    def test_a_first_look_that_found_no_folder_is_none(self, source: Source) -> None:
        """It says nothing of what comes later, and is not complete."""
        look = poll(replace(source, store=FakeObjectStore()), NOW)

        assert "no folder event_type=" in str(look.problem)
        progress = source.ledger.progress(source.connector)
        assert (progress.polled_at, progress.looked_at, progress.poll_error) == (None, NOW, look.shortcoming)
        assert poll(source, NOW + 30 * DAY).discovered == self.HISTORY

    def test_a_folder_that_is_listed_as_empty_is_not_covered(self, store: FakeObjectStore, source: Source) -> None:
        """S3 has no empty folders: one of the two answers is wrong."""

        class Forgetful(FakeObjectStore):
            def folders(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
                return store.folders(prefix)

        poll(replace(source, store=Forgetful()), NOW)

        assert poll(source, NOW + 30 * DAY).discovered == self.HISTORY

    def test_a_version_that_reads_more_keys_lists_everything_once_more(
        self, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """What the version before passed over is found."""
        monkeypatch.setattr(discovery, "to_currents_object", lambda _: None)
        assert poll(source, NOW).discovered == 0
        monkeypatch.undo()

        monkeypatch.setattr("currents_bridge.ledger.records.connectors.READER", 99)

        assert poll(source, NOW + 30 * DAY).discovered == self.HISTORY

    def test_moving_start_from_back_lists_the_gap_only(self, source: Source) -> None:
        """Not what was listed already."""
        poll(replace(source, start_from=NOW - 2 * DAY), NOW)

        look = poll(replace(source, start_from=NOW - 4 * DAY), NOW)

        assert (look.discovered, look.listed) == (2, 3)
