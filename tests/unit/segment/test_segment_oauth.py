"""Tokens for a source that enforces OAuth: when they are asked for, and what a refusal becomes."""

import logging
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import timedelta

import pytest
from pydantic import SecretStr

from currents_bridge.destinations.segment.oauth import OAuth
from currents_bridge.errors import BridgeError, ConfigError, ConfigProblem, CredentialError, RetryLaterError, Side
from currents_bridge.testing.collector import Answer, Collector
from tests.played_segment import CLIENT_ID, KEY_ID, Clock, enforcement, key_pair


@pytest.fixture
def clock() -> Clock:
    """A time that the test moves."""
    return Clock()


@pytest.fixture
def collector(clock: Clock) -> Iterator[Collector]:
    """A Segment whose source enforces OAuth, with tokens for an hour."""
    with Collector(now=clock) as running:
        running.world.enforcement = enforcement()
        yield running


@pytest.fixture
def oauth(collector: Collector, clock: Clock) -> OAuth:
    """The application that the source belongs to."""
    return make_oauth(collector, clock)


def make_oauth(
    collector: Collector, clock: Clock, *, client_id: str = CLIENT_ID, key_id: str = KEY_ID, private_key: str = ""
) -> OAuth:
    """Make the application with some values changed."""
    key = SecretStr(private_key or key_pair()[0])
    return OAuth(client_id, key_id, lambda: key, base_url=f"{collector.url}/", clock=clock)


def test_a_token_is_asked_for_when_it_is_needed_and_kept(collector: Collector, oauth: OAuth) -> None:
    """Many threads that want one at once make one request."""
    assert collector.world.asked == []

    with ThreadPoolExecutor(8) as pool:
        tokens = set(pool.map(lambda _: oauth.get_token(), range(8)))

    assert len(tokens) == 1
    assert collector.world.asked == ["/token"]


def test_a_token_is_renewed_before_it_ends(clock: Clock, oauth: OAuth) -> None:
    """A minute before; so no batch is refused for it."""
    first = oauth.get_token()

    clock.passes(timedelta(minutes=58))
    assert oauth.get_token() == first
    clock.passes(timedelta(minutes=1))
    assert oauth.get_token() != first


def test_a_token_for_seconds_only_is_used_for_half_of_them(collector: Collector, clock: Clock, oauth: OAuth) -> None:
    """Else each request would ask for another."""
    collector.world.enforcement = replace(enforcement(), lifetime=timedelta(seconds=30))
    first = oauth.get_token()

    clock.passes(timedelta(seconds=14))
    assert oauth.get_token() == first
    clock.passes(timedelta(seconds=1))
    assert oauth.get_token() != first


@pytest.mark.parametrize("body", ['{"access_token": "a"}', '{"access_token": "a", "expires_in": null}'])
def test_a_token_without_a_lifetime_is_used_for_an_hour(
    collector: Collector, clock: Clock, oauth: OAuth, body: str
) -> None:
    """Where it ends sooner, its refusal has another one fetched."""
    collector.world.answers["/token"] = Answer(body=body)
    assert oauth.get_token() == "a"
    collector.world.answers.clear()

    clock.passes(timedelta(minutes=58))
    assert oauth.get_token() == "a"
    clock.passes(timedelta(minutes=2))
    assert oauth.get_token() != "a"


@pytest.mark.parametrize("lifetime", ["1e300", "86401", "9" * 300])
def test_no_token_is_used_for_more_than_a_day(collector: Collector, clock: Clock, oauth: OAuth, lifetime: str) -> None:
    """Whatever lifetime the server names."""
    collector.world.answers["/token"] = Answer(body=f'{{"access_token": "a", "expires_in": {lifetime}}}')
    assert oauth.get_token() == "a"
    collector.world.answers.clear()

    clock.passes(timedelta(hours=23))
    assert oauth.get_token() == "a"
    clock.passes(timedelta(hours=1))
    assert oauth.get_token() != "a"


def test_a_refused_token_is_dropped_once(oauth: OAuth) -> None:
    """A thread that learns late of a refusal leaves the new token alone."""
    first = oauth.get_token()
    oauth.clear_token(first)
    second = oauth.get_token()
    oauth.clear_token(first)

    assert first != second == oauth.get_token()
    assert oauth.issued == (first, second)


@pytest.mark.parametrize("changed", ["client_id", "key_id"])
def test_an_unknown_application_is_a_credential_failure(collector: Collector, clock: Clock, changed: str) -> None:
    """The hint names the settings."""
    changes = {changed: "another"}
    with pytest.raises(CredentialError, match=r"127\.0\.0\.1 gave no token, it answered 400") as caught:
        make_oauth(collector, clock, **changes).get_token()

    assert caught.value.side is Side.DESTINATION
    assert "destination.oauth" in caught.value.hint


