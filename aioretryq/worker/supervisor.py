"""Several worker processes as one: started, started again when they crash, and stopped together.

Each child has a connection to the supervisor (`--supervised FD`). It says `ready <grace>` there, once, and reads
from it: a word means "stop gracefully", its end means "the supervisor is gone", which is the same. So children do
not outlive a supervisor that was killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random as random_module
import signal
import socket
import threading
import time
from typing import TYPE_CHECKING

import anyio

from aioretryq.retry import Policy, Random, RetryPolicy

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anyio.abc import TaskStatus

    Command = Callable[[int, int, bool], Sequence[str]]
    """From the number of a child, its file descriptor, and whether it is the first start, to what is run."""

logger = logging.getLogger("aioretryq.supervisor")

RESTART_POLICY = RetryPolicy(max_retries=None, backoff=0.5, backoff_max=30.0)

STEADY = 30.0
"""Seconds after which a child has lived: the delays of its restarts begin again with the shortest."""

FAILURES = 5
"""Starts in a row that do not live, with no child at work, after which none is tried any more."""

LAST_SECONDS = 10.0
"""What a child gets after its grace to hand back and to disconnect; then it is killed."""


class Restarts:
    """When a child that ended is started again, and when that is given up. Decides only: no clock, no I/O."""

    def __init__(self, policy: Policy = RESTART_POLICY, random: Random | None = None) -> None:
        self._policy = policy
        self._random = random or random_module.Random()
        self._started: dict[int, float] = {}
        self._retries: dict[int, int] = {}
        self._at_work: set[int] = set()
        self._failures = 0
        self._any_ready = False

    def started(self, number: int, now: float) -> None:
        self._started[number] = now

    def ready(self, number: int) -> None:
        self._at_work.add(number)
        self._any_ready = True

    def ended(self, number: int, code: int, now: float) -> float | None:
        """Seconds until this child is started again, or None: the children cannot live.

        That is so when the first one of all ends by itself before it is ready (it has said why: a wrong option, an
        application that cannot be imported), or when start after start fails and nothing else is at work. While
        others work a child is tried for ever: ending those would make it worse.
        """
        was_ready = number in self._at_work
        self._at_work.discard(number)
        steady = now - self._started[number] >= STEADY
        if was_ready and (steady or code <= 0):  # a signal says nothing against the children: too little memory
            self._failures = 0
        else:
            self._failures += 1
            said_why = code > 0 and not self._any_ready
            if said_why or (self._failures >= FAILURES and not self._at_work):
                return None
        if steady:
            self._retries[number] = 0
        retries = self._retries.get(number, 0)
        self._retries[number] = retries + 1
        return self._policy.next_delay(retries, self._random)


DISMISSED = b"dismissed"


class Child:
    """A worker process, and the connection to it."""

    def __init__(self, number: int, process: asyncio.subprocess.Process, connection: socket.socket) -> None:
        self.number = number
        self.process = process
        self.connection = connection
        self.grace = 0.0
        self.ready = False

    @classmethod
    async def start(cls, command: Command, number: int, *, first: bool) -> Child:
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *command(number, theirs.fileno(), first),
                    stdin=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,  # Ctrl-C in the terminal reaches it through us, and so once
                )
        except BaseException:
            ours.close()
            raise
        ours.setblocking(False)
        return cls(number, process, ours)

    @property
    def pid(self) -> int:
        return self.process.pid

    async def become_ready(self) -> bool:
        """Wait until it says so; False when it ended instead."""
        try:
            heard = await asyncio.get_running_loop().sock_recv(self.connection, 100)
        except ConnectionError:
            return False
        word, _, grace = heard.partition(b" ")
        if word != b"ready":
            return False
        self.grace, self.ready = float(grace), True
        return True

    def stop(self) -> None:
        """Gracefully. One that is not ready yet may not be listening, but nothing runs in it: a signal will do."""
        if self.ready:
            with contextlib.suppress(OSError):  # it is gone already
                self.connection.send(b"stop")
        else:
            self.send_signal(signal.SIGTERM)

    def hurry(self) -> None:
        self.send_signal(signal.SIGQUIT if self.ready else signal.SIGTERM)

    def send_signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):  # it is gone already
            self.process.send_signal(number)

    def was_dismissed(self) -> bool:
        """Whether it has said before its end that it was told to stop for good, by remote control."""
        with contextlib.suppress(OSError):
            return self.connection.recv(100) == DISMISSED
        return False

    def ended_well(self, code: int) -> bool:
        return code == 0 or (code == -signal.SIGTERM and not self.ready)


class Supervisor:
    """Keeps `processes` children at work until a signal, or until they cannot live."""

    def __init__(self, command: Command, processes: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._command = command
        self._processes = processes
        self._clock = clock
        self._restarts = Restarts()
        self._starts = 0
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._others_may_start = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """The exit code: 0 after a stop that was asked for and in which all children ended well."""
        async with anyio.create_task_group() as group:
            await group.start(self._listen_for_signals)
            async with anyio.create_task_group() as children:
                # The first one alone: what is wrong with the application is said once.
                children.start_soon(self._keep, 1)
                await self._others_may_start.wait()
                for number in range(2, self._processes + 1):
                    children.start_soon(self._keep, number)
            group.cancel_scope.cancel()
        logger.info("All workers have stopped")
        return self._code

    async def _listen_for_signals(self, *, task_status: TaskStatus[None]) -> None:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGQUIT) as signals:
            task_status.started()
            async for received in signals:
                logger.warning("Got %s", received.name)
                if self._stop.is_set() or received == signal.SIGQUIT:
                    self._hurry.set()
                self._end()

    def _end(self) -> None:
        self._stop.set()
        self._others_may_start.set()

    async def _keep(self, number: int) -> None:
        """One of the children, through all its processes."""
        while not self._stop.is_set():
            self._restarts.started(number, self._clock())
            code = await self._live(number)
            if code is None or self._stop.is_set():
                return
            delay = self._restarts.ended(number, code, self._clock())
            if delay is None:
                logger.error(
                    "Giving up: the workers end before they are ready, or soon after; look at the error above"
                )
                self._code = code if code > 0 else 1
                self._end()
                return
            logger.info("Worker %d starts again in %.1f s", number, delay)
            with anyio.move_on_after(delay):
                await self._stop.wait()

    async def _live(self, number: int) -> int | None:
        """From start to end: the exit code, negative for a signal's number; None of one that is not to come back."""
        self._starts += 1
        try:
            child = await Child.start(self._command, number, first=self._starts == 1)
        except OSError as error:
            logger.error("Worker %d cannot be started: %s", number, error)
            return -1
        logger.info("Worker %d started, pid %d", number, child.pid)
        with child.connection:
            async with anyio.create_task_group() as group:
                group.start_soon(self._see_it_ready, child)
                group.start_soon(self._see_it_stop, child)
                code = await child.process.wait()
                group.cancel_scope.cancel()
            dismissed = code == 0 and child.was_dismissed()
        if dismissed:
            logger.info("Worker %d, pid %d, was told to stop by remote control, and stays so", number, child.pid)
            return None
        self._log_end(child, code)
        return code

    async def _see_it_ready(self, child: Child) -> None:
        if await child.become_ready():
            self._restarts.ready(child.number)
            self._others_may_start.set()

    async def _see_it_stop(self, child: Child) -> None:
        await self._stop.wait()
        child.stop()
        with anyio.move_on_after(child.grace):
            await self._hurry.wait()
            child.hurry()
        await anyio.sleep(LAST_SECONDS)
        logger.error(
            "Worker %d, pid %d, did not stop and is killed; its messages come back by their leases",
            child.number,
            child.pid,
        )
        child.send_signal(signal.SIGKILL)

    def _log_end(self, child: Child, code: int) -> None:
        if self._stop.is_set():
            if child.ended_well(code):
                return
            self._code = self._code or 1
        elif code == 0 and child.ready:
            logger.info("Worker %d, pid %d, has stopped although nobody asked here", child.number, child.pid)
            return
        how = f"was killed by {signal_name(-code)}" if code < 0 else f"ended with exit code {code}"
        when = "" if child.ready else " before it was ready"
        logger.error("Worker %d, pid %d, %s%s", child.number, child.pid, how, when)


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # a real-time signal
        return f"signal {number}"


