"""Segment's batch API over httpx: one request a batch, built and compressed in native code."""

from collections.abc import Callable, Sequence
from datetime import datetime

import httpx
from isal import igzip
from pydantic import SecretStr

from currents_bridge import __version__
from currents_bridge.adapters.segment_endpoint import CONNECT_TIMEOUT_S, READ_TIMEOUT_S, Endpoint
from currents_bridge.model import Batch, Refusal
from currents_bridge.sending import request_body


class SegmentBatchTransport:
    """Fulfils ports.Transport with `POST /v1/batch`, https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/.

    Redirects are not followed: they would carry the events, or the key, elsewhere.

    Args:
        write_key: of the source; sent as the user name of HTTP Basic.
        base_url: see `segment_url`.
        max_in_flight: connections kept, at least as many as batches that are sent at once.
        clock: the time now, aware; sets `sentAt` and reads dates in answers.
    """

    def __init__(
        self, write_key: SecretStr, *, base_url: str, max_in_flight: int, clock: Callable[[], datetime]
    ) -> None:
        self._endpoint = Endpoint(write_key, base_url, clock)
        self._clock = clock
        self._client = httpx.Client(
            auth=(write_key.get_secret_value(), ""),
            headers={
                "Content-Type": "application/json",
                "Content-Encoding": "gzip",
                "User-Agent": f"currents-bridge/{__version__}",
            },
            limits=httpx.Limits(max_connections=max_in_flight, max_keepalive_connections=max_in_flight),
            timeout=httpx.Timeout(READ_TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        )

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Make one attempt; see ports.Transport. Segment acknowledges or refuses a batch as a whole."""
        body = request_body([part.messages["message"] for part in batch.parts], self._clock())
        try:
            answer = self._client.post(self._endpoint.batch_url, content=igzip.compress(body, 1))
        except httpx.RequestError as error:
            raise self._endpoint.network_error(error) from error
        if not answer.is_success:
            raise self._endpoint.error(answer.status_code, answer.headers, answer.text)
        return ()

    def close(self) -> None:
        """Free the connections; idempotent."""
        self._client.close()
