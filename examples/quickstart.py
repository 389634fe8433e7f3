"""Three tasks. Start a worker for them:

aioretryq worker examples.quickstart:queue
"""

import asyncio
import random
import zlib

from aioretryq import TaskQueue

queue = TaskQueue()  # AIORETRYQ_URL, or an SQLite file in this folder: no server needed


@queue.task
async def add(x: int, y: int) -> int:
    return x + y


@queue.task(autoretry_for=(ConnectionError,), max_retries=10, retry_backoff=0.2, retry_jitter=True)
async def fetch(number: int) -> str:
    """Fails now and then, as networks do, and is tried again after up to 0.2 s, 0.4 s, 0.8 s, ..."""
    await asyncio.sleep(0.01)
    if random.random() < 0.1:
        raise ConnectionError("the other side has hung up")
    return f"page {number}"


@queue.task
def checksum(text: str) -> int:
    """A plain function: it runs in a thread, so it may block."""
    return zlib.crc32(text.encode())
