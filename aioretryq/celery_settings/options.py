"""Celery's other options, of transports, tasks and the worker's command line, and what becomes of them here."""

from __future__ import annotations

from aioretryq.celery_settings.table import (
    COROUTINES_ONLY,
    Row,
    better,
    different,
    not_needed,
    not_yet,
    others,
    same,
    translated,
)

_KEYS = "Queues and keys have Celery's usual names."
_BUCKETS = "Priorities have Celery's usual buckets."
_SETTINGS = "The setting of that name, or `broker_connection_timeout`, is for all connections."
_BATCHES = "Retries are made by the settings for sending and storing."
_OTHER = "Of a transport other than Redis."
_WORKING = "What a dead worker held is given back when its lease ends."

TRANSPORT_OPTIONS: dict[str, Row] = {
    row.name: row
    for row in (
        same("global_keyprefix", ""),
        same(
            "visibility_timeout",
            3600,
            "For Celery workers on the same queues: what is held here stays out of their reach.",
        ),
        different("sep", "\x06\x16", _BUCKETS),
        different("priority_steps", [0, 3, 6, 9], _BUCKETS),
        same("queue_order_strategy", "round_robin"),
        same("fanout_prefix", True),
        same("fanout_patterns", True),
        different("ack_emulation", True, "Messages are acknowledged, always."),
        different("unacked_key", "unacked", _KEYS),
        different("unacked_index_key", "unacked_index", _KEYS),
        different("unacked_mutex_key", "unacked_mutex", _KEYS),
        better("unacked_mutex_expire", 300, _WORKING),
        better("unacked_restore_limit", None, _WORKING),
        different("credential_provider", None, "Put user and password into the URL."),
        not_yet("master_name", None, "Of Sentinel.", error=True),
        not_yet("sentinel_kwargs", None, "Of Sentinel.", error=True),
        not_yet("min_other_sentinels", None, "Of Sentinel.", error=True),
        *others(
            """socket_timeout socket_connect_timeout socket_keepalive socket_keepalive_options retry_on_timeout
            health_check_interval max_connections connection_class client_name""",
            _SETTINGS,
        ),
        *others(
            """max_retries interval_start interval_step interval_max errback retry_policy retry_errors
            confirm_publish polling_interval brpop_timeout""",
            _BATCHES,
        ),
        *others(
            """region queue_name_prefix predefined_queues wait_time_seconds backoff_policy backoff_tasks
            is_secure login_method""",
            _OTHER,
        ),
    )
}
"""Keys of `broker_transport_options`."""

_TRANSPORT_RESULTS = (
    same("global_keyprefix", ""),
    same("retry_policy", None),
    same("result_chord_ordered", True),
    not_yet("master_name", None, "Of Sentinel.", error=True),
    not_yet("sentinel_kwargs", None, "Of Sentinel.", error=True),
    not_yet("min_other_sentinels", None, "Of Sentinel.", error=True),
    *others("visibility_timeout socket_timeout socket_connect_timeout additional_connection_errors", _SETTINGS),
)
RESULT_OPTIONS: dict[str, Row] = {row.name: row for row in _TRANSPORT_RESULTS}
"""Keys of `result_backend_transport_options`."""

_ACKS = "A failed task is settled: use `autoretry_for`, or `dead_letter=True` and replay it."
_INSIDE = "A class of Celery's inside; use `base=` with hooks."

