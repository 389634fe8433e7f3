"""What brokers promise that have joined a result backend, about chords (aioretryq/message.py, `Finish`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aioretryq import states
from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart, Finish, Outgoing, StoredResult

if TYPE_CHECKING:
    from aioretryq.backends.base import ResultBackend
    from aioretryq.brokers.base import Broker
    from aioretryq.message import Delivery

    Place = tuple[Broker, ResultBackend]


def part(index: int | None, *, task: str | None = None, chord: str = "g", **more: Any) -> ChordPart:
    name = task or f"t{index}"
    values = {"content": b"r%s" % str(index).encode(), "token": f"by-{name}", "hold": 6.0, "ttl": 100.0}
    return ChordPart(chord, name, index, **{**values, **more})


def body(number: int = 1) -> Outgoing:
    return Outgoing("next", b"body", f"body {number}")


def result(task_id: str) -> StoredResult:
    return StoredResult(task_id, states.SUCCESS, b'{"status": "SUCCESS", "result": 1}', 60.0)


async def taken(broker: Broker, count: int = 1) -> list[Delivery]:
    await broker.send([Outgoing("celery", b"m%d" % n, f"tag {n}") for n in range(count)])
    return (await broker.claim(["celery"], limit=count)).deliveries


class JoinedContract:
    @pytest.fixture
    async def place(self) -> Place:
        raise NotImplementedError("the adapter's test class says how to connect")

    async def test_parts_are_counted_by_finishing(self, place):
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 3, 100)])
        one, two = await taken(broker, 2)
        finishes = [Finish(one, result=result("t1"), parts=(part(1),)), Finish(two, parts=(part(0),))]
        assert await broker.finish(finishes) == [True, True]
        assert await backend.chord_parts("g") == [b"r0", b"r1"]
        assert await backend.fetch(["t1"]) == [result("t1").document]
        assert await broker.extend([one, two]) == [False, False]
        assert await backend.count_parts([part(2)]) == [True]

    async def test_the_last_one_is_left_alone(self, place):
        """Whoever asks the backend then is given the right to send the body."""
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 3, 100)])
        deliveries = await taken(broker, 3)
        finishes = [
            Finish(each, (Outgoing("next", b"n%d" % n, f"next {n}"),), result=result(f"t{n}"), parts=(part(n),))
            for n, each in enumerate(deliveries)
        ]
        assert await broker.finish(finishes) == [True, True, None]
        assert await broker.finish(finishes[2:]) == [None]
        assert await backend.chord_parts("g") == [b"r0", b"r1"]
        assert await backend.fetch(["t2"]) == [None]
        assert await broker.extend(deliveries) == [False, False, True]
        assert await broker.depth(["next"]) == {"next": 2}
        assert await backend.count_parts([part(2)]) == [True]
        assert await broker.finish([Finish(deliveries[2])]) == [True]

    async def test_one_that_was_counted_asks_again(self, place):
        """Its worker had the right to send the body, and died."""
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 1, 100)])
        assert await backend.count_parts([part(0)]) == [True]
        (delivery,) = await taken(broker)
        assert await broker.finish([Finish(delivery, parts=(part(0),))]) == [None]

    async def test_what_is_somebody_elses_counts_nothing(self, place):
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 3, 100)])
        (delivery,) = await taken(broker)
        await broker.requeue([delivery])
        assert await broker.finish([Finish(delivery, result=result("t0"), parts=(part(0),))]) == [False]
        assert await backend.chord_parts("g") == []
        assert await backend.fetch(["t0"]) == [None]

    async def test_a_part_counts_once(self, place):
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 3, 100)])
        await backend.count_parts([part(0)])
        deliveries = await taken(broker, 2)
        finishes = [Finish(each, parts=(part(0, content=b"other"),)) for each in deliveries]
        assert await broker.finish(finishes) == [True, True]
        assert await backend.chord_parts("g") == [b"r0"]
        assert await backend.count_parts([part(1), part(2)]) == [False, True]

    async def test_before_anybody_knows_how_many_there_are(self, place):
        broker, backend = place
        await backend.open_chords([ChordOpening("g", None, 100, b"{}", 60.0)])
        deliveries = await taken(broker, 2)
        finishes = [Finish(each, parts=(part(n),)) for n, each in enumerate(deliveries)]
        assert await broker.finish(finishes) == [True, True]
        await backend.amend_chords([ChordOpening("g", 3, 100)])
        assert await backend.count_parts([part(2)]) == [True]

    async def test_before_it_is_open(self, place):
        broker, backend = place
        (delivery,) = await taken(broker)
        assert await broker.finish([Finish(delivery, parts=(part(0),))]) == [True]
        await backend.open_chords([ChordOpening("g", 2, 100)])
        assert await backend.count_parts([part(1)]) == [True]

    async def test_parts_that_were_added(self, place):
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 1, 100)])
        await backend.add_parts([ChordAddition("g", "t9")])
        one, two = await taken(broker, 2)
        finishes = [Finish(one, parts=(part(0),)), Finish(two, parts=(part(0, task="t9"),))]
        assert await broker.finish(finishes) == [True, None]

    async def test_one_finish_for_several_chords(self, place):
        """All or none."""
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 9, 100), ChordOpening("h", 2, 100)])
        one, two = await taken(broker, 2)
        both = (part(0), part(0, chord="h"), part(1, chord="h"))
        assert await broker.finish([Finish(one, parts=both), Finish(two, parts=both[:2])]) == [None, True]
        assert (await backend.chord_parts("g"), await backend.chord_parts("h")) == ([b"r0"], [b"r0"])

    async def test_a_chord_that_is_done(self, place):
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 1, 100)])
        await backend.count_parts([part(0)])
        await backend.close_chords([ChordClaim("g", "by-t0")])
        (delivery,) = await taken(broker)
        assert await broker.finish([Finish(delivery, parts=(part(0),))]) == [None]
        assert await backend.count_parts([part(0)]) == [False]

    async def test_a_body_that_the_backend_knows_or_not(self, place):
        """Only the backend itself notes one."""
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 3, 100, b"{}")])
        one, two = await taken(broker, 2)
        other = part(0, chord="h", body=b"{}")
        assert await broker.finish([Finish(one, parts=(part(0, body=b"{}"),)), Finish(two, parts=(other,))]) == [
            True,
            None,
        ]
        assert await backend.count_parts([other]) == [False]
        assert await broker.finish([Finish(two, parts=(part(1, chord="h", body=b"{}"),))]) == [True]
        assert await backend.chord_parts("h") == [b"r0", b"r1"]

    # -- bodies of chords

    async def test_a_body_is_sent_and_its_chord_closed(self, place):
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 1, 100, b"{}"), ChordOpening("h", 1, 100, b"{}")])
        assert await backend.count_parts([part(0), part(0, chord="h")]) == [True, True]
        (delivery,) = await taken(broker)
        claims = ChordClaim("g", "by-t0"), ChordClaim("h", "by-t0", failed=True)
        assert await broker.finish([Finish(delivery, (body(),), closes=claims)]) == [True]
        assert await broker.depth(["next"]) == {"next": 1}
        assert await broker.extend([delivery]) == [False]
        assert await backend.hold_chords(claims, 5) == [False, False]
        assert await backend.count_parts([part(0), part(0, chord="h")]) == [False, False]
        assert await backend.chord_parts("g") == []

    @pytest.mark.parametrize("who", ["by-other", "by-t0"])
    async def test_a_right_that_was_lost(self, place, who):
        """Passed to somebody else, or the body was sent already: nothing is done, and the message stays."""
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 1, 100), ChordOpening("h", 1, 100)])
        assert await backend.count_parts([part(0, returns=False), part(0, chord="h")]) == [True, True]
        if who == "by-t0":
            await backend.close_chords([ChordClaim("g", who)])
        one, two = await taken(broker, 2)
        both = ChordClaim("h", "by-t0"), ChordClaim("g", who)
        finishes = [Finish(one, (body(),), closes=both), Finish(two, (body(2),))]
        assert await broker.finish(finishes) == [None, True]
        assert await broker.depth(["next"]) == {"next": 1}
        assert await broker.extend([one]) == [True]
        assert await backend.hold_chords(both[:1], 5) == [True]

    async def test_of_a_chord_that_is_lost(self, place):
        broker, backend = place
        (delivery,) = await taken(broker)
        claim = ChordClaim("g", "by-t0")
        assert await broker.finish([Finish(delivery, (body(),), closes=(claim,))]) == [None]
        assert await backend.hold_chords([claim], 5) == [None]

    async def test_a_lost_lease_sends_no_body(self, place):
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 1, 100)])
        assert await backend.count_parts([part(0)]) == [True]
        (delivery,) = await taken(broker)
        await broker.requeue([delivery])
        claim = ChordClaim("g", "by-t0")
        assert await broker.finish([Finish(delivery, (body(),), closes=(claim,))]) == [False]
        assert await backend.hold_chords([claim], 5) == [True]
        assert await broker.depth(["next"]) == {"next": 0}

    async def test_without_a_message(self, place):
        """It was acknowledged before."""
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 1, 100)])
        assert await backend.count_parts([part(0, returns=False)]) == [True]
        finish = Finish(None, (body(),), closes=(ChordClaim("g", "by-t0"),))
        assert await broker.finish([finish]) == [True]
        assert await broker.finish([finish]) == [None]
        assert await broker.depth(["next"]) == {"next": 1}

    async def test_parts_without_a_place_come_last(self, place):
        broker, backend = place
        await backend.open_chords([ChordOpening("g", 9, 100)])
        deliveries = await taken(broker, 3)
        parts = [part(None, task="x:y"), part(1), part(0, task="x:0")]
        assert (
            await broker.finish([Finish(d, parts=(p,)) for d, p in zip(deliveries, parts, strict=True)]) == [True] * 3
        )
        assert await backend.chord_parts("g") == [b"r0", b"r1", b"rNone"]

    async def test_very_many_at_once(self, place):
        broker, backend = place
        names = [f"g{n}" for n in range(120)]
        await backend.open_chords([ChordOpening(name, 3, 100) for name in names])
        deliveries = await taken(broker, 240)
        finishes = [
            Finish(each, result=result(f"r{n}"), parts=(part(n % 2, chord=names[n // 2]),))
            for n, each in enumerate(deliveries)
        ]
        assert await broker.finish(finishes) == [True] * 240
        assert await backend.count_parts([part(2, chord=name) for name in names]) == [True] * 120
