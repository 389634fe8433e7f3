"""Redis URLs, and what a user is told when the server behind one is not what it should be."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import subprocess

import pytest
from redis.asyncio.connection import Connection, SSLConnection, UnixDomainSocketConnection

from aioretryq.brokers.redis import RedisBroker
from aioretryq.config import Settings
from aioretryq.drivers.redis import parse_url
from aioretryq.errors import BrokerUnavailable, ConfigError
from redis_server import RedisServer, free_port


@pytest.mark.parametrize(
    ("url", "options", "display_url"),
    [
        ("redis://", {"host": "localhost", "port": 6379, "db": 0}, "redis://localhost:6379/0"),
        ("redis://h:7/3", {"host": "h", "port": 7, "db": 3}, "redis://h:7/3"),
        ("redis://h/?db=4", {"host": "h", "db": 4}, "redis://h:6379/4"),
        ("redis://h?virtual_host=/4", {"db": 4}, "redis://h:6379/4"),
        ("redis://[::1]:7/", {"host": "::1", "port": 7}, "redis://[::1]:7/0"),
        ("redis://:p%40ss%2F@h", {"username": None, "password": "p@ss/"}, "redis://:***@h:6379/0"),
        ("redis://me:secret@h", {"username": "me", "password": "secret"}, "redis://me:***@h:6379/0"),
        (
            "redis://h?username=me&password=secret",
            {"username": "me", "password": "secret"},
            "redis://me:***@h:6379/0",
        ),
        ("unix:///run/redis.sock?db=2", {"path": "/run/redis.sock", "db": 2}, "unix:///run/redis.sock?db=2"),
        ("redis+socket:///r.sock?virtual_host=2", {"path": "/r.sock", "db": 2}, "unix:///r.sock?db=2"),
        ("unix://:secret@/r.sock", {"path": "/r.sock", "password": "secret"}, "unix://:***@/r.sock"),
        ("rediss://h?ssl_cert_reqs=CERT_NONE", {"ssl_cert_reqs": "none"}, "rediss://h:6379/0"),
        ("rediss://h?ssl_cert_reqs=CERT_REQUIRED", {"ssl_cert_reqs": "required"}, "rediss://h:6379/0"),
        ("rediss://h?ssl_cert_reqs=optional", {"ssl_cert_reqs": "optional"}, "rediss://h:6379/0"),
        (
            f"rediss://h?ssl_ca_certs={__file__}&ssl_check_hostname=no",
            {"ssl_check_hostname": False},
            "rediss://h:6379/0",
        ),
    ],
)
def test_urls(url, options, display_url):
    address = parse_url(url)
    assert {name: address.options.get(name) for name in options} == options
    assert address.display_url == display_url
    kinds = {"redis": Connection, "rediss": SSLConnection, "unix": UnixDomainSocketConnection}
    assert issubclass(address.connection_class, kinds[display_url.partition(":")[0]])


def test_nobody_sees_a_password():
    assert repr(parse_url("redis://user:secret@host")) == "<Address redis://user:***@host:6379/0>"


@pytest.mark.parametrize(
    ("url", "complaint"),
    [
        ("redis://h:port/0", "the port must be a number"),
        ("redis://h:99999", "the port must be a number"),
        ("redis://:secret/x@h/0", "%-encoded"),
        ("redis://:secret@[h/0", "Expected redis://"),
        ("redis://h/secretdb", "database must be a number"),
        ("redis://h?db=-1", "database must be a number"),
        ("redis://h?socket_timeout=3", "Timeouts and pool sizes are settings"),
        ("rediss://h?ssl_cert_req=none", "Did you mean 'ssl_cert_reqs'"),
        ("redis://h?ssl_cert_reqs=none", "needs rediss://"),
        ("rediss://h?ssl_cert_reqs=maybe", "must be one of"),
        ("rediss://h?ssl_ca_certs=/no/such/file", "ssl_ca_certs is no file"),
        ("amqp://:secret@h", "amqp is not one of redis"),
        ("localhost", "no scheme is not one of"),
    ],
)
def test_urls_that_are_wrong(url, complaint):
    with pytest.raises(ConfigError, match="Redis URL") as caught:
        parse_url(url)
    assert complaint in str(caught.value)
    if "@" in url:
        assert "secret" not in str(caught.value)


async def try_to_open(url: str, **settings: object) -> str:
    conf = Settings()
    conf.update({"broker_connection_timeout": 5.0, **settings})
    with pytest.raises((ConfigError, BrokerUnavailable)) as caught:
        await RedisBroker.from_url(url, conf).__aenter__()
    assert caught.value.__cause__ is not None or "version" in str(caught.value)
    return f"{type(caught.value).__name__}: {caught.value}"


@contextlib.asynccontextmanager
async def listening(answer):
    """A TCP server that sends what `answer` makes of each read."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError):
            while received := await reader.read(4096):
                writer.write(answer(received))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    finally:
        server.close()


