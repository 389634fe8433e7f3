"""Where settings come from: objects, modules, import paths; and which of Celery's mean nothing here."""

from __future__ import annotations

import importlib
import types
from collections.abc import Container, Mapping
from typing import Any

from aioretryq.errors import ConfigError


def read_object(source: object, known: Container[str]) -> dict[str, Any]:
    """Settings of a mapping, an object's attributes, a module, or the import path of one."""
    if isinstance(source, str):
        source = import_path(source)
    if isinstance(source, Mapping):
        return dict(source)
    if not isinstance(source, types.ModuleType):
        return {name: getattr(source, name) for name in dir(source) if not name.startswith("_")}
    public = {name: value for name, value in vars(source).items() if not name.startswith("_")}
    return {n: v for n, v in public.items() if n in known or n in CELERY_ONLY or _looks_like_setting(n, v)}


def _looks_like_setting(name: str, value: Any) -> bool:
    # A configuration module also holds its imports and helpers; a misspelt setting must still be noticed.
    groups = ("broker_", "result_", "task_", "worker_", "redis_", "beat_", "accept_")
    return name.startswith(groups) and not callable(value)


def import_path(path: str) -> object:
    """`package.module` or `package.module:attribute`."""
    module_name, _, attribute = path.partition(":")
    try:
        found: object = importlib.import_module(module_name)
        for part in filter(None, attribute.split(".")):
            found = getattr(found, part)
    except (ImportError, AttributeError) as error:
        raise ConfigError(f"Cannot load configuration from {path!r}: {error}") from error
    return found


CELERY_ONLY = frozenset(
    """
    beat_cron_starting_deadline beat_max_loop_interval beat_schedule beat_schedule_filename beat_scheduler
    beat_sync_every broker_channel_error_retry broker_connection_max_retries broker_connection_retry
    broker_failover_strategy broker_heartbeat broker_heartbeat_checkrate
    broker_login_method broker_native_delayed_delivery_queue_type broker_pool_limit broker_read_url
    broker_use_ssl broker_write_url control_exchange control_queue_expires control_queue_ttl enable_utc
    event_exchange event_queue_expires event_queue_prefix event_queue_ttl event_serializer imports include
    redis_backend_health_check_interval redis_backend_use_ssl redis_client_name redis_db redis_host
    redis_password redis_port redis_retry_on_timeout redis_socket_connect_timeout redis_socket_keepalive
    redis_username result_accept_content result_chord_expires result_chord_join_timeout
    result_chord_ordered result_chord_retry_interval result_compression result_exchange
    result_exchange_type result_failure_expires result_persistent result_serializer security_cert_store
    security_certificate security_digest security_key task_acks_on_failure task_acks_on_failure_or_timeout
    task_acks_on_timeout task_allow_error_cb_on_chord_header task_annotations task_compression
    task_create_missing_queues task_default_delivery_mode task_default_exchange task_default_exchange_type
    task_default_queue_type task_default_rate_limit task_default_routing_key task_inherit_parent_priority
    task_protocol task_queue_max_priority task_queues task_reject_on_worker_lost task_remote_tracebacks
    task_repr_maxlevels task_retry_on_worker_lost task_send_sent_event task_soft_time_limit
    task_store_eager_result timezone worker_agent worker_autoscaler
    worker_cancel_long_running_tasks_on_connection_loss worker_consumer
    worker_detect_quorum_queues worker_direct worker_disable_prefetch worker_disable_rate_limits
    worker_enable_prefetch_count_reduction worker_enable_remote_control worker_enable_soft_shutdown_on_idle
    worker_eta_task_limit worker_hijack_root_logger worker_log_color worker_log_format worker_lost_wait
    worker_max_memory_per_child worker_max_tasks_per_child worker_pool worker_pool_putlocks
    worker_pool_restarts worker_prefetch_multiplier worker_proc_alive_timeout worker_redirect_stdouts
    worker_redirect_stdouts_level worker_send_task_events worker_soft_shutdown_timeout worker_state_db
    worker_task_log_format worker_timer worker_timer_precision
    """.split()
)
"""Settings of Celery 5.7 that mean nothing here (yet): `load` skips them with a warning."""
