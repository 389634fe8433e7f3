"""Mails that cannot be sent: kept as dead letters and sent again later, or forwarded to a queue of one's own.

aioretryq worker examples.dead_letters:queue                    in one terminal
python -m examples.dead_letters                                 in another: both mails fail
aioretryq dead list                                             one is a dead letter...
touch mail_server_is_up
aioretryq dead replay                                           ...and is delivered now
aioretryq worker examples.dead_letters:queue -Q dead_emails     serves what was forwarded, and nothing else
"""

import asyncio
from pathlib import Path
from typing import Any

from aioretryq import ExceptionInfo, Task, TaskQueue

queue = TaskQueue()


def deliver(address: str) -> str:
    """Stands for a mail server that is down until there is a file of that name."""
    if not Path("mail_server_is_up").exists():
        raise ConnectionError(f"no mail server for {address}")
    return f"delivered to {address}"


# Kept: once its retries are used up the message is a dead letter, with its arguments and every attempt's error.
@queue.task(dead_letter=True, autoretry_for=(ConnectionError,), max_retries=2, retry_backoff=0.1)
async def send_mail(address: str) -> str:
    return deliver(address)


# Forwarded: `on_failure` runs once, when no retry is left, and hands what is known to a task in another queue.
class Forwarded(Task[..., Any]):
    async def on_failure(
        self, exc: BaseException, task_id: str, args: Any, kwargs: Any, einfo: ExceptionInfo | None
    ) -> None:
        await failed_mail.delay(self.name, task_id, args, kwargs, error=repr(exc))


@queue.task(base=Forwarded, autoretry_for=(ConnectionError,), max_retries=2, retry_backoff=0.1)
async def send_newsletter(address: str) -> str:
    return deliver(address)


@queue.task(queue="dead_emails")
async def failed_mail(task: str, task_id: str, args: list[Any], kwargs: dict[str, Any], *, error: str) -> None:
    """Runs only where a worker serves its queue: a place to write to a database, or to tell somebody."""
    print(f"{task}[{task_id}] {args} has failed: {error}", flush=True)


async def main() -> None:
    async with queue, asyncio.timeout(60):
        for result in (await send_mail.delay("ann@example.org"), await send_newsletter.delay("bob@example.org")):
            try:
                print(await result)
            except ConnectionError as error:
                print(f"{result.id}: {error}")


if __name__ == "__main__":
    asyncio.run(main())
