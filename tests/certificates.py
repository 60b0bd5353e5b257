"""A private authority for the tests, and certificates of loopback that it made."""

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

_VALID = timedelta(days=2)


@dataclass(frozen=True, slots=True)
class Authority:
    """One that nobody trusts who was not told to."""

    file: Path  # its certificate, in PEM
    server: ssl.SSLContext  # for a server on 127.0.0.1, localhost and *.test


def make_authority(folder: Path) -> Authority:
    """Make an authority and a server's certificate, in files of the folder."""
    key, server_key = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "authority of the tests")])
    constraints = x509.BasicConstraints(ca=True, path_length=None)
    usage = x509.KeyUsage(*(flag in {5, 6} for flag in range(9)))  # to sign certificates and lists of revoked ones
    own = _builder(name, name, key.public_key(), key.public_key())
    own = own.add_extension(constraints, critical=True).add_extension(usage, critical=True)
    names = x509.SubjectAlternativeName(
        [x509.IPAddress(ip_address("127.0.0.1")), x509.DNSName("localhost"), x509.DNSName("*.test")]
    )
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "server of the tests")])
    server = _builder(subject, name, server_key.public_key(), key.public_key()).add_extension(names, critical=False)
    file, both = folder / "authority.pem", folder / "server.pem"
    file.write_bytes(own.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    private = server_key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    both.write_bytes(private + server.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return Authority(file, context)


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, issuer_key: ec.EllipticCurvePublicKey
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder(issuer, subject, key, x509.random_serial_number(), now - _VALID, now + _VALID)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key), critical=False)
    )