TASK_OPTIONS: dict[str, Row] = {
    row.name: row
    for row in (
        *(
            same(name)
            for name in """name bind base max_retries default_retry_delay autoretry_for dont_autoretry_for
            retry_kwargs retry_backoff retry_backoff_max retry_jitter throws priority expires serializer
            shadow_name trail ignore_result store_errors_even_if_ignored track_started""".split()
        ),
        *(same(name, None, COROUTINES_ONLY) for name in ("time_limit", "soft_time_limit")),
        same("queue", None, "And `task_routes`."),
        same("exchange"),
        same("routing_key"),
        same("acks_late", None, "The default is true."),
        translated("shared", True, "`@shared_task` is a decorator of its own."),
        not_needed("lazy", True, "Tasks are made at once."),
        not_needed("typing", True, "Arguments are checked where the task is called, always."),
        better("rate_limit", None, "Calls over their rate wait in the broker, not in the worker's memory."),
        different("acks_on_failure", None, _ACKS),
        different("acks_on_timeout", None, _ACKS),
        different("acks_on_failure_or_timeout", None, _ACKS),
        better(
            "reject_on_worker_lost", None, "A message of a dead worker is given to another, `max_deliveries` times."
        ),
        better("retry_on_worker_lost", None, "Deliveries are counted: `max_deliveries`."),
        same("compression"),
        different("backend", None, "A queue has one result backend."),
        same("send_events", True),
        not_yet("resultrepr_maxsize", 1024, "Results in logs are cut at a length."),
        *(
            not_yet(name, None, "Validate in the task, or give its arguments a model in FastAPI.")
            for name in ("pydantic", "pydantic_strict", "pydantic_context", "pydantic_dump_kwargs")
        ),
        not_needed("Strategy", None, _INSIDE),
        not_needed("Request", None, _INSIDE),
        translated("on_replace", None, "A method of a class: use `base=`. It gets the signature as it was given."),
    )
}
"""Options of `@app.task(...)`."""

_POOL = "Coroutines run on the event loop, functions in threads; `--processes` for more CPUs."
_DAEMON = "Run the worker in the foreground, under systemd, a container or a supervisor."
_SETTING = "A setting here, for every worker: `task_time_limit`, or the task's own. Of coroutines only."
_BEAT = "Run `celery beat` as a program of its own."
_FETCH = "A worker takes what it has room for, and nothing that does not start within a moment."
_RECYCLE = "Processes are not replaced; limit memory in the deployment."

WORKER_OPTIONS: dict[str, Row] = {
    row.name: row
    for row in (
        translated("-A, --app", None, "The first argument: `aioretryq worker package.module:queue`."),
        translated("-n, --hostname", None, "`-n`, `--name`; `%h` is the host."),
        same("-c, --concurrency", None, "Tasks at once in a process. A number, not `auto`."),
        same("-Q, --queues"),
        same("-l, --loglevel"),
        same("--purge, --discard", None, "`--purge`; it asks before it deletes."),
        not_needed("-P, --pool", None, _POOL),
        not_needed("--pool-start-method", None, _POOL),
        not_needed("-O, --optimization", None, _FETCH),
        better("--prefetch-multiplier", None, _FETCH),
        better("--disable-prefetch", None, _FETCH),
        same("-E, --task-events, --events", None, "`-E`, `--task-events`."),
        translated("--time-limit", None, _SETTING),
        translated("--soft-time-limit", None, _SETTING),
        not_yet("--max-tasks-per-child", None, _RECYCLE),
        not_yet("--max-memory-per-child", None, _RECYCLE),
        not_yet("-X, --exclude-queues", None, "Name the queues to serve with `-Q`."),
        not_needed("-I, --include", None, "Import the modules of your tasks where the queue is made."),
        better("-S, --statedb", None, "Revocations are kept in the broker, and all workers honour them."),
        not_needed("--without-gossip", None, "Workers do not gossip."),
        not_needed("--without-mingle", None, "Workers need not ask each other for anything at their start."),
        same("--without-heartbeat"),
        same("--heartbeat-interval"),
        not_yet("--autoscale", None, "Concurrency costs nothing while it is idle: set it to the most you want."),
        not_yet("-B, --beat", None, _BEAT),
        not_yet("-s, --schedule-filename, --schedule", None, _BEAT),
        not_yet("--scheduler", None, _BEAT),
        not_needed("-f, --logfile", None, "Logs go to standard error; where they go from there is the deployment's."),
        *(
            not_needed(name, None, _DAEMON)
            for name in ("-D, --detach", "--pidfile", "--uid", "--gid", "--umask", "--executable")
        ),
    )
}
"""Options of `celery worker`."""
