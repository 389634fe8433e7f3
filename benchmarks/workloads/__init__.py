"""The workloads, by the name they have on the command line."""

from __future__ import annotations

from benchmarks.contenders import ALL, CEILING, HUEY_SQLITE, OURS, OURS_SQLITE
from benchmarks.workloads import chords, drain, resting, sending
from benchmarks.workloads.model import Bar, Figure, Workload, rate

REDIS = tuple(each.name for each in ALL if each.broker == "redis")
SQLITE = (OURS_SQLITE, HUEY_SQLITE)
PEERS = tuple(name for name in REDIS if name != CEILING)
CLIENTS = tuple(name for name in REDIS if name not in ("celery-prefork", "dramatiq", "huey-greenlet"))
"""Of those that differ in nothing but their worker, the one whose worker is quick."""
PROGRAMS = tuple(name for name in PEERS if name not in ("celery-prefork", "dramatiq-gevent", "huey-greenlet"))

COSTS = (
    Figure("worker_us", "worker CPU us/task", bar=Bar(limit=50)),
    Figure("redis_us", "Redis CPU us/task", bar=Bar(limit=25)),
    Figure("round_trips", "round trips/task", 3, bar=Bar(limit=0.1)),
    Figure("commands", "commands/task, in scripts too", 1),
    Figure("wire_bytes", "bytes on the wire/task"),
)
PEAK = Figure("memory", "worker's peak MB", 1)

