"""Pictures of `results/growth.json`: `python -m benchmarks.plots`, or `make plots`.

Needs matplotlib, of the extra `bench`.
"""

from __future__ import annotations

import importlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click

from benchmarks.contenders import OURS
from benchmarks.environments import ROOT
from benchmarks.growth import RESULTS
from benchmarks.results import described

PICTURES = ROOT / "docs" / "images"
WIDTH, HEIGHT, DPI = 8.0, 3.7, 100  # 800 pixels wide
COLOURS = ("#0b62a4", "#c8641f", "#5b8c3e", "#8a5aa8")
MARKERS = ("o", "s", "^", "D")
Bound = Callable[[int], float]


@dataclass(frozen=True)
class Panel:
    """One diagram; each of its curves is a figure of a series, for each contender that has it."""

    title: str
    unit: str
    curves: tuple[tuple[str, str, str], ...]
    """(series, key, name): the name is put behind the contender's."""
    log: bool = True
    bound: tuple[Bound, str] | None = None
    """What is possible at best, and what to call it."""


@dataclass(frozen=True)
class Picture:
    name: str
    title: str
    axis: str
    panels: tuple[Panel, ...]
    base: int = 10


def cost(series: str) -> Panel:
    return Panel("CPU of the worker", "µs per task", ((series, "worker_us", ""),))


def both_costs(series: str, *, log: bool) -> Panel:
    curves = ((series, "worker_us", "worker"), (series, "redis_us", "Redis"))
    return Panel("CPU", "µs per task", curves, log=log)


PICTURES_OF = (
    Picture(
        "processes",
        "Worker processes: emptying a queue of no-ops",
        "worker processes",
        (Panel("Throughput", "tasks per second", (("processes", "rate", ""),), log=False), cost("processes")),
        base=2,
    ),
    Picture(
        "queued",
        "Queue length: one worker process on the first tasks of so many",
        "tasks queued",
        (
            Panel("Throughput", "tasks per second", (("queued", "rate", ""),), log=False),
            both_costs("queued", log=False),
            Panel(
                "Memory", "MB", (("queued", "memory", "worker"), ("queued", "redis_memory", "Redis with the queue"))
            ),
        ),
    ),
    Picture(
        "concurrency",
        "Concurrency: tasks of 50 ms I/O in one worker process",
        "tasks at once (-c)",
        (
            Panel(
                "Throughput",
                "tasks per second",
                (("concurrent", "rate", ""),),
                bound=(lambda at_once: at_once / 0.05, "concurrency / 50 ms"),
            ),
            cost("concurrent"),
            Panel("Memory of the worker", "MB, at its highest", (("concurrent", "memory", ""),), log=False),
        ),
    ),
    Picture(
        "waiting",
        "Waiting clients: send a no-op, await its result, again and again",
        "clients that wait at once",
        (
            Panel("Throughput", "round trips per second", (("waiting", "rate", ""), ("clients", "rate", "own"))),
            Panel("Median round trip", "ms", (("waiting", "p50", ""), ("clients", "p50", "own"))),
            Panel(
                "Connections of clients",
                "connections",
                (("waiting", "connections", ""), ("clients", "connections", "own")),
            ),
        ),
    ),
    Picture(
        "payload",
        "Payload: a text in, the same text out",
        "bytes of the text",
        (
            Panel("Throughput, one worker process", "tasks per second", (("payload", "rate", ""),)),
            both_costs("payload", log=True),
        ),
    ),
)


def short(size: float) -> str:
    for factor, letter in ((1e6, "M"), (1e3, "k")):
        if size >= factor:
            return f"{size / factor:g}{letter}"
    return f"{size:g}"


def draw(pyplot: Any, picture: Picture, found: dict[str, Any]) -> None:
    shape = {"figsize": (WIDTH, HEIGHT), "layout": "constrained", "squeeze": False}
    figure, [axes] = pyplot.subplots(1, len(picture.panels), **shape)
    series = {name for panel in picture.panels for name, _, _ in panel.curves}
    around = next(each["around"] for name, each in found.items() if name in series)
    figure.suptitle(picture.title, fontsize=12)
    figure.text(0.5, -0.005, described(around), fontsize=7, color="0.45", ha="center", va="top")
    said: list[str] = []
    for axis, panel in zip(axes, picture.panels, strict=True):
        names = [name for name, *_ in curves(panel, found)]
        fill(axis, picture, panel, found, legend=bool(set(names) - set(said)))
        said += names


