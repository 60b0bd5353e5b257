"""Segment's batch API over httpx: one request a batch, built and compressed in native code."""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import TYPE_CHECKING

import httpx
import orjson
from isal import igzip
from pydantic import SecretStr

from currents_bridge import __version__
from currents_bridge.adapters.segment_endpoint import CONNECT_TIMEOUT_S, MAX_CONNECTION_AGE_S, READ_TIMEOUT_S, Endpoint
from currents_bridge.model import Batch, Refusal
from currents_bridge.sending import request_body

if TYPE_CHECKING:  # it brings 9 MB of cryptography, for few
    from currents_bridge.adapters.segment_oauth import OAuth


class SegmentBatchTransport:
    """Fulfils ports.Transport with `POST /v1/batch`, https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/.

    Redirects are not followed: they would carry the events, or the key, elsewhere.

    Args:
        write_key: of the source; sent as the user name of HTTP Basic, or beside a token in the body, whose size it
            then adds to.
        base_url: see `segment_url`.
        max_in_flight: connections kept, as many as batches that are sent at once.
        clock: the time now, aware; sets `sentAt` and reads dates in answers.
        oauth: tokens for a source that enforces OAuth.
        monotonic_clock: seconds; tells the age of connections.
    """

    def __init__(  # noqa: PLR0913 - the composition root hands in each collaborator by name
        self,
        write_key: SecretStr,
        *,
        base_url: str,
        max_in_flight: int,
        clock: Callable[[], datetime],
        oauth: "OAuth | None" = None,
        monotonic_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = Endpoint(write_key, base_url, clock, (lambda: oauth.issued) if oauth else tuple)
        self._clock = clock
        key = write_key.get_secret_value()
        self._key_in_body = b',"writeKey":%b}' % orjson.dumps(key) if oauth else b""
        verify = httpx.create_ssl_context()  # reads the certificates: once for all clients

        def connect() -> httpx.Client:
            return httpx.Client(
                auth=oauth or (key, ""),
                headers={
                    "Content-Type": "application/json",
                    "Content-Encoding": "gzip",
                    "User-Agent": f"currents-bridge/{__version__}",
                },
                verify=verify,
                timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            )

        self._clients = _Clients(connect, max_in_flight, monotonic_clock)

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Make one attempt; see ports.Transport. Segment acknowledges or refuses a batch as a whole."""
        body = request_body([part.messages["message"] for part in batch.parts], self._clock())
        if self._key_in_body:
            body = body[:-1] + self._key_in_body
        try:
            with self._clients.lend() as client:
                answer = client.post(self._endpoint.batch_url, content=igzip.compress(body, 1))
        except httpx.RequestError as error:
            raise self._endpoint.network_error(error) from error
        if not answer.is_success:
            raise self._endpoint.error(answer.status_code, answer.headers, answer.text)
        return ()

    def close(self) -> None:
        """Free the connections; idempotent."""
        self._clients.close()


class _Clients:
    """Lends clients, each to one request at a time and so with one connection. Thread-safe.

    A pool that many threads share asks every idle connection at each request whether it still stands, under a lock.
    A client that has become old is not lent again, so that its connection follows what DNS says.
    """

    def __init__(self, connect: Callable[[], httpx.Client], max_idle: int, clock: Callable[[], float]) -> None:
        self._connect = connect
        self._max_idle = max_idle
        self._clock = clock
        self._idle: deque[tuple[httpx.Client, float]] = deque()  # with their birth; both ends are thread-safe

    @contextmanager
    def lend(self) -> Iterator[httpx.Client]:
        client, born_s = self._take()
        try:
            yield client
        finally:
            self._idle.append((client, born_s))
            if len(self._idle) > self._max_idle:
                self._close_one()

    def close(self) -> None:
        while self._idle:
            self._close_one()

    def _take(self) -> tuple[httpx.Client, float]:
        now_s = self._clock()
        while True:
            try:
                client, born_s = self._idle.pop()
            except IndexError:
                return self._connect(), now_s
            if now_s - born_s < MAX_CONNECTION_AGE_S:
                return client, born_s
            client.close()

    def _close_one(self) -> None:
        with suppress(IndexError):  # another thread took it
            self._idle.popleft()[0].close()
