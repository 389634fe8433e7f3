"""Keys and certificates for tests of signed messages."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING, Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

if TYPE_CHECKING:
    from pathlib import Path

PEM = serialization.Encoding.PEM


def make_key(elliptic: bool = False) -> Any:
    return ec.generate_private_key(ec.SECP256R1()) if elliptic else rsa.generate_private_key(65537, 2048)


def write_key(path: Path, key: Any, password: bytes | None = None) -> str:
    hidden = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    path.write_bytes(key.private_bytes(PEM, serialization.PrivateFormat.PKCS8, hidden))
    return str(path)


def write_certificate(path: Path, key: Any, name: str, days: float = 30) -> str:
    """Signed by itself, and valid for that many days from now."""
    issuer = x509.Name(
        [
            x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, "Tests"),
            x509.NameAttribute(x509.NameOID.COMMON_NAME, name),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    builder = x509.CertificateBuilder(issuer, issuer, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - datetime.timedelta(days=60))
    builder = builder.not_valid_after(now + datetime.timedelta(days=days))
    path.write_bytes(builder.sign(key, hashes.SHA256()).public_bytes(PEM))
    return str(path)


def identity(folder: Path, name: str, store: Path) -> dict[str, str]:
    """Settings of one who signs, and is trusted by all who share the store."""
    key = make_key()
    store.mkdir(exist_ok=True)
    return {
        "security_key": write_key(folder / f"{name}.key", key),
        "security_certificate": write_certificate(store / f"{name}.pem", key, name),
        "security_cert_store": str(store),
    }
