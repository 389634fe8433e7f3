"""The open connection of a Redis broker: scripts, errors in our words, and the bindings that kombu's tools read."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from redis.exceptions import ResponseError

from aioretryq.brokers.redis_keys import SEP
from aioretryq.brokers.redis_watch import KeyWatch
from aioretryq.drivers.redis import RedisServer, close
from aioretryq.drivers.redis_line import Line, load_scripts
from aioretryq.drivers.redis_pubsub import PubSubConnection
from aioretryq.errors import BrokerError, BrokerUnavailable, NotOpenError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from redis.asyncio import Redis

    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.config import Settings
    from aioretryq.drivers.redis_line import Script

logger = logging.getLogger("aioretryq.broker.redis")

_SCRIPTS = (
    *(
        "abandoned",
        "bind",
        "bury",
        "claim",
        "exhume",
        "expire_queue",
        "extend",
        "finish",
        "leave",
        "restore",
        "revoke",
        "send",
        "send_once",
    ),
    *("sweep", "sweep_bindings", "trim_dead", "unclaim", "unpark"),
)


class RedisSession:
    """Closed at first; may be opened and closed again and again."""

    def __init__(self, url: str, settings: Settings, keys: Keys) -> None:
        self._server = RedisServer(url, settings, BrokerUnavailable, BrokerError)
        self.display_url = self._server.display_url
        self.database = self._server.database
        self._connect_within = settings.broker_connection_timeout
        self._answer_within = settings.answer_within
        self._keys = keys
        self._line: Line | None = None
        self._client: Redis | None = None
        self._watch: KeyWatch | None = None
        self._scripts: dict[str, Script] = {}
        self.declared: set[str] = set()  # queues that `declare` has bound

    async def open(self) -> None:
        line = Line(self._server, "broker")
        try:
            await line.check()
        except BaseException:
            await line.close()
            raise
        self._line = line
        self._scripts = load_scripts(line, "aioretryq.brokers", *_SCRIPTS)
        self._client = self._server.client("broker")
        self._watch = KeyWatch(self._server)

    async def close(self) -> None:
        line, client, watch = self._line, self._client, self._watch
        self._line = self._client = self._watch = None
        if watch is not None:
            await watch.close()
        if line is not None:
            await line.close()
        if client is not None:
            await close(client)

    @property
    def line(self) -> Line:
        """For single commands; raises what `errors` makes of the driver's errors."""
        if self._line is None:
            raise self._not_open()
        return self._line

    @property
    def client(self) -> Redis:
        """For what is rare, inside of `errors`."""
        if self._client is None:
            raise self._not_open()
        return self._client

    @property
    def watch(self) -> KeyWatch:
        if self._watch is None:
            raise self._not_open()
        return self._watch

    async def pubsub(self) -> PubSubConnection:
        """A new connection; whoever asks for it closes it."""
        connection = PubSubConnection(self._server, "bus", silence=self._answer_within)
        await connection.open(self._connect_within)
        if self._client is None:
            await connection.close()
            raise self._not_open()
        return connection

    def _not_open(self) -> NotOpenError:
        return NotOpenError(f"The broker {self.display_url} is not open; use it inside `async with`.")

    def errors(self) -> AbstractContextManager[None]:
        return self._server.errors()

    async def run(
        self, script: str, keys: Sequence[str], args: Sequence[Any], *, ahead: Sequence[Sequence[Any]] = ()
    ) -> Any:
        """`ahead`: see `Script`."""
        if self._line is None:
            raise self._not_open()
        try:
            return await self._scripts[script](keys, args, ahead=ahead)
        except BrokerUnavailable:
            # The server that comes back may have lost everything: write the bindings again.
            self.declared.clear()
            raise

    def undeclared(self, queues: Iterable[str]) -> list[str]:
        """Those that `declare` has not bound yet."""
        return [queue for queue in dict.fromkeys(queues) if queue not in self.declared]

    async def declare(self, queues: Iterable[str]) -> None:
        """Bind queues as kombu does when it declares them: tools and other clients of kombu list the bindings."""
        new = self.undeclared(queues)
        if not new:
            return
        # Without the permanent set, kombu 5.7 may sweep the binding away.
        commands = [("SADD", key, f"{queue}{SEP}{SEP}{queue}") for queue in new for key in self._keys.bindings(queue)]
        try:
            await self.line.transaction(commands)
        except (BrokerUnavailable, BrokerError) as error:
            if not isinstance(error.__cause__, ResponseError):
                raise
            # The server is there but full, or does not let us: messages matter more than bindings.
            logger.debug("bindings are not written: %s", error)
            return
        self.declared.update(new)
