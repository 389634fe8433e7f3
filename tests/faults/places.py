"""Where the messages of a scenario are: a Redis behind a network that can be broken, or an SQLite file.

`look` reads the storage itself, not through the package: what a worker believes is not the question.
"""

from __future__ import annotations

import re
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import redis

from faults.proxy import Proxy
from redis_server import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

_ID = re.compile(rb'"id": ?"([^"]+)"')
_PRIORITIES = ("", "\x06\x163", "\x06\x166", "\x06\x169")


@dataclass(frozen=True, slots=True)
class Contents:
    """Ids of the tasks whose messages are there; `waiting` in the order in which they would be taken."""

    waiting: list[str]
    held: set[str]
    parked: set[str]

    @property
    def all(self) -> list[str]:
        return [*self.waiting, *self.held, *self.parked]


class Place(Protocol):
    name: str
    url: str
    """For workers and senders: what happens to the network happens to them."""
    direct_url: str
    """For those who watch."""

    def look(self) -> Contents: ...

    def close(self) -> None: ...


def _ids(payloads: Iterable[bytes]) -> list[str]:
    return [match[1].decode() for match in map(_ID.search, payloads) if match]


class RedisPlace:
    """A server of its own, whose data outlive it, and a proxy before it."""

    name = "redis"

    def __init__(self, *options: str, durable: bool = True) -> None:
        self.server = RedisServer(*options, durable=durable)
        self.server.start()
        self.network = Proxy(self.server.port)
        self.network.start()
        self.url = f"redis://127.0.0.1:{self.network.port}/0"
        self.direct_url = self.server.url
        self.client: redis.Redis = redis.Redis.from_url(self.direct_url, socket_timeout=10)

    def lead_to(self, server: RedisServer) -> None:
        """New connections go to another server, ours as well; those that exist stay where they are."""
        self.network.target = server.port
        self.direct_url = server.url
        self.client.close()
        self.client = redis.Redis.from_url(self.direct_url, socket_timeout=10)

    def look(self) -> Contents:
        with self.client.pipeline(transaction=True) as together:
            for suffix in _PRIORITIES:
                together.lrange(f"celery{suffix}", 0, -1)
            together.hvals("unacked")
            together.zrange("aioretryq.schedule.celery", 0, -1)
            *lists, held, parked = together.execute()
        waiting = [payload for found in lists for payload in reversed(found)]
        return Contents(_ids(waiting), set(_ids(held)), set(_ids(parked)))

    def close(self) -> None:
        self.client.close()
        self.network.close()
        self.server.close()


class SQLitePlace:
    name = "sqlite"

    def __init__(self, folder: Path) -> None:
        self._path = folder / "queue.sqlite3"
        self.url = self.direct_url = f"sqlite:///{self._path}"

    def look(self) -> Contents:
        connection = sqlite3.connect(self._path, timeout=30)
        try:
            order = "SELECT body, due, receipt FROM messages ORDER BY priority, position, id"
            rows = connection.execute(order).fetchall()
        finally:
            connection.close()
        waiting = [body for body, due, receipt in rows if due is None and receipt is None]
        held = [body for body, _, receipt in rows if receipt is not None]
        parked = [body for body, due, _ in rows if due is not None]
        return Contents(_ids(waiting), set(_ids(held)), set(_ids(parked)))

    def close(self) -> None:
        """The file goes with its folder."""
