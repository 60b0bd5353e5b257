"""Where a Segment source is reached, and what its answers mean; shared by the transports."""

import re
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Annotated, Literal, TypeVar

from pydantic import AfterValidator, Field, SecretStr

from currents_bridge.errors import BridgeError, CredentialError, RefusedError, RetryLaterError, Side
from currents_bridge.network.answers import Answer, read_answer
from currents_bridge.network.clients import PROXY_LOGIN, NoAnswerError, ask, excerpt, host_of, proxy_refusal

REGION_URLS = {"us": "https://api.segment.io", "eu": "https://events.eu1.segmentapis.com"}
MAX_CONNECTION_AGE_S = 3600.0  # Segment asks for DNS to be resolved anew at least daily
MAX_WAIT_S = 900.0  # a longer wait is taken for a mistake, such as a date in epoch seconds

# 421: to a connection for another host; 425: too early; 460: a client that closed its connection, in the words of AWS
TRY_LATER = {PROXY_LOGIN, 408, 421, 425, 429, 460}
_REFUSED = {400, 413, 422}
BAD_CREDENTIAL = {401, 403, 511}  # only sources that enforce OAuth, and proxies, answer so
_FAILURE = re.compile("err|fail|inval|denied|refus|reject|forbid|unauth|not |^[45][0-9][0-9]$", re.IGNORECASE)
_Said = TypeVar("_Said", bool, str)
_SECONDS = re.compile(r"\d+(\.\d+)?", re.ASCII)
# as RFC 9110 has it, and with an offset; what else the standard library takes for a date, it does not always survive
_DATE = re.compile(r"[A-Z][a-z]{2}, \d{2} [A-Z][a-z]{2} \d{4} \d{2}:\d{2}:\d{2} (GMT|[+-]\d{4})", re.ASCII)
_BETWEEN = re.compile(r"(?<!\b[A-Z][a-z]{2}),\s*", re.ASCII)  # values of a header that came twice, not parts of a date


def segment_url(region: str, endpoint_url: str | None = None) -> str:
    """Return the base URL of a region (`us`, `eu`), or the endpoint that takes its place."""
    return (endpoint_url or REGION_URLS[region]).rstrip("/")


def _no_failure(said: _Said) -> _Said:
    if said is False or (isinstance(said, str) and _FAILURE.search(said)):
        raise ValueError("names a failure")
    return said


_True = Annotated[bool, AfterValidator(_no_failure)]
_Outcome = Annotated[int, Field(lt=400)] | Annotated[str, AfterValidator(_no_failure)] | _True | None


class _Acknowledgement(Answer):
    """A JSON object that names no failure, in the words that endpoints have for it."""

    success: _True = True
    ok: _True = True
    error: Literal[False, ""] | None = None
    errors: Annotated[list[object], Field(max_length=0)] | None = None
    code: _Outcome = None
    status: _Outcome = None
    statusCode: _Outcome = None  # noqa: N815 - as it stands in answers
    message: _Outcome = None


def asked_wait_s(headers: Mapping[str, str], now: datetime) -> float | None:
    """Return the wait that `Retry-After` (RFC 9110: seconds or a date) or `X-RateLimit-Reset` (seconds) names.

    The longest one of a header that came twice.
    """
    for name in ("Retry-After", "X-RateLimit-Reset"):
        values = _BETWEEN.split(headers.get(name, "").strip())
        wait_s = max(float(value) if _SECONDS.fullmatch(value) else _until_s(value, now) for value in values)
        if wait_s > 0:
            return min(wait_s, MAX_WAIT_S)
    return None


def _until_s(date: str, now: datetime) -> float:
    if not _DATE.fullmatch(date):
        return 0.0
    try:
        instant = parsedate_to_datetime(date)
    except (ValueError, OverflowError):
        return 0.0
    aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)  # "-0000" is read as a time without zone
    return (aware - now).total_seconds()


def reach(base_url: str) -> None:
    """Return once the host has answered anything at all; raises RetryLaterError where it does not."""
    try:
        ask("HEAD", base_url)
    except NoAnswerError as error:
        hint = "see that the network, a proxy or firewall, destination.region and destination.endpoint_url are right"
        raise RetryLaterError(error.message, hint) from error


class Endpoint:
    """One Segment source: its base URL, its write key, and the translation of its answers into our errors.

    No message holds the write key or a token, not even where an answer repeats it.

    Args:
        write_key: of the source.
        base_url: see `segment_url`.
        clock: the time now, aware; reads dates in answers.
        tokens: OAuth tokens that may have been sent.
    """

    def __init__(
        self,
        write_key: SecretStr,
        base_url: str,
        clock: Callable[[], datetime],
        tokens: Callable[[], Iterable[str]] = tuple,
    ) -> None:
        self.base_url = base_url.rstrip("/")
        self.batch_url = f"{self.base_url}/v1/batch"
        self.write_key = write_key
        self._clock = clock
        self._host = host_of(base_url)
        key = write_key.get_secret_value()
        encoded = b64encode(f"{key}:".encode()).decode()
        self.basic_authorization = f"Basic {encoded}"
        self._key_forms = (key, encoded)
        self._tokens = tokens

    def error(self, status: int, headers: Mapping[str, str], text: str) -> BridgeError | None:
        """Return the error that stands for an answer; None where it acknowledges.

        Segment acknowledges with `{"success": true}`. Endpoints that speak its API, as RudderStack's `OK`, may say so
        in other words; any text or page is that of somebody else, such as a proxy that wants a login.

        Args:
            status: any HTTP status, also an unheard-of one.
            headers: of the answer, with names that match in any case.
            text: the answer's body; at most 200 characters of it are shown.
        """
        said = excerpt(text, self._secrets())
        answer = f"{self._host} answered {status}" + (f": {said}" if said else "")
        if 200 <= status < 300:  # noqa: PLR2004 - 2xx
            if self._acknowledges(text.strip()):
                return None
            hint = "see that destination.endpoint_url and any proxy on the way lead to Segment; nothing is lost"
            return RetryLaterError(f"{answer}; that is no acknowledgement", hint)
        if status in BAD_CREDENTIAL:
            hint = (
                "check the write key, and destination.oauth where the source enforces OAuth; "
                "everything is kept until it works"
            )
            return CredentialError(Side.DESTINATION, answer, hint)
        if status == PROXY_LOGIN:
            answer = f"no answer from {self._host}: {proxy_refusal(status)}"
        if status in TRY_LATER or status >= 500:  # noqa: PLR2004
            return RetryLaterError(answer, wait_s=asked_wait_s(headers, self._clock()))
        if status in _REFUSED:
            return RefusedError(answer, "look at the events with `currents-bridge inspect`; nothing is lost")
        hint = "check destination.region and destination.endpoint_url; everything is kept until they are right"
        return CredentialError(Side.DESTINATION, answer, hint)

    def _acknowledges(self, said: str) -> bool:
        """Return whether the body of a 2xx acknowledges."""
        if self.base_url in REGION_URLS.values():
            answer = read_answer(_Acknowledgement, said)
            return answer is not None and "success" in answer.model_fields_set
        return said.strip('"').lower() in {"", "ok"} or read_answer(_Acknowledgement, said) is not None

    def network_error(self, error: Exception) -> RetryLaterError:
        """Return the error for a request that got no answer."""
        return NoAnswerError(self._host, error, self._secrets())

    def _secrets(self) -> tuple[str, ...]:
        return (*self._key_forms, *self._tokens())
