"""Values of settings by their type hints: what fits, and what a text says. Pure."""

from __future__ import annotations

import json
import re
import types
import typing
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, get_args, get_origin


def fit(hint: Any, value: Any) -> Any:
    """The value as it is stored; TypeError if it is none of that type."""
    origin = get_origin(hint)
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        return _fit_union(get_args(hint), value)
    if origin is Literal:
        return _require(value in get_args(hint), value)
    if origin is dict:
        return dict(_require(isinstance(value, Mapping), value))
    if origin is tuple:
        items = _require(isinstance(value, list | tuple | set | frozenset), value)
        return tuple(fit(get_args(hint)[0], item) for item in items)
    if hint is float and isinstance(value, timedelta):
        return value.total_seconds()
    if hint is float:
        return float(_require(isinstance(value, int | float) and not isinstance(value, bool), value))
    if hint is int:
        return _require(isinstance(value, int) and not isinstance(value, bool), value)
    return _require(isinstance(value, hint), value)


def _fit_union(members: tuple[Any, ...], value: Any) -> Any:
    for member in members:
        try:
            return fit(member, value)
        except TypeError:
            continue
    raise TypeError


def _require(fits: bool, value: Any) -> Any:
    if not fits:
        raise TypeError
    return value


_WORDS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def members_of(hint: Any) -> tuple[Any, ...]:
    """The types that a union admits, or the one there is."""
    return get_args(hint) if get_origin(hint) in (typing.Union, types.UnionType) else (hint,)


def read(hint: Any, text: str) -> Any:
    """Text as a value of that type; ValueError if it is none."""
    if hint is bool:
        if text.lower() not in _WORDS:
            raise ValueError
        return _WORDS[text.lower()]
    if hint is types.NoneType:
        if text.lower() not in ("", "none", "null"):
            raise ValueError
        return None
    if hint in (int, float):
        return hint(text)
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ValueError
        return text
    if hint == tuple[str, ...] and not text.startswith("["):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    return text if hint is str else json.loads(text)


def in_words(hint: Any) -> str:
    """The type, as an error message calls it."""
    if get_origin(hint) is Literal:
        return ", ".join(map(str, get_args(hint)))
    known = {bool: "yes or no", types.NoneType: "nothing", int: "a whole number", float: "a number", str: "a text"}
    return known.get(hint) or ("names with commas" if hint == tuple[str, ...] else "JSON")


def without_password(url: str) -> str:
    """For messages. What cannot be parsed may hold a password anywhere: cut at the last "@", and at the query."""
    before, at, rest = url.rpartition("@")
    slashes = re.match(r"[^@/]*//", before)
    return (f"{slashes[0] if slashes else ''}***@{rest}" if at else url).partition("?")[0]
