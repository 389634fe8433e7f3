"""Questions to a worker: each returns what Celery's worker would (celery/worker/control.py)."""

from __future__ import annotations

import importlib
import importlib.util
import os
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from aioretryq.task_options import FROM_SETTINGS, OPTIONS
from aioretryq.worker.arguments import text, texts
from aioretryq.worker.heartbeat import SOFTWARE
from aioretryq.worker.job_info import info
from aioretryq.worker.shown import masked, settings

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aioretryq.message import TaskMessage
    from aioretryq.task import Task
    from aioretryq.worker.control import Call
    from aioretryq.worker.jobs import Job

resource: Any = (
    importlib.import_module("resource") if importlib.util.find_spec("resource") else None
)  # not on Windows

_DEFAULT_ITEMS = ("exchange", "routing_key", "rate_limit")


def ping(call: Call) -> Any:
    return {"ok": "pong"}


def clock(call: Call) -> Any:
    return {"clock": call.queue.clock.value}


def report(call: Call) -> Any:
    shown, backend = settings(call.queue, with_defaults=False), call.queue.results.backend
    lines = [
        f"software -> aioretryq:{SOFTWARE['sw_ver']} py:{platform.python_version()}",
        f"platform -> system:{platform.system()} arch:{platform.machine()} imp:{platform.python_implementation()}",
        masked("", f"settings -> broker:{call.queue.broker.display_url} results:{backend.display_url}"),
        "",
        *[f"{name}: {value!r}" for name, value in shown.items()],
    ]
    return {"ok": "\n" + "\n".join(lines) + "\n"}


def conf(call: Call, with_defaults: Any = False) -> Any:
    return settings(call.queue, with_defaults=bool(with_defaults))


def hello(call: Call, from_node: Any, revoked: Any = None) -> Any:
    if from_node == call.node:
        return None
    revocations = call.pieces.revocations
    revocations.merge(revoked)
    return {"revoked": revocations.ids(), "clock": call.queue.clock.forward()}


# -- tasks


def _known(call: Call) -> list[tuple[Job, TaskMessage]]:
    return [(job, job.message) for job in call.pieces.jobs.all() if job.message is not None]


def active(call: Call, safe: Any = False) -> Any:
    return [info(job, message, call.node, safe=bool(safe)) for job, message in _known(call) if job.started]


def reserved(call: Call) -> Any:
    return [info(job, message, call.node) for job, message in _known(call) if not job.started]


def scheduled(call: Call) -> Any:
    return [
        {
            "eta": datetime.fromtimestamp(parked.due, UTC).isoformat(),
            "priority": parked.priority,
            "request": parked.info,
        }
        for parked in call.pieces.executor.parked.entries()
    ]


def query_task(call: Call, ids: Any) -> Any:
    wanted = set(texts("ids", ids))
    found: dict[str, Any] = {
        parked.info["id"]: ["scheduled", parked.info]
        for parked in call.pieces.executor.parked.entries()
        if parked.info["id"] in wanted
    }
    for job, message in _known(call):
        if message.id in wanted:
            found[message.id] = ["active" if job.started else "reserved", info(job, message, call.node)]
    return found


def revoked(call: Call) -> Any:
    return call.pieces.revocations.ids()


def registered(call: Call, taskinfoitems: Any = None, builtins: Any = False) -> Any:
    items = texts("taskinfoitems", taskinfoitems) if taskinfoitems else _DEFAULT_ITEMS
    tasks: Mapping[str, Task[Any, Any]] = call.queue.tasks
    names = sorted(name for name in tasks if builtins or not name.startswith("celery."))
    return [_described(call, tasks[name], items) for name in names]


def _described(call: Call, task: Task[Any, Any], items: Any) -> str:
    values = {item: _option(call, task, item) for item in items}
    shown = [f"{item}={value}" for item, value in values.items() if value is not None]
    return f"{task.name} [{' '.join(shown)}]" if shown else task.name


def _option(call: Call, task: Task[Any, Any], item: str) -> Any:
    """Options only: whoever asks names them, and must not get at anything else of the task."""
    if item == "rate_limit":
        return call.pieces.executor.limits.rate_of(task)
    return getattr(task, item) if item in OPTIONS or item in FROM_SETTINGS else None