async def test_nobody_listens():
    port = free_port()
    told = await try_to_open(f"redis://:secret@127.0.0.1:{port}/0")
    assert told.startswith(f"BrokerUnavailable: Cannot reach Redis at redis://:***@127.0.0.1:{port}/0: ")
    assert told.endswith("Is the server running, and are host and port right?")


async def test_an_unknown_host():
    told = await try_to_open("redis://no-such-host.invalid/0")
    assert told.startswith("BrokerUnavailable: Cannot reach Redis at redis://no-such-host.invalid:6379/0: ")


async def test_no_socket_file(tmp_path):
    assert (await try_to_open(f"unix://{tmp_path}/none.sock")).startswith("BrokerUnavailable: Cannot reach")


async def test_a_wrong_password(redis_url):
    server = RedisServer("--requirepass", "right")
    server.start()
    try:
        told = await try_to_open(server.url.replace("//", "//:wrong@"))
        assert told.startswith("ConfigError: ")
        assert "wrong" not in told
        assert "refused the login" in told
        assert "Check the user and the password in the URL" in told
        assert "refused the login" in await try_to_open(server.url)
        async with RedisBroker.from_url(server.url.replace("//", "//:right@"), Settings()) as broker:
            assert await broker.depth(["celery"]) == {"celery": 0}
    finally:
        server.close()


async def test_a_database_that_does_not_exist(redis_server):
    told = await try_to_open(redis_server.url_of(99))
    assert told.startswith("ConfigError: ")
    assert "no such database" in told


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl makes the certificate")
async def test_tls(tmp_path):
    certificate, key, port = tmp_path / "cert.pem", tmp_path / "key.pem", free_port()
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
    subprocess.run([*command, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    files = ["--tls-cert-file", certificate, "--tls-key-file", key, "--tls-ca-cert-file", certificate]
    server = RedisServer("--tls-port", str(port), "--tls-auth-clients", "no", *map(str, files))
    try:
        server.start()
    except RuntimeError:
        pytest.skip(f"{server.version} has no TLS")
    try:
        url = f"rediss://127.0.0.1:{port}/0"
        for option in ("ssl_cert_reqs=CERT_NONE", f"ssl_ca_certs={certificate}"):
            async with RedisBroker.from_url(f"{url}?{option}", Settings()) as broker:
                assert await broker.depth(["celery"]) == {"celery": 0}
        told = await try_to_open(url)
        assert told.startswith("ConfigError: ")
        assert "Name its CA: ?ssl_ca_certs=" in told
    finally:
        server.close()


async def test_not_a_redis():
    async with listening(lambda received: b"HTTP/1.1 400 Bad Request\r\n\r\n") as url:
        told = await try_to_open(url)
    assert told.startswith("ConfigError: ")
    assert "does not speak the Redis protocol" in told


async def test_a_server_that_never_answers():
    async with listening(lambda received: b"") as url:
        told = await try_to_open(url, redis_socket_timeout=0.2)
    assert told.startswith("BrokerUnavailable: ")
    assert "does not answer" in told


async def test_a_server_that_is_too_old():
    def answer(received: bytes) -> bytes:
        # Several commands may come in one go.
        return b"".join(answer_to(command) for command in received.split(b"*")[1:])

    def answer_to(command: bytes) -> bytes:
        if b"SETINFO" not in command and b"INFO" in command:
            return b"$21\r\nredis_version:5.0.7\r\n\r\n"
        return b"+PONG\r\n" if b"PING" in command else b"+OK\r\n"

    async with listening(answer) as url:
        told = await try_to_open(url)
    assert told.endswith("is version 5.0; aioretryq needs 6.2 or newer.")
