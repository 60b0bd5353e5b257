"""What each answer of the settings endpoint and of the Public API says of a write key."""

import json
import logging
import traceback
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from currents_bridge.destinations.segment.endpoint import REGION_URLS
from currents_bridge.destinations.segment.probes import PublicApiProbe, SettingsProbe
from currents_bridge.errors import ConfigError, ConfigProblem, ProbeError
from currents_bridge.model import Acknowledged, Evidence, EvidenceKind, Shortfall
from currents_bridge.ports import Probe
from currents_bridge.testing.collector import Answer, Collector
from tests.played_segment import KEY, Clock, post

SECRET = SecretStr(KEY)
TOKEN = "public-api-token"
MINUTE = timedelta(minutes=1)
SETTINGS, SOURCE, COUNTS = "/v1/projects/", "/sources/", "/delivery-overview/"


class Bench:
    """A played Segment, both probes, and what the bridge would know of its own acknowledgements."""

    def __init__(self, collector: Collector, clock: Clock) -> None:
        self.collector, self.world, self.clock = collector, collector.world, clock
        self.settings = SettingsProbe(collector.url, collector.url)
        self.public_api = PublicApiProbe(collector.url, self.read_token, "braze-source")
        self.acknowledged: list[Acknowledged] = []
        self.keys_seen_with: str | None = None
        self.token: str | None = TOKEN

    def read_token(self) -> SecretStr:
        """Read what is in the secret's place now."""
        if self.token is None:
            raise ConfigError([ConfigProblem("public_api.token", "is not set")], "set it")
        return SecretStr(self.token)

    def send(self, events: int, *, event: str = "Email Clicked") -> datetime:
        """Have events acknowledged now, and return the time."""
        assert post(self.collector, events, event=event) == 200
        self.acknowledged.append(Acknowledged(self.clock(), events))
        return self.clock()

    def ask(self, probe: Probe, key: SecretStr = SECRET) -> Evidence | None:
        """Ask now."""
        return probe.ask(key, self.clock(), self.acknowledged, self.keys_seen_with)

    def answer(self, probe: Probe) -> Evidence:
        """Ask now, for an answer that says something."""
        evidence = self.ask(probe)
        assert evidence is not None
        return evidence


@pytest.fixture
def bench() -> Iterator[Bench]:
    """A Segment that knows the key."""
    clock = Clock()
    with Collector(write_keys={KEY}, now=clock) as collector:
        yield Bench(collector, clock)


def kind(evidence: Evidence | None) -> EvidenceKind | None:
    """Return what the evidence says."""
    return evidence.kind if evidence else None


def test_the_settings_endpoint_knows_a_key_or_does_not(bench: Bench) -> None:
    """Both are evidence, with the time of the question."""
    assert bench.ask(bench.settings) == Evidence(EvidenceKind.KNOWN, bench.clock(), "127.0.0.1 knows the write key")

    bench.world.revoke_key(KEY)
    denied = bench.answer(bench.settings)
    assert (denied.kind, denied.at) == (EvidenceKind.UNKNOWN, bench.clock())
    assert "destination.write_key" in denied.hint


