"""Servers that are gone for a while: one operation looks whether they are back, the others wait for its news."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

import anyio

from aioretryq.errors import UnavailableError
from aioretryq.retry import RECONNECT_POLICY

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

logger = logging.getLogger("aioretryq")
T = TypeVar("T")

SLOW = 0.5
"""Seconds after which a probe that is still under way no longer keeps the next one from trying."""

REPEATED = 5.0
"""Seconds within which an outage that comes again is not told again: a flapping server must not fill the log."""


REMINDER = 300.0
"""Seconds after which an outage that goes on is told again, and sooner when its error becomes another one."""


class Outage:
    """Of one server, for all that use it on one event loop: of any number of operations one at a time is tried.

    One log line when the outage begins, one when it ends, and now and then one in between; `quiet` makes them debug
    lines, for a second view on the same server.
    """

    def __init__(self, name: str, *, quiet: bool = False, clock: Callable[[], float] = time.monotonic) -> None:
        self._name = name
        self._level = logging.DEBUG if quiet else logging.WARNING
        self._clock = clock
        self._since: float | None = None
        self._told = False  # of this outage
        self._last_told = float("-inf")
        self._last_text = ""
        self._ended = 0  # outages
        self._failed = 0  # probes of this outage
        self._probe: object | None = None  # the one under way
        self._line: deque[asyncio.Future[object | None]] = deque()
        self._back = asyncio.Event()

    async def survive(self, operation: Callable[[], Awaitable[T]]) -> T:
        """The operation's value, however long the server is gone: only cancellation ends the attempts.

        While it is gone, operations take turns to probe it, after a backoff with full jitter that grows to a
        second; the first that succeeds lets all go on at once.
        """
        while True:
            probe = await self._turn()
            slow = asyncio.get_running_loop().call_later(SLOW, self._pass_on, probe) if probe else None
            ended = self._ended
            try:
                value = await operation()
            except UnavailableError as error:
                self._failed += probe is not None
                # Begun before the server came back, it has only learnt of the outage that is over.
                if ended == self._ended:
                    self.down(error)
            else:
                self.up()
                return value
            finally:
                if slow is not None:
                    slow.cancel()
                    self._pass_on(probe)

    def down(self, error: BaseException, retries: int = 0, delay: float = 0.0) -> None:
        """The server is gone; may be told again and again."""
        now = self._clock()
        if self._since is None:
            self._since = now
            self._back.clear()
        text = str(error)
        if not self._told and now - self._last_told >= REPEATED:
            self._tell(now, text, "%s is gone, trying again until it is back: %s", self._name, text)
        elif self._told and now - self._last_told >= (REMINDER if text == self._last_text else REPEATED):
            seconds = now - self._since
            self._tell(now, text, "%s is still gone after %.0f s: %s", self._name, seconds, text)

    def _tell(self, now: float, text: str, line: str, *args: object) -> None:
        self._told, self._last_told, self._last_text = True, now, text
        logger.log(self._level, line, *args)

    def up(self) -> None:
        """The server is there."""
        if self._since is None:
            return
        level = self._level if self._told else logging.DEBUG
        logger.log(level, "%s is back after %.1f s", self._name, self._clock() - self._since)
        self._since, self._told, self._failed = None, False, 0
        self._ended += 1
        self._back.set()
        while self._line:
            _answer(self._line.popleft(), None)

    async def _turn(self) -> object | None:
        """Wait until the server is back (None), or until it is this caller's turn to probe (then its proof)."""
        if self._since is None:
            return None
        if self._probe is None:
            mine: object | None = object()
            self._probe = mine
        else:
            turn: asyncio.Future[object | None] = asyncio.get_running_loop().create_future()
            self._line.append(turn)
            try:
                mine = await turn
            except asyncio.CancelledError:
                self._leave(turn)
                raise
        if mine is None:
            return None
        try:
            with anyio.move_on_after(RECONNECT_POLICY.next_delay(self._failed)):
                await self._back.wait()
        except BaseException:
            self._pass_on(mine)
            raise
        return mine

    def _leave(self, turn: asyncio.Future[object | None]) -> None:
        if turn in self._line:
            self._line.remove(turn)
        elif turn.done() and not turn.cancelled():
            self._pass_on(turn.result())  # cancelled at the moment it was given the turn

    def _pass_on(self, probe: object | None) -> None:
        """This probe is over, or takes too long: the next in line has the turn. The line is first come, first served,
        for an operation that never succeeds (a full server refuses some) must not keep the others from trying."""
        if probe is None or self._probe is not probe:
            return
        self._probe = None
        while self._line and self._probe is None:
            mine = object()
            if _answer(self._line.popleft(), mine):
                self._probe = mine


def _answer(turn: asyncio.Future[object | None], answer: object | None) -> bool:
    if turn.done():
        return False
    turn.set_result(answer)
    return True
