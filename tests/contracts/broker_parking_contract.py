"""Parked messages made ordinary ones, for consumers that do not know of parking."""

from __future__ import annotations

import asyncio

import pytest
from msgspec.structs import replace

from aioretryq.message import Finish
from aioretryq.protocol.envelope import mark, marks
from contracts.broker_world import bodies, envelope, leases_end, message, take, take_one, wait_and_take


class ParkingContract:
    async def test_they_come_to_the_tail_those_due_first_first(self, world, broker):
        now = world.now()
        await broker.send([message("later", due=now + 900), message("sooner", due=now + 600), message("waits")])
        assert await broker.parked(["celery", "other"]) == {"celery": 2, "other": 0}
        assert await broker.unpark("celery") == 2
        assert await broker.parked(["celery"]) == {"celery": 0}
        assert await broker.depth(["celery"]) == {"celery": 3}
        assert bodies(await take(broker)) == ["waits", "sooner", "later"]
        assert await broker.unpark("celery") == 0

    async def test_at_most_limit_and_only_of_that_queue(self, world, broker):
        due = world.now() + 600
        await broker.send([message(str(n), due=due + n) for n in range(250)])
        await broker.send([message("mail", "mail", due=due)])
        assert await broker.unpark("celery", limit=0) == 0
        assert await broker.unpark("celery", limit=130) == 130
        assert await broker.parked() == {"celery": 120, "mail": 1}
        assert await broker.unpark("celery") == 120
        assert await broker.parked() == {"mail": 1}
        assert bodies(await take(broker, limit=1000)) == [str(n) for n in range(250)]

    async def test_priorities_stay(self, world, broker):
        due = world.now() + 600
        await broker.send([message(str(p), priority=p, due=due) for p in (9, 0, 6, 3)])
        assert await broker.unpark("celery") == 4
        assert bodies(await take(broker)) == ["0", "3", "6", "9"]

    async def test_marks_of_waiting_go_and_others_and_counts_stay(self, world, broker):
        body = mark(envelope("a"), parked=12.5, slot=3.0, unknown_since=4.0)
        first = message(body, due=world.now() + 600)
        await broker.send([replace(first, deliveries=2, interruptions=1)])
        assert await broker.unpark("celery") == 1
        delivery = await take_one(broker)
        assert not {"parked", "slot"} & set(marks(delivery.body))
        assert marks(delivery.body)["unknown_since"] == 4.0
        assert (delivery.deliveries, delivery.interruptions, delivery.redelivered) == (3, 1, True)

    async def test_without_other_marks_it_is_as_it_was_sent(self, world, broker):
        plain = envelope("a")
        await broker.send([message(mark(plain, parked=12.5), due=world.now() + 600)])
        assert await broker.unpark("celery") == 1
        assert bodies(await take(broker)) == [plain.decode()]

    async def test_offered_ones_too(self, world, broker):
        await broker.send([replace(message("a", due=world.now() + 600), offered=True)])
        assert await broker.unpark("celery") == 1
        assert bodies(await take(broker)) == ["a"]

    async def test_they_may_be_parked_again(self, world, broker):
        await broker.send([message("a", due=world.now() + 600)])
        assert await broker.unpark("celery") == 1
        again = message("a", due=world.now() + 600)
        assert await broker.finish([Finish(await take_one(broker), (again,))]) == [True]
        assert await broker.parked() == {"celery": 1}
        assert await take(broker) == []

    async def test_two_at_once_double_nothing(self, world, broker):
        other = await world.connect()
        await broker.send([message(str(n), due=world.now() + 600) for n in range(300)])
        counts = await asyncio.gather(broker.unpark("celery"), other.unpark("celery"))
        assert sum(counts) == 300
        assert sorted(map(int, bodies(await take(broker, limit=1000)))) == list(range(300))

    async def test_cut_short_loses_nothing(self, world, broker):
        await broker.send([message(str(n), due=world.now() + 600) for n in range(500)])
        work = asyncio.ensure_future(broker.unpark("celery"))
        await asyncio.sleep(0)
        work.cancel()
        await asyncio.wait([work])
        other = await world.connect()
        while await other.unpark("celery", limit=100):
            pass
        assert sorted(map(int, bodies(await take(other, limit=1000)))) == list(range(500))

    async def test_waiters_hear_of_it(self, world, broker):
        other = await world.connect()
        await other.send([message("a", due=world.now() + 600)])
        waiting = asyncio.ensure_future(wait_and_take(broker))
        await asyncio.sleep(0)
        assert await other.unpark("celery") == 1
        assert bodies(await waiting) == ["a"]

    async def test_unknown_queues_have_nothing(self, broker):
        assert await broker.unpark("nowhere") == 0
        assert await broker.parked(["nowhere"]) == {"nowhere": 0}
        assert await broker.parked([]) == {}
        assert await broker.parked() == {}

    @pytest.mark.parametrize("queues", [[], ["celery", "mail"]])
    async def test_a_sweep_may_tell_who_sweeps(self, world, broker, queues):
        await broker.send([message("a")])
        await take(broker)
        await leases_end(world, broker)
        assert await broker.recover(worker="one@host", queues=queues) == 1
        assert set(await broker.leave("one@host", queues)) <= set(queues)
