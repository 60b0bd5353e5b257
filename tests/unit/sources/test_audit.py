"""The audit: bucket, ledger and books compared with each other."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta

import pytest

from currents_bridge.errors import BridgeError, CredentialError, RetryLaterError, Side
from currents_bridge.model import (
    Books,
    Coverage,
    Delivered,
    Failed,
    GroupLimits,
    ListedObject,
    NoticeKind,
    Quarantined,
    Recorded,
    Selection,
    Settlement,
)
from currents_bridge.sources import audit as audits
from currents_bridge.sources.audit import audit, compare
from currents_bridge.sources.discovery import Source, poll
from currents_bridge.sources.findings import Audit
from currents_bridge.testing.fake_store import FakeObjectStore
from tests.bucket import CATALOGUE, CLICK, DAY, HOUR, NOW, OPEN, THIS_HOUR, folder, key
from tests.ledgers import LedgerOnFile

ONE_EVENT = Books(read=1, sent=1)
EVERYTHING = Selection(CATALOGUE)


@pytest.fixture
def store() -> FakeObjectStore:
    """An empty bucket."""
    return FakeObjectStore()


@pytest.fixture
def ledger() -> LedgerOnFile:
    """A new ledger."""
    return LedgerOnFile()


@pytest.fixture
def source(store: FakeObjectStore, ledger: LedgerOnFile) -> Source:
    """A connector to the bucket that includes every type of the catalogue."""
    return Source(store, ledger, "production", "braze/", lambda seen: CATALOGUE & frozenset(seen), CATALOGUE)


def deliver(source: Source, books: Books = ONE_EVENT) -> None:
    """Look for what is new, and settle everything that waits as delivered."""
    poll(source, NOW)
    for claimed in source.ledger.claim(source.connector, EVERYTHING, GroupLimits(), NOW):
        source.ledger.settle([Delivered(claimed.id, books)], NOW)


def found(result: Audit) -> dict[Recorded, int]:
    """Return the objects by what is said of them, without kinds that none is of."""
    return {recorded: count for recorded, count in result.objects.items() if count}


def named(result: Audit) -> list[tuple[str, str]]:
    """Return kind and subject of each difference."""
    return [(one.kind, one.subject) for of_type in result.types for one in of_type.differences]


class TestFindings:
    """What is said of an object, by bucket and ledger together."""

    def test_what_was_delivered_as_it_is_listed_is_proven(self, store: FakeObjectStore, source: Source) -> None:
        """Nothing is found, and no hour is shown."""
        store.put(key())
        store.put(key(event_type=OPEN, integration="bbb"))
        deliver(source)

        result = audit(source, NOW)

        assert (found(result), result.findings, result.books) == ({Recorded.DELIVERED: 2}, {}, Books(read=2, sent=2))
        assert [(of_type.event_type, list(of_type.hours)) for of_type in result.types] == [(CLICK, []), (OPEN, [])]

    @pytest.mark.parametrize(
        ("settled", "expected"),
        [
            (Failed(0, "429", NOW), Recorded.FAILED),
            (Quarantined(0, "cut", ONE_EVENT), Recorded.QUARANTINED),
            (None, Recorded.WAITING),
        ],
    )
    def test_what_is_not_delivered_has_its_line_and_is_no_finding(
        self, store: FakeObjectStore, source: Source, settled: Settlement | None, expected: Recorded
    ) -> None:
        """It will be, or was set aside with a reason."""
        store.put(key())
        poll(source, NOW)
        if settled:
            (claimed,) = source.ledger.claim(source.connector, EVERYTHING, GroupLimits(), NOW)
            source.ledger.settle([replace(settled, id=claimed.id)], NOW)

        result = audit(source, NOW)

        assert (found(result), result.findings) == ({expected: 1}, {})

    def test_a_changed_object_is_found(self, store: FakeObjectStore, source: Source) -> None:
        """What lies in the bucket is not what was delivered."""
        store.put(key())
        deliver(source)
        store.put(key(), b"other content")

        result = audit(source, NOW)

        assert (result.findings, named(result)) == ({"changed": 1}, [("changed", key())])

    def test_a_key_that_is_not_understood_is_found(self, store: FakeObjectStore, source: Source) -> None:
        """Beside the folders of types and in them, before all hours, too."""
        for name in (key(), f"{folder()}app=1/x.avro", "braze/x.avro"):
            store.put(name)

        result = audit(source, NOW)

        assert result.findings == {"unread": 2}
        assert {n.subject for n in source.ledger.totals(source.connector).notices} >= {"no_hour", "no_event_type"}

    def test_types_that_the_rules_leave_out_are_named(self, store: FakeObjectStore, source: Source) -> None:
        """They are neither listed nor a finding."""
        store.put(key())
        store.put(key(event_type=OPEN))

        result = audit(replace(source, event_types=lambda _: frozenset({CLICK})), NOW)

        assert (set(result.excluded), found(result), result.findings) == ({OPEN}, {Recorded.WAITING: 1}, {})

    def test_objects_and_folders_that_are_listed_twice_count_once(self, store: FakeObjectStore, source: Source) -> None:
        """In one page or in the next one."""
        for offset in range(3):
            store.put(key(offset=offset))
        deliver(source)

        class Repeating(FakeObjectStore):
            def folders(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
                folders, objects = store.folders(prefix)
                return folders * 2, objects

            def list(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
                items = list(store.list(prefix, start_after))
                yield from (*items, *items)

        result = compare(replace(source, store=Repeating()), EVERYTHING)

        assert found(result) == {Recorded.DELIVERED: 3}


class TestGone:
    """Objects that the ledger owes and the bucket no longer has."""

    def test_an_object_deleted_while_it_waits_is_gone(self, store: FakeObjectStore, source: Source) -> None:
        """Wherever it stood among the others."""
        keys = [key(offset=offset) for offset in range(5)]
        for name in keys:
            store.put(name)
        poll(source, NOW)
        for name in (keys[0], keys[2], keys[4]):
            store.delete(name)

        result = audit(source, NOW)

        assert (result.findings, found(result)) == ({"gone": 3}, {Recorded.GONE: 3, Recorded.WAITING: 2})
        assert [subject for kind, subject in named(result) if kind == "gone"] == [keys[0], keys[2], keys[4]]

    @pytest.mark.parametrize(
        "lost",
        [key(event_type=OPEN), key(integration="aa"), key(integration="zzz"), key(event_type="users.new.Thing")],
        ids=["event type", "integration before", "integration behind", "unknown type"],
    )
    def test_it_is_gone_also_where_its_whole_folder_is(self, store: FakeObjectStore, source: Source, lost: str) -> None:
        """No listing names the folder any more."""
        source = replace(source, event_types=lambda seen: CATALOGUE | frozenset(seen) | {"users.new.Thing"})
        store.put(key())
        store.put(lost)
        poll(source, NOW)
        store.delete(lost)

        assert audit(source, NOW).findings == {"gone": 1}

    def test_what_waits_in_a_folder_that_cannot_be_listed_is_not_gone(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """Nobody can say."""
        store.put(key())
        store.put(key(integration="bbb"))
        store.put(key(event_type=OPEN, integration="ccc"))
        poll(source, NOW)
        store.faults[folder()] = RetryLaterError("503")
        store.faults[folder(integration="bbb").partition("event_type=")[0]] = RetryLaterError("503")

        assert audit(source, NOW).findings == {"unlisted": 2}

    def test_what_waits_outside_the_prefix_or_the_span_is_not_looked_for(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """Neither is what the rules leave out."""
        for name in (key(prefix="other/"), key(hour=THIS_HOUR - DAY), key(event_type=OPEN), key(integration="bbb")):
            store.put(name)
        poll(replace(source, prefix=""), NOW)
        for name in (key(prefix="other/"), key(hour=THIS_HOUR - DAY), key(event_type=OPEN)):
            store.delete(name)

        clicks = Selection(frozenset({CLICK}), THIS_HOUR, THIS_HOUR + HOUR)

        assert found(compare(source, clicks)) == {Recorded.WAITING: 1}

    def test_an_object_that_came_while_the_folder_was_listed_is_not_gone(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """Another process may have admitted it meanwhile; so what seems gone is listed again."""
        store.put(key(offset=1))
        poll(source, NOW)

        class Behind(FakeObjectStore):
            def __init__(self) -> None:
                super().__init__()
                self.folders = store.folders  # type: ignore[method-assign]

            def list(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
                yield from list(store.list(prefix, start_after))
                store.put(key(offset=2))
                poll(source, NOW)

        assert found(audit(replace(source, store=Behind()), NOW)) == {Recorded.WAITING: 1}

    def test_a_quarantined_object_that_was_deleted_stays_accounted_for(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """And is named, since it cannot be replayed any more."""
        store.put(key(offset=1))
        store.put(key(offset=2))
        poll(source, NOW)
        for claimed in source.ledger.claim(source.connector, EVERYTHING, GroupLimits(), NOW):
            source.ledger.settle([Quarantined(claimed.id, "cut")], NOW)
        store.delete(key(offset=1))

        result = audit(source, NOW)

        assert (found(result), named(result)) == ({Recorded.QUARANTINED: 2}, [("quarantined", key(offset=1))])

    @pytest.mark.parametrize("folded", [False, True])
    def test_a_delivered_object_that_was_deleted_is_as_it_should_be(
        self, store: FakeObjectStore, source: Source, *, folded: bool
    ) -> None:
        """A lifecycle rule deletes what is old; it is only counted, by hour and type."""
        store.put(key(offset=1))
        store.put(key(offset=2))
        deliver(source)
        if folded:
            source.ledger.fold(source.connector, NOW + HOUR, NOW + DAY)
        store.delete(key(offset=1))

        result = audit(source, NOW)

        assert (found(result), result.findings) == ({Recorded.DELIVERED: 1}, {})
        assert [of_type.deleted for of_type in result.types] == [1]

    def test_any_number_of_gone_objects_costs_no_memory(
        self, store: FakeObjectStore, source: Source, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """They are counted page by page, and the first are named."""
        monkeypatch.setattr(audits, "PAGE_OBJECTS", 2)
        monkeypatch.setattr(audits, "MAX_NAMED", 3)
        store.put(key(hour=THIS_HOUR + HOUR))
        for offset in range(9):
            store.put(key(offset=offset))
        poll(source, NOW)
        for offset in range(9):
            store.delete(key(offset=offset))

        result = audit(source, NOW)

        assert (result.findings, len([kind for kind, _ in named(result) if kind == "gone"])) == ({"gone": 9}, 3)


class TestBooks:
    """The books of each hour and type, beside its objects."""

    @pytest.mark.parametrize(
        "damage",
        ["UPDATE hours SET sent = 0", "UPDATE hours SET objects = 1", "DELETE FROM hours"],
        ids=["an event is missing", "an object is missing", "the hour is missing"],
    )
    def test_books_that_cannot_be_right_are_found(
        self, store: FakeObjectStore, source: Source, ledger: LedgerOnFile, damage: str
    ) -> None:
        """Here the ledger was changed by another hand."""
        store.put(key(offset=1))
        store.put(key(offset=2))
        deliver(source)
        ledger.change(damage)

        result = audit(source, NOW)

        assert (result.findings, named(result)) == ({"unproven": 1}, [("unproven", f"{CLICK} 2024-03-09-17")])

    def test_hours_that_are_not_well_are_kept_and_by_a_comparison_all(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """A dead letter makes an hour one that somebody should see, though it is no finding."""
        store.put(key())
        deliver(source)
        store.put(key(hour=THIS_HOUR - HOUR))
        deliver(source, Books(read=1, dead_lettered=1))

        audited, compared = audit(source, NOW), compare(source, Selection(frozenset({CLICK})))

        assert [hour.books.hour for hour in audited.types[0].hours] == [THIS_HOUR - HOUR]
        assert [(hour.books.hour, hour.well) for hour in compared.types[0].hours] == [
            (THIS_HOUR - HOUR, False),
            (THIS_HOUR, True),
        ]
        assert (audited.findings, audited.books) == ({}, Books(read=2, sent=1, dead_lettered=1))


class TestAudit:
    """What an audit does beside comparing."""

    def test_a_late_file_of_any_age_is_admitted(self, store: FakeObjectStore, source: Source) -> None:
        """Polls have left its hour long ago."""
        store.put(key())
        poll(source, NOW)
        store.put(key(hour=THIS_HOUR - 300 * DAY))
        assert poll(source, NOW + HOUR).discovered == 0

        assert audit(source, NOW + HOUR).discovered == 1
        assert audit(source, NOW + HOUR).discovered == 0

    def test_a_comparison_admits_nothing(self, store: FakeObjectStore, source: Source) -> None:
        """It says that the object is not known."""
        store.put(key())

        assert found(compare(source, EVERYTHING)) == {Recorded.UNKNOWN: 1}
        assert found(compare(source, EVERYTHING)) == {Recorded.UNKNOWN: 1}
        assert source.ledger.totals(source.connector).notices == []

    def test_it_goes_back_to_the_start_or_as_deep_as_it_may(self, store: FakeObjectStore, source: Source) -> None:
        """The later one of both counts; a comparison without a span begins at the start, too."""
        for n in range(10):
            store.put(key(hour=THIS_HOUR - n * DAY))
        two_days, five_days = (replace(source, start_from=NOW - n * DAY) for n in (2, 5))

        assert sum(found(audit(two_days, NOW, 5 * DAY)).values()) == 3
        assert sum(found(audit(five_days, NOW, 2 * DAY)).values()) == 3
        assert sum(found(compare(two_days, EVERYTHING)).values()) == 3

    def test_with_a_depth_it_says_nothing_of_what_is_older(self, store: FakeObjectStore, source: Source) -> None:
        """A notice of an odd key there stays."""
        store.put(key())
        store.put(key(hour=THIS_HOUR - 9 * DAY).replace(".avro", ".json"))
        poll(source, NOW)

        audit(source, NOW, 5 * DAY)

        assert [
            n.count for n in source.ledger.totals(source.connector).notices if n.kind is NoticeKind.UNREAD_KEYS
        ] == [1]

    def test_what_it_listed_is_covered_so_that_no_poll_lists_it_again(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """Be it on a first start, or after the folder appeared."""
        store.put(key())

        audit(source, NOW)

        assert source.ledger.coverage(source.connector, source.place) == {folder(): Coverage(None, NOW)}

    def test_what_it_found_is_kept(self, store: FakeObjectStore, source: Source) -> None:
        """With its time; the next audit replaces it."""
        store.put(key())
        store.put(key(offset=1))
        poll(source, NOW)
        store.delete(key())

        audit(source, NOW)
        progress = source.ledger.progress(source.connector)
        assert (progress.audited_at, progress.findings) == (NOW, {"gone": 1})

        store.put(key())
        audit(source, NOW + DAY)
        progress = source.ledger.progress(source.connector)
        assert (progress.audited_at, progress.findings) == (NOW + DAY, {})

    def test_a_bucket_without_any_folder_is_no_audit(self, store: FakeObjectStore, source: Source) -> None:
        """All that waits would seem to be gone; a comparison says so, since somebody asked."""
        store.put(key())
        poll(source, NOW)
        store.delete(key())

        with pytest.raises(RetryLaterError, match="no folder event_type="):
            audit(source, NOW)

        assert source.ledger.progress(source.connector).audited_at is None
        assert found(compare(source, EVERYTHING)) == {Recorded.GONE: 1}

    def test_a_folder_that_is_listed_as_empty_is_a_contradiction(self, store: FakeObjectStore, source: Source) -> None:
        """S3 has no empty folders: what waits in it is not taken for gone, and it is not covered."""
        store.put(key())
        store.put(key(event_type=OPEN))
        poll(source, NOW)
        before = source.ledger.coverage(source.connector, source.place)[folder()]

        class Forgetful(FakeObjectStore):
            def folders(self, prefix: str) -> tuple[list[str], list[ListedObject]]:
                return store.folders(prefix)

            def list(self, prefix: str, start_after: str = "") -> Iterator[ListedObject]:
                return iter(()) if prefix == folder() else store.list(prefix, start_after)

        assert audit(replace(source, store=Forgetful()), NOW + DAY).findings == {"unlisted": 1}
        assert source.ledger.coverage(source.connector, source.place)[folder()] == before

    def test_where_only_what_nobody_wants_can_be_listed_the_rest_costs_itself(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """A denied integration is no failing credential while any LIST works."""
        store.put(key(event_type="users.behaviors.CustomEvent"))
        store.put(key(integration="bbb"))
        store.faults[folder(integration="bbb").partition("event_type=")[0]] = CredentialError(
            Side.SOURCE, "no", "grant"
        )
        source = replace(source, catalogue_types=CATALOGUE | {"users.behaviors.CustomEvent"})

        assert audit(source, NOW).findings == {"unlisted": 1}

    def test_a_folder_that_may_not_be_listed_costs_itself(self, store: FakeObjectStore, source: Source) -> None:
        """It is a finding, has a notice, and is not covered."""
        store.put(key())
        store.put(key(integration="bbb"))
        store.faults[folder()] = CredentialError(Side.SOURCE, "denied", "grant it")

        result = audit(source, NOW)

        assert (result.discovered, result.findings) == (1, {"unlisted": 1})
        notices = source.ledger.totals(source.connector).notices
        assert [n.subject for n in notices if n.kind is NoticeKind.FOLDER_DENIED] == [folder()]
        assert set(source.ledger.coverage(source.connector, source.place)) == {folder(integration="bbb")}

    def test_where_nothing_may_be_listed_it_is_the_credential(self, store: FakeObjectStore, source: Source) -> None:
        """Then there is no audit."""
        store.put(key())
        store.faults[folder()] = CredentialError(Side.SOURCE, "denied", "grant it")

        with pytest.raises(CredentialError, match="denied"):
            audit(source, NOW)

    def test_unknown_types_are_counted_whole(self, store: FakeObjectStore, source: Source) -> None:
        """Also where they are not included."""
        store.put(key())
        for n in range(3):
            store.put(key(event_type="users.new.Thing", hour=THIS_HOUR - n * DAY))

        audit(source, NOW)

        (notice,) = (
            n for n in source.ledger.totals(source.connector).notices if n.kind is NoticeKind.UNKNOWN_EVENT_TYPE
        )
        assert (notice.subject, notice.count) == ("users.new.Thing", 3)

    def test_it_waits_after_each_full_page_and_ends_where_the_wait_says_so(
        self, store: FakeObjectStore, source: Source
    ) -> None:
        """So it is paced, and stops with the program; then it was none."""
        for offset in range(2_500):
            store.put(key(offset=offset))
        waits: list[timedelta] = []

        audit(source, NOW, wait=lambda: waits.append(HOUR))
        assert len(waits) == 2

        def stop() -> None:
            raise BridgeError("stopped")

        with pytest.raises(BridgeError, match="stopped"):
            audit(source, NOW + DAY, wait=stop)
        assert source.ledger.progress(source.connector).audited_at == NOW

    def test_it_costs_a_list_for_each_thousand_objects(self, store: FakeObjectStore, source: Source) -> None:
        """And one for the prefix and one for each integration."""
        for offset in range(2_000):
            store.put(key(offset=offset))

        audit(source, NOW)

        assert store.list_calls == 2 + 2
