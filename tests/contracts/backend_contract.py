"""What every result backend promises (aioretryq/backends/base.py), as tests to run against each adapter.

Subclass `BackendContract` and give it a fixture `world`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

import pytest

from aioretryq import states
from aioretryq.backends.base import ResultBackend
from aioretryq.errors import BackendUnavailable
from aioretryq.message import StoredResult

if TYPE_CHECKING:
    from aioretryq.backends.base import ResultListener


class World(Protocol):
    """One store and its time. Each `connect()` is a process of its own; teardown closes them all."""

    async def connect(self) -> ResultBackend: ...

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass for what expires."""
        ...


def result(task_id: str, state: str = states.SUCCESS, document: bytes = b"", ttl: float | None = 100) -> StoredResult:
    """As Celery's documents do, an adapter may rely on the state being a member of the JSON."""
    return StoredResult(task_id, state, document or doc(task_id, state), ttl)


def doc(task_id: str, state: str = states.SUCCESS) -> bytes:
    return b'{"status": "%s", "result": null, "task_id": "%s"}' % (state.encode(), task_id.encode())


async def hear(listener: ResultListener, count: int = 1) -> dict[str, bytes]:
    """The last documents of the first `count` tasks heard of."""
    heard: dict[str, bytes] = {}
    async with asyncio.timeout(10):
        while len(heard) < count:
            changes = await listener.receive()
            assert changes
            heard.update(changes)
    return heard


async def subscribe(listener: ResultListener, *task_ids: str) -> asyncio.Task[list[tuple[str, bytes]]]:
    """Subscribe while someone receives, as the contract asks for; returns the receiving task."""
    receiving = asyncio.create_task(listener.receive())
    async with asyncio.timeout(10):
        await listener.subscribe(task_ids)
    return receiving


async def drop(receiving: asyncio.Task[list[tuple[str, bytes]]]) -> None:
    receiving.cancel()
    await asyncio.gather(receiving, return_exceptions=True)