class Lifeline:
    """A child's end of the connection."""

    def __init__(self, descriptor: int) -> None:
        os.set_inheritable(descriptor, False)  # programs that tasks start have nothing to do with it
        self._connection = socket.socket(fileno=descriptor)

    def say_ready(self, grace: float) -> None:
        with contextlib.suppress(OSError):  # there is no supervisor any more: `watch` notices
            self._connection.send(f"ready {grace}".encode())

    def say_dismissed(self) -> None:
        with contextlib.suppress(OSError):
            self._connection.send(DISMISSED)

    def watch(self, stop: Callable[[], None], *, grace: float) -> None:
        """Call `stop`, on the running event loop, when the supervisor says so or is gone.

        In a thread, so that a task which blocks the event loop does not outlive the supervisor for ever.
        """
        loop = asyncio.get_running_loop()
        threading.Thread(target=self._watch, args=(loop, stop, grace), name="lifeline", daemon=True).start()

    def _watch(self, loop: asyncio.AbstractEventLoop, stop: Callable[[], None], grace: float) -> None:
        asked = self._heard()
        logger.warning("Told to stop" if asked else "The supervisor is gone: stopping")
        with contextlib.suppress(RuntimeError):  # the loop is closed: the worker is ending already
            loop.call_soon_threadsafe(stop)
        if asked and self._heard():
            return
        time.sleep(grace + LAST_SECONDS)  # a supervisor would kill us now
        logger.error("Not stopped in time: leaving; messages come back by their leases")
        os._exit(1)

    def _heard(self) -> bool:
        try:
            return bool(self._connection.recv(100))
        except ConnectionError:
            return False
