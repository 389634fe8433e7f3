"""Imported when it is used, not before: what many processes never need, and everybody would wait for.

What is named here as text is a dependency like any other: `tests/architecture` reads it too.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


class Lazy:
    """A module that is imported when something in it is first used, as `lazy import` (PEP 810) does it.

    `dead = Lazy("aioretryq.dead")`, and beside it the import under TYPE_CHECKING.
    """

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, attribute: str) -> Any:
        # Kept here, so that it costs the next time no more than with the module itself.
        found = self.__dict__[attribute] = getattr(import_module(self._name), attribute)
        return found


def imported(path: str) -> Any:
    """What is at `package.module:attribute`."""
    module, _, attribute = path.partition(":")
    return getattr(import_module(module), attribute)


def later(package: str, names: Mapping[str, str]) -> Callable[[str], Any]:
    """The `__getattr__` of a package that imports some of its public names when they are asked for (PEP 562)."""

    def find(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = imported(names[name])
        setattr(import_module(package), name, found)
        return found

    return find
