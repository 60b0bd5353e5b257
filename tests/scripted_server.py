"""A server that sends bytes as they are, for answers that no library would make."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import segment.analytics.request


@contextmanager
def scripted_server(*answers: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """Run a server that gives each request the next of the answers, however many connections there are.

    Yields its URL, and the bodies of the requests as they came.
    """
    bodies: list[bytes] = []
    left = list(answers)

    def serve() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, connection.makefile("rb") as stream:
                while left:
                    headers = dict(iter(lambda: stream.readline().lower().rstrip().partition(b": ")[::2], (b"", b"")))
                    if not headers:
                        break  # the client has left this connection
                    bodies.append(stream.read(int(headers.get(b"content-length", 0))))
                    connection.sendall(left.pop(0))

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}", bodies
        segment.analytics.request._session.close()  # of the library, for all its clients
        listener.shutdown(socket.SHUT_RDWR)
    thread.join()
