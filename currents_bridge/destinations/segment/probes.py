"""Two ways to ask Segment about a write key: the settings endpoint, which is weak, and the Public API, which is not.

Secrets stand in the URL of the one and in a header of the other; neither is part of what is raised.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Generic, NamedTuple, TypeVar
from urllib.parse import quote, urlencode

from pydantic import AwareDatetime, Field, SecretStr

from currents_bridge.credentials.state import COUNTED_AFTER, COUNTS_LAG, fingerprint
from currents_bridge.destinations.segment.endpoint import REGION_URLS
from currents_bridge.errors import ConfigError, ProbeError
from currents_bridge.model import Acknowledged, Evidence, EvidenceKind, Shortfall
from currents_bridge.network.answers import Answer, read_answer
from currents_bridge.network.clients import NoAnswerError, WebAnswer, ask, excerpt, host_of
from currents_bridge.phrases import count, when

PUBLIC_API_URLS = {"us": "https://api.segmentapis.com", "eu": "https://eu1.api.segmentapis.com"}

_TIMEOUT_S = 15.0  # of a request
_OK = 200
_NOT_FOUND = 404
_KEY = re.compile(r"\w+", re.ASCII)
_UNKNOWN_KEY = "Invalid path or write key provided"
_REGION_OF_HOST = {host_of(url): region for region, url in REGION_URLS.items()}

_REPEATS_SHARE = 0.01  # of what is acknowledged may be repeats, which Segment drops rightly: Braze sends some twice
_REACH = timedelta(days=28)  # of its counts, with room for whole days
_INSTANT = timedelta(microseconds=1)
_MIDNIGHT = datetime(1970, 1, 1, tzinfo=UTC)


_Text = Annotated[str, Field(min_length=1)]


class _SegmentSettings(Answer):
    api_host: str = Field("", alias="apiHost")


class _Integrations(Answer):
    segment: _SegmentSettings = Field(_SegmentSettings(apiHost=""), alias="Segment.io")


class _Settings(Answer):
    integrations: _Integrations


class _SourceFields(Answer):
    enabled: bool
    write_keys: list[_Text] | None = Field(None, alias="writeKeys")


class _Source(Answer):
    source: _SourceFields


class _Point(Answer):
    time: AwareDatetime
    count: int = Field(ge=0)


class _Series(Answer):
    series: list[_Point]


class _Counts(Answer):
    dataset: list[_Series]


_Data = TypeVar("_Data", bound=Answer)


class _PublicAnswer(Answer, Generic[_Data]):
    data: _Data


class SettingsProbe:
    """Asks the endpoint from which Segment's own libraries read a source's settings. One request.

    It may be a day behind, and is the same in all regions. Where it tells that the source takes events in another
    region than that of `tracking_url`, the key is unknown in the latter.

    Args:
        base_url: such as https://cdn-settings.segment.com .
        tracking_url: where the events are sent; other hosts than Segment's own are not judged.
    """

    name = "settings endpoint"

    def __init__(self, base_url: str, tracking_url: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._region = _REGION_OF_HOST.get(host_of(tracking_url))

    def ask(
        self,
        key: SecretStr,
        now: datetime,
        acknowledged: Sequence[Acknowledged] = (),  # noqa: ARG002 - as ports.Probe
        keys_seen_with: str | None = None,  # noqa: ARG002 - as ports.Probe
    ) -> Evidence | None:
        """Return KNOWN or UNKNOWN; see ports.Probe."""
        plain = key.get_secret_value()
        quoted = quote(plain, safe="")
        host = host_of(self._base_url)
        hint = f"check that {host} can be reached from here; this says nothing of the write key"
        answer = _get(f"{self._base_url}/v1/projects/{quoted}/settings", {}, (plain, quoted), hint)
        if answer.status == _NOT_FOUND and _UNKNOWN_KEY in answer.text:
            todo = "compare destination.write_key with the source's settings in Segment"
            return Evidence(EvidenceKind.UNKNOWN, now, f"{host} does not know the write key", todo)
        if answer.status != _OK:
            raise ProbeError(_said(host, answer, (plain, quoted)), hint)
        settings = read_answer(_Settings, answer.content)
        if settings is None:  # the answer of a proxy, perhaps
            raise ProbeError(f"{host} answered 200, but no settings of a source", hint)
        region = _REGION_OF_HOST.get(host_of(f"https://{settings.integrations.segment.api_host}"))
        if region and self._region and region != self._region:
            detail = f"the write key belongs to region {region}, and events are sent to region {self._region}"
            return Evidence(EvidenceKind.UNKNOWN, now, detail, f"set destination.region to {region}")
        return Evidence(EvidenceKind.KNOWN, now, f"{host} knows the write key")


class PublicApiProbe:
    """Asks Segment's Public API whether the source is enabled, has the key, and received what was acknowledged.

    One request for the source, and two more where there is something to count.

    `Evidence.at` of CONFIRMED and RECEIVED is the time up to which what was acknowledged is proven: what is too new to
    be counted is not, nor, where the token may not see the keys or events are missing, what came after the last events
    that were counted.

    Args:
        base_url: see PUBLIC_API_URLS.
        read_token: reads the token anew each time, raises ConfigError. It must be allowed to read the source; without
            the role Source Admin it does not see the keys.
        source_id: of the Segment source.
    """

    name = "Public API"

    def __init__(self, base_url: str, read_token: Callable[[], SecretStr], source_id: str) -> None:
        self._base_url = base_url.rstrip("/")
        self._host = host_of(base_url)
        self._read_token = read_token
        self._source_id = source_id

    def ask(
        self,
        key: SecretStr,
        now: datetime,
        acknowledged: Sequence[Acknowledged] = (),
        keys_seen_with: str | None = None,
    ) -> Evidence | None:
        """Return what the Public API says; see ports.Probe.

        REVOKED, also where it lists no key to a token that has seen some; DISABLED; where something was acknowledged
        more than two minutes ago, RECEIVED or NOT_RECEIVED; else CONFIRMED where the key is listed, None where the
        token may not see the keys.
        """
        try:
            token = self._read_token()
        except ConfigError as error:
            raise ProbeError(f"the token of the Public API cannot be read: {error.message}", error.hint) from None
        secrets = (token.get_secret_value(), key.get_secret_value())
        own_token = fingerprint(token, self._base_url)
        api = _PublicApi(self._base_url, self._source_id, secrets)
        enabled, keys = api.source()
        seen_with = own_token if keys else None
        if not enabled:
            hint = "enable it in Segment; Segment itself disables sources that have no destination for 14 days"
            detail = f"source {self._source_id} is disabled"
            return Evidence(EvidenceKind.DISABLED, now, detail, hint, keys_seen_with=seen_with)
        if key.get_secret_value() not in keys and (keys or keys_seen_with == own_token):
            return self._revoked(len(keys), now, seen_with)
        counted = [one for one in acknowledged if now - _REACH <= one.at <= now - COUNTED_AFTER]
        if counted:
            return replace(self._compare(api, counted, now, listed=bool(keys)), keys_seen_with=seen_with)
        if not keys:
            return None
        proven_until = now - COUNTED_AFTER if acknowledged else now
        detail = f"source {self._source_id} is enabled and has the write key"
        return Evidence(EvidenceKind.CONFIRMED, proven_until, detail, keys_seen_with=seen_with)

    def _revoked(self, others: int, now: datetime, seen_with: str | None) -> Evidence:
        has = f"has {others} other write key{'' if others == 1 else 's'}" if others else "has no write key any more"
        detail = f"source {self._source_id} does not have the write key: it {has}"
        hint = "copy destination.write_key from the source's settings in Segment"
        return Evidence(EvidenceKind.REVOKED, now, detail, hint, keys_seen_with=seen_with)

    def _compare(
        self, api: "_PublicApi", acknowledged: Sequence[Acknowledged], now: datetime, *, listed: bool
    ) -> Evidence:
        """Return whether what was acknowledged long enough ago has been received."""
        first = acknowledged[0].at
        owed, again = _events(acknowledged)
        span = _span(first - COUNTED_AFTER, now)
        received, failed = (api.count(metric, span) for metric in ("successfully-received", "failed-on-ingest"))
        arrived = received.total + failed.total
        numbers = (
            f"of {count(owed + again, 'event')} acknowledged since {when(first)}, source {self._source_id} received "
            f"{received.total}, and {failed.total} failed on ingest"
        )
        if received.last is None:
            last, missed = first - _INSTANT, owed
        else:
            last = max(received.last, failed.last or received.last)
            missed = sum(one.first for one in acknowledged if one.at >= last + span.step + COUNTED_AFTER)
            if missed:
                numbers += f"; it got nothing of the {missed:,} that were acknowledged long after {when(last)}"
        until = acknowledged[-1].at
        if missed:
            hint = (
                f"check that destination.region is the workspace's, that destination.write_key is of source "
                f"{self._source_id}, and what its Delivery Overview in Segment says"
            )
            return Evidence(EvidenceKind.NOT_RECEIVED, now, numbers, hint, counted_until=until)
        old = [one for one in acknowledged if one.at <= now - COUNTS_LAG]
        if arrived >= owed + min(again, 1):
            proven_until = now - COUNTED_AFTER if listed else min(last, until)
        else:  # what is old enough is counted, or never will be
            proven_until = old[-1].at if old else first - _INSTANT
        counted = (received.until(proven_until + COUNTED_AFTER), failed.until(proven_until + COUNTED_AFTER))
        return Evidence(
            EvidenceKind.RECEIVED,
            proven_until,
            numbers,
            counted_until=until,
            shortfall=_shortfall(old, sum(counted)),
        )


def _shortfall(acknowledged: Sequence[Acknowledged], arrived: int) -> Shortfall | None:
    """Return what is missing of what was acknowledged so long ago that it must have been counted."""
    owed, again = _events(acknowledged)
    if again and arrived <= owed:
        return Shortfall(acknowledged[0].at, acknowledged[-1].at, again, 0, again=True)
    if owed - arrived > owed * _REPEATS_SHARE:
        return Shortfall(acknowledged[0].at, acknowledged[-1].at, owed, arrived)
    return None


def _events(acknowledged: Sequence[Acknowledged]) -> tuple[int, int]:
    """Return how many events were sent for the first time, and how many again."""
    return sum(one.first for one in acknowledged), sum(one.again for one in acknowledged)


class _PublicApi:
    """What the Public API says of one source; every method raises ProbeError with what to do."""

    def __init__(self, base_url: str, source_id: str, secrets: tuple[str, str]) -> None:
        self._base_url = base_url
        self._host = host_of(base_url)
        self._bearer = {"Authorization": f"Bearer {secrets[0]}", "Accept": "application/json"}
        self._source_id = source_id
        self._secrets = secrets

    def source(self) -> tuple[bool, list[str]]:
        """Return whether the source is enabled, and the keys that the token may see."""
        source = self._ask(_Source, f"/sources/{quote(self._source_id, safe='')}", {}).source
        keys = source.write_keys or []
        if keys and not any(map(_KEY.fullmatch, keys)):  # masked, perhaps
            raise self._not_as_expected()
        return source.enabled, keys

    def count(self, metric: str, span: "_Span") -> "_Count":
        query = {
            "sourceId": self._source_id,
            "startTime": _text(span.start),
            "endTime": _text(span.end),
            "granularity": span.granularity,
        }
        counts = self._ask(_Counts, f"/delivery-overview/{metric}", query)
        points = [point for part in counts.dataset for point in part.series if point.count]
        if not all(span.start <= point.time <= span.end for point in points):  # nobody asked for those
            raise self._not_as_expected()
        return _Count([(point.time.astimezone(UTC), point.count) for point in points])

    def _ask(self, kind: type[_Data], path: str, query: Mapping[str, str]) -> _Data:
        """Return `data` of an answer."""
        url = f"{self._base_url}{path}" + (f"?{urlencode(query)}" if query else "")
        answer = _get(url, self._bearer, self._secrets, f"check that {self._host} can be reached from here")
        if answer.status != _OK:
            raise ProbeError(_said(self._host, answer, self._secrets), self._remedy(answer.status))
        whole = read_answer(_PublicAnswer[kind], answer.content)  # type: ignore[valid-type] # made for each kind
        if whole is None:
            raise self._not_as_expected()
        return whole.data

    def _not_as_expected(self) -> ProbeError:
        return ProbeError(f"{self._host} answered 200, but not as the Public API does", self._remedy(None))

    def _remedy(self, status: int | None) -> str:
        match status:
            case 401 | 403:
                return "put a new token that may read the source into destination.public_api.token; the key may be well"
            case 404:
                return f"check destination.public_api.source_id ({self._source_id}) and the token's workspace"
            case 429:
                return "nothing to do: it is asked again later; if it stays, make schedule.probe longer"
            case int() if status >= 500:  # noqa: PLR2004
                return "nothing to do: it is asked again later"
        return "check destination.public_api.endpoint_url"


class _Span(NamedTuple):
    """What counts are asked for."""

    granularity: str
    step: timedelta
    start: datetime  # a multiple of the step
    end: datetime


@dataclass(frozen=True, slots=True)
class _Count:
    """What was counted in each step that has any."""

    steps: Sequence[tuple[datetime, int]]  # start, events

    @property
    def total(self) -> int:
        return sum(events for _, events in self.steps)

    @property
    def last(self) -> datetime | None:
        """Start of the last step with any."""
        return max((start for start, _ in self.steps), default=None)

    def until(self, time: datetime) -> int:
        return sum(events for start, events in self.steps if start <= time)


_GRANULARITIES = (  # and the longest span of each
    ("MINUTE", timedelta(minutes=1), timedelta(hours=4)),
    ("HOUR", timedelta(hours=1), timedelta(days=14)),
    ("DAY", timedelta(days=1), timedelta(days=30)),
)


def _span(start: datetime, end: datetime) -> _Span:
    """Return the finest span that takes one request, https://docs.segmentapis.com/tag/Delivery-Overview ."""
    for granularity, step, longest in _GRANULARITIES:
        span = _Span(granularity, step, start - (start - _MIDNIGHT) % step, end)
        if end - span.start <= longest:
            break
    return span


def _get(url: str, headers: Mapping[str, str], secrets: Sequence[str], hint: str) -> WebAnswer:
    try:
        return ask("GET", url, headers=headers, timeout_s=_TIMEOUT_S, secrets=secrets)
    except NoAnswerError as error:
        failure = ProbeError(error.message, hint)
    raise failure


def _said(host: str, answer: WebAnswer, secrets: Sequence[str]) -> str:
    return f"{host} answered {answer.status}: {excerpt(answer.text, secrets)}"


def _text(time: datetime) -> str:
    return time.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
