"""What is refused, when it is composed or before anything is sent; in the same words where it would run in place."""

from __future__ import annotations

import pytest

from aioretryq import ConfigError, TaskQueue, UnknownSettingError, chain, chord, group, signature
from aioretryq.errors import EncodeError
from aioretryq.protocol.signature import MAX_DEPTH, TASK, Node
from aioretryq.workflows.sending import start
from queues import memory_url, soon

BAD_OPTIONS = [{"queue": ""}, {"stamped_headers": "abc"}, {"stamped_headers": [1]}, {"group_index": "a"}]
BAD_OPTIONS += [
    {"group_index": True},
    {"group_index": 2**60},
    {"root_id": ""},
    {"task_id": ""},
    {"reply_to": "\ud800"},
]
BAD_OPTIONS += [{"stamps": 5}, {"retry_policy": 5}, {"stamps": {"queue": "gold"}}]


@pytest.fixture
def add(queue):
    return queue.tasks["w.add"]


@pytest.fixture
async def nothing_is_sent(queue):
    yield
    assert (await queue.broker.claim(["celery", ""], limit=100)).deliveries == []


@pytest.fixture
async def eager_queue():
    async with TaskQueue(memory_url(), task_always_eager=True) as queue:
        yield queue


@pytest.mark.usefixtures("nothing_is_sent")
class TestOptions:
    @pytest.mark.parametrize("bad", BAD_OPTIONS)
    async def test_that_a_worker_would_refuse(self, add, bad):
        name = next(iter(bad))
        for whole in (add.s(1), add.s(1) | add.s(2), chord([add.s(1)], add.s())):
            with pytest.raises(ConfigError, match=name.replace("stamps", "stamp")):
                await whole.apply_async(**bad)
            with pytest.raises(ConfigError):
                whole.set(**bad)

    async def test_that_a_worker_would_refuse_of_what_was_not_composed_here(self, queue):
        bad = Node(TASK, "w.add", options={"queue": ""})
        for node in (group_node(bad), group_node(Node(TASK, "w.add"), bad)):
            with pytest.raises(ConfigError, match="queue"):
                await start(queue, node)

    def test_of_links(self, add):
        bad = {"task": "w.add", "options": {"group_index": 2.5}}
        for option in ("link", "link_error"):
            with pytest.raises(Exception, match="group_index"):
                add.s(1).set(**{option: bad})
        with pytest.raises(ConfigError, match="priority"):
            add.s(1).link({"task": "w.add", "options": {"link": [{"task": "w.add", "options": {"priority": 77}}]}})

    @pytest.mark.parametrize("name", ["queue", "priority", "task_id", "link"])
    async def test_stamps_that_are_options(self, add, name):
        for stamped in (
            lambda: add.s(1).stamp(**{name: "gold"}),
            lambda: (add.s(1) | add.s(2)).stamp(**{name: "gold"}),
            lambda: add.s(1).link(add.s()).stamp_links(**{name: "gold"}),
            lambda: add.s(1).set(stamps={name: "gold"}),
        ):
            with pytest.raises(ConfigError, match=f"stamp can be called '{name}'"):
                stamped()
        with pytest.raises(ConfigError, match="stamp can be called"):
            await add.s(1).apply_async(stamps={name: "gold"})

    async def test_one_id_for_two(self, add):
        first = add.s(1).set(task_id="T")
        for whole in (
            first | add.s(2).link(add.s().set(task_id="T")),
            group(first, add.s(1).link_error(add.si(1).set(task_id="T"))),
            group([add.s(1).link(add.s().set(task_id="T"))] * 2),
        ):
            with pytest.raises(ConfigError, match="one task_id, 'T'"):
                await whole.delay()
        with pytest.raises(ConfigError, match="one task_id, 'T'"):
            await (first | add.s(2)).apply_async(task_id="T")

    def test_an_errback_of_several_steps_may_have_one(self, queue, add):
        told = add.si(1).set(task_id="T")
        assert queue.compile((add.s(1) | add.s(2)).link_error(told) | add.s(3)).messages
        assert queue.compile((add.s(1) | add.s(2)).set(task_id="X"), task_id="X").result.id == "X"


def group_node(*members):
    return Node("group", "celery.group", subtask_type="group", steps=members)


