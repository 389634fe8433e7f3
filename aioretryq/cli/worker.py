"""`aioretryq worker app:queue`."""

from __future__ import annotations

import asyncio
import gc
import importlib.util
import logging
import os
import sys
import threading
import traceback
from contextlib import redirect_stdout
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

import anyio
import click

from aioretryq.cli.loading import load_celery, load_queue
from aioretryq.errors import AioretryqError, ConfigError
from aioretryq.lazy import Lazy, imported
from aioretryq.worker.names import node_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aioretryq.app import TaskQueue
    from aioretryq.celery_bridge.application import CeleryApplication
    from aioretryq.celery_settings import options as celerys
    from aioretryq.worker import supervised, supervisor
    from aioretryq.worker import worker as single
    from aioretryq.worker.supervisor import Lifeline
    from aioretryq.worker.worker import Worker
else:
    # One process is a supervisor or a worker; it has neither to wait for the other, nor to keep it in memory.
    celerys = Lazy("aioretryq.celery_settings.options")
    single = Lazy("aioretryq.worker.worker")
    supervised = Lazy("aioretryq.worker.supervised")
    supervisor = Lazy("aioretryq.worker.supervisor")

THRESHOLD, USUAL_THRESHOLDS = 5_000, (700, 2000)
"""New objects that garbage collection waits for, here and by default: in Python 3.11 and 3.12, and from 3.13 on."""

THREADS_END = 0.5
"""Seconds idle threads get to end."""

MEMORY_IS_OF_ONE = (
    "memory:// exists in one process only, so --processes would start workers that nobody can reach. Use "
    "sqlite:///path/to/file or redis://host, or run one process."
)

LEVELS = ("debug", "info", "warning", "error", "critical")

logger = logging.getLogger("aioretryq.worker")


class WorkerCommand(click.Command):
    """Knows the options of `celery worker`: whoever pastes one is told what becomes of it here."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            note = note_on(error.option_name)
            if note is None:
                raise
            raise click.UsageError(f"No such option: {error.option_name}. {note}", ctx) from error


def note_on(option: str) -> str | None:
    """What the table of Celery's options says of this one."""
    return next((row.note for row in celerys.WORKER_OPTIONS.values() if option in row.name.split(", ")), None)


@click.command(cls=WorkerCommand)
@click.argument("app", metavar="APP:QUEUE")
@click.option("-Q", "--queues", help="Queues to take messages from, with commas.  [default: task_queues]")
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Tasks at once.  [default: worker_concurrency]")
@click.option("-n", "--name", help="Name of this worker, such as web@%h; %h is the host.")
@click.option("-l", "--loglevel", type=click.Choice(LEVELS, case_sensitive=False), default="info", show_default=True)
@click.option("--grace", type=click.FloatRange(0), help="Seconds for running tasks on TERM.  [default: worker_grace]")
@click.option(
    "--processes", type=click.IntRange(1), default=1, show_default=True, help="Processes that each do this."
)
@click.option("-E", "--task-events", is_flag=True, help="Send events of tasks.  [default: worker_send_task_events]")
@click.option("--without-heartbeat", is_flag=True, help="Send no heartbeats.")
@click.option(
    "--heartbeat-interval",
    type=click.FloatRange(0, min_open=True),
    help="Seconds between two.  [default: worker_heartbeat_interval]",
)
@click.option("--celery", is_flag=True, help="APP is a Celery application, given as to celery -A.")
@click.option("--purge", is_flag=True, help="Delete all waiting messages of the queues first; asks before.")
@click.option("--url", help="Broker URL, instead of the application's.")
@click.option(
    "--supervised", "descriptor", type=int, hidden=True, help="File descriptor of the connection to the supervisor."
)
@click.option("--banner/--no-banner", default=True, hidden=True)
def worker(app: str, *, processes: int, descriptor: int | None, **options: Any) -> None:
    """Run the tasks of APP:QUEUE, such as `myapp.tasks:queue`; with --celery those of a Celery application.

    TERM or INT stops gracefully: nothing more is taken, what has not started goes back at once, what runs gets
    --grace seconds and then goes back too. A second signal, or QUIT, ends the waiting.
    """
    if options["url"] == "":
        raise click.BadParameter("it is empty; leave it out for the application's broker.", param_hint="--url")
    options["name"] = chosen_name(options["name"], processes, celery=options["celery"])
    if processes == 1:
        work(app, lifeline=None if descriptor is None else supervisor.Lifeline(descriptor), **options)
    elif options["url"] is not None and in_memory(options["url"]):
        raise click.UsageError(MEMORY_IS_OF_ONE)
    elif options["purge"]:
        raise click.UsageError(
            "--purge asks before it deletes, which several processes cannot: purge with one first."
        )
    else:
        sys.exit(supervise(app, processes, **options))


def chosen_name(name: str | None, processes: int, *, celery: bool) -> str | None:
    """The name, checked before many processes fail of it. Under `--celery` Celery's default is ours."""
    if name is None:
        return "celery@%h" if celery else None
    try:
        node_name(name if processes == 1 else numbered(name, 1))
    except ConfigError as error:
        raise click.BadParameter(str(error), param_hint="-n") from error
    return name


