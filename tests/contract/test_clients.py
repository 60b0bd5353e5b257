"""Every client in every kind of network: one set of rules for proxy, trust and time, whichever library is below."""

import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from botocore.config import Config
from pydantic import SecretStr

from currents_bridge.alerts import channels
from currents_bridge.alerts import sns as notify_sns
from currents_bridge.alerts.channels import Watchdog, make_channels
from currents_bridge.alerts.sns import SnsChannel
from currents_bridge.config import aws_secrets
from currents_bridge.config.secrets import SecretReader
from currents_bridge.destinations.segment import batch as segment_batch
from currents_bridge.destinations.segment import probes
from currents_bridge.destinations.segment import sdk as segment_sdk
from currents_bridge.destinations.segment.batch import SegmentBatchTransport
from currents_bridge.destinations.segment.endpoint import reach
from currents_bridge.destinations.segment.oauth import OAuth
from currents_bridge.destinations.segment.probes import PublicApiProbe, SettingsProbe
from currents_bridge.destinations.segment.sdk import SegmentSdkTransport
from currents_bridge.errors import BridgeError
from currents_bridge.model import AlertMessage, AlertPhase
from currents_bridge.network import clients
from currents_bridge.network.rules import CA_VARIABLES
from currents_bridge.sources.s3 import listing
from currents_bridge.sources.s3 import store as s3
from currents_bridge.sources.s3.store import S3ObjectStore
from tests.alert_workbench import NOW, make_alert
from tests.certificates import Authority, make_authority
from tests.contract.test_transport_networks import make_batch
from tests.loopback_net import answering, dripping, listening, proxy
from tests.played_segment import key_pair

pytestmark = pytest.mark.filterwarnings("ignore:'imghdr' is deprecated:DeprecationWarning")

KEY = SecretStr("k3yOfTheSource0000000000000000ab")
PASSWORD = "p#s/w?r:d@1%"  # unescaped in the variable, and none of it may show
ALERT = AlertMessage(AlertPhase.OPENED, make_alert(), NOW)
Use = Callable[[str], object]


def batch(url: str) -> None:
    """Send events by the batch API."""
    with closing(SegmentBatchTransport(KEY, base_url=url, max_in_flight=1, clock=lambda: NOW)) as transport:
        transport.send(make_batch("a"))


def sdk(url: str) -> None:
    """Send events by Segment's library."""
    SegmentSdkTransport(KEY, base_url=url, clock=lambda: NOW).send(make_batch("a"))


def oauth(url: str) -> None:
    """Get a token."""
    OAuth("client", "key", lambda: SecretStr(key_pair()[0]), base_url=url, clock=lambda: NOW).get_token()


def settings_probe(url: str) -> None:
    """Ask the settings endpoint."""
    SettingsProbe(url, url).ask(KEY, NOW, ())


def public_api(url: str) -> None:
    """Ask the Public API."""
    PublicApiProbe(url, lambda: SecretStr("token"), "source").ask(KEY, NOW, ())


def webhook(url: str) -> None:
    """Tell a webhook."""
    make_channels([SecretStr(url)], None)[0].tell(ALERT)


def apprise(url: str) -> None:
    """Tell a service of Apprise."""
    address = url.replace("http", "json", 1)
    make_channels([SecretStr(address)], None)[0].tell(ALERT)


def heartbeat(url: str) -> None:
    """Ping the watchdog."""
    Watchdog(SecretStr(url)).ping()


def bucket(url: str) -> None:
    """List a bucket by boto3."""
    config = Config(retries={"total_max_attempts": 1})
    list(S3ObjectStore("acme", region="eu-west-1", endpoint_url=url, config=config).list(""))


def sns(url: str) -> None:
    """Publish to a topic."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        SnsChannel("arn:aws:sns:eu-west-1:123456789012:alerts").tell(ALERT)


def secret(url: str) -> None:
    """Read a secret of Secrets Manager."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        SecretReader({}).read("aws-secretsmanager:name", "field", region="eu-west-1")


