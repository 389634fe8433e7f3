"""kombu's tables of what is bound to an exchange: sets of `routing key, pattern of a topic, queue`.

Queues that stay are also in a permanent set. A table without one has a deadline, which those who use its queues
postpone; when it has passed, anybody drops the table. Beside that, each binding that expires has a deadline of ours:
kombu would leave the queue and its member of the table behind.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Any

from aioretryq.brokers.redis_keys import SEP
from aioretryq.message import Binding

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.brokers.redis_session import RedisSession

logger = logging.getLogger("aioretryq.broker.redis")

TABLE_LIFE = 3600.0
"""Seconds a table lives at least after a queue that expires was bound; longer, twice as long as the queue."""

SWEEP = 60.0
"""Seconds between two looks for tables that nobody needs any more."""

_SWEPT_AT_ONCE = 100


class Bindings:
    def __init__(self, session: RedisSession, keys: Keys) -> None:
        self._session = session
        self._keys = keys
        self._next_sweep = 0.0
        self._complained: set[str] = set()

    async def bind(self, bindings: Iterable[Binding]) -> None:
        bindings = list(bindings)
        staying = [binding for binding in bindings if binding.expires is None]
        if staying:
            with self._session.errors():
                async with self._session.client.pipeline(transaction=True) as pipe:
                    for binding in staying:
                        for key in self._keys.bindings(binding.exchange):
                            pipe.sadd(key, member(binding))
                    await pipe.execute()
        for binding in bindings:
            if binding.expires is not None:
                await self._bind_for_a_while(binding, binding.expires)

    async def _bind_for_a_while(self, binding: Binding, expires: float) -> None:
        table, deadlines = self._keys.bindings(binding.exchange)[0], self._keys.binding_deadlines
        life = max(2 * expires, TABLE_LIFE)
        args = [member(binding), binding.exchange, round(life * 1000), _name(binding), round(expires * 1000)]
        await self._session.run("bind", [table, deadlines, self._keys.expiring], args)

    async def sweep(self) -> None:
        """Drop what nobody has refreshed in time; most of the times it is called it does nothing."""
        now = time.monotonic()
        if now < self._next_sweep:
            return
        self._next_sweep = now + SWEEP
        keys = [self._keys.binding_deadlines]
        await self._session.run("sweep_bindings", keys, [*self._keys.bindings(""), _SWEPT_AT_ONCE])
        client = self._session.client
        with self._session.errors():
            seconds, micros = await client.time()
            now_ms = seconds * 1000 + micros // 1000
            passed: Any = await client.zrangebyscore(self._keys.expiring, "-inf", now_ms, start=0, num=_SWEPT_AT_ONCE)
        for name in passed:
            exchange, _, in_table = name.decode(errors="replace").partition(SEP)
            queue = in_table.rpartition(SEP)[2]
            lists = [*self._keys.buckets(queue), self._keys.schedule(queue)]
            table = self._keys.bindings(exchange)[0]
            if await self._session.run("expire_queue", [self._keys.expiring, table, *lists], [name, in_table]):
                logger.info("Queue %r is gone: nobody has used it for as long as it was to stay", queue)

    async def unbind(self, bindings: Sequence[Binding]) -> None:
        if not bindings:
            return
        with self._session.errors():
            async with self._session.client.pipeline(transaction=True) as pipe:
                for binding in bindings:
                    for key in self._keys.bindings(binding.exchange):
                        pipe.srem(key, member(binding))
                    pipe.zrem(self._keys.expiring, _name(binding))
                await pipe.execute()

    async def bound(self, exchange: str) -> list[Binding]:
        key = self._keys.bindings(exchange)[0]
        client = self._session.client
        with self._session.errors():
            members: Any = await client.smembers(key)
        found, strange = read_table(exchange, members)
        self._complain(exchange, strange)
        return found

    def _complain(self, exchange: str, strange: list[bytes]) -> None:
        if strange and exchange not in self._complained:
            self._complained.add(exchange)
            key = self._keys.bindings(exchange)[0]
            logger.warning(
                "%d members of %s are no bindings and ignored, such as %.200r", len(strange), key, min(strange)
            )


def read_table(exchange: str, members: Iterable[bytes]) -> tuple[list[Binding], list[bytes]]:
    """What a table says, and its members that are none of kombu's or ours.

    The pattern only tells a topic from a direct exchange. It is what the routing key says, and whoever can write to
    the server can write a regular expression that takes for ever.
    """
    found, strange = [], []
    for raw in members:
        parts = raw.decode(errors="replace").split(SEP)
        if len(parts) == 3 and parts[2]:
            found.append(Binding(exchange, "topic" if parts[1] else "direct", parts[0], parts[2]))
        else:
            strange.append(raw)
    return sorted(found, key=lambda binding: (binding.queue, binding.routing_key)), strange


def member(binding: Binding) -> str:
    pattern = topic_regex(binding.routing_key) if binding.kind == "topic" else ""
    return SEP.join((binding.routing_key, pattern, binding.queue))


def topic_regex(routing_key: str) -> str:
    """The regular expression that kombu stores, and matches with, for a topic's routing key."""
    words = {"*": r"[^\.]+", "#": r".*?"}
    return "^" + r"\.".join(words.get(word) or _escaped(word) for word in routing_key.split(".")) + "$"


def _escaped(word: str) -> str:
    return "".join(char if char.isalnum() or char in "#*" else f"\\{char}" for char in word)


def _name(binding: Binding) -> str:
    return SEP.join((binding.exchange, member(binding)))
