"""Sends tasks to the worker of examples.quickstart and waits for all their results.

python -m examples.quickstart_client [N]
"""

import asyncio
import sys
import time
import zlib

from aioretryq import ResultTimeout
from examples.quickstart import add, checksum, fetch, queue


async def add_numbers(number: int) -> bool:
    result = await add.delay(number, 1)
    return await result.get(timeout=60) == number + 1


async def fetch_page(number: int) -> bool:
    result = await fetch.delay(number)
    return await result.get(timeout=60) == f"page {number}"


async def check_text(number: int) -> bool:
    result = await checksum.delay(f"text {number}")
    return await result.get(timeout=60) == zlib.crc32(f"text {number}".encode())


async def main(count: int) -> None:
    calls = (add_numbers, fetch_page, check_text)
    began = time.perf_counter()
    async with queue:
        right = await asyncio.gather(*(calls[number % 3](number) for number in range(count)))
    seconds = time.perf_counter() - began
    print(f"{len(right)} results in {seconds:.2f} s ({len(right) / seconds:.0f} tasks/s), {sum(right)} of them right")
    sys.exit(0 if all(right) else 1)


if __name__ == "__main__":
    try:
        asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000))
    except ResultTimeout as error:
        sys.exit(f"{error}\nIs `aioretryq worker examples.quickstart:queue` running, in this folder?")
