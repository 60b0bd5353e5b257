import io
import json
import logging
from base64 import b64encode
from collections.abc import Iterator

import boto3
import pytest
from moto import mock_aws
from pydantic import SecretStr

from currents_bridge.alerts.channels import Watchdog, make_channels
from currents_bridge.alerts.engine import as_json
from currents_bridge.errors import ConfigError, RetryLaterError
from currents_bridge.logs import configure_logs
from currents_bridge.model import AlertMessage, AlertPhase
from currents_bridge.ports import Channel
from currents_bridge.testing.loopback import Answer, LoopbackServer, Request
from tests.alert_workbench import NOW, make_alert

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")  # in Apprise's e-mail

MESSAGE = AlertMessage(AlertPhase.OPENED, make_alert(), NOW)
SECRET = "geheim-7f3a"  # a canary


class Receiver:
    """A server that keeps what it is told and answers as it is set to."""

    def __init__(self) -> None:
        self.requests: list[Request] = []
        self.status = 200
        self.headers: dict[str, str] = {}
        self._server = LoopbackServer(self._answer, "receiver")
        self.url = self._server.url
        self.host = self.url.removeprefix("http://")
        self.close = self._server.close

    def _answer(self, request: Request) -> Answer:
        self.requests.append(request)
        return Answer(self.status, self.headers, f"no {request.target}")


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """A receiver that takes everything."""
    receiver = Receiver()
    yield receiver
    receiver.close()


def channel(url: str) -> Channel:
    """Return the channel of an address."""
    (made,) = make_channels([SecretStr(url)], None)
    return made


def test_an_http_address_that_is_no_known_service_gets_json(receiver: Receiver) -> None:
    """All parts of the message by name."""
    webhook = channel(f"{receiver.url}/hook?token={SECRET}")
    webhook.tell(MESSAGE)

    (request,) = receiver.requests
    assert (request.method, request.target) == ("POST", f"/hook?token={SECRET}")
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.wire) == as_json(MESSAGE)
    assert webhook.name == "alerts.urls.0 (webhook)"


def test_a_user_and_password_in_a_webhook_are_sent_as_basic_auth(receiver: Receiver) -> None:
    """And not in the path."""
    channel(f"http://user:{SECRET}@{receiver.host}/hook").tell(MESSAGE)
    (request,) = receiver.requests
    assert request.headers["authorization"] == "Basic " + b64encode(f"user:{SECRET}".encode()).decode()


@pytest.mark.parametrize("status", [302, 404, 500])
def test_a_webhook_that_does_not_answer_2xx_has_not_taken_the_message(receiver: Receiver, status: int) -> None:
    """A redirect is not followed, since it would not be POSTed on."""
    receiver.status, receiver.headers = status, {"Location": f"{receiver.url}/login"}
    with pytest.raises(RetryLaterError, match=rf"alerts\.urls\.0 \(webhook\) answered {status}"):
        channel(f"{receiver.url}/hook").tell(MESSAGE)
    assert len(receiver.requests) == 1


def test_an_apprise_service_gets_title_text_and_how_bad_it_is(receiver: Receiver) -> None:
    """Here Apprise's own JSON service."""
    service = channel(f"json://{receiver.host}/hook")
    service.tell(MESSAGE)
    service.tell(AlertMessage(AlertPhase.RESOLVED, make_alert(severity="critical"), NOW))

    first, second = (json.loads(request.wire) for request in receiver.requests)
    assert (first["title"], first["type"]) == ("WARNING production: backlog", "warning")
    assert first["message"].splitlines()[0] == "It is wrong."
    assert second["type"] == "success"
    assert service.name == "alerts.urls.0 (JSON)"


@pytest.mark.parametrize(("severity", "kind"), [("critical", "failure"), ("warning", "warning"), ("info", "info")])
def test_the_severity_is_told_in_apprises_words(receiver: Receiver, severity: str, kind: str) -> None:
    """Services show them as colours."""
    channel(f"json://{receiver.host}").tell(AlertMessage(AlertPhase.REPEATED, make_alert(severity=severity), NOW))
    assert json.loads(receiver.requests[0].wire)["type"] == kind


def test_an_apprise_service_that_refuses_is_named_with_its_answer(receiver: Receiver) -> None:
    """Apprise itself only logs it."""
    receiver.status = 403
    with pytest.raises(RetryLaterError, match=r"alerts\.urls\.0 \(JSON\) answered 403"):
        channel(f"json://{receiver.host}/hook").tell(MESSAGE)


