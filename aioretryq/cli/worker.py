"""`aioretryq worker app:queue`."""

from __future__ import annotations

import asyncio
import importlib
import importlib.util
import logging
import os
import sys
import threading
import traceback
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import click

from aioretryq.cli.loading import load_queue
from aioretryq.errors import AioretryqError
from aioretryq.worker import Worker
from aioretryq.worker.supervisor import Lifeline, Supervisor

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aioretryq.app import TaskQueue

# Not on Windows or PyPy; asyncio's own loop does there.
uvloop: Any = importlib.import_module("uvloop") if importlib.util.find_spec("uvloop") else None

THREADS_END = 0.5
"""Seconds idle threads get to end."""

MEMORY_IS_OF_ONE = (
    "memory:// exists in one process only, so --processes would start workers that nobody can reach. Use "
    "sqlite:///path/to/file or redis://host, or run one process."
)

LEVELS = ("debug", "info", "warning", "error", "critical")

logger = logging.getLogger("aioretryq.worker")


@click.command()
@click.argument("app", metavar="APP:QUEUE")
@click.option("-Q", "--queues", help="Queues to take messages from, with commas.  [default: task_default_queue]")
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Tasks at once.  [default: worker_concurrency]")
@click.option("-n", "--name", help="Name of this worker; %h is the host.")
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="info", show_default=True)
@click.option("--grace", type=click.FloatRange(0), help="Seconds for running tasks on TERM.  [default: worker_grace]")
@click.option(
    "--processes", type=click.IntRange(1), default=1, show_default=True, help="Processes that each do this."
)
@click.option("--purge", is_flag=True, help="Delete all waiting messages of the queues first; asks before.")
@click.option("--url", help="Broker URL, instead of the application's.")
@click.option("--supervised", type=int, hidden=True, help="File descriptor of the connection to the supervisor.")
@click.option("--banner/--no-banner", default=True, hidden=True)
def worker(app: str, *, processes: int, supervised: int | None, **options: Any) -> None:
    """Run the tasks of APP:QUEUE, such as `myapp.tasks:queue`.

    TERM or INT stops gracefully: nothing more is taken, what has not started goes back at once, what runs gets
    --grace seconds and then goes back too. A second signal, or QUIT, ends the waiting.
    """
    if options["url"] == "":
        raise click.BadParameter("it is empty; leave it out for the application's broker.", param_hint="--url")
    if processes == 1:
        work(app, lifeline=None if supervised is None else Lifeline(supervised), **options)
    elif options["url"] is not None and in_memory(options["url"]):
        raise click.UsageError(MEMORY_IS_OF_ONE)
    elif options["purge"]:
        raise click.UsageError(
            "--purge asks before it deletes, which several processes cannot: purge with one first."
        )
    else:
        sys.exit(supervise(app, processes, **options))


def work(
    app: str,
    *,
    queues: str | None,
    url: str | None,
    loglevel: str,
    purge: bool,
    banner: bool,
    lifeline: Lifeline | None,
    **options: Any,
) -> None:
    """Be a worker until it is stopped."""
    queue = load_queue(app)
    try:
        if url is not None:
            queue.conf.broker_url = url
        if lifeline is not None and in_memory(queue.broker_url):
            raise click.UsageError(MEMORY_IS_OF_ONE)
        names = None if queues is None else [name.strip() for name in queues.split(",") if name.strip()]
        if names == []:
            raise click.UsageError(f"-Q {queues!r} names no queue.")
        set_up_logging(loglevel, with_pid=lifeline is not None)
        made = (Worker if lifeline is None else SupervisedWorker)(queue, queues=names, **options)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop if uvloop else None) as runner:
            if purge:
                runner.run(purge_queues(queue, made.queues))
            runner.run(serve(made, lifeline, banner=banner))
    except (AioretryqError, BaseExceptionGroup) as error:
        reason = explained(error)
        if reason is None:
            raise
        raise reason from error
    finally:
        leave_threads_behind()


def in_memory(url: str) -> bool:
    return url.partition("://")[0].lower() == "memory"


