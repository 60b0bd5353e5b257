"""Segment's batch API over urllib3: one request a batch, built and compressed in native code.

urllib3 takes half of httpx's time for a request, and all of it under Python's lock, where the other workers wait.
"""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import urllib3
from isal import igzip
from pydantic import SecretStr

from currents_bridge import __version__
from currents_bridge.destinations.segment.endpoint import BAD_CREDENTIAL, MAX_CONNECTION_AGE_S, Endpoint
from currents_bridge.model import Batch, Refusal
from currents_bridge.network.clients import ATTEMPT_TIMEOUT_S, READ_TIMEOUT_S, pool
from currents_bridge.network.deadline import TooLateError, within
from currents_bridge.network.rules import BadNetworkSettingError
from currents_bridge.sending.sender import key_in_body, request_body

if TYPE_CHECKING:  # it brings 9 MB of cryptography, for few
    from currents_bridge.destinations.segment.oauth import OAuth


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
        self._max_in_flight = max_in_flight
        self._clock = clock
        self._oauth = oauth
        self._monotonic_clock = monotonic_clock
        self._headers = {
            "Content-Type": "application/json",
            "Content-Encoding": "gzip",
            "User-Agent": f"currents-bridge/{__version__}",
        }
        self._key_in_body = key_in_body(write_key.get_secret_value()) if oauth else b""
        self._lock = threading.Lock()
        self._connections: urllib3.PoolManager | None = None
        self._connected_s = 0.0

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Make one attempt; see ports.Transport. Segment acknowledges or refuses a batch as a whole."""
        body = request_body([part.messages["message"] for part in batch.parts], self._clock())
        if self._key_in_body:
            body = body[:-1] + self._key_in_body
        compressed = igzip.compress(body, 1)
        try:
            with within(ATTEMPT_TIMEOUT_S):
                if self._oauth:
                    answer = self._post_with_token(compressed, self._oauth)
                else:
                    answer = self._post(compressed, self._endpoint.basic_authorization)
        except (urllib3.exceptions.HTTPError, TooLateError, BadNetworkSettingError) as error:
            raise self._endpoint.network_error(error) from error
        if failure := self._endpoint.error(answer.status, answer.headers, answer.data.decode("utf-8", "replace")):
            raise failure
        return ()

    def close(self) -> None:
        """Free the connections; idempotent."""
        if self._connections:
            self._connections.clear()

    def _post_with_token(self, body: bytes, oauth: "OAuth") -> urllib3.BaseHTTPResponse:
        """Post with a token, and once more with another one if that is refused."""
        token = oauth.get_token()
        answer = self._post(body, f"Bearer {token}")
        if answer.status not in BAD_CREDENTIAL:
            return answer
        oauth.clear_token(token)
        return self._post(body, f"Bearer {oauth.get_token()}")

    def _post(self, body: bytes, authorization: str) -> urllib3.BaseHTTPResponse:
        headers = self._headers | {"Authorization": authorization}
        url = self._endpoint.batch_url
        return self._pool().urlopen("POST", url, body=body, headers=headers, retries=False, redirect=False)

    def _pool(self) -> urllib3.PoolManager:
        """Return the connections, new ones where these are old, so that they follow what DNS says.

        What is under way on the old ones is not cut: they close when it is done.
        """
        with self._lock:
            now_s = self._monotonic_clock()
            if self._connections is None or now_s - self._connected_s >= MAX_CONNECTION_AGE_S:
                # the first of the two is that of sending the whole body, too
                timeout = urllib3.Timeout(connect=READ_TIMEOUT_S, read=READ_TIMEOUT_S)
                self._connections = pool(self._endpoint.batch_url, max_connections=self._max_in_flight, timeout=timeout)
                self._connected_s = now_s
            return self._connections
