import threading
from collections.abc import Callable

import pytest

from currents_bridge.errors import StoppedError
from currents_bridge.sources.stoppable import StoppableStore
from tests.workbench import NAME, Bench


@pytest.fixture
def stop() -> threading.Event:
    """The program's stop event."""
    return threading.Event()


@pytest.fixture
def bench() -> Bench:
    """A bucket with three objects."""
    bench = Bench()
    for offset in range(3):
        bench.put(1, offset=offset)
    return bench


def test_a_listing_ends_at_the_object_where_the_stop_comes(bench: Bench, stop: threading.Event) -> None:
    """However many come after it."""
    listing = StoppableStore(bench.store, stop).list("")
    next(listing)
    stop.set()

    with pytest.raises(StoppedError, match="the bucket was listed to its end"):
        next(listing)


@pytest.mark.parametrize(
    "ask",
    [
        lambda store: store.folders(""),
        lambda store: next(store.list("")),
        lambda store: store.open("key", "etag", 1),
        lambda store: store.expiry_rules(),
    ],
    ids=["folders", "list", "open", "expiry_rules"],
)
def test_nothing_is_asked_for_after_the_stop(
    bench: Bench, stop: threading.Event, ask: Callable[[StoppableStore], object]
) -> None:
    """Whatever it is."""
    stop.set()

    with pytest.raises(StoppedError):
        ask(StoppableStore(bench.store, stop))


def test_a_poll_that_is_stopped_is_no_failed_poll(bench: Bench) -> None:
    """It says so, and neither the bucket nor a job is blamed for it."""
    connector = bench.connector()
    bench.stop.set()

    report = connector.poll()

    assert isinstance(report.error, StoppedError)
    assert bench.ledger.progress(NAME).poll_error in (None, "")
