"""Random faults for a while: `python -m faults.soak --seconds 600 --seed 7`, from the folder `tests`.

A seed gives the same faults in the same order; when exactly they strike is up to the machine.
"""

from __future__ import annotations

import asyncio
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click

from faults.accounting import Accounting, Figure, Report
from faults.arena import Arena, Scale
from faults.catalogue import open_place
from faults.places import RedisPlace
from faults.scenarios.garbage import inject, mixture
from faults.scenarios.network import OUTAGES
from faults.trace import Event
from faults.workers import WorkerProcess

LEASE = 3.0
FLEET = 3
SLOTS = "20"
PER_SECOND = 60
"""Tasks that are sent, all the time."""
BURST, BURST_EVERY = 500, 2.0
"""Tasks that do nothing, beside those, and seconds between two such lots: these travel in batches."""
CALM = (0.5, 3.0)
"""Seconds between two faults, from and to."""
OPTIONS = ("-c", SLOTS, "-l", "warning", "--grace", "1")
PATIENCE = 120.0

Fault = Callable[[], Awaitable[str]]


@dataclass(frozen=True, slots=True)
class Stranded:
    """What a worker had when it fell silent."""

    pid: int
    ids: set[str]
    since: float
    why: str

    def begun_again(self, events: list[Event]) -> float:
        """Seconds until the last of what had to be was begun by another; 0 if all was settled already."""
        again: dict[str, float] = {}
        for event in events:
            if (
                event.kind == "start"
                and event.time > self.since
                and event.pid != self.pid
                and event.task_id in self.ids
            ):
                again.setdefault(event.task_id, event.time - self.since)
        return max(again.values(), default=0.0)