class BackendContract:
    @pytest.fixture
    async def world(self) -> World:
        raise NotImplementedError("the adapter's test class says how to connect")

    @pytest.fixture
    async def backend(self, world: World) -> ResultBackend:
        return await world.connect()

    async def test_is_a_backend(self, backend):
        assert isinstance(backend, ResultBackend)
        assert backend.display_url

    # -- store and fetch

    async def test_what_is_stored_can_be_fetched(self, world, backend):
        assert await backend.store([result("a"), result("b", states.FAILURE)]) == [True, True]
        other = await world.connect()
        assert await other.fetch(["a", "b"]) == [doc("a"), doc("b", states.FAILURE)]

    async def test_fetch_answers_in_the_order_asked(self, backend):
        await backend.store([result(name) for name in "abc"])
        assert await backend.fetch(["c", "unknown", "a", "c"]) == [doc("c"), None, doc("a"), doc("c")]

    async def test_empty_batches_do_nothing(self, backend):
        assert await backend.store([]) == []
        assert await backend.fetch([]) == []
        await backend.forget([])

    async def test_large_batches(self, backend):
        names = [f"{n:08}-0000-4000-8000-000000000000" for n in range(2000)]
        assert await backend.store([result(name) for name in names]) == [True] * 2000
        assert await backend.fetch(names) == [doc(name) for name in names]
        await backend.forget(names)
        assert await backend.fetch(names) == [None] * 2000

    @pytest.mark.parametrize("document", [b"\xff\x00\x80", b"{}", bytes(2**20)], ids=["not utf-8", "json", "1 MiB"])
    async def test_documents_are_opaque(self, backend, document):
        await backend.store([result("a", document=document)])
        assert await backend.fetch(["a"]) == [document]

    # -- groups

    async def test_a_group_is_kept_until_it_is_deleted(self, world, backend):
        await backend.save_group("g", b"first", 100)
        await backend.save_group("g", b"\x80second", None)
        other = await world.connect()
        assert await other.restore_group("g") == b"\x80second"
        await other.delete_group("g")
        await other.delete_group("unknown")
        assert await backend.restore_group("g") is None

    async def test_groups_expire(self, world, backend):
        await backend.save_group("short", b"x", 10)
        await backend.save_group("long", b"x", 100)
        await backend.save_group("for ever", b"x", None)
        await world.advance(50)
        assert [await backend.restore_group(name) for name in ("short", "long", "for ever")] == [None, b"x", b"x"]

    async def test_a_group_and_a_task_of_the_same_id_have_nothing_to_do_with_each_other(self, backend):
        await backend.store([result("a")])
        await backend.save_group("a", b"group", 100)
        assert await backend.fetch(["a"]) == [doc("a")]
        await backend.forget(["a"])
        assert await backend.restore_group("a") == b"group"
        await backend.store([result("a")])
        await backend.delete_group("a")
        assert await backend.fetch(["a"]) == [doc("a")]

    # -- states

    @pytest.mark.parametrize(
        ("final", "later"),
        [
            (final, later)
            for final in sorted(states.FINAL)
            for later in (states.STARTED, states.RETRY, *sorted(states.FINAL))
            if final != states.REVOKED or later not in states.RUN_TO_ITS_END
        ],
    )
    async def test_a_final_state_stays(self, world, backend, final, later):
        await backend.store([result("a", final)])
        other = await world.connect()
        assert await other.store([result("a", later, b'{"status": "%s", "x": 1}' % later.encode())]) == [False]
        assert await backend.fetch(["a"]) == [doc("a", final)]

    @pytest.mark.parametrize("later", [states.SUCCESS, states.FAILURE])
    async def test_a_run_has_the_last_word(self, world, backend, later):
        """Whoever revokes a task may not know that it runs."""
        await backend.store([result("a", states.REVOKED)])
        other = await world.connect()
        assert await other.store([result("a", states.RETRY), result("a", later)]) == [False, True]
        assert await other.store([result("a", states.REVOKED), result("a", states.SUCCESS)]) == [False, False]
        assert await backend.fetch(["a"]) == [doc("a", later)]

    async def test_what_never_ran_does_not_say_that_it_was_not_revoked(self, backend):
        await backend.store([result("a", states.REVOKED)])
        never = StoredResult("a", states.FAILURE, doc("a", states.FAILURE), 60.0, never_ran=True)
        assert await backend.store([never]) == [False]
        assert await backend.fetch(["a"]) == [doc("a", states.REVOKED)]

    @pytest.mark.parametrize("later", [states.STARTED, states.RETRY, states.SUCCESS])
    async def test_other_states_are_overwritten(self, backend, later):
        assert await backend.store([result("a", states.STARTED)]) == [True]
        assert await backend.store([result("a", later)]) == [True]
        assert await backend.fetch(["a"]) == [doc("a", later)]

    async def test_each_result_of_a_batch_stands_for_itself(self, backend):
        await backend.store([result("a")])
        assert await backend.store([result("a", states.FAILURE), result("b")]) == [False, True]
        assert await backend.fetch(["a", "b"]) == [doc("a"), doc("b")]

    async def test_the_same_task_twice_in_a_batch(self, backend):
        batch = [result("a", states.STARTED), result("a"), result("a", states.FAILURE)]
        assert await backend.store(batch) == [True, True, False]
        assert await backend.fetch(["a"]) == [doc("a")]

    # -- forget and expiry

    async def test_forget(self, backend):
        await backend.store([result("a"), result("b")])
        await backend.forget(["a", "unknown"])
        assert await backend.fetch(["a", "b"]) == [None, doc("b")]

    async def test_a_forgotten_task_may_be_stored_anew(self, backend):
        await backend.store([result("a")])
        await backend.forget(["a"])
        assert await backend.store([result("a", states.FAILURE)]) == [True]

    async def test_results_expire(self, world, backend):
        await backend.store([result("short", ttl=10), result("long", ttl=100), result("ever", ttl=None)])
        await world.advance(11)
        assert await backend.fetch(["short", "long", "ever"]) == [None, doc("long"), doc("ever")]
        await world.advance(1000)
        assert await backend.fetch(["long", "ever"]) == [None, doc("ever")]

    async def test_storing_starts_the_time_to_live_anew(self, world, backend):
        await backend.store([result("a", states.STARTED, ttl=10)])
        await world.advance(6)
        await backend.store([result("a", ttl=10)])
        await world.advance(6)
        assert await backend.fetch(["a"]) == [doc("a")]

    async def test_an_expired_final_state_is_no_obstacle(self, world, backend):
        await backend.store([result("a", ttl=10)])
        await world.advance(11)
        assert await backend.store([result("a", states.STARTED)]) == [True]
        assert await backend.fetch(["a"]) == [doc("a", states.STARTED)]

    async def test_cleanup_deletes_only_what_has_expired(self, world, backend):
        await backend.store([result("short", ttl=10), result("ever", ttl=None)])
        assert await backend.cleanup() == 0
        await world.advance(11)
        assert await backend.cleanup() in (0, 1)  # 0 where the server itself deletes
        assert await backend.cleanup() == 0
        assert await backend.fetch(["short", "ever"]) == [None, doc("ever")]

    # -- listen

    async def test_a_listener_hears_of_a_change(self, world, backend):
        other = await world.connect()
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a", "b")
            await other.store([result("a")])
            async with asyncio.timeout(10):
                assert await receiving == [("a", doc("a"))]
            await other.store([result("b", states.FAILURE)])
            assert await hear(listener) == {"b": doc("b", states.FAILURE)}

    async def test_a_listener_hears_what_the_own_connection_stores(self, backend):
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a")
            await backend.store([result("a")])
            async with asyncio.timeout(10):
                assert await receiving == [("a", doc("a"))]

    async def test_changes_between_subscribe_and_receive_are_not_lost(self, world, backend):
        other = await world.connect()
        async with backend.listen() as listener:
            await drop(await subscribe(listener, "a"))
            await other.store([result("a")])
            assert await hear(listener) == {"a": doc("a")}

    async def test_every_state_is_announced_in_the_end(self, world, backend):
        # States that follow one another quickly may be told as one, the last.
        other = await world.connect()
        async with backend.listen() as listener:
            await drop(await subscribe(listener, "a"))
            await other.store([result("a", states.STARTED)])
            await other.store([result("a")])
            async with asyncio.timeout(10):
                while ("a", doc("a")) not in await listener.receive():
                    pass

    async def test_two_listeners_hear_the_same(self, world, backend):
        other = await world.connect()
        async with backend.listen() as one, other.listen() as two, backend.listen() as three:
            receiving = [await subscribe(listener, "a") for listener in (one, two, three)]
            await other.store([result("a")])
            async with asyncio.timeout(10):
                assert await asyncio.gather(*receiving) == [[("a", doc("a"))]] * 3

    async def test_a_listener_hears_only_what_it_asked_for(self, world, backend):
        other = await world.connect()
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "b")
            await other.store([result("a")])
            await other.store([result("b")])
            async with asyncio.timeout(10):
                assert await receiving == [("b", doc("b"))]

    async def test_unsubscribe(self, world, backend):
        other = await world.connect()
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a", "b")
            async with asyncio.timeout(10):
                await listener.unsubscribe(["a", "unknown"])
            await other.store([result("a")])
            await other.store([result("b")])
            async with asyncio.timeout(10):
                assert await receiving == [("b", doc("b"))]

    async def test_empty_subscriptions_do_nothing(self, backend):
        async with backend.listen() as listener:
            receiving = asyncio.create_task(listener.receive())
            async with asyncio.timeout(10):
                await listener.subscribe([])
                await listener.unsubscribe([])
            await drop(receiving)

    async def test_a_refused_store_is_not_announced(self, world, backend):
        other = await world.connect()
        await other.store([result("a")])
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a", "b")
            await other.store([result("a", states.FAILURE)])
            await other.store([result("b")])
            heard = await receiving
            while not any(task_id == "b" for task_id, _ in heard):
                async with asyncio.timeout(10):
                    heard += await listener.receive()
            assert ("a", doc("a", states.FAILURE)) not in heard

    async def test_many_changes_at_once(self, world, backend):
        names = [f"{n:08}-0000-4000-8000-000000000000" for n in range(2000)]
        other = await world.connect()
        async with backend.listen() as listener:
            await drop(await subscribe(listener, *names))
            storing = asyncio.create_task(other.store([result(name) for name in names]))
            assert await hear(listener, len(names)) == {name: doc(name) for name in names}
            assert await storing == [True] * 2000

    async def test_a_cancelled_receive_leaves_the_listener_whole(self, world, backend):
        other = await world.connect()
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a")
            for _ in range(3):
                await drop(receiving)
                receiving = await subscribe(listener)
            await drop(receiving)
            await other.store([result("a")])
            assert await hear(listener) == {"a": doc("a")}

    async def test_closing_the_backend_ends_the_listener(self, backend):
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a")
            await backend.__aexit__(None, None, None)
            async with asyncio.timeout(10):
                with pytest.raises(BackendUnavailable):
                    await receiving
