from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from currents_bridge.errors import CredentialError, LedgerError, RetryLaterError, Side, UsageError
from currents_bridge.model import CurrentsObject, ObjectState, Selection, parse_hour
from currents_bridge.operations import backfill as job
from currents_bridge.operations.backfill import Plan, parse_span, plan, select
from currents_bridge.sending.sender import Pace
from tests.workbench import CLICK, HOUR, NAME, OPEN, Bench, clicks

SPAN = (HOUR, HOUR + timedelta(hours=2))
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 - bounds


@pytest.fixture
def bench() -> Bench:
    """A connector's core on fakes, with a file in each of four hours around the span of the tests."""
    bench = Bench()
    for number, hour in enumerate((HOUR - timedelta(hours=1), HOUR, HOUR + timedelta(hours=1), SPAN[1])):
        bench.put(2, offset=number, hour=hour)
    return bench


def states(bench: Bench) -> dict[datetime, ObjectState]:
    """Return the state of the object of each hour that is known."""
    return {parse_hour(row["hour"]): ObjectState(row["state"]) for row in bench.ledger.rows()}


@pytest.mark.parametrize(
    ("from_", "to", "hours"),
    [
        ("2026-01-31", "2026-02-01", ("2026-01-31T00", "2026-02-01T00")),
        ("2026-01-31T06", "2026-01-31T07", ("2026-01-31T06", "2026-01-31T07")),
        ("2026-01-31T06:59:59", "2026-01-31T07:00:00.000001", ("2026-01-31T06", "2026-01-31T08")),
        ("2026-01-31T06:10Z", "2026-01-31T06:20Z", ("2026-01-31T06", "2026-01-31T07")),
        ("2026-01-31T06:00+02:00", "2026-01-31T06:00-02:00", ("2026-01-31T04", "2026-01-31T08")),
    ],
)
def test_a_span_is_the_utc_hours_that_cover_it(from_: str, to: str, hours: tuple[str, str]) -> None:
    """A time without zone is UTC."""
    first, end = (datetime.fromisoformat(hour).replace(tzinfo=UTC) for hour in hours)

    assert parse_span(from_, to) == (first, end)


@pytest.mark.parametrize(
    ("from_", "to", "hours"),
    [
        ("0001-01-01", "2026-02-01", (None, datetime(2026, 2, 1, tzinfo=UTC))),
        ("2026-02-01", "9999-12-31T23:59", (datetime(2026, 2, 1, tzinfo=UTC), None)),
        ("0001-01-01", "0002-01-01", (None, datetime(2, 1, 1, tzinfo=UTC))),
    ],
)
def test_a_span_to_either_end_of_time_has_no_bound_there(
    bench: Bench, from_: str, to: str, hours: tuple[datetime | None, datetime | None]
) -> None:
    """Whatever hour an object has; it can be planned and delivered."""
    span = parse_span(from_, to)

    assert span == hours
    assert job.backfill(bench.connector(), select(bench.connector(), span, ())).error is None


@given(TIMES, st.timedeltas(timedelta(microseconds=1), timedelta(days=400)))
def test_a_span_holds_its_times_and_less_than_an_hour_more_on_either_side(first: datetime, length: timedelta) -> None:
    """Nothing is left out, and no hour that the span does not touch is let in."""
    first_hour, end_hour = parse_span(first.isoformat(), (first + length).isoformat())

    assert first_hour
    assert end_hour
    assert first - timedelta(hours=1) < first_hour <= first
    assert first + length <= end_hour < first + length + timedelta(hours=1)


@pytest.mark.parametrize(
    ("from_", "to", "words"),
    [
        ("yesterday", "2026-01-31", "--from yesterday is no time"),
        ("2026-01-31", "", "--to  is no time"),
        ("0001-01-01T00:00+05:00", "2026-01-31", "--from 0001-01-01T00:00[+]05:00 is no time"),
        ("2026-01-31T06:30", "2026-01-31T06:30", "no hour lies in"),
        ("2026-01-31T06:50", "2026-01-31T06:10", "no hour lies in"),
        ("2026-02-01", "2026-01-31", "no hour lies in"),
    ],
)
def test_a_span_that_is_none_is_refused(from_: str, to: str, words: str) -> None:
    """With what to write instead; also where both times lie in one hour."""
    with pytest.raises(UsageError, match=words):
        parse_span(from_, to)


def test_all_included_types_are_selected_without_a_glob(bench: Bench) -> None:
    """Over the hours of the span."""
    selection = select(bench.connector(), SPAN, ())

    assert {CLICK, OPEN} < selection.event_types
    assert (selection.first_hour, selection.end_hour) == SPAN