@pytest.mark.parametrize(
    ("tracking", "api_host", "expected"),
    [
        ("us", "api.segment.io/v1", EvidenceKind.KNOWN),
        ("eu", "events.eu1.segmentapis.com/v1", EvidenceKind.KNOWN),
        ("us", "events.eu1.segmentapis.com/v1", EvidenceKind.UNKNOWN),
        ("eu", "api.segment.io/v1", EvidenceKind.UNKNOWN),
        ("us", "in.eu2.segmentapis.com/v1", EvidenceKind.KNOWN),
        ("us", "", EvidenceKind.KNOWN),
        ("us", "[x", EvidenceKind.KNOWN),
        ("us", "\u2100.example", EvidenceKind.KNOWN),
    ],
)
def test_a_key_of_another_region_is_unknown_where_events_are_sent(
    bench: Bench, tracking: str, api_host: str, expected: EvidenceKind
) -> None:
    """The settings name the host that takes the source's events; a host that nobody knows says nothing."""
    bench.world.api_host = api_host

    evidence = bench.answer(SettingsProbe(bench.collector.url, REGION_URLS[tracking]))

    assert evidence.kind is expected
    assert (expected is EvidenceKind.UNKNOWN) == ("destination.region" in evidence.hint)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, body="no such page"),
        Answer(301, {"Location": f"/v1/projects/{KEY}/settings"}),
        Answer(403),
        Answer(429),
        Answer(500),
        Answer(body="<html>log in first</html>"),
        Answer(body='{"integrations": []}'),
        Answer(body="[]"),
        Answer(body='{"integrations": {"Segment.io": []}}'),
        Answer(body='{"integrations": {"Segment.io": {"apiHost": 1}}}'),
        Answer(body="[" * 100_000),
        Answer(reset="before"),
    ],
)
def test_any_other_answer_of_the_settings_endpoint_says_nothing_of_the_key(bench: Bench, answer: Answer) -> None:
    """Neither for it nor against it."""
    bench.world.answers[SETTINGS] = answer

    with pytest.raises(ProbeError, match=r"127\.0\.0\.1"):
        bench.ask(bench.settings)


def test_a_listed_key_of_an_enabled_source_is_confirmed(bench: Bench) -> None:
    """With nothing acknowledged since, it is proven up to now, for one request."""
    evidence = bench.answer(bench.public_api)

    assert (evidence.kind, evidence.at) == (EvidenceKind.CONFIRMED, bench.clock())
    assert bench.world.asked == ["/sources/braze-source"]


def test_a_key_that_is_not_listed_is_revoked(bench: Bench) -> None:
    """As long as the token sees any key at all."""
    bench.world.add_key("another")
    bench.world.revoke_key(KEY)

    assert kind(bench.ask(bench.public_api)) is EvidenceKind.REVOKED


def test_a_disabled_source_is_told_first(bench: Bench) -> None:
    """Whatever its keys are."""
    bench.world.source_enabled = False
    bench.world.revoke_key(KEY)

    assert kind(bench.ask(bench.public_api)) is EvidenceKind.DISABLED


def test_hidden_keys_with_nothing_to_count_say_nothing(bench: Bench) -> None:
    """An empty list means that the token may not see the keys."""
    bench.world.keys_hidden = True

    assert bench.ask(bench.public_api) is None
    bench.send(5)
    bench.clock.passes(MINUTE)  # too new to be counted
    assert bench.ask(bench.public_api) is None


def test_what_is_too_new_to_be_counted_is_not_proven_by_a_listed_key(bench: Bench) -> None:
    """Else events for a wrong region could be proven each time before they are counted."""
    bench.send(5)
    now = bench.clock.passes(MINUTE)

    evidence = bench.answer(bench.public_api)

    assert (evidence.kind, evidence.at) == (EvidenceKind.CONFIRMED, now - 2 * MINUTE)


@pytest.mark.parametrize("hidden", [False, True])
def test_what_was_received_is_counted(bench: Bench, hidden: bool) -> None:  # noqa: FBT001 - a case
    """Three requests tell it; without sight of the keys it is proven up to the last minute with events only."""
    bench.world.keys_hidden = hidden
    bench.send(5)
    last = bench.clock.passes(MINUTE)
    bench.send(7)
    now = bench.clock.passes(5 * MINUTE)

    evidence = bench.answer(bench.public_api)

    assert (evidence.kind, evidence.at) == (EvidenceKind.RECEIVED, last if hidden else now - 2 * MINUTE)
    assert "of 12 events acknowledged" in evidence.detail
    assert "received 12, and 0 failed" in evidence.detail
    assert len(bench.world.asked) == 3


