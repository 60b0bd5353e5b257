"""An S3 server on a bad day: a loopback proxy in front of any S3 server, with a schedule of faults."""

import http.client
import sys
import threading
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from enum import StrEnum
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle
from random import Random
from typing import Any, Self
from urllib.parse import unquote, urlsplit

from currents_bridge.testing.embedded_s3 import S3Endpoint
from currents_bridge.testing.s3_lies import LYING_LISTS, Asked, Lie, Told, ask, tell

UPSTREAM_TIMEOUT_S = 30.0


class S3Fault(StrEnum):
    """What the proxy does to one GET."""

    SLOW_DOWN = "slow_down"  # 503 SlowDown
    INTERNAL_ERROR = "internal_error"  # 500 InternalError
    CLOCK_SKEW = "clock_skew"  # 403 RequestTimeTooSkewed
    GONE = "gone"  # 404 NoSuchKey; listings come through
    DENIED = "denied"  # 403 AccessDenied; listings come through
    ARCHIVED = "archived"  # 403 InvalidObjectState; listings come through
    CLOSED = "closed"  # the connection closes before the answer
    CUT = "cut"  # the connection closes in the middle of the body
    SHORT = "short"  # half the body, with the length of that half
    SLOW = "slow"  # `slow_s` pass in the middle of the body
    EXPIRED_TOKEN = "expired_token"  # noqa: S105 - 400 ExpiredToken
    LYING_LIST = "lying_list"  # a LIST is answered by each of LYING_LISTS in turn; objects come through


_NOT_PASSING = {S3Fault.GONE, S3Fault.DENIED, S3Fault.ARCHIVED, S3Fault.EXPIRED_TOKEN, S3Fault.LYING_LIST}
PASSING = tuple(fault for fault in S3Fault if fault not in _NOT_PASSING)

_ANSWERS = {
    S3Fault.SLOW_DOWN: (503, "SlowDown"),
    S3Fault.INTERNAL_ERROR: (500, "InternalError"),
    S3Fault.CLOCK_SKEW: (403, "RequestTimeTooSkewed"),
    S3Fault.GONE: (404, "NoSuchKey"),
    S3Fault.DENIED: (403, "AccessDenied"),
    S3Fault.ARCHIVED: (403, "InvalidObjectState"),
    S3Fault.EXPIRED_TOKEN: (400, "ExpiredToken"),
}
_OWN_HEADERS = {"connection", "content-length", "transfer-encoding", "date", "server"}
_ONLY = {
    S3Fault.GONE: False,
    S3Fault.DENIED: False,
    S3Fault.ARCHIVED: False,
    S3Fault.LYING_LIST: True,
}  # fault -> whether it is one of LISTs, and not of objects


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
        lie: what every GET is told that is not so, if it came through.
        page_keys: how many keys a LIST names at most.
        denied: keys of objects that nobody may read; may change meanwhile.

    Attributes:
        served: how often each fault was done so far.
        requests: GETs so far.
    """

    def __init__(  # noqa: PLR0913 - a bad day is what goes wrong in it
        self,
        upstream: S3Endpoint,
        faults: Iterable[S3Fault | None] = (),
        slow_s: float = 1.0,
        *,
        lie: Lie = Lie.NONE,
        page_keys: int | None = None,
        denied: Container[str] = (),
    ) -> None:
        super().__init__("")
        self.served: Counter[S3Fault] = Counter()
        self.requests = 0
        self._upstream = urlsplit(upstream.url).netloc
        self._faults = iter(faults)
        self._slow_s = slow_s
        self._lie = lie
        self._page_keys = page_keys
        self._denied = denied
        self._lying_lists = cycle(LYING_LISTS)
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

    def _next_fault(self, key: str) -> S3Fault | None:
        """Return what becomes of the request for an object, or for a LIST where there is no key."""
        of_listing = not key
        with self._lock:
            self.requests += 1
            fault = S3Fault.DENIED if key in self._denied else next(self._faults, None)
            if fault and _ONLY.get(fault, of_listing) != of_listing:
                return None
            if fault:
                self.served[fault] += 1
            return fault

    def _forward(self, method: str, asked: Asked, body: bytes, fault: S3Fault | None) -> Told:
        """Return the upstream's answer, with what is to be told instead; that to a HEAD keeps its length."""
        if self._page_keys and asked.is_list:
            asked = asked.asking_for(f"max-keys={self._page_keys}")
        lie = self._lie_of(fault) if method == "GET" else Lie.NONE
        truly = ask(lie, asked)
        upstream = http.client.HTTPConnection(self._upstream, timeout=UPSTREAM_TIMEOUT_S)
        try:
            upstream.request(method, truly.target, body, dict(truly.headers))
            answer = upstream.getresponse()
            own = _OWN_HEADERS - {"content-length"} if method == "HEAD" else _OWN_HEADERS
            headers = {name.lower(): value for name, value in answer.getheaders() if name.lower() not in own}
            return tell(lie, asked, Told(answer.status, headers, answer.read()))
        finally:
            upstream.close()

    def _lie_of(self, fault: S3Fault | None) -> Lie:
        with self._lock:
            return next(self._lying_lists) if fault is S3Fault.LYING_LIST else self._lie

    def _handler(proxy) -> type[BaseHTTPRequestHandler]:  # noqa: N805 - the handler's methods have a self of their own
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            timeout = 10  # of an idle connection, so that the proxy can end

            def do_GET(self) -> None:
                parts = urlsplit(self.path)
                _, _, key = parts.path.strip("/").partition("/")
                fault = proxy._next_fault(unquote(key))
                if fault is S3Fault.CLOSED:
                    self.close_connection = True
                elif fault in _ANSWERS:
                    status, code = _ANSWERS[fault]
                    text = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>faulty</Message></Error>"
                    self._answer(Told(status, {"content-type": "application/xml"}, text.encode()))
                else:
                    self._pass_on(fault)

            def _pass_on(self, fault: S3Fault | None = None) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                headers = {name.lower(): value for name, value in self.headers.items()}
                told = proxy._forward(self.command, Asked(self.path, headers), body, fault)
                self._answer(told, fault)

            do_HEAD = do_PUT = do_POST = do_DELETE = _pass_on  # noqa: N815 - as the base class wants them

            def _answer(self, told: Told, fault: S3Fault | None = None) -> None:
                half = len(told.body) // 2
                headers, body = _framed(told.headers, told.body[:half] if fault is S3Fault.SHORT else told.body)
                self.send_response(told.status)
                for name, value in headers.items():
                    self.send_header(name, value)
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


def _framed(headers: Mapping[str, str], body: bytes) -> tuple[Mapping[str, str], bytes]:
    """Return headers that say where the body ends, and the body as it is written."""
    if "transfer-encoding" in headers:
        return headers, b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)
    return {"content-length": str(len(body))} | dict(headers), body


class _Server(ThreadingHTTPServer):
    request_queue_size = 128
    daemon_threads = False  # so that server_close waits for them

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that went away; print a traceback for mistakes of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)