def test_globs_choose_among_the_included_types(bench: Bench) -> None:
    """Also among those that only the bucket knows."""
    bench.include = (CLICK, OPEN, "users.messages.carrierpigeon.*")
    bench.put(1, event_type="users.messages.carrierpigeon.Send")
    connector = bench.connector()

    assert select(connector, SPAN, ("*.Click",)).event_types == {CLICK}
    assert select(connector, SPAN, ("*.carrierpigeon.*", OPEN)).event_types == {
        "users.messages.carrierpigeon.Send",
        OPEN,
    }


@pytest.mark.parametrize(("globs", "words"), [(("*.Clack",), "matches [*].Clack$"), ((), "matches events.include$")])
def test_a_selection_of_nothing_is_refused(bench: Bench, globs: tuple[str, ...], words: str) -> None:
    """A misspelt type must not look like a backfill that is done."""
    bench.include = ("users.nothing.*",) if not globs else bench.include

    with pytest.raises(UsageError, match=words):
        select(bench.connector(), SPAN, globs)


def test_a_selection_from_a_bucket_that_cannot_be_listed_raises(bench: Bench) -> None:
    """Nothing can be said of its types."""
    bench.store.faults[""] = CredentialError(Side.SOURCE, "AccessDenied", "allow s3:ListBucket")

    with pytest.raises(CredentialError):
        select(bench.connector(), SPAN, ())


def test_a_backfill_delivers_the_hours_of_its_span_and_no_other(bench: Bench) -> None:
    """The end is not part of the span."""
    connector = bench.connector()

    report = job.backfill(connector, select(connector, SPAN, ()))

    assert (report.discovered, report.delivered, report.error) == (2, 2, None)
    assert states(bench) == dict.fromkeys((HOUR, HOUR + timedelta(hours=1)), ObjectState.DELIVERED)


def test_a_backfill_of_chosen_types_leaves_the_others_alone(bench: Bench) -> None:
    """Also where they are known and wait."""
    bench.put(2, event_type=OPEN)
    bench.admit()
    connector = bench.connector()

    report = job.backfill(connector, select(connector, SPAN, (OPEN,)))

    assert report.delivered == 1
    assert {message["event"] for message in bench.transport.messages} == {"Email Opened"}


def test_a_backfill_that_is_run_again_sends_nothing_twice(bench: Bench) -> None:
    """What was delivered is left out."""
    connector = bench.connector()
    selection = select(connector, SPAN, ())
    job.backfill(connector, selection)

    report = job.backfill(connector, selection)

    assert (report.delivered, len(bench.sent_ids())) == (0, 4)


def test_a_backfill_tries_at_once_what_failed_before(bench: Bench) -> None:
    """So that running it again resumes it."""
    connector = bench.connector()
    selection = select(connector, SPAN, ())
    bench.transport.down = True
    assert job.backfill(connector, selection).failed == 2
    bench.transport.down = False

    assert job.backfill(connector, selection).delivered == 2


def test_a_resend_sends_what_was_delivered_with_the_same_message_ids(bench: Bench) -> None:
    """So that Segment drops what it still remembers; the books count each event once."""
    connector = bench.connector()
    connector.poll()
    before = bench.sent_ids()

    report = job.backfill(connector, select(connector, SPAN, ()), resend=True)

    assert (report.discovered, report.delivered) == (0, 2)
    assert bench.sent_ids()[8:] == before[2:6]
    assert bench.ledger.totals(NAME).books.sent == 8


def test_a_resend_finds_folded_objects_again(bench: Bench) -> None:
    """The bucket is the one to say what was there."""
    connector = bench.connector()
    connector.poll()
    bench.ledger.fold(NAME, HOUR + timedelta(days=1), HOUR + timedelta(days=1))

    report = job.backfill(connector, select(connector, SPAN, ()), resend=True)

    assert (report.discovered, report.delivered) == (0, 2)


