"""What a broker promises of leases, of waiting and of all that is not a message's straight way."""

from __future__ import annotations

import asyncio

import pytest

from aioretryq.errors import BrokerError, BrokerUnavailable
from aioretryq.message import Finish
from contracts.broker_world import (
    LEASE,
    bodies,
    envelope,
    leases_end,
    message,
    sweeps,
    take,
    take_one,
    wait_and_take,
)


class LeaseContract:
    # -- requeue

    async def test_requeued_messages_are_first_in_the_order_given(self, broker):
        await broker.send([message(name) for name in "abcd"])
        a, b, c = await take(broker, limit=3)
        await broker.requeue([b, a, c])
        assert bodies(await take(broker)) == ["b", "a", "c", "d"]

    async def test_requeue_goes_back_to_the_own_queue_and_priority(self, broker):
        await broker.send([message("m", "mail", priority=3), message("n", "mail", priority=3), message("c")])
        m, n = await take(broker, "mail")
        await broker.requeue([m, n])
        deliveries = await take(broker, "celery", "mail")
        assert [(d.body, d.queue, d.priority) for d in deliveries] == [
            (b"c", "celery", 0),
            (b"m", "mail", 3),
            (b"n", "mail", 3),
        ]

    async def test_requeued_messages_are_marked(self, broker):
        # An earlier holder did not finish them: it may have run them in part.
        await broker.send([message(envelope("a"))])
        await broker.requeue([await take_one(broker)])
        assert (await take_one(broker)).redelivered

    async def test_a_requeued_message_can_no_longer_be_finished(self, broker):
        await broker.send([message("a")])
        delivery = await take_one(broker)
        await broker.requeue([delivery])
        assert await broker.finish([Finish(delivery)]) == [False]
        assert bodies(await take(broker)) == ["a"]

    async def test_requeue_skips_lost_leases(self, broker):
        await broker.send([message("a"), message("b")])
        a, b = await take(broker)
        await broker.finish([Finish(a)])
        await broker.requeue([a, b, b])
        assert bodies(await take(broker)) == ["b"]
        assert await take(broker) == []

    # -- leases

    async def test_extend_starts_the_lease_anew(self, world, broker):
        await broker.send([message("a")])
        delivery = await take_one(broker)
        for _ in range(3):
            assert await sweeps(world, broker, LEASE * 0.7) == 0
            assert await broker.extend([delivery]) == [True]
            assert await broker.recover() == 0
        assert await broker.finish([Finish(delivery)]) == [True]

    async def test_extend_is_false_for_a_lost_lease(self, world, broker):
        await broker.send([message("a"), message("b")])
        a, b = await take(broker)
        await broker.finish([Finish(a)])
        assert await broker.extend([a, b]) == [False, True]
        await leases_end(world, broker)
        await broker.recover()
        assert await broker.extend([b]) == [False]

    async def test_recover_leaves_living_leases_alone(self, world, broker):
        await broker.send([message("a")])
        await take_one(broker)
        assert await sweeps(world, broker, LEASE * 0.5) == 0
        assert await take(broker) == []

    async def test_recover_puts_back_to_the_front_once(self, world, broker):
        await broker.send([message("a"), message("b")])
        await take_one(broker)
        await leases_end(world, broker)
        other = await world.connect()
        assert sorted(await asyncio.gather(broker.recover(), other.recover())) == [0, 1]
        assert await other.recover() == 0
        assert await broker.depth(["celery"]) == {"celery": 2}
        assert bodies(await take(other)) == ["a", "b"]

    async def test_recovered_messages_are_marked(self, world, broker):
        await broker.send([message(envelope("a")), message(envelope("b"))])
        assert not (await take_one(broker)).redelivered
        await leases_end(world, broker)
        await broker.recover()
        assert [delivery.redelivered for delivery in await take(broker)] == [True, False]

    async def test_recover_keeps_queue_priority_and_opaque_bodies(self, world, broker):
        body = b"\xff\x00 neither text nor json"
        await broker.send([message(body, "mail", priority=6)])
        await take_one(broker, "mail")
        await leases_end(world, broker)
        assert await broker.recover() == 1
        delivery = await take_one(broker, "mail")
        assert (delivery.body, delivery.priority) == (body, 6)

    async def test_recover_respects_its_limit(self, world, broker):
        await broker.send([message(str(n)) for n in range(5)])
        await take(broker)
        await leases_end(world, broker)
        assert [await broker.recover(limit=2) for _ in range(4)] == [2, 2, 1, 0]
        assert sorted(bodies(await take(broker))) == ["0", "1", "2", "3", "4"]

    async def test_a_lease_that_ended_counts_until_someone_recovers(self, world, broker):
        # A late finish does no harm as long as nobody else got the message.
        await broker.send([message("a")])
        delivery = await take_one(broker)
        await leases_end(world, broker)
        (finished,) = await broker.finish([Finish(delivery)])
        assert await broker.recover() == (0 if finished else 1)

    # -- wait

    @pytest.mark.parametrize("priority", [0, 9])
    async def test_wait_returns_when_a_message_is_sent(self, world, broker, priority):
        other = await world.connect()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait_and_take(broker, "mail", "celery"))
            await broker.wait(["mail"], timeout=0.1)  # the other waiter had the time to settle down
            await other.send([message("a", priority=priority)])
        assert bodies(waiting.result()) == ["a"]

    async def test_wait_returns_for_every_queue(self, world, broker):
        other = await world.connect()
        for queue in ("a", "b", "c"):
            async with asyncio.TaskGroup() as group:
                waiting = group.create_task(wait_and_take(broker, "a", "b", "c"))
                await other.send([message(queue, queue)])
            assert bodies(waiting.result()) == [queue]

    async def test_wait_does_not_miss_what_came_after_the_empty_claim(self, world, broker):
        other = await world.connect()
        for _ in range(3):
            assert await take(broker) == []
            await other.send([message("a")])
            async with asyncio.timeout(10):
                await broker.wait(["celery"], timeout=60)
            assert bodies(await take(broker)) == ["a"]

    async def test_wait_returns_when_messages_wait_already(self, broker):
        await broker.send([message("a")])
        async with asyncio.timeout(10):
            await broker.wait(["celery"], timeout=60)
        assert bodies(await take(broker)) == ["a"]

    async def test_wait_returns_when_a_parked_message_is_due(self, world, broker):
        await (await world.connect()).send([message("a", due=world.now() + 0.3)])
        assert bodies(await wait_and_take(broker)) == ["a"]

    async def test_wait_notices_a_message_parked_meanwhile(self, world, broker):
        other = await world.connect()
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait_and_take(broker))
            await broker.wait(["mail"], timeout=0.1)
            await other.send([message("a", due=world.now() + 0.3)])
        assert bodies(waiting.result()) == ["a"]

    async def test_wait_returns_for_follow_ups(self, world, broker):
        other = await world.connect()
        await other.send([message("a", "other")])
        delivery = await take_one(other, "other")
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait_and_take(broker))
            await broker.wait(["mail"], timeout=0.1)
            await other.finish([Finish(delivery, (message("next"),))])
        assert bodies(waiting.result()) == ["next"]

    async def test_wait_returns_for_requeued_and_recovered_messages(self, world, broker):
        other = await world.connect()
        await other.send([message("a")])
        delivery = await take_one(other)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait_and_take(broker))
            await broker.wait(["mail"], timeout=0.1)
            await other.requeue([delivery])
        assert bodies(waiting.result()) == ["a"]
        await leases_end(world, other)
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(wait_and_take(broker))
            await broker.wait(["mail"], timeout=0.1)
            await other.recover()
        assert bodies(waiting.result()) == ["a"]

    async def test_wait_gives_up_after_its_timeout(self, broker):
        async with asyncio.timeout(5):
            await broker.wait(["celery"], timeout=0.05)
            await broker.wait(["celery"], timeout=0)

    async def test_wait_takes_nothing(self, world, broker):
        other = await world.connect()
        await broker.send([message("a"), message("b")])
        await asyncio.gather(broker.wait(["celery"], timeout=0.1), other.wait(["celery"], timeout=0.1))
        assert await broker.depth(["celery"]) == {"celery": 2}
        assert bodies(await take(other)) == ["a", "b"]

    async def test_a_cancelled_wait_loses_nothing(self, world, broker):
        for name in "abc":
            waiting = asyncio.create_task(broker.wait(["celery"], timeout=60))
            await broker.wait(["mail"], timeout=0.05)
            waiting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await waiting
            await broker.send([message(name)])
            assert bodies(await take(broker)) == [name]

    async def test_two_waiters_of_one_broker(self, world, broker):
        other = await world.connect()
        async with asyncio.TaskGroup() as group:
            mail = group.create_task(wait_and_take(broker, "mail"))
            celery = group.create_task(wait_and_take(broker, "celery"))
            await other.send([message("c"), message("m", "mail")])
        assert (bodies(mail.result()), bodies(celery.result())) == (["m"], ["c"])

    # -- revocations

    async def test_every_broker_hears_of_a_revocation_once(self, world, broker):
        other = await world.connect()
        await broker.revoke(["t1", "t2"], ttl=60)
        for each in (broker, other):
            assert sorted((await each.claim(["celery"], limit=0)).revoked) == ["t1", "t2"]
            assert (await each.claim(["celery"], limit=10)).revoked == []
        await other.revoke(["t3"], ttl=60)
        for each in (broker, other):
            assert (await each.claim(["celery"], limit=10)).revoked == ["t3"]

    async def test_a_broker_that_opens_later_hears_of_it(self, world, broker):
        await broker.revoke(["t1"], ttl=60)
        await broker.claim(["celery"], limit=0)
        await broker.revoke(["t2"], ttl=60)
        late = await world.connect()
        assert sorted((await late.claim(["celery"], limit=1)).revoked) == ["t1", "t2"]

    async def test_revocations_expire(self, world, broker):
        await broker.revoke(["short"], ttl=10)
        await broker.revoke(["long"], ttl=100)
        await world.advance(11)
        assert (await (await world.connect()).claim(["celery"], limit=1)).revoked == ["long"]

    async def test_a_revocation_comes_with_the_claim_of_its_message(self, broker):
        await broker.send([message("a")])
        await broker.revoke(["t"], ttl=60)
        claim = await broker.claim(["celery"], limit=1)
        assert (bodies(claim.deliveries), claim.revoked) == (["a"], ["t"])

    # -- depth and purge

    async def test_depth_counts_waiting_and_parked(self, world, broker):
        await broker.send([message("a"), message("b", priority=9), message("c", due=world.now() + 60)])
        await broker.send([message("m", "mail")])
        await take_one(broker)
        assert await broker.depth(["celery", "mail", "none"]) == {"celery": 2, "mail": 1, "none": 0}

    async def test_purge_deletes_waiting_and_parked(self, world, broker):
        await broker.send([message("a"), message("b", priority=9), message("c", due=world.now() + 60)])
        await broker.send([message("m", "mail")])
        held = await take_one(broker)
        assert await broker.purge("celery") == 2
        assert await broker.purge("celery") == 0
        assert await broker.depth(["celery", "mail"]) == {"celery": 0, "mail": 1}
        await world.advance(61)
        assert await take(broker) == []
        assert held.body == b"a"

    async def test_purge_leaves_what_is_claimed(self, broker):
        await broker.send([message("a")])
        delivery = await take_one(broker)
        assert await broker.purge("celery") == 0
        assert await broker.finish([Finish(delivery)]) == [True]

    # -- lifetimes

    async def test_messages_outlive_the_connection(self, world, broker):
        other = await world.connect()
        await broker.send([message("a")])
        await broker.__aexit__(None, None, None)
        assert bodies(await take(other)) == ["a"]

    async def test_closing_ends_a_wait(self, broker):
        waiting = asyncio.create_task(broker.wait(["celery"], timeout=60))
        await broker.wait(["mail"], timeout=0.1)
        await broker.__aexit__(None, None, None)
        async with asyncio.timeout(10):
            (outcome,) = await asyncio.gather(waiting, return_exceptions=True)
        assert outcome is None or isinstance(outcome, BrokerUnavailable | BrokerError)
