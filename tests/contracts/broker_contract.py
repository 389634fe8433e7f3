"""What every broker promises (aioretryq/brokers/base.py), as tests to run against each adapter.

Subclass `BrokerContract` and give it a fixture `world`. Nothing here sleeps to let time pass: `world.advance`
moves the broker's time (a shifted clock, or rewritten scores where the server keeps the time). Bodies are opaque,
but where a mark or a counter matters: there they are task messages, for an adapter may keep those inside of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aioretryq.brokers.base import Broker
from contracts.broker_dead_contract import DeadContract
from contracts.broker_delivery_contract import DeliveryContract
from contracts.broker_lease_contract import LeaseContract
from contracts.broker_parking_contract import ParkingContract
from contracts.broker_recovery_contract import RecoveryContract

if TYPE_CHECKING:
    from contracts.broker_world import World


class BrokerContract(DeliveryContract, LeaseContract, RecoveryContract, ParkingContract, DeadContract):
    @pytest.fixture
    async def world(self) -> World:
        raise NotImplementedError("the adapter's test class says how to connect")

    @pytest.fixture
    async def broker(self, world: World) -> Broker:
        return await world.connect()

    async def test_is_a_broker(self, broker):
        assert isinstance(broker, Broker)
        assert broker.display_url
