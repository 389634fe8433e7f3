"""The Redis backend keeps the contract, and Celery's keys, documents and announcements."""

from __future__ import annotations

import asyncio
import contextlib
import json
import pickle
import time
import uuid

import celery
import pytest
import redis

from aioretryq import states
from aioretryq.backends.redis import RedisBackend
from aioretryq.config import Settings
from aioretryq.errors import BackendError, BackendUnavailable, ConfigError, NotOpenError
from contracts.backend_contract import BackendContract, doc, drop, hear, result, subscribe
from redis_server import RedisServer


def open_backend(url: str, **settings: object) -> RedisBackend:
    conf = Settings()
    conf.update(settings)
    return RedisBackend.from_url(url, conf)


class RedisWorld:
    """The server deletes what has expired: to let time pass, everything is given less to live."""

    def __init__(self, stack: contextlib.AsyncExitStack, url: str) -> None:
        self._stack = stack
        self._url = url

    async def connect(self) -> RedisBackend:
        return await self._stack.enter_async_context(open_backend(self._url))

    async def advance(self, seconds: float) -> None:
        with redis.Redis.from_url(self._url) as client:
            for key in client.scan_iter():
                left = client.pttl(key)
                if left >= 0:
                    client.pexpire(key, max(0, left - int(seconds * 1000)))


@pytest.fixture
async def backend(redis_url):
    async with open_backend(redis_url) as backend:
        yield backend


@pytest.fixture
def server(redis_url):
    """A client to look at what is there."""
    with redis.Redis.from_url(redis_url) as client:
        yield client


def listeners(server: redis.Redis) -> list[str]:
    return [client["id"] for client in server.client_list() if client["name"] == "aioretryq:results"]


class TestContract(BackendContract):
    @pytest.fixture
    async def world(self, redis_url):
        async with contextlib.AsyncExitStack() as stack:
            yield RedisWorld(stack, redis_url)


def celery_backend(url: str, serializer: str, compression: str | None = None) -> celery.backends.redis.RedisBackend:
    app = celery.Celery("t", backend=url, set_as_current=False)
    app.conf.update(
        result_serializer=serializer,
        result_compression=compression,
        accept_content=["json", "yaml", "msgpack", "pickle"],
    )
    return app.backend


WRITTEN = [
    *((name, compression) for name in ("json", "yaml", "msgpack", "pickle") for compression in (None, "zlib")),
    ("json", "zstd"),
]


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery
class TestFinalStatesOfOtherFormats:
    """The script cannot read them: what it may overwrite is found out here, and it checks that it is still there."""

    @pytest.mark.parametrize(("serializer", "compression"), WRITTEN)
    async def test_what_celery_finished_stays(self, backend, redis_url, server, serializer, compression):
        theirs = celery_backend(redis_url, serializer, compression)
        for state, value in {"SUCCESS": 1, "FAILURE": ValueError("x"), "REVOKED": KeyError("y")}.items():
            theirs.store_result(state, value, state)
            before = server.get(f"celery-task-meta-{state}")
            assert await backend.store([result(state, states.RETRY), result(state, states.REVOKED)]) == [False, False]
            assert server.get(f"celery-task-meta-{state}") == before
            # Whoever revoked it may not have known that it runs.
            assert await backend.store([result(state)]) == [state == "REVOKED"]
        theirs.client.connection_pool.disconnect()

    @pytest.mark.parametrize(("serializer", "compression"), WRITTEN)
    async def test_what_celery_began_is_overwritten(self, backend, redis_url, serializer, compression):
        theirs = celery_backend(redis_url, serializer, compression)
        for state, value in {"STARTED": {"pid": 1}, "RETRY": ValueError("x"), "PROGRESS": 5}.items():
            theirs.store_result(state, value, state)
            assert await backend.store([result(state)]) == [True]
            assert await backend.fetch([state]) == [doc(state)]
        theirs.client.connection_pool.disconnect()

    async def test_a_batch_of_all_kinds(self, backend, server):
        pickled = {state: pickle.dumps({"status": state, "result": None}) for state in ("SUCCESS", "STARTED")}
        server.set("celery-task-meta-b", pickled["SUCCESS"])
        server.set("celery-task-meta-c", pickled["STARTED"])
        server.set("celery-task-meta-d", doc("d"))
        server.set("celery-task-meta-e", b"garbage")
        server.set("celery-task-meta-f", b"[1]")
        assert await backend.store([result(name) for name in "abcdefa"]) == [
            True, False, True, False, True, True, False
        ]  # fmt: skip
        assert await backend.fetch(["b", "c", "e"]) == [pickled["SUCCESS"], doc("c"), doc("e")]

    async def test_what_changes_between_looking_and_storing(self, backend, server):
        """Somebody else finishes the task at that very moment."""
        started, done = (pickle.dumps({"status": state}) for state in ("STARTED", "SUCCESS"))
        server.set("celery-task-meta-a", started)
        fetch = backend.fetch

        async def fetch_and_change(task_ids):
            found = await fetch(task_ids)
            server.set("celery-task-meta-a", done)
            return found

        backend.fetch = fetch_and_change
        assert await backend.store([result("a")]) == [False]
        assert server.get("celery-task-meta-a") == done

    async def test_what_disappears_between_looking_and_storing(self, backend, server):
        server.set("celery-task-meta-a", pickle.dumps({"status": "STARTED"}))
        fetch = backend.fetch

        async def delete_and_fetch(task_ids):
            server.delete("celery-task-meta-a")
            return await fetch(task_ids)

        backend.fetch = delete_and_fetch
        assert await backend.store([result("a")]) == [True]


