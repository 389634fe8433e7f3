"""What a Celery application's configuration means to the worker around it. The rest stays Celery's business."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from aioretryq import backends
from aioretryq.celery_settings.translation import translate
from aioretryq.celery_settings.urls import backend_url
from aioretryq.errors import ConfigError
from aioretryq.protocol.content import CONTENT_TYPES
from aioretryq.setting_sources import read_celery

if TYPE_CHECKING:
    from collections.abc import Mapping

_PREFIXES = ("broker_", "redis_", "security_", "event_", "control_")
_TAKEN = frozenset(
    """result_backend result_backend_transport_options accept_content task_default_queue task_acks_late
    worker_soft_shutdown_timeout worker_send_task_events task_send_sent_event worker_disable_rate_limits
    worker_enable_remote_control worker_deduplicate_successful_tasks""".split()
)
WITHOUT_EFFECT = frozenset(
    """broker_heartbeat broker_heartbeat_checkrate task_reject_on_worker_lost
    task_retry_on_worker_lost worker_autoscaler worker_cancel_long_running_tasks_on_connection_loss worker_consumer
    worker_direct worker_disable_prefetch worker_enable_prefetch_count_reduction worker_eta_task_limit
    worker_lost_wait worker_max_memory_per_child worker_max_tasks_per_child worker_pool worker_pool_putlocks
    worker_pool_restarts worker_pool_start_method worker_proc_alive_timeout
    worker_state_db worker_timer worker_timer_precision""".split()
)
"""Settings of Celery's own consumer and pools."""


def queue_settings(app: Any) -> dict[str, Any]:
    """Settings of the queue around the application's tasks. ConfigError where our worker cannot serve it."""
    values = read_celery(app).values
    for name in ("broker_url", "broker_read_url", "broker_write_url", "result_backend"):  # as Celery does
        values[name] = os.environ.get(f"CELERY_{name.upper()}") or values.get(name)
    chosen = {name: value for name, value in values.items() if name in _TAKEN or name.startswith(_PREFIXES)}
    if (accepted := chosen.get("accept_content")) is not None:  # the application reads those that only it knows
        chosen["accept_content"] = tuple(kind for kind in accepted if _known(kind))
    found = translate(chosen, {"result_backend": _backend(values)}, WITHOUT_EFFECT)
    broker = found.settings.get("broker_url", "")
    if broker and not broker.startswith(("redis", "unix")):
        scheme = broker.partition("://")[0]
        found.problems.append(f"broker_url: {scheme}:// is no broker that Celery's clients could reach here.")
    if found.problems:
        listed = "".join(f"\n- {_in_options(problem)}" for problem in found.problems)
        raise ConfigError(f"The tasks of this Celery application cannot be served here yet:{listed}")
    return {**found.settings, "result_backend": _backend(values)}


def _in_options(problem: str) -> str:
    """What `from_celery` says of its arguments, said of the command's options."""
    return problem.replace("pass url=", "give --url")


def _known(serializer: str) -> bool:
    return serializer in CONTENT_TYPES or serializer in CONTENT_TYPES.values()


def _backend(values: Mapping[str, Any]) -> str:
    """Where finished tasks of dead workers are looked up: the application's Redis. Other backends are Celery's."""
    url = values.get("result_backend")
    if not isinstance(url, str) or url.partition("://")[0] not in backends.BUILT_IN or not url.startswith("redis"):
        return "disabled"
    return backend_url(values)


def without_effect(app: Any) -> list[str]:
    """Settings that were made, and are about what our worker does in its own way."""
    values = read_celery(app).values
    return sorted(name for name in values if name in WITHOUT_EFFECT)
