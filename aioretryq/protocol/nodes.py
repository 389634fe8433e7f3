"""Which nodes a request is meant for: names, globs, and regular expressions that cannot take for ever."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from functools import lru_cache

from aioretryq.errors import ProtocolError

LONGEST_PATTERN = 200
MOST_WAYS = 1_000_000
"""Ways in which a regular expression may try a name; that many take a fraction of a second."""

MATCHERS = ("glob", "pcre")
_TOKEN = re.compile(r"\\.|\[\^?\]?(?:\\.|[^\]\\])*\]|\(\?:|\(\?i\)|\(\?|[*+?|)(]|\{[0-9,]*\}|.", re.DOTALL)
_REPEATS = ("*", "+", "?")


def matches(node: str, pattern: str, matcher: str | None) -> bool:
    """Whether the pattern means the node. Raises ProtocolError for one that cannot be used."""
    if len(pattern) > LONGEST_PATTERN:
        raise ProtocolError(f"A pattern of {len(pattern)} characters is too long; {LONGEST_PATTERN} are read.")
    match matcher:
        case "glob" | None:
            return fnmatchcase(node, pattern)
        case "pcre":
            compiled, choices, branches = _compiled(pattern)
            # `re` neither ends early nor lets other threads run meanwhile: what may take long is not even begun.
            if branches * (len(node) + 1) ** choices > MOST_WAYS:
                raise ProtocolError(f"The regular expression {pattern!r} has too many quantifiers or branches.")
            return compiled.match(node) is not None
        case _:
            raise ProtocolError(f"There is no matcher {matcher[:40]!r}; there are {' and '.join(MATCHERS)}.")


@lru_cache(maxsize=64)
def _compiled(pattern: str) -> tuple[re.Pattern[str], int, int]:
    """With the number of its quantifiers and the product of its branches."""
    choices, branches = _count(pattern)
    try:
        return re.compile(pattern), choices, branches
    except (re.error, OverflowError, RecursionError) as error:
        raise ProtocolError(f"{pattern!r} is no regular expression: {error}") from None


def _count(pattern: str) -> tuple[int, int]:
    choices, branches = 0, 1
    before = ""
    for token in _TOKEN.findall(pattern):
        repeats = token in _REPEATS or (len(token) > 1 and token[0] == "{")
        if token == "(?":
            raise ProtocolError(f"The regular expression {pattern!r} has a (?...) that is not read; (?:...) is.")
        if repeats and before == "repeat" and token in ("?", "+"):
            before = ""  # lazy or possessive: part of the quantifier before it
            continue
        if repeats and before == ")" and token != "?":
            raise ProtocolError(f"The regular expression {pattern!r} repeats a group, which may take for ever.")
        branches *= 2 if token == "|" or (repeats and before == ")") else 1
        choices += repeats and before != ")"
        before = "repeat" if repeats else token
    return choices, branches
