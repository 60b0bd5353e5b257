"""An HTTP server on a free port of 127.0.0.1 whose answers a function makes, and which ends when it is told to."""

import struct
import sys
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import SHUT_RDWR, SO_LINGER, SOL_SOCKET, socket
from typing import Any, Literal

_OK = 200
_NO_LINGER = struct.pack("ii", 1, 0)  # closing sends a reset instead of a farewell


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer. For scripted ones of `/v1/batch`: a 2xx takes the events as usual, any other status takes nothing."""

    status: int = _OK
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = ""
    delay_s: float = 0.0
    reset: Literal["before", "after"] | None = None  # cut the connection without an answer; after: events are taken
    drop: bool = False  # answer as if the events were taken, and lose them


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it came over the wire."""

    method: str
    target: str  # path and query
    headers: Mapping[str, str]  # names in lower case
    wire: bytes  # the body


class LoopbackServer(ThreadingHTTPServer):
    """Serves from its making on; requests are answered in threads of their own.

    Ends its connections when it closes, so that no client and no thread outlives it.

    Args:
        answer: makes the answer to a request; called in threads.
        name: of the thread that accepts connections.
    """

    request_queue_size = 128  # many clients may connect at once
    daemon_threads = False  # so that server_close waits for them

    def __init__(self, answer: Callable[[Request], Answer], name: str) -> None:
        super().__init__(("127.0.0.1", 0), _handler(answer))
        self._closing = threading.Event()
        self._open: set[socket] = set()
        self._open_lock = threading.Lock()
        self._thread = threading.Thread(target=self.serve_forever, args=(0.05,), name=name, daemon=True)
        self._thread.start()

    @property
    def url(self) -> str:
        """The base URL."""
        return f"http://127.0.0.1:{self.server_port}"

    def wait(self, delay_s: float) -> None:
        """Return after the delay, or when the server closes."""
        self._closing.wait(delay_s)

    def close(self) -> None:
        """Cut all connections and return when every thread has ended."""
        self.shutdown()
        self._thread.join()
        self._closing.set()
        with self._open_lock:
            for connection in self._open:
                with suppress(OSError):  # the client went away first
                    connection.shutdown(SHUT_RDWR)
        self.server_close()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection, to end it."""
        with self._open_lock:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection: it ends by itself."""
        with self._open_lock:
            self._open.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing about clients that went away; print a traceback for mistakes of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


def _handler(make_answer: Callable[[Request], Answer]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # one write an answer

        def do_POST(self) -> None:
            wire = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = make_answer(Request(self.command, self.path, headers, wire))
            if answer.reset:
                self.close_connection = True
                self.connection.setsockopt(SOL_SOCKET, SO_LINGER, _NO_LINGER)
                self.server.close_request(self.connection)
                return
            body = answer.body.encode()
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST  # noqa: N815 - as the base class has it

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - as the base class has it
            """Say nothing."""

    return Handler
