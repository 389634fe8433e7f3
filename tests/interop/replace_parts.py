"""Tasks that others take the place of, by the way in which they do: what both halves of the replace tests share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_WAYS: dict[str, Callable[[int, Any, Any], Any]] = {
    "call": lambda n, s, c: s("add", n, 1),
    "chain": lambda n, s, c: c.chain(s("add", n, 1), s("add", 1)),
    "chord": lambda n, s, c: c.chord([s("add", n), s("add", 1)], s("total")),
    "group": lambda n, s, c: c.group([s("add", n), s("add", 1)]),
    "group of one": lambda n, s, c: c.group([s("add", n)]),
    "chain that ends in a group": lambda n, s, c: c.chain(s("add", n), c.group([s("add", 1), s("add", 2)])),
    "chord of a chain": lambda n, s, c: c.chord([s("add", n), s("add", 1)], c.chain(s("total"), s("add", 1))),
    "twice": lambda n, s, c: c.chain(s("instead", n, "chain"), s("add", 1)),
    "fails": lambda n, s, c: c.chain(s("add", n, 1), s("fail")),
    "chord that fails": lambda n, s, c: c.chord([s("fail"), s("add", 1)], s("total")),
}
WAYS = list(_WAYS)


def instead(way: str, value: int, sign: Callable[..., Any], canvas: Any) -> Any:
    """A workflow that adds something to a number; composed with the `canvas` of either library."""
    return _WAYS[way](value, sign, canvas)
