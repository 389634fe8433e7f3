"""What a broker promises when holders die: who counts what, when sweeps keep still, and twins."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest
from msgspec.structs import replace

from aioretryq.message import Finish
from contracts.broker_world import LEASE, bodies, envelope, leases_end, message, sweeps, take, take_one

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from aioretryq.message import Delivery, Outgoing


def counters(delivery: Delivery) -> tuple[int, int]:
    return delivery.deliveries, delivery.interruptions


async def in_another_loop(work: Coroutine[Any, Any, Any]) -> Any:
    return await asyncio.to_thread(asyncio.run, work)


class RecoveryContract:
    # -- counters

    async def test_a_first_delivery(self, world, broker):
        await broker.send([message(envelope("a")), message("opaque"), message("later", due=world.now() - 1)])
        assert [counters(delivery) for delivery in await take(broker)] == [(1, 0)] * 3

    async def test_recovering_counts_a_delivery(self, world, broker):
        await broker.send([message(envelope("a")), message(envelope("b"))])
        for times in (1, 2, 3):
            delivery = await take_one(broker)
            assert (counters(delivery), delivery.redelivered) == ((times, 0), times > 1)
            await leases_end(world, broker)
            assert await broker.recover() == 1
        assert [counters(delivery) for delivery in await take(broker)] == [(4, 0), (1, 0)]

    async def test_requeuing_takes_the_delivery_back_and_counts_an_interruption(self, broker):
        await broker.send([message(envelope("a")), message(envelope("b"))])
        for times in range(10):
            delivery = await take_one(broker)
            assert (counters(delivery), delivery.redelivered) == ((1, times), times > 0)
            await broker.requeue([delivery])
        assert [counters(delivery) for delivery in await take(broker)] == [(1, 10), (1, 0)]

    async def test_both_are_counted_apart(self, world, broker):
        await broker.send([message(envelope("a"))])
        await broker.requeue([await take_one(broker)])
        for _ in range(2):
            await take_one(broker)
            await leases_end(world, broker)
            assert await broker.recover() == 1
        await broker.requeue([await take_one(broker)])
        other = await world.connect()
        delivery = await take_one(other)
        assert (counters(delivery), delivery.redelivered) == ((3, 2), True)

    async def test_extending_counts_nothing(self, broker):
        await broker.send([message(envelope("a"))])
        delivery = await take_one(broker)
        assert await broker.extend([delivery]) == [True]
        await broker.requeue([delivery])
        assert counters(await take_one(broker)) == (1, 1)

    async def test_a_lost_lease_counts_nothing(self, world, broker):
        await broker.send([message(envelope("a"))])
        lost = await take_one(broker)
        await leases_end(world, broker)
        await broker.recover()
        await broker.requeue([lost])
        delivery = await take_one(broker)
        await broker.requeue([lost])
        assert counters(delivery) == (2, 0)
        await broker.requeue([delivery])
        assert counters(await take_one(broker)) == (2, 1)

    async def test_what_is_sent_again_starts_anew(self, world, broker):
        await broker.send([message(envelope("a"))])
        await broker.requeue([await take_one(broker)])
        await take_one(broker)
        await leases_end(world, broker)
        await broker.recover()
        follow_ups = (message(envelope("a")), message(envelope("a"), due=world.now() - 1))
        assert await broker.finish([Finish(await take_one(broker), follow_ups)]) == [True]
        await broker.send([message(envelope("a"))])
        deliveries = await take(broker)
        assert [(counters(d), d.redelivered) for d in deliveries] == [((1, 0), False)] * 3

    @pytest.mark.parametrize("counted", [(2, 0), (0, 3), (4, 1)])
    @pytest.mark.parametrize("due", [False, True])
    async def test_what_is_counted_of_a_message_goes_with_it(self, world, broker, counted, due):
        def again(name: str) -> Outgoing:
            sent = message(envelope(name), due=world.now() - 1 if due else None)
            return replace(sent, deliveries=counted[0], interruptions=counted[1])

        await broker.send([again("a"), message(envelope("new"))])
        first, new = sorted(await take(broker), key=lambda delivery: not delivery.redelivered)
        assert await broker.finish([Finish(first, (again("b"),))]) == [True]
        second = await take_one(broker)
        assert (counters(new), new.redelivered) == ((1, 0), False)
        for delivery in (first, second):
            assert (counters(delivery), delivery.redelivered) == ((counted[0] + 1, counted[1]), True)
        # It is counted on from there.
        await broker.requeue([second])
        await take_one(broker)
        await leases_end(world, broker)
        assert await broker.recover() == 2
        deliveries = [delivery for delivery in await take(broker) if delivery.body != new.body]
        assert (counted[0] + 2, counted[1] + 1) in map(counters, deliveries)

    async def test_a_body_with_a_history_starts_anew_unless_told(self, world, broker):
        await broker.send([message(envelope("a"))])
        await broker.requeue([await take_one(broker)])
        await take_one(broker)
        await leases_end(world, broker)
        await broker.recover()
        old = await take_one(broker)
        assert counters(old) == (2, 1)
        due = world.now() - 1
        follow_ups = (message(old.body), message(old.body, due=due), replace(message(old.body), deliveries=5))
        assert await broker.finish([Finish(old, follow_ups)]) == [True]
        await broker.send([message(old.body), message(old.body, due=due)])
        deliveries = await take(broker)
        found = sorted((*counters(delivery), delivery.redelivered) for delivery in deliveries)
        assert found == [(1, 0, False)] * 4 + [(6, 0, True)]
        # Nor does what was left out come back later.
        await broker.requeue(deliveries)
        assert sorted(map(counters, await take(broker))) == [(1, 1)] * 4 + [(6, 1)]

    # -- late sweeps

    async def test_the_first_sweep_puts_nothing_back(self, world, broker):
        await broker.send([message("a")])
        await take_one(broker)
        await world.advance(LEASE * 2)
        assert await broker.recover() == 0
        assert await (await world.connect()).recover() == 0
        await leases_end(world, broker)
        assert await broker.recover() == 1

    async def test_after_a_pause_the_living_renew_first(self, world, broker):
        await broker.send([message("living"), message("dead")])
        living, _dead = await take(broker)
        await sweeps(world, broker, LEASE * 0.2)
        await world.advance(LEASE * 5)  # the server was gone, or the machine slept
        assert await broker.recover() == 0
        assert await broker.extend([living]) == [True]
        assert await sweeps(world, broker, LEASE * 0.6) == 0
        assert await broker.extend([living]) == [True]
        assert await sweeps(world, broker, LEASE * 0.3) == 0
        await world.advance(LEASE * 0.2)
        assert await broker.recover() == 1
        assert bodies(await take(broker)) == ["dead"]
        assert await broker.finish([Finish(living)]) == [True]

    async def test_sweeps_of_others_count(self, world, broker):
        other = await world.connect()
        await broker.send([message("a")])
        await take_one(broker)
        await leases_end(world, broker)
        assert await other.recover() == 1

    @pytest.mark.parametrize(("pause", "late"), [(0.4, False), (0.6, True)])
    async def test_more_than_half_a_lease_is_late(self, world, broker, pause, late):
        await sweeps(world, broker, LEASE)
        await broker.send([message("a")])
        await take_one(broker)
        assert await sweeps(world, broker, LEASE * 0.8) == 0
        await world.advance(LEASE * pause)
        assert await broker.recover() == (0 if late else 1)
        assert await sweeps(world, broker, LEASE * 0.9) == 0
        await world.advance(LEASE * 0.2)
        assert await broker.recover() == (1 if late else 0)

    async def test_a_second_pause_starts_the_quiet_time_anew(self, world, broker):
        await broker.send([message("a")])
        await take_one(broker)
        for _ in range(3):
            await world.advance(LEASE * 0.8)
            assert await broker.recover() == 0
        await leases_end(world, broker)
        assert await broker.recover() == 1

    async def test_a_clock_that_is_set_back_does_not_stop_recovery(self, world, broker):
        await sweeps(world, broker, LEASE)
        await world.advance(-1000 * LEASE)
        await broker.send([message("a")])
        await take_one(broker)
        await leases_end(world, broker)
        assert await broker.recover() == 1

    # -- twins

    async def test_a_twin_extends_from_another_loop(self, world, broker):
        await broker.send([message("a"), message("b")])
        a, b = await take(broker)
        await broker.finish([Finish(b)])

        async def extend() -> list[bool]:
            async with broker.twin() as twin:
                assert twin.display_url == broker.display_url
                return await twin.extend([a, b])

        assert await sweeps(world, broker, LEASE * 0.6) == 0
        assert await in_another_loop(extend()) == [True, False]
        assert await sweeps(world, broker, LEASE * 0.6) == 0
        assert await broker.finish([Finish(a)]) == [True]

    async def test_a_twin_recovers_from_another_loop(self, world, broker):
        await broker.send([message("a"), message("b")])
        await take_one(broker)

        async def recover() -> int:
            async with broker.twin() as twin:
                return await twin.recover()

        await leases_end(world, broker)
        assert await in_another_loop(recover()) == 1
        assert bodies(await take(broker)) == ["a", "b"]

    async def test_a_twin_has_a_life_of_its_own(self, broker):
        twin = broker.twin()
        async with twin:
            await twin.send([message("a")])
        assert bodies(await take(broker)) == ["a"]
        async with twin.twin() as second:
            await second.send([message("b")])
        assert bodies(await take(broker)) == ["b"]

    async def test_a_twin_of_one_that_is_closed(self, world, broker):
        other = await world.connect()
        await broker.send([message("a")])
        await broker.__aexit__(None, None, None)
        async with broker.twin() as twin:
            assert bodies(await take(twin)) == ["a"]
        assert await take(other) == []
