"""What every scenario needs: a place, workers, a sender, the trace, and the count at the end."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections import Counter
from collections.abc import Awaitable, Callable, Collection
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeVar

from aioretryq import TaskQueue
from aioretryq.errors import PartlySent, PublishError, UnavailableError
from aioretryq.protocol.deadletter import DeadLetter, decode_dead_letter
from faults.accounting import Accounting, Report, account
from faults.trace import Trace
from faults.workers import Fleet, WorkerProcess

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

    from aioretryq import AsyncResult
    from faults.places import Place

T = TypeVar("T")
TASK = "faults.application."
LOOK_EVERY = 0.02
"""Seconds between two looks at something that no event tells of."""
PAGE = 1000
LAST_ENDS = 10.0
"""Seconds after which the second run of something is over."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """How much, and how long, in tasks and seconds. The defaults are those of the published table."""

    tasks: int = 500
    load: int = 20_000
    """Tasks that do nothing: as many as it takes for batches, and for messages that wait in the worker."""
    lease: float = 5.0
    killed: float = 3.0
    frozen: float = 10.0
    cut: float = 8.0
    half_open: float = 8.0
    waiters: int = 100
    parked: int = 5000
    queued: int = 20_000
    countdowns: int = 50
    garbage: int = 100
    """Of each kind."""
    large: float = 50.0
    """MB of a very large message."""
    deploys: int = 10
    dropped: int = 50
    grace: float = 3.0
    patience: float = 60.0
    """Until what is not done counts as stuck, beside the leases that may have to end first."""


QUICK = Scale(
    tasks=100,
    load=4000,
    lease=1.5,
    killed=1,
    frozen=3,
    cut=2,
    half_open=2,
    parked=2000,
    queued=3000,
    countdowns=20,
    garbage=30,
    large=2,
    deploys=2,
    dropped=10,
    grace=1,
)
"""For `make test`."""


@dataclass(slots=True)
class Arena:
    """Open it with `async with`. `queue` is a sender's, on the same network as the workers."""

    place: Place
    folder: Path
    scale: Scale = field(default_factory=Scale)
    settings: dict[str, Any] = field(default_factory=dict)
    published: list[str] = field(default_factory=list)
    refused: list[PublishError] = field(default_factory=list)
    suspects: list[tuple[int, set[str]]] = field(default_factory=list)
    fleet: Fleet = field(init=False)
    trace: Trace = field(init=False)
    queue: TaskQueue = field(init=False)
    _stack: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def __aenter__(self) -> Self:
        self.trace = Trace(self.folder / f"trace-{uuid.uuid4().hex}")
        environment = {f"AIORETRYQ_{name.upper()}": str(value) for name, value in self.settings.items()}
        self.fleet = Fleet(
            {
                "AIORETRYQ_URL": self.place.url,
                "AIORETRYQ_LEASE": str(self.scale.lease),
                "FAULTS_TRACE": str(self.trace.path),
                **environment,
            }
        )
        self._stack.push_async_callback(asyncio.to_thread, self.fleet.close)
        self.queue = await self.sender()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def sender(self, **settings: Any) -> TaskQueue:
        """A client on the network of the workers, closed with the arena. It waits for a broker that is gone."""
        patient = {"task_publish_wait": 30.0, "task_publish_timeout": 60.0, "lease": self.scale.lease}
        return await self._stack.enter_async_context(TaskQueue(self.place.url, **{**patient, **settings}))

    async def reconnect(self) -> None:
        """A sender that knows nothing of what has happened."""
        self.queue = await self.sender()

    # -- workers; what waits for them does so in a thread, for the senders here must go on

    async def start(self, count: int, *options: str, **env: str) -> list[WorkerProcess]:
        """That many, at the same time; returns when they are ready."""
        return await asyncio.to_thread(self.fleet.start, count, *options, **env)

    async def hear(self, worker: WorkerProcess, text: str) -> None:
        """Until its log says that."""
        await asyncio.to_thread(worker.says, text, timeout=self.patience)

    async def end_of(self, worker: WorkerProcess) -> int:
        """Its exit code."""
        return await asyncio.to_thread(worker.wait, self.patience)

    # -- sending

    async def send(self, task: str, *args: Any, **options: Any) -> AsyncResult[Any] | None:
        """Send and note it as published; None, and noted as refused, when the sender was told that it was not."""
        try:
            sent = await self.queue.send_task(TASK + task, args, **options)
        except PublishError as error:
            self.refused.append(error)
            return None
        self.published.append(sent.task_id)
        return sent

    async def publish(self, count: int, task: str = "work", *args: Any, **options: Any) -> list[str]:
        """Send that many, a hundred at a time; their ids, in order."""
        before = len(self.published)
        for start in range(0, count, 100):
            await asyncio.gather(*(self.send(task, *args, **options) for _ in range(start, min(start + 100, count))))
        return self.published[before:]

    async def send_many(self, count: int) -> None:
        """Tasks that do nothing, as `delay_many` sends them; if some were not sent, that is one refusal."""
        try:
            sent = await self.queue.send_many(f"{TASK}work", [(0.0,)] * count)
        except PartlySent as error:
            self.refused.append(error)
            sent = error.results
        self.published += [result.task_id for result in sent]

    # -- watching

    async def until(self, condition: Callable[[], bool], *, timeout: float | None = None) -> bool:
        """Whether it became true in time."""
        deadline = time.monotonic() + (self.patience if timeout is None else timeout)
        while True:
            looked = time.monotonic()
            if condition():
                return True
            now = time.monotonic()
            if now > deadline:
                return False
            await asyncio.sleep(max(LOOK_EVERY, 4 * (now - looked)))  # looking must not be what is measured

    async def until_so(self, condition: Callable[[], Awaitable[bool]]) -> bool:
        """The same for what the broker has to be asked for."""
        deadline = time.monotonic() + self.patience
        while not await self.insist(condition):
            if time.monotonic() > deadline:
                return False
            await asyncio.sleep(LOOK_EVERY)
        return True

    async def insist(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Straight to the broker, whose operations do not retry by themselves, and may safely be repeated."""
        deadline = time.monotonic() + self.patience
        while True:
            try:
                return await operation()
            except UnavailableError:
                if time.monotonic() > deadline:
                    raise
                await asyncio.sleep(LOOK_EVERY)

    async def need(self, condition: Callable[[], bool], what: str) -> None:
        """For what a scenario is built on: without it there is nothing to be counted."""
        if not await self.until(condition):
            counted = f"{await self.count()}; sending refused: {self.refused}"
            raise AssertionError(f"{what}: not within {self.patience:.0f} s; {counted}\n{self.fleet.output[-6000:]}")

    async def ended(self, count: int) -> None:
        """Until that many tasks have come to their end."""
        await self.need(lambda: len(self.trace.read().ends) >= count, f"{count} tasks done")

    async def started(self, count: int) -> None:
        await self.need(lambda: len(self.trace.read().starts) >= count, f"{count} tasks started")

    @property
    def patience(self) -> float:
        # A fleet that died as a whole needs two leases: the first sweep afterwards is late, and puts nothing back.
        return self.scale.patience + 3 * self.scale.lease

    async def dead_letters(self) -> list[DeadLetter]:
        """All of them, read by an API client that nothing disturbs."""
        found: list[DeadLetter] = []
        async with TaskQueue(self.place.direct_url, lease=self.scale.lease) as queue:
            after = ""
            while page := await queue.broker.dead(after=after, limit=PAGE):
                found += [decode_dead_letter(entry.content) for entry in page]
                after = page[-1].id
        return found

    # -- faults

    async def kill(self, worker: WorkerProcess) -> None:
        """SIGKILL; what it had not settled may run again."""
        await asyncio.to_thread(worker.kill)
        self.excuse(worker)

    def excuse(self, worker: WorkerProcess) -> None:
        """What this worker begins, or has begun, of the messages that are held now: it is dead, or taken for dead,
        so others run them too. An end of which the broker was not told does not count."""
        self.suspects.append((worker.pid, self.place.look().held))

    @property
    def excused(self) -> set[str]:
        found = set()
        for pid, held in self.suspects:
            found |= held & {event.task_id for event in self.trace.events if event.pid == pid}
        return found

    # -- the end

    async def finish(self, *, left: Collection[str] = ()) -> Report:
        """Wait until everything is settled but what is `left`, and nothing runs any more; then count."""
        meant, ours = set(left), set(self.published)
        await self.until(lambda: not (ours & set(self.place.look().all)) - meant)
        await self.until(self._nothing_runs, timeout=LAST_ENDS)
        return Report(await self.count(left=left), wrong=self._begun_again())

    def _begun_again(self) -> list[str]:
        """A run that was begun twice is wrong even where fencing kept the second from its end."""
        begun = Counter((event.task_id, event.attempts, event.interruptions) for event in self.trace.of("start"))
        again = {task_id for (task_id, *_), count in begun.items() if count > 1} - self.excused
        return [f"{len(again)} were begun again although nobody had died with them"] if again else []

    def _nothing_runs(self) -> bool:
        """A second run of a message that another one has settled would end later."""
        self.trace.read()
        return not any(self.trace.running_in(worker.pid) for worker in self.fleet.alive)

    async def count(self, *, left: Collection[str] = ()) -> Accounting:
        buried = [letter.task_id for letter in await self.dead_letters() if letter.task_id]
        # In this order: what is on its way from the queue to its end must not be missed by both looks.
        queued = self.place.look().all
        ends = self.trace.read().ends
        return account(self.published, ends=ends, queued=queued, dead=buried, excused=self.excused, left=left)
