"""Redis for the adapters: reading URLs, one client per role, and the driver's errors in our words."""

from __future__ import annotations

import contextlib
import errno
import os
import re
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlsplit

from msgspec import Struct
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import (
    AuthenticationError,
    AuthorizationError,
    BusyLoadingError,
    ClusterDownError,
    DataError,
    InvalidResponse,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from aioretryq.drivers.redis_connection import (
    NOT_SENT,
    AnyConnection,
    BrokenStream,
    SocketConnection,
    TCPConnection,
    TLSConnection,
    unwritable,
)
from aioretryq.errors import AioretryqError, ConfigError, UnavailableError, did_you_mean
from aioretryq.setting_values import without_password

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aioretryq.config import Settings

OLDEST_SERVER = (6, 2)
"""ZADD with GT, which tells whether a server is full, came with Redis 6.2."""

_VERSION = re.compile(rb"^redis_version:(\d+)\.(\d+)", re.MULTILINE)

DRIVER_ERRORS = (RedisError, OSError)

_SCHEMES: dict[str, type[AnyConnection]] = {
    "redis": TCPConnection,
    "rediss": TLSConnection,
    "unix": SocketConnection,
}
_ALIASES = {"redis+socket": "unix"}
_FORM = "redis://[user:password@]host[:port][/database], rediss://... or unix:///path/to/socket[?db=0]"

_TLS_OPTIONS = frozenset(
    "ssl_ca_certs ssl_ca_data ssl_ca_path ssl_cert_reqs ssl_certfile ssl_check_hostname ssl_ciphers"
    " ssl_keyfile ssl_password".split()
)
_OPTIONS = frozenset({"db", "virtual_host", "username", "password"}) | _TLS_OPTIONS
_CERT_REQS = {
    **{name: name for name in ("none", "optional", "required")},
    **{f"CERT_{name.upper()}": name for name in ("none", "optional", "required")},  # Celery's spelling
}
_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"
_FULL = "max number of clients reached"
_NO_RIGHT = ("NOPERM", "no permissions", "user executing the script can't")
_NO_FILES = os.strerror(errno.EMFILE)
_BOOLEANS = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}

_PASSING_CLASSES = (
    *(RedisConnectionError, RedisTimeoutError, OSError),
    *(ClusterDownError, OutOfMemoryError, ReadOnlyError, TryAgainError),
)
# redis-py has no class for some states that pass, and Redis 6.2 wraps the errors of a script's commands in
# "ERR Error running script".
_PASSING_CODES = re.compile(
    r"\b(BUSY|CLUSTERDOWN|LOADING|MASTERDOWN|MISCONF|NOREPLICAS|OOM|READONLY|TRYAGAIN|UNBLOCKED)\b"
)


class Address(Struct, frozen=True):
    """What a Redis URL says: how to connect, and how to show it without the password."""

    connection_class: type[AnyConnection]
    options: dict[str, Any]
    display_url: str

    def __repr__(self) -> str:
        return f"<Address {self.display_url}>"