def work(
    app: str,
    *,
    celery: bool,
    purge: bool,
    banner: bool,
    lifeline: Lifeline | None,
    **options: Any,
) -> None:
    """Be a worker until it is stopped."""
    companion: CeleryApplication | None = None
    queue: TaskQueue
    stdout = sys.stdout  # Celery makes log lines of whatever is printed, once the application is loaded
    try:
        options["queues"] = names_of_queues(options["queues"])
        if celery:
            companion = load_celery(app, url=options.pop("url"), **options)
            queue, options = companion.queue, companion.worker_options(options)
        else:
            queue, options = load_own(app, with_pid=lifeline is not None, **options)
        options = choose_events(queue, **options)
        if lifeline is not None and in_memory(queue.broker_url):
            raise click.UsageError(MEMORY_IS_OF_ONE)
        spare_garbage_collection()
        made = (single.Worker if lifeline is None else supervised.SupervisedWorker)(queue, **options)
        with asyncio.Runner(loop_factory=event_loop()) as runner:
            if purge:
                with redirect_stdout(stdout):
                    runner.run(purge_queues(queue, made.queues))
            say = partial(click.echo, file=stdout)
            runner.run(serve(made, lifeline, say, banner=banner, companion=companion))
        if companion is not None:
            companion.stop()
    except (AioretryqError, BaseExceptionGroup) as error:
        reason = explained(error)
        if reason is None:
            raise
        raise reason from error
    finally:
        leave_threads_behind()


def spare_garbage_collection() -> None:
    """Look for cycles among new objects only, and less often: a task that succeeds makes a hundred objects and no
    cycle, and a tenth of a worker's time would go into looking. An application that has set thresholds of its own
    keeps them."""
    if gc.get_threshold()[0] in USUAL_THRESHOLDS:
        gc.freeze()  # what is loaded by now stays for good
        gc.set_threshold(THRESHOLD, *gc.get_threshold()[1:])


def event_loop() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """What makes the loop: uvloop; not on Windows or PyPy, asyncio's own does there."""
    return imported("uvloop:new_event_loop") if importlib.util.find_spec("uvloop") else None


def load_own(
    app: str, *, url: str | None, loglevel: str, with_pid: bool, **options: Any
) -> tuple[TaskQueue, dict[str, Any]]:
    queue = load_queue(app)
    if url is not None:
        queue.conf.broker_url = url
    set_up_logging(loglevel, with_pid=with_pid)
    return queue, options


def names_of_queues(text: str | None) -> list[str] | None:
    names = None if text is None else [name.strip() for name in text.split(",") if name.strip()]
    if names == []:
        raise click.UsageError(f"-Q {text!r} names no queue.")
    return names


def choose_events(
    queue: TaskQueue,
    *,
    task_events: bool,
    without_heartbeat: bool,
    heartbeat_interval: float | None,
    **others: Any,
) -> dict[str, Any]:
    """Settle which events are sent; the other options are given back."""
    if without_heartbeat and heartbeat_interval is not None:
        raise click.UsageError("--heartbeat-interval or --without-heartbeat, not both.")
    if task_events:
        queue.conf.worker_send_task_events = True
    if heartbeat_interval is not None or without_heartbeat:
        queue.conf.worker_heartbeat_interval = heartbeat_interval or 0.0
    return others


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


async def serve(
    worker: Worker,
    lifeline: Lifeline | None,
    say: Callable[[str], None],
    *,
    banner: bool,
    companion: CeleryApplication | None = None,
) -> None:
    if lifeline is not None:
        lifeline.watch(worker.stop, grace=worker.grace)
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(announce, worker, lifeline, say, banner)
            if companion is not None:
                group.start_soon(companion.follow, worker)
            await worker.run_until_signalled()
            group.cancel_scope.cancel()
        if lifeline is not None and worker.dismissed:
            lifeline.say_dismissed()
        say(f"{worker.name} has stopped.")
    finally:
        if worker.left_behind:  # here: the event loop would wait for them when it is closed
            leave("coroutines refuse to be cancelled")


async def announce(worker: Worker, lifeline: Lifeline | None, say: Callable[[str], None], banner: bool) -> None:
    await worker.ready.wait()
    if banner:
        say(worker.banner())
    say(f"{worker.name} is ready.")
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


PASSED_ON = ("queues", "concurrency", "loglevel", "grace", "url", "heartbeat_interval")
FLAGS_PASSED_ON = ("celery", "task_events", "without_heartbeat")


def supervise(app: str, processes: int, **options: Any) -> int:
    """Run that many processes of this command, which load the application; the exit code."""
    set_up_logging(options["loglevel"], with_pid=True)
    passed_on = {name: options[name] for name in PASSED_ON}
    arguments = [f"--{name.replace('_', '-')}={value}" for name, value in passed_on.items() if value is not None]
    arguments += [f"--{name.replace('_', '-')}" for name in FLAGS_PASSED_ON if options[name]]

    def command(number: int, descriptor: int, first: bool) -> list[str]:
        name = options["name"]
        own = [] if name is None else [f"--name={numbered(name, number)}"]  # those without a name go by their pid
        ours = [f"--supervised={descriptor}", "--banner" if first else "--no-banner"]
        return [sys.executable, "-m", "aioretryq", "worker", *arguments, *own, *ours, "--", app]

    return asyncio.run(supervisor.Supervisor(command, processes).run())


def numbered(name: str, number: int) -> str:
    """`web@%h` becomes `web-1@%h`; where Celery's %i or %I is in a name, the number goes there."""
    if "%i" in name or "%I" in name:
        return name.replace("%i", str(number)).replace("%I", f"-{number}")
    node, at, host = name.partition("@")
    return f"{node}-{number}{at}{host}"
