"""S3 credentials that stop working and are renewed while the program runs."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from botocore.config import Config

from currents_bridge.errors import CredentialError
from currents_bridge.sources.s3.store import MIN_CLIENT_AGE_S, S3ObjectStore
from tests.fake_time import FakeTime

OLD, NEW = "OLDKEY", "NEWKEY"
EMPTY_LISTING = b"<ListBucketResult><Name>acme</Name><KeyCount>0</KeyCount></ListBucketResult>"
EXPIRED = b"<Error><Code>ExpiredToken</Code><Message>The provided token has expired.</Message></Error>"


class _S3(BaseHTTPRequestHandler):
    """An S3 server with an empty bucket; it takes the access key NEW only."""

    def do_GET(self) -> None:
        """Answer a listing."""
        known = f"Credential={NEW}/" in self.headers["Authorization"]
        body = EMPTY_LISTING if known else EXPIRED
        self.send_response(200 if known else 400)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The URL of the server."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _S3) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def credentials_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A shared credentials file with the old key, and no other credentials."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    write_key(path, OLD)
    return path


@pytest.fixture
def time() -> FakeTime:
    """The store's time."""
    return FakeTime()


@pytest.fixture
def store(url: str, credentials_file: Path, time: FakeTime) -> S3ObjectStore:  # noqa: ARG001 - made before the store
    """A store with the old key."""
    return S3ObjectStore(
        "acme", region="us-east-1", endpoint_url=url, config=Config(proxies={}), clock=time.clock, sleep=time.sleep
    )


def write_key(path: Path, key: str) -> None:
    """Put one access key into the credentials file."""
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = secret\n")


def test_credentials_that_were_renewed_in_their_file_are_found(
    store: S3ObjectStore, credentials_file: Path, time: FakeTime
) -> None:
    """No restart is needed."""
    with pytest.raises(CredentialError, match="the AWS session has expired"):
        store.folders("")
    write_key(credentials_file, NEW)
    time.sleep(60)

    assert store.folders("") == ([], [])


def test_credentials_that_come_from_elsewhere_than_before_are_found(
    store: S3ObjectStore, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole chain is asked again, the environment first."""
    with pytest.raises(CredentialError, match="the AWS session has expired"):
        list(store.list(""))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", NEW)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    time.sleep(60)

    assert list(store.list("")) == []


def test_credentials_that_cannot_be_had_for_a_while_are_asked_for_again(
    store: S3ObjectStore, credentials_file: Path, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A profile that is missing in the middle is an error like any other."""
    with pytest.raises(CredentialError, match="the AWS session has expired"):
        store.folders("")
    monkeypatch.setenv("AWS_PROFILE", "none")
    time.sleep(60)
    with pytest.raises(CredentialError, match="the AWS configuration cannot be used"):
        store.folders("")
    monkeypatch.delenv("AWS_PROFILE")
    write_key(credentials_file, NEW)
    time.sleep(60)

    assert store.folders("") == ([], [])


def test_requests_that_all_fail_make_few_clients(
    store: S3ObjectStore, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Many threads meet the failure at once, and a client is dear."""
    made: list[float] = []
    make = store._connect

    def counted() -> object:
        made.append(time.now_s)
        return make()

    monkeypatch.setattr(store, "_connect", counted)

    def fail(_: int) -> None:
        with pytest.raises(CredentialError):
            store.folders("")

    for _ in range(2):
        time.sleep(MIN_CLIENT_AGE_S)
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(fail, range(8)))

    assert made == [100.0 + MIN_CLIENT_AGE_S, 100.0 + 2 * MIN_CLIENT_AGE_S]  # one a round


def test_credentials_that_work_are_kept(
    store: S3ObjectStore, credentials_file: Path, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One renewal is enough, however long it holds."""
    with pytest.raises(CredentialError):
        store.folders("")
    write_key(credentials_file, NEW)
    time.sleep(60)
    store.folders("")
    monkeypatch.delattr(store, "_connect")
    time.sleep(3600)

    assert store.folders("") == ([], [])
