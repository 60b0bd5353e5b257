"""A prefix that names another folder than Braze's: what is said of it."""

import pytest

from currents_bridge.errors import CredentialError, Side
from currents_bridge.sources.listing import find_event_type_folders
from currents_bridge.sources.misplaced import MAX_SAMPLES
from currents_bridge.sources.unread import Reason, Unread
from currents_bridge.testing.fake_store import FakeObjectStore
from tests.bucket import folder, key


def unread_under(store: FakeObjectStore, prefix: str) -> Unread:
    """Return what a walk from the prefix passes over; it finds nothing else."""
    tree = find_event_type_folders(store, prefix)
    assert tree.by_type == {}
    return tree.unread


@pytest.mark.parametrize(
    ("prefix", "reason"),
    [
        pytest.param(folder(), Reason.PREFIX_TOO_LOW, id="folder of an event type"),
        pytest.param(folder().removesuffix("/"), Reason.PREFIX_TOO_LOW, id="without its slash"),
        pytest.param(f"{folder()}date=2024-03-09-17/", Reason.PREFIX_TOO_LOW, id="an hour in it"),
        pytest.param(folder("users.messages.email.Klick"), Reason.PREFIX_ELSEWHERE, id="a misspelt event type"),
        pytest.param("brase/", Reason.PREFIX_ELSEWHERE, id="misspelt"),
        pytest.param("bra", Reason.PREFIX_ELSEWHERE, id="the beginning of a name"),
        pytest.param("braze/dataexport.", Reason.PREFIX_ELSEWHERE, id="the beginning of a name below"),
        pytest.param("braze/production/eu/", Reason.PREFIX_ELSEWHERE, id="a folder that is not there"),
        pytest.param("braze/dataexport.prod-01.S3.integration.bbb/", Reason.PREFIX_ELSEWHERE, id="another integration"),
    ],
)
def test_a_prefix_that_misses_the_files_is_told_with_the_right_one(prefix: str, reason: Reason) -> None:
    """Nothing could be found there, whatever Braze writes."""
    store = FakeObjectStore()
    store.put(key())

    (line,) = unread_under(store, prefix).lines()

    assert (line.reason, line.odd) == (reason, True)
    assert line.todo.startswith("set source.prefix to braze/")


def test_a_prefix_too_far_above_is_told_with_the_right_one() -> None:
    """The walk goes down four levels, and says by a key what lies deeper."""
    store = FakeObjectStore()
    store.put(key(prefix="a/b/c/d/"))

    (line,) = unread_under(store, "").lines()

    assert (line.reason, line.todo) == (Reason.PREFIX_TOO_HIGH, "set source.prefix to a/b/c/d/")


def test_an_empty_bucket_is_not_odd() -> None:
    """Braze may not have written yet."""
    assert not unread_under(FakeObjectStore(), "braze/").counts


def test_places_that_may_not_be_listed_are_not_told_of() -> None:
    """A policy may allow the prefix only."""
    store = FakeObjectStore()
    store.put(key())
    denied = CredentialError(Side.SOURCE, "denied", "grant it")
    store.faults |= dict.fromkeys(("brase", ""), denied)

    assert not unread_under(store, "brase/").counts


def test_hours_outside_an_event_type_are_counted_and_not_walked() -> None:
    """There may be thousands of such folders; each costs no more than a look at some."""
    store = FakeObjectStore()
    for number in range(3 * MAX_SAMPLES):
        store.put(f"braze/dataexport.x/date=2024-03-{number:02}/event_type=users.X/1.avro")

    unread = unread_under(store, "braze/")

    assert unread.counts.total() == 3 * MAX_SAMPLES
    assert store.list_calls <= 2 + MAX_SAMPLES
