"""Brokers by URL."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

from aioretryq.brokers.memory import MemoryBroker
from aioretryq.brokers.redis import RedisBroker
from aioretryq.brokers.sqlite import SQLiteBroker
from aioretryq.errors import ConfigError, did_you_mean
from aioretryq.setting_values import without_password

if TYPE_CHECKING:
    from aioretryq.brokers.base import Broker
    from aioretryq.config import Settings

BUILT_IN: dict[str, Any] = {
    "memory": MemoryBroker,
    "sqlite": SQLiteBroker,
    "redis": RedisBroker,
    "rediss": RedisBroker,
    "redis+socket": RedisBroker,
    "unix": RedisBroker,
}
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
        broker: Broker = BUILT_IN[scheme].from_url(url, settings)
        return broker
    for entry in entry_points(group=ENTRY_POINTS, name=scheme):
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