class TestLayout:
    async def test_groups_are_celerys(self, backend, server):
        with server.pubsub(ignore_subscribe_messages=True) as heard:
            heard.subscribe("celery-taskset-meta-g")
            heard.get_message(timeout=5)
            await backend.save_group("g", b"document", 100)
            message = heard.get_message(timeout=5)
        assert (server.get("celery-taskset-meta-g"), message["data"]) == (b"document", b"document")
        assert 90 < server.ttl("celery-taskset-meta-g") <= 100
        await backend.delete_group("g")
        assert server.keys() == []

    async def test_key_and_time_to_live(self, backend, server):
        await backend.store([result("a", ttl=86400), result("b", ttl=None), result("c", ttl=0)])
        assert server.get("celery-task-meta-a") == doc("a")
        assert 86390 < server.ttl("celery-task-meta-a") <= 86400
        assert server.ttl("celery-task-meta-b") == -1
        assert server.pttl("celery-task-meta-c") in (-2, 0, 1)

    @pytest.mark.parametrize(
        ("prefix", "key"),
        [("app", "app_celery-task-meta-a"), *((f"app{end}", f"app{end}celery-task-meta-a") for end in ":_-.")],
    )
    async def test_prefix(self, redis_url, server, prefix, key):
        async with open_backend(redis_url, result_backend_transport_options={"global_keyprefix": prefix}) as backend:
            async with backend.listen() as listener:
                receiving = await subscribe(listener, "a")
                await backend.store([result("a")])
                assert await receiving == [("a", doc("a"))]
            assert server.keys() == [key.encode()]
            assert await backend.fetch(["a"]) == [doc("a")]
            await backend.forget(["a"])
            assert server.keys() == []

    @pytest.mark.parametrize(
        ("stored", "final"),
        [
            (b'{"result": 1, "status": "SUCCESS"}', True),
            (b'  { "status" : "FAILURE" }', True),
            (b'{"result": {"status": "SUCCESS"}, "status": "STARTED"}', False),
            (b'{"status": "SUCCESSFUL"}', False),
            (b'{"status": {"status": "SUCCESS"}}', False),
            (b'{"status": null, "x": "SUCCESS"}', False),
            (b'["SUCCESS"]', False),
            (b'"SUCCESS"', False),
            (b'\x00celery-compressed\x00"status": "SUCCESS"', False),
            (b"[" * 100_000, False),
        ],
    )
    async def test_what_counts_as_final(self, backend, server, stored, final):
        server.set("celery-task-meta-a", stored)
        assert await backend.store([result("a")]) == [not final]
        assert await backend.fetch(["a"]) == [stored if final else doc("a")]

    async def test_a_key_of_the_wrong_type(self, backend, server):
        server.lpush("celery-task-meta-b", "no document")
        with pytest.raises(BackendError, match="WRONGTYPE") as caught:
            await backend.store([result("a"), result("b")])
        assert isinstance(caught.value.__cause__, redis.ResponseError)
        assert await backend.fetch(["a", "b"]) == [None, None]

    async def test_a_backend_that_is_not_open_says_so(self, redis_url):
        backend = open_backend(redis_url)
        with pytest.raises(NotOpenError, match="async with"):
            await backend.fetch(["a"])
        with pytest.raises(NotOpenError, match="async with"):
            await backend.listen().__aenter__()

    async def test_a_database_that_does_not_exist(self, redis_server):
        with pytest.raises(ConfigError, match="no such database"):
            await open_backend(redis_server.url_of(99)).__aenter__()


