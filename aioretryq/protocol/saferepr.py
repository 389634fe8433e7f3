"""`repr` that neither fails nor grows: for log lines, `argsrepr` headers and error messages."""

from __future__ import annotations

from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_MAX_DEPTH = 20
_SMALL = 16
_SHORT = 64
_ATOMS = frozenset({int, float, bool, type(None)})
_BRACKETS: dict[type, tuple[str, str]] = {
    list: ("[", "]"),
    tuple: ("(", ")"),
    dict: ("{", "}"),
    set: ("{", "}"),
    frozenset: ("frozenset({", "})"),
}
_EMPTY: dict[type, str] = {set: "set()", frozenset: "frozenset()"}


def saferepr(value: object, limit: int = 1024) -> str:
    """`repr(value)` if that is short; else its beginning and `...`, never more than `limit` characters.

    Built-in containers and texts are read only as far as needed, and an object with a broken `__repr__`
    is shown by its class. Never raises.
    """
    kind = type(value)
    if (kind is tuple or kind is dict) and _is_small(value):
        try:
            text = repr(value)  # `_guarded` takes longer than that
        except ValueError:  # an integer of thousands of digits
            text = f"<{kind.__name__}: repr failed>"
    else:
        pieces: list[str] = []
        size = 0
        for piece in _pieces(value, limit, ()):
            pieces.append(piece)
            size += len(piece)
            if size > limit:
                break
        text = "".join(pieces)
    return text if len(text) <= limit else text[: max(limit - 3, 0)] + "..."[:limit]


def inline(text: object, limit: int = 200) -> str:
    """A name or an id as a part of one line of a log: as it is, or escaped where it would break the line."""
    if type(text) is str and len(text) <= limit and text.isprintable():  # nearly all
        return text
    shown = saferepr(text, limit)
    return shown[1:].rstrip(shown[0]) if type(text) is str else shown


def _is_small(value: Any) -> bool:
    # The usual arguments of a task: then the C repr is several times faster than our own walk.
    if len(value) > _SMALL:
        return False
    if type(value) is dict:
        for key in value:
            if type(key) is not str or len(key) >= _SHORT:
                return False
        value = value.values()
    return _are_small(value)


def _are_small(items: Iterable[Any]) -> bool:
    for item in items:
        kind = type(item)
        if kind not in _ATOMS and (kind is not str or len(item) >= _SHORT):
            return False
    return True


def _guarded(value: object) -> str:
    # A user's __repr__ may raise anything, and a log line must not depend on it.
    with suppress(Exception):
        return repr(value)
    return f"<{type(value).__name__}: repr failed>"


def _pieces(value: Any, limit: int, parents: tuple[int, ...]) -> Iterator[str]:
    kind = type(value)
    if kind is str or kind is bytes:
        yield repr(value[: limit + 1])
    elif kind not in _BRACKETS:
        yield _guarded(value)
    elif not value and kind in _EMPTY:
        yield _EMPTY[kind]
    elif id(value) in parents or len(parents) >= _MAX_DEPTH:
        opening, closing = _BRACKETS[kind]
        yield f"{opening}...{closing}"
    else:
        yield from _container(value, limit, (*parents, id(value)))


def _container(value: Any, limit: int, parents: tuple[int, ...]) -> Iterator[str]:
    opening, closing = _BRACKETS[type(value)]
    yield opening
    items: Iterable[Any] = value.items() if type(value) is dict else value
    for index, item in enumerate(islice(items, limit)):  # each item takes at least one character
        if index:
            yield ", "
        if type(value) is dict:
            yield from _pieces(item[0], limit, parents)
            yield ": "
            yield from _pieces(item[1], limit, parents)
        else:
            yield from _pieces(item, limit, parents)
    yield ",)" if type(value) is tuple and len(value) == 1 else closing