WORKLOADS = {
    "drain": Workload(
        "Drain {tasks:,} no-ops, one worker process",
        drain.drain,
        (rate(times=8), *COSTS, PEAK),
        REDIS,
        20_000,
        shrinks=True,
    ),
    "drain2": Workload(
        "Drain {tasks:,} no-ops, two worker processes",
        drain.drain_two,
        (rate(times=6), PEAK),
        REDIS,
        20_000,
        shrinks=True,
    ),
    "io": Workload(
        "Drain {tasks:,} tasks of 50 ms, 500 at once",
        drain.io,
        (rate(times=5), PEAK),
        REDIS,
        5_000,
        shrinks=True,
    ),
    "roundtrip": Workload(
        "Round trip: send a no-op, wait for its result, an idle worker",
        sending.roundtrip,
        (
            Figure("p50", "p50 ms", 2, bar=Bar(times=1, limit=1)),
            Figure("p99", "p99 ms", 2),
            Figure("spread", "p99 / p50", 1, bar=Bar(limit=3), only_ours=True),
            Figure("lost", "lost", only_ours=True),
        ),
        REDIS,
        1_000,
    ),
    "gather": Workload(
        "Send {tasks:,} no-ops and collect all results",
        sending.gather,
        (Figure("seconds", "seconds", 3, bar=Bar(limit=0.2)),),
        REDIS,
        2_000,
    ),
    "enqueue": Workload(
        "Enqueue: {tasks:,} one after the other, five times as many in bulk, twice as many at once",
        sending.enqueue,
        (
            Figure("one_by_one", "one by one, tasks/s", more_is_better=True, bar=Bar(times=1.5)),
            Figure("best", "many, the quicker way, tasks/s", more_is_better=True, bar=Bar(times=8)),
            Figure("many", "in bulk, tasks/s", more_is_better=True),
            Figure("at_once", "plain calls at once, tasks/s", more_is_better=True),
        ),
        CLIENTS,
        2_000,
    ),
    "payload": Workload(
        "100 kB in and 100 kB out, {tasks:,} tasks",
        drain.payload,
        (
            rate(times=1.2),
            Figure("memory", "worker MB", 1),
            Figure("growth", "MB at the end / at a fifth", 2, bar=Bar(limit=1.1), only_ours=True),
            *(Figure(each.key, each.title, each.decimals) for each in COSTS[:3]),
        ),
        REDIS,
        1_000,
    ),
    "delayed": Workload(
        "{tasks:,} delayed tasks, due 2 s after each was sent, at most 1,000 sent a second",
        sending.delayed,
        (
            Figure("p50", "late p50 ms", 1, bar=Bar(limit=10)),
            Figure("p99", "late p99 ms", 1, bar=Bar(limit=50)),
            Figure("sent", "sent/s", only_ours=True),
        ),
        PEERS,
        5_000,
    ),
    "idle": Workload(
        "An idle worker, 10 s",
        resting.idle,
        (
            Figure("cpu", "CPU s in 10 s", 3, bar=Bar(limit=0.02)),
            Figure("commands", "commands/s", 1, bar=Bar(limit=2)),
            Figure("inside", "commands/s inside scripts", 1),
            Figure("memory", "MB", 1, bar=Bar(limit=45)),
            Figure("connections", "connections"),
        ),
        PEERS,
        100,
    ),
    "start": Workload(
        "From starting a worker to its first task",
        resting.start,
        (Figure("seconds", "seconds", 2, bar=Bar(limit=0.5)), Figure("cpu", "CPU s", 2)),
        PEERS,
        10,
    ),
    "import": Workload(
        "Importing what defines tasks",
        resting.imports,
        (Figure("wall", "ms", 1, bar=Bar(limit=80)), Figure("cpu", "CPU ms", 1)),
        tuple(resting.IMPORTS),
        5,
    ),
    "cli": Workload(
        "Commands: --help, inspect ping",
        resting.cli,
        (
            Figure("help", "--help s", 3, bar=Bar(limit=0.25)),
            Figure("help_cpu", "--help CPU s", 3),
            Figure("ping", "inspect ping s", 3, bar=Bar(limit=0.25)),
            Figure("ping_cpu", "inspect ping CPU s", 3),
        ),
        PROGRAMS,
        5,
    ),
    "deep": Workload(
        "{tasks:,} queued: a slice of 30,000 of them",
        drain.deep,
        (
            Figure("rate", "tasks/s", more_is_better=True),
            Figure("shallow", "tasks/s with 20,000 queued", more_is_better=True),
            Figure("kept", "of the rate with 20,000", 2, more_is_better=True, bar=Bar(limit=0.9), only_ours=True),
            Figure("cost", "worker CPU/task, of that with 20,000", 2, only_ours=True),
            Figure("memory", "worker MB", 1),
            Figure("growth", "MB / MB with 20,000", 2, bar=Bar(limit=1.1), only_ours=True),
            Figure("seeding", "sent/s", more_is_better=True),
            Figure("redis_memory", "Redis MB at the end"),
        ),
        (OURS,),
        1_000_000,
    ),
    "chord": Workload(
        "A chord of {tasks:,} no-ops, beside as many plain no-ops",
        chords.chord,
        (
            Figure("rate", "parts/s", more_is_better=True),
            Figure("overhead", "worker CPU/part, of that of a no-op", 2, bar=Bar(limit=1.5), only_ours=True),
            Figure("slower", "no-ops/s, of parts/s", 2, bar=Bar(limit=1.5), only_ours=True),
            Figure("worker_us", "worker CPU us/part"),
            Figure("plain_us", "worker CPU us/no-op"),
            Figure("redis_us", "Redis CPU us/part"),
            Figure("plain_redis_us", "Redis CPU us/no-op"),
            Figure("sent", "sent/s", more_is_better=True),
            Figure("memory", "worker MB in the header", 1),
            Figure("growth", "of that with a tenth of the parts", 2, bar=Bar(limit=1.1), only_ours=True),
            Figure("with_body", "worker's peak MB, with the body", 1),
            Figure("client", "client's peak MB", 1),
            Figure("client_growth", "of that with a tenth of the parts", 2, bar=Bar(limit=1.1), only_ours=True),
        ),
        (OURS, "celery-prefork", "celery-threads", "huey"),
        100_000,
        shrinks=True,
        of_peers=10_000,
    ),
    "waiters": Workload(
        "{tasks:,} results awaited at once by one process, then a worker starts",
        sending.waiters,
        (Figure("connections", "connections"), Figure("seconds", "seconds", 2)),
        (OURS, "arq", "saq", "taskiq"),
        10_000,
    ),
    "sqlite-drain": Workload(
        "SQLite: drain {tasks:,} no-ops, one worker process", drain.drain, (rate(times=2), PEAK), SQLITE, 5_000
    ),
    "sqlite-roundtrip": Workload(
        "SQLite: round trip",
        sending.roundtrip,
        (Figure("p50", "p50 ms", 2, bar=Bar(limit=15)), Figure("p99", "p99 ms", 2)),
        SQLITE,
        500,
    ),
}
