"""Every setting of Celery 5.7 and what becomes of it here: one row each. Facts and verdicts, no behaviour."""

from __future__ import annotations

from datetime import timedelta
from enum import StrEnum
from typing import Any

from msgspec import Struct


class Verdict(StrEnum):
    """What becomes of something of Celery's."""

    SAME = "same"
    TRANSLATED = "translated"
    BETTER = "better"
    NOT_NEEDED = "not needed"
    NOT_YET = "not yet"
    DIFFERENT = "different"


class Row(Struct, frozen=True):
    """A setting of Celery. `note` says how, why, or what to do instead.

    `default` and `fine` are values about which there is nothing to say; with another value a setting that is not
    taken is warned of, or with `error` refused, because without it the system would do something else. `aloud` is
    what the warning says besides the name.
    """

    name: str
    default: Any
    verdict: Verdict
    note: str = ""
    error: bool = False
    fine: tuple[Any, ...] = ()
    aloud: str = ""


def same(name: str, default: Any = None, note: str = "") -> Row:
    return Row(name, default, Verdict.SAME, note)


def translated(name: str, default: Any, note: str) -> Row:
    return Row(name, default, Verdict.TRANSLATED, note)


def better(name: str, default: Any, note: str, *fine: Any) -> Row:
    return Row(name, default, Verdict.BETTER, note, fine=fine)


def not_needed(name: str, default: Any, note: str, *fine: Any) -> Row:
    return Row(name, default, Verdict.NOT_NEEDED, note, fine=fine)


def not_yet(name: str, default: Any, note: str, *, error: bool = False, aloud: str = "") -> Row:
    return Row(name, default, Verdict.NOT_YET, note, error, aloud=aloud)


def different(name: str, default: Any, note: str) -> Row:
    return Row(name, default, Verdict.DIFFERENT, note, error=True)


def others(names: str, note: str, **defaults: Any) -> tuple[Row, ...]:
    """Rows that share their note."""
    return tuple(not_needed(name, defaults.get(name), note) for name in names.split())


_RABBITMQ = "RabbitMQ only; with Redis it has no effect in Celery either."
_LOGGING = "Logging is the application's: configure Python's `logging`; the worker sets it up only if nobody has."
_LIFETIMES = "How long queues of commands, replies and events live is decided here."
_BEAT = "Keep `celery beat` running: what it sends is served here like any message."
_OTHER_BACKEND = "Of a result backend that is not built yet; it has no effect with another one."
_FOREVER = "Reconnects for ever, with growing pauses."
_LEASE = (
    "What a worker holds is under a lease: it is taken over when the worker is silent, not when a connection is lost."
)
_FETCH = "A worker takes what it has room for, and nothing that does not start within a moment."
_POOL = "Connections are few and multiplexed; there is no pool to limit."
_RESULT_TLS = "Becomes part of the URL: `rediss://...?ssl_ca_certs=...`."
_INTO_BROKER = "Fills in what `broker_url` leaves out."
_INTO_BACKEND = "Fills in what `result_backend` leaves out."
_ANNOTATIONS = (
    "Options of Celery's tasks, not of yours: give them to `@queue.task(...)`, or use a base class. "
    "`aioretryq worker --celery` runs Celery's tasks with them."
)
_DIRECT = "Workers here take no queue of their own name: give each one with `-Q`. Clients send as before."
COROUTINES_ONLY = (
    "For coroutines. Functions: not yet. They run in threads, which nobody can stop: it has no effect on them, and "
    "the worker's banner lists them."
)
_FAILED = "A failed task is settled: use `autoretry_for`, or keep it with `task_dead_letter` and replay it."