@pytest.mark.parametrize("flaw", ["source_elsewhere", "keys_hidden"])
def test_nothing_received_of_what_was_acknowledged_is_told_with_numbers(bench: Bench, flaw: str) -> None:
    """So a wrong region is found though the key is listed, and a dead key though none is."""
    setattr(bench.world, flaw, True)
    if flaw == "keys_hidden":
        bench.world.revoke_key(KEY)
    bench.send(12)
    bench.clock.passes(5 * MINUTE)

    evidence = bench.answer(bench.public_api)

    assert (evidence.kind, evidence.at) == (EvidenceKind.NOT_RECEIVED, bench.clock())
    assert "of 12 events acknowledged" in evidence.detail
    assert "received 0, and 0 failed" in evidence.detail
    assert "destination.region" in evidence.hint


def test_only_failures_on_ingest_count_as_nothing_received(bench: Bench) -> None:
    """The number of failures is told."""
    bench.send(6, event="")
    bench.clock.passes(5 * MINUTE)

    evidence = bench.answer(bench.public_api)

    assert evidence.kind is EvidenceKind.NOT_RECEIVED
    assert "received 0, and 6 failed" in evidence.detail


def test_fewer_than_acknowledged_prove_nothing_until_they_are_old_enough_to_be_counted(bench: Bench) -> None:
    """Counts may be late; then what is missing is told, with its span, and is not asked about again."""
    last = bench.send(10)
    bench.acknowledged[-1] = Acknowledged(last, 12)
    bench.clock.passes(5 * MINUTE)
    evidence = bench.answer(bench.public_api)
    assert (evidence.kind, evidence.shortfall) == (EvidenceKind.RECEIVED, None)
    assert evidence.at < last
    assert "of 12 events acknowledged" in evidence.detail
    assert "received 10, and 0 failed" in evidence.detail

    bench.clock.passes(15 * MINUTE)
    evidence = bench.answer(bench.public_api)
    assert (evidence.at, evidence.shortfall) == (last, Shortfall(last, last, 12, 10))


def test_failures_on_ingest_explain_what_was_not_received(bench: Bench) -> None:
    """They arrived, and Segment says there what is wrong with them."""
    last = bench.send(10)
    bench.acknowledged[-1] = Acknowledged(last, 12)
    bench.send(2, event="")
    bench.acknowledged.pop()
    now = bench.clock.passes(25 * MINUTE)
    evidence = bench.answer(bench.public_api)
    assert (evidence.at, evidence.shortfall) == (now - 2 * MINUTE, None)
    assert "received 10, and 2 failed" in evidence.detail


def test_a_few_repeats_are_no_shortfall(bench: Bench) -> None:
    """Braze writes some events twice, and Segment rightly drops one of each."""
    last = bench.send(200)
    bench.acknowledged[-1] = Acknowledged(last, 202)
    bench.clock.passes(25 * MINUTE)
    assert bench.answer(bench.public_api).shortfall is None


def test_what_was_sent_again_and_never_arrived_is_a_shortfall_of_its_own(bench: Bench) -> None:
    """Segment may remember the ids of what it dropped; one new event that arrives does not hide it."""
    first = bench.clock()
    bench.acknowledged.append(Acknowledged(first, 0, again=8))
    bench.clock.passes(MINUTE)
    last = bench.send(3)
    bench.clock.passes(25 * MINUTE)
    assert bench.answer(bench.public_api).shortfall == Shortfall(first, last, 8, 0, again=True)


def test_some_of_what_was_sent_again_may_be_repeats(bench: Bench) -> None:
    """What was received before the key died is dropped, and rightly so."""
    sent = bench.send(5)
    bench.acknowledged[-1] = Acknowledged(sent, 3, again=8)
    bench.clock.passes(25 * MINUTE)
    assert bench.answer(bench.public_api).shortfall is None


