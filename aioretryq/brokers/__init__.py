"""Brokers by URL."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aioretryq.errors import ConfigError, did_you_mean
from aioretryq.lazy import imported
from aioretryq.setting_values import without_password

if TYPE_CHECKING:
    from aioretryq.brokers.base import Broker
    from aioretryq.config import Settings

REDIS = "aioretryq.brokers.redis:RedisBroker"
BUILT_IN = {
    "memory": "aioretryq.brokers.memory:MemoryBroker",
    "sqlite": "aioretryq.brokers.sqlite:SQLiteBroker",
    "redis": REDIS,
    "rediss": REDIS,
    "redis+socket": REDIS,
    "unix": REDIS,
}
"""By scheme: where the broker is. Only the one that is asked for is imported, and its driver with it."""
NOT_YET = frozenset(
    """amqp amqps pyamqp librabbitmq sentinel sqs gcpubsub kafka confluentkafka zookeeper filesystem mongodb sqla
    sqlalchemy pgmq consul etcd azurestoragequeues azureservicebus qpid slmq pyro""".split()
)
ENTRY_POINTS = "aioretryq.brokers"


def create_broker(url: str, settings: Settings) -> Broker:
    """The broker for a URL, not connected yet. Others register a `from_url` in the entry point group
    `aioretryq.brokers` under their scheme."""
    scheme = url.partition("://")[0].lower()
    if scheme in BUILT_IN and "://" in url:
        broker: Broker = imported(BUILT_IN[scheme]).from_url(url, settings)
        return broker
    for entry in imported("importlib.metadata:entry_points")(group=ENTRY_POINTS, name=scheme):
        found: Broker = entry.load()(url, settings)
        return found
    if scheme in NOT_YET:
        raise ConfigError(
            f"The broker {scheme!r} is not built yet. Use redis://host:6379/0, or sqlite:///file.sqlite3 "
            "without a server."
        )
    raise ConfigError(
        f"{without_password(url)!r} is not a broker URL.{did_you_mean(scheme, BUILT_IN)} It looks like "
        "redis://host:6379/0, sqlite:///file.sqlite3 or memory://."
    )
