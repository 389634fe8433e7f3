"""The file of results: each workload as it was last measured in full, and the Markdown that is made of it."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks import table
from benchmarks.contenders import ENVIRONMENTS
from benchmarks.verdicts import Line, Outcome, lines
from benchmarks.workloads import WORKLOADS

if TYPE_CHECKING:
    from collections.abc import Mapping

LATEST = Path(__file__).parent / "results" / "latest.json"


def surroundings(server: str) -> dict[str, Any]:
    """Machine and versions: numbers mean nothing without them."""
    return {
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "load": [round(average, 1) for average in os.getloadavg()],
        "redis": server,
        "peers": {name: list(wanted) for name, wanted in ENVIRONMENTS.items()},
    }


def described(around: Mapping[str, Any]) -> str:
    load = ", ".join(map(str, around["load"]))
    return f"{around['when']}, Python {around['python']}, {around['machine']} (load {load}), {around['redis']}"


@dataclass
class Measured:
    """A workload's outcomes."""

    name: str
    tasks: int
    rounds: int
    outcomes: dict[str, Outcome]
    around: dict[str, Any]

    @property
    def title(self) -> str:
        return WORKLOADS[self.name].title.format(tasks=self.tasks)

    def lines(self) -> list[Line]:
        return list(lines(self.name, WORKLOADS[self.name], self.title, self.outcomes))

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "table": [line.as_json() for line in self.lines()]}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Measured:
        outcomes = {name: Outcome(**each) for name, each in found["outcomes"].items()}
        return cls(found["name"], found["tasks"], found["rounds"], outcomes, found["around"])


def save(path: Path, measured: list[Measured]) -> None:
    """Put them into the file, in the place of earlier ones; beside it, the same as Markdown."""
    held = {each.name: each for each in load(path)}
    held.update({each.name: each for each in measured})
    kept = [held[name] for name in WORKLOADS if name in held]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps([each.as_json() for each in kept], indent=1) + "\n")
    path.with_suffix(".md").write_text(markdown(kept))


def load(path: Path) -> list[Measured]:
    if not path.exists():
        return []
    return [Measured.from_json(each) for each in json.loads(path.read_text()) if each["name"] in WORKLOADS]


def markdown(measured: list[Measured]) -> str:
    """The final table, then each workload in full."""
    parts = ["# Results", "Written by `python -m benchmarks`; how to read them is in ../README.md.", final(measured)]
    for each in measured:
        parts += [f"## {each.title}", f"{described(each.around)}; medians of {each.rounds} (lowest-highest)."]
        parts.append(table.details(WORKLOADS[each.name], each.outcomes))
    return "\n\n".join(parts) + "\n"


def final(measured: list[Measured]) -> str:
    return table.final(line for each in measured for line in each.lines())
