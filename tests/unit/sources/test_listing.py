"""Listing: the folders of event types under a prefix, and the keys of given hours."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.errors import CredentialError, RetryLaterError, Side
from currents_bridge.sources.listing import end_of, find_event_type_folders, key_range, list_between, pages_of
from currents_bridge.sources.unread import Reason
from currents_bridge.testing.fake_store import FakeObjectStore
from tests.bucket import CLICK, HOUR, OPEN, THIS_HOUR, folder, key


@pytest.fixture
def store() -> FakeObjectStore:
    """An empty bucket."""
    return FakeObjectStore()


class TestFindEventTypeFolders:
    """The walk from the prefix down to the folders of event types."""

    def test_types_of_several_integrations_are_found(self, store: FakeObjectStore) -> None:
        """A type has one folder for each integration that exports it."""
        for name in (key(), key(integration="bbb"), key(event_type=OPEN)):
            store.put(name)

        tree = find_event_type_folders(store, "braze/")

        assert tree.by_type == {CLICK: [folder(), folder(integration="bbb")], OPEN: [folder(OPEN)]}
        assert not tree.unread.counts

    @pytest.mark.parametrize("prefix", ["", "braze", "braze/", "braze/eu", "braze/eu/"])
    def test_any_folder_above_the_integrations_can_be_the_prefix(self, store: FakeObjectStore, prefix: str) -> None:
        """The prefix may stand higher than where Braze writes, and may lack its last slash."""
        store.put(key(prefix="braze/eu/"))

        assert list(find_event_type_folders(store, prefix).by_type) == [CLICK]

    def test_the_integration_itself_can_be_the_prefix(self, store: FakeObjectStore) -> None:
        """A prefix that names one integration leaves the others out."""
        store.put(key())
        store.put(key(event_type=OPEN, integration="bbb"))

        assert list(find_event_type_folders(store, folder().partition("event_type=")[0]).by_type) == [CLICK]

    def test_a_folder_that_only_shares_the_letters_of_the_prefix_is_another(self, store: FakeObjectStore) -> None:
        """`braze` means `braze/`, not `braze-old/`."""
        store.put(key(prefix="braze-old/"))

        assert find_event_type_folders(store, "braze").by_type == {}

    def test_an_empty_bucket_has_none(self, store: FakeObjectStore) -> None:
        """Nothing there, nothing found."""
        assert find_event_type_folders(store, "").by_type == {}

    def test_what_lies_beside_the_folders_is_counted(self, store: FakeObjectStore) -> None:
        """Files on the way, and folders deeper than Braze's, by a key in them; the mark of a folder is not."""
        for name in ("braze/notes.txt", "braze/a/b/c/d/e.txt", "braze/x.avro", "braze/empty/", key()):
            store.put(name)

        unread = find_event_type_folders(store, "braze/").unread

        assert unread.examples == {
            Reason.NOT_CURRENTS: ["braze/notes.txt", "braze/a/b/c/d/e.txt"],
            Reason.NO_EVENT_TYPE: ["braze/x.avro"],
        }

    @pytest.mark.parametrize("error", [CredentialError(Side.SOURCE, "denied", "grant it"), RetryLaterError("503")])
    def test_an_integration_that_cannot_be_listed_costs_itself(
        self, store: FakeObjectStore, error: CredentialError | RetryLaterError
    ) -> None:
        """Its folder is named with the reason, and the others are found."""
        store.put(key())
        store.put(key(integration="bbb"))
        denied = folder().partition("event_type=")[0]
        store.faults[denied] = error

        tree = find_event_type_folders(store, "braze/")

        assert tree.by_type == {CLICK: [folder(integration="bbb")]}
        assert tree.failures == {denied: error}
        assert tree.folders == [denied, folder(integration="bbb")]

    def test_a_prefix_that_cannot_be_listed_is_an_error(self, store: FakeObjectStore) -> None:
        """There is nothing beside it that could be."""
        store.faults["braze/"] = RetryLaterError("503")

        with pytest.raises(RetryLaterError, match="503"):
            find_event_type_folders(store, "braze/")


class TestHours:
    """The keys of given hours in a folder."""

    @given(st.integers(-50, 50), st.none() | st.integers(-30, 30), st.none() | st.integers(-30, 30))
    def test_a_key_is_between_the_bounds_of_exactly_its_hours(
        self, hours: int, first: int | None, end: int | None
    ) -> None:
        """Both bounds may be missing; the first hour is meant, the end hour is not."""
        span = (
            None if first is None else THIS_HOUR + first * HOUR,
            None if end is None else THIS_HOUR + end * HOUR,
        )
        after, before = key_range(folder(), span)

        meant = (first is None or first <= hours) and (end is None or hours < end)
        assert (after < key(hour=THIS_HOUR + hours * HOUR) < before) == meant

    @pytest.mark.parametrize("of", ["", "braze/", folder()])
    def test_a_folder_ends_behind_all_its_keys(self, of: str) -> None:
        """And before what follows it."""
        assert of < f"{of}\U0010fffe" < end_of(of)
        assert of == "" or end_of(of) <= f"{of[:-1]}0"

    def test_an_object_that_is_listed_twice_in_a_page_stands_in_it_once(self, store: FakeObjectStore) -> None:
        """Some servers repeat what stands at the end of an answer."""
        store.put(key(offset=1))
        store.put(key(offset=2))
        items = list(list_between(store, folder(), *key_range(folder(), (None, None))))

        assert [list(page) for page in pages_of(iter([*items, *items]))] == [[key(offset=1), key(offset=2)]]
