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

OBSERVER = "benchmark-observer"


class Database:
    """A database that may be emptied at will."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._redis: Any = Redis.from_url(url, client_name=OBSERVER)

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

    def counters(self) -> dict[str, float]:
        """What the server has done so far: its processor time, commands (those in scripts too), reads from
        sockets (what comes in one read was sent together: a round trip), bytes in and out."""
        cpu, stats = self._redis.info("cpu"), self._redis.info("stats")
        return {
            "cpu": float(cpu["used_cpu_user"]) + float(cpu["used_cpu_sys"]),
            "commands": float(stats["total_commands_processed"]),
            "reads": float(stats["total_reads_processed"]),
            "bytes": float(stats["total_net_input_bytes"]) + float(stats["total_net_output_bytes"]),
        }

    def connections(self) -> int:
        """Those of others."""
        return sum(each["name"] != OBSERVER for each in self._redis.client_list())

    def memory(self) -> float:
        """Megabytes of its data."""
        return float(self._redis.info("memory")["used_memory"]) / 2**20

    @contextmanager
    def monitored(self) -> Iterator[list[str]]:
        """The commands that others send while this is entered, one line each, with their scripts' own ones."""
        seen: list[str] = []
        with self._redis.monitor() as monitor:
            yield seen
            mark = f"end of the observation {id(seen)}"
            self._redis.echo(mark)
            for each in monitor.listen():
                if mark in each["command"]:
                    return
                seen.append(each["client_type"])


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
