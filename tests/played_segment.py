"""What tests do to a played Segment: let time pass, post messages, and enforce OAuth."""

import itertools
import ssl
from datetime import UTC, datetime, timedelta
from functools import cache

import httpx
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from currents_bridge.testing.collector import Collector
from currents_bridge.testing.segment_world import Enforcement

KEY = "k3yOfTheSource0000000000000000ab"
START = datetime(2026, 1, 2, 12, 0, tzinfo=UTC)
CLIENT_ID, KEY_ID = "oauth-app", "key-1"

NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # reading them takes longer than a test

_numbers = itertools.count()


class Clock:
    """A time that only `passes` moves."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> datetime:
        """Return the time."""
        return self.now

    def passes(self, span: timedelta) -> datetime:
        """Let time pass and return the new time."""
        self.now += span
        return self.now


def post(collector: Collector, events: int = 1, *, key: str = KEY, event: str = "Email Clicked") -> int:
    """Post messages of one request and return the status."""
    message = {"type": "track", "userId": "u1", "event": event, "timestamp": "2026-01-02T03:04:05.678Z"}
    batch = [message | {"messageId": f"m{next(_numbers)}", "properties": {}} for _ in range(events)]
    body = {"batch": batch, "sentAt": "2026-01-02T03:04:06.000Z", "writeKey": key}
    return httpx.post(f"{collector.url}/v1/batch", json=body, verify=NO_CERTIFICATES).status_code


@cache
def key_pair() -> tuple[str, str]:
    """Return an RSA key and its public key, in PEM."""
    private = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    pem = private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    public = private.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem.decode(), public.decode()


def enforcement(status: int = 401) -> Enforcement:
    """Return how a source enforces OAuth with the public key of `key_pair`."""
    return Enforcement(CLIENT_ID, KEY_ID, key_pair()[1], status)
