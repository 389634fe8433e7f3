"""What the wire allows: no task queue, but a bare loop over hiredis that does for each task what one must do.

The client pushes messages; the worker claims batches by a script that notes a lease, awaits a coroutine for each, and
by another script stores and publishes the results and drops the leases. No retries, options, headers or recovery.
`python -m benchmarks.contenders.ceiling` is its worker.
"""

from __future__ import annotations

import asyncio
import collections
import json
import urllib.parse
import uuid
from typing import Any

import hiredis
import uvloop

from benchmarks import place, tasks
from benchmarks.contenders.adapter import Adapter

BATCH = 500
EMPTY = 0.0005
"""Seconds until the next look at an empty queue: what a blocking claim would save is not the point here."""

CLAIM = b"""
local claimed = redis.call('LPOP', KEYS[1], ARGV[1])
if not claimed then return {} end
local leases = {}
for at, body in ipairs(claimed) do leases[2 * at - 1] = ARGV[2]; leases[2 * at] = body end
redis.call('ZADD', KEYS[2], unpack(leases))
return claimed
"""
FINISH = b"""
local held = {}
for at = 1, #ARGV, 3 do
  redis.call('SET', 'result:' .. ARGV[at], ARGV[at + 1], 'EX', 3600)
  redis.call('PUBLISH', 'result:' .. ARGV[at], ARGV[at + 1])
  held[#held + 1] = ARGV[at + 2]
end
redis.call('ZREM', KEYS[1], unpack(held))
"""
TASKS: dict[str, Any] = {each.__name__: each for each in (tasks.no_op, tasks.io, tasks.echo)}


class Wire(asyncio.Protocol):
    """One connection. Commands of the same loop turn travel together, answers come in order."""

    def __init__(self) -> None:
        self._reader = hiredis.Reader()
        self._waiting: collections.deque[asyncio.Future[Any]] = collections.deque()
        self._packed: list[bytes] = []
        self.published: dict[bytes, asyncio.Future[bytes]] = {}

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        while (answer := self._reader.gets()) is not False:
            if isinstance(answer, list) and answer and answer[0] == b"message":
                if (waiter := self.published.pop(answer[1], None)) is not None:
                    waiter.set_result(answer[2])
            else:
                self._waiting.popleft().set_result(answer)

    def call(self, *words: Any) -> asyncio.Future[Any]:
        loop = asyncio.get_running_loop()
        if not self._packed:
            loop.call_soon(self._flush)
        self._packed.append(hiredis.pack_command(words))
        answer = loop.create_future()
        self._waiting.append(answer)
        return answer

    def _flush(self) -> None:
        self._transport.write(b"".join(self._packed))
        self._packed.clear()


async def connected() -> Wire:
    where = urllib.parse.urlparse(place.URL)
    host, port = where.hostname or "localhost", where.port or 6379
    _, wire = await asyncio.get_running_loop().create_connection(Wire, host, port)
    return wire


class Ceiling(Adapter):
    """Handles are channels: subscribed to before the task is sent, where the result is awaited."""

    bulk = True

    async def open(self) -> None:
        self.wire, self.ears = await connected(), await connected()

    async def send(self, task: str, number: int, *more: Any, delay: float | None = None) -> Any:
        return (await self.send_batch(task, [number], more))[0]

    async def send_many(self, task: str, numbers: range) -> list[Any]:
        handles: list[Any] = []
        for first in range(0, len(numbers), BATCH):
            handles += await self.send_batch(task, numbers[first : first + BATCH], ())
        return handles

    async def send_batch(self, task: str, numbers: Any, more: tuple[Any, ...]) -> list[bytes]:
        ids = [uuid.uuid4().hex for _ in numbers]
        bodies = [json.dumps([one, task, [each, *more]]) for one, each in zip(ids, numbers, strict=True)]
        await self.wire.call(b"RPUSH", b"queue", *bodies)
        return [f"result:{one}".encode() for one in ids]

    async def wait(self, handle: bytes, timeout: float) -> Any:
        heard = self.ears.published[handle] = asyncio.get_running_loop().create_future()
        answers = asyncio.gather(self.ears.call(b"SUBSCRIBE", handle), self.wire.call(b"GET", handle))
        stored = (await answers)[1]
        return json.loads(stored if stored is not None else await asyncio.wait_for(heard, timeout))


async def run_one(body: bytes) -> tuple[str, str, bytes]:
    one, task, arguments = json.loads(body)
    return one, json.dumps(await TASKS[task](*arguments)), body


async def work() -> None:
    wire = await connected()
    claim, finish = [await wire.call(b"SCRIPT", b"LOAD", script) for script in (CLAIM, FINISH)]
    asked = wire.call(b"EVALSHA", claim, 2, b"queue", b"leases", BATCH, b"30")
    while True:
        bodies = await asked
        asked = wire.call(b"EVALSHA", claim, 2, b"queue", b"leases", BATCH, b"30")
        if not bodies:
            await asyncio.sleep(EMPTY)
            continue
        done = await asyncio.gather(*[run_one(body) for body in bodies])
        wire.call(b"EVALSHA", finish, 1, b"leases", *[word for each in done for word in each])


ADAPTER = Ceiling()

if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(work())
