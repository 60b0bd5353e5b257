import re
from base64 import b64encode
from datetime import UTC, datetime
from http import HTTPStatus

import polars as pl
import pytest
import urllib3
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr
from urllib3 import HTTPHeaderDict

from currents_bridge.destinations.segment.batch import SegmentBatchTransport
from currents_bridge.destinations.segment.endpoint import MAX_WAIT_S, Endpoint, asked_wait_s, reach, segment_url
from currents_bridge.errors import BridgeError, CredentialError, RefusedError, RetryLaterError, Side
from currents_bridge.model import Batch, Part
from currents_bridge.testing.collector import Collector

KEY = "k3yOfTheSource0000000000000000ab"
NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
ENDPOINT = Endpoint(SecretStr(KEY), "https://api.segment.io", lambda: NOW)

RETRY_LATER = {407, 408, 421, 425, 429, 460}
REFUSED = {400, 413, 422}
CREDENTIAL = {401, 403, 511}
UNHEARD_OF = {199, 398, 419, 460, 499, 520, 529, 599, 600, 999}


def expected_class(status: int) -> type[BridgeError]:
    """Return the class that the table of docs/design.md gives a status."""
    if status in CREDENTIAL:
        return CredentialError
    if status in RETRY_LATER or status >= 500:
        return RetryLaterError
    return RefusedError if status in REFUSED else CredentialError


def all_subclasses(root: type[Exception]) -> list[type[Exception]]:
    """Return the class and everything below it."""
    return [root] + [deeper for child in root.__subclasses__() for deeper in all_subclasses(child)]


@pytest.mark.parametrize("status", sorted({s.value for s in HTTPStatus if s >= 300} | UNHEARD_OF))
def test_every_status_has_its_error(status: int) -> None:
    """Each status outside 2xx, also an unheard-of one, becomes the error that says what to do next."""
    error = ENDPOINT.error(status, {}, "")

    assert error
    assert type(error) is expected_class(status)
    of_proxy = "no answer from api.segment.io: the proxy wants another user name and password (407)"
    assert error.message.startswith(of_proxy if status == 407 else f"api.segment.io answered {status}")


@pytest.mark.parametrize("region", ["us", "eu"])
def test_segment_itself_acknowledges_in_its_own_words_only(region: str) -> None:
    """What else comes from its hosts is that of somebody on the way."""
    endpoint = Endpoint(SecretStr(KEY), segment_url(region), lambda: NOW)

    assert endpoint.error(200, {}, '{"success": true}') is None
    assert all(isinstance(endpoint.error(200, {}, body), RetryLaterError) for body in ("OK", "", "{}"))


@pytest.mark.parametrize("status", sorted(CREDENTIAL))
def test_a_refused_credential_is_the_destinations(status: int) -> None:
    """A refused key pauses the destination, not S3."""
    error = ENDPOINT.error(status, {}, "")

    assert isinstance(error, CredentialError)
    assert error.side is Side.DESTINATION
    assert "write key" in error.hint


@pytest.mark.parametrize("status", [301, 307, 404, 405, 410, 418])
def test_a_wrong_endpoint_pauses_the_destination(status: int) -> None:
    """What Segment's own endpoint never answers says that the settings lead elsewhere, and which ones."""
    error = ENDPOINT.error(status, {}, "not found")

    assert isinstance(error, CredentialError)
    assert error.side is Side.DESTINATION
    assert error.message == f"api.segment.io answered {status}: not found"
    assert "destination.endpoint_url" in error.hint


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"Retry-After": "30"}, 30),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "0"}, None),
        ({"Retry-After": "-5"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "9" * 5000}, MAX_WAIT_S),
        ({"Retry-After": "Fri, 02 Jan 99999999999 03:04:45 GMT"}, None),
        ({"Retry-After": "Fri, 02 Jan 9999 03:04:45 GMT"}, MAX_WAIT_S),
        ({"Retry-After": "Fri, 02 Jan 0000 03:04:45 GMT"}, None),
        ({"Retry-After": "Fri, 02 Jan 0001 03:04:45 +2359"}, None),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:45 +9999"}, None),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:45 +99999999999999"}, None),
        ({"Retry-After": "inf"}, None),
        ({"Retry-After": "9, 30"}, 30),
        ({"Retry-After": "30,soon"}, 30),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:45 GMT, 9"}, 40),
        ({"Retry-After": "9, Fri, 02 Jan 2026 03:04:45 GMT, Fri, 02 Jan 2026 03:04:25 GMT"}, 40),
        ({"X-RateLimit-Reset": "Fri, 02 Jan 99999999999 03:04:45 GMT"}, None),
        ({"X-RateLimit-Reset": "-1e300"}, None),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:45 GMT"}, 40),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:45 -0000"}, 40),
        ({"Retry-After": "Fri, 02 Jan 2026 03:04:00 GMT"}, None),
        ({"Retry-After": "Fri, 99 Jan 2026 03:04:45 GMT"}, None),
        ({"X-RateLimit-Reset": "12"}, 12),
        ({"Retry-After": "soon", "X-RateLimit-Reset": "12"}, 12),
        ({"Retry-After": "30", "X-RateLimit-Reset": "12"}, 30),
        ({"X-RateLimit-Reset": "1767323045"}, MAX_WAIT_S),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_the_wait_that_an_answer_names_is_read(status: int, headers: dict[str, str], wait_s: float | None) -> None:
    """Seconds and HTTP dates are understood, nonsense is left alone, absurd waits are cut."""
    error = ENDPOINT.error(status, HTTPHeaderDict(headers), "")

    assert isinstance(error, RetryLaterError)
    assert error.wait_s == wait_s


