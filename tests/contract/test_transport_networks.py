"""What networks do to a request, over real sockets: each fault costs delay only, and the next attempt passes."""

import json
import socket
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import polars as pl
import pytest
import segment.analytics.request
from pydantic import SecretStr

from currents_bridge.destinations.segment import batch
from currents_bridge.destinations.segment import sdk as segment_sdk
from currents_bridge.destinations.segment.batch import SegmentBatchTransport
from currents_bridge.destinations.segment.endpoint import MAX_CONNECTION_AGE_S
from currents_bridge.destinations.segment.sdk import SegmentSdkTransport
from currents_bridge.errors import BridgeError, RetryLaterError
from currents_bridge.model import Batch, Part
from currents_bridge.network.urllib3_rules import MAX_INTERIM
from currents_bridge.ports import Transport
from currents_bridge.sending.rate_limit import Pace
from currents_bridge.sending.sender import ENVELOPE_BYTES, Retries, Sender
from currents_bridge.testing.collector import Answer, Collector, RequestInfo
from currents_bridge.testing.faults import PASSING, FaultSchedule
from tests.scripted_server import scripted_server

KEY = SecretStr("k3yOfTheSource0000000000000000ab")
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ACKNOWLEDGED = b'HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{"success": true}'
Make = Callable[..., Transport]


def batch_api(url: str, **options: Any) -> Transport:
    """Make the transport over the batch API."""
    return SegmentBatchTransport(KEY, base_url=url, max_in_flight=2, clock=lambda: NOW, **options)


def sdk(url: str, **options: Any) -> Transport:
    """Make the transport over Segment's library."""
    return SegmentSdkTransport(KEY, base_url=url, clock=lambda: NOW, **options)