def test_a_source_without_any_key_says_that_the_key_is_revoked_to_a_token_that_has_seen_keys(bench: Bench) -> None:
    """To any other it may just not show them."""
    seen = bench.answer(bench.public_api).keys_seen_with
    assert seen
    bench.world.revoke_key(KEY)
    bench.clock.passes(MINUTE)
    assert bench.ask(bench.public_api) is None
    bench.keys_seen_with = seen
    assert kind(bench.ask(bench.public_api)) is EvidenceKind.REVOKED
    bench.keys_seen_with = "of another token"
    assert bench.ask(bench.public_api) is None


@pytest.mark.parametrize("outage", [timedelta(minutes=30), timedelta(hours=12), timedelta(days=20)])
def test_a_key_that_died_in_the_middle_of_the_span_is_found(bench: Bench, outage: timedelta) -> None:
    """What was received before does not speak for what was acknowledged long after."""
    bench.world.keys_hidden = True
    bench.send(1000)
    bench.world.revoke_key(KEY, bench.clock() + MINUTE)
    for _ in range(10):
        bench.clock.passes(outage / 10)
        bench.send(10)

    evidence = bench.answer(bench.public_api)

    assert evidence.kind is EvidenceKind.NOT_RECEIVED
    assert "it got nothing of the" in evidence.detail


@pytest.mark.parametrize(
    ("idle", "granularity"),
    [
        (timedelta(minutes=2), "MINUTE"),
        (timedelta(hours=3, minutes=57), "MINUTE"),
        (timedelta(hours=4), "HOUR"),
        (timedelta(days=13), "HOUR"),
        (timedelta(days=14), "DAY"),
        (timedelta(days=28), "DAY"),
    ],
)
def test_the_finest_granularity_that_takes_one_request_is_asked_for(
    bench: Bench, idle: timedelta, granularity: str
) -> None:
    """The played Segment refuses spans beyond what the Public API takes."""
    bench.send(5)
    bench.clock.passes(idle)

    assert kind(bench.ask(bench.public_api)) is EvidenceKind.RECEIVED
    assert f"granularity={granularity}" in bench.world.asked[1]


def test_what_the_counts_do_not_reach_is_not_counted(bench: Bench) -> None:
    """Then the list of keys is all there is."""
    bench.send(5)
    bench.clock.passes(timedelta(days=29))

    assert kind(bench.ask(bench.public_api)) is EvidenceKind.CONFIRMED


