"""Fetch ahead: in order, within bounds, and each object's trouble at its own turn."""

import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import BinaryIO

import pytest

from currents_bridge.delivery import fetching
from currents_bridge.delivery.fetching import AHEAD_OBJECTS, FetchAhead
from currents_bridge.errors import ObjectGoneError
from currents_bridge.model import CurrentsObject
from currents_bridge.testing.fake_store import FakeObjectStore

HOUR = datetime(2026, 1, 2, 3, tzinfo=UTC)


class Watched(FakeObjectStore):
    """A bucket that tells which objects were asked for; `expect` waits until they are so many."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self._changed = threading.Condition()

    def open(self, key: str, etag: str, size_bytes: int) -> BinaryIO:
        """Open an object."""
        with self._changed:
            self.asked.append(key)
            self._changed.notify_all()
        return super().open(key, etag, size_bytes)

    def expect(self, count: int) -> None:
        """Return once so many objects were asked for."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.asked) >= count, timeout=10)


@pytest.fixture
def store() -> Watched:
    """An empty bucket."""
    return Watched()


def put(store: FakeObjectStore, count: int, size_bytes: int = 4, name: str = "key") -> Sequence[CurrentsObject]:
    """Put so many objects of different content into the bucket."""
    bodies = {f"{name} {number:03}": f"{number:0{size_bytes}}".encode() for number in range(count)}
    etags = {key: store.put(key, body) for key, body in bodies.items()}
    return [CurrentsObject(key, etags[key], len(body), HOUR, "type", HOUR) for key, body in bodies.items()]


def test_objects_come_in_order_and_each_is_fetched_once(store: Watched) -> None:
    """More of them than are fetched ahead."""
    objects = put(store, 3 * AHEAD_OBJECTS)
    with FetchAhead(store, objects) as fetch:
        assert [int(fetch.open(obj).read()) for obj in objects] == list(range(len(objects)))
    assert sorted(store.asked) == [obj.key for obj in objects]


def test_the_next_objects_are_on_their_way_while_one_is_worked_on(store: Watched) -> None:
    """So many, and no more."""
    objects = put(store, 3 * AHEAD_OBJECTS)
    with FetchAhead(store, objects) as fetch:
        fetch.open(objects[0])
        store.expect(1 + AHEAD_OBJECTS)
    assert sorted(store.asked) == [obj.key for obj in objects[: 1 + AHEAD_OBJECTS]]


def test_what_is_ahead_is_bounded_by_bytes(store: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here two objects are as much as may be in memory."""
    monkeypatch.setattr(fetching, "AHEAD_BYTES", 20)
    objects = put(store, 6, size_bytes=10)
    with FetchAhead(store, objects) as fetch:
        fetch.open(objects[0])
        store.expect(3)
    assert len(store.asked) == 3


def test_an_object_that_is_too_large_to_be_ahead_is_opened_as_a_stream_at_its_turn(
    store: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And those behind it are fetched as any."""
    monkeypatch.setattr(fetching, "AHEAD_BYTES", 20)
    (before, behind), (large,) = put(store, 2), put(store, 1, size_bytes=21, name="large")
    with FetchAhead(store, [before, large, behind]) as fetch:
        fetch.open(before)
        assert store.asked == [before.key]
        with fetch.open(large) as stream:
            assert not stream.seekable()
        assert fetch.open(behind).read() == b"0001"


def test_trouble_with_an_object_is_raised_at_its_own_turn(store: Watched) -> None:
    """The others are read."""
    objects = put(store, 3)
    store.delete(objects[1].key)
    with FetchAhead(store, objects) as fetch:
        assert fetch.open(objects[0]).read() == b"0000"
        with pytest.raises(ObjectGoneError):
            fetch.open(objects[1])
        assert fetch.open(objects[2]).read() == b"0002"