@pytest.mark.filterwarnings("ignore:Call to deprecated setex")  # by Celery
class TestCelery:
    @pytest.fixture
    def app(self, redis_url):
        with celery.Celery(broker=redis_url, backend=redis_url, set_as_current=False) as app:
            yield app
            app.backend.result_consumer.stop()

    async def test_celery_reads_our_results(self, app, backend):
        task_id = str(uuid.uuid4())
        document = {"status": "SUCCESS", "result": [1, 2], "traceback": None, "children": [], "task_id": task_id}
        document["date_done"] = "2026-01-01T00:00:00+00:00"
        waiting = asyncio.create_task(asyncio.to_thread(app.AsyncResult(task_id).get, timeout=10))
        await backend.store([result(task_id, document=json.dumps(document).encode())])
        assert await waiting == [1, 2]
        app.backend.store_result(task_id, None, states.STARTED)
        assert json.loads((await backend.fetch([task_id]))[0]) == document

    async def test_we_read_celerys_results(self, app, backend):
        task_id = str(uuid.uuid4())
        async with backend.listen() as listener:
            receiving = await subscribe(listener, task_id)
            await asyncio.to_thread(app.backend.store_result, task_id, {"x": 1}, states.SUCCESS)
            ((heard, document),) = await receiving
        assert (heard, json.loads(document)["result"]) == (task_id, {"x": 1})
        assert await backend.fetch([task_id]) == [document]
        assert await backend.store([result(task_id, states.FAILURE)]) == [False]


class TestListening:
    async def test_one_connection_while_someone_listens(self, backend, server):
        assert listeners(server) == []
        async with backend.listen() as listener:
            for name in "abc":
                await drop(await subscribe(listener, name))
            assert len(listeners(server)) == 1
        async with asyncio.timeout(10):
            while listeners(server):
                await asyncio.sleep(0.001)

    async def test_idle_listening_does_not_time_out(self, redis_url, server):
        async with open_backend(redis_url, redis_socket_timeout=0.1) as backend, backend.listen() as listener:
            receiving = await subscribe(listener, "a")
            before = listeners(server)
            await asyncio.wait([receiving], timeout=0.5)
            assert not receiving.done()
            await backend.store([result("a")])
            assert await receiving == [("a", doc("a"))]
            assert listeners(server) == before

    async def test_closing_is_quick(self, backend):
        times = []
        for _ in range(5):
            async with backend.listen() as listener:
                await drop(await subscribe(listener, "a"))
                started = time.perf_counter()
            times.append(time.perf_counter() - started)
        assert min(times) < 0.02

    async def test_a_batch_is_what_has_arrived(self, backend):
        names = [str(n) for n in range(20)]
        async with backend.listen() as listener:
            await drop(await subscribe(listener, *names))
            await backend.store([result(name) for name in names])
            async with asyncio.timeout(10):
                heard = await listener.receive()
                while len(heard) < 20:
                    heard += await listener.receive()
        assert heard == [(name, doc(name)) for name in names]

    async def test_large_documents(self, backend):
        large = b'{"status": "SUCCESS", "result": "%s"}' % (b"x" * 2**20)
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a")
            for _ in range(20):  # cancelled in the middle of reading
                await asyncio.sleep(0)
                await drop(receiving)
                receiving = asyncio.create_task(listener.receive())
            await drop(receiving)
            await backend.store([result("a", document=large), result("b")])
            receiving = asyncio.create_task(listener.receive())
            for _ in range(5):
                await asyncio.sleep(0)
            await drop(receiving)
            assert await hear(listener) == {"a": large}

    async def test_many_subscriptions_at_once(self, backend):
        names = [uuid.uuid4().hex for _ in range(300)]
        async with backend.listen() as listener:
            receiving = asyncio.create_task(hear(listener, len(names)))
            async with asyncio.timeout(10):
                await asyncio.gather(*(listener.subscribe([name]) for name in names))
            await backend.store([result(name) for name in names])
            assert await receiving == {name: doc(name) for name in names}

    async def test_an_id_that_cannot_be_written(self, backend, server):
        async with backend.listen() as listener:
            await listener.subscribe(["a", "b"])
            await listener.unsubscribe(["a"])
            for names in (["\ud800"], ["c", "\ud800"]):
                with pytest.raises(BackendError, match="Nothing was sent"):
                    await listener.subscribe(names)
            with pytest.raises(BackendError, match="Nothing was sent"):
                await backend.fetch(["\ud800"])
            with pytest.raises(BackendError, match="Nothing was sent"):
                await backend.forget(["\ud800"])
            await listener.subscribe(["d"])
            channels = [f"celery-task-meta-{name}".encode() for name in "bd"]
            assert sorted(server.pubsub_channels()) == channels, "what was to be given up is"

    async def test_a_cancelled_subscribe_leaves_the_listener_whole(self, backend):
        async with backend.listen() as listener:
            subscribing = asyncio.create_task(listener.subscribe(["a"]))
            await asyncio.sleep(0)
            await drop(subscribing)
            receiving = await subscribe(listener, "b")
            await backend.store([result("b")])
            assert await receiving == [("b", doc("b"))]


