"""Requests to others than S3: by one kind of client, with the proxy and the trust of `network`, and a deadline.

No redirect is followed and no `.netrc` read: either would carry a key elsewhere, or take its place.
"""

import json
import re
import ssl
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from urllib.parse import unquote, urlencode, urlsplit

import urllib3
from urllib3.util import make_headers, parse_url

from currents_bridge.errors import BridgeError, RetryLaterError
from currents_bridge.network.deadline import within
from currents_bridge.network.rules import proxy_for
from currents_bridge.network.urllib3_rules import lay_rules

CONNECT_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 30.0
ATTEMPT_TIMEOUT_S = 45.0  # of all of it: connecting, sending, the whole answer

EXCERPT_CHARS = 200
_MAX_ANSWER_BYTES = 1024 * 1024
_TUNNEL = re.compile(r"Tunnel connection failed: (\d{3})")
PROXY_LOGIN = 407  # a proxy's answer, never that of whom was asked


class NoAnswerError(RetryLaterError):
    """A request got no answer; the message says from which host, and why.

    `kind` says why without any part of the address: in our words, or by the name of the cause.
    """

    def __init__(self, host: str, error: Exception, secrets: Iterable[str] = ()) -> None:
        name = type(error).__name__
        trouble = network_trouble(error)
        self.kind = trouble or name
        super().__init__(
            f"no answer from {host}: {trouble or excerpt(f'{name}: {error}' if str(error) else name, secrets)}"
        )


@dataclass(frozen=True, slots=True)
class WebAnswer:
    """What somebody answered."""

    status: int
    headers: Mapping[str, str]  # names match in any case
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether it is a 2xx."""
        return 200 <= self.status < 300  # noqa: PLR2004

    @property
    def text(self) -> str:
        """The body as text."""
        return self.content.decode("utf-8", "replace")


def pool(url: str, *, max_connections: int = 1, timeout: urllib3.Timeout | None = None) -> urllib3.PoolManager:
    """Return connections for a URL: through its proxy, trusting whom all trust.

    `timeout` is that of each step. Raises BadNetworkSettingError, ValueError for what is no URL.
    """
    lay_rules()
    proxy = proxy_for(url)
    timeout = timeout or urllib3.Timeout(connect=CONNECT_TIMEOUT_S, read=READ_TIMEOUT_S)
    if proxy:
        return urllib3.ProxyManager(
            proxy.address, maxsize=max_connections, timeout=timeout, proxy_headers=dict(proxy.headers)
        )
    return urllib3.PoolManager(maxsize=max_connections, timeout=timeout)


def ask(  # noqa: PLR0913 - the parts of a request
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    form: Mapping[str, str] | None = None,
    json_body: object = None,
    timeout_s: float | None = None,
    secrets: Iterable[str] = (),
) -> WebAnswer:
    """Make one request over a connection of its own; return any answer.

    All of it takes `timeout_s` at most, ATTEMPT_TIMEOUT_S where that is None. `form` or `json_body` becomes its body.
    Raises NoAnswerError, also where a proxy answers instead; it holds no trace of its cause, which may hold the URL,
    and none of `secrets`.
    """
    head = dict(headers or {})
    body: str | None = None
    if form is not None:
        head["Content-Type"], body = "application/x-www-form-urlencoded", urlencode(form)
    elif json_body is not None:
        head["Content-Type"], body = "application/json", json.dumps(json_body)
    try:
        target = parse_url(url)
        if target.auth:
            head |= make_headers(basic_auth=unquote(target.auth))
        address = target._replace(auth=None, fragment=None).url
        with within(timeout_s or ATTEMPT_TIMEOUT_S), pool(url) as connections:
            answer = connections.request(
                method, address, body=body, headers=head, retries=False, redirect=False, preload_content=False
            )
            content = answer.read(_MAX_ANSWER_BYTES, decode_content=True)
            answer.close()
            if answer.status == PROXY_LOGIN:
                raise RetryLaterError(proxy_refusal(answer.status))
            return WebAnswer(answer.status, answer.headers, content)
    except (urllib3.exceptions.HTTPError, BridgeError, OSError, ValueError) as error:
        failure = NoAnswerError(host_of(url), error, secrets)
    raise failure


def host_of(url: str) -> str:
    """Return the host that a URL names, the URL itself where it names none."""
    try:
        return urlsplit(url).hostname or url
    except ValueError:  # as of `https://[x`
        return url


def excerpt(text: str, secrets: Iterable[str]) -> str:
    """Return the beginning of an answer, on one line and without any of the secrets, for messages."""
    line = " ".join(text.split())
    for secret in filter(None, secrets):
        line = line.replace(secret, "********")
    return line[:EXCERPT_CHARS]


def network_trouble(error: BaseException) -> str | None:
    """Return what stands between here and the other side, where an error of any library is about that.

    That is a certificate that is not trusted, a proxy that refuses, or a variable that cannot be used.
    """
    for cause in _causes(error):
        if isinstance(cause, BridgeError):
            return cause.message
        if isinstance(cause, ssl.SSLCertVerificationError):
            return (
                f"its certificate is not trusted ({cause.verify_message}); if a private authority made it, "
                "set SSL_CERT_FILE to that authority's certificate"
            )
        if isinstance(cause, OSError) and (refused := _TUNNEL.search(str(cause))):
            return proxy_refusal(int(refused[1]))
    return None


def proxy_refusal(status: int) -> str:
    """Return what a proxy means that answered in the place of whom was asked."""
    if status == PROXY_LOGIN:
        return "the proxy wants another user name and password (407); set them in HTTPS_PROXY or HTTP_PROXY"
    return f"the proxy lets nobody through to it ({status}); see HTTPS_PROXY and NO_PROXY"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and all that libraries hang on it, each once."""
    waiting, seen = [error], set[int]()
    while waiting:
        cause = waiting.pop(0)
        if id(cause) in seen:
            continue
        seen.add(id(cause))
        yield cause
        given = getattr(cause, "kwargs", None)
        hung = [getattr(cause, "reason", None), getattr(cause, "original_error", None), *cause.args]
        hung += [cause.__cause__, *(given.values() if isinstance(given, dict) else ())]
        waiting += [other for other in hung if isinstance(other, BaseException)]
