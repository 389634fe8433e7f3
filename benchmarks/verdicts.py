"""From the reports of all rounds to the table: medians, the fastest peer, the ratio, whether the bar is reached."""

from __future__ import annotations

import statistics
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from benchmarks.contenders import CEILING, OURS, OURS_SQLITE

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from benchmarks.workloads.model import Figure, Report, Workload

MINE = (OURS, OURS_SQLITE)

TASKS, TOOK = "tasks", "took"
"""What each report has besides its figures: how many tasks there were, and the seconds of the run."""


@dataclass
class Outcome:
    """What the runs of a contender came to: reports, or the reason why it has no figures."""

    reports: list[Report] = field(default_factory=list)
    failure: str | None = None
    missing: bool = False
    """Whether the reason is that it could not be installed."""

    def values(self, key: str) -> list[float]:
        """None at all if any run failed: what is right only sometimes has no figure."""
        return [] if self.failure else [report[key] for report in self.reports if key in report]

    @property
    def tasks(self) -> list[int]:
        """Of each round."""
        return [int(report[TASKS]) for report in self.reports if TASKS in report]

    def median(self, key: str) -> float | None:
        values = self.values(key)
        return statistics.median(values) if values else None


Outcomes = dict[str, Outcome]


@dataclass(frozen=True)
class Line:
    """A row of the final table."""

    workload: str
    title: str
    figure: str
    decimals: int
    peer: str | None
    peer_value: float | None
    ours: float | None
    ratio: float | None
    """How many times better ours is."""
    bar: str
    reached: bool | None
    """None without a bar."""

    def as_json(self) -> dict[str, Any]:
        return asdict(self)


def lines(name: str, workload: Workload, title: str, outcomes: Mapping[str, Outcome]) -> Iterator[Line]:
    mine = next((outcome for who, outcome in outcomes.items() if who in MINE), Outcome())
    for figure in workload.figures:
        ours = mine.median(figure.key)
        peer, best = fastest(figure, outcomes)
        ratio = times_better(figure, ours, best)
        reached = None
        if figure.bar is not None:
            more = figure.more_is_better
            reached = ours is not None and figure.bar.reached(ours, ratio, more_is_better=more)
        bar = "" if figure.bar is None else figure.bar.text(more_is_better=figure.more_is_better)
        yield Line(name, title, figure.title, figure.decimals, peer, best, ours, ratio, bar, reached)


def fastest(figure: Figure, outcomes: Mapping[str, Outcome]) -> tuple[str | None, float | None]:
    """The best of the peers; the ceiling is none."""
    if figure.only_ours:
        return None, None
    found = {
        name: median
        for name, outcome in outcomes.items()
        if name not in (*MINE, CEILING) and (median := outcome.median(figure.key)) is not None
    }
    if not found:
        return None, None
    best = (max if figure.more_is_better else min)(found, key=lambda name: found[name])
    return best, found[best]


def times_better(figure: Figure, ours: float | None, peer: float | None) -> float | None:
    if ours is None or peer is None:
        return None
    above, below = (ours, peer) if figure.more_is_better else (peer, ours)
    return above / below if below else None