_WHERE = (
    translated(
        "broker_url", None, "A Redis URL is taken. Failover lists, Sentinel, RabbitMQ and SQS are not yet: an error."
    ),
    translated(
        "broker_read_url", None, "One broker is used for both: an error when it is another one than `broker_url`."
    ),
    translated(
        "broker_write_url", None, "One broker is used for both: an error when it is another one than `broker_url`."
    ),
    translated("broker_transport", None, "Gives a `broker_url` without a scheme its scheme."),
    translated("broker_host", None, _INTO_BROKER),
    translated("broker_port", None, _INTO_BROKER),
    translated("broker_user", None, _INTO_BROKER),
    translated("broker_password", None, _INTO_BROKER),
    translated("broker_vhost", None, _INTO_BROKER),
    translated("broker_use_ssl", False, _RESULT_TLS),
    translated(
        "broker_transport_options", {}, "What both know is taken; keys that move queues elsewhere are an error."
    ),
    same("broker_connection_timeout", 4),
    not_needed("broker_connection_retry", True, _FOREVER),
    same("broker_connection_retry_on_startup", None),
    not_needed("broker_connection_max_retries", 100, _FOREVER, 0),
    not_needed("broker_channel_error_retry", False, _FOREVER, True),
    not_yet("broker_failover_strategy", None, "There is one broker URL."),
    not_needed("broker_heartbeat", 120, _RABBITMQ),
    not_needed("broker_heartbeat_checkrate", 3.0, _RABBITMQ),
    not_needed("broker_login_method", None, _RABBITMQ),
    not_needed("broker_native_delayed_delivery_queue_type", "quorum", _RABBITMQ),
    not_needed("broker_pool_limit", 10, _POOL),
    not_needed("broker_pool_acquire_timeout", None, _POOL),
    translated(
        "result_backend", None, "A Redis URL is taken; unset is `disabled`, as there. Others are not yet: an error."
    ),
    translated("result_backend_transport_options", {}, "What both know is taken."),
    translated("redis_host", None, _INTO_BACKEND),
    translated("redis_port", None, _INTO_BACKEND),
    translated("redis_db", None, _INTO_BACKEND),
    translated("redis_username", None, _INTO_BACKEND),
    translated("redis_password", None, _INTO_BACKEND),
    translated("redis_backend_use_ssl", None, _RESULT_TLS),
    different("redis_backend_credential_provider", None, "Put user and password into the URLs."),
    same("redis_max_connections"),
    translated(
        "redis_socket_timeout", 120.0, "Taken when shorter than a third of `lease`, which is the default here."
    ),
    not_needed("redis_socket_connect_timeout", None, "`broker_connection_timeout` is for both."),
    better("redis_retry_on_timeout", False, "Commands are safe to repeat, and are repeated.", True),
    better("redis_socket_keepalive", False, "Connections are checked while they are idle.", True),
    better("redis_backend_health_check_interval", None, "Connections are checked while they are idle."),
    not_needed("redis_client_name", None, "Connections are named by what they are for: `aioretryq:...`."),
)

_RESULTS = (
    same("result_expires", timedelta(days=1)),
    same("result_extended", False),
    same("result_cache_max", -1),
    same("result_backend_always_retry", False),
    same("result_backend_max_retries", float("inf")),
    same("result_backend_base_sleep_between_retries_ms", 10),
    same("result_backend_max_sleep_between_retries_ms", 10000),
    same("result_backend_thread_safe", None),
    same("result_failure_expires"),
    same("result_serializer", "json"),
    translated("result_accept_content", None, "Taken; MIME types become names."),
    same("result_compression"),
    same("result_chord_expires"),
    same("result_chord_join_timeout", 3.0),
    same("result_chord_retry_interval", 1.0),
    translated(
        "result_chord_ordered", None, "Also as a key of `result_backend_transport_options`, where Celery looks."
    ),
    not_needed("result_persistent", None, "Of the rpc backend only."),
    not_needed("result_exchange", "celeryresults", "Of the old amqp backend only."),
    not_needed("result_exchange_type", "direct", "Of the old amqp backend only."),
)

