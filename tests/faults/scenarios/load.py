"""Faults while thousands of tasks that do nothing rush by: settlements travel in batches with their results, messages
wait in the worker, and calls are sent by the hundred. What is counted is the same, and each result beside it."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from typing import TYPE_CHECKING, Any

from aioretryq.errors import PartlySent
from faults.accounting import Figure, Report
from faults.places import RedisPlace
from faults.scenarios.killed import still_alive
from faults.scenarios.network import OUTAGES, redis_of

if TYPE_CHECKING:
    from faults.arena import Arena

SLOTS = ("-c", "100", "-l", "warning")
META = "celery-task-meta-"
LOST_ANSWERS = 5
"""Times."""
DROPS = 5
SLOW = 0.02
"""Seconds by which each piece of what is sent arrives later."""
SCRIPTS = 0.2
"""For each task, at most: with more there are no batches, and nothing was shown."""


class Announcements:
    """How often the server has told of each result: it keeps what a subscriber has not read yet."""

    def __init__(self, place: RedisPlace) -> None:
        self._client = place.client
        self._heard = place.client.pubsub(ignore_subscribe_messages=True)
        self._heard.psubscribe(f"{META}*")
        self._heard.get_message(timeout=10)

    def read(self) -> Counter[str]:
        """All up to now. Only once."""
        self._client.publish(f"{META}end", "")
        told: Counter[str] = Counter()
        while True:
            message = self._heard.get_message(timeout=10)
            assert message is not None, "the server has forgotten us"
            task_id = message["channel"].decode().removeprefix(META)
            if task_id == "end":
                self._heard.close()
                return told
            told[task_id] += 1


def stored(place: RedisPlace, ids: list[str]) -> dict[str, Any]:
    """The documents in the storage, of those that have one."""
    values = place.client.mget([META + task_id for task_id in ids])
    return {task_id: json.loads(value) for task_id, value in zip(ids, values, strict=True) if value}


async def judged(arena: Arena, told: Announcements | None = None) -> Report:
    """The count at the end, and that of the results."""
    report = await arena.finish()
    report.figures["errors at the sender"] = Figure(len(arena.refused), 0, "")
    if not isinstance(arena.place, RedisPlace):
        return report
    scripts = arena.place.client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
    report.figures["scripts a task"] = Figure(scripts / len(arena.published), SCRIPTS, "")
    states = Counter(document["status"] for document in stored(arena.place, arena.published).values())
    if states != {"SUCCESS": len(arena.published)}:
        report.wrong.append(f"of {len(arena.published)} results there are {dict(states)}")
    if told is not None:
        counts = Counter(told.read().values())
        if counts != {1: len(arena.published)}:
            report.wrong.append(f"results were announced so many times: {dict(counts)}")
    return report


async def sigkill(arena: Arena) -> Report:
    """One of two workers is killed in the middle."""
    told = Announcements(arena.place) if isinstance(arena.place, RedisPlace) else None
    victim, other = await arena.start(2, *SLOTS)
    sending = asyncio.create_task(arena.send_many(arena.scale.load))
    await arena.ended(arena.scale.load // 4)
    await arena.kill(victim)
    await sending
    report = await judged(arena, told)
    report.wrong += still_alive([other])
    return report


async def sigterm(arena: Arena) -> Report:
    """The only worker is told to stop in the middle, and another one goes on: nothing is begun twice."""
    (worker,) = await arena.start(1, *SLOTS)
    await arena.send_many(arena.scale.load)
    await arena.ended(arena.scale.load // 4)
    worker.term()
    code = await arena.end_of(worker)
    contents = arena.place.look()
    ended = arena.trace.read().ends.total()
    await arena.start(1, *SLOTS)
    report = await judged(arena)
    report.figures["left to the next worker"] = Figure(len(contents.waiting), None, "")
    if contents.held or contents.parked or len(contents.waiting) + ended != arena.scale.load:
        found = f"{len(contents.waiting)} wait, {len(contents.held)} are held, {ended} are done"
        report.wrong.append(f"after the exit {found}")
    if not contents.waiting:
        report.wrong.append("everything was done before the stop: nothing was shown")
    begun = arena.trace.of("start")
    if len(begun) != arena.scale.load:
        report.wrong.append(f"{len(begun)} runs of {arena.scale.load} tasks")
    if counted := sum(event.deliveries > 1 for event in begun):
        report.wrong.append(f"{counted} have a delivery more")
    if code != 0:
        report.wrong.append(f"exit code {code}")
    return report


async def frozen_worker(arena: Arena) -> Report:
    """One of two workers stands still in the middle for longer than its leases, then goes on with batches of results
    that are not its own any more."""
    place = redis_of(arena)
    told = Announcements(place)
    victim, other = await arena.start(2, *SLOTS)
    sending = asyncio.create_task(arena.send_many(arena.scale.load))
    await arena.ended(arena.scale.load // 4)
    victim.freeze()
    arena.excuse(victim)
    held = arena.place.look().held
    await sending
    await arena.need(lambda: not arena.place.look().all, "what the frozen one had is done by the other")
    before = stored(place, arena.published)
    victim.thaw()
    victim.term()
    code = await arena.end_of(victim)
    report = await judged(arena, told)
    report.figures["held by the frozen one, at most"] = Figure(len(held), None, "")
    if stored(place, arena.published) != before:
        report.wrong.append("the worker that came back has changed results")
    if code != 0:
        report.wrong.append(f"exit code {code}")
    report.wrong += still_alive([other])
    return report


async def outage(arena: Arena, kind: str) -> Report:
    """The server is away in the middle, while calls are being sent, too. It loses nothing that it has confirmed."""
    fault, place = OUTAGES[kind], redis_of(arena)
    workers = await arena.start(2, *SLOTS)
    await arena.send_many(arena.scale.load // 2)
    await arena.ended(arena.scale.load // 8)
    sending = asyncio.create_task(arena.send_many(arena.scale.load // 2))
    await asyncio.to_thread(fault.begin, place)
    await asyncio.sleep(fault.lasts(arena.scale))
    await asyncio.to_thread(fault.end, place)
    await sending
    report = await judged(arena)
    report.wrong += still_alive(workers)
    return report


async def lost_answers(arena: Arena) -> Report:
    """The server does what it is asked, and then connections break before anybody hears of it, again and again:
    batches of settlements are repeated, and claims, and calls on their way."""
    place = redis_of(arena)
    told = Announcements(place)
    workers = await arena.start(2, *SLOTS)
    sending = asyncio.create_task(arena.send_many(arena.scale.load))
    for time in range(1, LOST_ANSWERS + 1):
        await arena.ended(arena.scale.load * time // (LOST_ANSWERS + 2))
        await arena.need(lambda: place.network.connections >= len(workers), "connections made anew")
        before = place.network.unheard
        place.network.deafen()
        await arena.need(lambda before=before: place.network.unheard > before, "an answer that is lost")
        place.network.drop()
    await sending
    report = await judged(arena, told)
    report.wrong += still_alive(workers)
    return report


async def sending_cut(arena: Arena) -> Report:
    """Connections break while very many calls are sent; the last time the sender does not wait until they are back,
    and is told the truth about what it has sent. Nobody takes anything meanwhile, so all can be counted."""
    place = redis_of(arena)
    count = arena.scale.load

    def waiting() -> list[str]:
        return place.look().waiting

    place.network.delay(SLOW)  # or all would be there before a connection can break
    sending = asyncio.create_task(arena.send_many(count))
    for time in range(1, DROPS + 1):
        await arena.need(lambda time=time: len(waiting()) >= count * time // (DROPS + 2), "calls that have arrived")
        place.network.drop()
    await sending
    once, wrong = waiting(), []
    if sorted(once) != sorted(arena.published):
        wrong.append(f"{len(once)} messages of {len(set(once))} tasks are there, {len(arena.published)} were sent")
    arena.queue = await arena.sender(task_publish_wait=0.0, task_publish_timeout=1.0)
    sending = asyncio.create_task(arena.send_many(count))
    await arena.need(lambda: len(waiting()) >= count + count // 4, "calls that have arrived")
    place.network.cut()
    await sending
    place.network.heal()
    (told,) = arena.refused
    arena.refused.clear()
    assert isinstance(told, PartlySent)
    wrong += against(told, Counter(waiting()[count:]))
    arena.published = list(dict.fromkeys(waiting()))
    await arena.start(1, *SLOTS)
    report = await judged(arena)
    report.wrong += wrong
    return report


def against(told: PartlySent, there: Counter[str]) -> list[str]:
    """What was told, against what has arrived."""
    wrong = []
    if missing := sum(result.task_id not in there for result in told.results):
        wrong.append(f"{missing} that were said to be sent are not there")
    if twice := sum(number > 1 for number in there.values()):
        wrong.append(f"{twice} are there twice")
    if len(told.results) + len(told.failed) != told.tried:
        wrong.append(f"{told.tried} were tried, {len(told.results)} sent and {len(told.failed)} not")
    more = len(there) - len(told.results)
    if more > sum(getattr(error, "maybe_sent", False) for error in told.failed.values()):
        wrong.append(f"{more} are there that were said not to be sent")
    return wrong
