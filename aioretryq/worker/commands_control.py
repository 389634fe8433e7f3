"""What a worker can be told to do; the texts of the replies are Celery's, because programs read them."""

from __future__ import annotations

import functools
import inspect
import logging
import signal as signals
from typing import TYPE_CHECKING, Any

from aioretryq.errors import ConfigError
from aioretryq.message import Binding
from aioretryq.protocol.saferepr import saferepr
from aioretryq.rates import check_limits, parse_rate
from aioretryq.revoking import ids_of, keep_revoked, keep_stamps, named, stamps_of, store_revoked
from aioretryq.worker.arguments import WrongArgument, queue_name, seconds, text, whole
from aioretryq.worker.revocations import LONGEST_ID, matching, stamped, stop

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aioretryq.worker.control import Call
    from aioretryq.worker.jobs import Job

MOST_IDS = 10_000

LEFT_OUT: Any = object()
"""Of an argument that was not given at all: None may be a value."""


# -- revoking


async def revoke(call: Call, task_id: Any, terminate: Any = False, signal: Any = None, group: Any = None) -> Any:
    """What is told by a client of Celery is kept in the broker, too: workers that start later honour it.

    `group`, of our clients: the tasks are members of it, and its id is all that has to be remembered.
    """
    ids = _ids(task_id)
    if terminate:
        _check_signal(signal)
    call.log(f"tasks {named(ids)} are revoked{' and terminated' if terminate else ''}")
    if isinstance(group, str) and len(group) <= LONGEST_ID:
        call.pieces.revocations.add_group(group)
    else:
        call.pieces.revocations.merge(ids)
    wanted = set(ids)
    running = [job for job in call.pieces.jobs.all() if job.started and job.task_id in wanted]
    here = {job.task_id for job in running}
    stopped = [_stopped(job) for job in running] if terminate else []
    if call.request.for_all:
        async with call.pieces.revocations.keeping:
            await keep_revoked(call.queue, ids, terminate=bool(terminate))
            await store_revoked(call.queue, [each for each in ids if each not in here], terminate=bool(terminate))
    if not terminate:
        return {"ok": f"tasks {set(ids)} flagged as revoked"}
    return {"ok": f"terminate: {', '.join(stopped)}" if stopped else "terminate: tasks unknown"}


async def terminate(call: Call, signal: Any, task_id: Any) -> Any:
    return await revoke(call, task_id, terminate=True, signal=signal)


def _stopped(job: Job) -> str:
    if stop(job):
        return str(job.task_id)
    return f"{job.task_id} (a plain function: its thread runs on)"


def _ids(task_id: Any) -> list[str]:
    try:
        ids = ids_of(task_id)
    except TypeError as error:
        raise WrongArgument(str(error)) from None
    if not ids or not all(ids):
        raise WrongArgument("give the ids of the tasks to revoke: there is none, or an empty one")
    if len(ids) > MOST_IDS or any(len(each) > LONGEST_ID for each in ids):
        raise WrongArgument(f"at most {MOST_IDS} ids of at most {LONGEST_ID} characters can be revoked at once")
    return ids


def _check_signal(signal: Any) -> None:
    """Nothing gets a signal here; but who mistypes one should hear of it, as from Celery's workers."""
    known = {each.name for each in signals.Signals} | {int(each) for each in signals.Signals}
    named = signal.upper() if isinstance(signal, str) else signal
    if signal is None or named == "":
        return
    if type(named) not in (str, int) or not {named, f"SIG{named}"} & known:
        raise WrongArgument(f"signal {signal!r:.100} is unknown here; say SIGTERM, or nothing")


async def revoke_by_stamped_headers(call: Call, headers: Any, terminate: Any = False, signal: Any = None) -> Any:
    try:
        stamps = stamps_of(headers)
    except TypeError as error:
        raise WrongArgument(str(error)) from None
    if terminate:
        _check_signal(signal)
    if not any(stamps.values()):
        raise WrongArgument("give the stamps of the tasks to revoke: there is none")
    if sum(map(len, stamps.values())) > MOST_IDS:
        raise WrongArgument(f"at most {MOST_IDS} stamps can be revoked at once")
    call.log(f"tasks with the stamps {saferepr(stamps, 200)} are revoked{' and terminated' if terminate else ''}")
    call.pieces.revocations.add_stamps(stamps)
    running = [job for job in stamped(call.pieces.jobs, stamps) if job.started] if terminate else []
    found: dict[str, list[str]] = {}
    for job in running:
        stop(job)
        if job.message is not None:
            found |= matching(job.message.stamps, stamps)
    if call.request.for_all:
        await keep_stamps(call.queue, stamps, terminate=bool(terminate))
    if not terminate:
        return {"ok": f"headers {headers} flagged as revoked, but not terminated"}
    return {"ok": f"headers {found} revoked" if found else f"headers {headers} were not terminated"}


# -- limits


def rate_limit(call: Call, task_name: Any, rate_limit: Any) -> Any:
    try:
        rate = parse_rate(rate_limit)
    except ValueError as error:
        return {"error": f"Invalid rate limit string: {error!r}"}
    task = call.queue.tasks.get(text("task_name", task_name))
    if task is None:
        return {"error": "unknown task"}
    call.pieces.executor.limits.set_rate(task, rate_limit)
    call.log(f"{task.name} has the rate limit {rate_limit!r}")
    return {"ok": "rate limit disabled successfully" if rate is None else "new rate limit set successfully"}


