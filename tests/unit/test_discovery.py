"""Discovery: what is found in the bucket, and what becomes of it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from currents_bridge.discovery import (
    MAX_UNRECOGNISED,
    Discovery,
    Source,
    discover,
    find_event_type_folders,
    poll,
    sweep,
)
from currents_bridge.errors import CredentialError, RetryLaterError, Side
from currents_bridge.keys import CurrentsKey, Layout
from currents_bridge.model import Books, Delivered, GroupLimits, NoticeKind, Selection
from currents_bridge.testing.fake_store import FakeObjectStore
from tests.ledgers import LedgerOnFile

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)
NOW = datetime(2024, 3, 9, 17, 20, tzinfo=UTC)
THIS_HOUR = datetime(2024, 3, 9, 17, tzinfo=UTC)
CLICK = "users.messages.email.Click"
OPEN = "users.messages.email.Open"
CATALOGUE = frozenset({CLICK, OPEN})
EVERYTHING = [(None, None)]

KEY = CurrentsKey(
    prefix="braze/",
    cluster="prod-01",
    integration="aaa",
    event_type=CLICK,
    hour=THIS_HOUR,
    layout=Layout.SCHEMA,
    revision="12",
    place="prod-01",
    partition=0,
    offset=0,
)


def key(
    hour: datetime = THIS_HOUR,
    event_type: str = CLICK,
    offset: int = 0,
    integration: str = "aaa",
    prefix: str = "braze/",
) -> str:
    """Return the key of a Currents file."""
    return str(replace(KEY, hour=hour, event_type=event_type, offset=offset, integration=integration, prefix=prefix))


def folder(event_type: str = CLICK, integration: str = "aaa") -> str:
    """Return the folder that holds the files of a type."""
    return key(event_type=event_type, integration=integration).partition("date=")[0]


@pytest.fixture
def store() -> FakeObjectStore:
    """An empty bucket."""
    return FakeObjectStore()


@pytest.fixture
def source(store: FakeObjectStore) -> Source:
    """A connector to the bucket that includes every type of the catalogue."""
    return Source(store, LedgerOnFile(), "production", "braze/", lambda seen: CATALOGUE & frozenset(seen), CATALOGUE)


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


class TestFindEventTypeFolders:
    """The walk from the prefix down to the folders of event types."""

    def test_types_of_several_integrations_are_found(self, store: FakeObjectStore) -> None:
        """A type has one folder for each integration that exports it."""
        for name in (key(), key(integration="bbb"), key(event_type=OPEN)):
            store.put(name)

        found, unrecognised = find_event_type_folders(store, "braze/")

        assert found == {CLICK: [folder(), folder(integration="bbb")], OPEN: [folder(OPEN)]}
        assert unrecognised.count == 0

    @pytest.mark.parametrize("prefix", ["", "braze", "braze/", "braze/eu", "braze/eu/"])
    def test_any_folder_above_the_integrations_can_be_the_prefix(self, store: FakeObjectStore, prefix: str) -> None:
        """The prefix may stand higher than where Braze writes, and may lack its last slash."""
        store.put(key(prefix="braze/eu/"))

        assert list(find_event_type_folders(store, prefix)[0]) == [CLICK]

    def test_the_integration_itself_can_be_the_prefix(self, store: FakeObjectStore) -> None:
        """A prefix that names one integration leaves the others out."""
        store.put(key())
        store.put(key(event_type=OPEN, integration="bbb"))

        assert list(find_event_type_folders(store, folder().partition("event_type=")[0])[0]) == [CLICK]

    def test_a_folder_that_only_shares_the_letters_of_the_prefix_is_another(self, store: FakeObjectStore) -> None:
        """`braze` means `braze/`, not `braze-old/`."""
        store.put(key(prefix="braze-old/"))

        assert find_event_type_folders(store, "braze")[0] == {}

    def test_an_empty_bucket_has_none(self, store: FakeObjectStore) -> None:
        """Nothing there, nothing found."""
        assert find_event_type_folders(store, "")[0] == {}

    def test_what_lies_beside_the_folders_is_unrecognised(self, store: FakeObjectStore) -> None:
        """Files on the way, and folders deeper than Braze's, are named; the mark of a folder is not."""
        for name in ("braze/notes.txt", "braze/a/b/c/d/e.txt", "braze/empty/"):
            store.put(name)

        _, unrecognised = find_event_type_folders(store, "braze/")

        assert unrecognised.keys == ["braze/notes.txt", "braze/a/b/c/d/"]

    def test_only_the_first_unrecognised_keys_are_kept_but_all_are_counted(self, store: FakeObjectStore) -> None:
        """A bucket full of other things does not fill the memory."""
        for n in range(MAX_UNRECOGNISED + 5):
            store.put(f"braze/{n:03}.txt")

        _, unrecognised = find_event_type_folders(store, "braze/")

        assert (len(unrecognised.keys), unrecognised.count) == (MAX_UNRECOGNISED, MAX_UNRECOGNISED + 5)


