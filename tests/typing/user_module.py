"""A user's module, for mypy --strict. Lines that end in `# E: code` have to be flagged with that code, no others."""

from typing import Any, assert_type

from aioretryq import AsyncResult, CommandState, Task, TaskQueue, shared_task

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

        await add.delay("1", 2)  # E: arg-type
        await add.delay()  # E: call-arg
        await add.delay(1, z=2)  # E: call-arg
        await render.delay("a")  # E: call-arg
        await render.delay("a", 2)  # E: call-arg
        await fetch.delay(3)  # E: arg-type
        await shared.delay("yes")  # E: arg-type
        wrong: str = await (await add.delay(1, 2)).get()  # E: assignment
        assert wrong == add.max_retrys  # E: attr-defined
        add(1, 2).bit_length()  # E: attr-defined
