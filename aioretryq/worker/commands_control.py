"""What a worker can be told to do; the texts of the replies are Celery's, because programs read them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aioretryq.message import Binding
from aioretryq.rates import parse_rate
from aioretryq.revoking import ids_of, keep_revoked, keep_stamps, stamps_of, store_revoked
from aioretryq.worker.arguments import seconds, text, whole
from aioretryq.worker.revocations import LONGEST_ID, matching, stamped, stop

if TYPE_CHECKING:
    from aioretryq.worker.control import Call
    from aioretryq.worker.jobs import Job

MOST_IDS = 10_000


# -- revoking


async def revoke(call: Call, task_id: Any, terminate: Any = False, signal: Any = None) -> Any:
    """What is told by a client of Celery is kept in the broker, too: workers that start later honour it."""
    ids = _ids(task_id)
    call.log(f"tasks {', '.join(ids)} are revoked{' and terminated' if terminate else ''}")
    for each in ids:
        call.pieces.revocations.add(each)
    running = [job for job in call.pieces.jobs.all() if job.started and job.task_id in ids]
    here = {job.task_id for job in running}
    stopped = [_stopped(job) for job in running] if terminate else []
    if call.request.for_all:
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
    ids = ids_of(task_id)
    if len(ids) > MOST_IDS or any(len(each) > LONGEST_ID for each in ids):
        raise ValueError(f"at most {MOST_IDS} ids of at most {LONGEST_ID} characters can be revoked at once")
    return ids


async def revoke_by_stamped_headers(call: Call, headers: Any, terminate: Any = False, signal: Any = None) -> Any:
    stamps = stamps_of(headers)
    if sum(map(len, stamps.values())) > MOST_IDS:
        raise ValueError(f"at most {MOST_IDS} stamps can be revoked at once")
    call.log(f"tasks with the stamps {stamps} are revoked{' and terminated' if terminate else ''}")
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


def time_limit(call: Call, task_name: Any = None, hard: Any = None, soft: Any = None) -> Any:
    limits = {"hard": seconds("hard", hard), "soft": seconds("soft", soft)}
    task = call.queue.tasks.get(text("task_name", task_name))
    if task is None:
        return {"error": "unknown task"}
    call.pieces.executor.limits.set_times(task, **limits)
    call.log(f"{task.name} has the time limits {limits}")
    return {"ok": "time limits set successfully"}


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
        raise ValueError(f"min {least} is more than max {most}")
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
    name, kind = text("queue", queue), text("exchange_type", exchange_type or "direct")
    source, key = text("exchange", exchange or name), text("routing_key", routing_key or name)
    if kind not in ("direct", "topic"):
        raise ValueError(f"exchange_type is direct or topic, not {kind!r}")
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


HANDLERS = {
    function.__name__: function
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