def quick(url: str) -> None:
    """Read an object by obstore; what it does not get is nobody's error."""
    store = S3ObjectStore("acme", region="eu-west-1", endpoint_url=url, quick_timeout_s=1.0)
    store._quick.read("key", "etag", 0, 1)


CLIENTS: dict[str, Use] = {
    use.__name__: use
    for use in (
        batch,
        sdk,
        oauth,
        settings_probe,
        public_api,
        reach,
        webhook,
        apprise,
        heartbeat,
        bucket,
        sns,
        secret,
        quick,
    )
}
PYTHONS = [name for name in CLIENTS if name != "quick"]  # the quick way says nothing: boto3 says what is wrong


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No proxy, no own authority, and some AWS credentials."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    for name in CA_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "id")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """A private one."""
    return make_authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def secure(authority: Authority) -> Iterator[tuple[str, list[bytes]]]:
    """A TLS server of the private authority: its URL, and the heads of what it is asked."""
    heads: list[bytes] = []
    with listening(answering(heads), authority.server) as port:
        yield f"https://127.0.0.1:{port}", heads


@pytest.mark.parametrize("variable", ["SSL_CERT_FILE", "AWS_CA_BUNDLE"])
@pytest.mark.parametrize("client", CLIENTS)
def test_one_authority_is_trusted_by_every_client(
    client: str, variable: str, secure: tuple[str, list[bytes]], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever of the variables names its file; the others are read in the same place."""
    url, heads = secure
    monkeypatch.setenv(variable, str(authority.file))
    with suppress(BridgeError):  # of the answer, which is not what the client wants
        CLIENTS[client](url)
    assert heads


@pytest.mark.parametrize("client", PYTHONS)
def test_a_certificate_of_a_stranger_is_named(client: str, secure: tuple[str, list[bytes]]) -> None:
    """With the variable that would help; nothing is sent."""
    url, heads = secure
    if client == "apprise":  # says whether, not why
        with pytest.raises(BridgeError, match="did not take the message"):
            CLIENTS[client](url)
    else:
        with pytest.raises(BridgeError, match=r"certificate is not trusted.*SSL_CERT_FILE"):
            CLIENTS[client](url)
    assert not heads