def parse_url(url: str) -> Address:
    """Read a Redis URL in redis-py's, Celery's or kombu's spelling; ConfigError says what is wrong with it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Its text may quote a password: one with an unescaped "/" is read as the port.
        _refuse(url, "the port must be a number; special characters of a password must be %-encoded")
    scheme = _ALIASES.get(parts.scheme, parts.scheme)
    if scheme not in _SCHEMES:
        _refuse(url, f"{parts.scheme or 'no scheme'} is not one of {', '.join([*_SCHEMES, *_ALIASES])}")
    query = _read_query(url, scheme, parts.query)
    options: dict[str, Any] = {name: value for name, value in query.items() if name in _TLS_OPTIONS}
    options["db"] = _database(url, scheme, parts, query)
    for name, given in (("username", parts.username), ("password", parts.password)):
        options[name] = unquote(given) if given else query.get(name)
    if scheme == "unix":
        options["path"] = unquote(parts.path)
        where, database = quote(options["path"]), f"?db={options['db']}" if options["db"] else ""
    else:
        options["host"], options["port"] = unquote(parts.hostname or "localhost"), port or 6379
        host = f"[{options['host']}]" if ":" in options["host"] else options["host"]
        where, database = f"{host}:{options['port']}", f"/{options['db']}"
    user = f"{quote(options['username'] or '')}:***@" if options["password"] else ""
    return Address(_SCHEMES[scheme], options, f"{scheme}://{user}{where}{database}")


def _read_query(url: str, scheme: str, text: str) -> dict[str, Any]:
    query: dict[str, Any] = dict(parse_qsl(text, keep_blank_values=True))
    for name in query:
        if name not in _OPTIONS:
            hint = did_you_mean(name, _OPTIONS) or " Timeouts and pool sizes are settings (`aioretryq settings`)."
            _refuse(url, f"it has no option {name!r}.{hint}", form=False)
        if name in _TLS_OPTIONS and scheme != "rediss":
            _refuse(url, f"{name} needs rediss://")
    for name in _FILES:
        if name in query and not os.path.isfile(query[name]):
            _refuse(url, f"{name} is no file: {query[name]!r}.", form=False)
    for name, words in (("ssl_cert_reqs", _CERT_REQS), ("ssl_check_hostname", _BOOLEANS)):
        if name in query:
            if query[name] not in words:
                _refuse(url, f"{name} must be one of {', '.join(words)}, not {query[name]!r}.", form=False)
            query[name] = words[query[name]]
    return query


def _database(url: str, scheme: str, parts: SplitResult, query: dict[str, Any]) -> int:
    path = "" if scheme == "unix" else unquote(parts.path).strip("/")
    text = query.get("db") or query.get("virtual_host", "").strip("/") or path or "0"
    if not (text.isascii() and text.isdigit()):
        _refuse(url, f"the database must be a number, not {text!r}")
    return int(text)


def _refuse(url: str, why: str, *, form: bool = True) -> NoReturn:
    raise ConfigError(f"Redis URL {without_password(url)!r}: {why}{f'. Expected {_FORM}.' if form else ''}")


class RedisServer:
    """One Redis database, as one adapter sees it: makes its clients and translates their errors.

    `unavailable` and `refused` are the adapter's own exception classes.
    """

    def __init__(
        self, url: str, settings: Settings, unavailable: type[UnavailableError], refused: type[AioretryqError]
    ) -> None:
        address = parse_url(url)
        self.display_url = address.display_url
        self.database: int = address.options["db"]
        self._connection_class = address.connection_class
        self._options = {
            **address.options,
            # Pinned: redis-py 8 negotiates RESP3 by default, whose replies have other shapes.
            "protocol": 2,
            # redis-py repeats any command, also an LPUSH, when the reply is lost. Here only callers repeat.
            "retry": Retry(NoBackoff(), 0),
            "socket_connect_timeout": settings.broker_connection_timeout,
        }
        if address.connection_class is not SocketConnection:
            self._options["socket_keepalive"] = True
        self.answer_within = settings.answer_within
        self._connections = max(1, settings.redis_max_connections - 1)  # one of them is the adapter's line
        self._unavailable = unavailable
        self._refused = refused

    def client(self, role: str) -> Redis:
        """A client of redis-py with a pool of its own, for what is rare."""
        pool = BlockingConnectionPool(
            max_connections=self._connections,
            timeout=self.answer_within,
            connection_class=self._connection_class,
            socket_timeout=self.answer_within,
            client_name=f"aioretryq:{role}",
            **self._options,
        )
        return Redis.from_pool(pool)

    def connection(self, role: str, answer_within: float | None = None) -> AnyConnection:
        """A single connection, not yet connected; without a deadline it reads for as long as it takes."""
        return self._connection_class(socket_timeout=answer_within, client_name=f"aioretryq:{role}", **self._options)

    def misfit(self, error: RedisError | OSError) -> AioretryqError:
        """An error of the first command: ConfigError if the address, login or database is wrong for us."""
        return self.translate(error) if is_passing(error) else ConfigError(self._explain(error))

    def check_version(self, info: bytes) -> None:
        """What the server says of itself; ConfigError if it is too old."""
        if (found := _VERSION.search(info)) and tuple(map(int, found.groups())) < OLDEST_SERVER:
            version = b".".join(found.groups()).decode()
            raise ConfigError(f"Redis at {self.display_url} is version {version}; aioretryq needs 6.2 or newer.")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Nothing of the driver leaves this context but as a `__cause__`."""
        try:
            yield
        except DRIVER_ERRORS as error:
            raise self.translate(error) from error
        except UnicodeEncodeError as error:
            raise self.translate(unwritable(error)) from error

    def translate(self, error: RedisError | OSError) -> AioretryqError:
        if not is_passing(error):
            return self._refused(self._explain(error))
        failure = self._unavailable(self._explain(error))
        failure.maybe_done = not (_is_answer(error) or NOT_SENT in getattr(error, "__notes__", ()))
        return failure

    def _explain(self, error: RedisError | OSError) -> str:
        reason = str(error).rstrip(". ") or "no reply in time"
        at = f"Redis at {self.display_url}"
        if isinstance(error, AuthenticationError | AuthorizationError):
            return f"{at} refused the login: {reason}. Check the user and the password in the URL."
        if _UNTRUSTED in reason:
            return (
                f"{at} shows a certificate that is not trusted: {reason}. Name its CA: ?ssl_ca_certs=/path/to/ca.pem."
            )
        if isinstance(error, InvalidResponse):
            return (
                f"{at} does not speak the Redis protocol ({reason}). Check host and port, and redis:// or rediss://."
            )
        if _is_out_of_files(error):
            return f"No file descriptor is left to connect to {at}: {reason}. Raise the limit: `ulimit -n`."
        if _is_answer(error) and is_passing(error):
            return f"{at} cannot do this at the moment: {reason}."
        if isinstance(error, RedisTimeoutError | TimeoutError):
            return f"{at} does not answer: {reason}. Is it overloaded, or is something else listening there?"
        if isinstance(error, BrokenStream):
            return f"What {at} says cannot be read ({reason}). Is there something between that alters it?"
        if isinstance(error, RedisConnectionError | OSError):
            return f"Cannot reach {at}: {reason}. Is the server running, and are host and port right?"
        return self._explain_refusal(error, at, reason)

    def _explain_refusal(self, error: RedisError | OSError, at: str, reason: str) -> str:
        if isinstance(error, DataError):
            return f"Nothing was sent to {at}: {reason}. Correct the name or value."
        if "DB index" in reason:
            return f"{at} has no such database: {reason}. Check the number at the end of the URL."
        if any(sign in reason for sign in _NO_RIGHT):
            return f"{at} does not let this user do that: {reason}. Extend the user's ACL."
        return f"{at} refused a command: {reason}."


def is_passing(error: RedisError | OSError) -> bool:
    # All come as a ConnectionError, but waiting does not mend them.
    if isinstance(error, AuthenticationError | AuthorizationError) or _UNTRUSTED in str(error):
        return False
    if _is_out_of_files(error):
        return False
    return isinstance(error, _PASSING_CLASSES) or (
        isinstance(error, ResponseError) and _PASSING_CODES.search(str(error)) is not None
    )


def _is_answer(error: RedisError | OSError) -> bool:
    """Whether the server said so itself: then it has not done what it was asked for."""
    return isinstance(error, ResponseError | BusyLoadingError) or _FULL in str(error)


def _is_out_of_files(error: BaseException | None) -> bool:
    while error is not None:
        if isinstance(error, OSError) and (error.errno == errno.EMFILE or _NO_FILES in str(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def flags(reply: bytes) -> list[bool]:
    """What the scripts answer for a batch: a text of ones and zeros, far quicker to read than a list."""
    return [flag == ord("1") for flag in reply]


async def close(client: Redis) -> None:
    # Closing a connection that is broken already may say so once more; there is nothing left to do about it.
    with contextlib.suppress(*DRIVER_ERRORS):
        await client.aclose()
