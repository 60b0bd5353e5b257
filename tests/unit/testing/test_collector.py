import json
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from isal import igzip

from currents_bridge.testing.collector import Answer, Collector, RequestInfo

MESSAGE = {
    "type": "track",
    "messageId": "m1",
    "userId": "u1",
    "anonymousId": "a1",
    "event": "Email Clicked",
    "timestamp": "2026-01-02T03:04:05.678Z",
    "properties": {"campaign": "été"},
}
SENT_AT = "2026-01-02T03:04:06.000Z"


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A collector that knows one key."""
    with Collector(write_keys={"key"}) as running:
        yield running


def message(**changes: Any) -> dict[str, Any]:
    """Return a good message with some values changed; None leaves a field out."""
    return {name: value for name, value in (MESSAGE | changes).items() if value is not None}


def body_of(*messages: object, **changes: Any) -> bytes:
    """Return a request body around the messages, with fields of the envelope changed; None leaves one out."""
    envelope = {"batch": list(messages), "sentAt": SENT_AT} | changes
    return json.dumps({name: value for name, value in envelope.items() if value is not None}).encode()


def post(collector: Collector, body: bytes, key: str = "key", **headers: str) -> httpx.Response:
    """Post a body as it is."""
    authorization = {"Authorization": "Basic " + b64encode(f"{key}:".encode()).decode()}
    return httpx.post(f"{collector.url}/v1/batch", content=body, headers=authorization | headers, timeout=10)


def test_good_messages_are_remembered_in_order(collector: Collector) -> None:
    """Each message stands in `messages` and `by_id` as it was sent."""
    messages = [message(messageId=f"m{n}") for n in range(3)]

    answer = post(collector, body_of(*messages))

    assert (answer.status_code, answer.json()) == (200, {"success": True})
    assert collector.messages == messages
    assert collector.by_id == {sent["messageId"]: sent for sent in messages}


def test_requests_are_remembered_with_their_sizes(collector: Collector) -> None:
    """Bytes are counted on the wire and after decompression."""
    body = body_of(message(), message(messageId="m2"))
    wire = igzip.compress(body)

    post(collector, wire, **{"Content-Encoding": "gzip"})

    [request] = collector.requests
    assert (request.number, request.bytes_wire, request.bytes_body) == (1, len(wire), len(body))
    assert (request.events, request.sent_at, request.status) == (2, SENT_AT, 200)
    assert request.headers["content-encoding"] == "gzip"


def test_repeated_message_ids_are_counted(collector: Collector) -> None:
    """A repeated message is remembered again, and the first one stays the one of its id."""
    for event in ("first", "second"):
        post(collector, body_of(message(event=event)))

    assert collector.duplicates == 1
    assert len(collector.messages) == 2
    assert collector.by_id["m1"]["event"] == "first"


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"no json",
        b'{"batch": [{"a": NaN}], "sentAt": "2026-01-02T03:04:06.000Z"}',
        b'{"sentAt": "2026-01-02T03:04:06.000Z"}',
        b'{"batch": {}, "sentAt": "2026-01-02T03:04:06.000Z"}',
        b'{"batch": [1], "sentAt": "2026-01-02T03:04:06.000Z"}',
    ],
)
def test_a_malformed_body_is_a_bad_request(collector: Collector, body: bytes) -> None:
    """One bare NaN costs the whole request, as at Segment."""
    assert post(collector, body).status_code == 400
    assert collector.requests[0].status == 400


def test_a_body_that_is_no_gzip_is_a_bad_request(collector: Collector) -> None:
    """Content-Encoding must tell the truth, to the last byte."""
    whole = igzip.compress(body_of(message()))

    for wire in (b"junk", whole[:-6]):
        assert post(collector, wire, **{"Content-Encoding": "gzip"}).status_code == 400
    assert [request.status for request in collector.requests] == [400, 400]


def test_a_message_of_32_kb_is_taken_and_a_larger_one_is_not(collector: Collector) -> None:
    """The limit is 32,768 bytes a message."""
    room = 32768 - len(json.dumps(message(properties={"p": ""}), separators=(",", ":"), ensure_ascii=False).encode())

    assert post(collector, body_of(message(properties={"p": "x" * room}))).status_code == 200
    answer = post(collector, body_of(message(properties={"p": "x" * (room + 1)})))

    assert (answer.status_code, answer.text) == (400, "Exceed payload limit")
    assert len(collector.messages) == 1


def test_a_body_over_500_kb_is_refused_before_compression_counts(collector: Collector) -> None:
    """The limit is on the decompressed body, however small it is on the wire."""
    body = body_of(*[message(messageId=f"m{n}", properties={"p": "x" * 30000}) for n in range(17)])
    exact = body_of(message()) + b" " * (500 * 1024 - len(body_of(message())))

    assert post(collector, igzip.compress(body), **{"Content-Encoding": "gzip"}).status_code == 400
    assert post(collector, exact).status_code == 200
    assert post(collector, exact + b" ").status_code == 400


def test_more_than_2500_events_get_200_and_are_all_rejected(collector: Collector) -> None:
    """Segment says yes and takes none."""
    answer = post(collector, body_of(*[message(messageId=f"m{n}") for n in range(2501)], writeKey="key"))

    assert answer.status_code == 200
    assert collector.messages == []
    assert len(collector.rejected) == 2501


@pytest.mark.parametrize(
    ("changes", "flaw"),
    [
        ({"type": "identify"}, "type"),
        ({"messageId": None}, "messageId"),
        ({"messageId": "x" * 100}, "messageId"),
        ({"userId": "", "anonymousId": None}, "userId"),
        ({"event": ""}, "event"),
        ({"timestamp": None}, "timestamp"),
        ({"timestamp": "2026-01-02T03:04:05Z"}, "timestamp"),
        ({"timestamp": "2026-01-02T03:04:05.678901Z"}, "timestamp"),
        ({"timestamp": "2026-13-02T03:04:05.678Z"}, "timestamp"),
        ({"properties": None}, "properties"),
        ({"properties": []}, "properties"),
    ],
)
def test_an_unfit_message_gets_200_and_is_rejected_alone(
    collector: Collector, changes: dict[str, object], flaw: str
) -> None:
    """Segment leaves such messages out without a word; the others of the request count."""
    answer = post(collector, body_of(message(**changes), message(messageId="good")))

    assert answer.status_code == 200
    assert [sent["messageId"] for sent in collector.messages] == ["good"]
    [rejected] = collector.rejected
    assert flaw in rejected.reason
    assert rejected.message == message(**changes)


@pytest.mark.parametrize("changes", [{"userId": None}, {"anonymousId": None}, {"messageId": "x" * 99}])
def test_a_message_at_the_edge_of_the_rules_is_accepted(collector: Collector, changes: dict[str, object]) -> None:
    """One of the two ids is enough, and 99 characters are under 100."""
    post(collector, body_of(message(**changes)))

    assert collector.messages == [message(**changes)]


@pytest.mark.parametrize("sent_at", [None, "now", "2026-01-02T03:04:05"])
def test_without_a_good_sent_at_every_message_is_rejected(collector: Collector, sent_at: str | None) -> None:
    """Segment corrects timestamps by `sentAt`, so a wrong one spoils them all."""
    assert post(collector, body_of(message(), sentAt=sent_at)).status_code == 200
    assert collector.messages == []
    assert "sentAt" in collector.rejected[0].reason


def test_an_unknown_key_gets_200_and_its_events_are_dropped(collector: Collector) -> None:
    """A 200 proves nothing about the write key."""
    assert post(collector, body_of(message()), key="revoked").status_code == 200
    assert collector.messages == []
    assert collector.dropped == [message()]


def test_the_key_may_stand_in_the_body(collector: Collector) -> None:
    """Segment's libraries write it there."""
    assert post(collector, body_of(message(), writeKey="key"), Authorization="").status_code == 200
    assert len(collector.messages) == 1


