"""Channels that alerts go to, and the watchdog: Apprise's services, JSON webhooks, SNS.

Addresses are secrets: they hold tokens and passwords. No name, error or log line holds one, nor the texts of libraries.
"""

import logging
import re
from collections.abc import Sequence
from contextlib import closing
from hashlib import blake2b

from apprise import Apprise, AppriseAsset, NotifyFormat, NotifyType, OverflowMode
from apprise.plugins import NotifyBase
from pydantic import SecretStr
from urllib3.exceptions import LocationParseError
from urllib3.util import parse_url

from currents_bridge.alerts.engine import Severity, as_json, text, title
from currents_bridge.alerts.sns import SnsChannel
from currents_bridge.errors import ConfigError, ConfigProblem, RetryLaterError
from currents_bridge.model import AlertMessage, AlertPhase
from currents_bridge.network.clients import NoAnswerError, ask
from currents_bridge.network.deadline import within
from currents_bridge.network.requests_rules import lay_requests_rules
from currents_bridge.ports import Channel

TIMEOUT_S = 15.0  # of a request
APPRISE_TIMEOUT_S = 30.0  # of one message in all; some services take several requests

_HINT = "see https://github.com/caronc/apprise/wiki for the addresses of services, or give an http(s):// address"
_STATUS = re.compile(r"\berror=(\d{3})\b")  # as plugins of Apprise write it


def make_channels(urls: Sequence[SecretStr], sns_topic_arn: str | None) -> list[Channel]:
    """Return a channel for each address, and for the topic.

    An http(s) address that Apprise does not know as that of a service gets JSON, see `alerting.as_json`. Raises
    ConfigError, naming the positions of all addresses that are none.
    """
    lay_requests_rules()
    logging.getLogger("apprise").propagate = False  # its lines can hold parts of an address
    channels: list[Channel] = []
    problems = []
    for position, url in enumerate(urls):
        field = f"alerts.urls.{position}"
        service = Apprise.instantiate(url.get_secret_value(), asset=AppriseAsset(app_id="currents-bridge"))
        if service is not None:
            channels.append(AppriseChannel(field, url, service))
        elif _is_http(url):
            channels.append(WebhookChannel(field, url))
        else:
            problems.append(ConfigProblem(field, "is neither an address that Apprise knows nor http(s)://HOST/..."))
    if problems:
        raise ConfigError(problems, _HINT)
    if sns_topic_arn:
        channels.append(SnsChannel(sns_topic_arn))
    return channels


class AppriseChannel:
    """Fulfils `ports.Channel` with one of Apprise's services."""

    def __init__(self, field: str, url: SecretStr, service: NotifyBase) -> None:
        self.name = f"{field} ({service.service_name})"
        self.fingerprint = _fingerprint(url)
        service.overflow_mode = OverflowMode.SPLIT  # rather than be refused for its length each time
        self._apprise = Apprise()
        self._apprise.add(service)

    def tell(self, message: AlertMessage) -> None:
        """Deliver one message; see `ports.Channel`.

        Apprise raises nothing: it says whether, and only its log says why. Of that only an HTTP status is shown.
        """
        with within(APPRISE_TIMEOUT_S):  # its threads keep to it too, so that none outlives the wait
            result = self._apprise.notify(
                body=text(message),
                title=title(message),
                notify_type=_notify_type(message),
                body_format=NotifyFormat.TEXT,
                timeout=APPRISE_TIMEOUT_S,
            )
        with closing(result):
            if not result:
                statuses = [found[1] for entry in result.logs() if (found := _STATUS.search(entry.message))]
                why = f"answered {statuses[-1]}" if statuses else "did not take the message"
                raise RetryLaterError(f"{self.name} {why}", "check the address, then run `alerts test`")


class WebhookChannel:
    """Fulfils `ports.Channel` with a POST of JSON; a user name and password in the address are sent as HTTP Basic."""

    def __init__(self, field: str, url: SecretStr) -> None:
        self.name = f"{field} (webhook)"
        self.fingerprint = _fingerprint(url)
        self._url = url

    def tell(self, message: AlertMessage) -> None:
        """Deliver one message; see `ports.Channel`. Any 2xx takes it."""
        _request("POST", self._url, self.name, as_json(message))


class Watchdog:
    """An address that is asked while all is well, so that whoever owns it notices when it is not."""

    def __init__(self, url: SecretStr) -> None:
        if not _is_http(url):
            raise ConfigError([ConfigProblem("alerts.heartbeat_url", "must be an http(s):// address")])
        self._url = url

    def ping(self) -> None:
        """Say that all is well; raises RetryLaterError."""
        _request("GET", self._url, "alerts.heartbeat_url")


def _request(method: str, url: SecretStr, name: str, body: object = None) -> None:
    """Ask an address, following no redirect; raises RetryLaterError for anything but 2xx."""
    hint = "check the address, then run `alerts test`"
    try:
        answer = ask(method, url.get_secret_value(), json_body=body, timeout_s=TIMEOUT_S)
    except NoAnswerError as error:
        raise RetryLaterError(f"{name} gave no answer: {error.kind}", hint) from None
    if 300 <= answer.status < 400:  # noqa: PLR2004 - 3xx
        hint = "set the address that it leads to, as `curl --head --location` shows it"
        raise RetryLaterError(f"{name} answered {answer.status}, a redirect, and none is followed", hint)
    if not answer.is_success:
        raise RetryLaterError(f"{name} answered {answer.status}", hint)


def _is_http(url: SecretStr) -> bool:
    try:
        parts = parse_url(url.get_secret_value())
    except LocationParseError:
        return False
    return parts.scheme in {"http", "https"} and bool(parts.host)


def _notify_type(message: AlertMessage) -> NotifyType:
    if message.phase is AlertPhase.RESOLVED:
        return NotifyType.SUCCESS
    match Severity(message.alert.severity):
        case Severity.CRITICAL:
            return NotifyType.FAILURE
        case Severity.WARNING:
            return NotifyType.WARNING
        case Severity.INFO:
            return NotifyType.INFO


def _fingerprint(url: SecretStr) -> str:
    return blake2b(url.get_secret_value().encode(), digest_size=16).hexdigest()