class TestWhatIsThereAlready:
    """The listener looks when it subscribes, in the same round trip."""

    async def test_nothing(self, backend):
        async with backend.listen() as listener:
            assert await listener.subscribe(["a"]) is False
            assert await listener.subscribe(["b", "c"]) is False

    async def test_one_is_heard_at_once(self, backend):
        await backend.store([result("a")])
        async with backend.listen() as listener:
            assert await listener.subscribe(["a"]) is False
            assert await hear(listener) == {"a": doc("a")}

    async def test_of_many_the_caller_is_told(self, backend, server):
        await backend.store([result("b")])
        async with backend.listen() as listener:
            assert await listener.subscribe(["a", "b"]) is True
            await backend.store([result("a")])
            assert await hear(listener) == {"a": doc("a")}

    async def test_more_than_a_server_keeps_for_subscribers(self, backend, server):
        """It cuts off whoever has more than that to read."""
        large = b'{"status": "SUCCESS", "result": "%s"}' % (b"x" * 4_000_000)
        names = [str(n) for n in range(10)]
        for name in names:
            server.set(f"celery-task-meta-{name}", large)
        async with backend.listen() as listener:
            assert await listener.subscribe(names) is True
            await backend.store([result("a")])
            await listener.subscribe(["a"])
            assert await hear(listener) == {"a": doc("a")}

    async def test_what_a_refused_id_leaves_behind(self, redis_url, server):
        server.execute_command("ACL", "SETUSER", "blind", "reset", "on", ">secret", "+@all", "&*", "%R~*-ok")
        async with open_backend(redis_url.replace("//", "//blind:secret@")) as backend, backend.listen() as listener:
            for names in (["a-no"], ["a-ok", "b-no"]):
                with pytest.raises(BackendError, match="ACL"):
                    await listener.subscribe(names)
            assert await listener.subscribe(["b-ok"]) is False
            assert server.pubsub_channels() == [b"celery-task-meta-b-ok"]
        server.acl_deluser("blind")


@pytest.fixture(scope="module")
def old_server():
    server = RedisServer("--rename-command", "HELLO", "GOODDAY")
    server.start()
    yield server
    server.close()


