"""What every result backend promises about chords that nobody works on any more (aioretryq/backends/base.py)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aioretryq.message import ChordAddition, ChordClaim, ChordPart
from contracts.chord_contract import HOLD, claim, opening, part

if TYPE_CHECKING:
    from aioretryq.backends.base import ResultBackend
    from contracts.backend_contract import World

PATIENCE = 20.0
LIFE = 10_000.0


def rescue(why: str, number: int = 1, **more: Any) -> ChordPart:
    values = {"content": b"", "token": f"rescuer-{number}", "hold": HOLD, "ttl": LIFE, "why": why}
    return ChordPart("g", f"rescue-{number}", None, **{**values, **more})


def lasting(size: int | None, chord: str = "g", **more: Any) -> Any:
    return opening(size, chord, ttl=LIFE, **more)


def returned(index: int, **more: Any) -> ChordPart:
    return part(index, **{"ttl": LIFE, **more})


class OverdueContract:
    @pytest.fixture
    async def world(self) -> World:
        raise NotImplementedError("the adapter's test class says how to connect")

    @pytest.fixture
    async def backend(self, world: World) -> ResultBackend:
        return await world.connect()

    async def whys(self, backend: ResultBackend, limit: int = 10) -> list[tuple[str, str]]:
        return [(each.group_id, each.why) for each in await backend.overdue_chords(PATIENCE, limit)]

    async def with_dead_sender(self, world: World, backend: ResultBackend) -> None:
        """All parts are there; whoever has the right was acknowledged early, and is dead."""
        await backend.open_chords([lasting(2)])
        answers = await backend.count_parts([returned(0), returned(1, returns=False)])
        assert answers == [False, True]
        assert await self.whys(backend) == []
        await world.advance(HOLD + 1)

    # -- complete

    async def test_whoever_had_the_right_is_dead(self, world, backend):
        await self.with_dead_sender(world, backend)
        (found,) = await backend.overdue_chords(PATIENCE, 10)
        assert (found.group_id, found.body, found.why) == ("g", b"the body", "complete")
        assert (found.told, found.returned, found.size) == (1, 2, 2)
        assert HOLD <= found.age <= HOLD + 5
        assert await backend.count_parts([rescue("complete")]) == [True]
        assert await backend.hold_chords([ChordClaim("g", "rescuer-1")], HOLD) == [True]
        assert await backend.chord_parts("g") == [b"r0", b"r1"]
        await backend.close_chords([ChordClaim("g", "rescuer-1")])
        assert await backend.chord_parts("g") == []
        await world.advance(200)
        assert await self.whys(backend) == []

    async def test_nobody_is_told_twice_within_the_patience(self, world, backend):
        await self.with_dead_sender(world, backend)
        other = await world.connect()
        found = await asyncio.gather(*(each.overdue_chords(PATIENCE, 10) for each in [backend, other] * 5))
        assert sum(len(each) for each in found) == 1
        await world.advance(PATIENCE - 2)
        assert await self.whys(backend) == []
        await world.advance(3)
        (again,) = await other.overdue_chords(PATIENCE, 10)
        assert (again.why, again.told) == ("complete", 2)

    async def test_it_is_not_forgotten_while_it_is_told(self, world, backend):
        await self.with_dead_sender(world, backend)
        for number in range(1, 40):
            (found,) = await backend.overdue_chords(PATIENCE, 10)
            assert (found.why, found.told) == ("complete", number)
            await world.advance(500)
        assert await backend.count_parts([rescue("complete")]) == [True]
        assert await backend.chord_parts("g") == [b"r0", b"r1"]

    async def test_one_rescuer_has_the_right(self, world, backend):
        await self.with_dead_sender(world, backend)
        assert await backend.count_parts([rescue("complete", 1), rescue("complete", 2)]) == [True, False]
        assert await backend.count_parts([returned(0)]) == [False]
        await world.advance(HOLD + 1)
        assert await backend.count_parts([rescue("complete", 2), returned(0)]) == [False, False]
        assert await self.whys(backend) == [], "its message comes back"
        assert await backend.count_parts([rescue("complete", 1)]) == [True], "it is back"

    async def test_nobody_rescues_what_is_being_sent(self, world, backend):
        await backend.open_chords([lasting(1)])
        assert await backend.count_parts([returned(0)]) == [True]
        assert await backend.count_parts([rescue("complete")]) == [False]
        for _ in range(10):
            await world.advance(100)
            assert await self.whys(backend) == [], "its message comes back"
        assert await backend.count_parts([rescue("complete"), rescue("expired"), rescue("unsent")]) == [False] * 3
        assert await backend.count_parts([returned(0)]) == [True]

    async def test_nobody_rescues_what_is_closed(self, world, backend):
        for failed in (False, True):
            await backend.open_chords([lasting(1)])
            assert await backend.count_parts([returned(0, returns=False)]) == [True]
            await backend.close_chords([claim(0, failed=failed)])
            await world.advance(HOLD + 1)
            assert await self.whys(backend) == []
            for why in ("complete", "unsent", "expired"):
                assert await backend.count_parts([rescue(why)]) == [False]

    async def test_nobody_rescues_what_is_not_there(self, backend):
        for why in ("complete", "unsent", "expired"):
            assert await backend.count_parts([rescue(why)]) == [False]
        assert await backend.chord_parts("g") == []

    async def test_all_parts_were_there_when_the_size_was_told(self, world, backend):
        await backend.open_chords([lasting(None, sending=60.0)])
        assert await backend.count_parts([returned(0), returned(1)]) == [False, False]
        await backend.amend_chords([lasting(2)])
        assert await self.whys(backend) == [("g", "complete")]
        assert await backend.count_parts([rescue("complete")]) == [True]

    async def test_the_last_part_is_counted_while_somebody_looks(self, world):
        one, two, three = [await world.connect() for _ in range(3)]
        for number in range(20):
            await one.open_chords([lasting(2)])
            await one.count_parts([returned(0)])
            await world.advance(130)
            token = {"token": f"rescuer-{number}"}
            found = await asyncio.gather(
                one.overdue_chords(PATIENCE, 10),
                two.count_parts([returned(1)]),
                three.count_parts([rescue("complete", **token), rescue("expired", **token)]),
            )
            assert found == [[], [True], [False, False]]
            await two.close_chords([claim(1)])

    async def test_parts_that_were_added_are_missed(self, world, backend):
        await backend.open_chords([lasting(1)])
        await backend.add_parts([ChordAddition("g", "t1")])
        await backend.count_parts([returned(0, returns=False)])
        await world.advance(200)
        assert await self.whys(backend) == []
        assert await backend.count_parts([rescue("complete")]) == [False]
        assert await backend.count_parts([returned(1)]) == [True]

    # -- unsent

    async def test_its_sender_has_died(self, world, backend):
        await backend.open_chords([lasting(None, sending=30.0)])
        await backend.count_parts([returned(0)])
        await world.advance(29)
        assert await self.whys(backend) == []
        await world.advance(2)
        (found,) = await backend.overdue_chords(PATIENCE, 10)
        assert (found.why, found.returned, found.size) == ("unsent", 1, None)
        assert await backend.count_parts([rescue("unsent")]) == [True]
        await backend.amend_chords([lasting(2)])
        assert await backend.count_parts([returned(1)]) == [False], "too late"
        await world.advance(HOLD + 1)
        assert await backend.count_parts([returned(2), rescue("unsent", 2)]) == [False, False]
        assert await backend.count_parts([rescue("unsent")]) == [True], "it is back"
        assert await backend.hold_chords([ChordClaim("g", "rescuer-1")], HOLD) == [True]
        await backend.close_chords([ChordClaim("g", "rescuer-1", failed=True)])
        await world.advance(400)
        assert await self.whys(backend) == []
        assert await backend.count_parts([rescue("unsent"), rescue("unsent", 2)]) == [False, False]

    async def test_its_sender_died_before_it_said_that_all_is_sent(self, world, backend):
        await backend.open_chords([lasting(None, sending=30.0)])
        await backend.amend_chords([lasting(2, sending=30.0)])
        await world.advance(31)
        assert await self.whys(backend) == [("g", "unsent")]
        assert await backend.count_parts([returned(0), returned(1)]) == [False, True], "all was sent"
        assert await backend.count_parts([rescue("unsent")]) == [False]

    async def test_its_sender_speaks_again(self, world, backend):
        await backend.open_chords([lasting(None, sending=30.0)])
        await world.advance(20)
        await backend.amend_chords([lasting(None, sending=30.0)])
        await world.advance(20)
        assert await self.whys(backend) == []
        await world.advance(11)
        assert await self.whys(backend) == [("g", "unsent")]
        await backend.amend_chords([lasting(2)])
        assert await backend.count_parts([rescue("unsent")]) == [False], "it was only slow"
        assert await backend.count_parts([returned(0), returned(1)]) == [False, True]

    # -- expired

    async def test_some_parts_do_not_return(self, world, backend):
        await backend.open_chords([lasting(3)])
        await world.advance(5000)
        assert await self.whys(backend) == []
        await backend.count_parts([returned(0)])
        await world.advance(400)
        assert await self.whys(backend) == []
        await world.advance(8500)
        assert await self.whys(backend) == []
        await world.advance(200)
        (found,) = await backend.overdue_chords(PATIENCE, 10)
        assert (found.why, found.returned, found.size) == ("expired", 1, 3)
        assert abs(found.age - 14_100) < 5
        await world.advance(900)
        assert await backend.count_parts([rescue("expired")]) == [True], "it lives until it is told"
        await world.advance(900)
        assert await backend.count_parts([returned(1), returned(2)]) == [False, False], "too late"
        assert await backend.hold_chords([ChordClaim("g", "rescuer-1")], HOLD) == [True]
        await backend.close_chords([ChordClaim("g", "rescuer-1", failed=True)])
        assert await self.whys(backend) == []

    async def test_a_part_returns_at_the_last_moment(self, world, backend):
        await backend.open_chords([lasting(2)])
        await world.advance(9200)
        assert await self.whys(backend) == [("g", "expired")]
        await backend.count_parts([returned(0)])
        assert await backend.count_parts([rescue("expired")]) == [False]
        await world.advance(500)
        assert await self.whys(backend) == []
        assert await backend.count_parts([returned(1)]) == [True]

    async def test_one_for_ever_does_not_expire(self, world, backend):
        await backend.open_chords([opening(2, ttl=None)])
        await backend.count_parts([part(0, ttl=None)])
        for _ in range(3):
            await world.advance(1_000_000)
            assert await self.whys(backend) == []
        assert await backend.count_parts([rescue("expired", ttl=None)]) == [False]

    async def test_a_part_lives_for_less_than_its_chord(self, world, backend):
        """Others have other settings."""
        await backend.open_chords([lasting(2)])
        await backend.count_parts([returned(0, ttl=1000.0)])
        for _ in range(8):
            await world.advance(100)
            assert await self.whys(backend) == []
        assert await backend.count_parts([rescue("expired")]) == [False]
        await world.advance(110)
        assert await self.whys(backend) == [("g", "expired")]
        assert await backend.count_parts([rescue("expired")]) == [True]

    async def test_a_part_lives_for_longer(self, world, backend):
        await backend.open_chords([lasting(3)])
        await backend.count_parts([returned(0, ttl=10 * LIFE)])
        await world.advance(400)
        assert await self.whys(backend) == []
        await world.advance(8 * LIFE)
        assert await self.whys(backend) == []
        await world.advance(2 * LIFE - 3900)
        assert await self.whys(backend) == [("g", "expired")]

    async def test_one_that_lives_for_less_returns_at_the_last_moment(self, world, backend):
        await backend.open_chords([lasting(2)])
        await world.advance(9200)
        assert await self.whys(backend) == [("g", "expired")]
        await backend.count_parts([returned(0, ttl=500.0)])
        assert await backend.count_parts([rescue("expired")]) == [False]

    async def test_a_short_life_after_a_long_one(self, world, backend):
        await backend.open_chords([opening(2, ttl=1_000_000.0)])
        await world.advance(5000)
        assert await self.whys(backend) == []
        await backend.count_parts([returned(0, ttl=200.0)])
        await world.advance(110)
        assert await self.whys(backend) == []
        await world.advance(50)
        assert await self.whys(backend) == [("g", "expired")]

    async def test_the_message_of_whoever_has_the_right_is_gone(self, world, backend):
        """Its queue was purged."""
        await backend.open_chords([lasting(1)])
        assert await backend.count_parts([returned(0)]) == [True]
        await world.advance(8900)
        assert await self.whys(backend) == []
        await world.advance(200)
        assert await self.whys(backend) == [("g", "expired")]
        assert await backend.count_parts([rescue("expired")]) == [True]
        await world.advance(HOLD + 1)
        assert await backend.count_parts([returned(0)]) == [False], "too late"

    async def test_it_only_came_back_late(self, world, backend):
        await backend.open_chords([lasting(1)])
        assert await backend.count_parts([returned(0)]) == [True]
        await world.advance(9100)
        assert await self.whys(backend) == [("g", "expired")]
        assert await backend.count_parts([returned(0)]) == [True]
        assert await backend.count_parts([rescue("expired")]) == [False]
        await world.advance(HOLD + 1)
        assert await backend.count_parts([rescue("expired")]) == [False]

    async def test_nobody_has_told_the_size(self, world, backend):
        """A client of Celery died after it had sent the header. The others of its parts come late."""
        await backend.count_parts([returned(0, body=b"told")])
        await world.advance(8900)
        assert await self.whys(backend) == []
        await world.advance(200)
        (found,) = await backend.overdue_chords(PATIENCE, 10)
        assert (found.body, found.why, found.returned, found.size) == (b"told", "expired", 1, None)
        assert await backend.count_parts([rescue("expired")]) == [True]
        assert await backend.count_parts([returned(1, body=b"told")]) == [False]
        await backend.close_chords([ChordClaim("g", "rescuer-1", failed=True)])
        await world.advance(4000)
        assert await backend.count_parts([returned(2, body=b"told")]) == [False]
        await world.advance(9500)
        assert await self.whys(backend) == [], "nor do they make it another chord"

    # -- which of them

    async def test_what_nobody_knows_the_body_of_is_left_alone(self, world, backend):
        await backend.open_chords([lasting(2, body=b"")])
        await backend.count_parts([returned(0), returned(1, returns=False)])
        await world.advance(200)
        assert await self.whys(backend) == []

    async def test_a_part_tells_the_body(self, world, backend):
        """Somebody else has opened the chord."""
        await backend.open_chords([lasting(2, body=b"")])
        await backend.count_parts([returned(0, body=b"told"), returned(1, returns=False, body=b"told")])
        await world.advance(HOLD + 1)
        (found,) = await backend.overdue_chords(PATIENCE, 10)
        assert (found.body, found.why) == (b"told", "complete")

    async def test_a_few_at_a_time(self, world, backend):
        names = [f"g{n}" for n in range(25)]
        await backend.open_chords([lasting(1, name) for name in names])
        await backend.count_parts([returned(0, chord=name, returns=False) for name in names])
        await world.advance(HOLD + 1)
        found = [await self.whys(backend) for _ in range(4)]
        assert [len(each) for each in found] == [10, 10, 5, 0]
        assert {name for each in found for name, _ in each} == set(names)

    async def test_many_that_only_wait_are_in_nobody_s_way(self, world, backend):
        await backend.open_chords([lasting(2, f"waiting-{n}") for n in range(2500)])
        await self.with_dead_sender(world, backend)
        await world.advance(20)
        assert await self.whys(backend) == [("g", "complete")]

    async def test_answers_are_not_too_large(self, world, backend):
        names = [f"g{n}" for n in range(5)]
        await backend.open_chords([lasting(1, name, body=b"b" * 500_000) for name in names])
        await backend.count_parts([returned(0, chord=name, returns=False) for name in names])
        await world.advance(HOLD + 20)
        found = [await self.whys(backend) for _ in range(3)]
        assert [len(each) for each in found] == [3, 2, 0]
        assert {name for each in found for name, _ in each} == set(names)

    async def test_whoever_opened_it_does_not_bring_it_back(self, world, backend):
        await backend.open_chords([lasting(None, sending=30.0, token="a")])
        await world.advance(31)
        assert await self.whys(backend) == [("g", "unsent")]
        assert await backend.count_parts([rescue("unsent")]) == [True]
        await backend.open_chords([lasting(1, token="a")])
        assert await backend.count_parts([returned(0)]) == [False]
        await backend.close_chords([ChordClaim("g", "rescuer-1", failed=True)])
        await backend.open_chords([lasting(1, token="a")])
        assert await backend.count_parts([returned(0)]) == [False]
        await backend.open_chords([lasting(1, token="b")])
        assert await backend.count_parts([returned(0)]) == [True]

    async def test_opened_again_it_is_a_new_one(self, world, backend):
        await backend.open_chords([lasting(None, sending=30.0)])
        await world.advance(31)
        assert await backend.count_parts([rescue("unsent")]) == [True]
        await backend.close_chords([ChordClaim("g", "rescuer-1", failed=True)])
        await backend.open_chords([lasting(None, sending=30.0)])
        assert await backend.count_parts([rescue("unsent")]) == [False]
        await world.advance(31)
        (found,) = await backend.overdue_chords(PATIENCE, 10)
        assert (found.why, found.told) == ("unsent", 1)
