"""`aioretryq workflow ID`."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from typing import TYPE_CHECKING, TypeVar

import anyio
import click
from rich.console import Console
from rich.live import Live
from rich.text import Text

from aioretryq.backends.disabled import DisabledBackend
from aioretryq.cli.event_table import COLORS
from aioretryq.cli.events import UNREACHABLE, Notes
from aioretryq.cli.loading import queue_at
from aioretryq.cli.watching import watching
from aioretryq.cli.workflow_tree import as_json, columns, is_done, lines, open_ids, rows
from aioretryq.drawing.lookup import Lookup
from aioretryq.drawing.pictures import dot, mermaid
from aioretryq.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup

    from aioretryq.app import TaskQueue
    from aioretryq.drawing.trees import Tree

F = TypeVar("F", bound="Callable[..., object]")

REFRESH = 0.1
"""Seconds between two pictures, at least: several changes are shown together."""

LISTENED = 500
"""Tasks whose changes are listened to; of others is seen when something else changes, or it is time to look."""

LOOK = 2.0
"""Seconds after which it looks anyway."""

IN_MEMORY = (
    "memory:// exists in one process only: from here no results of another one can be seen. Look inside that process "
    "with `await result.draw()`, or use sqlite:///path/to/file or redis://host."
)


FORM = "aioretryq.workflow.form"
"""Where the form that was asked for is kept while options are read."""


def _chosen(context: click.Context, option: click.Parameter, value: bool) -> None:
    if not value:
        return
    if (before := context.meta.get(FORM)) is not None:
        raise click.UsageError(f"It is printed in one form: --{before} or --{option.name}. Leave one out.")
    context.meta[FORM] = option.name


def form_option(name: str, text: str) -> Callable[[F], F]:
    return click.option(name, is_flag=True, expose_value=False, callback=_chosen, help=text)


@click.command()
@click.argument("wanted", metavar="ID")
@click.argument("app", metavar="[APP:QUEUE]", required=False)
@click.option("--app", "-A", "named", metavar="APP:QUEUE", help="The application, instead of the word.")
@click.option("--url", "-b", help="Broker URL, instead of an application's.  [default: AIORETRYQ_URL]")
@click.option("--backend", metavar="URL", help="Where results are, if not there.")
@click.option("--once", is_flag=True, help="Print it as it is now; on a terminal it is followed to its end.")
@form_option("--json", "As JSON: kind, task, id, state, children of each; of groups how many members are done.")
@form_option("--dot", "As a graph for Graphviz.")
@form_option("--mermaid", "As a flowchart for Mermaid.")
def workflow(
    wanted: str,
    app: str | None,
    *,
    named: str | None,
    url: str | None,
    backend: str | None,
    once: bool,
) -> None:
    """Show a workflow with the states of its steps.

    ID is that of its result, of any step that has begun, or of a group that was saved. Steps that are still to come
    are known of workflows that aioretryq has sent, by the id of the result of the whole. Celery's are shown as far as
    they have come. Names come from there, or from results that are stored with result_extended.
    """
    if app is not None and named is not None:
        raise click.UsageError(f"The application is given twice: --app {named} and {app}. Leave one out.")
    queue = queue_at(app or named, url, in_memory=IN_MEMORY)
    form = click.get_current_context().meta.get(FORM)
    live = form is None and not once and sys.stdout.isatty()
    with watching(UNREACHABLE):
        if backend is not None:
            queue.conf.result_backend = backend
        asyncio.run(follow(queue, wanted) if live else show(queue, wanted, FORMS[form]))


def _text(tree: Tree, wanted: str) -> str:
    return "\n".join(lines(tree, wanted))


FORMS: dict[str | None, Callable[[Tree, str], str]] = {
    None: _text,
    "json": lambda tree, wanted: json.dumps(as_json(tree)),
    "dot": lambda tree, wanted: dot(tree).rstrip("\n"),
    "mermaid": lambda tree, wanted: mermaid(tree).rstrip("\n"),
}


async def show(queue: TaskQueue, wanted: str, form: Callable[[Tree, str], str]) -> None:
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s: %(message)s", stream=sys.stderr)
    async with queue:
        click.echo(form(await known(queue, Lookup(queue, wanted), wanted), wanted))


async def follow(queue: TaskQueue, wanted: str) -> None:
    """Until nothing in it will change any more."""
    try:
        await _follow(queue, wanted)
    except BaseExceptionGroup as several:  # of a task group, which may be in another
        error: BaseException = several
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
        raise error from several


async def _follow(queue: TaskQueue, wanted: str) -> None:
    notes = Notes()
    logging.basicConfig(level=logging.WARNING, handlers=[notes])
    async with queue:
        lookup = Lookup(queue, wanted)
        tree = await known(queue, lookup, wanted)
        async with anyio.create_task_group() as group:
            news = News(queue, group)
            with Live(picture(tree, wanted, ""), console=Console(), auto_refresh=False) as shown:
                while not is_done(tree):
                    await news.of(tree)
                    tree = await known(queue, lookup, wanted)
                    shown.update(picture(tree, wanted, notes.last), refresh=True)
                    notes.last = ""
            group.cancel_scope.cancel()


async def known(queue: TaskQueue, lookup: Lookup, wanted: str) -> Tree:
    if isinstance(queue.results.backend, DisabledBackend):
        raise ConfigError("No results are stored there, so nothing is known of workflows: set result_backend.")
    tree = await lookup.tree()
    if tree is None:
        raise click.ClickException(
            f"Nothing is stored of {wanted!r} in {queue.results.backend.display_url}: no workflow was recorded under "
            "it, and no task with this id has begun, or it has expired. Try the id of a step that has begun. "
            "Results elsewhere are found with --backend, --url or APP:QUEUE."
        )
    return tree


class News:
    """Tells when something has changed."""

    def __init__(self, queue: TaskQueue, group: TaskGroup) -> None:
        self._queue = queue
        self._group = group
        self._listened: set[str] = set()
        self._changed = anyio.Event()

    async def of(self, tree: Tree) -> None:
        for task_id in open_ids(tree):
            if task_id not in self._listened and len(self._listened) < LISTENED:
                self._listened.add(task_id)
                self._group.start_soon(self._listen, task_id)
        with anyio.move_on_after(LOOK):
            await self._changed.wait()
            self._changed = anyio.Event()
            await anyio.sleep(REFRESH)

    async def _listen(self, task_id: str) -> None:
        async for _ in self._queue.AsyncResult(task_id).updates():
            self._changed.set()
        self._listened.discard(task_id)


def picture(tree: Tree, wanted: str, note: str) -> Text:
    shown = Text(no_wrap=True, overflow="ellipsis")
    for text, state in columns(list(rows(tree, wanted))):
        shown.append(text + "\n", style=COLORS.get(state, ""))
    if note:
        shown.append(note + "\n", style="yellow")
    shown.rstrip()
    return shown
