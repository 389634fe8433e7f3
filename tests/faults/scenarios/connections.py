"""Connections to Redis that are lost one by one, refused, or lead to the wrong server."""

from __future__ import annotations

import asyncio
import random
import time
from itertools import pairwise
from typing import TYPE_CHECKING

import redis

from faults.accounting import Figure, Report
from faults.scenarios.killed import still_alive
from faults.scenarios.network import redis_of, trickle
from redis_server import RedisServer

if TYPE_CHECKING:
    from faults.arena import Arena

RESUMES = 2.0
STOPS_ANYWAY = 10.0
"""Seconds beyond the grace that a stop may take when no server answers."""
SLOW_NETWORK = 0.1


async def client_kill(arena: Arena) -> Report:
    """The server drops connections of workers and senders at random, again and again."""
    place, chance = redis_of(arena), random.Random(3)
    workers = await arena.start(2, "-c", "10")
    lasts = arena.scale.dropped * 0.1
    sending = asyncio.create_task(trickle(arena, arena.scale.tasks, lasts))
    for _ in range(arena.scale.dropped):
        kind = chance.choice(["normal", "pubsub", "normal"])
        place.client.client_kill_filter(_type=kind, skipme=True)
        await asyncio.sleep(0.1)
    healed = time.monotonic()
    await sending
    report = await arena.finish()
    report.figures["longest pause"] = Figure(longest_pause(arena, healed), RESUMES)
    report.figures["errors at the sender"] = Figure(len(arena.refused), 0, "")
    report.wrong += still_alive(workers)
    return report


def longest_pause(arena: Arena, until: float) -> float:
    """Between two starts, while messages were being sent."""
    times = [event.time for event in arena.trace.of("start")]
    pauses = [later - earlier for earlier, later in pairwise(times) if earlier < until]
    return max(pauses, default=0.0)


async def failover(arena: Arena) -> Report:
    """The roles of two servers are swapped: old connections now lead to a replica, new ones to the new master."""
    place = redis_of(arena)
    standby = RedisServer(durable=True)
    standby.start()
    try:
        with redis.Redis.from_url(standby.url, socket_timeout=10) as client:
            client.replicaof("127.0.0.1", place.server.port)
            await arena.need(lambda: client.info("replication")["master_link_status"] == "up", "a replica")
            report = await _swap(arena, standby)
            assert client.info("replication")["role"] == "master"
            return report
    finally:
        standby.close()