# -- the worker


def active_queues(call: Call) -> Any:
    return [_queue(name, *call.pieces.fetcher.route(name)) for name in call.pieces.fetcher.queues]


def _queue(name: str, exchange: str, kind: str, routing_key: str) -> dict[str, Any]:
    return {
        "name": name,
        "exchange": {
            "name": exchange,
            "type": kind,
            "arguments": None,
            "durable": True,
            "passive": False,
            "auto_delete": False,
            "delivery_mode": None,
            "no_declare": False,
        },
        "routing_key": routing_key,
        "queue_arguments": None,
        "binding_arguments": None,
        "consumer_arguments": None,
        "durable": True,
        "exclusive": False,
        "auto_delete": False,
        "no_ack": False,
        "alias": None,
        "bindings": [],
        "no_declare": None,
        "expires": None,
        "message_ttl": None,
        "max_length": None,
        "max_length_bytes": None,
        "max_priority": None,
    }


def stats(call: Call) -> Any:
    pieces = call.pieces
    return {
        "total": dict(pieces.jobs.totals),
        "pid": os.getpid(),
        "clock": str(call.queue.clock.value),
        "uptime": int(pieces.uptime()),
        "prefetch_count": pieces.jobs.limit,
        "pool": {
            "implementation": "aioretryq.worker:asyncio",
            "max-concurrency": pieces.jobs.limit,
            "max-tasks-per-child": "N/A",
            "processes": [os.getpid()],
            "put-guarded-by-semaphore": False,
            "threads": pieces.worker.threads,
            "timeouts": [limit or 0 for limit in pieces.executor.limits.times()],
        },
        "broker": _broker(call),
        "rusage": _usage(),
        "events": {"enabled": pieces.events.enabled, "dropped": pieces.events.dropped},
        **SOFTWARE,
    }


def _broker(call: Call) -> dict[str, Any]:
    queue = call.queue
    url = urlsplit(queue.broker.display_url)
    return {
        "hostname": url.hostname or url.path,
        "port": url.port if url.hostname else None,
        "userid": url.username,
        "virtual_host": url.path.lstrip("/") if url.hostname else "",
        "transport": url.scheme,
        "transport_options": settings(queue, with_defaults=True)["broker_transport_options"],
        "connect_timeout": queue.conf.broker_connection_timeout,
        "ssl": url.scheme == "rediss",
        "alternates": [],
        "credential_provider": None,
        "failover_strategy": "round-robin",
        "heartbeat": 0,
        "insist": False,
        "login_method": None,
        "uri_prefix": None,
    }


def _usage() -> Any:
    if resource is None:
        return "N/A"
    found = resource.getrusage(resource.RUSAGE_SELF)
    return {name.removeprefix("ru_"): getattr(found, name) for name in sorted(dir(found)) if name.startswith("ru_")}


def memory() -> str:
    """What the process has in memory now, or where the system does not say the most it ever had."""
    statm = Path("/proc/self/statm")
    if statm.exists():
        used = int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    elif resource is not None:
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    else:
        raise OSError("this system does not say how much memory a process uses")
    return f"{used / 2**20:.2f}MB"


def memsample(call: Call) -> Any:
    sample = memory()
    call.pieces.samples.append(sample)
    return sample


def memdump(call: Call, samples: Any = 10) -> Any:
    kept = list(call.pieces.samples)
    if not kept:
        return "- rss: (no samples: ask memsample a few times before)\n"
    shown = kept[-samples:] if type(samples) is int and samples > 0 else kept
    return "- rss:\n" + "".join(f"  {sample}\n" for sample in shown) + f"- rss now: {memory()}\n"


def objgraph(call: Call, type: Any = "Request", num: Any = 200, max_depth: Any = 10) -> Any:
    text("type", type)
    return {"error": "objgraph is not supported: ask memsample, or use tracemalloc in a command of your own"}


HANDLERS = {
    function.__name__: function
    for function in (
        ping,
        clock,
        report,
        conf,
        hello,
        active,
        reserved,
        scheduled,
        query_task,
        revoked,
        registered,
        active_queues,
        stats,
        memsample,
        memdump,
        objgraph,
    )
}
