"""Signed content: celery.security on the other side, each way; and nothing else gets through."""

import base64
import binascii
import dataclasses
import shutil
from contextlib import suppress
from pathlib import Path

import pytest
from celery.security.certificate import Certificate, FSCertStore
from celery.security.key import PrivateKey
from celery.security.serialization import SecureSerializer
from cryptography import x509
from hypothesis import given
from hypothesis import strategies as st
from keys import identity, make_key, write_certificate, write_key
from msgspec.structs import replace

from aioretryq.config import Settings
from aioretryq.errors import ConfigError, ContentDisallowed, EncodeError, ProtocolError
from aioretryq.message import TaskMessage
from aioretryq.protocol.content import AUTH, JSON, decode_content, encode_content
from aioretryq.protocol.security import load_security, security_for
from aioretryq.protocol.task import decode_task, encode_task

VALUE = [[1, "é"], {"k": None}, {"chain": None}]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("keys")


@pytest.fixture(scope="module")
def known(folder):
    """Both are there before anybody looks: a store is read once in the life of a process."""
    return {name: identity(folder, name, folder / "store") for name in ("ours", "theirs")}


@pytest.fixture(scope="module")
def ours(known):
    return known["ours"]


@pytest.fixture(scope="module")
def theirs(known):
    return known["theirs"]


@pytest.fixture(scope="module")
def stranger(folder):
    return identity(folder, "stranger", folder / "elsewhere")


def settings_of(given, **more):
    settings = Settings()
    settings.update({**given, **more})
    return settings


def security_of(given, **more):
    found = security_for(settings_of(given, **more))
    assert found is not None
    return found


def celery_of(given, digest="sha256", serializer="json"):
    return SecureSerializer(
        PrivateKey(Path(given["security_key"]).read_text()),
        Certificate(Path(given["security_certificate"]).read_text()),
        FSCertStore(given["security_cert_store"]),
        digest,
        serializer,
    )


@pytest.mark.parametrize("digest", ["sha256", "sha512", "SHA3_256"])
def test_celery_reads_what_we_sign(ours, theirs, digest):
    data, encoding = encode_content(VALUE, AUTH, security_of(ours, security_digest=digest))
    assert encoding == "utf-8"
    assert celery_of(theirs, digest).deserialize(data.decode()) == VALUE


@pytest.mark.parametrize("serializer", ["json", "yaml", "msgpack"])
def test_we_read_what_celery_signs(ours, theirs, serializer):
    data = celery_of(theirs, serializer=serializer).serialize(VALUE)
    assert decode_content(data.encode(), AUTH, "utf-8", ["auth"], security_of(ours)) == VALUE


def test_a_message_and_its_retry_are_signed(ours, theirs):
    sent = encode_task(
        TaskMessage(id="i", task="t", args=[1], content_type=AUTH, security=security_of(ours)), tag="d"
    )
    found = decode_task(sent, accept_content=["auth"], security=security_of(theirs))
    assert found.args == [1]
    again = decode_task(encode_task(found, tag="e"), accept_content=["auth"], security=security_of(ours))
    assert replace(again, security=found.security) == found
    assert "PrivateKey" not in repr(found)


def test_without_keys(ours):
    with pytest.raises(EncodeError, match="set security_key"):
        encode_content(VALUE, AUTH)
    data, _ = encode_content(VALUE, AUTH, security_of(ours))
    with pytest.raises(ProtocolError, match="set security_cert_store"):
        decode_content(data, AUTH, "utf-8", ["auth"])


class TestRefused:
    def test_a_stranger(self, ours, stranger):
        data, _ = encode_content(VALUE, AUTH, security_of(stranger))
        with pytest.raises(ProtocolError, match=r"Tests stranger \d+.*not in security_cert_store"):
            decode_content(data, AUTH, "utf-8", ["auth"], security_of(ours))

    def test_a_stranger_who_uses_a_known_name(self, ours, theirs, stranger):
        _, signature, *rest = parts(encode_content(VALUE, AUTH, security_of(stranger))[0])
        known, *_ = parts(encode_content(VALUE, AUTH, security_of(theirs))[0])
        with pytest.raises(ProtocolError, match=r"signature.*wrong"):
            decode_content(joined([known, signature, *rest]), AUTH, "utf-8", ["auth"], security_of(ours))

    @pytest.mark.parametrize("number", range(5))
    def test_whatever_was_altered(self, ours, number):
        """Content type and encoding are not signed, in Celery neither: a lie about them must do no harm."""
        found = parts(encode_content(VALUE, AUTH, security_of(ours))[0])
        found[number] = found[number][:-4] + base64.b64encode(b"xyz")
        with pytest.raises(ProtocolError):
            decode_content(joined(found), AUTH, "utf-8", ["auth"], security_of(ours))

    def test_another_digest(self, ours):
        data, _ = encode_content(VALUE, AUTH, security_of(ours, security_digest="sha512"))
        with pytest.raises(ProtocolError, match="security_digest"):
            decode_content(data, AUTH, "utf-8", ["auth"], security_of(ours))

    def test_a_signed_pickle(self, ours, theirs):
        data = celery_of(theirs, serializer="pickle").serialize(VALUE).encode()
        with pytest.raises(ContentDisallowed, match="pickle"):
            decode_content(data, AUTH, "utf-8", ["auth"], security_of(ours))
        assert decode_content(data, AUTH, "utf-8", ["auth", "pickle"], security_of(ours)) == VALUE

    def test_signed_content_in_signed_content(self, ours):
        security = security_of(ours)
        data = security.sign(encode_content(VALUE, AUTH, security)[0], AUTH, "utf-8")
        with pytest.raises(ProtocolError, match="in a signed body"):
            decode_content(data, AUTH, "utf-8", ["auth"], security)

    def test_content_of_a_type_that_nobody_knows(self, ours):
        security = security_of(ours)
        with pytest.raises(ProtocolError):
            decode_content(security.sign(b"<a/>", "application/xml", "utf-8"), AUTH, "utf-8", ["auth"], security)

    def test_a_certificate_that_has_expired_since(self, ours, folder):
        key = make_key()
        certificate = x509.load_pem_x509_certificate(
            Path(write_certificate(folder / "expired.pem", key, "expired", days=-1)).read_bytes()
        )
        name = f"Tests expired {certificate.serial_number}"
        security = dataclasses.replace(security_of(ours), signer=name, _key=key, _certificates={name: certificate})
        data, _ = encode_content(VALUE, AUTH, security)
        with pytest.raises(ProtocolError, match="has expired"):
            decode_content(data, AUTH, "utf-8", ["auth"], security)

    @given(data=st.binary() | st.binary().map(base64.b64encode) | st.lists(st.binary(), min_size=5, max_size=5))
    def test_any_bytes(self, ours, data):
        with suppress(ProtocolError):
            raw = data if isinstance(data, bytes) else joined(data)
            decode_content(raw, AUTH, "utf-8", ["auth"], security_of(ours))


