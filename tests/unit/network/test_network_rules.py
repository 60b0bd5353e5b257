from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from urllib3.util import parse_url

from currents_bridge.network.rules import BadNetworkSettingError, Proxy, own_authorities, proxy_for, trust

PROXY = {"https_proxy": "http://proxy:3128"}


@pytest.mark.parametrize(
    ("environ", "address"),
    [
        ({}, None),
        ({"HTTPS_PROXY": "http://proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "proxy:3128"}, "http://proxy:3128"),
        ({"https_proxy": "//proxy:3128/"}, "http://proxy:3128"),
        ({"https_proxy": "http://proxy"}, "http://proxy:80"),
        ({"https_proxy": "https://Proxy"}, "https://proxy:443"),
        ({"https_proxy": "http://[FD07::1]:3128"}, "http://[fd07::1]:3128"),
        ({"https_proxy": "http://lower:1", "HTTPS_PROXY": "http://upper:1"}, "http://lower:1"),
        ({"https_proxy": "", "HTTPS_PROXY": "http://upper:1"}, None),
        ({"https_proxy": "", "ALL_PROXY": "http://all:1"}, "http://all:1"),
        ({"HTTP_PROXY": "http://plain:1"}, None),
        ({"HTTP_PROXY": "http://plain:1", "all_proxy": "http://all:1"}, "http://all:1"),
        ({"HTTPS_PROXY": "http://one:1", "all_proxy": "http://all:1"}, "http://one:1"),
    ],
)
def test_the_proxy_is_that_of_the_scheme_then_that_of_all(environ: dict[str, str], address: str | None) -> None:
    """The lower case name counts where it is set, if only to nothing."""
    proxy = proxy_for("https://api.segment.io/v1/batch", environ)
    assert (proxy and proxy.address) == address


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("https://api.segment.io", "*"),
        ("https://api.segment.io", "a.example, *"),
        ("https://api.segment.io", "api.segment.io"),
        ("https://API.segment.io.", "segment.io"),
        ("https://api.segment.io", ".segment.io"),
        ("https://api.segment.io", "*.segment.io"),
        ("https://api.segment.io", "a.example segment.io"),
        ("https://api.segment.io", "segment.io:443"),
        ("https://api.segment.io:8443", "api.segment.io:8443"),
        ("https://10.1.2.3", "10.1.2.3"),
        ("https://10.1.2.3", "10.0.0.0/8"),
        ("https://10.1.2.3", "10.1.2.99/8"),
        ("https://10.1.2.3:9000", "10.1.2.3:9000"),
        ("https://[::1]", "[::1]"),
        ("https://[::1]", "::1"),
        ("https://[::1]:9000", "[::1]:9000"),
        ("https://[fd07::5]:9000", "fd07::/64"),
        ("https://[fd07::5]", "[fd07::]/64"),
        ("https://[fd07:0:0:0::5]", "fd07::5"),
        ("https://[::ffff:10.1.2.3]", "10.0.0.0/8"),
        ("https://169.254.169.254", ""),
        ("https://169.254.170.2", ""),
        ("https://[fd00:ec2::254]", ""),
    ],
)
def test_no_proxy_knows_names_domains_addresses_and_networks(url: str, no_proxy: str) -> None:
    """Of both kinds; where a cloud tells machines about themselves, no proxy is ever asked."""
    assert proxy_for(url, {**PROXY, "NO_PROXY": no_proxy}) is None


@pytest.mark.parametrize(
    ("url", "no_proxy"),
    [
        ("https://api.segment.io", ""),
        ("https://api.segment.io", ",, ,"),
        ("https://api.segment.io", "."),
        ("https://api.segment.io", "io.segment"),
        ("https://api.segment.io", "pi.segment.io"),
        ("https://api.segment.io", "segment.io:80"),
        ("https://api.segment.io", "10.0.0.0/8"),
        ("https://10.1.2.3", "10.0.0.0/99"),
        ("https://10.1.2.3", "2.3"),
        ("https://10.1.2.3", "fd07::/64"),
        ("https://[fd07:0:0:1::5]", "fd07::/64"),
        ("https://[::1]", "[::1]:80"),
    ],
)
def test_what_no_proxy_does_not_name_goes_by_the_proxy(url: str, no_proxy: str) -> None:
    """What is none of its forms names nothing."""
    assert proxy_for(url, {**PROXY, "NO_PROXY": no_proxy})


@given(st.text(), st.text())
def test_no_environment_is_too_odd(proxy: str, no_proxy: str) -> None:
    """It gives a proxy that every library can read, none, or a sentence."""
    try:
        found = proxy_for("https://api.segment.io", {"HTTPS_PROXY": proxy, "NO_PROXY": no_proxy})
    except BadNetworkSettingError:
        return
    assert found is None or parse_url(found.url).port == found.port


@given(st.text(st.characters(codec="ascii", categories=["L", "N", "P", "S"])))
def test_a_password_needs_no_escapes(password: str) -> None:
    """Whatever is in it, the host is what follows the last @."""
    if "%" in password:
        return
    found = proxy_for("https://api.segment.io", {"https_proxy": f"http://user:{password}@proxy:3128"})
    assert found == Proxy("http", "proxy", 3128, "user", password)
    assert parse_url(found.url).host == "proxy"
    assert not password or password == "user" or f":{password}" not in repr(found)


def test_an_escaped_password_is_read() -> None:
    """As URLs have it."""
    found = proxy_for("https://api.segment.io", {"https_proxy": "http://us%40er:p%23ss@proxy"})
    assert found
    assert (found.user, found.password) == ("us@er", "p#ss")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("http://user:geheim@proxy:0", "is no address of a proxy"),
        ("http://user:geheim@proxy:99999", "is no address of a proxy"),
        ("http://user:geheim@proxy:port", "is no address of a proxy"),
        ("http://user:geheim@", "is no address of a proxy"),
        ("http://user:geheim@proxy/path", "is no address of a proxy"),
        ("gopher://user:geheim@proxy", "is no address of a proxy"),
        ("socks5h://user:geheim@proxy:1080", "names a socks proxy, which is not supported"),
        ("SOCKS4://user:geheim@[x", "names a socks proxy, which is not supported"),
        ("http://user:geheimü@proxy", "has a user name or password with other characters than those of ASCII"),
        ("http://user:geheim%0A@proxy", "has a user name or password with other characters than those of ASCII"),
    ],
)
def test_a_proxy_that_cannot_be_used_is_refused_in_words(value: str, reason: str) -> None:
    """With the variable and what to write, without the value."""
    with pytest.raises(BadNetworkSettingError) as told:
        proxy_for("https://api.segment.io", {"HTTPS_PROXY": value})
    assert told.value.message.startswith(f"HTTPS_PROXY {reason}")
    assert "geheim" not in told.value.hint


def test_without_own_authorities_the_public_ones_are_trusted() -> None:
    """By one object for all."""
    context = trust({})
    assert context is trust({"SSL_CERT_FILE": ""})
    assert context.cert_store_stats()["x509_ca"] > 50
    assert own_authorities({}) == ""


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "there is no such file"),
        (b"", "holds no certificates in PEM"),
        (b"hello", "holds no certificates in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds no certificates in PEM"),
        (b"x" * 9_000_000, "is larger than 8192 KiB"),
    ],
)
def test_a_file_of_authorities_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, reason: str) -> None:
    """With its variable; once it is right, it is read."""
    file = tmp_path / "authorities.pem"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(BadNetworkSettingError) as told:
        trust({"AWS_CA_BUNDLE": str(file)})
    assert told.value.message == f"AWS_CA_BUNDLE names {file}: {reason}"