@pytest.fixture(params=[batch_api, sdk], ids=["batch", "sdk"])
def make(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Each way to Segment, with little patience."""
    monkeypatch.setattr(batch, "READ_TIMEOUT_S", 0.2)
    monkeypatch.setattr(segment_sdk, "_TIMEOUT_S", (5.0, 0.2))
    chosen: Make = request.param
    return chosen


@pytest.fixture
def collector() -> Iterator[Collector]:
    """A Segment."""
    with Collector() as running:
        yield running


def make_batch(*message_ids: str) -> Batch:
    """Make a batch of small messages."""
    messages = [
        {
            "type": "track",
            "userId": "user 1",
            "event": "Email Clicked",
            "messageId": message_id,
            "timestamp": "2026-01-01T00:00:00.120Z",
            "properties": {"n": 1},
        }
        for message_id in message_ids
    ]
    texts = [json.dumps(message) for message in messages]
    frame = {"row": range(len(texts)), "message_id": message_ids, "message": texts}
    part = Part(1, pl.DataFrame(frame, schema_overrides={"row": pl.UInt32}))
    return Batch((part,), len(texts), ENVELOPE_BYTES + sum(map(len, texts)) + len(texts) - 1, ENVELOPE_BYTES)


FAULTS = {
    "reset before the events were taken": (Answer(reset="before"), 0),
    "reset after the events were taken": (Answer(reset="after"), 1),
    "an answer that does not come in time": (Answer(503, delay_s=3600), 0),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_an_attempt_without_answer_is_tried_again_later(make: Make, collector: Collector, fault: str) -> None:
    """It raises RetryLaterError, and the next attempt is acknowledged."""
    answer, taken = FAULTS[fault]
    collector.answer_with(lambda request: answer if request.number == 1 else None)
    transport = make(collector.url)

    with pytest.raises(RetryLaterError, match=r"no answer from 127\.0\.0\.1"):
        transport.send(make_batch("a"))
    assert len(collector.messages) == taken

    assert list(transport.send(make_batch("a"))) == []
    assert len(collector.messages) == taken + 1
    transport.close()


def test_a_reset_of_a_kept_connection_is_tried_again_later(make: Make, collector: Collector) -> None:
    """No library repeats the request by itself: it might have been taken."""
    collector.answer_with(lambda request: Answer(reset="after") if request.number == 2 else None)
    transport = make(collector.url)
    transport.send(make_batch("a"))

    with pytest.raises(RetryLaterError):
        transport.send(make_batch("b"))
    transport.close()

    assert [request.number for request in collector.requests] == [1, 2]


def test_a_name_that_dns_does_not_know_is_tried_again_later(make: Make) -> None:
    """DNS may be back in a moment."""
    transport = make("http://segment.invalid")

    with pytest.raises(RetryLaterError, match=r"no answer from segment\.invalid"):
        transport.send(make_batch("a"))
    transport.close()


def test_a_failed_tls_handshake_is_tried_again_later(make: Make, collector: Collector) -> None:
    """Here the other side does not speak TLS at all."""
    transport = make(collector.url.replace("http:", "https:"))

    with pytest.raises(RetryLaterError, match="SSL"):
        transport.send(make_batch("a"))
    transport.close()


@contextmanager
def forgetful_server(closes: Callable[[socket.socket], None]) -> Iterator[tuple[str, threading.Semaphore]]:
    """Run a server that answers one request a connection, and closes it although it promised to keep it.

    Yields its URL, and a semaphore that is released after each closing.
    """
    closed = threading.Semaphore(0)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                headers = dict(iter(lambda: stream.readline().lower().rstrip().partition(b": ")[::2], (b"", b"")))
                stream.read(int(headers[b"content-length"]))
                connection.sendall(ACKNOWLEDGED)
                closes(connection)
                closed.release()
                stream.read()  # until the client has seen it

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", closed
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()


def test_a_kept_connection_that_the_server_closed_half_is_not_used_again(make: Make) -> None:
    """The next batch goes over a new connection, without an error."""
    with forgetful_server(lambda connection: connection.shutdown(socket.SHUT_WR)) as (url, closed):
        transport = make(url)
        for n in range(3):
            assert list(transport.send(make_batch(str(n)))) == []
            assert closed.acquire(timeout=10)
        transport.close()
        segment.analytics.request._session.close()  # of the library, for all its clients


INTERIM = {
    "100": b"HTTP/1.1 100 Continue\r\n\r\n",
    "102": b"HTTP/1.1 102 Processing\r\n\r\n",
    "103": b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n",
    "199": b"HTTP/1.1 199 Whatever\r\n\r\n",
}


@pytest.mark.parametrize("status", INTERIM)
def test_interim_answers_are_read_past(make: Make, status: str) -> None:
    """Each request gets its own final answer, over one connection: what is acknowledged has arrived, and only that."""
    refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    interim = INTERIM[status]
    with scripted_server(interim + ACKNOWLEDGED, interim * 3 + refused, interim + ACKNOWLEDGED) as (url, bodies):
        transport = make(url)
        assert list(transport.send(make_batch("a"))) == []
        with pytest.raises(RetryLaterError, match="answered 503"):
            transport.send(make_batch("b"))
        assert list(transport.send(make_batch("c"))) == []
        transport.close()

    assert len(bodies) == 3


@pytest.mark.parametrize(
    "interim",
    [
        INTERIM["103"],
        INTERIM["102"] * (MAX_INTERIM + 1) + ACKNOWLEDGED,
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\n\r\n",
    ],
    ids=["no final answer", "too many", "another protocol"],
)
def test_a_connection_with_an_interim_answer_alone_is_not_used_again(make: Make, interim: bytes) -> None:
    """What comes late on it would be taken for the answer to the next request."""
    with scripted_server(interim, ACKNOWLEDGED) as (url, bodies):
        transport = make(url)
        with pytest.raises(BridgeError):
            transport.send(make_batch("a"))
        assert list(transport.send(make_batch("b"))) == []
        transport.close()

    assert len(bodies) == 2


@pytest.mark.parametrize(
    "body",
    [
        "<html>log in first</html>",
        '{"success": false}',
        '{"success": "true"}',
        '{"success": 1}',
        '{"success": null}',
        '{"success": false, "more": 1}',
        '{"ok": false}',
        '{"status": false}',
        '{"error": "no such source"}',
        '{"errors": [{"type": "invalid"}]}',
        '{"code": 401, "message": "unauthorized"}',
        '{"code": "500"}',
        '{"status": "failed"}',
        '{"statusCode": 503}',
        '{"message": "Invalid write key"}',
        '{"success": true',
        '{"success": true} and more',
        "[]",
        "true",
        "null",
        "1",
        "KO",
        "OK, but log in first",
        "Not OK",
        "please log in",
        "[" * 100_000,
    ],
)
def test_a_2xx_that_is_no_acknowledgement_is_tried_again_later(make: Make, collector: Collector, body: str) -> None:
    """A proxy that wants a login says 200, too."""
    collector.answer_with(lambda _: Answer(body=body, drop=True))
    transport = make(collector.url)

    with pytest.raises(RetryLaterError, match=r"answered 200.*no acknowledgement"):
        transport.send(make_batch("a"))
    transport.close()


@pytest.mark.parametrize("status", [200, 201, 202, 207])
@pytest.mark.parametrize(
    "body",
    [
        '{"success": true, "more": []}',
        "OK",
        "ok\n",
        '"OK"',
        "",
        " ",
        "{}",
        '{"status": "ok"}',
        '{"status": 1}',
        '{"code": 200, "message": "accepted", "error": null, "errors": []}',
        '{"ok": true}',
    ],
)
def test_a_2xx_that_names_no_failure_acknowledges(make: Make, collector: Collector, status: int, body: str) -> None:
    """As endpoints with Segment's API answer: RudderStack a plain `OK`, others nothing, or other JSON."""
    collector.answer_with(lambda _: Answer(status, body=body))
    transport = make(collector.url)

    assert list(transport.send(make_batch("a"))) == []
    transport.close()


def test_a_204_acknowledges(make: Make) -> None:
    """It cannot say more."""
    with scripted_server(b"HTTP/1.1 204 No Content\r\n\r\n") as (url, _):
        transport = make(url)
        assert list(transport.send(make_batch("a"))) == []
        transport.close()


def test_connections_are_renewed_every_hour(make: Make, collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that DNS is asked again; until then one connection serves all requests."""
    connections: list[object] = []
    accept = collector._server.process_request

    def count(*args: Any) -> None:
        connections.append(args)
        accept(*args)

    monkeypatch.setattr(collector._server, "process_request", count)
    now_s = 1000.0
    transport = make(collector.url, monotonic_clock=lambda: now_s)

    transport.send(make_batch("a"))
    now_s += MAX_CONNECTION_AGE_S - 1
    transport.send(make_batch("b"))
    assert len(connections) == 1

    now_s += 1
    transport.send(make_batch("c"))
    transport.send(make_batch("d"))
    assert len(connections) == 2
    transport.close()


def test_a_renewal_of_the_connections_does_not_cut_what_is_under_way(collector: Collector) -> None:
    """The request that began before it is answered over its old connection."""
    began, goes_on = threading.Event(), threading.Event()

    def answer(request: RequestInfo) -> None:
        if request.number == 1:
            began.set()
            assert goes_on.wait(10)

    collector.answer_with(answer)
    now_s = 0.0
    transport = batch_api(collector.url, monotonic_clock=lambda: now_s)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(transport.send, make_batch("a"))
        assert began.wait(10)
        now_s += MAX_CONNECTION_AGE_S
        assert list(transport.send(make_batch("b"))) == []
        goes_on.set()
        assert list(first.result()) == []
    transport.close()


@contextmanager
def proxy() -> Iterator[tuple[str, list[tuple[str, str | None]]]]:
    """Run a proxy that answers each request itself; yields its address, and what it was asked for with which key."""
    asked: list[tuple[str, str | None]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            asked.append((self.path, self.headers["Proxy-Authorization"]))
            self.wfile.write(ACKNOWLEDGED)

        def log_message(self, *_: object) -> None:
            """Keep the tests' output clean."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"127.0.0.1:{server.server_port}", asked
        server.shutdown()
    thread.join()


def test_requests_go_through_the_proxy_that_the_environment_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the name and password that stand in its URL."""
    with proxy() as (address, asked):
        monkeypatch.setenv("http_proxy", f"http://user:p%40ss@{address}")
        transport = batch_api("http://segment.invalid")
        assert list(transport.send(make_batch("a"))) == []
        transport.close()
    assert asked == [("http://segment.invalid/v1/batch", f"Basic {b64encode(b'user:p@ss').decode()}")]


def test_a_host_that_no_proxy_names_is_reached_directly(monkeypatch: pytest.MonkeyPatch, collector: Collector) -> None:
    """As the collector on loopback."""
    with proxy() as (address, asked):
        monkeypatch.setenv("http_proxy", address)
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        transport = batch_api(collector.url)
        assert list(transport.send(make_batch("a"))) == []
        transport.close()
    assert not asked
    assert [message["messageId"] for message in collector.messages] == ["a"]


def test_a_proxy_that_is_none_is_told_and_costs_delay_only(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The password in its URL stays out of the message."""
    monkeypatch.setenv("http_proxy", "gopher://user:secret@127.0.0.1:1")
    transport = make("http://segment.invalid")
    with pytest.raises(
        RetryLaterError, match=r"no answer from segment\.invalid: http_proxy is no address of a"
    ) as told:
        transport.send(make_batch("a"))
    assert "secret" not in str(told.value)
    transport.close()


def test_a_sender_gets_everything_through_a_bad_day(make: Make, collector: Collector) -> None:
    """With 30 % of requests failing in every way, only the bad messages are refused, and all others arrive."""
    bad = {"3-7", "3-8", "11-0"}
    faults = FaultSchedule(1, refuse=lambda message: message["messageId"] in bad, longest_wait_s=0.02)
    collector.answer_with(faults)
    transport, stop = make(collector.url), threading.Event()
    retries = Retries(max_attempts=20, first_wait_s=0.001, longest_wait_s=0.01)

    with Sender(transport, max_in_flight=4, pace=Pace(None, None, stop=stop), stop=stop, retries=retries) as sender:
        futures = [sender.submit(make_batch(*(f"{n}-{row}" for row in range(20)))) for n in range(16)]
        refused = {refusal.message_id for future in futures for refusal in future.result(timeout=60)}
    transport.close()

    assert refused == bad
    assert set(collector.by_id) == {f"{n}-{row}" for n in range(16) for row in range(20)} - bad
    assert collector.rejected == []
    assert set(faults.counts) == set(PASSING)