@pytest.mark.parametrize(
    ("path", "answer", "remedy"),
    [
        (SOURCE, Answer(401, body="unauthorized"), "destination.public_api.token"),
        (SOURCE, Answer(403, body="forbidden"), "destination.public_api.token"),
        (SOURCE, Answer(404, body="not found"), "destination.public_api.source_id"),
        (SOURCE, Answer(429, {"X-RateLimit-Reset": "Fri, 02 Jan 2026 12:05:00 GMT"}), "schedule.probe"),
        (SOURCE, Answer(503), "asked again"),
        (SOURCE, Answer(302, {"Location": "/elsewhere"}), "destination.public_api.endpoint_url"),
        (SOURCE, Answer(body="<html>"), "destination.public_api.endpoint_url"),
        (SOURCE, Answer(body='{"data": []}'), "destination.public_api.endpoint_url"),
        (SOURCE, Answer(body='{"data": {"source": {"writeKeys": []}}}'), "destination.public_api.endpoint_url"),
        (SOURCE, Answer(reset="before"), "can be reached"),
        (SOURCE, Answer(body='{"data": {"source": {"enabled": 1}}}'), "destination.public_api.endpoint_url"),
        *(
            (
                SOURCE,
                Answer(body=f'{{"data": {{"source": {{"enabled": true, "writeKeys": {keys}}}}}}}'),
                "destination.public_api.endpoint_url",
            )
            for keys in ('"abc"', '{"a": 1}', "1", "true", "[1]", "[null]", '[""]', "[[]]", '["********"]')
        ),
        *(
            (
                COUNTS,
                Answer(body=f'{{"data": {{"dataset": [{{"series": [{{"time": {time}, "count": {count}}}]}}]}}}}'),
                "public_api.endpoint_url",
            )
            for time, count in (
                ('"2026-01-02T03:04:00Z"', '"many"'),
                ('"2026-01-02T03:04:00Z"', "-1"),
                ('"2026-01-02T03:04:00Z"', "1e300"),
                ('"2026-01-02T03:04:00Z"', "NaN"),
                ('"2026-01-02T03:04:00Z"', "true"),
                ('"0001-01-01T00:00:00+23:59"', "1"),
                ('"9999-12-31T23:59:59-23:59"', "1"),
                ('"soon"', "1"),
                ("1", "1"),
                ("null", "1"),
            )
        ),
        (COUNTS, Answer(403), "destination.public_api.token"),
        (COUNTS, Answer(body='{"data": {"dataset": [{"series": [{"count": 1}]}]}}'), "public_api.endpoint_url"),
    ],
)
def test_what_is_wrong_with_the_probe_itself_is_no_evidence(
    bench: Bench, path: str, answer: Answer, remedy: str
) -> None:
    """It is told with what to do about it."""
    bench.send(5)
    bench.clock.passes(5 * MINUTE)
    bench.world.answers[path] = answer

    with pytest.raises(ProbeError) as caught:
        bench.ask(bench.public_api)

    assert "127.0.0.1" in caught.value.message
    assert remedy in caught.value.hint


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda some: st.lists(some, max_size=3) | st.dictionaries(st.text(), some, max_size=3),
    max_leaves=6,
)
ANSWERS = st.one_of(
    JSON,
    st.fixed_dictionaries({"data": JSON}),
    st.fixed_dictionaries({"data": st.fixed_dictionaries({"source": JSON})}),
    st.fixed_dictionaries(
        {
            "data": st.fixed_dictionaries(
                {"source": st.fixed_dictionaries({"enabled": st.just(True), "writeKeys": JSON})}
            )
        }
    ),
    st.fixed_dictionaries({"data": st.fixed_dictionaries({"dataset": JSON})}),
    st.fixed_dictionaries(
        {
            "data": st.fixed_dictionaries(
                {
                    "dataset": st.tuples(
                        st.fixed_dictionaries(
                            {"series": st.lists(st.fixed_dictionaries({"time": JSON, "count": JSON}), max_size=2)}
                        )
                    )
                }
            )
        }
    ),
    st.fixed_dictionaries({"integrations": JSON}),
    st.fixed_dictionaries({"integrations": st.fixed_dictionaries({"Segment.io": JSON})}),
    st.fixed_dictionaries(
        {"integrations": st.fixed_dictionaries({"Segment.io": st.fixed_dictionaries({"apiHost": JSON})})}
    ),
)


@settings(max_examples=60, deadline=None)
@given(ANSWERS, st.sampled_from([SETTINGS, SOURCE, COUNTS]))
def test_no_json_is_taken_for_evidence_against_a_key(document: object, path: str) -> None:
    """Each probe understands an answer whole, or raises its own error."""
    clock = Clock()
    with Collector(write_keys={KEY}, now=clock) as collector:
        bench = Bench(collector, clock)
        bench.send(5)
        clock.passes(5 * MINUTE)
        bench.world.answers[path] = Answer(body=json.dumps(document))
        for probe in (bench.settings, bench.public_api):
            try:
                evidence = bench.ask(probe)
            except ProbeError:
                continue
            if kind(evidence) is EvidenceKind.NOT_RECEIVED:
                assert _says_nothing_came(document)
            elif kind(evidence) is EvidenceKind.REVOKED:
                assert _lists_other_keys(document)
            else:
                assert kind(evidence) in {None, EvidenceKind.KNOWN, EvidenceKind.CONFIRMED, EvidenceKind.RECEIVED}


