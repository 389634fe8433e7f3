"""Messages that only one broker object sends: once each, whatever is lost and however they are put together again."""

from __future__ import annotations

import asyncio
import time
from random import Random

import pytest
from lossy_proxy import arrive, come_late, lose_reply
from msgspec.structs import replace
from redis_world import open_broker

from aioretryq.brokers import redis_sending
from aioretryq.errors import BrokerError
from contracts.broker_world import bodies, message, take


@pytest.fixture
async def broker(proxy):
    async with open_broker(proxy.url) as broker:
        yield broker


class TestFreshMessages:
    """Those of which only this broker object sends the tag: one record of the last batch has to suffice."""

    @staticmethod
    def fresh(*names, **fields):
        return [replace(message(name, **fields), fresh=True) for name in names]

    async def test_a_record_of_the_last_batch_is_kept(self, broker, server):
        for name in "abc":
            await broker.send(self.fresh(name))
        await broker.send([*self.fresh("d", priority=9), *self.fresh("e", due=time.time() - 1)])
        (record,) = server.keys("aioretryq.sent*")
        assert 120 < server.ttl(record) <= 180
        assert sorted(bodies(await take(broker))) == list("abcde")

    async def test_batches_that_are_under_way_at_once_have_records_of_their_own(self, broker, server):
        for _ in range(2):
            await asyncio.gather(*(broker.send(self.fresh(name)) for name in "abc"))
        assert len(server.keys("aioretryq.sent.*")) == 3
        assert bodies(await take(broker)) == list("abcabc")

    async def test_a_record_is_used_for_a_while(self, broker, server, monkeypatch):
        monkeypatch.setattr(redis_sending, "RECORD", 0.0)
        for name in "abc":
            await broker.send(self.fresh(name))
        assert len(server.keys("aioretryq.sent.*")) == 3

    @pytest.mark.parametrize("found", [None, 1, 100])
    async def test_a_server_that_knows_another_number(self, proxy, broker, server, found):
        """It has lost the record, or its latest batches, as a replica may that becomes the master."""
        for name in "abc":
            await broker.send(self.fresh(name))
        (record,) = server.keys("aioretryq.sent.*")
        if found is None:
            server.delete(record)
        else:
            server.set(record, found)
        sent = self.fresh("d")
        await lose_reply(proxy, broker.send(sent))
        await broker.send(sent)
        assert 120 < server.ttl(record) <= 180
        assert bodies(await take(broker)) == list("abcd")

    async def test_beside_messages_that_others_may_send_too(self, broker, server):
        await broker.send([*self.fresh("a"), message("b")])
        assert server.keys("aioretryq.sent*") == ["aioretryq.sent"]
        assert server.zcard("aioretryq.sent") == 2
        assert 0 < server.ttl("aioretryq.sent") <= 120
        assert bodies(await take(broker)) == ["a", "b"]

    async def test_more_than_lua_can_unpack(self, broker):
        names = [str(number) for number in range(9000)]
        await broker.send(self.fresh(*names))
        await broker.send(self.fresh(*names, due=time.time() - 1))
        found = [each.body.decode() for each in await take(broker, limit=9000)]
        assert found == names

    async def test_carried_out_and_the_reply_lost(self, proxy, broker):
        first, second, third = self.fresh(*"abc")
        await broker.send(self.fresh("0"))
        await lose_reply(proxy, broker.send([first, second]))
        await broker.send([second])
        await broker.send([first, third])
        await broker.send([first, second])
        assert bodies(await take(broker)) == ["0", "a", "b", "c"]

    async def test_it_comes_late(self, proxy, broker, server):
        first, second, third, parked = [*self.fresh(*"abc"), *self.fresh("d", due=time.time() - 1)]
        await broker.send(self.fresh("0"))
        gate = await come_late(proxy, broker.send([first, second, parked]))
        await broker.send([second, third])
        await arrive(gate, server)
        await broker.send([parked])
        await broker.send([first, second])
        assert sorted(bodies(await take(broker))) == ["0", "a", "b", "c", "d"]

    async def test_the_repetition_is_lost_too(self, proxy, broker, server):
        first, second = self.fresh(*"ab")
        await broker.send(self.fresh("0"))
        gate = await come_late(proxy, broker.send([first, second]))
        await lose_reply(proxy, broker.send([first]))
        await arrive(gate, server)
        await broker.send([first, second])
        assert bodies(await take(broker)) == ["0", "a", "b"]

    async def test_what_was_refused_is_no_matter_of_doubt(self, broker, server):
        server.set("mail", "no list")
        with pytest.raises(BrokerError):
            await broker.send([*self.fresh("a"), *self.fresh("b", queue="mail")])
        assert server.llen("celery") == 0
        await broker.send(self.fresh("a"))
        assert bodies(await take(broker)) == ["a"]

    async def test_doubts_are_forgotten(self, proxy, broker, monkeypatch):
        monkeypatch.setattr(redis_sending, "DOUBT", 0.0)
        await broker.send(self.fresh("0"))
        for _ in range(3):
            await lose_reply(proxy, broker.send(self.fresh(*"abc")))
        assert len(broker._sends._doubts) == 3
        await broker.send(self.fresh("d"))
        assert len(broker._sends._doubts) == 0

    async def test_a_queue_that_cannot_be_written(self, broker, server):
        """Its refusal leaves nothing open on the connection that others send on."""
        with pytest.raises(BrokerError, match="Nothing was sent"):
            await broker.send(self.fresh("a", queue="half \ud800"))
        with pytest.raises(BrokerError, match="Nothing was sent"):
            await broker.claim(["half \ud800"], limit=1)
        await broker.send(self.fresh("b"))
        assert server.llen("celery") == 1
        assert bodies(await take(broker)) == ["b"]

    @pytest.mark.parametrize("seed", range(6))
    async def test_whatever_happens_each_is_there_once(self, proxy, broker, server, seed):
        random, gates = Random(seed), []
        await broker.send(self.fresh("first"))
        waiting = [each for name in range(40) for each in self.fresh(f"{seed}-{name}")]
        waiting += self.fresh(*(f"{seed}-parked-{name}" for name in range(10)), due=time.time() - 1)
        sent = {each.body.decode() for each in waiting} | {"first"}
        while waiting:
            batch = random.sample(waiting, random.randint(1, min(8, len(waiting))))
            fate = random.choice(["lost", "late", "done", "done"])
            if fate == "lost":
                await lose_reply(proxy, broker.send(batch))
            elif fate == "late":
                gates.append(await come_late(proxy, broker.send(batch)))
            else:
                await broker.send(batch)
                waiting = [each for each in waiting if each not in batch]
            if gates and random.random() < 0.3:
                await arrive(gates.pop(random.randrange(len(gates))), server)
        for gate in gates:
            await arrive(gate, server)
        assert sorted(bodies(await take(broker, limit=1000))) == sorted(sent)