def fill(axis: Any, picture: Picture, panel: Panel, found: dict[str, Any], *, legend: bool) -> None:
    """Linear axes begin at zero, so that nothing looks steeper than it is."""
    sizes: set[int] = set()
    ticker: Any = importlib.import_module("matplotlib.ticker")
    for number, (name, figures, spread) in enumerate(curves(panel, found)):
        style = {"marker": MARKERS[number], "color": COLOURS[number], "markersize": 5, "capsize": 2}
        axis.errorbar(list(figures), list(figures.values()), yerr=spread, label=name, **style)
        sizes |= figures.keys()
    if panel.bound is not None:
        bound, called = panel.bound
        few = [size for size in sorted(sizes) if size <= 1_000]
        axis.plot(few, [bound(size) for size in few], linestyle=":", color="0.4", label=called)
    axis.set_xscale("log", base=picture.base)
    axis.set_xticks(sorted(sizes), [short(size) for size in sorted(sizes)])
    axis.minorticks_off()
    if panel.log:
        axis.set_yscale("log")
        axis.yaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    else:
        axis.set_ylim(bottom=0)
    axis.yaxis.set_major_formatter(lambda value, _: short(value))
    axis.yaxis.set_minor_formatter(lambda value, _: "")
    axis.set_title(panel.title, fontsize=10)
    axis.set_xlabel(picture.axis)
    axis.set_ylabel(panel.unit)
    axis.tick_params(labelsize=8)
    axis.grid(alpha=0.3)
    if legend:
        axis.legend(fontsize=7.5)


def curves(panel: Panel, found: dict[str, Any]) -> list[tuple[str, dict[int, float], list[list[float]]]]:
    """Name, medians by size, and how far the lowest and the highest run are from them."""
    drawn = []
    for series, key, addition in panel.curves:
        for who, sizes in found.get(series, {}).get("medians", {}).items():
            figures = {int(size): report[key] for size, report in sizes.items() if key in report}
            if not figures or (addition and who != OURS):
                continue
            runs = found[series]["runs"][who]
            several = [[each[key] for each in runs[str(size)] if key in each] for size in figures]
            middle = list(figures.values())
            below = [at - min(each) for at, each in zip(middle, several, strict=True)]
            above = [max(each) - at for at, each in zip(middle, several, strict=True)]
            drawn.append((NAMES.get((series, addition), f"{who} {addition}".strip()), figures, [below, above]))
    return drawn


NAMES = {("waiting", ""): "one client for all", ("clients", "own"): "a client for each"}


def save(pyplot: Any, target: Path) -> None:
    """With few colours: a third of the bytes."""
    drawn = io.BytesIO()
    pyplot.savefig(drawn, format="png", dpi=DPI, bbox_inches="tight", pad_inches=0.08)
    picture: Any = importlib.import_module("PIL.Image").open(drawn)
    picture.convert("RGB").quantize(64).save(target, optimize=True)


@click.command()
@click.option("--from", "path", type=click.Path(path_type=Path, exists=True), default=RESULTS, show_default=True)
@click.option("--to", "folder", type=click.Path(path_type=Path), default=PICTURES, show_default=True)
def main(path: Path, folder: Path) -> None:
    """Draw performance-*.png of what `python -m benchmarks.growth` has found."""
    importlib.import_module("matplotlib").use("Agg")
    pyplot: Any = importlib.import_module("matplotlib.pyplot")
    found = json.loads(path.read_text())
    folder.mkdir(parents=True, exist_ok=True)
    for picture in PICTURES_OF:
        if not any(name in found for panel in picture.panels for name, _, _ in panel.curves):
            click.echo(f"{picture.name}: not measured", err=True)
            continue
        draw(pyplot, picture, found)
        target = folder / f"performance-{picture.name}.png"
        save(pyplot, target)
        pyplot.close()
        click.echo(f"{target} {target.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
