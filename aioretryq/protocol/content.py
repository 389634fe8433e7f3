"""Serializers of message bodies and results, by name and content type, and which of them are accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.errors import ConfigError, ContentDisallowed, EncodeError, ProtocolError, did_you_mean
from aioretryq.protocol import jsontypes, serializers
from aioretryq.protocol.packages import PACKAGES, MissingPackage, is_installed, package

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from aioretryq.protocol.security import Security

JSON, PICKLE = "application/json", "application/x-python-serialize"
YAML, MSGPACK = "application/x-yaml", "application/x-msgpack"
AUTH = "application/data"


class _Serializer(Struct, frozen=True):
    name: str
    encoding: str
    dumps: Callable[[Any], bytes]
    loads: Callable[[bytes], Any]


_SERIALIZERS = {
    JSON: _Serializer("json", "utf-8", jsontypes.dumps, jsontypes.loads),
    MSGPACK: _Serializer("msgpack", "binary", serializers.msgpack_dumps, serializers.msgpack_loads),
    PICKLE: _Serializer("pickle", "binary", serializers.pickle_dumps, serializers.pickle_loads),
    YAML: _Serializer("yaml", "utf-8", serializers.yaml_dumps, serializers.yaml_loads),
}
CONTENT_TYPES: dict[str, str] = {"auth": AUTH, **{found.name: mime for mime, found in _SERIALIZERS.items()}}
"""Content types by the name of the serializer that settings use."""

_NAMES = {mime: name for name, mime in CONTENT_TYPES.items()}
_DATA_ONLY = ("json", "msgpack", "yaml")
_UTF8 = frozenset({"utf-8", "utf8", "us-ascii", "ascii", "binary", ""})
_OTHER_ENCODINGS = frozenset({"latin-1", "latin1", "iso-8859-1", "utf-16", "utf-32"})


def content_type_of(name: str) -> str:
    """The content type of a serializer given by its name or content type.

    ConfigError, with what is installed, for one that is unknown or lacks its package.
    """
    known = name if name in _NAMES else CONTENT_TYPES.get(name)
    if known is None:
        raise ConfigError(f"There is no serializer {name!r}.{did_you_mean(name, CONTENT_TYPES)} {_installed()}")
    if _NAMES[known] in PACKAGES:
        try:
            package(_NAMES[known])
        except MissingPackage as error:
            raise ConfigError(f"The serializer {error} {_installed()}") from error
    return known


def _installed() -> str:
    return f"Installed are: {', '.join(sorted(filter(is_installed, CONTENT_TYPES)))}."


def encode_content(value: Any, content_type: str, security: Security | None = None) -> tuple[bytes, str]:
    """The bytes and their content encoding; `security` signs where the type is that of `auth`. Raises EncodeError."""
    if content_type == JSON:  # nearly all
        return jsontypes.dumps(value), "utf-8"
    if content_type == AUTH:
        if security is None:
            raise EncodeError(
                "The serializer auth signs: set security_key, security_certificate and security_cert_store."
            )
        body, encoding = encode_content(value, JSON)
        return security.sign(body, JSON, encoding), "utf-8"
    serializer = _SERIALIZERS.get(content_type)
    if serializer is None:
        raise EncodeError(
            f"There is no serializer for {content_type!r}; use one of {', '.join(sorted(CONTENT_TYPES))} "
            "(`task_serializer`)."
        )
    try:
        return serializer.dumps(value), serializer.encoding
    except MissingPackage as error:
        raise EncodeError(f"The serializer {error}") from error


def decode_content(
    data: bytes,
    content_type: str,
    encoding: str,
    accept_content: Collection[str],
    security: Security | None = None,
) -> Any:
    """The value of a body. Raises ContentDisallowed for what is not accepted, else ProtocolError.

    `accept_content` has short names (`json`) or content types (`application/json`). What `auth` has signed is read if
    `security` knows the signer; a pickle in it only where pickle is accepted, too.
    """
    if content_type == JSON and encoding in _UTF8 and "json" in accept_content:  # nearly all
        return jsontypes.loads(data)
    name = _NAMES.get(content_type)
    if name is None:
        raise ProtocolError(
            f"A body of type {content_type[:80]!r} cannot be read; have the sender use task_serializer='json'."
        )
    check_accepted(name, accept_content)
    try:
        if name != "auth":
            return _decode(data, content_type, encoding)
        if security is None:
            raise ProtocolError("A signed body cannot be verified here: set security_cert_store.")
        signed = security.verify(data)
    except MissingPackage as error:
        raise ProtocolError(f"A body cannot be read: {error}") from error
    inner = _NAMES.get(signed.content_type, "?")
    if inner == "auth":
        raise ProtocolError("A signed body is in a signed body.")
    allowed = (*_DATA_ONLY, *accept_content)
    return decode_content(signed.body, signed.content_type, signed.content_encoding, allowed)


def check_accepted(name: str, accept_content: Collection[str], setting: str = "accept_content") -> None:
    """Raises ContentDisallowed unless the serializer of that name is accepted."""
    if name in accept_content or CONTENT_TYPES[name] in accept_content:
        return
    raise ContentDisallowed(
        f"Refused a body serialised with {name}: the setting {setting} allows only "
        f"{', '.join(sorted(accept_content)) or 'nothing'}. Have the sender use another serializer, or add "
        f"{name!r} to {setting}{' if you trust everyone who can write to the broker' * (name == 'pickle')}."
    )


def _decode(data: bytes, content_type: str, encoding: str) -> Any:
    if content_type == JSON:
        return jsontypes.loads(_decoded(data, encoding.lower()))
    return _SERIALIZERS[content_type].loads(data)


def _decoded(data: bytes, encoding: str) -> bytes | str:
    if encoding in _UTF8:
        return data
    if encoding not in _OTHER_ENCODINGS:
        raise ProtocolError(f"Unknown content-encoding {encoding[:80]!r}; have the sender use utf-8.")
    try:
        return data.decode(encoding)
    except ValueError as error:
        raise ProtocolError(f"The body is not {encoding}: {error}") from error
