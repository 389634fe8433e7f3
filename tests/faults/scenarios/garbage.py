"""Messages that are none, between those that are."""

from __future__ import annotations

import base64
import json
import random
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from aioretryq.message import Outgoing, TaskMessage
from aioretryq.protocol.task import encode_task
from faults.accounting import Figure, Report
from faults.arena import TASK
from faults.scenarios.killed import still_alive

if TYPE_CHECKING:
    from faults.arena import Arena

Kind = Callable[[random.Random], bytes]
BATCH = 200
VERY_LARGE = 4
TIMES_ITS_SIZE = 10
"""What one very large message may take: it is there as it came, decoded, and as a dead letter. Not times how many."""
MEMORY_GROWTH = 40.0
"""MB a worker may grow by over any number of small bad messages."""
LINES = 200
"""Lines its log may have, and one more for each hundred bad messages: a line for each would be far beyond."""


def message(**changes: Any) -> dict[str, Any]:
    """A good one, as the document it travels in."""
    made: dict[str, Any] = json.loads(encode_task(TaskMessage(id=str(uuid.uuid4()), task=f"{TASK}touch"), tag="t"))
    made.update(changes)
    return made


def with_body(value: Any) -> bytes:
    return json.dumps(message(body=base64.b64encode(json.dumps(value).encode()).decode())).encode()


def with_header(name: str, value: Any) -> bytes:
    made = message()
    made["headers"][name] = value
    return json.dumps(made).encode()


def wrong_shape(chance: random.Random) -> bytes:
    shapes: list[Any] = [7, "text", [], [1, 2], {}, None, {"a": 1}, message(headers=[]), message(properties=3)]
    shapes += [message(body=None), message(headers={"task": f"{TASK}touch"}), message(headers={"id": 7, "task": 8})]
    return json.dumps(chance.choice(shapes)).encode()


def type_tricks(chance: random.Random) -> bytes:
    tricks: list[Any] = [
        {"__type__": "os.system", "__value__": "true"},
        {"__type__": "datetime", "__value__": "never"},
        {"__type__": "uuid", "__value__": {"hex": "no"}},
        {"__type__": ["datetime"], "__value__": 1},
        {"__type__": "decimal", "__value__": {"__type__": "bytes", "__value__": 9}},
    ]
    return with_body([[chance.choice(tricks)], {}, {}])


def wrong_content_type(chance: random.Random) -> bytes:
    kinds = ["application/x-python-serialize", "application/x-yaml", "application/x-msgpack", "text/html", "\x00"]
    return json.dumps(message(**{"content-type": chance.choice(kinds)})).encode()


KINDS: dict[str, Kind] = {
    "random bytes": lambda chance: chance.randbytes(chance.randint(0, 400)),
    "JSON of another shape": wrong_shape,
    "a wrong content type": wrong_content_type,
    "tricks with __type__": type_tricks,
    "kwargs that are no mapping": lambda chance: with_body([[], chance.choice([[1], "text", 7, [["a", 1]]]), {}]),
    "an eta that is no date": lambda chance: with_header("eta", chance.choice(["tomorrow", 7, [1], "2026-13-45"])),
}
"""Six kinds; the seventh of the issue, very large ones, are a few."""


def large_body(megabytes: float) -> bytes:
    """JSON that ends too early, of that size before base64."""
    text = b'[["' + b"x" * int(megabytes * 2**20)
    return json.dumps(message(body=base64.b64encode(text).decode())).encode()


def mixture(each: int, chance: random.Random) -> Iterator[bytes]:
    makers = [maker for maker in KINDS.values() for _ in range(each)]
    chance.shuffle(makers)
    return (maker(chance) for maker in makers)


async def inject(arena: Arena, payloads: list[bytes]) -> None:
    """Into the queue, past everything that checks what a sender sends."""
    outgoing = [Outgoing("celery", payload, str(uuid.uuid4())) for payload in payloads]
    await arena.insist(lambda: arena.queue.broker.send(outgoing))


async def garbage(arena: Arena) -> Report:
    """Bad messages of every kind in between good ones, and at last very large ones."""
    (worker,) = await arena.start(1, "-c", "20", "-l", "warning")
    await arena.publish(20, "touch")
    await arena.ended(20)
    before = worker.memory()
    bad = list(mixture(arena.scale.garbage, random.Random(7)))
    good = arena.scale.tasks - 20
    for start in range(0, len(bad), BATCH):
        await inject(arena, bad[start : start + BATCH])
        share = good * min(BATCH, len(bad) - start) // len(bad)
        await arena.publish(share, "touch")
    await arena.publish(arena.scale.tasks - len(arena.published), "touch")
    report = await buried(arena, len(bad))
    report.figures["bad messages"] = Figure(len(bad), None, "")
    report.figures["worker memory grew by"] = Figure(worker.memory() - before, MEMORY_GROWTH, "MB")
    report.figures["lines in its log"] = Figure(len(worker.lines), LINES + len(bad) / 100, "")
    await huge(arena, report, before)
    report.wrong += still_alive([worker])
    return report


async def buried(arena: Arena, count: int) -> Report:
    """Once that many are dead letters and all good ones done."""

    async def enough() -> bool:
        return await arena.queue.broker.dead_count() >= count

    report = await arena.finish()
    if not await arena.until_so(enough):
        found = await arena.insist(arena.queue.broker.dead_count)
        report.wrong.append(f"{found} of {count} bad messages are dead letters")
        return report
    letters = await arena.dead_letters()
    if len(letters) != count:
        report.wrong.append(f"{len(letters)} dead letters, of {count} bad messages")
    if unexplained := sum(not (letter.reason and letter.error) for letter in letters):
        report.wrong.append(f"{unexplained} dead letters say no reason")
    if odd := {reason: n for reason, n in Counter(x.reason for x in letters).items() if reason != "undecodable"}:
        report.wrong.append(f"reasons other than undecodable: {odd}")
    return report


async def huge(arena: Arena, report: Report, before: float) -> None:
    """One after the other: the size of one is what a worker has to bear, times its concurrency."""
    sizes = []
    already = await arena.insist(arena.queue.broker.dead_count)
    for number in range(1, VERY_LARGE + 1):
        await inject(arena, [large_body(arena.scale.large)])

        async def there(number: int = number) -> bool:
            return await arena.queue.broker.dead_count() >= already + number

        if not await arena.until_so(there):
            report.wrong.append(f"a body of {arena.scale.large:g} MB is not a dead letter")
        sizes.append(arena.fleet.members[0].memory())
    report.figures["worker memory after very large ones"] = Figure(
        max(sizes), before + TIMES_ITS_SIZE * arena.scale.large + MEMORY_GROWTH, "MB"
    )
