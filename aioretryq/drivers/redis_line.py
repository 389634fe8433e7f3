"""A line to Redis for many callers: one connection, made anew by the next command when it is lost."""

from __future__ import annotations

import asyncio
import contextvars
import hashlib
import re
from importlib import resources
from typing import TYPE_CHECKING, Any

from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import DataError, NoScriptError, RedisError, ResponseError

from aioretryq.drivers.redis import DRIVER_ERRORS
from aioretryq.drivers.redis_wire import Wire, not_sent, open_wire

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.drivers.redis import RedisServer


_QUEUED = b"QUEUED"
"""The answer within a MULTI, and never that of one of our scripts."""

_INCLUDE = re.compile(r"^-- include (\S+)$", re.MULTILINE)


class Line:
    """Never repeats a command: whether that does harm, only callers know.

    The next command after a loss connects again. All who want to send meanwhile wait for the same attempt, and are
    told the same when it fails.
    """

    def __init__(self, server: RedisServer, role: str) -> None:
        self._server = server
        self._role = role
        self._wire: Wire | None = None
        self._demoted: list[Wire] = []  # before that one, to a master of the past, and not answered to the end
        self._connecting: asyncio.Task[Wire | RedisError | OSError] | None = None
        self._closed = False

    async def check(self) -> None:
        """Connect; ConfigError if the address, login, database or server version is wrong for us."""
        answer = await self.ask(("PING",))
        if not isinstance(answer, DRIVER_ERRORS):
            answer = await self.ask(("INFO", "server"))
            if isinstance(answer, ResponseError):
                return  # INFO is not for every user (ACL); the scripts will tell
        if isinstance(answer, DRIVER_ERRORS):
            raise self._server.misfit(answer) from answer
        self._server.check_version(answer)

    async def call(self, *command: Any) -> Any:
        """The answer, or the adapter's own exceptions."""
        return self.told(await self.ask(command))

    async def ask(self, command: Sequence[Any]) -> Any:
        """The answer; the driver's errors too are returned and not raised."""
        # Nearly always it is there, and one coroutine less.
        wire = self._wire if self._wire is not None and self._wire.open else await self._ready()
        if not isinstance(wire, Wire):
            return wire
        try:
            answer = wire.send(command)
        except DataError as error:
            return error
        return await answer

    async def call_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """The answers of commands that are sent together; the first error is raised when all are there."""
        return [self.told(answer) for answer in await self.ask_all(commands)]

    async def transaction(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """All of them or none, with nobody's commands in between."""
        answers = [self.told(answer) for answer in await self.ask_all([("MULTI",), *commands, ("EXEC",)])]
        return [self.told(answer) for answer in answers[-1]]

    async def ask_all(self, commands: Sequence[Sequence[Any]]) -> list[Any]:
        """As `ask`, with nobody's commands in between; one error alone if none of them was sent."""
        wire = await self._ready()
        if not isinstance(wire, Wire):
            return [wire]
        try:
            answers = wire.send_all(commands)
        except DataError as error:
            return [error]
        return [await answer for answer in answers]

    def told(self, answer: Any) -> Any:
        """What it was, raised if it is an error."""
        if isinstance(answer, DRIVER_ERRORS):
            raise self._server.translate(answer) from answer
        return answer

    async def close(self) -> None:
        self._closed = True
        # A cancellation may be swallowed while it connects: cancel until it is over.
        while self._connecting is not None and not self._connecting.done():
            self._connecting.cancel()
            await asyncio.wait([self._connecting], timeout=0.1)
        self.give_up(RedisConnectionError("the connection was closed here"))

    def give_up(self, failure: RedisError) -> None:
        """End the connection for that reason; the next command makes a new one."""
        for wire in (*self._demoted, *((self._wire,) if self._wire is not None else ())):
            wire.fail(failure)

    async def _ready(self) -> Wire | RedisError | OSError:
        if self._wire is not None and self._wire.open:
            return self._wire
        connecting = self._connecting
        if connecting is None or connecting.done():
            connecting = asyncio.create_task(
                # In a context of its own: the connection would keep that of its first caller.
                self._connect(),
                name=f"aioretryq connect {self._role}",
                context=contextvars.Context(),
            )
            self._connecting = connecting
        # Whoever is cancelled leaves the attempt to the others.
        await asyncio.wait([connecting])
        return _closed() if connecting.cancelled() else connecting.result()

    async def _connect(self) -> Wire | RedisError | OSError:
        """An error is returned, not raised: it is told to many, or to nobody."""
        if self._closed:
            return _closed()
        try:
            wire = await open_wire(self._server, self._role)
        except DRIVER_ERRORS as error:
            return error
        if self._wire is not None:
            self._demoted = [older for older in (*self._demoted, self._wire) if not older.lost]
        self._wire = wire
        if self._closed:
            self._wire.close()
        return self._wire


def _closed() -> RedisError:
    return not_sent(RedisConnectionError("the connection was closed here"))


class Script:
    """A Lua script on a server, called by its digest; by its source where the server does not know it (any more)."""

    __slots__ = ("_digest", "_line", "_source")

    def __init__(self, line: Line, source: str) -> None:
        self._line = line
        self._source = source
        self._digest = hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest()

    async def __call__(self, keys: Sequence[str], args: Sequence[Any], *, ahead: Sequence[Sequence[Any]] = ()) -> Any:
        """`ahead` are commands that are sent just before it. If it fails after one of them did, that is why."""
        command = ("EVALSHA", self._digest, len(keys), *keys, *args)
        *before, answer = await self._line.ask_all([*ahead, command]) if ahead else [await self._line.ask(command)]
        if isinstance(answer, NoScriptError):
            # Not SCRIPT LOAD, which is not for every user (ACL). The server knows it from now on.
            answer = await self._line.ask(("EVAL", self._source, *command[2:]))
        if answer == _QUEUED:
            # Somebody's MULTI is open: all who send would be told so, and nothing be done.
            answer = RedisConnectionError("a transaction is open on the connection")
            self._line.give_up(answer)
        if before and isinstance(answer, DRIVER_ERRORS):
            answer = next((each for each in before if isinstance(each, DRIVER_ERRORS)), answer)
        return self._line.told(answer)


def load_scripts(line: Line, package: str, *names: str) -> dict[str, Script]:
    """Those packaged in `<package>/lua`."""
    return {name: Script(line, source_of(package, name)) for name in names}


def source_of(package: str, name: str) -> str:
    """Of a script packaged in `<package>/lua`. A line `-- include <file>` stands for a file of `drivers/lua`."""
    text = (resources.files(package) / "lua" / f"{name}.lua").read_text()
    return _INCLUDE.sub(_included, text)


def _included(found: re.Match[str]) -> str:
    return (resources.files("aioretryq.drivers") / "lua" / found[1]).read_text()
