"""`aioretryq dead list|show|replay|export|purge`."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import sys
from collections import deque
from contextlib import AbstractContextManager, nullcontext
from typing import IO, TYPE_CHECKING, Any, TypeVar

import click
from msgspec import Struct

from aioretryq.cli.dead_text import Row, details, row, table
from aioretryq.cli.loading import queue_at
from aioretryq.errors import AioretryqError

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.dead import DeadLetters
    from aioretryq.dead_messages import DeadMessage

T = TypeVar("T")
F = TypeVar("F", bound="Callable[..., Any]")

ID = re.compile(r"[0-9a-f]{1,16}(-.*)?", re.DOTALL)
AGE = re.compile(r"(\d+(?:\.\d+)?)([smhdw])")
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 7 * 86400}
INTERRUPTED = 130
LEFT_OUT = ("payload", "traceback", "args", "kwargs", "errors")
"""What the lines of a listing do without: `show` and `export` have it."""


def age(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    """Seconds of 90, 45s, 30m, 2h, 1h30m, 1d, 2w."""
    if text is None:
        return None
    units = f"{text}s" if text.isdecimal() else text
    parts = AGE.findall(units)
    if not parts or "".join(number + unit for number, unit in parts) != units:
        raise click.BadParameter(f"{text!r} is not an age; it looks like 45s, 30m, 2h, 1h30m, 1d or 2w.")
    return sum(float(number) * SECONDS[unit] for number, unit in parts)


APP = click.argument("app", metavar="[APP:QUEUE]", required=False)
APP_AND_IDS = click.argument("arguments", metavar="[APP:QUEUE] [ID]...", nargs=-1)
URL = click.option("--url", help="Broker URL, instead of the application's.  [default: AIORETRYQ_URL]")
YES = click.option("--yes", "-y", is_flag=True, help="Do not ask.")


def filtering(command: F) -> F:
    """The options that choose entries."""
    for option in (
        click.option("--newer-than", metavar="AGE", callback=age, help="Buried less than that ago."),
        click.option("--older-than", metavar="AGE", callback=age, help="Buried longer ago than that: 30m, 2h, 1d."),
        click.option("--reason", help="The reason, or how it begins."),
        click.option("--task", help="Name of the task, or a glob: 'app.mail.*'."),
        click.option("--queue", help="Queue the message came from, or a glob."),
    ):
        command = option(command)
    return command


@click.group()
def dead() -> None:
    """Look at the dead letters, send them again, delete them.

    They are found at --url, else in the broker of APP:QUEUE, else at AIORETRYQ_URL. An ID may be shortened as long as
    no other begins alike. Name APP:QUEUE where it has settings that matter here, such as another result backend.
    """


@dead.command("list")
@APP
@URL
@filtering
@click.option("--limit", type=click.IntRange(0), default=50, show_default=True, help="Newest to show; 0 shows all.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object for each line.")
def list_letters(app: str | None, *, url: str | None, limit: int, as_json: bool, **filters: Any) -> None:
    """Print a table, the newest last."""

    async def work(letters: DeadLetters) -> tuple[int, Sequence[Row | str]]:
        # Only lines are kept: the messages may be large.
        shown: deque[Row | str] = deque(maxlen=limit or None)
        count = 0
        async for found in letters.list(**filters):
            shown.append(json.dumps(brief(letters.as_dict(found))) if as_json else row(found))
            count += 1
        return count, shown

    place, (count, shown) = run(find_queue(app, url), work)
    if not count:
        click.echo(nothing(place, filters), err=as_json)
        return
    rows = [each for each in shown if isinstance(each, Row)]
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    for line in table(rows, width) if rows else shown:
        click.echo(line)
    if count > len(shown):
        click.echo(f"{count - len(shown):,} older not shown; --limit 0 shows all.", err=as_json)


@dead.command()
@APP_AND_IDS
@URL
@click.option("--json", "as_json", is_flag=True, help="As JSON, with the message in base64.")
def show(arguments: tuple[str, ...], *, url: str | None, as_json: bool) -> None:
    """Print everything about the entry ID: arguments, every attempt's error, the traceback."""
    app, ids = app_and_ids(arguments)
    if len(ids) != 1:
        raise click.UsageError("Give the ID of one entry; `aioretryq dead list` prints them.")

    async def work(letters: DeadLetters) -> tuple[DeadMessage, dict[str, Any]]:
        found = await letters.get(ids[0])
        return found, letters.as_dict(found)

    _, (found, record) = run(find_queue(app, url), work)
    if as_json:
        click.echo(json.dumps(record))
        return
    for line in details(found, record):
        click.echo(line)


@dead.command()
@APP_AND_IDS
@URL
@filtering
@click.option("--rate", type=click.FloatRange(0, min_open=True), help="Messages a second, evenly spaced.")
@click.option("--to", metavar="QUEUE", help="Send to this queue instead of the one they came from.")
@YES
def replay(
    arguments: tuple[str, ...], *, url: str | None, rate: float | None, to: str | None, yes: bool, **filters: Any
) -> None:
    """Send messages again: those with an ID, those that fit, or all.

    Tasks go as a new first attempt with their old id. An entry is deleted when its message is sent, in one step:
    stopping with Ctrl-C leaves the others where they are.
    """
    app, ids = app_and_ids(arguments)
    queue = find_queue(app, url)
    meant = survey(queue, ids, filters)
    if meant.unreadable:
        click.echo(f"Skipped, export or purge what cannot be read: {meant.unreadable:,}.", err=True)
    readable = meant.count - meant.unreadable
    if not readable:
        click.echo(nothing(meant.place, filters))
        return
    if readable > 1 and not yes:
        where = f"to {to!r}" if to else "to the queues they came from"
        click.confirm(f"Send {readable:,} messages of {meant.place} again, {where}?", abort=True)
    sent = 0
    with progress_bar(readable) as bar:

        def progress(so_far: int) -> None:
            nonlocal sent
            if bar is not None:
                bar.update(so_far - sent)
            sent = so_far

        async def work(letters: DeadLetters) -> int:
            return await letters.replay(meant.ids, rate=rate, to=to, progress=progress, **meant.filters)

        try:
            run(queue, work)
        except KeyboardInterrupt:
            click.echo(f"\nStopped. Sent {counted(sent, 'message')} again; the others are where they were.", err=True)
            sys.exit(INTERRUPTED)
    click.echo(f"Sent {counted(sent, 'message')} again.")


