"""Commands that an application adds to the remote control of its workers."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.errors import ConfigError, UnknownSettingError, did_you_mean
from aioretryq.protocol.commands import BY_NAME, Command, Kind

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue

Function = Callable[..., Any]

OPTIONS = ("name", "args", "variadic", "signature", "help", "alias", "visible", "default_timeout")
"""As Celery's decorators take them."""


@dataclass(frozen=True, slots=True)
class CommandState:
    """What a command of an application is given: the queue, the node's name, and the worker itself."""

    app: TaskQueue
    hostname: str
    worker: Any


class CustomCommand(Struct, frozen=True):
    described: Command
    function: Function


class Commands:
    """Those of one queue, by name; aliases included."""

    def __init__(self) -> None:
        self.found: dict[str, CustomCommand] = {}

    def decorator(self, kind: Kind, function: Function | None, options: dict[str, Any]) -> Any:
        for option in options:
            if option not in OPTIONS:
                known = did_you_mean(option, OPTIONS)
                raise UnknownSettingError(f"{kind}_command has no option {option!r}.{known}")
        if function is None:
            return functools.partial(self._add, kind, options)
        return self._add(kind, options, function)

    def _add(self, kind: Kind, options: dict[str, Any], function: Function) -> Function:
        name = options.get("name") or function.__name__
        if name in BY_NAME:
            raise ConfigError(f"{name!r} is a command of aioretryq; give yours another name.")
        described = Command(
            name,
            kind,
            options.get("help") or (inspect.getdoc(function) or "").partition("\n")[0],
            args=_args(name, options.get("args") or ()),
            variadic=options.get("variadic"),
            signature=options.get("signature") or "",
            alias=options.get("alias"),
            visible=options.get("visible", True),
            pairs=True,
        )
        self.found[name] = CustomCommand(described, function)
        if described.alias is not None:
            self.found[described.alias] = self.found[name]
        return function


def _args(name: str, args: Sequence[tuple[str, Any]]) -> tuple[tuple[str, Callable[[str], Any]], ...]:
    found = []
    for entry in args:
        if not (isinstance(entry, tuple | list) and len(entry) == 2 and isinstance(entry[0], str)):
            raise ConfigError(f"Command {name!r}: args is a list like [('n', int)], not {args!r}.")
        found.append((entry[0], entry[1] or str))
    return tuple(found)
