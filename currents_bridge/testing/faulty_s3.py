"""An S3 server on a bad day: a loopback proxy in front of any S3 server, with a schedule of faults."""

import http.client
import sys
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from random import Random
from typing import Any, Self
from urllib.parse import urlsplit

from currents_bridge.testing.embedded_s3 import S3Endpoint

UPSTREAM_TIMEOUT_S = 30.0


class S3Fault(StrEnum):
    """What the proxy does to one GET."""

    SLOW_DOWN = "slow_down"  # 503 SlowDown
    INTERNAL_ERROR = "internal_error"  # 500 InternalError
    CLOCK_SKEW = "clock_skew"  # 403 RequestTimeTooSkewed
    GONE = "gone"  # 404 NoSuchKey; listings come through
    CLOSED = "closed"  # the connection closes before the answer
    CUT = "cut"  # the connection closes in the middle of the body
    SHORT = "short"  # half the body, with the length of that half
    SLOW = "slow"  # `slow_s` pass in the middle of the body
    EXPIRED_TOKEN = "expired_token"  # noqa: S105 - 400 ExpiredToken


PASSING = tuple(fault for fault in S3Fault if fault not in {S3Fault.GONE, S3Fault.EXPIRED_TOKEN})

_ANSWERS = {
    S3Fault.SLOW_DOWN: (503, "SlowDown"),
    S3Fault.INTERNAL_ERROR: (500, "InternalError"),
    S3Fault.CLOCK_SKEW: (403, "RequestTimeTooSkewed"),
    S3Fault.GONE: (404, "NoSuchKey"),
    S3Fault.EXPIRED_TOKEN: (400, "ExpiredToken"),
}
_OWN_HEADERS = {"connection", "content-length", "transfer-encoding", "date", "server"}


def seeded_faults(seed: int, share: float, kinds: Sequence[S3Fault] = PASSING) -> Iterator[S3Fault | None]:
    """Yield without end a fault of `kinds` for this share of the requests, None for the others."""
    r = Random(seed)
    while True:
        yield r.choice(kinds) if r.random() < share else None


class FaultyS3(S3Endpoint):
    """Context manager: the proxy on a free port of 127.0.0.1, running inside the `with`.

    Args:
        upstream: the S3 server behind it.
        faults: one for each GET in order of arrival, None: come through; when they end, all come through.
        slow_s: the pause of S3Fault.SLOW, in seconds; it ends when the proxy does.

    Attributes:
        served: how often each fault was done so far.
        requests: GETs so far.
    """

    def __init__(self, upstream: S3Endpoint, faults: Iterable[S3Fault | None], slow_s: float = 1.0) -> None:
        super().__init__("")
        self.served: Counter[S3Fault] = Counter()
        self.requests = 0
        self._upstream = urlsplit(upstream.url).netloc
        self._faults = iter(faults)
        self._slow_s = slow_s
        self._lock = threading.Lock()
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        self._server = _Server(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), name="faulty-s3", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _next_fault(self, *, of_listing: bool) -> S3Fault | None:
        with self._lock:
            self.requests += 1
            fault = next(self._faults, None)
            if fault is S3Fault.GONE and of_listing:
                return None
            if fault:
                self.served[fault] += 1
            return fault

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's methods have a self of their own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10  # of an idle connection, so that the proxy can end

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                _, _, key = parts.path.strip("/").partition("/")
                fault = proxy._next_fault(of_listing=not key)
                if fault is S3Fault.CLOSED:
                    self.close_connection = True
                elif fault in _ANSWERS:
                    status, code = _ANSWERS[fault]
                    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>faulty</Message></Error>"
                    self._answer(status, {"Content-Type": "application/xml"}, text.encode())
                else:
                    self._pass_on(fault)

            def _pass_on(self, fault: S3Fault | None = None) -> None:
                upstream = http.client.HTTPConnection(proxy._upstream, timeout=UPSTREAM_TIMEOUT_S)
                try:
                    body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                    upstream.request(self.command, self.path, body, dict(self.headers.items()))
                    answer = upstream.getresponse()
                    headers = {name: value for name, value in answer.getheaders() if name.lower() not in _OWN_HEADERS}
                    length = answer.headers.get("Content-Length") if self.command == "HEAD" else None
                    self._answer(answer.status, headers, answer.read(), fault, length)
                finally:
                    upstream.close()

            do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - as the base class wants them

            def _answer(
                self,
                status: int,
                headers: dict[str, str],
                body: bytes,
                fault: S3Fault | None = None,
                length: str | None = None,
            ) -> None:
                half = len(body) // 2
                body = body[:half] if fault is S3Fault.SHORT else body
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", length or str(len(body)))
                self.send_header("Connection", "close")
                self.end_headers()
                self.wfile.write(body[:half])
                if fault is S3Fault.SLOW:
                    self.wfile.flush()
                    proxy._closing.wait(proxy._slow_s)
                if fault is not S3Fault.CUT:
                    self.wfile.write(body[half:])

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
                """Say nothing."""

        return Handler


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False  # so that server_close waits for them

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that went away; print a traceback for mistakes of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
