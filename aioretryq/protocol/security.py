"""Signed content, as celery.security writes and reads it: X.509 certificates with RSA keys.

The wire form is base64 of five parts: the signer (the issuer's names and the serial number of its certificate) and
the signature, both in base64, then content type, content encoding and the bytes that were signed.
"""

from __future__ import annotations

import binascii
import glob
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.errors import ConfigError, ProtocolError
from aioretryq.protocol.packages import package

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aioretryq.config import Settings

_SEPARATOR = b"\x00\x01"
_PARTS = 5
_NOTHING = (None, None, None)
SETTINGS = ("security_key", "security_certificate", "security_cert_store")
"""All of them, or none: what the serializer `auth` needs."""


class Signed(Struct, frozen=True):
    """Content whose signature was right."""

    body: bytes
    content_type: str
    content_encoding: str
    signer: str


@dataclass(frozen=True, slots=True, eq=False, repr=False)  # nobody sees the key
class Security:
    """Signs as one, and trusts those whose certificates are in a store."""

    signer: str
    _key: Any
    _certificates: Mapping[str, Any]
    _digest: Any
    _padding: Any

    def sign(self, body: bytes, content_type: str, content_encoding: str) -> bytes:
        signature = self._key.sign(body, self._padding, self._digest)
        names = (_base64(self.signer.encode()), _base64(signature), content_type.encode(), content_encoding.encode())
        return _base64(_SEPARATOR.join((*names, body)))

    def verify(self, data: bytes) -> Signed:
        """Raises ProtocolError unless a certificate of the store that has not expired says that it is genuine."""
        signer, signature, content_type, encoding, body = _unpack(data)
        name = signer.decode("utf-8", "replace")
        certificate = self._certificates.get(name)
        if certificate is None:
            raise ProtocolError(
                f"Signed by {name[:200]!r}, who is not in security_cert_store: put it there to trust it."
            )
        if _has_expired(certificate):
            raise ProtocolError(f"Signed by {name!r}, whose certificate has expired; have the sender renew it.")
        try:
            certificate.public_key().verify(signature, body, self._padding, self._digest)
        except (import_module("cryptography.exceptions").InvalidSignature, ValueError) as error:
            raise ProtocolError(
                f"The signature of {name!r} is wrong: the content was altered, or security_digest differs."
            ) from error
        return Signed(body, content_type.decode("ascii", "replace"), encoding.decode("ascii", "replace"), name)


def signed_body(data: bytes) -> bytes | None:
    """What is inside of signed content, whoever signed it; None if this is none."""
    try:
        return _unpack(data)[4]
    except ProtocolError:
        return None


def _unpack(data: bytes) -> tuple[bytes, bytes, bytes, bytes, bytes]:
    try:
        parts = binascii.a2b_base64(data).split(_SEPARATOR, _PARTS - 1)
        signer, signature, content_type, encoding, body = parts
        return binascii.a2b_base64(signer), binascii.a2b_base64(signature), content_type, encoding, body
    except ValueError as error:
        raise ProtocolError(f"Not signed content: {error}. It begins with {data[:80]!r}.") from error


def _base64(data: bytes) -> bytes:
    return binascii.b2a_base64(data, newline=False)


def security_for(settings: Settings) -> Security | None:
    """What the settings say; None if they say nothing of it. Raises ConfigError.

    The files are read once in the life of a process.
    """
    paths = (settings.security_key, settings.security_certificate, settings.security_cert_store)
    if paths == _NOTHING:  # nearly all
        return None
    for name, path in zip(SETTINGS, paths, strict=True):
        if not path:
            raise ConfigError(f"The serializer auth needs {', '.join(SETTINGS)}: {name} is not set.")
    return load_security(*paths, settings.security_key_password, settings.security_digest)


@lru_cache(maxsize=16)
def load_security(key: str, certificate: str, store: str, password: str | None, digest: str) -> Security:
    """From PEM files; `store` is a folder or a glob of certificates. Raises ConfigError for whatever is wrong."""
    package("auth")
    hashes = import_module("cryptography.hazmat.primitives.hashes")
    algorithm = getattr(hashes, digest.upper(), None)
    if not (isinstance(algorithm, type) and issubclass(algorithm, hashes.HashAlgorithm)):
        raise ConfigError(f"security_digest is the name of a hash, like sha256, not {digest!r}.")
    try:
        padding = import_module("cryptography.hazmat.primitives.asymmetric.padding")
        chosen = algorithm()
        pss = padding.PSS(mgf=padding.MGF1(chosen), salt_length=padding.PSS.MAX_LENGTH)
    except TypeError as error:
        raise ConfigError(f"security_digest {digest!r} cannot be used for signatures: {error}") from error
    trusted = [_certificate(path, "security_cert_store") for path in _files(store)]
    own, private = _certificate(certificate, "security_certificate"), _private_key(key, password)
    try:
        own.public_key().verify(private.sign(b"", pss, chosen), b"", pss, chosen)
    except (import_module("cryptography.exceptions").InvalidSignature, ValueError) as error:
        raise ConfigError(
            f"security_key {key!r} does not fit security_certificate {certificate!r}, or is too small for "
            f"security_digest {digest!r}. {error}".rstrip()
        ) from error
    return Security(_name(own), private, {_name(each): each for each in trusted}, chosen, pss)


def _files(store: str) -> list[str]:
    found = sorted(glob.glob(os.path.join(store, "*") if os.path.isdir(store) else store))
    if not found:
        raise ConfigError(
            f"security_cert_store {store!r} has no certificates; name a folder of PEM files, or a glob."
        )
    return found


def _certificate(path: str, setting: str) -> Any:
    x509 = package("auth")
    try:
        certificate = x509.load_pem_x509_certificate(_read(path, setting))
    except ValueError as error:
        raise ConfigError(f"{setting}: {path!r} is not a certificate in PEM form: {error}") from error
    if not isinstance(certificate.public_key(), _rsa().RSAPublicKey):
        raise ConfigError(f"{setting}: the certificate {path!r} is not of an RSA key; others cannot sign here.")
    if _has_expired(certificate):
        raise ConfigError(f"{setting}: the certificate {path!r} has expired; renew or remove it.")
    return certificate


def _private_key(path: str, password: str | None) -> Any:
    serialization = import_module("cryptography.hazmat.primitives.serialization")
    secret = None if password is None else password.encode()
    try:
        key = serialization.load_pem_private_key(_read(path, "security_key"), secret)
    except (ValueError, TypeError) as error:  # TypeError is about a password that is missing, or too much
        raise ConfigError(
            f"security_key: {path!r} cannot be read as a private key in PEM form (security_key_password?): {error}"
        ) from error
    if not isinstance(key, _rsa().RSAPrivateKey):
        raise ConfigError(f"security_key: {path!r} is not an RSA key; others cannot sign here.")
    return key


def _read(path: str, setting: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{setting}: cannot read {path!r}: {error.strerror}") from error


def _rsa() -> Any:
    return import_module("cryptography.hazmat.primitives.asymmetric.rsa")


def _has_expired(certificate: Any) -> bool:
    return bool(datetime.now(UTC) >= certificate.not_valid_after_utc)


def _name(certificate: Any) -> str:
    issuer = " ".join(str(attribute.value) for attribute in certificate.issuer)
    return f"{issuer} {certificate.serial_number}"
