"""Segment's batch API over httpx: one request a batch, built and compressed in native code."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime

import httpx
import orjson
from isal import igzip
from pydantic import SecretStr

from currents_bridge import __version__
from currents_bridge.adapters.segment_endpoint import CONNECT_TIMEOUT_S, MAX_CONNECTION_AGE_S, READ_TIMEOUT_S, Endpoint
from currents_bridge.adapters.segment_oauth import OAuth
from currents_bridge.model import Batch, Refusal
from currents_bridge.sending import request_body


class SegmentBatchTransport:
    """Fulfils ports.Transport with `POST /v1/batch`, https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/.

    Redirects are not followed: they would carry the events, or the key, elsewhere.

    Args:
        write_key: of the source; sent as the user name of HTTP Basic, or beside a token in the body, whose size it
            then adds to.
        base_url: see `segment_url`.
        max_in_flight: connections kept, at least as many as batches that are sent at once.
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
        oauth: OAuth | None = None,
        monotonic_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._endpoint = Endpoint(write_key, base_url, clock, (lambda: oauth.issued) if oauth else tuple)
        self._clock = clock
        key = write_key.get_secret_value()
        self._key_in_body = b',"writeKey":%b}' % orjson.dumps(key) if oauth else b""

        def connect() -> httpx.Client:
            return httpx.Client(
                auth=oauth or (key, ""),
                headers={
                    "Content-Type": "application/json",
                    "Content-Encoding": "gzip",
                    "User-Agent": f"currents-bridge/{__version__}",
                },
                limits=httpx.Limits(max_connections=max_in_flight, max_keepalive_connections=max_in_flight),
                timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
            )

        self._clients = _RenewedClient(connect, monotonic_clock)

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


class _RenewedClient:
    """Lends a client that is not old, so that its connections follow what DNS says. Thread-safe.

    A client that has become too old is closed when the last request over it has ended.
    """

    def __init__(self, connect: Callable[[], httpx.Client], clock: Callable[[], float]) -> None:
        self._connect = connect
        self._clock = clock
        self._lock = threading.Lock()
        self._lent: Counter[httpx.Client] = Counter()
        self._renew()

    @contextmanager
    def lend(self) -> Iterator[httpx.Client]:
        with self._lock:
            if self._clock() - self._connected_s >= MAX_CONNECTION_AGE_S:
                old = self._client
                self._renew()
                self._close_if_idle(old)
            client = self._client
            self._lent[client] += 1
        try:
            yield client
        finally:
            with self._lock:
                self._lent[client] -= 1
                if client is not self._client:
                    self._close_if_idle(client)

    def close(self) -> None:
        with self._lock:
            for client in {self._client, *self._lent}:
                client.close()

    def _renew(self) -> None:
        self._client, self._connected_s = self._connect(), self._clock()

    def _close_if_idle(self, client: httpx.Client) -> None:
        if not self._lent[client]:
            del self._lent[client]
            client.close()