_TASKS = (
    translated("accept_content", ("json",), "Taken; MIME types become names."),
    same("task_serializer", "json"),
    same(
        "task_acks_late",
        False,
        "Taken when it is set. When it is not, the default is true here, and false in Celery.",
    ),
    different("task_acks_on_failure", None, _FAILED),
    different("task_acks_on_timeout", None, _FAILED),
    different("task_acks_on_failure_or_timeout", True, _FAILED),
    better(
        "task_reject_on_worker_lost",
        None,
        "A message of a dead worker is given to another, `task_max_deliveries` times.",
        True,
    ),
    better(
        "task_retry_on_worker_lost",
        False,
        "Deliveries are counted, and a poisonous message ends: `task_max_deliveries`.",
        True,
    ),
    same("task_always_eager", False),
    same("task_eager_propagates", False),
    not_yet("task_store_eager_result", False, "Results of eager tasks are not stored."),
    not_yet("task_annotations", None, _ANNOTATIONS, aloud="tasks of yours do not get these options"),
    same("task_compression"),
    same("task_create_missing_queues", True),
    not_needed("task_create_missing_queue_type", "classic", _RABBITMQ),
    not_needed("task_create_missing_queue_exchange_type", None, _RABBITMQ),
    same("task_inherit_parent_priority", False),
    not_needed("task_default_delivery_mode", 2, _RABBITMQ),
    same("task_default_queue", "celery"),
    not_needed("task_default_queue_type", "classic", _RABBITMQ),
    same("task_default_exchange"),
    same("task_default_exchange_type", "direct"),
    same("task_default_routing_key"),
    better(
        "task_default_rate_limit",
        None,
        "Tasks over their rate wait in the broker, not in the worker's memory.",
    ),
    same("task_default_priority"),
    same("task_ignore_result", False),
    translated("task_protocol", 2, "Messages of both protocols are read; 2 is written. 1 is an error."),
    same("task_publish_retry", True),
    same(
        "task_publish_retry_policy", {"max_retries": 3, "interval_start": 0, "interval_max": 1, "interval_step": 0.2}
    ),
    same("task_queues"),
    not_needed("task_queue_max_priority", None, _RABBITMQ),
    not_needed("task_remote_tracebacks", False, "Tracebacks are stored as text, always."),
    not_needed("task_repr_maxlevels", 3, "Arguments in logs are cut at a length."),
    translated("task_routes", None, "Taken; a router that is named by its path is imported."),
    same("task_send_sent_event", False),
    same("task_soft_time_limit", None, COROUTINES_ONLY),
    same("task_time_limit", None, COROUTINES_ONLY),
    same("task_store_errors_even_if_ignored", False),
    same("task_track_started", False),
    same("task_allow_error_cb_on_chord_header", False),
    different("enable_utc", True, "Times in messages would be local ones; set it to true wherever Celery runs."),
    not_needed("timezone", None, "Times are aware and UTC on the wire; the schedule of `celery beat` keeps its own."),
    not_needed("imports", (), "Import the modules of your tasks where the queue is made."),
    not_needed("include", (), "Import the modules of your tasks where the queue is made."),
)

_WORKERS = (
    translated(
        "worker_concurrency", None, 'Taken: so many tasks at once, in one process. "auto" is our default (100).'
    ),
    not_needed(
        "worker_pool",
        "prefork",
        "Coroutines run on the event loop, functions in threads; `--processes` for more CPUs.",
    ),
    not_needed("worker_pool_putlocks", True, "Of pools of processes."),
    not_needed("worker_pool_restarts", False, "Of pools of processes."),
    not_needed("worker_pool_start_method", "fork", "Of pools of processes."),
    not_needed("worker_proc_alive_timeout", 4.0, "Of pools of processes."),
    better("worker_lost_wait", 10.0, "A process that has died is noticed at once, and started again."),
    not_yet(
        "worker_max_tasks_per_child", None, "Processes are not replaced; restart the worker with its deployment."
    ),
    not_yet("worker_max_memory_per_child", None, "Processes are not replaced; limit memory in the deployment."),
    not_yet("worker_autoscaler", "celery.worker.autoscale:Autoscaler", "Concurrency costs nothing while it is idle."),
    better("worker_prefetch_multiplier", 4, _FETCH),
    better("worker_disable_prefetch", False, _FETCH, True),
    better("worker_enable_prefetch_count_reduction", True, _FETCH),
    better("worker_eta_task_limit", None, "Tasks with an eta wait in the broker, not in a worker's memory."),
    better("worker_cancel_long_running_tasks_on_connection_loss", False, _LEASE),
    translated("worker_soft_shutdown_timeout", 0.0, "Becomes `worker_grace`."),
    better(
        "worker_enable_soft_shutdown_on_idle",
        False,
        "What waits for its eta waits in the broker: a stop loses nothing.",
        True,
    ),
    same(
        "worker_deduplicate_successful_tasks",
        False,
        "Taken when it is set. When it is not, the default is true here.",
    ),
    better("worker_state_db", None, "Revocations are kept in the broker, and all workers honour them."),
    not_yet("worker_direct", False, _DIRECT, aloud="workers take queues of their own name from -Q alone"),
    same("worker_enable_remote_control", True),
    same("worker_send_task_events", False),
    same("worker_disable_rate_limits", False),
    not_needed("worker_detect_quorum_queues", True, _RABBITMQ),
    not_needed("worker_timer", None, "The event loop's."),
    not_needed("worker_timer_precision", 1.0, "The event loop's: a millisecond."),
    not_needed("worker_agent", None, "A class of Celery's inside; use `lifespan` and task base classes."),
    not_needed("worker_consumer", "celery.worker.consumer:Consumer", "A class of Celery's inside; use `lifespan`."),
    *others(
        """worker_hijack_root_logger worker_log_color worker_log_datefmt worker_log_format worker_redirect_stdouts
        worker_redirect_stdouts_level worker_task_log_datefmt worker_task_log_format""",
        _LOGGING,
        worker_hijack_root_logger=True,
        worker_log_format="[%(asctime)s: %(levelname)s/%(processName)s] %(message)s",
        worker_redirect_stdouts=True,
        worker_redirect_stdouts_level="WARNING",
        worker_task_log_format="[%(asctime)s: %(levelname)s/%(processName)s] %(task_name)s[%(task_id)s]: %(message)s",
    ),
)

