"""A user's module, for mypy --strict. Lines that end in `# E: code` have to be flagged with that code, no others."""

from datetime import timedelta
from typing import Any, assert_type

from aioretryq import (
    AsyncResult,
    CommandState,
    GroupResult,
    Signature,
    Task,
    TaskQueue,
    chain,
    chord,
    group,
    shared_task,
    signature,
)

queue = TaskQueue("memory://")


@queue.task
async def add(x: int, y: int = 0) -> int:
    return x + y


@queue.task(max_retries=5, retry_backoff=2)
def render(name: str, *, pages: int) -> bytes:
    return name.encode() * pages


@queue.task(bind=True, autoretry_for=(OSError,))
async def fetch(self: Task[..., Any], url: str) -> dict[str, int]:
    return {url: self.request.retries}


@shared_task
async def shared(flag: bool) -> None:
    return None


@queue.task(name="work.late", base=Task, rate_limit="10/m", time_limit=timedelta(minutes=1), throws=OSError)
async def late(n: int) -> int:
    return n


@queue.task(rate_limt="10/m")  # E: call-overload, untyped-decorator
async def misspelt() -> None: ...


@shared_task(bind=True, max_retries="many")  # E: call-overload, untyped-decorator
async def mistyped(self: Task[..., Any]) -> None: ...


@queue.control_command
async def reload(state: CommandState, n: int = 1) -> dict[str, int]:
    return {state.hostname: n}


@queue.inspect_command(args=[("n", int)])
def biggest(state: CommandState, n: int = 1) -> list[str]:
    return list(state.app.tasks)[:n]


async def use() -> None:
    async with queue:
        result = await add.delay(1, 2)
        assert_type(result, AsyncResult[int])
        assert_type(await result.get(timeout=1), int)
        assert_type(await result, int)
        assert_type(await add(1, 2), int)
        assert_type(render("a", pages=2), bytes)
        assert_type(await (await render.delay("a", pages=2)).get(), bytes)
        assert_type(await (await fetch.delay("u")).get(), dict[str, int])
        await shared.delay(True)
        assert_type(await add.apply_async((1,), countdown=3, queue="slow", link=late), AsyncResult[int])
        await add.apply_async((1,), link=[late.s(), {"task": "app.log"}], link_error=shared.si(True), stamps={"a": 1})
        await queue.send_task("work.late", [1], expires=timedelta(hours=1), chain=[late.s(), add.s(y=2)])

        await add.delay("1", 2)  # E: arg-type
        await add.delay()  # E: call-arg
        await add.delay(1, z=2)  # E: call-arg
        await render.delay("a")  # E: call-arg
        await render.delay("a", 2)  # E: call-arg
        await fetch.delay(3)  # E: arg-type
        await shared.delay("yes")  # E: arg-type
        await add.apply_async((1,), countdwon=3)  # E: call-arg
        await add.apply_async((1,), countdown="soon")  # E: arg-type
        await add.apply_async((1,), link="work.late")  # E: arg-type
        await queue.send_task("work.late", [1], priorty=3)  # E: call-arg
        late.signature((1,), queue=7)  # E: arg-type
        late.si("1")  # E: arg-type
        wrong: str = await (await add.delay(1, 2)).get()  # E: assignment
        assert wrong == add.max_retrys  # E: attr-defined
        add(1, 2).bit_length()  # E: attr-defined


async def use_groups() -> None:
    several = await group(add.s(1, 2))
    assert_type(await several, list[int])
    assert_type(await several.get(propagate=False), list[int | BaseException])
    async for value in several.iterate(timeout=3):
        assert_type(value, int)
    async for done, total in several.progress():
        assert_type((done, total), tuple[int, int])
    await several.revoke(terminate=True, signal="SIGKILL", wait=True)
    await several.revoke(terminated=True)  # E: call-arg


async def compose() -> None:
    async with queue:
        assert_type(add.s(1), Signature[int])
        assert_type(add.s(1) | late.s(), Signature[int])
        assert_type(await (add.s(1) | render.s(pages=2)), AsyncResult[bytes])
        assert_type(await add.s(1).set(queue="slow").link(late.s()).on_error(late), AsyncResult[int])
        assert_type(await add.s(1).apply_async((2,), priority=3), AsyncResult[int])
        assert_type(await group(add.s(1, 2)), GroupResult[int])
        assert_type(await group(add.s(n) for n in range(3)).delay(1), GroupResult[int])
        assert_type(await (await group([add.s(1), late.s(2)])).get(), list[int])
        assert_type(await (late.s(1) | group(add.s(2), late.s())), GroupResult[int])
        assert_type(await (group(add.s(1), late.s(1)) | shared.s()), AsyncResult[None])
        assert_type(await chord([add.s(1), late.s(2)], render.s(pages=3)), AsyncResult[bytes])
        assert_type(await chord([add.s(1), late.s(2)])(render.s(pages=3)), AsyncResult[bytes])
        assert_type(await chord([add.s(1)])(group(render.s(pages=3))), GroupResult[bytes])
        assert_type(await chord([add.s(1)], render.s(pages=3))(), AsyncResult[bytes])
        assert_type(await chain(late.s(1), add.s(2), render.s(pages=1)), AsyncResult[bytes])
        assert_type(await late.map([1, 2]), AsyncResult[list[int]])
        assert_type(await late.chunks([(1,), (2,)], 1).apply_async(), GroupResult[list[int]])
        assert_type(signature("work.late", (1,)), Signature[Any])
        passed: Signature[int] = late.s()
        assert_type(await passed.delay(3), AsyncResult[int])
        either: Signature[Any, Any] = group(passed) | {"task": "work.late"}
        assert_type((await either) if either.immutable else None, Any | None)
        add.s(1).set(immutable="yes")  # E: arg-type
        add.s(1) | 3  # E: operator
        await add.s(1).apply_async(priorty=3)  # E: call-arg
