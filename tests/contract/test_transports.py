"""The contract of ports.Transport, on the fake and on both ways to Segment."""

import gc
import json
import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import polars as pl
import pytest
import urllib3
from pydantic import SecretStr

from currents_bridge.destinations.segment.batch import SegmentBatchTransport
from currents_bridge.destinations.segment.oauth import OAuth
from currents_bridge.destinations.segment.sdk import SegmentSdkTransport
from currents_bridge.errors import BridgeError, CredentialError, RefusedError, RetryLaterError, Side
from currents_bridge.model import Batch, Part, Refusal
from currents_bridge.ports import Transport
from currents_bridge.sending.sender import ENVELOPE_BYTES, Pace, Sender, key_in_body
from currents_bridge.testing.collector import Answer, Collector, RequestInfo
from currents_bridge.testing.fake_transport import FakeTransport
from tests.played_segment import CLIENT_ID, KEY_ID, Clock, enforcement, key_pair

KEY = "k3yOfTheSource0000000000000000ab"
NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)

ERRORS: dict[int, BridgeError] = {
    302: CredentialError(Side.DESTINATION, "302", "check the endpoint"),
    400: RefusedError("400"),
    401: CredentialError(Side.DESTINATION, "401", "check the key"),
    403: CredentialError(Side.DESTINATION, "403", "check the key"),
    404: CredentialError(Side.DESTINATION, "404", "check the endpoint"),
    408: RetryLaterError("408"),
    410: CredentialError(Side.DESTINATION, "410", "check the endpoint"),
    413: RefusedError("413"),
    429: RetryLaterError("429", wait_s=7),
    460: RetryLaterError("460"),
    500: RetryLaterError("500"),
    501: RetryLaterError("501"),
    503: RetryLaterError("503", wait_s=7),
    511: CredentialError(Side.DESTINATION, "511", "check the key"),
}


@dataclass
class Rig:
    """A transport, how to make its next attempt fail, and what arrived through it."""

    transport: Transport
    fail_next: Callable[[int], None]  # with a status of ERRORS
    arrived: Callable[[], list[dict[str, Any]]]


def sdk(collector: Collector) -> Transport:
    """Make the transport over Segment's library."""
    return SegmentSdkTransport(SecretStr(KEY), base_url=collector.url, clock=lambda: NOW)


def batch_api(collector: Collector) -> Transport:
    """Make the transport over the batch API."""
    return SegmentBatchTransport(SecretStr(KEY), base_url=collector.url, max_in_flight=4, clock=lambda: NOW)


REAL = {"batch": batch_api, "sdk": sdk}


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that knows the key."""
    with Collector(write_keys={KEY}) as running:
        yield running
    assert not running.rejected
    assert not running.dropped


@pytest.fixture(params=["fake", *REAL])
def rig(request: pytest.FixtureRequest, collector: Collector) -> Iterator[Rig]:
    """Each transport in turn."""
    if request.param == "fake":
        fake = FakeTransport()
        yield Rig(fake, lambda status: fake.outcomes.append(ERRORS[status]), lambda: fake.messages)
        return
    transport = REAL[request.param](collector)
    yield Rig(transport, lambda status: fail_once(collector, status), lambda: collector.messages)
    transport.close()


@pytest.fixture(params=REAL)
def real(request: pytest.FixtureRequest, collector: Collector) -> Iterator[Transport]:
    """Each transport with a network."""
    transport = REAL[request.param](collector)
    yield transport
    transport.close()


def fail_once(collector: Collector, status: int) -> None:
    """Let the collector answer the next request with the status, as Segment or a proxy would."""
    error = ERRORS[status]
    headers = {"Retry-After": "7"} if isinstance(error, RetryLaterError) and error.wait_s else {}
    if status == 302:
        headers = {"Location": f"{collector.url}/elsewhere"}
    answers = [Answer(status, headers, f"no, not with {KEY}")]
    collector.answer_with(lambda _: answers.pop() if answers else None)


def make_message(message_id: str, **changes: Any) -> dict[str, Any]:
    """Make a message as the mapping makes them, with values that are hard to carry."""
    return {
        "type": "track",
        "userId": "user 1",
        "anonymousId": "braze-1",
        "event": "Email Clicked",
        "messageId": message_id,
        "timestamp": "2026-01-01T00:00:00.120Z",
        "properties": {"name": 'été "\\\u2028😀\u0001', "count": 2**53, "share": 0.1, "tags": ["a", "b"], "on": True},
        "context": {"device": {"id": "d"}, "traits": {"email": "a@example.com"}},
        "integrations": {"Braze": False},
    } | changes


def make_batch(*objects: list[dict[str, Any]]) -> Batch:
    """Make a batch with one part an object; object ids count from 1."""
    parts, sizes = [], []
    for object_id, messages in enumerate(objects, 1):
        texts = [json.dumps(message, ensure_ascii=False, separators=(",", ":")) for message in messages]
        sizes += [len(text.encode()) for text in texts]
        ids = [message["messageId"] for message in messages]
        frame = {"row": range(len(texts)), "message_id": ids, "message": texts}
        parts.append(Part(object_id, pl.DataFrame(frame, schema_overrides={"row": pl.UInt32})))
    return Batch(tuple(parts), len(sizes), ENVELOPE_BYTES + sum(sizes) + len(sizes) - 1, ENVELOPE_BYTES)


def content(message: dict[str, Any]) -> dict[str, Any]:
    """Return what a message says, without what Segment's library adds: its name, empty fields, its spelling of UTC."""
    said = {name: value for name, value in message.items() if value not in (None, {})}
    said["context"] = {name: value for name, value in said["context"].items() if name != "library"}
    said["timestamp"] = datetime.fromisoformat(said["timestamp"])
    return said


