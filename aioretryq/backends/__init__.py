"""Result backends by alias and URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioretryq.errors import ConfigError, did_you_mean
from aioretryq.lazy import imported
from aioretryq.setting_values import without_password

if TYPE_CHECKING:
    from aioretryq.backends.base import ResultBackend
    from aioretryq.config import Settings

REDIS = "aioretryq.backends.redis:RedisBackend"
BUILT_IN = {
    "memory": "aioretryq.backends.memory:MemoryBackend",
    "sqlite": "aioretryq.backends.sqlite:SQLiteBackend",
    "redis": REDIS,
    "rediss": REDIS,
    "redis+socket": REDIS,
    "unix": REDIS,
    "disabled": "aioretryq.backends.disabled:DisabledBackend",
}
"""By scheme: where the backend is. Only the one that is asked for is imported, and its driver with it."""
DEFAULT_URLS = {
    "memory": "memory://",
    "sqlite": "sqlite:///aioretryq.sqlite3",
    "redis": "redis://localhost:6379/0",
    "disabled": "disabled://",
}
NOT_YET = frozenset(
    """rpc sentinel database db mongodb cache cassandra elasticsearch couchbase couchdb dynamodb s3 gs
    azureblockblob file consul arangodb cosmosdbsql""".split()
)
GONE = {"riak": "Celery has dropped it, and no client of it runs on a current Python"}
ENTRY_POINTS = "aioretryq.result_backends"


def create_backend(name: str, settings: Settings) -> ResultBackend:
    """The result backend for a URL or one of Celery's aliases, not connected yet.

    Others register a `from_url` in the entry point group `aioretryq.result_backends` under their alias.
    """
    url = DEFAULT_URLS.get(name, name)
    alias = url.partition("://")[0].partition("+")[0].lower()
    scheme = url.partition("://")[0].lower()
    for known in (scheme, alias):
        if known in BUILT_IN and "://" in url:
            backend: ResultBackend = imported(BUILT_IN[known]).from_url(url, settings)
            return backend
    for entry in imported("importlib.metadata:entry_points")(group=ENTRY_POINTS, name=alias):
        found: ResultBackend = entry.load()(url, settings)
        return found
    if alias in GONE:
        raise ConfigError(f"The result backend {alias!r} does not exist: {GONE[alias]}. Use redis or sqlite.")
    if alias in NOT_YET:
        raise ConfigError(
            f"The result backend {alias!r} is not built yet. Use redis://host:6379/0, sqlite:///file.sqlite3, "
            "or result_backend='disabled' to store no results."
        )
    raise ConfigError(
        f"{without_password(name)!r} is not a result backend.{did_you_mean(alias, [*BUILT_IN, *NOT_YET])} "
        "It looks like redis://host:6379/0, sqlite:///file.sqlite3, memory:// or disabled."
    )
