"""Which of several queues has the first turn: the transport option `queue_order_strategy`."""

from __future__ import annotations

import pytest

from aioretryq import ConfigError, Settings
from aioretryq.brokers.memory import MemoryBroker
from aioretryq.message import Outgoing
from aioretryq.outage import Outage
from aioretryq.worker.fetcher import Fetcher, queue_order
from aioretryq.worker.jobs import Jobs
from aioretryq.worker.revocations import Revocations


@pytest.mark.parametrize(
    ("order", "served"),
    [
        ("round_robin", ["b0", "a0", "c0", "b1", "a1", "c1"]),
        ("priority", ["b0", "b1", "a0", "a1", "c0", "c1"]),
        ("sorted", ["a0", "a1", "b0", "b1", "c0", "c1"]),
    ],
)
async def test_the_order_of_queues(order, served):
    async with MemoryBroker() as broker:
        await broker.send([Outgoing(q, f"{q}{n}".encode(), f"{q}{n}") for n in range(2) for q in "abc"])
        jobs, outage = Jobs(10, lease=30), Outage("broker")
        fetcher = Fetcher(broker, ["b", "a"], jobs, Revocations(), outage=outage, order=order)
        fetcher.add("c")
        taken = [(await fetcher._claim(1))[0].deliveries[0].body.decode() for _ in range(6)]
        assert taken == served


def test_which_orders_there_are():
    conf = Settings()
    assert queue_order(conf) == "round_robin"
    conf.broker_transport_options = {"queue_order_strategy": "sorted"}
    assert queue_order(conf) == "sorted"
    conf.broker_transport_options = {"queue_order_strategy": "random"}
    with pytest.raises(ConfigError, match="round_robin, sorted, priority"):
        queue_order(conf)
