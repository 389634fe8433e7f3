"""The main job: 200 calls of an HTTP server that fails half of the time, until every one has got through.

python -m examples.demo [--tasks N] [--url BROKER]

The broker is a file, the worker a process of its own; the task is in examples/demo_tasks.py.
"""

import argparse
import asyncio
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from aioretryq import AioretryqError
from examples.demo_server import FlakyServer
from examples.demo_tasks import place_order, queue
from examples.demo_worker import WorkerFailed, running_worker

console = Console()


@dataclass
class Order:
    """What came of one task."""

    number: int
    latency: float
    attempts: int = 0
    error: str = ""


async def place(server: FlakyServer, number: int) -> Order:
    """Send one task and wait for its result."""
    sent = time.perf_counter()
    try:
        result = await place_order.delay(server.url, number)
        receipt: Any = await result.get(timeout=50, propagate=False)
    except AioretryqError as error:
        receipt = error
    latency = time.perf_counter() - sent
    if isinstance(receipt, BaseException):
        return Order(number, latency, error=repr(receipt))
    if receipt["order"] != number:
        return Order(number, latency, error=f"got the receipt of order {receipt['order']}")
    return Order(number, latency, receipt["attempts"])


async def place_all(server: FlakyServer, count: int) -> list[Order]:
    requests = TextColumn("{task.fields[requests]} requests")
    bar = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), requests, TimeElapsedColumn()
    with Progress(*bar, console=console) as progress:
        orders = progress.add_task("orders", total=count, requests=0)

        async def place_one(number: int) -> Order:
            order = await place(server, number)
            progress.update(orders, advance=1, requests=server.answers.total())
            return order

        return await asyncio.gather(*(place_one(number) for number in range(count)))


def summary(orders: list[Order], server: FlakyServer) -> Table:
    done = [order for order in orders if not order.error]
    attempts = sum(order.attempts for order in done)
    latencies = sorted(order.latency for order in orders)
    p50, p95 = (latencies[int(len(latencies) * share)] for share in (0.50, 0.95))
    answers = ", ".join(f"{count} {mood}" for mood, count in server.answers.most_common())
    table = Table(show_header=False)
    table.add_row("succeeded", f"{len(done)} of {len(orders)}")
    table.add_row("failed", str(len(orders) - len(done)))
    table.add_row("attempts", f"{attempts} (the server counted {server.answers.total()}: {answers})")
    table.add_row("retries", str(attempts - len(done)))
    table.add_row("latency, send to result", f"p50 {p50:.2f} s, p95 {p95:.2f} s")
    return table


def problems(orders: list[Order], server: FlakyServer) -> list[str]:
    """What is not as it should be: failed tasks, or attempts that nobody or somebody else has made."""
    failed = [f"Order {order.number} failed: {order.error}" for order in orders if order.error]
    attempts = sum(order.attempts for order in orders)
    if not failed and attempts != server.answers.total():
        return [f"The tasks say {attempts} attempts, the server {server.answers.total()}."]
    return failed


async def main(count: int, url: str) -> list[str]:
    queue.conf.broker_url = url
    console.print(f"A worker, {count} orders, a server that fails half of the time. Broker: {url}", soft_wrap=True)
    async with (
        FlakyServer().running() as server,
        running_worker("examples.demo_tasks:queue", "-c", "50", "--url", url) as worker,
        queue,
    ):
        orders = await worker.while_alive(place_all(server, count))
    console.print(summary(orders, server))
    return problems(orders, server)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", type=int, default=200, help="how many (default: 200)")
    with tempfile.TemporaryDirectory(prefix="aioretryq-demo-") as folder:
        parser.add_argument("--url", default=f"sqlite:///{folder}/demo.sqlite3", help="broker (default: a new file)")
        options = parser.parse_args()
        if options.tasks < 1:
            parser.error("--tasks must be at least 1")
        try:
            sys.exit("\n".join(asyncio.run(main(options.tasks, options.url))) or 0)
        except WorkerFailed as error:
            sys.exit(str(error))