class TestDiscover:
    """One look at given hours."""

    def test_new_objects_are_admitted_once(self, store: FakeObjectStore, source: Source) -> None:
        """A second look at the same hours finds nothing new."""
        store.put(key(offset=1))
        store.put(key(event_type=OPEN))

        assert discover(source, EVERYTHING, NOW) == Discovery(2, 2, 0, 0, CATALOGUE)
        assert discover(source, EVERYTHING, NOW) == Discovery(0, 2, 0, 0, CATALOGUE)
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

        found = discover(source, [(THIS_HOUR - 3 * HOUR, THIS_HOUR - HOUR)], NOW)

        assert found.listed == 2
        assert waiting(source) == [key(hour=THIS_HOUR - 3 * HOUR), key(hour=THIS_HOUR - 2 * HOUR)]

    def test_a_type_that_is_not_included_is_not_listed(self, store: FakeObjectStore, source: Source) -> None:
        """Types of the catalogue that nobody wants cost no request."""
        store.put(key())
        store.put(key(event_type=OPEN))

        found = discover(replace(source, event_types=lambda _: frozenset({CLICK})), EVERYTHING, NOW)

        assert (found.listed, found.seen_types) == (1, CATALOGUE)
        assert store.list_calls == 3  # prefix, integration, clicks

    @pytest.mark.parametrize("included", [True, False])
    def test_an_unknown_type_is_counted_and_admitted_only_where_included(
        self, store: FakeObjectStore, source: Source, *, included: bool
    ) -> None:
        """A type that the catalogue lacks is reported instead of being lost."""
        new = "users.new.Thing"
        for offset in range(3):
            store.put(key(event_type=new, offset=offset))

        found = discover(replace(source, event_types=lambda seen: frozenset(seen if included else ())), EVERYTHING, NOW)

        assert (found.discovered, found.seen_types) == (3 if included else 0, frozenset({new}))
        assert notices(source) == {(NoticeKind.UNKNOWN_EVENT_TYPE, new): 3}

    def test_hours_without_an_unknown_type_keep_its_count(self, store: FakeObjectStore, source: Source) -> None:
        """A later look that meets no such object does not bring the count to 0."""
        store.put(key(event_type="users.new.Thing"))

        discover(source, EVERYTHING, NOW)
        discover(source, [(THIS_HOUR + HOUR, None)], NOW)

        assert notices(source) == {(NoticeKind.UNKNOWN_EVENT_TYPE, "users.new.Thing"): 1}

    def test_keys_that_fit_no_layout_are_reported(self, store: FakeObjectStore, source: Source) -> None:
        """Odd keys beside and inside the folders of types become notices, and their neighbours are admitted."""
        odd = ["braze/notes.txt", key().replace(".avro", ".parquet")]
        for name in [*odd, key()]:
            store.put(name)

        assert discover(source, EVERYTHING, NOW) == Discovery(1, 1, 0, 2, frozenset({CLICK}))
        assert notices(source) == {(NoticeKind.UNRECOGNISED_KEY, name): 1 for name in odd}

    def test_notices_of_odd_keys_are_limited(self, store: FakeObjectStore, source: Source) -> None:
        """All are counted, the first hundred are named."""
        for n in range(MAX_UNRECOGNISED):
            store.put(f"braze/{n:03}.txt")
            store.put(f"{folder()}date=2024-03-09-17/{n:03}.txt")

        assert discover(source, EVERYTHING, NOW).unrecognised == 2 * MAX_UNRECOGNISED
        assert len(notices(source)) == MAX_UNRECOGNISED

    def test_an_object_that_changed_after_delivery_is_reported(self, store: FakeObjectStore, source: Source) -> None:
        """Another ETag is a notice, never a second delivery."""
        store.put(key(), b"first")
        discover(source, EVERYTHING, NOW)
        deliver_all(source)
        store.put(key(), b"second")

        assert discover(source, EVERYTHING, NOW) == Discovery(0, 1, 1, 0, frozenset({CLICK}))
        assert notices(source) == {(NoticeKind.OBJECT_CHANGED, key()): 1}
        assert waiting(source) == []

    def test_more_objects_than_a_page_are_admitted(self, store: FakeObjectStore, source: Source) -> None:
        """Admission page by page leaves nothing out."""
        for offset in range(2_001):
            store.put(key(offset=offset))

        assert discover(source, EVERYTHING, NOW).discovered == 2_001

    def test_one_failing_listing_fails_the_look_but_not_the_others(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """What the other listings found stays admitted."""
        store.put(key())
        store.put(key(event_type=OPEN))
        store.faults[folder(CLICK)] = CredentialError(Side.SOURCE, "denied", "grant it")

        with pytest.raises(CredentialError, match="denied"):
            discover(source, EVERYTHING, NOW)

        assert waiting(source) == [key(event_type=OPEN)]


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
        with pytest.raises(RetryLaterError):
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


class TestSweep:
    """Looks at older hours."""

    def test_a_late_file_in_an_old_hour_is_found(self, store: FakeObjectStore, source: Source) -> None:
        """A file that lands in an hour behind the hot window waits for the next age of its hour."""
        store.put(key())
        poll(source, NOW)
        for n in range(1, 8):
            poll(source, NOW + n * HOUR)
            sweep(source, NOW + n * HOUR)
        store.put(key(offset=1))

        polled = sum(poll(source, NOW + n * HOUR).discovered for n in range(8, 26))
        assert polled == 0
        assert sweep(source, NOW + 26 * HOUR).discovered == 1

    def test_a_failed_sweep_is_made_up_for(self, store: FakeObjectStore, source: Source) -> None:
        """What was due in a failed sweep is due in the next one."""
        poll(source, NOW - 2 * DAY)
        poll(source, NOW)
        store.put(key(hour=THIS_HOUR - 30 * HOUR))
        store.faults[folder()] = RetryLaterError("slow down")
        with pytest.raises(RetryLaterError):
            sweep(source, NOW)
        store.faults.clear()

        assert sweep(source, NOW + 12 * HOUR).discovered == 1

    def test_a_folder_before_all_hours_is_seen(self, store: FakeObjectStore, source: Source) -> None:
        """Should Braze put a folder above `date=`, no hour would hold its files: they are reported."""
        poll(source, NOW)
        odd = f"{folder()}app=1/x.avro"
        store.put(odd)

        assert poll(source, NOW).unrecognised == 0
        assert sweep(source, NOW).unrecognised == 1
        assert notices(source) == {(NoticeKind.UNRECOGNISED_KEY, odd): 1}