def test_every_message_arrives_once_in_order_with_equal_content(rig: Rig) -> None:
    """All parts of the batch arrive, whatever their text holds."""
    first = [make_message(f"a{n}") for n in range(300)]
    second = [make_message("b1", userId="only"), make_message("b2", properties={})]
    del second[0]["anonymousId"], second[1]["userId"], second[1]["integrations"]

    assert list(rig.transport.send(make_batch(first, second))) == []

    arrived = [content(message) for message in rig.arrived()]
    expected = [content(message) for message in first + second]
    assert [m | {"properties": m.get("properties", {})} for m in arrived] == [
        m | {"properties": m.get("properties", {})} for m in expected
    ]


@pytest.mark.parametrize("status", ERRORS)
def test_an_attempt_that_fails_raises_what_to_do_next(rig: Rig, status: int) -> None:
    """Each kind of answer has its error, with the wait that it names, and nothing was acknowledged."""
    rig.fail_next(status)

    with pytest.raises(BridgeError) as caught:
        rig.transport.send(make_batch([make_message("a")]))

    assert type(caught.value) is type(ERRORS[status])
    assert getattr(caught.value, "wait_s", None) == getattr(ERRORS[status], "wait_s", None)
    assert getattr(caught.value, "side", None) == getattr(ERRORS[status], "side", None)
    assert rig.arrived() == []


@pytest.mark.parametrize("status", [401, 429, 500])
def test_after_an_error_the_same_batch_can_be_sent_again(rig: Rig, status: int) -> None:
    """Message ids stay, so that sending again is safe."""
    batch = make_batch([make_message("a"), make_message("b")])
    rig.fail_next(status)
    with pytest.raises(BridgeError):
        rig.transport.send(batch)

    assert list(rig.transport.send(batch)) == []

    assert [message["messageId"] for message in rig.arrived()] == ["a", "b"]


def test_threads_may_send_at_once(rig: Rig) -> None:
    """Batches of several threads do not mix or get lost."""
    batches = [make_batch([make_message(f"{n}-{row}") for row in range(20)]) for n in range(12)]

    with ThreadPoolExecutor(4) as pool:
        assert not any(pool.map(rig.transport.send, batches))

    ids = [message["messageId"] for message in rig.arrived()]
    assert sorted(ids) == sorted(f"{n}-{row}" for n in range(12) for row in range(20))


def test_close_may_be_repeated(rig: Rig) -> None:
    """Closing twice is as closing once."""
    rig.transport.send(make_batch([make_message("a")]))

    rig.transport.close()
    rig.transport.close()


def test_no_thread_outlives_a_transport(collector: Collector) -> None:
    """Nothing of the transports keeps running, or runs at exit."""
    before = set(threading.enumerate())
    for make in REAL.values():
        transport = make(collector)
        transport.send(make_batch([make_message("a")]))
        transport.close()

    left = {thread for thread in set(threading.enumerate()) - before if "process_request_thread" not in thread.name}
    assert left == set()


