"""What a result can do: wait for many, follow the progress of one, handle a failure.

aioretryq worker examples.script:queue      in one terminal
python -m examples.script                   in another
"""

import asyncio
from typing import Any

from aioretryq import ResultTimeout, Task, TaskQueue

queue = TaskQueue(task_track_started=True)


@queue.task
async def square(number: int) -> int:
    return number * number


@queue.task(bind=True)
async def import_rows(self: Task[..., Any], rows: int) -> int:
    for done in range(0, rows, 10):
        await self.update_state(state="PROGRESS", meta={"done": done, "rows": rows})
        await asyncio.sleep(0.1)
    return rows


@queue.task
async def divide(x: float, y: float) -> float:
    return x / y


async def main() -> None:
    async with queue, asyncio.timeout(60):
        # Send many, wait for all.
        sent = await asyncio.gather(*(square.delay(number) for number in range(10)))
        print("squares:", await asyncio.gather(*sent))

        # Follow one.
        result = await import_rows.delay(50)
        async for update in result.updates():
            print("import:", update.status, update.result)

        # A failure is raised here as the exception it was there...
        broken = await divide.delay(1, 0)
        try:
            await broken
        except ZeroDivisionError as error:
            print("divide:", repr(error))
        # ...and can be looked at without being raised.
        print("divide:", await broken.status(), await broken.get(propagate=False))

        # Waiting has an end when you say so; the task does not notice.
        slow = await import_rows.delay(1000)
        try:
            await slow.get(timeout=0.2)
        except ResultTimeout:
            await slow.revoke(terminate=True)
            print("slow import:", await slow.status())


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except TimeoutError:
        raise SystemExit("Is `aioretryq worker examples.script:queue` running, in this folder?") from None
