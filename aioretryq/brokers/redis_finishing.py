"""Finishes as `finish.lua` takes them."""

from __future__ import annotations

from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from aioretryq import states
from aioretryq.brokers.redis_keys import Targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.message import Finish, StoredResult


@runtime_checkable
class RedisResults(Protocol):
    """A result backend on a Redis server: where, and under which keys."""

    display_url: str

    def key(self, task_id: str) -> str: ...


def script(
    keys: Keys, finishes: Sequence[Finish], batch: Sequence[int], results: RedisResults | None
) -> tuple[list[str], list[Any]]:
    """Keys and arguments; `results` is where results go, if finishes bring some."""
    targets, found = Targets(keys), []
    args: list[Any] = []
    for finish in finishes:
        if finish.result is None:
            args += (finish.delivery.tag, 0, "-")
        else:
            assert results is not None
            found.append(results.key(finish.result.task_id))
            args += (finish.delivery.tag, 0, *_stored(finish.result))
        if finish.send or finish.dead is not None:
            records = [targets.encode(message) for message in finish.send]
            if finish.dead is not None:
                records.append((0, finish.dead.id, finish.dead.content))
            args[-4 if finish.result is not None else -2] = len(records)
            args += chain.from_iterable(records)
    return [*keys.held, *keys.dead, keys.finished, *targets.numbers, *found], [targets.kinds, *batch, *args]


def _stored(result: StoredResult) -> tuple[int | str, bytes, int]:
    life = "" if result.ttl is None else max(1, ceil(result.ttl * 1000))
    return life, result.document, int(states.stays(states.REVOKED, result.state))