def time_limit(call: Call, task_name: Any, hard: Any = LEFT_OUT, soft: Any = LEFT_OUT) -> Any:
    """What is left out is no limit; but no mere slip takes both away: that has to be said."""
    if hard is soft is LEFT_OUT:
        raise WrongArgument("time_limit needs soft or hard, or both; null (`none` on the command line) for no limit")
    limits = {
        name: seconds(name, None if value is LEFT_OUT else value) for name, value in (("hard", hard), ("soft", soft))
    }
    try:
        check_limits(limits["hard"], limits["soft"], "The new limits")
    except ConfigError as error:
        raise WrongArgument(str(error)) from None
    task = call.queue.tasks.get(text("task_name", task_name))
    if task is None:
        return {"error": "unknown task"}
    call.pieces.executor.limits.set_times(task, **limits)
    call.log(f"{task.name} has the time limits {limits}")
    if task.is_coroutine or not any(limits.values()):
        return {"ok": "time limits set successfully"}
    note = f"they have no effect on {task.name}: it is a plain function, and threads cannot be stopped"
    call.pieces.executor.repeated.log(
        logging.WARNING, "time limits of plain functions", "Time limits were set, but %s", note
    )
    # Flower shows a text only of what is ok.
    return {"ok": f"time limits set successfully, but {note}"}


# -- events


def enable_events(call: Call) -> Any:
    return {"ok": "task events enabled" if call.pieces.events.enable() else "task events already enabled"}


def disable_events(call: Call) -> Any:
    return {"ok": "task events disabled" if call.pieces.events.disable() else "task events already disabled"}


def heartbeat(call: Call) -> Any:
    call.pieces.events.heartbeat()


def election(call: Call, id: Any = None, topic: Any = None, action: Any = None) -> Any:
    """Celery's workers elect among themselves; ours have no part in it."""


# -- how much at once


def pool_grow(call: Call, n: Any = 1) -> Any:
    _resize(call, call.pieces.jobs.limit + whole("n", n))
    return {"ok": "pool will grow"}


def pool_shrink(call: Call, n: Any = 1) -> Any:
    _resize(call, max(1, call.pieces.jobs.limit - whole("n", n)))
    return {"ok": "pool will shrink"}


def autoscale(call: Call, max: Any = None, min: Any = None) -> Any:
    """There is nothing to keep warm for less: only the most there may be counts."""
    least = 0 if min is None else whole("min", min, least=0)
    most = call.pieces.jobs.limit if max is None else whole("max", max)
    if least > most:
        raise WrongArgument(f"min {least} is more than max {most}")
    _resize(call, most)
    return {"ok": f"autoscale now max={most} min={least}"}


def _resize(call: Call, limit: int) -> None:
    limit = whole("the number of tasks at once", limit)
    call.log(f"at most {limit} tasks run at once")
    call.pieces.jobs.resize(limit)


def pool_restart(call: Call, modules: Any = None, reload: Any = False, reloader: Any = None) -> Any:
    return {"error": "there is no pool to restart: stop the worker, and have it started again"}


def shutdown(call: Call, msg: Any = None) -> Any:
    call.log("this worker stops")
    call.pieces.worker.dismiss()
    return {"ok": "shutting down"}


# -- queues


async def add_consumer(
    call: Call, queue: Any, exchange: Any = None, exchange_type: Any = None, routing_key: Any = None
) -> Any:
    name, kind = queue_name("queue", queue), text("exchange_type", exchange_type or "direct")
    source, key = text("exchange", exchange or name), text("routing_key", routing_key or name)
    if kind not in ("direct", "topic"):
        raise WrongArgument(f"exchange_type is direct or topic, not {kind!r}")
    await call.queue.broker.depth([name])  # an error where there is something else by this name
    # What goes by the name of the queue needs no binding; that is how nearly all is sent.
    if source != name or kind != "direct" or key != name:
        await call.queue.broker.bind([Binding(source, kind, key, name)])
    call.log(f"messages of queue {name!r} are taken, too")
    call.pieces.fetcher.add(name, (source, kind, key))
    return {"ok": f"add consumer {name}"}


def cancel_consumer(call: Call, queue: Any) -> Any:
    name = text("queue", queue)
    call.log(f"nothing more of queue {name!r} is taken")
    call.pieces.fetcher.remove(name)
    return {"ok": f"no longer consuming from {name}"}


def _in_words(command: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    """The command, answering with an error in words where arguments are missing or wrong."""
    parameters = list(inspect.signature(command).parameters.values())[1:]
    required = [each.name for each in parameters if each.default is inspect.Parameter.empty]

    @functools.wraps(command)
    async def answered(call: Call, **arguments: Any) -> Any:
        try:
            _check_given(command.__name__, required, arguments)
            found = command(call, **arguments)
            return await found if inspect.isawaitable(found) else found
        except WrongArgument as error:
            asked = (command.__name__, call.request.origin, error)
            text = "The command %s, asked by %s, has failed: %s"
            call.pieces.executor.repeated.log(logging.WARNING, "commands that failed", text, *asked)
            return {"error": str(error)}

    return answered


def _check_given(name: str, required: list[str], arguments: dict[str, Any]) -> None:
    if missing := sum(each not in arguments for each in required):
        # Programs may look for what follows: workers of Celery say it so.
        said = f"missing {missing} required positional argument{'s' if missing > 1 else ''}"
        raise WrongArgument(f"{name} needs {' and '.join(required)} ({said})")


HANDLERS = {
    function.__name__: _in_words(function)
    for function in (
        revoke,
        terminate,
        revoke_by_stamped_headers,
        rate_limit,
        time_limit,
        enable_events,
        disable_events,
        heartbeat,
        election,
        pool_grow,
        pool_shrink,
        autoscale,
        pool_restart,
        shutdown,
        add_consumer,
        cancel_consumer,
    )
}
