"""What every result backend promises about chords (aioretryq/backends/base.py)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from aioretryq.errors import BackendError
from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart

if TYPE_CHECKING:
    from aioretryq.backends.base import ResultBackend
    from contracts.backend_contract import World

HOLD = 6.0


def part(index: int | None, *, task: str | None = None, chord: str = "g", **more: Any) -> ChordPart:
    """The token is as that of a worker: the same for every delivery of one message."""
    name = task or f"t{index}"
    values = {"content": b"r%s" % str(index).encode(), "token": f"by-{name}", "hold": HOLD, "ttl": 100.0}
    return ChordPart(chord, name, index, **{**values, **more})


def claim(index: int, **more: Any) -> ChordClaim:
    return ChordClaim("g", f"by-t{index}", **more)


def opening(size: int | None, chord: str = "g", **more: Any) -> ChordOpening:
    return ChordOpening(chord, size, **{"ttl": 100.0, "body": b"the body", **more})


class ChordContract:
    @pytest.fixture
    async def world(self) -> World:
        raise NotImplementedError("the adapter's test class says how to connect")

    @pytest.fixture
    async def backend(self, world: World) -> ResultBackend:
        return await world.connect()

    async def test_the_last_part_sends_the_body(self, backend):
        await backend.open_chords([ChordOpening("g", 3, 100)])
        assert await backend.count_parts([part(2)]) == [False]
        assert await backend.count_parts([part(0), part(1)]) == [False, True]
        assert await backend.chord_parts("g") == [b"r0", b"r1", b"r2"]

    async def test_parts_without_a_place_come_last(self, backend):
        await backend.open_chords([ChordOpening("g", 3, 100)])
        await backend.count_parts([part(None, task="x"), part(1), part(0)])
        assert await backend.chord_parts("g") == [b"r0", b"r1", b"rNone"]

    async def test_a_part_counts_once(self, backend):
        await backend.open_chords([ChordOpening("g", 2, 100)])
        assert await backend.count_parts([part(0), part(0, content=b"other"), part(0)]) == [False] * 3
        assert await backend.chord_parts("g") == [b"r0"]

    async def test_one_id_in_two_places_is_two_parts(self, backend):
        await backend.open_chords([ChordOpening("g", 2, 100)])
        assert await backend.count_parts([part(0, task="t"), part(1, task="t", content=b"again")]) == [False, True]

    async def test_parts_may_come_before_the_size(self, backend):
        assert await backend.count_parts([part(0)]) == [False]
        await backend.open_chords([ChordOpening("g", 2, 100)])
        assert await backend.count_parts([part(1)]) == [True]

    async def test_chords_are_apart(self, backend):
        await backend.open_chords([ChordOpening("g", 1, 100), ChordOpening("h", 2, None)])
        assert await backend.count_parts([part(0, chord="h"), part(0)]) == [False, True]
        assert await backend.chord_parts("h") == [b"r0"]

    async def test_many_at_once_give_one_the_right(self, world):
        backends = [await world.connect() for _ in range(3)]
        await backends[0].open_chords([ChordOpening("g", 30, 100)])
        answers = await asyncio.gather(*(backends[n % 3].count_parts([part(n)]) for n in range(30)))
        assert sum(right for (right,) in answers) == 1

    async def test_whoever_has_the_right_has_it_again(self, world):
        """After a crash the same message is delivered again, perhaps to another worker."""
        one, two = await world.connect(), await world.connect()
        await one.open_chords([ChordOpening("g", 2, 100)])
        assert await one.count_parts([part(0), part(1)]) == [False, True]
        assert await two.count_parts([part(1)]) == [True]
        await world.advance(HOLD + 1)
        assert await two.count_parts([part(1)]) == [True]

    async def test_nobody_else_has_it_while_its_message_comes_back(self, world, backend):
        await backend.open_chords([ChordOpening("g", 2, 100)])
        assert await backend.count_parts([part(0), part(1)]) == [False, True]
        assert await backend.count_parts([part(0)]) == [False]
        await world.advance(HOLD + 1)
        assert await backend.count_parts([part(0)]) == [False]
        assert await backend.count_parts([part(1)]) == [True]

    async def test_another_has_it_where_the_message_does_not_come_back(self, world, backend):
        await backend.open_chords([ChordOpening("g", 2, 100)])
        assert await backend.count_parts([part(0), part(1, returns=False)]) == [False, True]
        assert await backend.count_parts([part(0)]) == [False]
        await world.advance(HOLD + 1)
        assert await backend.count_parts([part(0)]) == [True]

    async def test_holding(self, world, backend):
        await backend.open_chords([ChordOpening("g", 2, 100)])
        await backend.count_parts([part(0), part(1)])
        assert await backend.hold_chords([claim(1), claim(0)], 50) == [True, False]
        await world.advance(HOLD + 1)
        assert await backend.hold_chords([claim(0)], 50) == [False]
        await world.advance(50)
        assert await backend.hold_chords([claim(0)], 50) == [True]
        assert await backend.hold_chords([claim(1)], 50) == [False]

    async def test_closed_it_stays_closed(self, world, backend):
        await backend.open_chords([ChordOpening("g", 2, 100)])
        await backend.count_parts([part(0), part(1)])
        await backend.close_chords([claim(0)])
        assert await backend.chord_parts("g") != [], "only who has the right can close it"
        await backend.close_chords([claim(1)])
        assert await backend.chord_parts("g") == []
        await world.advance(HOLD + 1)
        assert await backend.count_parts([part(0), part(1), part(2)]) == [False] * 3
        assert await backend.hold_chords([claim(1)], 50) == [False]

    async def test_closed_late(self, world, backend):
        """A server was gone for long while the body was sent."""
        await backend.open_chords([opening(2)])
        await backend.count_parts([part(0), part(1, returns=False)])
        await backend.hold_chords([claim(1)], HOLD)
        await world.advance(HOLD + 1)
        await backend.close_chords([claim(0)])
        assert await backend.chord_parts("g") != [], "it never had the right"
        await backend.close_chords([claim(1)])
        assert await backend.chord_parts("g") == []
        assert await backend.count_parts([part(0)]) == [False]

    async def test_failed_it_sends_nothing_any_more(self, world, backend):
        await backend.open_chords([ChordOpening("g", 2, 100)])
        await backend.count_parts([part(0), part(1)])
        await backend.close_chords([claim(1, failed=True)])
        await world.advance(HOLD + 1)
        assert await backend.count_parts([part(0), part(1)]) == [False, False]
        assert await backend.hold_chords([claim(1)], 50) == [False]

    async def test_a_chord_can_be_sent_again_under_its_id(self, backend):
        for _ in range(2):
            await backend.open_chords([ChordOpening("g", 1, 100)])
            assert await backend.count_parts([part(0)]) == [True]
            await backend.close_chords([claim(0)])

    async def test_opening_again_loses_nothing(self, backend):
        """A worker that died between opening and sending: the next one opens again."""
        await backend.open_chords([ChordOpening("g", 2, 100)])
        await backend.count_parts([part(0)])
        await backend.open_chords([ChordOpening("g", 2, 100)])
        assert await backend.count_parts([part(1)]) == [True]

    async def test_what_is_closed_is_not_opened_by_whoever_did(self, world, backend):
        """A worker that comes late with the message from which the chord follows."""
        await backend.open_chords([opening(1, token="a message")])
        await backend.count_parts([part(0)])
        await backend.close_chords([claim(0)])
        await backend.open_chords([opening(1, token="a message")])
        assert await backend.amend_chords([opening(1)]) == [False]
        assert await backend.count_parts([part(0)]) == [False]
        await world.advance(95)
        assert await backend.overdue_chords(1, 10) == []
        await backend.open_chords([opening(1, token="the same, sent again")])
        assert await backend.count_parts([part(0)]) == [True]

    async def test_opening_again_says_another_size(self, backend):
        """It died after it had opened the chord; run again, the task has made another header."""
        await backend.open_chords([opening(1, token="a message")])
        await backend.open_chords([opening(2, token="a message")])
        assert await backend.count_parts([part(0), part(1)]) == [False, True]

    async def test_opening_again_takes_nobody_s_right(self, world, backend):
        await backend.open_chords([opening(2)])
        assert await backend.count_parts([part(0), part(1)]) == [False, True]
        await backend.open_chords([opening(2)])
        assert await backend.hold_chords([claim(0), claim(1)], HOLD) == [False, True]
        await world.advance(HOLD + 1)
        assert await backend.count_parts([part(0), part(1)]) == [False, True]

    async def test_what_has_failed_is_opened_without_its_parts(self, backend):
        await backend.open_chords([opening(1)])
        assert await backend.count_parts([part(0)]) == [True]
        await backend.close_chords([claim(0, failed=True)])
        assert await backend.chord_parts("g") == []
        await backend.open_chords([opening(2)])
        assert await backend.count_parts([part(0), part(1)]) == [False, True]

    async def test_more_than_anybody_wants_to_read(self, backend):
        await backend.open_chords([opening(40)])
        await backend.count_parts([part(n, content=b"%03d" % n + b"x" * 100_000) for n in range(40)])
        found = await backend.chord_parts("g", 4_100_000)
        assert [content[:3] for content in found] == [b"%03d" % n for n in range(40)]
        with pytest.raises(BackendError, match="more than 4,000,000 bytes"):
            await backend.chord_parts("g", 4_000_000)

    async def test_what_is_not_complete_is_forgotten(self, world, backend):
        await backend.open_chords([ChordOpening("g", 2, 100)])
        await backend.count_parts([part(0)])
        await world.advance(101)
        await backend.cleanup()
        assert await backend.chord_parts("g") == []
        assert await backend.count_parts([part(1)]) == [False]

    async def test_nothing_to_do(self, backend):
        await backend.open_chords([])
        await backend.amend_chords([])
        await backend.add_parts([])
        await backend.close_chords([])
        assert await backend.overdue_chords(5, 10) == []
        assert await backend.count_parts([]) == []
        assert await backend.hold_chords([], 5) == []
        assert await backend.chord_parts("nobody") == []

    # -- what is known later

    async def test_parts_complete_nothing_before_the_size_is_known(self, backend):
        await backend.open_chords([opening(None)])
        assert await backend.count_parts([part(0), part(1)]) == [False, False]
        await backend.amend_chords([opening(3)])
        assert await backend.count_parts([part(1)]) == [False]
        assert await backend.count_parts([part(2)]) == [True]
        assert await backend.chord_parts("g") == [b"r0", b"r1", b"r2"]

    async def test_amending_what_is_closed_or_unknown_does_nothing(self, world, backend):
        assert await backend.amend_chords([opening(1)]) == [False]
        assert await backend.count_parts([part(0)]) == [False]
        assert await backend.amend_chords([opening(2)]) == [False]
        assert await backend.count_parts([part(1)]) == [False]
        await backend.open_chords([opening(2, "h", sending=5.0)])
        await backend.count_parts([part(0, chord="h"), part(1, chord="h")])
        await backend.close_chords([ChordClaim("h", "by-t1")])
        await backend.open_chords([opening(2, "i")])
        assert await backend.amend_chords([opening(3, "h"), opening(2, "i")]) == [False, True]
        await world.advance(280)
        assert await backend.overdue_chords(1, 10) == []
        assert await backend.count_parts([part(2, chord="h")]) == [False]

    async def test_amending_what_has_failed_does_nothing(self, world, backend):
        await backend.open_chords([opening(2)])
        await backend.count_parts([part(0), part(1)])
        await backend.close_chords([claim(1, failed=True)])
        await backend.amend_chords([opening(2)])
        await world.advance(HOLD + 1)
        assert await backend.count_parts([part(1, token="another")]) == [False]
        assert await backend.overdue_chords(1, 10) == []

    async def test_parts_that_were_added_are_waited_for(self, backend):
        await backend.open_chords([opening(1)])
        await backend.add_parts([ChordAddition("g", "t1"), ChordAddition("g", "t2"), ChordAddition("g", "t1")])
        await backend.add_parts([ChordAddition("g", "t2")])
        assert await backend.count_parts([part(0), part(1)]) == [False, False]
        assert await backend.count_parts([part(2)]) == [True]

    async def test_parts_may_be_added_before_the_size_is_known(self, backend):
        await backend.add_parts([ChordAddition("g", "t1", 100.0)])
        await backend.open_chords([opening(1)])
        assert await backend.count_parts([part(0), part(1)]) == [False, True]

    async def test_nothing_is_added_to_what_is_closed(self, backend):
        await backend.open_chords([opening(1)])
        assert await backend.count_parts([part(0)]) == [True]
        await backend.close_chords([claim(0)])
        await backend.add_parts([ChordAddition("g", "t1")])
        await backend.open_chords([opening(1)])
        assert await backend.count_parts([part(0)]) == [True]

    async def test_what_was_added_is_forgotten_with_the_chord(self, world, backend):
        await backend.open_chords([opening(1)])
        await backend.add_parts([ChordAddition("g", "t1")])
        await world.advance(101)
        await backend.cleanup()
        await backend.open_chords([opening(1)])
        assert await backend.count_parts([part(0)]) == [True]

    async def test_many_parts(self, backend):
        await backend.open_chords([ChordOpening("g", 2500, 100)])
        assert sum(await backend.count_parts([part(n) for n in range(2500)])) == 1
        assert await backend.chord_parts("g") == [b"r%d" % n for n in range(2500)]
