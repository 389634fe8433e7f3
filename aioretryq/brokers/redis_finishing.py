"""Finishes as `finish.lua` takes them."""

from __future__ import annotations

from itertools import chain
from math import ceil
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from redis.exceptions import TryAgainError

from aioretryq import states
from aioretryq.brokers.redis_keys import Targets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.backends.redis_chords import RedisChords
    from aioretryq.brokers.redis_keys import Keys
    from aioretryq.message import ChordClaim, ChordPart, Finish, StoredResult


LARGE = 4096
"""Bytes of a document from which on it is put under a key of its own first, which the script makes the result's: on
its way through Lua it would be hashed to the last byte (100 kB: 140 us), and copied four times."""

PARCEL_LIFE = 60_000
"""Milliseconds: the script follows at once, and deletes those it does not need."""

Parcel = tuple[str, str, bytes, str, int]
"""The command that brings it."""


@runtime_checkable
class RedisResults(Protocol):
    """A result backend on a Redis server: where, and under which keys."""

    display_url: str

    chords: RedisChords

    def key(self, task_id: str) -> str: ...


class _Parts:
    """Parts of chords, and chords that are closed, as records: chords are numbered, each with the seconds that it is
    to live, and whether a part brings its body."""

    def __init__(self, results: RedisResults | None) -> None:
        self._results = results
        self._numbers: dict[str, int] = {}
        self.keys: list[str] = []
        self._known: list[int] = []

    def _number(self, group_id: str, ttl: float | None) -> int:
        number = self._numbers.get(group_id)
        if number is None:
            assert self._results is not None
            number = self._numbers[group_id] = len(self._numbers) + 1
            self.keys += self._results.chords.counting_keys(group_id)
            self._known += (0 if ttl is None else max(1, ceil(ttl)), 0)
        return number

    def encode(self, part: ChordPart) -> tuple[int, str, bytes]:
        number = self._number(part.group_id, part.ttl)
        if part.body is not None:
            self._known[2 * number - 1] = 1
        position = "+inf" if part.index is None else part.index
        return -number, f"{part.task_id}:{position}", part.content

    def closed(self, claim: ChordClaim) -> tuple[str, str, str]:
        return f"c{self._number(claim.group_id, None)}", claim.group_id, claim.token

    @property
    def head(self) -> list[Any]:
        if self._results is None or not self._known:
            return [0]
        chords = self._results.chords
        return [len(self._numbers), int(chords.ordered), chords.index, *self._known]


def script(
    keys: Keys, finishes: Sequence[Finish], batch: Sequence[int], results: RedisResults | None, *, large: int = LARGE
) -> tuple[list[str], list[Any], list[Parcel]]:
    """Keys and arguments, and the commands that go ahead with documents of so many bytes.

    `results` is where results and parts of chords go, if finishes bring some.
    """
    targets, parts, found = Targets(keys), _Parts(results), []
    parcels: list[Parcel] = []
    args: list[Any] = []
    for finish in finishes:
        tag = "" if finish.delivery is None else finish.delivery.tag
        if (result := finish.result) is None:
            args += (tag, 0, "-")
        else:
            assert results is not None
            found.append(results.key(result.task_id))
            document = result.document
            if len(document) >= large:
                parcels.append(("SET", f"{keys.finished}:{batch[0]}:{len(parcels)}", document, "PX", PARCEL_LIFE))
                document = b""
            args += (tag, 0, _life(result), document, int(result.yields_to(states.REVOKED)))
        number = len(args) - (2 if result is None else 4)
        for claim in finish.closes:
            args += parts.closed(claim)
            args[number] += 1
        for part in finish.parts:
            args += parts.encode(part)
            args[number] += 1
        if finish.send or finish.dead is not None:
            records = [targets.encode(message) for message in finish.send]
            if finish.dead is not None:
                records.append((0, finish.dead.id, finish.dead.content))
            args[number] += len(records)
            args += chain.from_iterable(records)
    names = [*keys.held, *keys.dead, keys.finished, *targets.numbers, *parts.keys, *found]
    names += [parcel[1] for parcel in parcels]
    return names, [targets.kinds, len(parcels), *batch, *parts.head, *args], parcels


def receipt(finish: Finish) -> str:
    """What tells it from all others: the message's, or the right to send what it sends."""
    delivery = finish.delivery
    return delivery.tag if delivery is not None else " ".join(claim.token for claim in finish.closes)


def lost_parcel(error: BaseException) -> bool:
    """Whether a full server evicted one, to make room for the script that was to come: it would do so again."""
    return isinstance(error.__cause__, TryAgainError)


def _life(result: StoredResult) -> int | str:
    return "" if result.ttl is None else max(1, ceil(result.ttl * 1000))
