"""Workers of both kinds on one queue, killed at random under load: `python -m interop.mixed_soak`, in `tests`.

One thing is not ours to promise: a Celery worker takes a message out of its list first, and writes down that it has
it a moment later. Killed in between, it takes the message with it. The server's own log of commands tells such a
message apart: it was pushed, and from then on nobody wrote down having it. Our claim does both in one step.
"""

from __future__ import annotations

import asyncio
import random
import re
import signal
import sys
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import click
import redis
from celery import Celery, chain

from aioretryq import TaskQueue
from programs import Program
from redis_server import RedisServer

HERE = Path(__file__).parent
PER_SECOND = 30
CALM = (0.5, 4.0)
"""Seconds between two kills, from and to."""
PATIENCE = 90.0

KINDS = {
    "celery": ["celery", "-A", "mixed", "worker", "-P", "threads", "-c", "8", "-l", "INFO", "--without-mingle"],
    "ours": ["aioretryq", "worker", "mixed:queue", "-c", "20", "-l", "warning"],
}
READY = {"celery": " ready.", "ours": "is ready"}
LISTS = re.compile(r"celery(\\x06\\x16[369])?$")  # as the log writes the bytes 06 16
ID = re.compile(r'"id": ?"([0-9a-f-]{36})"')


class ServerLog:
    """What was done last to each message: pushed into a list, or written down as taken by a worker."""

    def __init__(self, url: str) -> None:
        self.last: dict[str, str] = {}
        self._server = redis.Redis.from_url(url, socket_timeout=None)
        self._going = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        with self._server.monitor() as monitor:
            while self._going:
                line = monitor.next_command()["command"]
                name, _, rest = line.partition(" ")
                key, _, content = rest.partition(" ")
                if name.upper() in ("LPUSH", "RPUSH") and LISTS.match(key):
                    self.last.update(dict.fromkeys(ID.findall(content), "pushed"))
                elif name.upper() == "HSET" and key == "unacked":
                    self.last.update(dict.fromkeys(ID.findall(content), "taken"))

    def close(self) -> None:
        self._going = False
        self._server.ping()  # one more line, for the reader to see that it is over
        self._reader.join(10)
        self._server.close()