def parts(data: bytes) -> list[bytes]:
    return binascii.a2b_base64(data).split(b"\x00\x01", 4)


def joined(found: list[bytes]) -> bytes:
    return base64.b64encode(b"\x00\x01".join(found))


class TestSettings:
    def test_nothing_set_is_nothing(self):
        assert security_for(Settings()) is None

    @pytest.mark.parametrize("missing", ["security_key", "security_certificate", "security_cert_store"])
    def test_all_or_none(self, ours, missing):
        with pytest.raises(ConfigError, match=f"{missing} is not set"):
            security_of({**ours, missing: None})

    def test_files_are_read_once(self, ours):
        assert security_of(ours) is security_of(ours)

    def test_a_password(self, folder, ours):
        key = make_key()
        given = {
            "security_key": write_key(folder / "locked.key", key, b"secret"),
            "security_certificate": write_certificate(folder / "locked.pem", key, "locked"),
            "security_cert_store": ours["security_cert_store"],
        }
        assert security_of(given, security_key_password="secret").signer.startswith("Tests locked ")
        for wrong in (None, "wrong"):
            with pytest.raises(ConfigError, match="security_key_password"):
                security_of(given, security_key_password=wrong)

    @pytest.mark.parametrize(
        ("change", "says"),
        [
            ({"security_key": "/nowhere.key"}, "cannot read '/nowhere.key'"),
            ({"security_certificate": "/nowhere.pem"}, "security_certificate: cannot read"),
            ({"security_cert_store": "/nowhere"}, "has no certificates"),
            ({"security_digest": "sha"}, "name of a hash, like sha256, not 'sha'"),
            ({"security_digest": "HashAlgorithm"}, "security_digest"),
            ({"security_digest": "shake128"}, "security_digest"),
        ],
    )
    def test_what_is_wrong_is_named(self, ours, change, says):
        with pytest.raises(ConfigError, match=says):
            security_of({**ours, **change})

    def test_files_of_the_wrong_kind(self, folder, ours, theirs):
        swapped = {"security_key": ours["security_certificate"]}
        with pytest.raises(ConfigError, match="cannot be read as a private key"):
            security_of({**ours, **swapped})
        with pytest.raises(ConfigError, match="not a certificate in PEM form"):
            security_of({**ours, "security_certificate": ours["security_key"]})
        with pytest.raises(ConfigError, match="does not fit"):
            security_of({**ours, "security_certificate": theirs["security_certificate"]})
        elliptic = make_key(elliptic=True)
        with pytest.raises(ConfigError, match="not an RSA key"):
            security_of({**ours, "security_key": write_key(folder / "ec.key", elliptic)})
        with pytest.raises(ConfigError, match="not of an RSA key"):
            security_of({**ours, "security_certificate": write_certificate(folder / "ec.pem", elliptic, "ec")})

    def test_a_store_with_an_expired_certificate(self, folder, ours, tmp_path):
        shutil.copytree(ours["security_cert_store"], tmp_path, dirs_exist_ok=True)
        write_certificate(tmp_path / "old.pem", make_key(), "old", days=-1)
        with pytest.raises(ConfigError, match=r"old\.pem' has expired"):
            security_of({**ours, "security_cert_store": str(tmp_path)})
        assert security_of({**ours, "security_cert_store": f"{tmp_path}/o*s.pem"})

    def test_loading_by_hand(self, ours):
        security = load_security(*ours.values(), None, "sha256")
        assert security.verify(security.sign(b"x", JSON, "utf-8")).body == b"x"
