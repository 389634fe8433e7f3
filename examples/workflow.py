"""A workflow: files are read one by one, their lines counted, and a report is made of them all.

aioretryq worker examples.workflow:queue       in one terminal
python -m examples.workflow                    in another

While it runs, `aioretryq workflow ID` shows it in a third one; the ID is printed first.
"""

import asyncio

from aioretryq import TaskQueue, TaskRevokedError, group

queue = TaskQueue(task_track_started=True)


@queue.task
async def list_files(count: int) -> list[str]:
    return [f"file{number}.csv" for number in range(count)]


@queue.task(autoretry_for=(OSError,), retry_backoff=True)
async def count_lines(seconds: float, name: str) -> int:
    await asyncio.sleep(seconds)
    return 10 * len(name)


@queue.task
async def report(counts: list[int], title: str) -> str:
    return f"{title}: {sum(counts)} lines in {len(counts)} files"


@queue.task
async def tell_team(text: str) -> str:
    return f"sent: {text}"


@queue.task
async def sound_alarm(task_id: str) -> None:
    print("The report", task_id, "was not made.")


async def main() -> None:
    async with queue, asyncio.timeout(60):
        names = await (await list_files.delay(12))
        reading = group(count_lines.s(0.1, name) for name in names)
        workflow = reading | report.s("today").on_error(sound_alarm.s()) | tell_team.s()

        # All of it is sent at once; the result is that of the last step, and knows those before it.
        result = await workflow.delay()
        print("workflow", result.id)
        async for done, total in result.progress():
            print(f"{done} of {total} calls")
        print(await result)
        print(await result.draw())

        # A workflow is cancelled as a whole: what runs is stopped, what waits is never run.
        slow = await (group(count_lines.s(60, name) for name in names) | report.s("never") | tell_team.s()).delay()
        await slow.cancel()
        try:
            await slow
        except TaskRevokedError:
            print("cancelled:", await slow.status())


if __name__ == "__main__":
    try:
        asyncio.run(main())
    except TimeoutError:
        raise SystemExit("Is `aioretryq worker examples.workflow:queue` running, in this folder?") from None