@dataclass(slots=True)
class Soak:
    """One run in one place. `story` says what was done to it, with the seconds since the beginning."""

    arena: Arena
    chance: random.Random
    begun: float = field(default_factory=time.monotonic)
    bad: int = 0
    fatal: int = 0
    recoveries: list[tuple[float, str]] = field(default_factory=list)
    stranded: list[Stranded] = field(default_factory=list)
    story: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    _going: bool = True
    _settled: bool = False

    async def run(self, seconds: float) -> Report:
        await self._employ(FLEET)
        sending = asyncio.gather(self._send(), self._send_bursts())
        looking = asyncio.create_task(self._look_after_workers())
        while time.monotonic() - self.begun < seconds:
            await asyncio.sleep(self.chance.uniform(*CALM))
            await self._one_fault()
        self._going = False
        await sending
        report = await self._finish()
        await looking
        for stranded in self.stranded:
            self.recoveries.append((stranded.begun_again(self.arena.trace.events), stranded.why))
        longest, what = max(self.recoveries, default=(0.0, "nothing"))
        report.figures[f"longest recovery (after {what})"] = Figure(longest)
        report.figures["faults"] = Figure(len(self.story), None, "")
        report.figures["bad messages"] = Figure(self.bad, None, "")
        report.figures["dead letters beside the tasks that kill"] = Figure(
            report.accounting.dead - self.fatal, None, ""
        )
        report.figures["errors at the sender"] = Figure(len(self.arena.refused), 0, "")
        report.wrong += self.wrong
        return report

    async def _one_fault(self) -> None:
        fault = self.chance.choice(self._faults())
        begun = time.monotonic() - self.begun
        what = await fault()
        healed = time.monotonic()
        seen = len(self.arena.trace.read().events)

        def goes_on() -> bool:
            return any(event.kind == "start" for event in self.arena.trace.read().events[seen:])

        if not await self.arena.until(goes_on, timeout=PATIENCE):
            self.wrong.append(f"nothing was begun within {PATIENCE:.0f} s after {what}")
        took = time.monotonic() - healed
        self.recoveries.append((took, what))
        self.story.append(f"{begun:7.1f} s  {what}, on again after {took:.2f} s")

    # -- the workers

    async def _employ(self, count: int) -> None:
        await self.arena.start(count, *OPTIONS)

    async def _look_after_workers(self) -> None:
        """Those that a task has killed are replaced, as by a supervisor; none may end otherwise."""
        while self._going or not self._settled:
            for worker in [each for each in self.arena.fleet.members if not each.alive and not each.told_to_end]:
                worker.told_to_end = True
                self.arena.excuse(worker)
                if worker.exit_code != -signal.SIGKILL:
                    self.wrong.append(f"a worker ended by itself with {worker.exit_code}: {worker.output[-2000:]}")
                await self._employ(1)
            await asyncio.sleep(0.1)

    # -- the load

    async def _send(self) -> None:
        """A mixture of what tasks can be. Nobody waits for the one before: in an outage they pile up."""
        chance = random.Random(self.chance.random())
        sends: set[asyncio.Task[Any]] = set()
        while self._going:
            sends.add(asyncio.create_task(self._send_one(chance)))
            sends = {sent for sent in sends if not sent.done()}
            await asyncio.sleep(1 / PER_SECOND)
        await asyncio.gather(*sends)

    async def _send_bursts(self) -> None:
        while self._going:
            await self.arena.send_many(BURST)
            await asyncio.sleep(BURST_EVERY)

    async def _send_one(self, chance: random.Random) -> None:
        dice = chance.random()
        seconds = chance.choice([0.0, 0.01, 0.1, 0.5])
        if dice < 0.70:
            await self.arena.send("work", seconds)
        elif dice < 0.80:
            await self.arena.send("work_in_thread", seconds)
        elif dice < 0.90:
            await self.arena.send("fail_twice")
        elif dice < 0.999:
            await self.arena.send("work", seconds, countdown=chance.uniform(0, 2 * LEASE))
        else:
            await self.arena.send("work", 2.5 * LEASE)

    # -- the faults

    def _faults(self) -> list[Fault]:
        processes: list[Fault] = [self.kill, self.kill, self.kill, self.freeze, self.freeze, self.term, self.term]
        processes += [self.garbage, self.garbage, self.poison]
        if isinstance(self.arena.place, RedisPlace):
            return [*processes, *[self.outage] * 8, self.drop, self.drop]
        return processes

    async def _victim(self) -> WorkerProcess:
        def ready() -> list[WorkerProcess]:
            return [worker for worker in self.arena.fleet.alive if worker.is_ready]

        await self.arena.need(lambda: bool(ready()), "a worker")
        return self.chance.choice(ready())

    async def kill(self) -> str:
        worker = await self._victim()
        await self.arena.kill(worker)
        self._strand(worker, "SIGKILL")
        await self._employ(1)
        return "SIGKILL"

    async def term(self) -> str:
        worker = await self._victim()
        worker.term()
        code = await asyncio.to_thread(worker.wait, PATIENCE)
        if code != 0:
            self.wrong.append(f"exit code {code} after SIGTERM: {worker.output[-2000:]}")
        await self._employ(1)
        return "SIGTERM"

    async def freeze(self) -> str:
        worker, seconds = await self._victim(), self.chance.uniform(0.2, 2.5 * LEASE)
        worker.freeze()
        what = f"SIGSTOP for {seconds:.1f} s"
        if seconds > LEASE / 2:  # its leases may have been a while old
            self.arena.excuse(worker)
            self._strand(worker, what)
        await asyncio.sleep(seconds)
        worker.thaw()
        return what

    def _strand(self, worker: WorkerProcess, why: str) -> None:
        _, held = self.arena.suspects[-1]
        began = held & {event.task_id for event in self.arena.trace.read().events if event.pid == worker.pid}
        self.stranded.append(Stranded(worker.pid, began, time.monotonic(), why))

    async def poison(self) -> str:
        """A task that kills its worker, up to three of them; until the next fault or beyond."""
        self.fatal += await self.arena.send("kill_worker", self.chance.uniform(0, 0.5)) is not None
        return "a task that kills its worker"

    async def garbage(self) -> str:
        bad = list(mixture(self.chance.randint(1, 20), self.chance))
        await inject(self.arena, bad)
        self.bad += len(bad)
        return f"{len(bad)} bad messages"

    async def outage(self) -> str:
        place, kind = self.arena.place, self.chance.choice(list(OUTAGES))
        assert isinstance(place, RedisPlace)
        seconds = self.chance.uniform(0.2, 2.5 * LEASE)
        OUTAGES[kind].begin(place)
        await asyncio.sleep(seconds)
        await asyncio.to_thread(OUTAGES[kind].end, place)
        return f"Redis {kind} for {seconds:.1f} s"

    async def drop(self) -> str:
        assert isinstance(self.arena.place, RedisPlace)
        self.arena.place.network.drop()
        return "all connections dropped"

    # -- the end

    async def _finish(self) -> Report:
        report = await self.arena.finish()
        self._settled = True
        letters = [letter for letter in await self.arena.dead_letters() if letter.reason == "undecodable"]
        if len(letters) != self.bad:
            self.wrong.append(f"{len(letters)} undecodable dead letters of {self.bad} bad messages")
        return report


async def soak(place_name: str, seconds: float, seed: int) -> tuple[Report, Soak]:
    with tempfile.TemporaryDirectory(prefix="soak-") as name, open_place(place_name, Path(name)) as place:
        async with Arena(place, Path(name), Scale(lease=LEASE, patience=PATIENCE)) as arena:
            going = Soak(arena, random.Random(f"{seed}-{place_name}"))
            return await going.run(seconds), going


def summary(name: str, seed: int, report: Report) -> str:
    counted: Accounting = report.accounting
    return f"soak on {name}, seed {seed}: duplicated {counted.duplicated}, lost {counted.lost}\n{report}"


@click.command()
@click.option(
    "--seconds", default=600.0, envvar="SOAK_SECONDS", show_default=True, help="Half of them on each broker."
)
@click.option("--seed", type=int, envvar="SOAK_SEED", help="Of an earlier run, to have its faults again.")
@click.option("--on", "places", type=click.Choice(["redis", "sqlite", "both"]), default="both", show_default=True)
def main(seconds: float, seed: int | None, places: str) -> None:
    seed = random.randrange(10**6) if seed is None else seed
    names = ["redis", "sqlite"] if places == "both" else [places]
    failed = False
    for name in names:
        click.echo(f"soak on {name}: {seconds / len(names):.0f} s, SOAK_SEED={seed}")
        report, going = asyncio.run(soak(name, seconds / len(names), seed))
        click.echo("\n".join(going.story), err=True)
        click.echo(summary(name, seed, report))
        failed = failed or bool(report.problems())
    sys.exit(failed)


if __name__ == "__main__":
    main()
