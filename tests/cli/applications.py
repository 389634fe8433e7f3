"""What the command line is pointed at in these tests."""

from aioretryq import TaskQueue

queue = TaskQueue("memory://")
not_a_queue = "something else"


@queue.task(autoretry_for=(ConnectionError,), retry_backoff=2, retry_backoff_max=20, max_retries=5)
async def fetch(url: str) -> str:
    return url


@queue.task(max_retries=None, default_retry_delay=7, acks_late=False)
def for_ever() -> None:
    return None
