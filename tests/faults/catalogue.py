"""Every fault of the suite by name, and how to run one."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Awaitable, Callable
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from faults.arena import Arena, Scale
from faults.places import Place, RedisPlace, SQLitePlace
from faults.scenarios import connections, crashes, garbage, killed, load, memory, network, slow

if TYPE_CHECKING:
    from collections.abc import Iterator

    from faults.accounting import Report

BOTH = ("redis", "sqlite")
REDIS = ("redis",)


@dataclass(frozen=True, slots=True)
class Case:
    """`title` is what the table says; `settings` are those of the workers beside the lease. What is not `quick` takes
    long even when it is small, and is left to `make soak`."""

    name: str
    title: str
    run: Callable[[Arena], Awaitable[Report]]
    places: tuple[str, ...] = BOTH
    settings: dict[str, Any] = field(default_factory=dict)
    quick: bool = True


def _outages() -> list[Case]:
    titles = {
        "killed": "Redis killed",
        "frozen": "Redis frozen",
        "cut": "connections cut",
        "half-open": "half-open connections",
    }
    made = []
    for kind, title in titles.items():
        made += [
            Case(kind, f"{title}, under load", functools.partial(network.outage, kind=kind), REDIS),
            Case(
                f"wait-{kind}",
                f"waits for results: {title}",
                functools.partial(network.waiters, kind=kind),
                REDIS,
                quick=kind in ("killed", "half-open"),
            ),
        ]
    return made


CASES = {
    case.name: case
    for case in (
        Case("sigkill", "SIGKILL of a worker, idle queue", killed.sigkill),
        Case("sigkill-alone", "SIGKILL of the only worker, another one later", killed.sigkill_alone),
        Case("sigkill-busy", "SIGKILL of workers, three times, busy queue", killed.sigkill_busy),
        Case("sigterm", "SIGTERM, 20 s tasks, short grace", killed.sigterm),
        Case("deploys", "ten SIGTERMs during one task", killed.deploys, quick=False),
        Case("frozen-worker", "worker frozen beyond its lease", killed.frozen_worker),
        *_outages(),
        Case("late-riser", "Redis frozen, and one worker notices late that it is back", network.late_riser, REDIS),
        Case("client-kill", "CLIENT KILL, again and again", connections.client_kill, REDIS),
        Case("failover", "failover to a replica (READONLY)", connections.failover, REDIS),
        Case("loading", "Redis killed, and slow to load its data", connections.loading, REDIS),
        Case("no-data", "Redis loses all data (FLUSHALL)", connections.without_data, REDIS),
        Case("full-server", "maximum number of clients reached", connections.full_server, REDIS),
        Case("late-server", "workers started before the server", connections.late_server, REDIS),
        Case("silent-stop", "SIGTERM while nothing answers", connections.silent_stop, REDIS, quick=False),
        Case("slow-network", "0.1 s for each packet", connections.slow_network, REDIS, quick=False),
        Case("before-ack", "killed between result and acknowledgement", crashes.before_acknowledgement, REDIS),
        Case("with-a-claim", "frozen while messages come, then killed", crashes.killed_with_a_claim),
        Case("poison", "a task that kills its worker", killed.poison),
        Case("poison-at-once", "the same, and at once", killed.poison_among_others, quick=False),
        Case("long", "tasks longer than the lease", slow.long_tasks),
        Case("countdowns", "countdowns longer than the lease", slow.countdowns),
        Case("same-id", "the same id sent 20 times", slow.same_id),
        Case("parked", "parked tasks and the worker's memory", slow.parked),
        Case("blocked", "loop blocked for two leases", slow.blocked_loop),
        Case("garbage", "malformed messages of six kinds, and a huge one", garbage.garbage),
        Case("load-sigkill", "thousands a second: SIGKILL of a worker", load.sigkill),
        Case("load-sigterm", "thousands a second: SIGTERM", load.sigterm),
        Case("load-frozen-worker", "thousands a second: a worker frozen beyond its lease", load.frozen_worker, REDIS),
        *(
            Case(f"load-{kind}", f"thousands a second: {title}", functools.partial(load.outage, kind=kind), REDIS)
            for kind, title in (("killed", "Redis killed"), ("frozen", "Redis frozen"))
        ),
        Case("load-lost-answers", "thousands a second: answers lost", load.lost_answers, REDIS),
        Case("load-sending", "thousands sent while connections are cut", load.sending_cut, REDIS),
        Case("full-queue", "a long queue and the worker's memory", memory.full_queue),
    )
}


@contextmanager
def open_place(name: str, folder: Path) -> Iterator[Place]:
    place: Place = RedisPlace() if name == "redis" else SQLitePlace(folder)
    try:
        yield place
    finally:
        place.close()


async def run(case: Case, place_name: str, scale: Scale) -> Report:
    """One round in a place of its own."""
    with tempfile.TemporaryDirectory(prefix="faults-") as name, open_place(place_name, Path(name)) as place:
        async with Arena(place, Path(name), scale, dict(case.settings)) as arena:
            report = await case.run(arena)
            if report.problems():
                report.log = arena.fleet.output
            return report
