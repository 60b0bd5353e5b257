"""OAuth tokens for a source that enforces OAuth, https://segment.com/docs/connections/oauth/ .

segment-analytics-python has an `OauthManager` that does the same. It renews in timer threads of its own for as long as
the process lives, repeats and waits by itself, and tells a refusal only as text; so the library is given an `OAuth` in
its place, which has the two methods that it calls.
"""

import threading
import uuid
from collections import deque
from collections.abc import Callable
from datetime import datetime, timedelta

import jwt
from pydantic import Field, SecretStr

from currents_bridge.destinations.segment.endpoint import BAD_CREDENTIAL, TRY_LATER, asked_wait_s
from currents_bridge.errors import ConfigError, CredentialError, RetryLaterError, Side
from currents_bridge.network.answers import Answer, read_answer
from currents_bridge.network.clients import WebAnswer, ask, excerpt, host_of

OAUTH_URLS = {"us": "https://oauth2.segment.io", "eu": "https://oauth2.eu1.segmentapis.com"}

_SCOPE = "tracking_api:write"
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_BACKDATED = timedelta(seconds=5)  # an assertion may come from a clock that is ahead
_ASSERTED_FOR = timedelta(seconds=55)  # Segment wants less than a minute
_RENEWED_BEFORE = timedelta(minutes=1)  # the end of a token
_LONGEST_LIFETIME = timedelta(days=1)  # that of Segment's tokens; a longer one is asked for again nevertheless
_UNNAMED_LIFETIME = timedelta(hours=1)  # where it does not last so long, its refusal has another one fetched
_REMEMBERED_TOKENS = 4
_HINT = (
    "check destination.oauth (client_id, key_id, private_key in PEM) against the OAuth app in Segment, that its region "
    "is destination.region, and this machine's clock; everything is kept until it works"
)


class _Token(Answer):
    access_token: str = Field(pattern=r"\A[!-~]+\z", max_length=16_384)  # what a header may hold
    expires_in: float | None = Field(None, gt=0, allow_inf_nan=False)  # seconds; RFC 6749 recommends it only


class OAuth:
    """Gets tokens when they are needed, renews them before they end and once where they are refused. Thread-safe.

    Args:
        client_id: of the OAuth application in Segment.
        key_id: of its public key.
        read_private_key: reads the key that belongs to it, RSA in PEM, anew for each token; raises ConfigError.
        base_url: of the token server, see OAUTH_URLS.
        clock: the time now, aware; stands in the assertion, so it must be near Segment's.
    """

    def __init__(
        self,
        client_id: str,
        key_id: str,
        read_private_key: Callable[[], SecretStr],
        *,
        base_url: str,
        clock: Callable[[], datetime],
    ) -> None:
        self._client_id = client_id
        self._key_id = key_id
        self._read_private_key = read_private_key
        self._base_url = base_url.rstrip("/")
        self._host = host_of(base_url)
        self._clock = clock
        self._lock = threading.Lock()
        self._token: str | None = None
        self._good_until = clock()
        self._issued: deque[str] = deque(maxlen=_REMEMBERED_TOKENS)

    @property
    def issued(self) -> tuple[str, ...]:
        """The latest tokens, to be kept out of messages."""
        return tuple(self._issued)

    def get_token(self) -> str:
        """Return a token that is good for a while, where needed after asking for it.

        Raises:
            CredentialError: the token server refuses, or the private key is none.
            RetryLaterError: it is not reached, or asks to come later.
        """
        with self._lock:
            if self._token is None or self._clock() >= self._good_until:
                self._token, self._good_until = self._fetch()
                self._issued.append(self._token)
            return self._token

    def clear_token(self, refused: str | None = None) -> None:
        """Have the next caller ask for another token; not if `refused` is no longer the current one."""
        with self._lock:
            if refused in {None, self._token}:
                self._token = None

    def _fetch(self) -> tuple[str, datetime]:
        asked_at = self._clock()
        form = {
            "grant_type": "client_credentials",
            "client_assertion_type": _ASSERTION_TYPE,
            "client_assertion": self._assertion(asked_at),
            "scope": _SCOPE,
        }
        answer = ask("POST", f"{self._base_url}/token", form=form, secrets=form.values())
        if answer.is_success:
            return self._read(answer, asked_at)
        raise self._failure(answer, form["client_assertion"])

    def _assertion(self, now: datetime) -> str:
        claims = {
            "iss": self._client_id,
            "sub": self._client_id,
            "aud": self._base_url,
            "iat": int((now - _BACKDATED).timestamp()),
            "exp": int((now + _ASSERTED_FOR).timestamp()),
            "jti": str(uuid.uuid4()),
        }
        try:
            private_key = self._read_private_key().get_secret_value()
        except ConfigError as error:
            raise CredentialError(Side.DESTINATION, error.message, error.hint) from None
        try:
            return jwt.encode(claims, private_key, algorithm="RS256", headers={"kid": self._key_id})
        except (ValueError, TypeError, jwt.PyJWTError):
            pass  # what they say may quote the key
        raise CredentialError(Side.DESTINATION, "destination.oauth.private_key is no RSA key in PEM", _HINT)

    def _read(self, answer: WebAnswer, asked_at: datetime) -> tuple[str, datetime]:
        if token := read_answer(_Token, answer.content):
            named_s = token.expires_in or _UNNAMED_LIFETIME.total_seconds()
            lifetime = timedelta(seconds=min(named_s, _LONGEST_LIFETIME.total_seconds()))
            return token.access_token, asked_at + max(lifetime - _RENEWED_BEFORE, lifetime / 2)
        message = f"{self._host} answered {answer.status} without a token"
        raise CredentialError(Side.DESTINATION, message, "check destination.oauth.endpoint_url")

    def _failure(self, answer: WebAnswer, assertion: str) -> CredentialError | RetryLaterError:
        status = answer.status
        message = f"{self._host} gave no token, it answered {status}: {excerpt(answer.text, [assertion])}"
        if status in TRY_LATER or (status >= 500 and status not in BAD_CREDENTIAL):  # noqa: PLR2004
            return RetryLaterError(message, wait_s=asked_wait_s(answer.headers, self._clock()))
        return CredentialError(Side.DESTINATION, message, _HINT)
