"""What a played Segment knows besides the events it takes, and the endpoints that tell it.

- `GET /v1/projects/<writeKey>/settings`, as https://cdn-settings.segment.com answers it.
- `GET /sources/<id>`, `GET /delivery-overview/successfully-received` and `/failed-on-ingest` of the Public API:
  https://docs.segmentapis.com/tag/Sources , https://docs.segmentapis.com/tag/Delivery-Overview
- `POST /token` of the OAuth server: https://segment.com/docs/connections/oauth/
"""

import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import jwt
import orjson

from currents_bridge.testing.loopback import Answer, Request

_GRAINS = {  # step, longest span, earliest start
    "MINUTE": (timedelta(minutes=1), timedelta(hours=4), timedelta(hours=48)),
    "HOUR": (timedelta(hours=1), timedelta(days=14), timedelta(days=30)),
    "DAY": (timedelta(days=1), timedelta(days=30), timedelta(days=30)),
}
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
_LONGEST_ASSERTION_S = 60


@dataclass(frozen=True, slots=True)
class Enforcement:
    """How a source enforces OAuth.

    Attributes:
        client_id: of the OAuth application.
        key_id: of its public key.
        public_key: in PEM.
        status: answer to events without a good token: 401, 403 or 511.
        lifetime: of a token.
    """

    client_id: str
    key_id: str
    public_key: str
    status: int = 401
    lifetime: timedelta = timedelta(hours=1)


