"""A server that plays Segment: its `POST /v1/batch` checks what Segment checks and remembers what arrived.

What is refused and how: https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/ . Broken JSON
and oversize get 400; everything else gets 200, also what Segment then leaves out without a word: such events are
found in `rejected` (not fit) and `dropped` (dead or unknown write key). Faults are scripted, see `faults`. What
Segment knows besides the events, and the endpoints that tell it, stand in `segment_world`.
"""

import re
import threading
from base64 import b64decode
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal, Self

import orjson
from isal import isal_zlib

from currents_bridge.testing.loopback import Answer, LoopbackServer, Request
from currents_bridge.testing.segment_world import SegmentWorld

__all__ = ["Answer", "Collector", "Message", "ReceivedRequest", "Rejected", "RequestInfo"]

MAX_BODY_BYTES = 500 * 1024  # Segment says "500KB", and its own libraries send up to 507,767 bytes
MAX_MESSAGE_BYTES = 32 * 1024
MAX_EVENTS = 2500
MAX_MESSAGE_ID_CHARS = 99

_ISO_MILLISECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(Z|[+-]\d\d:\d\d)")
_GZIP = 31  # zlib's `wbits` for data with a gzip header

Message = dict[str, Any]


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """A request before it is answered, for `Collector.answer_with`."""

    number: int  # from 1, in order of arrival
    headers: Mapping[str, str]  # names in lower case
    bytes_wire: int
    body: bytes  # decompressed


