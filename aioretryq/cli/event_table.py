"""What is known of workers and tasks, as tables for a terminal. Pure: from a State to something rich can show."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from aioretryq.cli.event_text import printable

if TYPE_CHECKING:
    from aioretryq.events.state import State, TaskState, WorkerState

WORKERS = 12
"""Rows for workers, at most; tasks have the rest of the screen."""

FRAME = 8
"""Lines that are no rows: titles, headings, rules."""

COLORS = {
    "SUCCESS": "green",
    "FAILURE": "red",
    "REVOKED": "magenta",
    "REJECTED": "magenta",
    "RETRY": "yellow",
    "CANCELLED": "yellow",
    "STARTED": "cyan",
}


def screen(state: State, *, now: float, where: str, height: int, note: str = "") -> Group:
    """Everything, for a terminal of that many lines."""
    workers = sorted(state.workers.values(), key=lambda worker: worker.hostname)
    rows = max(1, height - FRAME - min(len(workers), WORKERS))
    alive = len(state.alive(now))
    title = f"{where}: {alive} of {len(workers)} workers alive, {len(state.tasks)} tasks, {state.events} events"
    heading = Text(printable(title), style="bold")
    last = Text(printable(note), style="yellow", no_wrap=True, overflow="ellipsis")
    return Group(heading, worker_table(workers, now), task_table(state, rows, now), last)


def worker_table(workers: list[WorkerState], now: float) -> Table:
    table = _table(("worker", 3), ("", 1), ("active", 1), ("processed", 1), ("load", 2), ("software", 3))
    for worker in workers[:WORKERS]:
        alive = worker.alive(now)
        table.add_row(
            _text(worker.hostname),
            Text("alive" if alive else "gone", style="green" if alive else "red"),
            _text(worker.active),
            _text(worker.processed),
            _text(" ".join(f"{load:.2f}" for load in worker.loadavg)),
            _text(worker.software),
        )
    if len(workers) > WORKERS:
        table.add_row(Text(f"and {len(workers) - WORKERS} more", style="dim"))
    return table


def task_table(state: State, rows: int, now: float) -> Table:
    table = _table(("task", 3), ("id", 2), ("state", 1), ("seconds", 1), ("worker", 2), ("outcome", 4))
    for task in islice(reversed(state.tasks.values()), rows):
        table.add_row(
            _text(f"{task.name or '?'}{task.args or ''}"),
            _text(task.uuid),
            Text(printable(task.state), style=COLORS.get(task.state, "")),
            _text(_seconds(task, now)),
            _text(task.worker),
            _text(task.result or task.exception),
        )
    return table


def _seconds(task: TaskState, now: float) -> str:
    """How long it took, or has been at it."""
    if task.runtime is not None:
        return f"{task.runtime:.3f}"
    if task.state == "STARTED":
        return f"{max(0.0, now - task.timestamp):.0f}..."
    return ""


def _table(*columns: tuple[str, int]) -> Table:
    table = Table(expand=True, box=None, header_style="bold dim")
    for name, ratio in columns:
        table.add_column(name, ratio=ratio, no_wrap=True, overflow="ellipsis")
    return table


def _text(value: object) -> Text:
    # As Text and not as str: in that rich would see its markup.
    return Text("" if value is None else printable(str(value)))
