"""How Celery's settings are spelt: today, in Celery 3, and in a Django settings module."""

from __future__ import annotations

import difflib

from aioretryq.celery_settings.table import CELERY_SETTINGS

_OLD_PREFIXES = {
    "beat_": "CELERYBEAT_",
    "worker_": "CELERYD_",
    "task_": "CELERY_",
    **{
        f"{group}_": f"CELERY_{group.upper()}_"
        for group in "cache couchbase arangodb mongodb event redis result elasticsearch security".split()
    },
}
_OLD_IRREGULAR = {
    "accept_content": "CELERY_ACCEPT_CONTENT",
    "result_accept_content": "RESULT_ACCEPT_CONTENT",
    "imports": "CELERY_IMPORTS",
    "include": "CELERY_INCLUDE",
    "timezone": "CELERY_TIMEZONE",
    "result_cache_max": "CELERY_MAX_CACHED_RESULTS",
    "result_expires": "CELERY_TASK_RESULT_EXPIRES",
    "database_url": "CELERY_RESULT_DBURI",
    "database_engine_options": "CELERY_RESULT_ENGINE_OPTIONS",
    "database_short_lived_sessions": "CELERY_RESULT_DB_SHORT_LIVED_SESSIONS",
    "database_table_names": "CELERY_RESULT_DB_TABLENAMES",
    "task_compression": "CELERY_MESSAGE_COMPRESSION",
    "task_eager_propagates": "CELERY_EAGER_PROPAGATES_EXCEPTIONS",
    "task_protocol": "CELERY_TASK_PROTOCOL",
    "task_publish_retry": "CELERY_TASK_PUBLISH_RETRY",
    "task_publish_retry_policy": "CELERY_TASK_PUBLISH_RETRY_POLICY",
    "task_send_sent_event": "CELERY_SEND_TASK_SENT_EVENT",
    "task_serializer": "CELERY_TASK_SERIALIZER",
    "task_soft_time_limit": "CELERYD_TASK_SOFT_TIME_LIMIT",
    "task_time_limit": "CELERYD_TASK_TIME_LIMIT",
    "worker_direct": "CELERY_WORKER_DIRECT",
    "worker_disable_rate_limits": "CELERY_DISABLE_RATE_LIMITS",
    "worker_enable_remote_control": "CELERY_ENABLE_REMOTE_CONTROL",
    "worker_lost_wait": "CELERYD_WORKER_LOST_WAIT",
    "worker_redirect_stdouts": "CELERY_REDIRECT_STDOUTS",
    "worker_redirect_stdouts_level": "CELERY_REDIRECT_STDOUTS_LEVEL",
    "worker_send_task_events": "CELERY_SEND_EVENTS",
}


def old_name(name: str) -> str:
    """What Celery 3 called the setting."""
    if name in _OLD_IRREGULAR:
        return _OLD_IRREGULAR[name]
    group = f"{name.partition('_')[0]}_"
    prefix = _OLD_PREFIXES.get(group)
    return name.upper() if prefix is None else prefix + name.removeprefix(group).upper()


OLD_NAMES: dict[str, str] = {old_name(name): name for name in CELERY_SETTINGS}
"""Name in Celery 3 -> name since Celery 4."""


def canonical(key: str, namespace: str = "CELERY") -> str | None:
    """The setting a key of a configuration means, by its name today; None if it means none of Celery's."""
    if key in CELERY_SETTINGS:
        return key
    name = key.removeprefix(f"{namespace}_").lower()
    if key.startswith(f"{namespace}_") and name in CELERY_SETTINGS:
        return name
    return OLD_NAMES.get(key)


_GROUPS = (
    *("accept_", "beat_", "broker_", "control_", "event_", "redis_", "result_", "security_", "task_", "worker_"),
    *("BROKER_", "CELERYBEAT_", "CELERYD_", "CELERY_"),
)


def looks_like_a_setting(key: str, namespace: str = "CELERY") -> bool:
    """Whether a key that means nothing was probably meant for Celery."""
    if key.startswith(_GROUPS):
        return True
    return (key.islower() or key.startswith(f"{namespace}_")) and nearest(key, namespace, 0.85) is not None


def nearest(key: str, namespace: str = "CELERY", likeness: float = 0.7) -> str | None:
    """The key of a setting that is spelt nearly like this one, in the same spelling."""
    known = [*CELERY_SETTINGS] if key.islower() else [*_in_capitals(namespace), *OLD_NAMES]
    return next(iter(difflib.get_close_matches(key, known, n=1, cutoff=likeness)), None)


def _in_capitals(namespace: str) -> list[str]:
    return [f"{namespace}_{name.upper()}" for name in CELERY_SETTINGS]