async def _swap(arena: Arena, standby: RedisServer) -> Report:
    place = redis_of(arena)
    workers = await arena.start(2, "-c", "10")
    await arena.publish(arena.scale.tasks // 2, "work", 0.1)
    await arena.ended(arena.scale.tasks // 10)
    old = place.client
    sending = asyncio.create_task(trickle(arena, arena.scale.tasks - len(arena.published), 1.0))
    # Nothing is lost by this command: it waits until the replica has everything, and only then swaps the roles.
    old.execute_command("FAILOVER", "TO", "127.0.0.1", str(standby.port))
    await arena.need(lambda: old.info("replication")["role"] == "slave", "the roles swapped")
    place.lead_to(standby)
    healed = time.monotonic()
    await sending
    report = await arena.finish()
    fresh = [event.time for event in arena.trace.of("start") if event.time > healed]
    report.figures["work goes on after"] = Figure(min(fresh, default=healed) - healed, RESUMES)
    report.figures["errors at the sender"] = Figure(len(arena.refused), 0, "")
    report.wrong += still_alive(workers)
    return report


async def without_data(arena: Arena) -> Report:
    """The server loses everything it had. That is beyond us; what is sent afterwards is not."""
    place = redis_of(arena)
    workers = await arena.start(2, "-c", "10")
    await arena.publish(20, "work", 0.2)
    await arena.started(20)
    place.client.flushall()
    arena.published = []
    flushed = time.monotonic()
    await arena.publish(arena.scale.tasks, "work", 0.02)
    report = await arena.finish()
    fresh = [event.time for event in arena.trace.of("start") if event.time > flushed]
    report.figures["work goes on after"] = Figure(min(fresh, default=flushed) - flushed, RESUMES)
    report.wrong += still_alive(workers)
    return report


async def loading(arena: Arena) -> Report:
    """The server comes back, and says for a while that it is still loading."""
    place = redis_of(arena)
    workers = await arena.start(2, "-c", "10")
    await arena.publish(arena.scale.tasks, "work", 0.2)
    await arena.ended(arena.scale.tasks // 10)
    place.server.kill()
    # Slowed down so that it takes about as long as an outage: it looks up for clients every kilobyte.
    slowly = ("--key-load-delay", "2000", "--loading-process-events-interval-bytes", "1024")
    await asyncio.to_thread(place.server.start, *slowly)
    healed = time.monotonic()
    report = await arena.finish()
    fresh = [event.time for event in arena.trace.of("start") if event.time > healed]
    report.figures["work goes on after"] = Figure(min(fresh, default=healed) - healed, RESUMES)
    report.wrong += still_alive(workers)
    return report


async def full_server(arena: Arena) -> Report:
    """All connections are dropped, and the server takes no more of them for a while."""
    place = redis_of(arena)
    workers = await arena.start(2, "-c", "10")
    await arena.publish(arena.scale.tasks // 2, "work", 0.1)
    await arena.ended(arena.scale.tasks // 10)
    place.client.config_set("maxclients", 1)
    for kind in ("normal", "pubsub"):
        place.client.client_kill_filter(_type=kind, skipme=True)
    sending = asyncio.create_task(trickle(arena, arena.scale.tasks - len(arena.published), arena.scale.cut))
    await asyncio.sleep(arena.scale.cut)
    place.client.config_set("maxclients", 10_000)
    healed = time.monotonic()
    await sending
    report = await arena.finish()
    fresh = [event.time for event in arena.trace.of("start") if event.time > healed]
    report.figures["work goes on after"] = Figure(min(fresh, default=healed) - healed, RESUMES)
    report.figures["errors at the sender"] = Figure(len(arena.refused), 0, "")
    report.wrong += still_alive(workers)
    return report


async def late_server(arena: Arena) -> Report:
    """Workers are started before the server can be reached."""
    place = redis_of(arena)
    await arena.publish(arena.scale.tasks, "work", 0.02)
    place.network.cut()
    workers = [arena.fleet.launch("-c", "10") for _ in range(2)]
    for worker in workers:
        await arena.hear(worker, "Cannot reach")
    await asyncio.sleep(arena.scale.killed)
    place.network.heal()
    healed = time.monotonic()
    report = await arena.finish()
    begun = [event.time for event in arena.trace.of("start")]
    report.figures["work begins after"] = Figure(min(begun, default=healed) - healed, RESUMES)
    report.wrong += still_alive(workers)
    return report


async def silent_stop(arena: Arena) -> Report:
    """A worker is told to stop while nothing answers it any more."""
    place, slots = redis_of(arena), 10
    (worker,) = await arena.start(1, "-c", str(slots), "--grace", f"{arena.scale.grace:g}")
    await arena.publish(arena.scale.tasks, "work", 0.3)
    await arena.ended(slots)
    place.network.black_hole()
    arena.excuse(worker)
    told = time.monotonic()
    worker.term()
    code = await arena.end_of(worker)
    gone = time.monotonic() - told
    place.network.heal()
    await arena.reconnect()
    await arena.start(1, "-c", "50")
    report = await arena.finish()
    report.figures["exit after"] = Figure(gone, arena.scale.grace + STOPS_ANYWAY)
    if code != 0:
        report.wrong.append(f"exit code {code}")
    return report


async def slow_network(arena: Arena) -> Report:
    """Each packet takes a tenth of a second: nothing is wrong, and nothing may be taken for wrong."""
    place = redis_of(arena)
    workers = await arena.start(2, "-c", "10")
    place.network.delay(SLOW_NETWORK)
    connections = place.network.accepted
    await arena.publish(arena.scale.tasks, "work", 0.2)
    report = await arena.finish()
    report.figures["connections made anew"] = Figure(place.network.accepted - connections, 10, "")
    report.figures["errors at the sender"] = Figure(len(arena.refused), 0, "")
    report.wrong += still_alive(workers)
    return report