def test_a_backfill_has_a_pace_of_its_own(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or that of the settings where none is given."""
    connector = bench.connector(requests_per_second=50)
    paces: list[Pace | None] = []
    monkeypatch.setattr(connector, "deliver", lambda _, __, *, pace, **___: paces.append(pace))

    for requests_per_second in (4, None):
        job.backfill(connector, select(connector, SPAN, ()), requests_per_second=requests_per_second)

    assert [pace and pace._request_s for pace in paces] == [0.25, None]


def test_a_backfill_that_cannot_list_delivers_nothing(bench: Bench) -> None:
    """The report has the error."""
    connector = bench.connector()
    selection = select(connector, SPAN, ())
    bench.store.faults[""] = RetryLaterError("s3 answered 503")

    report = job.backfill(connector, selection)

    assert (str(report.error), report.delivered) == ("s3 answered 503", 0)


def test_a_plan_counts_what_is_outstanding_and_writes_nothing(bench: Bench) -> None:
    """A dry run leaves no trace in the ledger."""
    connector = bench.connector()
    selection = select(connector, SPAN, ())

    planned = plan(connector, selection, max_batch_bytes=475_000, resend=False)

    sizes = [item.size_bytes for item in bench.store.list("")]
    assert planned == Plan(2, sum(sizes[1:3]), 1)
    assert (bench.ledger.rows(), bench.transport.attempts) == ([], 0)


def test_a_plan_leaves_out_what_was_delivered_unless_it_is_to_be_sent_again(bench: Bench) -> None:
    """As the backfill would."""
    connector = bench.connector()
    connector.poll()
    selection = select(connector, SPAN, ())

    assert plan(connector, selection, max_batch_bytes=475_000, resend=False) == Plan(0, 0, 0)
    assert plan(connector, selection, max_batch_bytes=475_000, resend=True).objects == 2


def test_a_plan_estimates_requests_from_the_size_of_messages() -> None:
    """It comes close to what the backfill then needs."""
    bench = Bench()
    for offset in range(4):
        bench.put(clicks(300, offset), offset=offset)
    connector = bench.connector(max_batch_bytes=40_000)
    selection = select(connector, SPAN, ())

    planned = plan(connector, selection, max_batch_bytes=40_000, resend=False)
    report = job.backfill(connector, selection)

    assert planned.requests == pytest.approx(report.batches, rel=0.1)
    assert planned.as_json() == {"objects": 4, "bytes": planned.object_bytes, "requests": planned.requests}


def test_a_plan_goes_past_objects_that_cannot_be_read(bench: Bench) -> None:
    """They are counted, and will be quarantined."""
    bench = Bench()
    bench.put(2, cut_bytes=10_000)

    assert plan(bench.connector(), Selection(frozenset({CLICK})), max_batch_bytes=475_000, resend=False).requests == 0


def test_a_large_plan_is_asked_of_the_ledger_in_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """No listing is held as a whole."""
    bench = Bench()
    monkeypatch.setattr(job, "PAGE_OBJECTS", 2)
    for offset in range(5):
        bench.put(1, offset=offset)
    connector = bench.connector()
    pages: list[int] = []
    outstanding = bench.ledger.outstanding

    def paged(name: str, page: Sequence[CurrentsObject]) -> list[CurrentsObject]:
        pages.append(len(page))
        return outstanding(name, page)

    monkeypatch.setattr(bench.ledger, "outstanding", paged)

    planned = plan(connector, select(connector, SPAN, ()), max_batch_bytes=475_000, resend=False)

    assert (planned.objects, pages) == (5, [2, 2, 1])


def test_a_resend_that_the_ledger_refuses_sends_nothing(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The backfill ends with its error."""
    connector = bench.connector()
    bench.put(1)

    def reopen(*_: object) -> int:
        raise LedgerError("disk full")

    monkeypatch.setattr(bench.ledger, "reopen", reopen)

    report = job.backfill(connector, Selection(frozenset({CLICK})), resend=True)

    assert isinstance(report.error, LedgerError)
    assert bench.transport.attempts == 0


ARCHIVED = RetryLaterError("the object is archived", "restore it from its storage class, then it is read")


def test_a_plan_takes_another_sample_where_one_is_archived() -> None:
    """The newest of a type, else the oldest."""
    bench = Bench()
    keys = [bench.put(clicks(300, offset), offset=offset) for offset in range(3)]
    selection = Selection(frozenset({CLICK}))
    whole = plan(bench.connector(), selection, max_batch_bytes=40_000, resend=False)

    bench.store.faults |= {keys[1]: ARCHIVED, keys[2]: ARCHIVED}

    planned = plan(bench.connector(), selection, max_batch_bytes=40_000, resend=False)
    assert planned.requests == pytest.approx(whole.requests, rel=0.1)


def test_a_plan_of_an_archive_counts_on_as_usual(bench: Bench) -> None:
    """It is an estimate, and the objects are told by the listing."""
    for item in bench.store.list(""):
        bench.store.faults[item.key] = ARCHIVED
    connector = bench.connector()

    planned = plan(connector, select(connector, SPAN, ()), max_batch_bytes=475_000, resend=False)

    assert (planned.objects, planned.requests) == (2, 1)
