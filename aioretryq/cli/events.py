"""`aioretryq events app:queue`."""

from __future__ import annotations

import asyncio
import difflib
import logging
import sys
import time
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import anyio
import click
from rich.console import Console
from rich.live import Live

from aioretryq.cli.event_table import screen
from aioretryq.cli.event_text import Lines, as_json
from aioretryq.cli.loading import queue_at
from aioretryq.cli.watching import watching
from aioretryq.events import State

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.events import Event, EventReceiver

REFRESH = 0.25
"""Seconds between two pictures of the live table."""

UNREACHABLE = 69
"""Exit code when the broker cannot be reached, as of `aioretryq inspect`."""

KNOWN = (
    *(f"task-{each}" for each in ("sent", "received", "started", "succeeded", "failed", "retried")),
    *(f"task-{each}" for each in ("revoked", "rejected", "cancelled")),
    *(f"worker-{each}" for each in ("online", "heartbeat", "offline")),
)
"""What workers and clients tell by themselves."""

IN_MEMORY = (
    "memory:// exists in one process only: from here no event of another one can be heard. Watch inside that process "
    "with `async with queue.events() as events`, or use sqlite:///path/to/file or redis://host."
)


@click.command()
@click.argument("app", metavar="[APP:QUEUE]", required=False)
@click.option("--app", "-A", "named", metavar="APP:QUEUE", help="The application, instead of the word.")
@click.option("--url", help="Broker URL, instead of an application's.  [default: AIORETRYQ_URL]")
@click.option("-d", "--dump", is_flag=True, help="One line for each event, as `celery events --dump` has them.")
@click.option("-j", "--json", "as_lines", is_flag=True, help="One line of JSON for each event.")
@click.option("--types", help="Only these types of events, with commas; `task-*` is a pattern.")
def events(
    app: str | None, *, named: str | None, url: str | None, dump: bool, as_lines: bool, types: str | None
) -> None:
    """Watch workers and tasks: a live table, or every event as a line.

    Workers of this kind and Celery's tell of their tasks when they were started with -E; clients tell of what they
    send with the setting task_send_sent_event. Ctrl-C ends it.
    """
    if dump and as_lines:
        raise click.UsageError("--dump or --json, not both.")
    if app is not None and named is not None:
        raise click.UsageError(f"The application is given twice: --app {named} and {app}. Leave one out.")
    queue = queue_at(app or named, url, in_memory=IN_MEMORY, results=False, existing=False)
    wanted = [each.strip() for each in (types or "").split(",") if each.strip()]
    for each in wanted:
        if doubt := doubts(each):
            click.echo(f"Warning: {doubt}", err=True)
    live = not (dump or as_lines) and sys.stdout.isatty()
    with watching(UNREACHABLE):
        asyncio.run(
            show_table(queue, wanted) if live else show_lines(queue, wanted, as_json if as_lines else Lines().line)
        )


def doubts(pattern: str) -> str:
    """Why nothing may ever be heard of such a type; tasks tell events of their own, as `task-progress`."""
    if any(fnmatchcase(known, pattern) for known in KNOWN):
        return ""
    close = difflib.get_close_matches(pattern, KNOWN, n=1, cutoff=0.85)
    if not close and pattern.startswith("task-"):
        return ""
    hint = f" Did you mean {close[0]!r}?" if close else f" There are {', '.join(KNOWN)}, and those of your own."
    return f"no event of the type {pattern!r} is known.{hint}"


async def show_lines(queue: TaskQueue, types: Sequence[str], line: Callable[[Event], str]) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    async with queue, queue.events(*types) as heard:
        click.echo(f"Listening to events of {queue.broker.display_url}", err=True)
        async for event in heard:
            click.echo(line(event))


async def show_table(queue: TaskQueue, types: Sequence[str]) -> None:
    state, notes = State(), Notes()
    logging.basicConfig(level=logging.WARNING, handlers=[notes])
    console = Console()
    async with queue, queue.events(*types) as heard, anyio.create_task_group() as group:
        where = queue.broker.display_url
        group.start_soon(follow, heard, state)
        with Live(console=console, screen=True, auto_refresh=False) as live:
            while True:
                picture = screen(state, now=time.time(), where=where, height=console.height, note=notes.last)
                live.update(picture, refresh=True)
                await anyio.sleep(REFRESH)


async def follow(heard: EventReceiver, state: State) -> None:
    async for event in heard:
        state.hear(event)


class Notes(logging.Handler):
    """The last line of the log, to be shown in the picture instead of across it."""

    last = ""

    def emit(self, record: logging.LogRecord) -> None:
        self.last = record.getMessage()