@pytest.mark.parametrize("scheme", ["http", "json"])
@pytest.mark.parametrize("status", [None, 500], ids=["no answer", "500"])
def test_no_part_of_an_address_comes_into_errors_names_or_logs(
    receiver: Receiver, scheme: str, status: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    """At the most talkative level, whether the server answers or not."""
    if status is None:
        receiver.close()
    receiver.status = status or 0
    before = logging.root.handlers[:], logging.root.level
    configure_logs(json=True, level=logging.DEBUG, stream=(stream := io.StringIO()))
    try:
        secretive = channel(f"{scheme}://{SECRET}:{SECRET}@{receiver.host}/{SECRET}?token={SECRET}")
        with pytest.raises(RetryLaterError) as caught:
            secretive.tell(MESSAGE)
    finally:
        logging.root.handlers[:], logging.root.level = before
    error = caught.value
    seen = [*capfd.readouterr(), stream.getvalue(), str(error), error.hint, repr(error.__cause__), secretive.name]
    seen.append(secretive.fingerprint)
    assert SECRET not in "".join(seen)
    assert receiver.host not in "".join(seen)


def test_addresses_that_are_none_are_all_named_by_position() -> None:
    """Never by what they hold."""
    with pytest.raises(ConfigError) as caught:
        make_channels([SecretStr(f"nonsense://{SECRET}"), SecretStr("json://127.0.0.1"), SecretStr(SECRET)], None)
    assert [problem.field for problem in caught.value.problems] == ["alerts.urls.0", "alerts.urls.2"]
    assert SECRET not in str(caught.value)


def test_a_service_is_known_by_the_address_that_it_hands_out() -> None:
    """As of Slack's incoming webhooks."""
    url = "https://hooks.slack.com/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    assert channel(url).name == "alerts.urls.0 (Slack)"


def test_a_fingerprint_tells_addresses_apart() -> None:
    """And stays the same over restarts, so that the queue finds its channel."""
    urls = [SecretStr(f"http://127.0.0.1/{name}") for name in "aab"]
    first, again, other = (made.fingerprint for made in make_channels(urls, None))
    assert first == again != other


@pytest.fixture
def topic(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The ARN of a topic in a mocked AWS."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        yield boto3.client("sns", region_name="eu-west-1").create_topic(Name="alerts")["TopicArn"]


def test_a_topic_gets_the_title_as_subject_and_json_as_message(topic: str) -> None:
    """In the region that the ARN names; a subject is short and ASCII."""
    queue = boto3.client("sqs", region_name="eu-west-1").create_queue(QueueName="inbox")["QueueUrl"]
    arn = "arn:aws:sqs:eu-west-1:123456789012:inbox"
    boto3.client("sns", region_name="eu-west-1").subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn)
    message = AlertMessage(AlertPhase.OPENED, make_alert(connector="prodüktion", subject="x" * 200), NOW)

    (sns,) = make_channels([], topic)
    sns.tell(message)

    (received,) = boto3.client("sqs", region_name="eu-west-1").receive_message(QueueUrl=queue)["Messages"]
    envelope = json.loads(received["Body"])
    assert envelope["Subject"] == ("WARNING prod?ktion: backlog (" + "x" * 200)[:99]
    assert json.loads(envelope["Message"]) == as_json(message)
    assert sns.name == "alerts.sns_topic_arn (SNS alerts)"


def test_a_topic_that_is_not_there_is_named_with_the_answer(topic: str) -> None:
    """As any refusal of AWS."""
    (sns,) = make_channels([], f"{topic}-gone")
    with pytest.raises(RetryLaterError, match=r"\(SNS alerts-gone\) did not take the message: NotFound"):
        sns.tell(MESSAGE)


def test_a_topic_without_credentials_is_named_with_the_cause(monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3 finds none; no request is made."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nowhere")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nowhere")
    (sns,) = make_channels([], "arn:aws:sns:eu-west-1:123456789012:alerts")
    with pytest.raises(RetryLaterError, match="NoCredentialsError"):
        sns.tell(MESSAGE)


def test_the_watchdog_is_asked_with_get(receiver: Receiver) -> None:
    """As healthchecks.io and the like want it."""
    Watchdog(SecretStr(f"{receiver.url}/ping/{SECRET}")).ping()
    assert [(request.method, request.target) for request in receiver.requests] == [("GET", f"/ping/{SECRET}")]


def test_a_watchdog_that_refuses_is_an_error_without_its_address(receiver: Receiver) -> None:
    """It says the setting instead."""
    receiver.status = 404
    with pytest.raises(RetryLaterError, match=r"^alerts\.heartbeat_url answered 404$"):
        Watchdog(SecretStr(f"{receiver.url}/ping/{SECRET}")).ping()


def test_a_watchdog_that_redirects_is_named_as_such(receiver: Receiver) -> None:
    """A ping that goes to a login page tells nobody anything."""
    receiver.status, receiver.headers = 301, {"Location": f"{receiver.url}/login"}
    with pytest.raises(RetryLaterError, match="answered 301, a redirect") as caught:
        Watchdog(SecretStr(f"{receiver.url}/ping/{SECRET}")).ping()
    assert receiver.url not in caught.value.message + caught.value.hint
    assert len(receiver.requests) == 1


def test_a_watchdog_needs_an_http_address() -> None:
    """Said at the start, without repeating it."""
    with pytest.raises(ConfigError, match=r"alerts\.heartbeat_url: must be an http"):
        Watchdog(SecretStr("json://127.0.0.1"))