def _lists_other_keys(document: Any) -> bool:
    """Return whether a document is a source, enabled, whose keys are texts, at least one of them like a key."""
    source = document["data"]["source"]
    keys = source["writeKeys"]
    return (
        source["enabled"] is True
        and all(isinstance(key, str) for key in keys)
        and any(key.replace("_", "a").isalnum() for key in keys)
    )


def _says_nothing_came(document: Any) -> bool:
    """Return whether a document is counts, and they are none."""
    series = [part["series"] for part in document["data"]["dataset"]]
    return all(point["count"] == 0 for points in series for point in points)


@pytest.mark.parametrize("probe", ["settings", "public_api"])
def test_a_server_that_is_not_there_is_no_evidence(probe: str) -> None:
    """A refused connection says nothing of the key."""
    clock = Clock()
    with Collector(now=clock) as collector:
        bench = Bench(collector, clock)

    with pytest.raises(ProbeError, match=r"no answer from 127\.0\.0\.1: NewConnectionError"):
        bench.ask(getattr(bench, probe))


def test_the_token_is_read_each_time(bench: Bench) -> None:
    """One that was replaced is found without a restart, and one that cannot be read is no evidence."""
    bench.token = "expired"
    with pytest.raises(ProbeError, match="401"):
        bench.ask(bench.public_api)
    bench.token = None
    with pytest.raises(ProbeError, match=r"cannot be read: public_api\.token: is not set"):
        bench.ask(bench.public_api)
    bench.token = TOKEN
    assert kind(bench.ask(bench.public_api)) is EvidenceKind.CONFIRMED


@pytest.mark.parametrize(("probe", "secrets"), [("settings", [KEY]), ("public_api", [KEY, TOKEN])])
@pytest.mark.parametrize(
    "answer",
    [
        None,
        Answer(200, body=f'"{KEY} {TOKEN}'),
        Answer(301, {"Location": f"http://127.0.0.1:9/v1/projects/{KEY}/settings?token={TOKEN}"}),
        Answer(404, body=f"Invalid path or write key provided: {KEY}"),
        Answer(404, body=f"nothing at {KEY}"),
        Answer(500, {"X-Echo": f"{KEY} {TOKEN}"}, f"{KEY} {TOKEN}"),
        Answer(reset="before"),
    ],
)
def test_neither_key_nor_token_shows_anywhere(
    bench: Bench, probe: str, secrets: list[str], answer: Answer | None, caplog: pytest.LogCaptureFixture
) -> None:
    """Not in evidence, errors, their chains and tracebacks, nor in the logs of any library at any level."""
    caplog.set_level(logging.DEBUG)
    for name in [*logging.root.manager.loggerDict]:
        if name.split(".")[0] == "urllib3":
            caplog.set_level(logging.DEBUG, logger=name)
    if answer:
        bench.world.answers |= {SETTINGS: answer, SOURCE: answer}
    asked: Probe = getattr(bench, probe)

    chain: set[BaseException | None]
    try:
        shown, chain = repr(bench.ask(asked)), {None}
    except ProbeError as error:
        shown = f"{error} {error!r} {error.hint} {''.join(traceback.format_exception(error))}"
        chain = {error.__context__, error.__cause__}

    everything = f"{shown} {asked!r} {vars(asked)} {caplog.text}"
    assert bench.world.asked
    assert chain == {None}  # errors of libraries hold the request
    assert [secret for secret in secrets if secret in everything] == []


def test_a_key_with_any_characters_stays_in_its_place_in_the_path(bench: Bench) -> None:
    """A key of a wrong shape asks no other endpoint."""
    assert kind(bench.ask(bench.settings, SecretStr("a/../b?c#d\n"))) is EvidenceKind.UNKNOWN
    assert bench.world.asked == ["/v1/projects/a%2F..%2Fb%3Fc%23d%0A/settings"]
