"""What a broker promises of dead letters."""

from __future__ import annotations

import pytest

from aioretryq.message import DeadEntry, Finish
from aioretryq.protocol.deadletter import entry_id
from contracts.broker_world import bodies, dead_entry, message, take, take_one


def entries(count: int, start: int = 0) -> list[DeadEntry]:
    """Of one second each, oldest first."""
    return [dead_entry(1_700_000_000.0 + n, f"content {n}".encode()) for n in range(start, start + count)]


class DeadContract:
    async def test_a_finish_keeps_its_dead_letter(self, world, broker):
        await broker.send([message("a"), message("b"), message("c")])
        a, b, c = await take(broker)
        first, second = dead_entry(world.now(), b"\xff\x00 dead a"), dead_entry(world.now() + 1, b"dead c")
        assert await broker.finish([Finish(a, dead=first), Finish(b)]) == [True, True]
        assert await broker.finish([Finish(c, (message("next"),), second)]) == [True]
        other = await world.connect()
        assert await other.dead() == [first, second]
        assert bodies(await take(other)) == ["next"]

    async def test_none_at_first(self, broker):
        assert await broker.dead() == []
        assert await broker.dead_count() == 0
        assert await broker.dead_entry("none") is None
        assert await broker.trim_dead(keep=0, before="") == 0

    async def test_buried_entries_are_kept(self, world, broker):
        buried = entries(3)
        await broker.bury(buried)
        other = await world.connect()
        assert await other.dead() == buried
        assert await other.dead_count() == 3
        assert [await other.dead_entry(entry.id) for entry in buried] == [entry.content for entry in buried]
        assert await take(other) == []

    @pytest.mark.parametrize(
        "content", [b"", b"\x00", b"\xff\xfe\x00\x80", bytes(2**20)], ids=["", "nul", "ff", "1 MiB"]
    )
    async def test_contents_are_opaque(self, broker, content):
        await broker.bury([DeadEntry("id", content)])
        assert await broker.dead_entry("id") == content
        assert await broker.dead() == [DeadEntry("id", content)]

    async def test_an_id_that_is_there_stays_as_it_is(self, broker):
        one, other = entries(2)
        await broker.bury([one])
        await broker.bury([DeadEntry(one.id, b"again"), other, DeadEntry(other.id, b"again")])
        assert await broker.dead() == [one, other]
        await broker.send([message("a")])
        assert await broker.finish([Finish(await take_one(broker), dead=DeadEntry(one.id, b"again"))]) == [True]
        assert await broker.dead() == [one, other]

    async def test_ids_order_them_not_when_they_came(self, broker):
        buried = entries(12)
        await broker.bury(buried[6:])
        await broker.bury(buried[5::-1])
        assert await broker.dead() == buried

    async def test_entries_of_the_same_moment(self, broker):
        buried = [DeadEntry(entry_id(1_700_000_000.0, unique), b"x") for unique in ("a", "b", "c")]
        await broker.bury(buried[::-1])
        assert await broker.dead() == buried
        assert await broker.dead(after=buried[0].id) == buried[1:]

    # -- pages

    async def test_pages(self, broker):
        buried = entries(25)
        await broker.bury(buried)
        pages: list[list[DeadEntry]] = [await broker.dead(limit=10)]
        while pages[-1]:
            pages.append(await broker.dead(after=pages[-1][-1].id, limit=10))
        assert pages == [buried[:10], buried[10:20], buried[20:], []]

    async def test_a_page_holds_100_unless_told(self, broker):
        buried = entries(120)
        await broker.bury(buried)
        assert await broker.dead() == buried[:100]
        assert await broker.dead(after=buried[99].id) == buried[100:]
        assert await broker.dead(limit=0) == []

    async def test_a_page_after_an_entry_that_is_gone(self, broker):
        buried = entries(4)
        await broker.bury(buried)
        assert await broker.exhume([(buried[1].id, None)]) == [True]
        assert await broker.dead(after=buried[1].id) == buried[2:]
        # A moment may be asked for too: the part of an id that tells it sorts before the whole.
        assert await broker.dead(after=entry_id(1_700_000_002.0, "")) == buried[2:]

    # -- exhume

    async def test_exhume_sends_the_message(self, world, broker):
        buried = entries(3)
        await broker.bury(buried)
        other = await world.connect()
        assert await other.exhume([(buried[1].id, message("again", "mail", priority=3))]) == [True]
        delivery = await take_one(broker, "mail")
        assert (delivery.body, delivery.priority, delivery.redelivered) == (b"again", 3, False)
        assert (delivery.deliveries, delivery.interruptions) == (1, 0)
        assert await broker.dead() == [buried[0], buried[2]]
        assert await broker.dead_entry(buried[1].id) is None
        assert await broker.dead_count() == 2

    async def test_exhume_may_park_the_message(self, world, broker):
        (entry,) = entries(1)
        await broker.bury([entry])
        assert await broker.exhume([(entry.id, message("later", due=world.now() + 10))]) == [True]
        assert await take(broker) == []
        await world.advance(11)
        assert bodies(await take(broker)) == ["later"]

    async def test_exhume_without_a_message_deletes(self, broker):
        buried = entries(3)
        await broker.bury(buried)
        assert await broker.exhume([(buried[0].id, None), (buried[2].id, None)]) == [True, True]
        assert await broker.dead() == [buried[1]]
        assert await broker.depth(["celery"]) == {"celery": 0}

    async def test_exhume_of_what_is_gone_sends_nothing(self, broker):
        one, other = entries(2)
        await broker.bury([one, other])
        await broker.trim_dead(keep=1, before="")
        taken = [(one.id, message("no")), ("never there", message("no")), (other.id, message("yes"))]
        assert await broker.exhume(taken) == [False, False, True]
        assert bodies(await take(broker)) == ["yes"]
        assert await broker.dead() == []

    async def test_the_same_id_twice_in_a_batch_sends_once(self, broker):
        (entry,) = entries(1)
        await broker.bury([entry])
        first, _ = await broker.exhume([(entry.id, message("yes")), (entry.id, message("no"))])
        assert first is True
        assert bodies(await take(broker)) == ["yes"]

    async def test_exhumed_messages_keep_their_order(self, broker):
        buried = entries(30)
        await broker.bury(buried)
        taken = [(entry.id, message(entry.content)) for entry in buried]
        assert await broker.exhume(taken) == [True] * 30
        assert [delivery.body for delivery in await take(broker)] == [entry.content for entry in buried]

    async def test_an_exhumed_id_may_be_buried_again(self, broker):
        (entry,) = entries(1)
        await broker.bury([entry])
        await broker.exhume([(entry.id, None)])
        again = DeadEntry(entry.id, b"anew")
        await broker.bury([again])
        assert await broker.dead() == [again]

    # -- trim

    async def test_trim_by_count_deletes_the_oldest(self, broker):
        buried = entries(10)
        await broker.bury(buried[::-1])
        assert await broker.trim_dead(keep=10, before="") == 0
        assert await broker.trim_dead(keep=4, before="") == 6
        assert await broker.dead() == buried[6:]
        assert await broker.dead_count() == 4
        assert await broker.dead_entry(buried[5].id) is None
        assert await broker.trim_dead(keep=0, before="") == 4
        assert await broker.dead() == []

    async def test_trim_by_age(self, broker):
        buried = entries(10)
        await broker.bury(buried)
        assert await broker.trim_dead(keep=100, before=buried[3].id) == 3
        assert await broker.dead() == buried[3:]
        assert await broker.trim_dead(keep=100, before=entry_id(1_700_000_005.0, "")) == 2
        assert await broker.dead() == buried[5:]
        assert await broker.dead_count() == 5

    async def test_trim_by_both(self, broker):
        buried = entries(10)
        await broker.bury(buried)
        assert await broker.trim_dead(keep=3, before=buried[2].id) == 7
        assert await broker.dead() == buried[7:]
        await broker.bury(buried[:1])
        assert await broker.trim_dead(keep=3, before=buried[9].id) == 3
        assert await broker.dead() == buried[9:]

    async def test_trim_of_very_many(self, broker):
        buried = entries(2500)
        await broker.bury(buried)
        assert await broker.trim_dead(keep=100, before="") == 2400
        assert await broker.dead() == buried[2400:]
        assert await broker.dead_count() == 100