@dataclass(frozen=True, slots=True)
class ReceivedRequest:
    """A request that was answered."""

    number: int
    headers: Mapping[str, str]
    bytes_wire: int
    bytes_body: int  # decompressed; 0 for what is no gzip
    events: int  # taken, also those rejected or dropped; 0 for a refused request
    sent_at: str | None
    status: int  # that was answered, or would have been but for a reset
    reset: Literal["before", "after"] | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message that got a 200 and yet does not count."""

    message: Message
    reason: str


class Collector:
    """A Segment-like server on a free port of 127.0.0.1, running inside `with`.

    Lists and counts may be read at any time, also from other threads, and grow while requests come in.

    Args:
        write_keys: the keys that live from the start; None: any key that is not empty.
        remember: False counts requests, events and bytes only, without looking into messages: for benchmarks.
        now: the time, aware; for keys that die, counts, and tokens.

    Attributes:
        world: what else this Segment knows and how it behaves: keys, the source, OAuth, the other endpoints.
        messages: every accepted message in order of arrival, repeated ones too.
        by_id: the first accepted message of each messageId.
        duplicates: accepted messages whose messageId had arrived before.
        rejected: messages that Segment would leave out, with the reason.
        dropped: messages that came with a dead or unknown write key, or for a source that takes none.
        dropped_by_fault: messages that a scripted answer let the collector lose in spite of a 200.
        requests: every request to `/v1/batch`; empty if `remember` is False.
        request_count: requests to `/v1/batch`.
        event_count: events of requests that were taken.
        body_bytes: of requests that were taken, decompressed.
    """

    def __init__(
        self,
        *,
        write_keys: Collection[str] | None = None,
        remember: bool = True,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self.world = SegmentWorld(write_keys, now)
        self.messages: list[Message] = []
        self.by_id: dict[str, Message] = {}
        self.duplicates = 0
        self.rejected: list[Rejected] = []
        self.dropped: list[Message] = []
        self._seen: set[str] = set()
        self.dropped_by_fault: list[Message] = []
        self.requests: list[ReceivedRequest] = []
        self.request_count = 0
        self.event_count = 0
        self.body_bytes = 0
        self._remember = remember
        self._script: Callable[[RequestInfo], Answer | None] = lambda _: None
        self._lock = threading.Lock()

    def __enter__(self) -> Self:
        self._server = LoopbackServer(self._respond, "collector")
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    @property
    def url(self) -> str:
        """The base URL, for `destination.endpoint_url` and every other endpoint of Segment."""
        return self._server.url

    def answer_with(self, script: Callable[[RequestInfo], Answer | None]) -> None:
        """Ask `script` for the answer to each request from now on; None: answer as usual. May be called in threads."""
        self._script = script

    def _respond(self, request: Request) -> Answer:
        if (request.method, request.target) == ("POST", "/v1/batch"):
            return self._receive(request.headers, request.wire)
        return self.world.answer(request)

    def _receive(self, headers: Mapping[str, str], wire: bytes) -> Answer:
        """Take in one request and return its answer."""
        with self._lock:
            self.request_count += 1
            number = self.request_count
        try:
            body = isal_zlib.decompress(wire, _GZIP) if headers.get("content-encoding") == "gzip" else wire
        except isal_zlib.error:  # type: ignore[misc] # its stub takes the class for an instance
            body, answer = b"", Answer(400, body="Bad Request")
        else:
            scripted = self._script(RequestInfo(number, headers, len(wire), body))
            answer = scripted or self.world.refuses_token(headers) or Answer()
        if answer.delay_s:
            self._server.wait(answer.delay_s)
        with self._lock:
            return self._answer(answer, number, headers, len(wire), body)

    def _answer(self, answer: Answer, number: int, headers: Mapping[str, str], bytes_wire: int, body: bytes) -> Answer:
        """Take what the answer lets in, and put the request on record."""
        sent_at: str | None = None
        batch: list[Message] = []
        if answer.status // 100 == 2 and answer.reset != "before":  # noqa: PLR2004 - 2xx
            try:
                if self._remember:
                    sent_at, batch = self._take(headers, body, drop=answer.drop)
                else:
                    self._count(body, body.count(b'"messageId":'))
            except _BadRequestError as error:
                answer = Answer(400, body=str(error), reset=answer.reset)
        if self._remember:
            self.requests.append(
                ReceivedRequest(
                    number, headers, bytes_wire, len(body), len(batch), sent_at, answer.status, answer.reset
                )
            )
        return answer if answer.body else replace(answer, body='{"success": true}')

    def _count(self, body: bytes, events: int) -> None:
        self.event_count += events
        self.body_bytes += len(body)

    def _take(self, headers: Mapping[str, str], body: bytes, *, drop: bool) -> tuple[str | None, list[Message]]:
        """Check the request as a whole, file each message; return `sentAt` and the messages."""
        if len(body) > MAX_BODY_BYTES:
            raise _BadRequestError("Exceed payload limit")
        try:
            request = orjson.loads(body)
            batch = self._without_repeats(request["batch"])
        except (orjson.JSONDecodeError, KeyError, TypeError):
            raise _BadRequestError("Bad Request") from None
        key = request.get("writeKey") or _basic_user(headers)
        if not key or not isinstance(batch, list) or not all(isinstance(message, dict) for message in batch):
            raise _BadRequestError("Bad Request")
        if any(len(orjson.dumps(message)) > MAX_MESSAGE_BYTES for message in batch):
            raise _BadRequestError("Exceed payload limit")

        sent_at = request.get("sentAt")
        if len(batch) > MAX_EVENTS:
            flaws = [f"more than {MAX_EVENTS} events in a request"] * len(batch)
        elif not _is_time(sent_at):
            flaws = [f"sentAt is no ISO 8601 time: {sent_at!r}"] * len(batch)
        else:
            flaws = [_flaw(message) for message in batch]
        self._count(body, len(batch))
        if not self.world.takes(key):
            self.dropped += batch
        elif drop:
            self.dropped_by_fault += batch
        else:
            self.world.count(received=flaws.count(""), failed=len(flaws) - flaws.count(""))
            for message, flaw in zip(batch, flaws, strict=True):
                self._file(message, flaw)
        return sent_at, batch

    def _without_repeats(self, batch: list[Message]) -> list[Message]:
        if not self.world.remembers_ids:
            return batch
        fresh = [message for message in batch if message["messageId"] not in self._seen]
        self._seen.update(message["messageId"] for message in batch)
        return fresh

    def _file(self, message: Message, flaw: str) -> None:
        if flaw:
            self.rejected.append(Rejected(message, flaw))
            return
        self.messages.append(message)
        if self.by_id.setdefault(message["messageId"], message) is not message:
            self.duplicates += 1


class _BadRequestError(Exception):
    """The request gets 400."""


def _flaw(message: Message) -> str:
    """Return why Segment would leave the message out or spoil it; empty if it is well."""
    message_id = message.get("messageId")
    checks = {
        "type is not track": message.get("type") == "track",
        "messageId is missing or has 100 characters or more": _is_text(message_id)
        and len(str(message_id)) <= MAX_MESSAGE_ID_CHARS,
        "neither userId nor anonymousId": _is_text(message.get("userId")) or _is_text(message.get("anonymousId")),
        "event is missing or empty": _is_text(message.get("event")),
        "timestamp is no ISO 8601 time with milliseconds": _is_time(message.get("timestamp"))
        and bool(_ISO_MILLISECONDS.fullmatch(message["timestamp"])),
        "properties is not an object": isinstance(message.get("properties"), dict),
    }
    return next((flaw for flaw, passed in checks.items() if not passed), "")


def _is_text(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())


def _is_time(value: object) -> bool:
    try:
        return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _basic_user(headers: Mapping[str, str]) -> str:
    """Return the user name of HTTP Basic, or an empty one."""
    scheme, _, credentials = headers.get("authorization", "").partition(" ")
    try:
        user, _, password = b64decode(credentials).decode().partition(":")
    except ValueError:
        return ""
    return user if scheme.lower() == "basic" and not password else ""
