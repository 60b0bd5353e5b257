"""Parts of a network on loopback: a server that answers anything, also over TLS or byte by byte, and a proxy."""

import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

Serve = Callable[[socket.socket], None]

LISTING = (
    b'<?xml version="1.0"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/"><Name>acme</Name>'
    b"<KeyCount>0</KeyCount><MaxKeys>1000</MaxKeys><IsTruncated>false</IsTruncated></ListBucketResult>"
)


@contextmanager
def listening(serve: Serve, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Run a server that handles each connection in a thread by `serve`; yields its port, ends all at the end."""
    open_ones: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def handle(connection: socket.socket) -> None:
        with suppress(OSError), connection:
            if tls is None:
                serve(connection)
                return
            with tls.wrap_socket(connection, server_side=True) as secured:
                serve(secured)

    def accept() -> None:
        with suppress(OSError):
            while True:
                connection, _ = listener.accept()
                open_ones.append(connection.dup())  # TLS takes the other one away
                threads.append(threading.Thread(target=handle, args=(connection,)))
                threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        acceptor = threading.Thread(target=accept)
        acceptor.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            acceptor.join()
            for connection in open_ones:
                with suppress(OSError), connection:
                    connection.shutdown(socket.SHUT_RDWR)
            for thread in threads:
                thread.join()


def read_request(connection: socket.socket) -> bytes:
    """Return the head of a request, after its body was read too."""
    data = b""
    while b"\r\n\r\n" not in data:
        piece = connection.recv(65536)
        if not piece:
            return data
        data += piece
    head, _, body = data.partition(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line)
    missing = int(lines.get(b"content-length", 0)) - len(body)
    while missing > 0 and (piece := connection.recv(65536)):
        missing -= len(piece)
    return head


def answering(heads: list[bytes], body: bytes = LISTING, status: bytes = b"200 OK") -> Serve:
    """Return what answers each request with the same, and notes its head."""

    def serve(connection: socket.socket) -> None:
        while head := read_request(connection):
            heads.append(head)
            answer = b"HTTP/1.1 %b\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)
            connection.sendall(answer if not head.startswith(b"HEAD") else answer.removesuffix(body))

    return serve


def dripping(ended: threading.Event, every_s: float, start: bytes = b"") -> Serve:
    """Return what sends `start`, and then a byte of a header now and then, until `ended`."""

    def serve(connection: socket.socket) -> None:
        read_request(connection)
        connection.sendall(b"HTTP/1.1 200 OK\r\n" + start + (b"" if start else b"X-Slow: "))
        while not ended.wait(every_s):
            connection.sendall(b"x")

    return serve


def proxy(asked: list[str], login: str | None = None) -> Serve:
    """Return a proxy that tunnels and forwards, notes what for, and answers 407 without the login `user:password`."""
    key = f"Basic {b64encode(login.encode()).decode()}" if login else None

    def serve(connection: socket.socket) -> None:
        head = read_request(connection).decode()
        if not head:
            return
        method, target = head.split()[:2]
        asked.append(f"{method} {target}")
        if key and f"proxy-authorization: {key}".lower() not in head.lower():
            connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
            return
        with socket.create_connection(("127.0.0.1", int(target.rpartition(":")[2]))) as upstream:
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            back = threading.Thread(target=_pump, args=(upstream, connection))
            back.start()
            _pump(connection, upstream)
            back.join()

    return serve


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(65536):
            sink.sendall(piece)
    for end in (source, sink):
        with suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)