class TestOldProtocol:
    """A server, or what is before it, that does not know RESP3: then callers have to look themselves."""

    async def test_it_hears(self, old_server):
        async with open_backend(old_server.url, redis_socket_timeout=0.2) as backend, backend.listen() as listener:
            receiving = asyncio.create_task(listener.receive())
            assert await listener.subscribe(["a", "b"]) is None
            await asyncio.wait([receiving], timeout=0.5)  # longer than the server may be silent
            await backend.store([result("a")])
            assert await receiving == [("a", doc("a"))]
            await listener.unsubscribe(["a"])
            await backend.store([result("a", states.STARTED), result("b")])
            assert await hear(listener) == {"b": doc("b")}

    async def test_nothing_is_subscribed_for_a_while(self, old_server):
        """Then the answer to the question whether the server lives is no list."""
        async with open_backend(old_server.url, redis_socket_timeout=0.1) as backend, backend.listen() as listener:
            receiving = asyncio.create_task(listener.receive())
            await asyncio.wait([receiving], timeout=0.5)
            assert not receiving.done()
            assert await listener.subscribe(["later"]) is None
            await backend.store([result("later")])
            assert await receiving == [("later", doc("later"))]

    async def test_the_answer_to_a_ping_confirms_no_subscription(self, old_server):
        async with open_backend(old_server.url) as backend, backend.listen() as listener:
            listener._write(("PING",))
            await asyncio.gather(*(listener.subscribe([name]) for name in "xy"))
            await backend.store([result("y")])
            assert await hear(listener) == {"y": doc("y")}

    async def test_a_refusal(self, old_server):
        with redis.Redis.from_url(old_server.url, protocol=2) as client:
            client.execute_command("ACL", "SETUSER", "deaf", "reset", "on", ">secret", "+@all", "~*", "&*ok")
        async with (
            open_backend(old_server.url.replace("//", "//deaf:secret@")) as backend,
            backend.listen() as listener,
        ):
            with pytest.raises(BackendError, match="ACL"):
                await listener.subscribe(["a-ok", "b"])
            await listener.subscribe(["c-ok"])
            await backend.store([result("c-ok")])
            assert await hear(listener) == {"c-ok": doc("c-ok")}


class TestTrouble:
    async def test_a_lost_connection_ends_the_listener(self, backend, server):
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a")
            server.client_kill_filter(_type="pubsub")
            with pytest.raises(BackendUnavailable, match="Cannot reach"):
                await receiving
            for again in (listener.receive(), listener.subscribe(["b"]), listener.unsubscribe(["a"])):
                with pytest.raises(BackendUnavailable):
                    await again
        async with backend.listen() as listener:
            receiving = await subscribe(listener, "a")
            await backend.store([result("a")])
            assert await receiving == [("a", doc("a"))]

    async def test_a_lost_connection_ends_whoever_waits_for_a_confirmation(self, redis_server, backend, server):
        async with backend.listen() as listener:
            receiving = asyncio.create_task(listener.receive())
            server.client_pause(5000)
            subscribing = asyncio.create_task(listener.subscribe(["a"]))
            await asyncio.sleep(0)
            redis_server.restart()
            for each in (receiving, subscribing):
                with pytest.raises(BackendUnavailable):
                    await each

    async def test_the_server_is_gone_and_comes_back(self, redis_server, backend):
        await backend.store([result("a")])
        redis_server.kill()
        try:
            for operation in (backend.store([result("a")]), backend.fetch(["a"]), backend.forget(["a"])):
                with pytest.raises(BackendUnavailable, match="Is the server running") as caught:
                    await operation
                assert isinstance(caught.value.__cause__, redis.RedisError)
            with pytest.raises(BackendUnavailable):
                await backend.listen().__aenter__()
        finally:
            redis_server.start()
        assert await backend.store([result("a")]) == [True]

    async def test_forgotten_scripts_are_loaded_again(self, backend, server):
        await backend.store([result("a")])
        server.script_flush()
        assert await backend.store([result("b")]) == [True]

    async def test_a_frozen_server(self, redis_url, server):
        async with open_backend(redis_url, redis_socket_timeout=0.2) as backend, backend.listen() as listener:
            receiving = asyncio.create_task(listener.receive())
            server.client_pause(1500)
            for operation in (backend.fetch(["a"]), listener.subscribe(["a"])):
                with pytest.raises(BackendUnavailable, match="does not answer"):
                    await operation
            with pytest.raises(BackendUnavailable):
                await receiving
            server.client_unpause()
