"""URLs of broker and backend from Celery's many settings for them. Pure."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

from aioretryq.errors import ConfigError

_REDIS = ("redis", "rediss")


def broker_url(values: Mapping[str, Any]) -> str:
    """The one broker a Celery configuration names; ConfigError if it names none, or several."""
    named = [values.get(name) for name in ("broker_url", "broker_read_url", "broker_write_url")]
    urls = {_one_url(name, value) for name, value in zip(_BROKERS, named, strict=True) if value}
    if len(urls) > 1:
        raise ConfigError("broker_read_url and broker_write_url: one broker is used for both; set broker_url alone.")
    url = urls.pop() if urls else values.get("broker_host")
    transport = values.get("broker_transport")
    if not url and not transport:
        raise ConfigError(
            "broker_url is not set, which for Celery is RabbitMQ on this machine. RabbitMQ is not supported yet: "
            "set a Redis URL, or pass url=."
        )
    if "://" not in str(url or ""):
        url = f"{transport or 'amqp'}://{url or ''}"
    part = {name: values.get(f"broker_{name}") for name in ("user", "password", "port", "vhost")}
    return _complete(str(url), part, values.get("broker_use_ssl"), "broker_use_ssl")


_BROKERS = ("broker_url", "broker_read_url", "broker_write_url")


def _one_url(name: str, value: Any) -> str:
    several: list[Any] = list(value) if isinstance(value, list | tuple) else [value]
    if not all(isinstance(url, str) for url in several):
        raise ConfigError(f"{name} must be a text, not a {type(value).__name__}.")
    alternatives = [url for text in several for url in text.split(";") if url]
    if alternatives and alternatives[0].startswith("sentinel"):
        raise ConfigError(f"{name}: Sentinel is not supported yet. Name the address of the master.")
    if len(alternatives) != 1:
        raise ConfigError(
            f"{name} lists {len(alternatives)} brokers: failover is not supported yet. Name one, such as an address "
            "that moves with the master."
        )
    return str(alternatives[0])


def backend_url(values: Mapping[str, Any]) -> str:
    """The result backend; unset means what it means there: no results."""
    url = values.get("result_backend")
    if not url:
        return "disabled"
    if not isinstance(url, str):
        raise ConfigError(f"result_backend must be a text, not a {type(url).__name__}.")
    if ";" in url:
        raise ConfigError("result_backend lists several servers: Sentinel is not supported yet. Name one.")
    part = {name: values.get(f"redis_{name}") for name in ("host", "port", "password")}
    part["user"] = values.get("redis_username")
    if url in _REDIS:  # only then Celery asks for the database
        url, part["vhost"] = f"{url}://", values.get("redis_db")
    return _complete(url, part, values.get("redis_backend_use_ssl"), "redis_backend_use_ssl")


def _complete(url: str, part: Mapping[str, Any], tls: Any, tls_name: str) -> str:
    """The URL, with what it leaves out; URLs of sockets, and of what is not Redis, as they are."""
    scheme, _, rest = url.partition("://")
    if scheme.lower() not in _REDIS or not (tls or any(value is not None for value in part.values())):
        return url
    # Parsed by hand up to the host: a password may hold anything, and must not end up in an error message.
    rest, question, query = rest.partition("?")
    authority, _, path = rest.partition("/")
    login, at, address = authority.rpartition("@")
    if not at and (part.get("user") or part.get("password")):
        login = f"{quote(str(part.get('user') or ''), safe='')}:{quote(str(part.get('password') or ''), safe='')}"
    host, colon, port = address.rpartition(":") if not address.endswith("]") else (address, "", "")
    if not colon:
        host, port = address, str(part.get("port") or "")
    address = (host or str(part.get("host") or "localhost")) + (f":{port}" if port else "")
    if not path and part.get("vhost") is not None:
        path = str(part["vhost"]).strip("/")
    whole = f"{scheme}://{login + '@' if login else ''}{address}/{path}{question}{query}"
    return _with_tls(whole, tls, tls_name) if tls else whole


_TLS_NAMES = (
    "ca_certs",
    "ca_data",
    "ca_path",
    "cert_reqs",
    "certfile",
    "check_hostname",
    "ciphers",
    "keyfile",
    "password",
)


def _with_tls(url: str, tls: Any, name: str) -> str:
    if tls is not True and not isinstance(tls, Mapping):
        raise ConfigError(f"{name} must be a dict or true, not a {type(tls).__name__}.")
    options = {} if tls is True else {f"ssl_{str(key).removeprefix('ssl_')}": value for key, value in tls.items()}
    unknown = sorted(key for key in options if key.removeprefix("ssl_") not in _TLS_NAMES)
    if unknown:
        raise ConfigError(f"{name}: {', '.join(unknown)} cannot be part of a rediss:// URL.")
    parts = urlsplit(url)
    query = {
        **{key: _in_url(value) for key, value in options.items() if value is not None},
        **dict(parse_qsl(parts.query)),
    }
    return urlunsplit(("rediss", parts.netloc, parts.path, urlencode(query), ""))


def _in_url(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        try:
            return ssl.VerifyMode(value).name
        except ValueError:
            return str(value)
    return str(value)
