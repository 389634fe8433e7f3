"""What a broker promises of sending, claiming and finishing."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from aioretryq.message import Finish
from contracts.broker_world import LEASE, bodies, dead_entry, leases_end, message, sweeps, take, take_one

if TYPE_CHECKING:
    from aioretryq.brokers.base import Broker


class DeliveryContract:
    # -- send and claim

    async def test_oldest_first(self, broker):
        await broker.send([message("a"), message("b")])
        await broker.send([message("c")])
        assert bodies(await take(broker)) == ["a", "b", "c"]

    async def test_a_delivery_says_where_it_comes_from(self, broker):
        await broker.send([message("a", "mail", priority=3)])
        delivery = await take_one(broker, "mail")
        assert (delivery.queue, delivery.priority, delivery.redelivered) == ("mail", 3, False)
        assert delivery.tag

    async def test_every_claim_has_a_receipt_of_its_own(self, broker):
        await broker.send([message(str(n)) for n in range(50)])
        assert len({delivery.tag for delivery in await take(broker)}) == 50

    async def test_lower_priority_numbers_first(self, broker):
        await broker.send([message(str(p), priority=p) for p in (9, 3, 6, 0, 3)])
        assert bodies(await take(broker)) == ["0", "3", "3", "6", "9"]

    async def test_then_the_order_of_queues_then_oldest_first(self, broker):
        await broker.send(
            [
                message("b1", "b"),
                message("a1", "a"),
                message("a9", "a", priority=9),
                message("b0", "b"),
                message("a2", "a"),
            ]
        )
        assert bodies(await take(broker, "a", "b")) == ["a1", "a2", "b1", "b0", "a9"]

    async def test_the_order_of_queues_is_the_callers(self, broker):
        await broker.send([message("a", "a"), message("b", "b")])
        assert bodies(await take(broker, "b", "a", limit=1)) == ["b"]

    async def test_claim_takes_no_more_than_the_limit(self, broker):
        await broker.send([message(str(n)) for n in range(5)])
        assert bodies(await take(broker, limit=2)) == ["0", "1"]
        assert bodies(await take(broker, limit=2)) == ["2", "3"]
        assert bodies(await take(broker, limit=2)) == ["4"]

    async def test_the_limit_is_for_all_queues_together(self, broker):
        await broker.send([message("a", "a"), message("b", "b"), message("c", "c")])
        assert bodies(await take(broker, "a", "b", "c", limit=2)) == ["a", "b"]
        assert bodies(await take(broker, "a", "b", "c", limit=2)) == ["c"]

    async def test_claim_takes_only_from_the_queues_asked_for(self, broker):
        await broker.send([message("a", "a"), message("b", "b")])
        assert bodies(await take(broker, "b")) == ["b"]
        assert await take(broker, "nothing") == []

    async def test_claim_never_waits(self, broker):
        async with asyncio.timeout(5):
            assert await take(broker) == []

    async def test_limit_zero_takes_no_message(self, broker):
        await broker.send([message("a")])
        assert await take(broker, limit=0) == []
        assert (await broker.depth(["celery"]))["celery"] == 1

    async def test_empty_batches_do_nothing(self, broker):
        await broker.send([])
        assert await broker.finish([]) == []
        await broker.requeue([])
        assert await broker.extend([]) == []
        await broker.revoke([], ttl=10)
        await broker.bury([])
        assert await broker.exhume([]) == []
        assert await broker.depth([]) == {}
        assert await take(broker) == []

    async def test_what_is_claimed_is_not_claimed_again(self, world, broker):
        await broker.send([message("a")])
        await take_one(broker)
        assert await take(broker) == []
        assert await take(await world.connect()) == []

    @pytest.mark.parametrize(
        "body",
        [b"", b"\x00", b"\xff\xfe\x00not utf-8\x80", b'{"json": [1]}', b"line\r\nline\n", bytes(2**20)],
        ids=["empty", "nul", "not utf-8", "json", "lines", "1 MiB"],
    )
    async def test_bodies_are_opaque(self, world, broker, body):
        await broker.send([message(body), message(body, due=world.now() - 1)])
        assert [delivery.body for delivery in await take(broker)] == [body, body]

    async def test_names_are_only_names(self, broker):
        queue = "péché/ {x}:*?'\" %s"
        await broker.send([message("a", queue)])
        assert await broker.depth([queue]) == {queue: 1}
        assert [delivery.queue for delivery in await take(broker, queue)] == [queue]

    async def test_a_large_batch(self, broker):
        await broker.send([message(str(n)) for n in range(3000)])
        deliveries = await take(broker, limit=5000)
        assert bodies(deliveries) == [str(n) for n in range(3000)]
        assert await broker.extend(deliveries) == [True] * 3000
        assert await broker.finish([Finish(delivery) for delivery in deliveries]) == [True] * 3000

    async def test_concurrent_claimers_never_get_the_same_message(self, world):
        brokers = [await world.connect() for _ in range(5)]
        await brokers[0].send([message(str(n)) for n in range(400)])
        seen: list[str] = []

        async def claimer(broker: Broker) -> None:
            while found := await take(broker, limit=7):
                seen.extend(bodies(found))
                assert await broker.finish([Finish(delivery) for delivery in found]) == [True] * len(found)

        await asyncio.gather(*(claimer(broker) for broker in brokers for _ in range(2)))
        assert sorted(seen, key=int) == [str(n) for n in range(400)]

    # -- parked messages

    async def test_parked_messages_are_not_claimed_before_they_are_due(self, world, broker):
        await broker.send([message("later", due=world.now() + 100)])
        assert await take(broker) == []
        await world.advance(90)
        assert await take(broker) == []
        await world.advance(11)
        assert bodies(await take(broker)) == ["later"]
        assert await take(broker) == []

    async def test_parked_messages_arrive_in_the_order_they_are_due(self, world, broker):
        now = world.now()
        await broker.send([message(str(n), due=now + n) for n in (30, 10, 20)])
        await world.advance(60)
        assert bodies(await take(broker)) == ["10", "20", "30"]

    async def test_parked_messages_arrive_at_the_tail(self, world, broker):
        await broker.send([message("parked", due=world.now() + 10), message("waiting")])
        await world.advance(11)
        await broker.send([message("sent meanwhile")])
        assert bodies(await take(broker)) == ["waiting", "sent meanwhile", "parked"]

    async def test_parked_messages_keep_their_priority(self, world, broker):
        await broker.send([message("urgent", due=world.now() + 10), message("waiting", priority=3)])
        await world.advance(11)
        deliveries = await take(broker)
        assert [(d.body, d.priority) for d in deliveries] == [(b"urgent", 0), (b"waiting", 3)]

    async def test_a_due_in_the_past_is_now(self, world, broker):
        await broker.send([message("a", due=world.now() - 1000), message("b", due=0.0)])
        assert sorted(bodies(await take(broker))) == ["a", "b"]

    # -- the same tag

    async def test_a_tag_sent_twice_is_one_message(self, world, broker):
        sent = [message("a"), message("b")]
        await broker.send(sent)
        await (await world.connect()).send([*sent, message("c")])
        assert bodies(await take(broker)) == ["a", "b", "c"]

    async def test_a_tag_twice_in_one_batch_is_one_message(self, broker):
        once = message("a")
        await broker.send([once, once])
        assert bodies(await take(broker)) == ["a"]

    async def test_a_tag_is_remembered_when_its_message_is_done(self, broker):
        sent = message("a")
        await broker.send([sent])
        await broker.finish([Finish(await take_one(broker))])
        await broker.send([sent])
        assert await take(broker) == []

    async def test_a_parked_tag_sent_twice_is_one_message(self, world, broker):
        parked = message("a", due=world.now() + 10)
        await broker.send([parked])
        await broker.send([parked])
        await world.advance(11)
        assert bodies(await take(broker)) == ["a"]

    # -- finish

    async def test_finished_messages_are_gone(self, world, broker):
        await broker.send([message("a"), message("b")])
        deliveries = await take(broker)
        assert await broker.finish([Finish(delivery) for delivery in deliveries]) == [True, True]
        assert await sweeps(world, broker, LEASE * 2) == 0
        assert await take(broker) == []
        assert await broker.depth(["celery"]) == {"celery": 0}

    async def test_a_second_finish_does_nothing(self, world, broker):
        # What it answers is open: adapters that can lose a reply answer like the first time.
        await broker.send([message("a")])
        delivery = await take_one(broker)
        assert await broker.finish([Finish(delivery)]) == [True]
        await broker.finish([Finish(delivery, (message("again"),), dead_entry(world.now()))])
        assert await take(broker) == []
        assert await broker.dead() == []

    async def test_a_finish_is_refused_once_the_message_was_put_back(self, world, broker):
        await broker.send([message("a")])
        late = await take_one(broker)
        await leases_end(world, broker)
        other = await world.connect()
        assert await other.recover() == 1
        assert await broker.finish([Finish(late, (message("follow-up"),), dead_entry(world.now()))]) == [False]
        again = await take_one(other)
        assert again.body == b"a"
        assert again.tag != late.tag
        assert await broker.finish([Finish(late, (message("follow-up"),), dead_entry(world.now()))]) == [False]
        assert await other.finish([Finish(again)]) == [True]
        assert await take(other) == []
        assert await other.dead() == []

    async def test_another_process_may_finish_with_the_receipt(self, world, broker):
        # Settling does not depend on the connection that claimed.
        await broker.send([message("a")])
        assert await (await world.connect()).finish([Finish(await take_one(broker))]) == [True]

    async def test_follow_ups_are_sent_with_the_finish(self, world, broker):
        await broker.send([message("a")])
        sends = (message("next"), message("mail", "mail"), message("retry", due=world.now() + 60))
        assert await broker.finish([Finish(await take_one(broker), sends)]) == [True]
        assert bodies(await take(broker)) == ["next"]
        assert bodies(await take(broker, "mail")) == ["mail"]
        await world.advance(61)
        assert bodies(await take(broker)) == ["retry"]

    async def test_follow_ups_go_to_the_tail(self, broker):
        await broker.send([message("a"), message("b")])
        await broker.finish([Finish(await take_one(broker), (message("a2"),))])
        assert bodies(await take(broker)) == ["b", "a2"]

    async def test_each_finish_of_a_batch_stands_for_itself(self, broker):
        await broker.send([message("a"), message("b")])
        first, second = await take(broker)
        await broker.requeue([first])
        first_again = await take_one(broker)
        finishes = [Finish(first, (message("no"),)), Finish(second, (message("yes"),))]
        assert await broker.finish(finishes) == [False, True]
        assert bodies(await take(broker)) == ["yes"]
        assert await broker.finish([Finish(first_again)]) == [True]

    async def test_the_same_delivery_twice_in_a_batch_counts_once(self, broker):
        await broker.send([message("a")])
        delivery = await take_one(broker)
        first, _ = await broker.finish([Finish(delivery), Finish(delivery, (message("no"),))])
        assert first is True
        assert await take(broker) == []