@pytest.mark.parametrize("authorization", ["", "Basic", "Basic ***", "Bearer key", "Basic " + b64encode(b":").decode()])
def test_a_request_without_a_key_is_a_bad_request(collector: Collector, authorization: str) -> None:
    """An empty key is none."""
    assert post(collector, body_of(message()), Authorization=authorization).status_code == 400


def test_other_paths_are_not_found(collector: Collector) -> None:
    """Only the batch endpoint is played, and only it is counted."""
    assert httpx.post(f"{collector.url}/v1/import", content=b"{}").status_code == 404
    assert collector.request_count == 0


def test_answers_can_be_scripted_for_each_request(collector: Collector) -> None:
    """The script sees the request and gives status, headers and body; None answers as usual."""

    def script(request: RequestInfo) -> Answer | None:
        return Answer(429, {"Retry-After": "7"}, "slow down") if request.number == 1 else None

    collector.answer_with(script)
    first, second = (post(collector, body_of(message())) for _ in range(2))

    assert (first.status_code, first.headers["Retry-After"], first.text) == (429, "7", "slow down")
    assert second.status_code == 200
    assert len(collector.messages) == 1
    assert [request.status for request in collector.requests] == [429, 200]


def test_a_client_may_lose_patience(collector: Collector) -> None:
    """A delayed answer makes the client time out, and closing does not wait for the delay."""
    collector.answer_with(lambda _: Answer(delay_s=3600))

    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{collector.url}/v1/batch", content=body_of(message()), auth=("key", ""), timeout=0.1)


def test_many_clients_at_once_lose_nothing(collector: Collector) -> None:
    """Requests on several kept connections are all counted and remembered."""

    def send(client: httpx.Client) -> Callable[[int], httpx.Response]:
        return lambda n: client.post("/v1/batch", content=body_of(message(messageId=str(n))))

    with httpx.Client(base_url=collector.url, auth=("key", "")) as client, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(send(client), range(100)))

    assert {answer.status_code for answer in answers} == {200}
    assert set(collector.by_id) == {str(n) for n in range(100)}
    assert sorted(request.number for request in collector.requests) == list(range(1, 101))


def test_count_only_mode_remembers_nothing() -> None:
    """Benchmarks get counts without the cost of looking into messages."""
    body = body_of(message(), message(messageId="m2")).replace(b'": ', b'":')

    with Collector(remember=False) as collector:
        post(collector, body)

    assert (collector.request_count, collector.event_count, collector.body_bytes) == (1, 2, len(body))
    assert collector.messages == []
    assert collector.requests == []


def test_a_closed_collector_refuses_connections() -> None:
    """After `with` the port is free, and kept connections are cut."""
    with httpx.Client(auth=("key", "")) as client:
        with Collector() as collector:
            client.post(f"{collector.url}/v1/batch", content=body_of(message()))
            url = collector.url
        with pytest.raises(httpx.TransportError):
            client.post(f"{url}/v1/batch", content=body_of(message()))