@pytest.mark.usefixtures("nothing_is_sent")
class TestShapes:
    @pytest.mark.parametrize("place", ["group", "chain", "body", "header", "generator", "alone"])
    async def test_a_chord_without_a_body(self, queue, add, place):
        bare = chord([add.s(1)])
        whole = {
            "group": group(bare, add.s(1)),
            "chain": chain(add.s(1), bare),
            "body": chord([add.s(1)], bare),
            "header": chord([bare, bare], add.s()),
            "generator": group(each for each in [bare]),
            "alone": bare,
        }[place]
        for sent in (whole.delay, whole.apply):
            with pytest.raises(ConfigError, match="needs a body"):
                await sent()
        with pytest.raises(ConfigError, match="needs a body"):
            queue.compile(whole)
        with pytest.raises(ConfigError, match="needs a body"):
            add.s(1).link(whole if place != "generator" else bare)

    @pytest.mark.parametrize("levels", [MAX_DEPTH + 6, 300, 2000])
    async def test_too_deep(self, add, levels):
        deep = add.s(1)
        for _ in range(levels):
            deep = group(deep, add.s(1))
        for whole in (deep, group(each for each in [deep, add.s(1)]), add.s(1) | deep):
            for sent in (whole.delay, whole.apply):
                with pytest.raises(ConfigError, match="nested"):
                    await sent()
        with pytest.raises(ConfigError, match="nested"):
            add.s(1).link(deep)

    @pytest.mark.parametrize("levels", [MAX_DEPTH + 6, 400])
    def test_links_of_links(self, add, levels):
        def linked():
            link = add.s()
            for _ in range(levels):
                link = add.s().link(link)

        with pytest.raises(ConfigError, match="nested"):
            linked()

    async def test_a_line_of_groups(self, add):
        whole = group(add.s(1), add.s(2))
        for _ in range(33):
            whole = whole | add.s() | group(add.s(1), add.s(2))
        with pytest.raises(ConfigError, match=r"self\.replace"):
            await whole.delay()

        def longer():
            longest = whole
            for _ in range(2000):
                longest = longest | add.s() | group(add.s(1), add.s(2))

        with pytest.raises(ConfigError, match=r"self\.replace"):
            longer()

    async def test_a_link_of_what_ends_in_a_group(self, add):
        several = group(add.s(1), add.s(2))
        for whole in (several, add.s(1) | several, chord([add.s(1)], several), chain(add.s(1), several, chain())):
            with pytest.raises(TypeError, match="follow from a group"):
                await whole.apply_async(link=add.s())


@pytest.mark.usefixtures("nothing_is_sent")
class TestArguments:
    async def test_that_are_none(self, queue, add):
        for whole in (add.s(), add.s() | add.s(1)):
            for args, kwargs in (("abc", None), (5, None), ({"x": 1}, None), (None, [1]), (None, "x")):
                for call in (whole.apply_async, whole.apply, whole.clone):
                    with pytest.raises(TypeError, match="arguments of a call of"):
                        await call(args, kwargs)
                with pytest.raises(TypeError, match="arguments of a call of"):
                    queue.compile(whole, args, kwargs)
        for args in ("abc", 5):
            with pytest.raises(TypeError, match="arguments of a call of"):
                signature("w.add", args)
            with pytest.raises(TypeError, match="arguments of a call of"):
                add.signature(args)
        with pytest.raises(ConfigError, match="name of a task"):
            signature("")

    async def test_that_a_task_does_not_take(self, queue, eager_queue, add):
        eager_queue.task(name="w.add")(add.function)
        for whole in (add.signature((1, 2, 3)), add.signature((1, 2, 3)) | add.s(), group(add.signature(()))):
            for call in (whole.delay, whole.apply, signature(whole.to_dict(), app=eager_queue).delay):
                with pytest.raises(TypeError, match="cannot be called so"):
                    await call()
            with pytest.raises(TypeError, match="cannot be called so"):
                queue.compile(whole)

    async def test_that_are_no_lists(self, add):
        for made in (lambda: add.starmap([1, 2]), lambda: add.chunks([1, 2], 2), lambda: add.starmap(["ab"])):
            with pytest.raises(TypeError, match="lists of arguments"):
                made()
        with pytest.raises(TypeError, match="lists of arguments"):
            await add.chunks(iter([1, 2]), 2).delay()

    @pytest.mark.parametrize("serializer", ["yaml", "msgpack"])
    async def test_a_signature_where_nobody_can_write_it(self, add, serializer):
        with pytest.raises(EncodeError, match="to_dict"):
            await add.apply_async((add.s(1),), serializer=serializer)


async def test_none_is_no_arguments(queue, worker):
    add = queue.tasks["w.add"]
    given = {"x": 1, "y": 2}
    for result in (
        await signature("w.add", None, given, app=queue).delay(),
        await add.signature(None, given).delay(),
        await add.s().clone(None, given).delay(),
        await add.s().apply_async(None, given),
        await add.s().apply(None, given),
        await (add.s() | add.s()).apply_async(None, given),
    ):
        assert await soon(result.get()) == 3


@pytest.mark.parametrize("serializer", ["yaml", "msgpack", "json"])
async def test_a_signature_in_the_arguments_of_one(queue, worker, serializer):
    add, echo = queue.tasks["w.add"], queue.tasks["w.echo"]
    queue.conf.accept_content = ["yaml", "msgpack", "json"]
    inner = add.s(1, 2)
    for whole in (echo.s([inner]).set(serializer=serializer), echo.s().clone(([inner],), serializer=serializer)):
        assert await soon((await whole.delay()).get()) == [inner.to_dict()]
    assert await soon((await echo.s().apply_async(([inner],), serializer=serializer)).get()) == [inner.to_dict()]


async def test_in_place_the_same_options_are_refused(queue, eager_queue):
    add = queue.tasks["w.add"]
    eager_queue.task(name="w.add")(add.function)
    for whole in (add.s(1), add.s(1) | add.s(2), group(add.s(1))):
        for call in (whole.apply_async, whole.apply, signature(whole.to_dict(), app=eager_queue).apply_async):
            with pytest.raises(UnknownSettingError, match="quee"):
                await call(quee="x")
            with pytest.raises(ConfigError, match="priority"):
                await call(priority=77)
