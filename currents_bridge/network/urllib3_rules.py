"""What every client that stands on urllib3 does alike: all of ours, requests, segment-analytics-python, botocore.

- It reads past HTTP's interim answers (1xx), to the final one. `http.client` skips 100 only and takes any other, as 102
  (Processing) and 103 (Early Hints), for the answer. The final answer then lies unread on a connection that is used
  again, and counts as that of the next request: batches would be called acknowledged that never were.
  https://www.rfc-editor.org/rfc/rfc9110#section-15.2
- It keeps to the deadline of `deadline.within`. The timeouts of sockets start anew with every byte.
- It logs nothing: its lines hold URLs, and some of these hold keys.
- It trusts whom `network.trust` says, unless it was told to trust anybody or one certificate alone.

urllib3 has no other place for this that botocore and requests leave alone, so the methods are replaced for the process.
"""

import io
import logging
import math
import socket
import ssl
import time
from http import HTTPStatus
from http.client import HTTPException, HTTPResponse
from typing import TYPE_CHECKING, Any

from urllib3.connection import HTTPConnection, HTTPSConnection

from currents_bridge.network.deadline import left_s
from currents_bridge.network.rules import trust

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

MAX_INTERIM = 32  # of one answer
LOOK_S = 1.0  # of silence between two looks at the deadline
_PIECE_BYTES = 16 * 1024  # of a body between two looks at the deadline; as much as TLS sends at once

_open_socket = HTTPConnection._new_conn  # noqa: SLF001 - botocore and Apprise build on it as well
_send = HTTPConnection.send
_connect_tls = HTTPSConnection.connect


def lay_rules() -> None:
    """Have urllib3 do so; idempotent."""
    for name in ("urllib3.connectionpool", "urllib3.connection"):
        logging.getLogger(name).disabled = True  # a level could be set again
    plain: Any = HTTPConnection
    plain.response_class, plain._new_conn, plain.send = FinalResponse, _open_socket_in_time, _send_in_time  # noqa: SLF001
    tls: Any = HTTPSConnection
    tls.connect = _connect_trusting


class FinalResponse(HTTPResponse):
    """An answer that begins with the final one, and is read as long as the deadline allows."""

    def __init__(self, sock: socket.socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self.fp = io.BufferedReader(_TimedReader(sock, self.fp.detach()))

    def begin(self) -> None:
        """Read status and headers; raises HTTPException where no final answer comes."""
        for _ in range(MAX_INTERIM):
            super().begin()
            if not HTTPStatus.CONTINUE <= self.status < HTTPStatus.OK:
                return
            if self.status == HTTPStatus.SWITCHING_PROTOCOLS:  # no HTTP follows, and nobody asked for that
                self.will_close = True
                return
            self.headers = self.msg = None  # type: ignore[assignment] # `begin` does nothing where there are some
        raise HTTPException(f"no final answer after {MAX_INTERIM} interim ones")


class _TimedReader(io.RawIOBase):
    """Reads a socket by its own timeout and the deadline, whichever ends first."""

    def __init__(self, sock: socket.socket, file: io.RawIOBase) -> None:
        super().__init__()
        self._socket = sock
        self._file = file  # keeps the socket open until it is closed itself

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        patience_s = self._socket.gettimeout()
        silent_until_s = math.inf if patience_s is None else time.monotonic() + patience_s
        try:
            while True:
                self._socket.settimeout(_in_time(min(LOOK_S, max(0.001, silent_until_s - time.monotonic()))))
                try:
                    return self._socket.recv_into(buffer)
                except TimeoutError:
                    left_s(math.inf)  # says so where it was the deadline, which a stop may have brought nearer
                    if time.monotonic() >= silent_until_s:
                        raise
        finally:
            self._socket.settimeout(patience_s)

    def close(self) -> None:
        self._file.close()
        super().close()


def _open_socket_in_time(connection: HTTPConnection) -> socket.socket:
    """Connect, to one address of the host after the other."""
    patience_s = connection.timeout
    connection.timeout = _in_time(patience_s if isinstance(patience_s, float | int) else None)
    try:
        return _open_socket(connection)
    finally:
        connection.timeout = patience_s


def _send_in_time(connection: HTTPConnection, data: Any) -> None:
    """Send a part of a request; TLS would wait for each 16 KiB as long as for all of it."""
    if connection.sock is None or not isinstance(data, bytes):
        _send(connection, data)
        return
    patience_s = connection.sock.gettimeout()
    try:
        for start in range(0, len(data), _PIECE_BYTES):
            connection.sock.settimeout(_in_time(patience_s))
            _send(connection, data[start : start + _PIECE_BYTES])
    finally:
        connection.sock.settimeout(patience_s)


def _in_time(patience_s: float | None) -> float | None:
    """Return a timeout that ends with the deadline, too; None: none."""
    seconds = left_s(math.inf if patience_s is None else patience_s)
    return None if seconds == math.inf else seconds


def _connect_trusting(connection: HTTPSConnection) -> None:
    own_trust = connection.assert_fingerprint or connection.cert_file or connection.assert_hostname is not None
    if not own_trust and connection.cert_reqs in {None, ssl.CERT_REQUIRED, "CERT_REQUIRED"}:
        connection.ssl_context = trust()
        connection.ca_certs = connection.ca_cert_dir = connection.ca_cert_data = None  # would be added to the former
    if connection.proxy_config and connection.proxy_config.ssl_context is None:
        connection.proxy_config = connection.proxy_config._replace(ssl_context=trust())
    _connect_tls(connection)
