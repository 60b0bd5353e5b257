"""Segment's own Python library as a transport, for those who must send through it.

What the library (2.4) would do by itself, and why it may not here:

- It keeps a thread that wakes twice a second for new messages, and sends what it finds. Here each batch has a client
  of its own, whose thread starts when the whole batch is queued, so that it goes out in one request and at once.
- On `Retry-After` it puts the messages back and makes `flush()` wait, for up to half an hour. Here every error ends
  the attempt: the sender repeats the batch, and all senders keep the pause.
- It follows redirects, which turn the POST into a GET, and takes any 2xx for an acknowledgement.
- It keeps its connections in one session for as long as the process lives. Here the session is emptied every hour, so
  that DNS is asked again.
- It logs whole messages and, at debug level, the write key.
- It gets OAuth tokens in timer threads. Here it asks `segment_oauth.OAuth` for them.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

import orjson
from pydantic import SecretStr
from segment.analytics import request as segment_request
from segment.analytics.client import Client
from segment.analytics.consumer import Consumer
from segment.analytics.request import APIError

from currents_bridge.adapters.interim import read_past_interim_answers
from currents_bridge.adapters.segment_endpoint import (
    BAD_CREDENTIAL,
    CONNECT_TIMEOUT_S,
    MAX_CONNECTION_AGE_S,
    READ_TIMEOUT_S,
    Endpoint,
)
from currents_bridge.adapters.segment_oauth import OAuth
from currents_bridge.errors import BridgeError, RetryLaterError
from currents_bridge.model import Batch, Refusal

# How long the library's thread waits for more messages than there are: after a batch that its own count (475,000
# bytes with \u escapes) cuts in two, and once before it ends.
_UPLOAD_INTERVAL_S = 0.05
_TIMEOUT_S = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)


class SegmentSdkTransport:
    """Fulfils ports.Transport with `segment.analytics.client.Client.track`.

    The library writes its own name into `context.library`, adds an empty `integrations` and empty ids, and writes
    UTC as `+00:00`; all else arrives as it is in the batch. It may cut a batch into several requests.

    Args:
        write_key: of the source.
        base_url: see `segment_url`.
        clock: the time now, aware; reads dates in answers.
        oauth: tokens for a source that enforces OAuth.
        monotonic_clock: seconds; tells the age of connections.
    """

    def __init__(
        self,
        write_key: SecretStr,
        *,
        base_url: str,
        clock: Callable[[], datetime],
        oauth: OAuth | None = None,
        monotonic_clock: Callable[[], float] = time.monotonic,
    ) -> None:
        read_past_interim_answers()
        self._endpoint = Endpoint(write_key, base_url, clock, (lambda: oauth.issued) if oauth else tuple)
        self._oauth = oauth
        self._monotonic_clock = monotonic_clock
        self._connected_s = monotonic_clock()
        self._lock = threading.Lock()
        logging.getLogger("segment").disabled = True  # what it would say is in our errors, without messages and key

    def send(self, batch: Batch) -> Sequence[Refusal]:
        """Make one attempt; see ports.Transport. Messages that the library calls too large or unfit are refused."""
        self._renew_connections()
        failures: list[Exception] = []
        client = Client(
            self._endpoint.write_key.get_secret_value(),
            host=self._endpoint.base_url,
            max_queue_size=batch.events,
            send=False,  # neither a running thread nor a hook at exit; `track` needs it on, see below
        )
        consumer = _Consumer(
            self._endpoint,
            client.queue,
            client.write_key,
            host=client.host,
            on_error=lambda error, _: failures.append(error),
            upload_size=batch.events,
            upload_interval=_UPLOAD_INTERVAL_S,
            gzip=True,
            retries=0,
            timeout=_TIMEOUT_S,
            oauth_manager=self._oauth,
        )
        client.consumers, client.send = [consumer], True

        refusals = _track_all(client, batch)
        owed = batch.events - len(refusals)
        if owed:
            consumer.start()
            client.flush()
            client.join()
        if failures:
            if isinstance(failures[0], BridgeError):
                raise failures[0]
            raise self._endpoint.network_error(failures[0]) from failures[0]
        if consumer.acknowledged != owed:
            raise RetryLaterError(f"segment-analytics-python confirmed {consumer.acknowledged} of {owed} messages")
        return refusals

    def close(self) -> None:
        """Do nothing: each send ends the thread that it started."""

    def _renew_connections(self) -> None:
        """Let go of connections that may be old; those with a request on them are closed after its answer."""
        with self._lock:
            if self._monotonic_clock() - self._connected_s >= MAX_CONNECTION_AGE_S:
                self._connected_s = self._monotonic_clock()
                segment_request._session.close()  # noqa: SLF001 - it has no other name, and stays usable


class _Consumer(Consumer):  # type: ignore[misc] # the library has no types
    """The library's sending thread, which counts what Segment acknowledged and makes one attempt."""

    def __init__(self, endpoint: Endpoint, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._endpoint = endpoint
        self.acknowledged = 0

    def request(self, batch: list[dict[str, object]]) -> None:
        try:
            answer = self._request(batch)
        except APIError as refused:
            answer = refused.response
        first = (answer.history or [answer])[0]  # a redirect counts, not what it led to
        if error := self._endpoint.error(first.status_code, first.headers, first.text):
            raise error  # to on_error, where an APIError with Retry-After would go back into the queue
        self.acknowledged += len(batch)

    def _request(self, batch: list[dict[str, object]]) -> Any:
        """Make the attempt, and once more with another token where the library has cleared a refused one."""
        try:
            return super().request(batch)
        except APIError as error:
            if self.oauth_manager is None or error.status not in BAD_CREDENTIAL:
                raise
        return super().request(batch)


def _track_all(client: Client, batch: Batch) -> list[Refusal]:
    """Queue every message of the batch; return those that the library refuses."""
    refusals = []
    for part in batch.parts:
        for row, message_id, text in part.messages.select("row", "message_id", "message").iter_rows():
            try:
                _track(client, orjson.loads(text))
            except (RuntimeError, AssertionError) as error:  # so says the library: over 32 KiB; of a wrong type
                refusals.append(Refusal(part.object_id, row, message_id, _reason(error)))
    return refusals


def _track(client: Client, message: dict[str, Any]) -> None:
    queued, _ = client.track(
        user_id=message.get("userId"),
        event=message.get("event"),
        properties=message.get("properties"),
        context=message.get("context"),
        timestamp=datetime.fromisoformat(message["timestamp"]),
        anonymous_id=message.get("anonymousId"),
        integrations=message.get("integrations"),
        message_id=message["messageId"],
    )
    if not queued:
        raise queue.Full  # cannot be: the queue has a place for each message


def _reason(error: Exception) -> str:
    if isinstance(error, RuntimeError):  # its text holds the whole message
        return "over 32 KB as segment-analytics-python counts it, with \\u escapes"
    return f"segment-analytics-python refuses it: {error}"[:200]