@dead.command()
@APP
@URL
@filtering
@click.option("-o", "--output", metavar="FILE", default="-", help="Instead of the standard output.")
def export(app: str | None, *, url: str | None, output: str, **filters: Any) -> None:
    """Write entries as JSON lines, the messages in base64; nothing is deleted."""

    async def work(letters: DeadLetters) -> int:
        count = 0
        with opened(output) as file:
            async for record in letters.export(**filters):
                file.write(json.dumps(record) + "\n")
                count += 1
        return count

    place, count = run(find_queue(app, url), work)
    if not count:
        click.echo(nothing(place, filters), err=True)
    elif output != "-":
        click.echo(f"Exported {counted(count, 'dead letter')} to {output}.", err=True)


@dead.command()
@APP_AND_IDS
@URL
@filtering
@YES
def purge(arguments: tuple[str, ...], *, url: str | None, yes: bool, **filters: Any) -> None:
    """Delete entries: those with an ID, those that fit, or all. Asks before."""
    app, ids = app_and_ids(arguments)
    queue = find_queue(app, url)
    meant = survey(queue, ids, filters)
    if not meant.count:
        click.echo(nothing(meant.place, filters))
        return
    if not yes:
        click.confirm(f"Delete {counted(meant.count, 'dead letter')} of {meant.place} for good?", abort=True)
    _, deleted = run(queue, lambda letters: letters.purge(meant.ids, **meant.filters))
    click.echo(f"Deleted {counted(deleted, 'dead letter')}.")


# -- what the commands share


class Survey(Struct, frozen=True):
    """What a command is about to touch, counted before it asks; `ids` or `filters` name just that."""

    place: str
    count: int
    unreadable: int
    ids: Sequence[str] | None
    filters: Mapping[str, Any]


def survey(queue: TaskQueue, ids: Sequence[str], filters: Mapping[str, Any]) -> Survey:
    """In a connection of its own: nobody should have to think about the question within a server's deadlines."""
    if ids and any(value is not None for value in filters.values()):
        raise click.UsageError("Give IDs or filters, not both.")

    async def by_id(letters: DeadLetters) -> tuple[int, int, Sequence[str] | None, Mapping[str, Any]]:
        found = [await letters.get(each) for each in ids]
        return len({each.id for each in found}), 0, [each.id for each in found], {}

    async def by_filters(letters: DeadLetters) -> tuple[int, int, Sequence[str] | None, Mapping[str, Any]]:
        count, unreadable, last = 0, 0, None
        async for found in letters.list(**filters):
            count, unreadable, last = count + 1, unreadable + (not found.readable), found.id
        return count, unreadable, None, {**filters, "up_to": last}

    place, counted = run(queue, by_id if ids else by_filters)
    return Survey(place, *counted)


IN_MEMORY = (
    "What is in memory:// can be seen inside of its process only, with queue.dead_letters. Name another broker with "
    "--url, AIORETRYQ_URL or APP:QUEUE."
)


def find_queue(app: str | None, url: str | None) -> TaskQueue:
    return queue_at(app, url, in_memory=IN_MEMORY)


def run(queue: TaskQueue, work: Callable[[DeadLetters], Coroutine[Any, Any, T]]) -> tuple[str, T]:
    """(where that is, what `work` returns)."""

    async def inside() -> tuple[str, T]:
        async with queue:
            return queue.broker.display_url, await work(queue.dead_letters)

    try:
        return asyncio.run(inside())
    except AioretryqError as error:
        raise click.ClickException(str(error)) from error


def app_and_ids(arguments: Sequence[str]) -> tuple[str | None, Sequence[str]]:
    """The first argument names the application unless it looks like an id."""
    if arguments and not ID.fullmatch(arguments[0]):
        return arguments[0], arguments[1:]
    return None, arguments


def brief(record: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if name not in LEFT_OUT}


def nothing(place: str, filters: Mapping[str, Any]) -> str:
    fitting = " that fit" if any(value is not None for value in filters.values()) else ""
    return f"There are no dead letters{fitting} in {place}."


def counted(count: int, what: str) -> str:
    return f"{count:,} {what}" + "s" * (count != 1)


def progress_bar(length: int) -> AbstractContextManager[Any]:
    """On a terminal; None for everything else."""
    if not sys.stderr.isatty():
        return nullcontext()
    bar: AbstractContextManager[Any] = click.progressbar(length=length, label="Sending", file=sys.stderr)
    return bar


def opened(output: str) -> AbstractContextManager[IO[str]]:
    """A file appears when it is complete: an interrupted export does not pass for a whole one."""
    try:
        file: AbstractContextManager[IO[str]] = click.open_file(output, "w", encoding="utf-8", atomic=output != "-")
    except OSError as error:
        raise click.ClickException(f"Cannot write {output}: {error.strerror}.") from error
    return file
