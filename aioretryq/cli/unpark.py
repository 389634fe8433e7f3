"""`aioretryq unpark`: what waits in our schedules, for Celery workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import click

from aioretryq.cli.loading import queue_at
from aioretryq.errors import AioretryqError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.brokers.base import Broker

AT_ONCE = 100
"""Messages in one step."""

IN_MEMORY = (
    "memory:// exists in one process only, there is nothing to hand to others. Name another broker with --url, "
    "AIORETRYQ_URL or APP:QUEUE."
)


@click.command()
@click.argument("app", metavar="[APP:QUEUE]", required=False)
@click.option("--url", help="Broker URL, instead of the application's.  [default: AIORETRYQ_URL]")
@click.option("-Q", "--queues", help="Only these queues, with commas.  [default: all that have parked messages]")
def unpark(app: str | None, *, url: str | None, queues: str | None) -> None:
    """Hand messages that wait for their time to Celery workers.

    Workers of this kind leave them in the broker, where Celery workers do not look: countdowns, etas, retries, calls
    over their rate. They become ordinary messages at the end of their queues, and lose nothing: Celery workers wait
    for the eta by themselves. Stop the workers of this kind first, or they park them again.
    """
    queue = queue_at(app, url, in_memory=IN_MEMORY, results=False)
    names = None if queues is None else [name for each in queues.split(",") if (name := each.strip())]
    try:
        asyncio.run(_run(queue, names))
    except AioretryqError as error:
        raise click.ClickException(str(error)) from error


async def _run(queue: TaskQueue, names: Sequence[str] | None) -> None:
    async with queue:
        broker = queue.broker
        parked = {name: count for name, count in (await broker.parked(names)).items() if count}
        if not parked:
            click.echo(f"Nothing is parked at {broker.display_url}.")
            return
        lonely = await broker.leave("", list(parked))
        for name, count in parked.items():
            click.echo(f"{await _unpark(broker, name, count):8,} messages are back in queue {name}")
        if shared := [name for name in parked if name not in lonely]:
            click.echo(
                f"Workers of aioretryq may be at work on {', '.join(shared)}: they park again what is not due. "
                "Stop them first.",
                err=True,
            )


async def _unpark(broker: Broker, name: str, parked: int) -> int:
    """No more than were there: a worker that still runs parks them again, and that would have no end."""
    moved = 0
    while moved < parked and (count := await broker.unpark(name, limit=min(AT_ONCE, parked - moved))):
        moved += count
    return moved
