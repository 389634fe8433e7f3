"""What a workload is: a function that does one run of one contender, and the figures that come of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from benchmarks.stage import Stage

Report = dict[str, float]
"""Figures by key. One that makes no sense for a contender is left out."""


@dataclass(frozen=True)
class Bar:
    """What is to be reached."""

    times: float | None = None
    """So many times better than the fastest peer of the run."""
    limit: float | None = None
    """At most that (at least, where more is better)."""

    def reached(self, ours: float, ratio: float | None, *, more_is_better: bool) -> bool:
        """`ratio`: how many times better than the fastest peer; None without one."""
        if self.times is not None and (ratio is None or ratio < self.times):
            return False
        return self.limit is None or (ours >= self.limit if more_is_better else ours <= self.limit)

    def text(self, *, more_is_better: bool) -> str:
        parts = [] if self.times is None else [f">= {self.times:g}x"]
        if self.limit is not None:
            parts.append(f"{'>=' if more_is_better else '<='} {self.limit:g}")
        return ", ".join(parts)


@dataclass(frozen=True)
class Figure:
    key: str
    title: str
    decimals: int = 0
    more_is_better: bool = False
    bar: Bar | None = None
    only_ours: bool = False
    """Not compared with peers: it says something of a contender's own, such as a ratio of two of its figures."""


@dataclass(frozen=True)
class Workload:
    title: str
    """With `{tasks}` to fill in."""
    run: Callable[[Stage, int], Mapping[str, float]]
    figures: tuple[Figure, ...]
    contenders: tuple[str, ...]
    """Who takes part."""
    tasks: int
    repeat: bool = True
    """Whether rounds are repeated."""
    shrinks: bool = False
    """Whether its figures do not change with the number of tasks: then a slow peer may have fewer."""
    of_peers: int | None = None
    """With which number peers begin, where all of them are slow."""


def rate(title: str = "tasks/s", times: float | None = None) -> Figure:
    return Figure("rate", title, more_is_better=True, bar=None if times is None else Bar(times=times))
