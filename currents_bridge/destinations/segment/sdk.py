"""Segment's own Python library as a transport, for those who must send through it.

What the library (2.4) would do by itself, and why it may not here:

- It keeps a thread that wakes twice a second for new messages, and sends what it finds: up to 475,000 bytes by its
  own count, with all but ASCII escaped. Here each batch has a client of its own, and is sent by the caller in one
  request. What is larger by that count is refused whole, so that the sender halves it, and paces the halves.
- On `Retry-After` it puts the messages back and makes `flush()` wait, for up to half an hour. Here every error ends
  the attempt: the sender repeats the batch, and all senders keep the pause.
- It follows redirects, which turn the POST into a GET, and takes any 2xx for an acknowledgement.
- It keeps its connections in one session for as long as the process lives. Here the session is emptied every hour, so
  that DNS is asked again.
- It logs whole messages and, at debug level, the write key.
- It gets OAuth tokens in timer threads. Here it asks `segment_oauth.OAuth` for them.
"""

import json
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
from segment.analytics.consumer import BATCH_SIZE_LIMIT, Consumer
from segment.analytics.request import APIError, DatetimeSerializer

from currents_bridge.destinations.segment.endpoint import BAD_CREDENTIAL, MAX_CONNECTION_AGE_S, Endpoint
from currents_bridge.destinations.segment.oauth import OAuth
from currents_bridge.errors import BridgeError, RefusedError, RetryLaterError
from currents_bridge.model import Batch, Refusal
from currents_bridge.network.clients import ATTEMPT_TIMEOUT_S, CONNECT_TIMEOUT_S, READ_TIMEOUT_S
from currents_bridge.network.deadline import TooLateError, within
from currents_bridge.network.requests_rules import lay_requests_rules
from currents_bridge.network.rules import BadNetworkSettingError

_TIMEOUT_S = (CONNECT_TIMEOUT_S, READ_TIMEOUT_S)
_NO_ANSWER = (TooLateError, BadNetworkSettingError)


class SegmentSdkTransport:
    """Fulfils ports.Transport with `segment.analytics.client.Client.track`.

    The library writes its own name into `context.library`, adds an empty `integrations` and empty ids, and writes
    UTC as `+00:00`; all else arrives as it is in the batch.

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
        lay_requests_rules()
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
            gzip=True,
            retries=0,
            timeout=_TIMEOUT_S,
            oauth_manager=self._oauth,
        )
        client.send = True
        refusals = _track_all(client, batch)
        owed = batch.events - len(refusals)
        if owed > 1 and _is_too_large(client.queue):
            raise RefusedError("over 475,000 bytes as segment-analytics-python counts it", "it is sent in halves")
        if owed:
            with within(ATTEMPT_TIMEOUT_S):
                consumer.upload()
        if failures:
            if isinstance(failures[0], BridgeError) and not isinstance(failures[0], _NO_ANSWER):
                raise failures[0]
            raise self._endpoint.network_error(failures[0]) from failures[0]
        if consumer.acknowledged != owed:
            raise RetryLaterError(f"segment-analytics-python confirmed {consumer.acknowledged} of {owed} messages")
        return refusals

    def close(self) -> None:
        """Do nothing: the library's session stays usable."""

    def _renew_connections(self) -> None:
        """Let go of connections that may be old; those with a request on them are closed after its answer."""
        with self._lock:
            if self._monotonic_clock() - self._connected_s >= MAX_CONNECTION_AGE_S:
                self._connected_s = self._monotonic_clock()
                segment_request._session.close()  # noqa: SLF001 - it has no other name, and stays usable


class _Consumer(Consumer):  # type: ignore[misc] # the library has no types
    """The library's sender, which counts what Segment acknowledged, and makes one attempt with all that is queued."""

    def __init__(self, endpoint: Endpoint, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._endpoint = endpoint
        self.acknowledged = 0

    def next(self) -> list[dict[str, object]]:
        return [self.queue.get_nowait() for _ in range(self.queue.qsize())]

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


def _is_too_large(waiting: "queue.Queue[dict[str, object]]") -> bool:
    """Whether the library would make more than one request of what is queued."""
    sizes = (len(json.dumps(item, cls=DatetimeSerializer)) for item in waiting.queue)
    return sum(sizes) > int(BATCH_SIZE_LIMIT)


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
