"""Where a Segment source is reached, and what its answers mean; shared by the transports."""

import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from urllib.parse import urlsplit

from pydantic import SecretStr

from currents_bridge.errors import BridgeError, CredentialError, RefusedError, RetryLaterError, Side

REGION_URLS = {"us": "https://api.segment.io", "eu": "https://events.eu1.segmentapis.com"}
CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
MAX_CONNECTION_AGE_S = 3600.0  # Segment asks for DNS to be resolved anew at least daily
MAX_WAIT_S = 900.0  # a longer wait is taken for a mistake, such as a date in epoch seconds

_TRY_LATER = {408, 429, 460}  # 460: a client that closed its connection, in the words of AWS load balancers
_REFUSED = {400, 413}
_BAD_CREDENTIAL = {401, 403, 511}  # only sources that enforce OAuth, and proxies, answer so
_EXCERPT_CHARS = 200
_SECONDS = re.compile(r"\d+(\.\d+)?")


def segment_url(region: str, endpoint_url: str | None = None) -> str:
    """Return the base URL of a region (`us`, `eu`), or the endpoint that takes its place."""
    return (endpoint_url or REGION_URLS[region]).rstrip("/")


class Endpoint:
    """One Segment source: its base URL, its write key, and the translation of its answers into our errors.

    No message holds the write key, not even where an answer repeats it.
    """

    def __init__(self, write_key: SecretStr, base_url: str, clock: Callable[[], datetime]) -> None:
        self.base_url = base_url.rstrip("/")
        self.batch_url = f"{self.base_url}/v1/batch"
        self.write_key = write_key
        self._clock = clock
        self._host = urlsplit(base_url).hostname or base_url
        key = write_key.get_secret_value()
        self._secrets = [secret for secret in (key, b64encode(f"{key}:".encode()).decode()) if key]

    def error(self, status: int, headers: Mapping[str, str], text: str) -> BridgeError:
        """Return the error that stands for an answer other than 2xx.

        Args:
            status: any HTTP status, also an unheard-of one.
            headers: of the answer, with names that match in any case.
            text: the answer's body; at most 200 characters of it are shown.
        """
        excerpt = self._redact(" ".join(text.split()))[:_EXCERPT_CHARS]
        answer = f"{self._host} answered {status}" + (f": {excerpt}" if excerpt else "")
        if status in _BAD_CREDENTIAL:
            hint = "check the write key, and whether the source enforces OAuth; everything is kept until it works"
            return CredentialError(Side.DESTINATION, answer, hint)
        if status in _TRY_LATER or status >= 500:  # noqa: PLR2004
            return RetryLaterError(answer, wait_s=self._wait_s(headers))
        if status in _REFUSED:
            return RefusedError(answer, "look at the events with `currents-bridge inspect`; nothing is lost")
        hint = "check destination.region and destination.endpoint_url; everything is kept until they are right"
        return CredentialError(Side.DESTINATION, answer, hint)

    def network_error(self, error: Exception) -> RetryLaterError:
        """Return the error for a request that got no answer."""
        reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        return RetryLaterError(f"no answer from {self._host}: {self._redact(reason)[:_EXCERPT_CHARS]}")

    def _wait_s(self, headers: Mapping[str, str]) -> float | None:
        """Return the wait that `Retry-After` (RFC 9110: seconds or a date) or `X-RateLimit-Reset` (seconds) names."""
        for name in ("Retry-After", "X-RateLimit-Reset"):
            value = headers.get(name, "").strip()
            wait_s = float(value) if _SECONDS.fullmatch(value) else self._until_s(value)
            if wait_s > 0:
                return min(wait_s, MAX_WAIT_S)
        return None

    def _until_s(self, date: str) -> float:
        try:
            instant = parsedate_to_datetime(date)
        except ValueError:
            return 0.0
        aware = instant if instant.tzinfo else instant.replace(tzinfo=UTC)  # "-0000" is read as a time without zone
        return (aware - self._clock()).total_seconds()

    def _redact(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "********")
        return text