_MONITORING = (
    same("control_exchange", "celery"),
    not_needed("control_queue_ttl", 300.0, "Replies that nobody takes are kept for a minute."),
    not_needed("control_queue_expires", 10.0, "The queue of replies ends with the call, or by itself."),
    not_needed("control_queue_exclusive", True, _RABBITMQ),
    not_needed("control_queue_durable", False, _RABBITMQ),
    same("event_exchange", "celeryev"),
    not_needed("event_queue_ttl", 5.0, _LIFETIMES),
    not_needed("event_queue_expires", 60.0, _LIFETIMES),
    not_needed("event_queue_prefix", "celeryev", _LIFETIMES),
    not_needed("event_queue_exclusive", True, _RABBITMQ),
    not_needed("event_queue_durable", False, _RABBITMQ),
    same("event_serializer", "json"),
    same("security_key"),
    translated("security_key_password", None, "Taken; bytes become text."),
    same("security_certificate"),
    same("security_cert_store"),
    same("security_digest", "sha256"),
)

_SCHEDULES = tuple(
    not_yet(name, default, _BEAT)
    for name, default in {
        "beat_schedule": {},
        "beat_scheduler": "celery.beat:PersistentScheduler",
        "beat_schedule_filename": "celerybeat-schedule",
        "beat_max_loop_interval": 0,
        "beat_sync_every": 0,
        "beat_cron_starting_deadline": None,
        "beat_enable_remote_control": False,
        "beat_remote_control_max_tick_age": None,
    }.items()
)

_OTHER_BACKENDS = others(
    """arangodb_backend_settings azureblockblob_base_path azureblockblob_connection_timeout
    azureblockblob_container_name azureblockblob_read_timeout azureblockblob_retry_increment_base
    azureblockblob_retry_initial_backoff_sec azureblockblob_retry_max_attempts cache_backend cache_backend_options
    cassandra_auth_kwargs cassandra_auth_provider cassandra_bundle_path cassandra_entry_ttl cassandra_keyspace
    cassandra_options cassandra_port cassandra_read_consistency cassandra_servers cassandra_table
    cassandra_write_consistency cosmosdbsql_collection_name cosmosdbsql_consistency_level cosmosdbsql_database_name
    cosmosdbsql_max_retry_attempts cosmosdbsql_max_retry_wait_time couchbase_backend_settings
    database_create_tables_at_setup database_engine_callback database_engine_options database_short_lived_sessions
    database_table_names database_table_schemas database_url elasticsearch_max_retries
    elasticsearch_retry_on_timeout elasticsearch_save_meta_as_text elasticsearch_timeout gcs_base_path gcs_bucket
    gcs_project gcs_ttl mongodb_backend_settings s3_access_key_id s3_base_path s3_bucket s3_endpoint_url s3_region
    s3_secret_access_key""",
    _OTHER_BACKEND,
    azureblockblob_base_path="",
    azureblockblob_connection_timeout=20,
    azureblockblob_container_name="celery",
    azureblockblob_read_timeout=120,
    azureblockblob_retry_increment_base=2,
    azureblockblob_retry_initial_backoff_sec=2,
    azureblockblob_retry_max_attempts=3,
    cache_backend_options={},
    cassandra_options={},
    cosmosdbsql_collection_name="celerycol",
    cosmosdbsql_consistency_level="Session",
    cosmosdbsql_database_name="celerydb",
    cosmosdbsql_max_retry_attempts=9,
    cosmosdbsql_max_retry_wait_time=30,
    database_create_tables_at_setup=True,
    database_engine_options={"pool_pre_ping": True, "pool_recycle": 3600},
    database_short_lived_sessions=False,
    elasticsearch_save_meta_as_text=True,
    gcs_base_path="",
    gcs_ttl=0,
)

CELERY_SETTINGS: dict[str, Row] = {
    row.name: row
    for group in (_WHERE, _RESULTS, _TASKS, _WORKERS, _MONITORING, _SCHEDULES, _OTHER_BACKENDS)
    for row in group
}
"""Every setting by its name since Celery 4."""
