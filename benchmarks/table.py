"""Tables, as Markdown that is aligned: for the terminal and for files."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from benchmarks.contenders import CEILING
from benchmarks.verdicts import MINE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from benchmarks.verdicts import Line, Outcome
    from benchmarks.workloads.model import Figure, Workload

REACHED = {True: "reached", False: "MISSED", None: ""}


def final(found: Iterable[Line]) -> str:
    """The whole of it: fastest peer, ours, ratio, bar."""
    head = ["workload", "figure", "fastest peer", "ours", "times better", "bar", ""]
    rows, last = [head], None
    for line in found:
        peer = "" if line.peer is None else f"{line.peer} {shown(line.peer_value, line.decimals)}"
        ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
        title, last = ("" if line.title == last else line.title), line.title
        ours = shown(line.ours, line.decimals)
        rows.append([title, line.figure, peer, ours, ratio, line.bar, REACHED[line.reached]])
    return "\n".join(aligned(rows, left=3))


def details(workload: Workload, outcomes: Mapping[str, Outcome]) -> str:
    """Each contender's figures, ours first, the rest by the first figure; then who has none, and why."""
    first = workload.figures[0]
    measured = [name for name, outcome in outcomes.items() if outcome.median(first.key) is not None]
    measured.sort(key=lambda name: (name not in MINE, name != CEILING, rank(first, outcomes[name])))
    head = ["", *[figure.title for figure in workload.figures]]
    body = [[name, *[cell(figure, outcomes[name]) for figure in workload.figures]] for name in measured]
    notes = [f"- {name}: {outcome.failure}" for name, outcome in outcomes.items() if outcome.failure]
    notes += [
        f"- {name}: {', '.join(f'{tasks:,}' for tasks in outcome.tasks)} tasks in its rounds"
        for name, outcome in outcomes.items()
        if len(set(outcome.tasks)) > 1
    ]
    return "\n".join([*aligned([head, *body], left=1), *(["", *notes] if notes else [])])


def rank(figure: Figure, outcome: Outcome) -> float:
    median = outcome.median(figure.key) or 0.0
    return -median if figure.more_is_better else median


def cell(figure: Figure, outcome: Outcome) -> str:
    """The median, and if there were several runs, the lowest and the highest."""
    values = outcome.values(figure.key)
    if not values:
        return "-"
    texts = [shown(value, figure.decimals) for value in (statistics.median(values), min(values), max(values))]
    return texts[0] if texts[1] == texts[2] else f"{texts[0]} ({texts[1]}-{texts[2]})"


def shown(value: float | None, decimals: int) -> str:
    return "none" if value is None else f"{value:,.{decimals}f}"


def aligned(rows: Sequence[Sequence[str]], left: int) -> Iterator[str]:
    """The first columns to the left, numbers to the right."""
    widths = [max(3, *[len(text) for text in column]) for column in zip(*rows, strict=True)]
    for at, row in enumerate(rows):
        cells = [
            text.ljust(width) if column < left else text.rjust(width)
            for column, (text, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield f"| {' | '.join(cells)} |"
        if at == 0:
            rule = ["-" * width if column < left else "-" * (width - 1) + ":" for column, width in enumerate(widths)]
            yield f"| {' | '.join(rule)} |"
