"""Chords in Redis, in the keys of Celery 5.7: workers of both kinds count the parts of one header.

With G = `celery-taskset-meta-<group id>`: `G.s` is how many parts return, `G.t` how many were added since, `G.j` what
they returned (a sorted set by index, or a list), `G.d` who was counted already, `G.c` who may send the body, then
"done"; G itself is the tree of the header's results, where a part is a group. In `G.d` our workers also note which of
them will come back to send the body, and who has added parts.

Keys of our own are `aioretryq.chords`, which orders the open chords by when to look whether they are overdue, and
`G.r`, what is known of one then (see chord_watch.lua). They go with the chord, and live a little longer than it.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, Any

from aioretryq.backends import chord_rules as rules
from aioretryq.drivers.redis import flags
from aioretryq.message import OverdueChord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.drivers.redis_line import Script
    from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart

PAGE = 1000
"""Parts in one answer at most,"""

PAGE_BYTES = 2**20
"""and about so many bytes: an answer has a deadline."""

LOOKED_AT = 250
"""Chords that one step of looking for overdue ones goes through: a millisecond or two of the server."""

SCRIPTS = (
    "open_chords",
    "add_parts",
    "overdue_chords",
    "count_parts",
    "read_parts",
    "hold_chords",
    "close_chords",
)


_HELD = {ord("0"): False, ord("1"): True, ord("2"): None}


class RedisChords:
    def __init__(self, prefix: str, *, ordered: bool) -> None:
        """`prefix` is that of all keys."""
        self.index = f"{prefix}aioretryq.chords"
        self._prefix = f"{prefix}celery-taskset-meta-"
        self.ordered = ordered

    def _keys(self, group_id: str, *kinds: str) -> list[str]:
        return [f"{self._prefix}{group_id}{kind}" for kind in kinds]

    async def open(self, script: Script, openings: Sequence[ChordOpening], *, amend: bool = False) -> list[bool]:
        """All in one step. `amend`: only those that are open. Which of them were changed."""
        keys = [self.index]
        args: list[Any] = [int(amend), self._prefix]
        for opening in openings:
            keys += self.counting_keys(opening.group_id)
            args += [opening.group_id, _or_empty(opening.size), _seconds(opening.ttl), opening.body]
            args += [_or_empty(opening.sending), opening.token]
        return flags(await script(keys, args))

    async def add(self, script: Script, additions: Sequence[ChordAddition]) -> None:
        keys = [key for each in additions for key in self._keys(each.group_id, ".t", ".s", ".d", ".c")]
        await script(keys, [value for each in additions for value in (each.task_id, _seconds(each.ttl))])

    async def overdue(self, script: Script, patience: float, limit: int) -> list[OverdueChord]:
        args = [self._prefix, int(self.ordered), patience, limit, LOOKED_AT, rules.ENOUGH]
        while True:  # step by step, for the server's other clients
            more, *found = await script([self.index], args)
            if found or not more:
                return [_overdue(fields) for fields in found]

    def counting_keys(self, group_id: str) -> list[str]:
        """What counting a part reads and writes."""
        return self._keys(group_id, ".j", ".t", ".s", ".d", "", ".c", ".r")

    async def count(self, script: Script, parts: Sequence[ChordPart]) -> list[bool]:
        keys = [self.index]
        args: list[Any] = [int(self.ordered)]
        for part in parts:
            keys += self.counting_keys(part.group_id)
            position = "+inf" if part.index is None else part.index
            args += [part.group_id, part.task_id, part.content, position, _seconds(part.ttl)]
            args += [_milliseconds(part.hold), part.token, int(part.returns), part.body or b"", part.why or ""]
        return flags(await script(keys, args))

    async def parts(self, script: Script, group_id: str, limit: int | None) -> list[bytes]:
        keys = self._keys(group_id, ".j")
        found: list[bytes] = []
        more, size = True, 0
        while more:
            more, page = await script(keys, [int(self.ordered), len(found), PAGE, PAGE_BYTES])
            found += page
            size += sum(map(len, page))
            rules.check_size(group_id, size, limit)
        return found

    async def hold(self, script: Script, claims: Sequence[ChordClaim], hold: float) -> list[bool | None]:
        if not claims:
            return []
        keys = [key for claim in claims for key in self._keys(claim.group_id, ".c", ".s", ".r")]
        answers: bytes = await script(keys, [_milliseconds(hold), *(claim.token for claim in claims)])
        return [_HELD[answer] for answer in answers]

    async def close(self, script: Script, claims: Sequence[ChordClaim]) -> None:
        keys = [self.index]
        args: list[Any] = []
        for claim in claims:
            keys += self.counting_keys(claim.group_id)
            args += [claim.group_id, claim.token]
        if claims:
            await script(keys, args)


def _overdue(fields: Sequence[Any]) -> OverdueChord:
    group_id, body, why, told, returned, size, age, problem = fields
    known = None if size < 0 else size
    return OverdueChord(group_id.decode(), body, why.decode(), told, returned, known, float(age), problem.decode())


def _or_empty(value: float | None) -> Any:
    return "" if value is None else value


def _milliseconds(hold: float) -> int:
    return max(1, ceil(hold * 1000))


def _seconds(ttl: float | None) -> int:
    """0 for ever."""
    return 0 if ttl is None else max(1, ceil(ttl))