@pytest.mark.parametrize("status", [302, 400, 401, 429, 500])
def test_neither_errors_nor_logs_hold_the_write_key(
    real: Transport, collector: Collector, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    """An answer that repeats the key spreads it neither through our errors nor through the libraries' logs."""
    caplog.set_level(logging.DEBUG)
    fail_once(collector, status)

    with pytest.raises(BridgeError) as caught:
        real.send(make_batch([make_message("a")]))

    assert KEY not in f"{caught.value} {caught.value.hint} {caught.value!r} {caplog.text}"


@pytest.mark.parametrize("make", REAL.values(), ids=REAL)
def test_an_endpoint_that_is_not_there_is_tried_again_later(make: Callable[[Collector], Transport]) -> None:
    """A refused connection costs delay only."""
    with Collector() as gone:
        transport = make(gone)

    with pytest.raises(RetryLaterError, match=r"no answer from 127\.0\.0\.1"):
        transport.send(make_batch([make_message("a")]))
    transport.close()


def test_a_redirect_is_no_acknowledgement(real: Transport, collector: Collector) -> None:
    """Not even where a client library follows it to an endpoint that says 200."""
    moved = Answer(307, {"Location": f"{collector.url}/v1/batch"})
    collector.answer_with(lambda request: moved if request.number == 1 else None)

    with pytest.raises(CredentialError, match="answered 307"):
        real.send(make_batch([make_message("a")]))


def test_bodies_of_the_batch_api_have_exactly_the_size_that_was_packed(collector: Collector) -> None:
    """What packing counts is what Segment counts, compressed on the wire, with a fresh `sentAt`."""
    batch = make_batch([make_message(f"a{n}") for n in range(50)], [make_message("b")])
    transport = batch_api(collector)

    transport.send(batch)
    transport.close()

    [request] = collector.requests
    assert request.bytes_body == batch.size_bytes
    assert request.bytes_wire < batch.size_bytes / 4
    assert request.sent_at == "2026-01-02T03:04:05.678Z"
    assert request.headers["user-agent"].startswith("currents-bridge/")


def test_the_batch_api_lets_go_of_an_answer(collector: Collector) -> None:
    """At once, and with it of the request, not when Python collects cycles the next time: bodies are large."""
    with closing(batch_api(collector)) as transport:
        gc.collect()
        gc.disable()
        try:
            transport.send(make_batch([make_message("a")]))
            held = [one for one in gc.get_objects() if isinstance(one, urllib3.HTTPResponse)]
        finally:
            gc.enable()

    assert collector.request_count == 1
    assert not held


def test_each_attempt_of_the_batch_api_has_its_own_sent_at(collector: Collector) -> None:
    """A repetition minutes later would shift every timestamp if it kept the first `sentAt`."""
    times = iter([NOW, NOW.replace(minute=9)])
    transport = SegmentBatchTransport(
        SecretStr(KEY), base_url=collector.url, max_in_flight=1, clock=lambda: next(times)
    )
    for message_id in "ab":
        transport.send(make_batch([make_message(message_id)]))
    transport.close()

    assert [request.sent_at for request in collector.requests] == [
        "2026-01-02T03:04:05.678Z",
        "2026-01-02T03:09:05.678Z",
    ]


def test_the_library_refuses_a_message_that_is_too_large_for_it_alone(collector: Collector) -> None:
    """It counts with escapes, six bytes for two; the other messages arrive."""
    large = make_message("large", properties={"text": "é" * 8000})
    batch = make_batch([make_message("a")], [make_message("b"), large])

    refusals = sdk(collector).send(batch)

    assert [(refusal.object_id, refusal.row, refusal.message_id) for refusal in refusals] == [(2, 1, "large")]
    assert "32 KB" in refusals[0].reason
    assert [message["messageId"] for message in collector.messages] == ["a", "b"]


def test_a_batch_of_messages_that_the_library_refuses_makes_no_request(collector: Collector) -> None:
    """Without any message left there is nothing to send."""
    batch = make_batch([make_message("large", properties={"text": "é" * 8000})])

    assert [refusal.message_id for refusal in sdk(collector).send(batch)] == ["large"]
    assert collector.request_count == 0


def test_the_library_refuses_a_message_of_a_wrong_type_alone(collector: Collector) -> None:
    """An event name that is no text costs its message only."""
    refusals = sdk(collector).send(make_batch([make_message("odd", event=7), make_message("a")]))

    assert refusals == [
        Refusal(1, 0, "odd", "segment-analytics-python refuses it: event must have <class 'str'>, got: 7")
    ]
    assert [message["messageId"] for message in collector.messages] == ["a"]


def test_a_batch_that_the_library_would_cut_in_two_is_paced_as_two(collector: Collector) -> None:
    """It counts all but ASCII escaped, up to 475,000 bytes a request: what is larger is sent in halves."""
    batch = make_batch([make_message(f"m{n}", properties={"text": "é" * 500}) for n in range(400)])
    stop = threading.Event()
    with closing(sdk(collector)) as transport:
        with Sender(transport, max_in_flight=1, pace=Pace(None, None, stop=stop), stop=stop) as sender:
            assert list(sender.submit(batch).result()) == []
        assert len(collector.requests) > 1
        assert sender.counts.batches == len(collector.requests)
        assert len(collector.by_id) == 400


def test_however_many_messages_a_batch_has_the_library_makes_one_request(collector: Collector) -> None:
    """By itself it stops to gather them after a time."""
    batch = make_batch([make_message(f"m{n}") for n in range(1000)])
    with closing(sdk(collector)) as transport:
        assert list(transport.send(batch)) == []
    assert len(collector.requests) == 1


def with_oauth(name: str, collector: Collector) -> Transport:
    """Make a transport for a source that enforces OAuth."""
    oauth = OAuth(CLIENT_ID, KEY_ID, lambda: SecretStr(key_pair()[0]), base_url=collector.url, clock=Clock())
    if name == "sdk":
        return SegmentSdkTransport(SecretStr(KEY), base_url=collector.url, clock=Clock(), oauth=oauth)
    return SegmentBatchTransport(SecretStr(KEY), base_url=collector.url, max_in_flight=4, clock=Clock(), oauth=oauth)


@pytest.fixture(params=REAL)
def enforced(request: pytest.FixtureRequest) -> Iterator[tuple[Transport, Collector]]:
    """Each transport with tokens, and a collector whose source wants them."""
    with Collector(write_keys={KEY}, now=Clock()) as collector:
        collector.world.enforcement = enforcement()
        transport = with_oauth(request.param, collector)
        yield transport, collector
        transport.close()


def test_batches_for_a_source_that_enforces_oauth_carry_a_token(enforced: tuple[Transport, Collector]) -> None:
    """The write key stands in the body, and one token serves many batches."""
    transport, collector = enforced

    for message_id in "abc":
        transport.send(make_batch([make_message(message_id)]))

    assert [message["messageId"] for message in collector.messages] == ["a", "b", "c"]
    assert all(request.headers["authorization"].startswith("Bearer ") for request in collector.requests)
    assert collector.world.asked == ["/token"]


@pytest.mark.parametrize("status", [401, 403, 511])
def test_a_token_that_is_refused_is_replaced_once(enforced: tuple[Transport, Collector], status: int) -> None:
    """A revoked token costs one request more; where a new one is refused as well, the connector pauses."""
    transport, collector = enforced
    collector.world.enforcement = enforcement(status)
    transport.send(make_batch([make_message("a")]))
    collector.world.revoke_tokens()

    transport.send(make_batch([make_message("b")]))
    assert [request.status for request in collector.requests] == [200, status, 200]

    collector.answer_with(lambda _: Answer(status))
    with pytest.raises(CredentialError, match=f"answered {status}") as caught:
        transport.send(make_batch([make_message("c")]))
    assert "destination.oauth" in caught.value.hint
    assert len(collector.requests) == 5


@pytest.mark.parametrize(
    ("status", "expected"), [(400, CredentialError), (429, RetryLaterError), (503, RetryLaterError)]
)
def test_without_a_token_nothing_is_sent(
    enforced: tuple[Transport, Collector], status: int, expected: type[BridgeError]
) -> None:
    """What the token server answers says what to do next."""
    transport, collector = enforced
    collector.world.answers["/token"] = Answer(status, {"X-RateLimit-Reset": "7"} if status == 429 else {})

    with pytest.raises(expected, match=f"gave no token, it answered {status}") as caught:
        transport.send(make_batch([make_message("a")]))

    assert getattr(caught.value, "wait_s", None) == (7 if status == 429 else None)
    assert collector.request_count == 0


def test_a_source_that_enforces_oauth_refuses_the_write_key_alone(real: Transport, collector: Collector) -> None:
    """The hint leads to the setting."""
    collector.world.enforcement = enforcement()

    with pytest.raises(CredentialError, match="answered 401") as caught:
        real.send(make_batch([make_message("a")]))
    assert "destination.oauth" in caught.value.hint


def test_an_error_does_not_hold_a_token_that_the_answer_repeats(
    enforced: tuple[Transport, Collector], caplog: pytest.LogCaptureFixture
) -> None:
    """A token is as good as a key for its time."""
    transport, collector = enforced
    caplog.set_level(logging.DEBUG)
    tokens: list[str] = []

    def repeat(request: RequestInfo) -> Answer:
        tokens.append(request.headers["authorization"].removeprefix("Bearer "))
        return Answer(401, body=f"no, not with {' '.join(tokens)} and {KEY}")

    collector.answer_with(repeat)
    with pytest.raises(CredentialError, match=r"no, not with \*+ \*+ and \*+") as caught:
        transport.send(make_batch([make_message("a")]))

    assert len(set(tokens)) == 2
    assert not [secret for secret in (*tokens, KEY) if secret in f"{caught.value!r} {caught.value.hint} {caplog.text}"]


def test_the_write_key_adds_its_own_size_to_the_body() -> None:
    """A connector's packer leaves so much room."""
    with Collector(write_keys={KEY}, now=Clock()) as collector:
        collector.world.enforcement = enforcement()
        batch = make_batch([make_message("a")])
        transport = with_oauth("batch", collector)
        transport.send(batch)
        transport.close()

    assert collector.requests[0].bytes_body == batch.size_bytes + len(key_in_body(KEY)) - 1
