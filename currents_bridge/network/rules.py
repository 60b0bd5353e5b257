"""Which proxy a request goes through, and whose certificates are trusted: one set of rules for every client.

The environment says so, by the names that other programs read too: `HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY` and
`NO_PROXY` in lower or upper case, and `SSL_CERT_FILE`, `REQUESTS_CA_BUNDLE`, `CURL_CA_BUNDLE` and `AWS_CA_BUNDLE`.
docs/networks.md has the rules in full.

The libraries each read these in a way of their own: `urllib.request.proxy_bypass` and botocore know no networks in
NO_PROXY, requests none of IPv6, httpx ends with an error on both, and each reads another variable for certificates.
"""

import os
import re
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

import certifi
from urllib3.util import create_urllib3_context, make_headers

from currents_bridge.errors import RetryLaterError
from currents_bridge.plain import NotPlainError, read_bytes

CA_VARIABLES = ("SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "AWS_CA_BUNDLE")

_PORTS = {"http": 80, "https": 443}
_PROXY = re.compile(
    r"(?:(?:(?P<scheme>[a-z][a-z0-9+.-]*):)?//)?"
    r"(?:(?P<login>.*)@)?"  # up to the last @: a password may hold any character, also one that should be escaped
    r"(?P<host>\[[0-9a-f:.]+\]|[\w.-]+)(?::(?P<port>\d{1,5}))?/?",
    re.ASCII | re.IGNORECASE | re.DOTALL,
)
_PORT_OF_ENTRY = re.compile(r"(?P<name>\[.*\]|[^:]*):(?P<port>\d{1,5})", re.ASCII)
_METADATA = [ip_network(block) for block in ("169.254.0.0/16", "fe80::/10", "fd00:ec2::/32")]
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----[\sA-Za-z0-9+/=]+-----END CERTIFICATE-----")
_MAX_CA_BYTES = 8 * 1024 * 1024
_PROXY_FORM = "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT, with a port of 1 to 65535"


class BadNetworkSettingError(RetryLaterError):
    """A variable of the environment cannot be used; the message names it, and never shows what may be a password."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, f"{hint}, then start the program again; nothing is lost")


@dataclass(frozen=True, slots=True)
class Proxy:
    """An HTTP proxy."""

    scheme: str  # http or https: how the proxy itself is spoken to
    host: str  # an IPv6 address in brackets
    port: int
    user: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def address(self) -> str:
        """The URL without user name and password."""
        return f"{self.scheme}://{self.host}:{self.port}"

    @property
    def url(self) -> str:
        """The URL with user name and password, escaped so that every library reads it alike."""
        login = f"{quote(self.user, safe='')}:{quote(self.password, safe='')}@" if self.user or self.password else ""
        return f"{self.scheme}://{login}{self.host}:{self.port}"

    @property
    def headers(self) -> Mapping[str, str]:
        """The headers that the proxy wants to see."""
        if not (self.user or self.password):
            return {}
        return make_headers(proxy_basic_auth=f"{self.user}:{self.password}")


def proxy_for(url: str, environ: Mapping[str, str] = os.environ) -> Proxy | None:
    """Return the proxy that requests to a URL go through, None where they go directly.

    Raises BadNetworkSettingError where a proxy is named that cannot be used, ValueError for what is no URL.
    """
    target = urlsplit(url)
    for kind in (target.scheme, "all"):
        variable, value = _read(f"{kind}_proxy", environ)
        if value:
            port = target.port or _PORTS.get(target.scheme, 0)
            _, exceptions = _read("no_proxy", environ)
            return None if _is_reached_directly(target.hostname or "", port, exceptions) else _parse(variable, value)
    return None


def _read(name: str, environ: Mapping[str, str]) -> tuple[str, str]:
    """Return the name and value of a variable; the lower case name counts where it is set, if only to nothing."""
    variable = name if name in environ else name.upper()
    return variable, environ.get(variable, "").strip()


def _is_reached_directly(host: str, port: int, exceptions: str) -> bool:
    """Whether NO_PROXY names a host, or the host is where a cloud tells machines about themselves."""
    host = host.lower().rstrip(".")
    address = _address(host)
    if address and any(address in block for block in _METADATA):
        return True
    return any(_names(entry, host, address, port) for entry in re.split(r"[,\s]+", exceptions.lower()) if entry)


def _names(entry: str, host: str, address: IPv4Address | IPv6Address | None, port: int) -> bool:
    """Whether an entry of NO_PROXY is `*`, the host, a domain that it is in, or its address or network."""
    if with_port := _PORT_OF_ENTRY.fullmatch(entry):
        if int(with_port["port"]) != port:
            return False
        entry = with_port["name"]
    if entry == "*":
        return True
    if address:
        try:
            return address in ip_network(entry.replace("[", "").replace("]", ""), strict=False)
        except ValueError:
            return False
    domain = entry.removeprefix("*").strip(".")
    return bool(domain) and (host == domain or host.endswith(f".{domain}"))


def _address(host: str) -> IPv4Address | IPv6Address | None:
    try:
        address = ip_address(host)
    except ValueError:
        return None
    return getattr(address, "ipv4_mapped", None) or address


def _parse(variable: str, value: str) -> Proxy:
    parts = _PROXY.fullmatch(value)
    scheme = (parts["scheme"] or "http").lower() if parts else ""
    if scheme.startswith("socks") or value.lower().startswith("socks"):
        raise BadNetworkSettingError(
            f"{variable} names a socks proxy, which is not supported", f"set {variable} to {_PROXY_FORM}"
        )
    port = int(parts["port"]) if parts and parts["port"] else _PORTS.get(scheme, 0)
    if parts is None or scheme not in _PORTS or not 0 < port < 2**16:
        raise BadNetworkSettingError(
            f"{variable} is no address of a proxy, like {_PROXY_FORM}", f"set {variable} to such a one"
        )
    user, _, password = (unquote(part) for part in (parts["login"] or "").partition(":"))
    if not f"{user}{password}".isascii() or not f"{user}{password}x".isprintable():
        raise BadNetworkSettingError(
            f"{variable} has a user name or password with other characters than those of ASCII",
            "give the proxy a user that has none",
        )
    return Proxy(scheme, parts["host"].lower(), port, user, password)


def own_authorities(environ: Mapping[str, str] = os.environ) -> str:
    """Return the certificates, in PEM, of the authorities that the environment names besides the public ones.

    Raises BadNetworkSettingError, with the variable and the file, where one cannot be read or holds none.
    """
    return _read_authorities(tuple(_authority_files(environ)))


def trust(environ: Mapping[str, str] = os.environ) -> ssl.SSLContext:
    """Return whom to trust: the public authorities (certifi), and the environment's own. Raises as `own_authorities`.

    Everybody gets the same object, since making one takes 10 ms: none may change it.
    """
    return _context(tuple(_authority_files(environ)))


def _authority_files(environ: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    return ((variable, path) for variable in CA_VARIABLES if (path := environ.get(variable, "").strip()))


@lru_cache(maxsize=2)  # errors are not kept, so that a file that appears is found
def _context(files: tuple[tuple[str, str], ...]) -> ssl.SSLContext:
    context = create_urllib3_context()
    context.load_verify_locations(certifi.where())
    if own := _read_authorities(files):
        context.load_verify_locations(cadata=own)
    return context


def _read_authorities(files: tuple[tuple[str, str], ...]) -> str:
    return "\n".join(_read_pem(variable, path) for variable, path in files)


def _read_pem(variable: str, path: str) -> str:
    hint = f"set {variable} to a file of certificates in PEM"
    try:
        content = read_bytes(Path(path).expanduser(), _MAX_CA_BYTES)
    except NotPlainError as error:
        raise BadNetworkSettingError(f"{variable} names {path}: {error}", hint) from None
    found = b"\n".join(_CERTIFICATE.findall(content)).decode()
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found)
    except (ssl.SSLError, ValueError):  # the latter where there is none
        raise BadNetworkSettingError(f"{variable} names {path}: holds no certificates in PEM", hint) from None
    return found
