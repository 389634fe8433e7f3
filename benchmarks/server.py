"""The Redis server of the benchmarks: a private one, or an empty database that is given."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click
from redis import Redis
from redis.exceptions import RedisError

from tests.redis_server import NoRedisServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator


class Database:
    """A database that may be emptied at will."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis: Any = Redis.from_url(url)

    @property
    def version(self) -> str:
        return f"Redis {self._redis.info('server')['redis_version']}"

    def check_empty(self) -> None:
        try:
            held = self._redis.dbsize()
        except RedisError as error:
            raise click.ClickException(f"Cannot use {self.url.rpartition('@')[2]}: {error}") from error
        if held:
            raise click.ClickException(
                f"The database holds {held} keys. Give an empty database: it is emptied often."
            )

    def empty(self) -> None:
        self._redis.flushdb()


@contextmanager
def database(url: str | None) -> Iterator[Database]:
    """That one, if it is empty; without a URL that of a server which lives as long as the block, in memory."""
    if url is not None:
        given = Database(url)
        given.check_empty()
        yield given
        return
    try:
        server = RedisServer()
    except NoRedisServer as error:
        raise click.ClickException(str(error)) from error
    server.start()
    try:
        yield Database(server.url)
    finally:
        server.close()