def test_a_clock_that_is_wrong_is_told(collector: Collector, clock: Clock) -> None:
    """Segment takes no assertion from another time."""
    ahead = Clock()
    ahead.now = clock.now + timedelta(minutes=2)

    with pytest.raises(CredentialError, match="Token is expired") as caught:
        make_oauth(collector, ahead).get_token()
    assert "clock" in caught.value.hint


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (Answer(401), CredentialError),
        (Answer(403), CredentialError),
        (Answer(404), CredentialError),
        (Answer(302, {"Location": "/elsewhere"}), CredentialError),
        (Answer(body="<html>"), CredentialError),
        (Answer(body='{"access_token": null}'), CredentialError),
        (Answer(body='{"expires_in": 60}'), CredentialError),
        *(
            (Answer(body=f'{{"access_token": {token}, "expires_in": {lifetime}}}'), CredentialError)
            for token, lifetime in (
                ('"a"', "NaN"),
                ('"a"', "-1"),
                ('"a"', "0"),
                ('"a"', "1e999"),
                ('"a"', '"soon"'),
                ('"a"', "true"),
                ('""', "60"),
                ('"a\\nb"', "60"),
                ('"\\u00e9"', "60"),
                ("1", "60"),
                ("null", "60"),
                ("[]", "60"),
            )
        ),
        (Answer(408), RetryLaterError),
        (Answer(429, {"X-RateLimit-Reset": "7"}), RetryLaterError),
        (Answer(503), RetryLaterError),
        (Answer(reset="before"), RetryLaterError),
    ],
)
def test_every_answer_of_the_token_server_says_what_to_do(
    collector: Collector, oauth: OAuth, answer: Answer, expected: type[BridgeError]
) -> None:
    """A refusal pauses the connector, anything else is tried again after the wait that it names."""
    collector.world.answers["/token"] = answer

    with pytest.raises(expected) as caught:
        oauth.get_token()
    assert "127.0.0.1" in str(caught.value)
    assert getattr(caught.value, "wait_s", None) == (7 if answer.status == 429 else None)

    collector.world.answers.clear()
    assert oauth.get_token()


@pytest.mark.parametrize("junk", ["no PEM", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_private_key_that_is_none_is_a_credential_failure_without_its_text(
    collector: Collector, clock: Clock, junk: str
) -> None:
    """What libraries say of it could quote it."""
    with pytest.raises(CredentialError, match="private_key is no RSA key in PEM") as caught:
        make_oauth(collector, clock, private_key=junk).get_token()

    assert caught.value.__context__ is None


def test_the_private_key_is_read_for_each_token(collector: Collector, clock: Clock) -> None:
    """One that was replaced is found without a restart; one that cannot be read is a failing credential."""
    keys: list[str | None] = [None, "no PEM", key_pair()[0]]

    def read() -> SecretStr:
        key = keys.pop(0)
        if key is None:
            raise ConfigError([ConfigProblem("oauth.private_key", "is empty")], "write it")
        return SecretStr(key)

    oauth = OAuth(CLIENT_ID, KEY_ID, read, base_url=collector.url, clock=clock)
    for why in ("oauth.private_key: is empty", "is no RSA key"):
        with pytest.raises(CredentialError, match=why):
            oauth.get_token()
    assert oauth.get_token()


@pytest.mark.parametrize("answer", [Answer(500), Answer(400), Answer(reset="before")])
def test_neither_key_nor_assertion_nor_token_shows(
    collector: Collector, oauth: OAuth, answer: Answer, caplog: pytest.LogCaptureFixture
) -> None:
    """Not even where the server repeats what it got."""
    caplog.set_level(logging.DEBUG)
    token = oauth.get_token()
    oauth.clear_token()
    echoes: list[str] = []

    def repeat(request: object) -> Answer:
        wire = getattr(request, "wire", b"").decode()
        echoes.append(wire.partition("client_assertion=")[2].partition("&")[0])
        return replace(answer, body=echoes[0])

    collector.world.answer = repeat  # type: ignore[method-assign]
    with pytest.raises(BridgeError) as caught:
        oauth.get_token()

    shown = f"{caught.value!r} {caught.value.hint} {oauth!r} {caplog.text}"
    shown += "".join(traceback.format_exception(caught.value))
    key_line = key_pair()[0].splitlines()[1]
    assert len(echoes[0]) > 300
    assert [secret for secret in (token, key_line, echoes[0][:50]) if secret in shown] == []
