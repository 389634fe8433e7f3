"""`aioretryq worker app:queue`."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import os
import sys
import threading
from typing import TYPE_CHECKING, Any

import anyio
import click

from aioretryq.cli.loading import load_queue
from aioretryq.errors import AioretryqError
from aioretryq.worker import Worker

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue

# Not on Windows or PyPy; asyncio's own loop does there.
uvloop: Any = importlib.import_module("uvloop") if importlib.util.find_spec("uvloop") else None

THREADS_END = 0.5
"""Seconds idle threads get to end."""

LEVELS = ("debug", "info", "warning", "error", "critical")


@click.command()
@click.argument("app", metavar="APP:QUEUE")
@click.option("-Q", "--queues", help="Queues to take messages from, with commas.  [default: task_default_queue]")
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Tasks at once.  [default: worker_concurrency]")
@click.option("-n", "--name", help="Name of this worker; %h is the host.")
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="info", show_default=True)
@click.option("--grace", type=click.FloatRange(0), help="Seconds for running tasks on TERM.  [default: worker_grace]")
@click.option("--purge", is_flag=True, help="Delete all waiting messages of the queues first; asks before.")
@click.option("--url", help="Broker URL, instead of the application's.")
def worker(app: str, *, queues: str | None, loglevel: str, purge: bool, url: str | None, **options: Any) -> None:
    """Run the tasks of APP:QUEUE, such as `myapp.tasks:queue`.

    TERM or INT stops gracefully: nothing more is taken, what has not started goes back at once, what runs gets
    --grace seconds and then goes back too. A second signal ends the waiting.
    """
    queue = load_queue(app)
    try:
        if url is not None:
            queue.conf.broker_url = url
        names = None if queues is None else [name.strip() for name in queues.split(",") if name.strip()]
        if names == []:
            raise click.UsageError(f"-Q {queues!r} names no queue.")
        set_up_logging(loglevel)
        made = Worker(queue, queues=names, **options)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
            runner.run(serve(made, purge=purge))
    except AioretryqError as error:
        raise click.ClickException(str(error)) from error
    except BaseExceptionGroup as group:
        raise click.ClickException(str(only_error(group))) from group
    leave_threads_behind()


def only_error(group: BaseExceptionGroup[BaseException]) -> AioretryqError:
    """The error of ours that ended the worker; a group of anything else is a bug, and is raised as it is."""
    error: BaseException = group
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        error = error.exceptions[0]
    if not isinstance(error, AioretryqError):
        raise group
    return error


def leave_threads_behind() -> None:
    """End the process although plain functions still run in threads: they cannot be stopped, their messages have
    been handed back, and whoever stops this process does not wait for them."""
    threads = [
        thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon
    ]
    for thread in threads:
        thread.join(THREADS_END)
    if any(thread.is_alive() for thread in threads):
        logging.getLogger("aioretryq.worker").warning("Leaving, although plain functions still run in threads")
        logging.shutdown()
        sys.stdout.flush()
        os._exit(0)


async def serve(worker: Worker, *, purge: bool) -> None:
    async with worker.queue as queue:
        if purge:
            await purge_queues(queue, worker.queues)
        click.echo(worker.banner())
        async with anyio.create_task_group() as group:
            group.start_soon(announce, worker)
            await worker.run_until_signalled()
    click.echo(f"{worker.name} has stopped.")


async def announce(worker: Worker) -> None:
    await worker.ready.wait()
    click.echo(f"{worker.name} is ready.")


async def purge_queues(queue: TaskQueue, names: list[str]) -> None:
    depth = await queue.broker.depth(names)
    listing = ", ".join(f"{name}: {count}" for name, count in depth.items())
    click.confirm(f"Delete all messages that wait in {queue.broker.display_url} ({listing})?", abort=True)
    deleted = [await queue.broker.purge(name) for name in names]
    click.echo(f"Deleted {sum(deleted)} messages.")


def set_up_logging(level: str) -> None:
    logging.basicConfig(
        level=level.upper(), format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", stream=sys.stderr
    )