class SegmentWorld:
    """One source of one workspace. Attributes may be set, and methods called, at any moment and from any thread.

    Args:
        write_keys: those that live from the start; None: any key that is not empty, and the source lists none.
        now: the time, aware.

    Attributes:
        source_id: of the source.
        source_enabled: False: events get 200 and are dropped.
        source_elsewhere: True: as in a wrong region, events get 200 and are dropped, though the key is well.
        remembers_ids: True: repeats are dropped by their message id, also where the message before was dropped.
        keys_hidden: True: the Public API lists no keys, as for a token that may not see them.
        api_token: of the Public API; any other gets 401.
        api_host: where the source takes events, as its settings name it.
        settings_lag: how far the settings endpoint is behind.
        counts_lag: how far the counts of the Public API are behind.
        enforcement: set while the source enforces OAuth.
        answers: scripted answers, by the start of the path that they are for, e.g. `{"/sources": Answer(429)}`.
        asked: path and query of each request to these endpoints.
    """

    def __init__(self, write_keys: Collection[str] | None, now: Callable[[], datetime]) -> None:
        self.source_id = "braze-source"
        self.source_enabled = True
        self.source_elsewhere = False
        self.remembers_ids = False
        self.keys_hidden = False
        self.api_token = "public-api-token"  # noqa: S105 - of this played Segment
        self.api_host = "api.segment.io/v1"
        self.settings_lag = timedelta()
        self.counts_lag = timedelta(seconds=30)
        self.enforcement: Enforcement | None = None
        self.answers: dict[str, Answer] = {}
        self.asked: list[str] = []
        self._now = now
        self._first_keys = write_keys
        self._changes: list[tuple[datetime, str, bool]] = []  # (from when on, key, whether it lives)
        self._arrivals: list[tuple[datetime, int, int]] = []  # (when, received, failed)
        self._tokens: dict[str, datetime] = {}  # token -> its end

    def add_key(self, key: str, at: datetime | None = None) -> None:
        """Let a key live from a time on, by default from now."""
        self._changes.append((at or self._now(), key, True))

    def revoke_key(self, key: str, at: datetime | None = None) -> None:
        """Let a key die at a time, by default now."""
        self._changes.append((at or self._now(), key, False))

    def revoke_tokens(self) -> None:
        """Make every OAuth token worthless."""
        self._tokens.clear()

    def takes(self, key: str) -> bool:
        """Return whether events that come with a key now are kept."""
        return self.source_enabled and not self.source_elsewhere and self._lives(key, self._now())

    def count(self, *, received: int, failed: int) -> None:
        """Count messages that came with a living key: well, and unfit ones."""
        self._arrivals.append((self._now(), received, failed))

    def refuses_token(self, headers: Mapping[str, str]) -> Answer | None:
        """Return the answer to events without a good token, where the source enforces OAuth."""
        if self.enforcement is None:
            return None
        token = headers.get("authorization", "").removeprefix("Bearer ")
        if token in self._tokens and self._now() < self._tokens[token]:
            return None
        return Answer(self.enforcement.status, body='{"code": "unauthorized", "message": "Invalid access token"}')

    def answer(self, request: Request) -> Answer:
        """Return the answer to a request for any endpoint but that for events."""
        self.asked.append(request.target)
        url = urlsplit(request.target)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        scripted = next((answer for path, answer in self.answers.items() if url.path.startswith(path)), None)
        if scripted:
            return scripted
        match request.method, url.path.strip("/").split("/"):
            case "GET", ["v1", "projects", key, "settings"]:
                return self._settings(key)
            case "GET", ["sources", source_id]:
                return self._public(request) or self._source(source_id)
            case "GET", ["delivery-overview", "successfully-received" | "failed-on-ingest" as metric]:
                return self._public(request) or self._counts(query, failed=metric == "failed-on-ingest")
            case "POST", ["token"] if self.enforcement:
                return self._token(self.enforcement, request)
        return Answer(404, body="not found")

    def _lives(self, key: str, at: datetime) -> bool:
        first = bool(key) if self._first_keys is None else key in self._first_keys
        changes = [change for change in self._changes if change[1] == key and change[0] <= at]
        return max(changes, key=lambda change: change[0])[2] if changes else first

    def _settings(self, key: str) -> Answer:
        if not self._lives(key, self._now() - self.settings_lag):
            return Answer(404, body="Cannot GET - Invalid path or write key provided.")
        return _json({"integrations": {"Segment.io": {"apiKey": key, "apiHost": self.api_host}}, "plan": {}})

    def _public(self, request: Request) -> Answer | None:
        """Return the refusal of a token that is not the right one."""
        if request.headers.get("authorization") == f"Bearer {self.api_token}":
            return None
        return _error(401, "Unauthorized")

    def _source(self, source_id: str) -> Answer:
        if source_id != self.source_id:
            return _error(404, f"Source with id '{source_id}' not found.")
        candidates = {*(self._first_keys or ()), *(key for _, key, _ in self._changes)}
        keys = [] if self.keys_hidden else sorted(key for key in candidates if self._lives(key, self._now()))
        return _json({"data": {"source": {"id": source_id, "enabled": self.source_enabled, "writeKeys": keys}}})

    def _counts(self, query: Mapping[str, str], *, failed: bool) -> Answer:
        if query.get("sourceId") != self.source_id:
            return _error(404, "Source not found.")
        step, longest, earliest = _GRAINS[query["granularity"]]
        start, end = (datetime.fromisoformat(query[name]) for name in ("startTime", "endTime"))
        if end - start > longest or self._now() - start > earliest:
            return _error(422, "The time range is out of bounds for the granularity.")
        until = min(end, self._now() - self.counts_lag)
        counts: Counter[int] = Counter()  # by the number of the step
        for at, good, bad in list(self._arrivals):
            if start <= at < until:
                counts[(at - start) // step] += bad if failed else good
        total = counts.total()
        steps = -((start - end) // step)
        series = [{"time": (start + n * step).isoformat(), "count": counts[n]} for n in range(steps)]
        page = {"current": "MA==", "totalEntries": int(total > 0)}
        dataset = [{"total": total, "series": series}] if total else []
        return _json({"data": {"total": total, "dataset": dataset, "pagination": page}})

    def _token(self, enforcement: Enforcement, request: Request) -> Answer:
        form = {name: values[0] for name, values in parse_qs(request.wire.decode()).items()}
        now_s = self._now().timestamp()
        try:
            claims = jwt.decode(
                form["client_assertion"],
                enforcement.public_key,
                algorithms=["RS256"],
                audience=f"http://{request.headers['host']}",
                issuer=enforcement.client_id,
                options={"verify_exp": False, "verify_iat": False, "require": ["iat", "exp", "sub", "jti"]},
            )
            key_id = jwt.get_unverified_header(form["client_assertion"])["kid"]
        except (KeyError, jwt.InvalidTokenError) as error:
            return _oauth_error("invalid_client", str(error))
        if (key_id, claims["sub"]) != (enforcement.key_id, enforcement.client_id):
            return _oauth_error("invalid_client", "no such application or key")
        if not claims["iat"] <= now_s < claims["exp"] <= now_s + _LONGEST_ASSERTION_S:
            return _oauth_error("invalid_request", "Token is expired")
        asks = {name: form.get(name) for name in ("grant_type", "client_assertion_type", "scope")}
        if asks != {
            "grant_type": "client_credentials",
            "client_assertion_type": _ASSERTION_TYPE,
            "scope": "tracking_api:write",
        }:
            return _oauth_error("invalid_scope", str(asks))
        token = uuid.uuid4().hex
        self._tokens[token] = self._now() + enforcement.lifetime
        lifetime_s = int(enforcement.lifetime.total_seconds())
        return _json({"access_token": token, "token_type": "Bearer", "expires_in": lifetime_s})


def _json(document: dict[str, Any], status: int = 200) -> Answer:
    return Answer(status, {"Content-Type": "application/json"}, orjson.dumps(document).decode())


def _error(status: int, message: str) -> Answer:
    return _json({"errors": [{"type": "error", "message": message, "data": None}]}, status)


def _oauth_error(error: str, description: str) -> Answer:
    return _json({"error": error, "error_description": description}, 400)