@dataclass(slots=True)
class Soak:
    url: str
    trace: Path
    chance: random.Random
    log: ServerLog
    sent: set[str] = field(default_factory=set)
    kills: Counter[str] = field(default_factory=Counter)
    follows: dict[str, str] = field(default_factory=dict)
    """Later steps of chains: they are pushed when the step before has run."""
    wrong: list[str] = field(default_factory=list)
    workers: list[tuple[str, Program]] = field(default_factory=list)
    summary: str = ""
    _number: int = 0

    async def run(self, seconds: float) -> None:
        await asyncio.gather(*[self._employ(kind) for kind in ("celery", "celery", "ours", "ours")])
        end = time.monotonic() + seconds
        with Celery(broker=self.url, backend=self.url, set_as_current=False) as app:
            async with TaskQueue(self.url) as queue:
                load = asyncio.create_task(self._send(app, queue, end))
                while time.monotonic() < end:
                    await asyncio.sleep(self.chance.uniform(*CALM))
                    await self._kill_one()
                await load
        await self._all_done()

    async def _employ(self, kind: str) -> None:
        self._number += 1
        command = [sys.executable, "-m", *KINDS[kind], "-n", f"{kind}{self._number}@%h"]
        env = {"INTEROP_REDIS": self.url, "MIXED_TRACE": str(self.trace)}
        worker = Program(command, env=env, cwd=HERE)
        self.workers.append((kind, worker))
        await asyncio.to_thread(worker.wait_for, READY[kind], timeout=60)

    async def _kill_one(self) -> None:
        kind, worker = victim = self.chance.choice(self.workers)
        if worker.process.poll() is not None:
            self.wrong.append(f"a worker of kind {kind} ended by itself:\n{worker.output[-2000:]}")
        worker.signal(signal.SIGKILL)
        self.workers.remove(victim)
        self.kills[kind] += 1
        await asyncio.to_thread(worker.stop)
        await self._employ(kind)

    async def _send(self, app: Celery, queue: TaskQueue, end: float) -> None:
        while time.monotonic() < end:
            sender = self._with_celery(app) if self.chance.random() < 0.5 else self._with_ours(queue)
            self.sent.update(await sender)
            await asyncio.sleep(1 / PER_SECOND)

    def _one(self) -> tuple[str, list[Any], dict[str, Any]]:
        dice = self.chance.random()
        if dice < 0.7:
            return "mixed.work", [self.chance.choice([0.0, 0.02, 0.2])], {"priority": self.chance.choice([0, 3, 9])}
        if dice < 0.85:
            return "mixed.work", [0.0], {"countdown": self.chance.uniform(0, 3)}
        return "mixed.flaky", [self.chance.randint(0, 2)], {}

    async def _with_celery(self, app: Celery) -> list[str]:
        if self.chance.random() < 0.1:
            steps = [app.signature("mixed.pass_on", args=(0,)), *[app.signature("mixed.pass_on")] * 2]
            last = await asyncio.to_thread(chain(*[step.clone() for step in steps], app=app).apply_async)
            first, second = last.parent.parent, last.parent
            self.follows |= {second.id: first.id, last.id: second.id}
            return [first.id, second.id, last.id]
        name, args, options = self._one()
        return [(await asyncio.to_thread(app.send_task, name, args, **options)).id]

    async def _with_ours(self, queue: TaskQueue) -> list[str]:
        name, args, options = self._one()
        return [(await queue.send_task(name, args, **options)).id]

    def executed(self) -> Counter[str]:
        return Counter(self.trace.read_text().split())

    async def _all_done(self) -> None:
        """Until all have run, or nothing more happens: what a dead worker had comes back within a few seconds."""
        before, since = -1, time.monotonic()
        while self.sent - set(self.executed()) and time.monotonic() - since < PATIENCE / 3:
            if (count := len(self.executed())) != before:
                before, since = count, time.monotonic()
            await asyncio.sleep(0.5)

    def report(self) -> str:
        done = self.executed()
        missing = self.sent - set(done)
        theirs = {task_id for task_id in missing if self._gone_with_celery(task_id)}
        lost = missing - theirs
        again = sum(count - 1 for count in done.values())
        if lost:
            self.wrong += [f"lost: {self._story(task_id)}" for task_id in sorted(lost)]
        if strangers := set(done) - self.sent:
            self.wrong.append(f"executed, and never sent: {sorted(strangers)}")
        return (
            f"{len(self.sent)} sent = {len(done)} executed + {len(theirs)} gone with Celery + {len(lost)} lost\n"
            "(gone with Celery: a Celery worker had taken the message out, and not yet written that down, when it "
            "was killed; and what would have followed in its chain)\n"
            f"{again} runs twice; killed: {self.kills['celery']} Celery workers, {self.kills['ours']} of ours"
        )

    def _gone_with_celery(self, task_id: str) -> bool:
        """Also of a later step that was never sent: what is gone is the message of the step before, which may have
        run in vain before, on a worker that was killed."""
        before = self.follows.get(task_id)
        if before is not None and task_id not in self.log.last:
            return self._gone_with_celery(before)
        return self.log.last.get(task_id) == "pushed" and not self._waits(task_id)

    def _story(self, task_id: str) -> str:
        before = self.follows.get(task_id)
        story = f"{task_id} ({self.log.last.get(task_id, 'never pushed')}, ran {self.executed()[task_id]} times)"
        return story if before is None else f"{story} after {self._story(before)}"

    def _waits(self, task_id: str) -> bool:
        with redis.Redis.from_url(self.url) as server:
            lists = [key for key in server.keys("celery*") if server.type(key) == b"list"]
            kept = [line for key in lists for line in server.lrange(key, 0, -1)]
            return any(task_id.encode() in line for line in [*kept, *server.hvals("unacked")])

    def close(self) -> None:
        for _, worker in self.workers:
            worker.stop()


async def soak(seconds: float, seed: int) -> Soak:
    server = RedisServer()
    server.start()
    try:
        with TemporaryDirectory(prefix="mixed-") as name:
            trace = Path(name) / "trace"
            trace.touch()
            log = ServerLog(server.url)
            going = Soak(server.url, trace, random.Random(seed), log)
            try:
                await going.run(seconds)
                going.summary = going.report()
            finally:
                going.close()
                log.close()
        return going
    finally:
        server.close()


@click.command()
@click.option("--seconds", default=600.0, envvar="MIXED_SECONDS", show_default=True)
@click.option("--seed", type=int, envvar="SOAK_SEED", help="Of an earlier run, to have its kills again.")
def main(seconds: float, seed: int | None) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    click.echo(f"mixed soak: {seconds:.0f} s, SOAK_SEED={seed}")
    going = asyncio.run(soak(seconds, seed))
    click.echo(going.summary)
    for line in going.wrong:
        click.echo(f"WRONG: {line}")
    sys.exit(bool(going.wrong))


if __name__ == "__main__":
    main()