@pytest.mark.parametrize("client", [name for name in PYTHONS if name != "apprise"])
def test_a_file_of_authorities_that_is_missing_is_named(
    client: str, secure: tuple[str, list[bytes]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With its variable."""
    monkeypatch.setenv("SSL_CERT_FILE", "/etc/ssl/gone.pem")
    with pytest.raises(BridgeError, match=r"SSL_CERT_FILE names /etc/ssl/gone\.pem: there is no such file"):
        CLIENTS[client](secure[0])


@pytest.mark.parametrize("client", PYTHONS)
def test_without_tls_a_missing_file_of_authorities_is_no_trouble(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is to be trusted there."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/etc/ssl/gone.pem")
    heads: list[bytes] = []
    with listening(answering(heads)) as port, suppress(BridgeError):
        CLIENTS[client](f"http://127.0.0.1:{port}")
    assert heads


@pytest.mark.parametrize("client", CLIENTS)
def test_every_client_goes_through_the_proxy_with_its_password(
    client: str, secure: tuple[str, list[bytes]], authority: Authority, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where its characters should have been escaped."""
    url, heads = secure
    asked: list[str] = []
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    with listening(proxy(asked, f"user:{PASSWORD}")) as port, suppress(BridgeError):
        monkeypatch.setenv("HTTPS_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{port}")
        CLIENTS[client](url)
    assert asked[0] == f"CONNECT {url.removeprefix('https://')}"
    assert heads


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("exception", ["127.0.0.0/8", "fd07::/64, 127.0.0.1", "[::1] *"])
def test_every_client_goes_directly_where_no_proxy_says_so(
    client: str,
    exception: str,
    secure: tuple[str, list[bytes]],
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By networks and addresses of both kinds."""
    url, heads = secure
    asked: list[str] = []
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    monkeypatch.setenv("no_proxy", exception)
    with listening(proxy(asked)) as port, suppress(BridgeError):
        monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{port}")
        CLIENTS[client](url)
    assert heads
    assert not asked


@pytest.mark.parametrize("client", [name for name in PYTHONS if name != "apprise"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_another_password_is_named(
    client: str, scheme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether it tunnels or forwards; the password that it did not take shows nowhere."""
    with listening(proxy([], "user:other")) as port:
        monkeypatch.setenv("ALL_PROXY", f"http://user:{PASSWORD}@127.0.0.1:{port}")
        with pytest.raises(BridgeError, match=r"the proxy wants another user name and password \(407\)") as told:
            CLIENTS[client](f"{scheme}://segment.test:1")
    assert PASSWORD not in f"{told.value} {told.value.hint}"
    assert "p%23s" not in f"{told.value!r}"


@pytest.mark.parametrize("client", [name for name in PYTHONS if name != "apprise"])
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (f"http://user:{PASSWORD}@proxy:99999", "HTTP_PROXY is no address of a proxy"),
        (f"socks5://user:{PASSWORD}@proxy:1080", "HTTP_PROXY names a socks proxy, which is not supported"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_named_by_its_variable(
    client: str, value: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And never with its password."""
    monkeypatch.setenv("HTTP_PROXY", value)
    with pytest.raises(BridgeError, match=reason) as told:
        CLIENTS[client]("http://segment.test")
    assert "p#s" not in f"{told.value!r} {told.value.hint}"


@pytest.mark.parametrize("client", CLIENTS)
def test_no_client_takes_a_password_from_netrc(client: str, tmp_path: Path) -> None:
    """It would be sent to the endpoint, in place of the key."""
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login user password geheim\n")
    (tmp_path / ".netrc").chmod(0o600)
    heads: list[bytes] = []
    with listening(answering(heads)) as port, suppress(BridgeError):
        CLIENTS[client](f"http://127.0.0.1:{port}")
    assert heads
    assert b"dXNlcjpnZWhlaW0=" not in b"".join(heads)  # user:geheim


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little time for each request in all, and long timeouts of each step."""
    for module, name in (
        (segment_batch, "ATTEMPT_TIMEOUT_S"),
        (segment_sdk, "ATTEMPT_TIMEOUT_S"),
        (probes, "_TIMEOUT_S"),
        (channels, "TIMEOUT_S"),
        (channels, "APPRISE_TIMEOUT_S"),
        (notify_sns, "TIMEOUT_S"),
        (aws_secrets, "_TIMEOUT_S"),
        (s3, "ASK_TIMEOUT_S"),
        (listing, "PAGE_TIMEOUT_S"),
    ):
        monkeypatch.setattr(module, name, 0.3)
    monkeypatch.setattr(clients, "ATTEMPT_TIMEOUT_S", 0.3)


BODY = b"Content-Length: 1000\r\n\r\n"


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("client", PYTHONS)
@pytest.mark.parametrize("secured", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("start", [b"", BODY], ids=["head", "body"])
def test_an_answer_that_drips_ends_by_the_deadline(
    client: str,
    secured: bool,  # noqa: FBT001
    start: bytes,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A timeout of each step would never end it."""
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.file))
    ended = threading.Event()
    tls: ssl.SSLContext | None = authority.server if secured else None
    if client == "reach" and start:
        pytest.skip("a HEAD has no body")
    with listening(dripping(ended, 0.02, start), tls) as port:
        began_s = time.monotonic()
        try:
            with pytest.raises(BridgeError):
                CLIENTS[client](f"http{'s' * secured}://127.0.0.1:{port}")
            assert time.monotonic() - began_s < 5
        finally:
            ended.set()