@given(st.text(st.characters(codec="latin-1")) | st.from_regex(r"\w{3}, \d+ \w{3} \d+ \d+:\d+:\d+ ([+-]?\d+|\w+)"))
def test_a_wait_of_any_text_is_a_bounded_one_or_none(value: str) -> None:
    """Headers come from whoever answers."""
    wait_s = asked_wait_s({"Retry-After": value}, NOW)

    assert wait_s is None or 0 < wait_s <= MAX_WAIT_S


@pytest.mark.parametrize("status", [302, 400, 401, 404, 500])
def test_a_message_shows_the_start_of_the_answer_on_one_line(status: int) -> None:
    """An error page does not fill the log."""
    message = str(ENDPOINT.error(status, {}, "<html>\n  " + "x" * 1000))

    assert message.startswith(f"api.segment.io answered {status}: <html> xxx")
    assert len(message) < 250
    assert "\n" not in message


@pytest.mark.parametrize("secret", [KEY, b64encode(f"{KEY}:".encode()).decode()])
@pytest.mark.parametrize("status", [302, 400, 401, 404, 429, 500])
@pytest.mark.parametrize("padding", [0, 190])
def test_no_error_holds_the_write_key(secret: str, status: int, padding: int) -> None:
    """An answer that repeats the key, plain or as sent, also at the edge of what is shown, does not spread it."""
    error = ENDPOINT.error(status, {}, "x" * padding + secret)

    assert error
    assert secret[:8] not in error.message + error.hint + repr(error)
    assert secret[:8] not in ENDPOINT.network_error(OSError(f"no route for {secret}")).message


@pytest.mark.parametrize("error_class", all_subclasses(urllib3.exceptions.HTTPError))
def test_every_network_fault_is_tried_again(
    error_class: type[urllib3.exceptions.HTTPError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever urllib3 raises instead of an answer becomes RetryLaterError and names its cause."""
    error = error_class.__new__(error_class)  # each takes other arguments
    error.args = ("it broke",)
    vars(error).update(partial=0, expected=0, length=0)  # of those that say how much is missing

    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(urllib3.PoolManager, "urlopen", fail)
    transport = SegmentBatchTransport(
        SecretStr(KEY), base_url="https://api.segment.io", max_in_flight=1, clock=lambda: NOW
    )
    frame = pl.DataFrame({"row": [0], "message_id": ["a"], "message": ["{}"]}, schema_overrides={"row": pl.UInt32})

    told = f"no answer from api.segment.io: {error_class.__name__}: {error}"
    with pytest.raises(RetryLaterError, match=re.escape(told)):
        transport.send(Batch((Part(1, frame),), 1, 50, 40))
    transport.close()


@pytest.mark.parametrize(
    ("region", "endpoint_url", "url"),
    [
        ("us", None, "https://api.segment.io/v1/batch"),
        ("eu", None, "https://events.eu1.segmentapis.com/v1/batch"),
        ("us", "http://127.0.0.1:9/", "http://127.0.0.1:9/v1/batch"),
        ("eu", "https://proxy.example/segment", "https://proxy.example/segment/v1/batch"),
    ],
)
def test_batches_go_to_the_region_or_the_endpoint(region: str, endpoint_url: str | None, url: str) -> None:
    """An endpoint takes the region's place, with or without a slash at its end."""
    assert Endpoint(SecretStr(KEY), segment_url(region, endpoint_url), lambda: NOW).batch_url == url


def test_a_host_is_reached_by_whatever_it_answers() -> None:
    """Also by 404, since nothing is asked of it."""
    with Collector() as collector:
        reach(collector.url)
        gone = collector.url
    with pytest.raises(RetryLaterError, match=r"no answer from 127\.0\.0\.1"):
        reach(gone)