def explained(error: BaseException) -> click.ClickException | None:
    """What is said of errors of ours, instead of a traceback; None for others, which are bugs."""
    group = BaseExceptionGroup("", [error])
    ours, others = group.split(AioretryqError)
    if ours is None or others is not None:
        return None
    return click.ClickException("\n".join(dict.fromkeys(str(leaf) for leaf in leaves(ours))))


def leaves(group: BaseExceptionGroup[Any]) -> Iterator[BaseException]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from leaves(error)
        else:
            yield error


def leave_threads_behind() -> None:
    """End the process although plain functions still run in threads: they cannot be stopped, their messages have
    been handed back, and whoever stops this process does not wait for them."""
    threads = [
        thread for thread in threading.enumerate() if thread is not threading.main_thread() and not thread.daemon
    ]
    for thread in threads:
        thread.join(THREADS_END)
    if any(thread.is_alive() for thread in threads):
        leave("plain functions still run in threads")


def leave(although: str) -> NoReturn:
    """End the process at once, with everything said; the exit code is 1 while an exception is on its way."""
    error = sys.exception()
    if error is not None:
        shown = error if isinstance(error, click.ClickException) else explained(error)
        if shown is not None:
            shown.show()
        else:
            traceback.print_exception(error)
    logger.warning("Leaving, although %s", although)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0 if error is None else 1)


class SupervisedWorker(Worker):
    """A second request to stop does not end the grace, only `now` does: those who stop a unit of systemd signal every
    process of it, and then the supervisor tells its own, in whatever order that arrives."""

    def stop(self, *, now: bool = False) -> None:
        if now or not self.stopping:
            super().stop(now=now)


async def serve(worker: Worker, lifeline: Lifeline | None, *, banner: bool) -> None:
    if lifeline is not None:
        lifeline.watch(worker.stop, grace=worker.grace)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(announce, worker, lifeline, banner)
            await worker.run_until_signalled()
            group.cancel_scope.cancel()
        click.echo(f"{worker.name} has stopped.")
    finally:
        if worker.left_behind:  # here: the event loop would wait for them when it is closed
            leave("coroutines refuse to be cancelled")


async def announce(worker: Worker, lifeline: Lifeline | None, banner: bool) -> None:
    await worker.ready.wait()
    if banner:
        click.echo(worker.banner())
    click.echo(f"{worker.name} is ready.")
    if lifeline is not None:
        lifeline.say_ready(worker.grace)


async def purge_queues(queue: TaskQueue, names: list[str]) -> None:
    async with queue:
        depth = await queue.broker.depth(names)
        listing = ", ".join(f"{name}: {count}" for name, count in depth.items())
        click.confirm(f"Delete all messages that wait in {queue.broker.display_url} ({listing})?", abort=True)
        deleted = [await queue.broker.purge(name) for name in names]
    click.echo(f"Deleted {sum(deleted)} messages.")


def set_up_logging(level: str, *, with_pid: bool = False) -> None:
    pid = "[%(process)d] " if with_pid else ""
    logging.basicConfig(
        level=level.upper(), format=f"%(asctime)s %(levelname)-7s {pid}%(name)s: %(message)s", stream=sys.stderr
    )


# -- several processes


def supervise(app: str, processes: int, **options: Any) -> int:
    """Run that many processes of this command, which load the application; the exit code."""
    set_up_logging(options["loglevel"], with_pid=True)
    passed_on = {name: options[name] for name in ("queues", "concurrency", "loglevel", "grace", "url")}
    arguments = [f"--{name}={value}" for name, value in passed_on.items() if value is not None]

    def command(number: int, descriptor: int, first: bool) -> list[str]:
        name = options["name"]
        own = [] if name is None else [f"--name={numbered(name, number)}"]  # those without a name go by their pid
        ours = [f"--supervised={descriptor}", "--banner" if first else "--no-banner"]
        return [sys.executable, "-m", "aioretryq", "worker", *arguments, *own, *ours, "--", app]

    return asyncio.run(Supervisor(command, processes).run())


def numbered(name: str, number: int) -> str:
    """`web@%h` becomes `web-1@%h`."""
    node, at, host = name.partition("@")
    return f"{node}-{number}{at}{host}"
