"""Where every message went. Nothing may be missing in it, and nothing be there twice."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class Accounting:
    """published = executed + queued + dead + lost, each message in one of them.

    `executed` came to their end and are gone from the broker. `queued` are still there: waiting, parked or held;
    those of them that were not meant to be are `stuck`. `duplicated` came to their end more than once, `excused`
    of them because a worker died (or was frozen, which looks the same) while it had them.
    """

    published: int
    executed: int
    queued: int
    dead: int
    lost: int
    stuck: int
    duplicated: int
    excused: int = 0

    @property
    def problems(self) -> list[str]:
        found = []
        if self.published != self.executed + self.queued + self.dead + self.lost:
            found.append("the accounting does not add up")
        if self.lost:
            found.append(f"{self.lost} lost")
        if self.stuck:
            found.append(f"{self.stuck} stuck")
        if self.duplicated > self.excused:
            found.append(f"{self.duplicated - self.excused} run twice without a worker having died with them")
        return found

    def __str__(self) -> str:
        twice = f"{self.duplicated} twice" + (f" ({self.excused} excused)" if self.excused else "")
        return (
            f"{self.published} published = {self.executed} executed + {self.queued} queued + {self.dead} dead, "
            f"{self.lost} lost; {self.stuck} stuck, {twice}"
        )


def account(
    published: Collection[str],
    *,
    ends: Mapping[str, int],
    queued: Collection[str],
    dead: Collection[str],
    excused: Collection[str] = (),
    left: Collection[str] = (),
) -> Accounting:
    """All are task ids; `left` are those that were meant to stay in the queue."""
    ids = set(published)
    in_broker = ids & set(queued)
    buried = (ids & set(dead)) - in_broker
    executed = {task_id for task_id in ids if ends.get(task_id)} - in_broker - buried
    twice = {task_id for task_id in ids if ends.get(task_id, 0) > 1}
    return Accounting(
        published=len(ids),
        executed=len(executed),
        queued=len(in_broker),
        dead=len(buried),
        lost=len(ids - executed - in_broker - buried),
        stuck=len(in_broker - set(left)),
        duplicated=len(twice),
        excused=len(twice & set(excused)),
    )


@dataclass(frozen=True, slots=True)
class Figure:
    """Something measured; more than `limit` is a failure of the promise, on a machine that is not overloaded."""

    value: float
    limit: float | None = None
    unit: str = "s"

    def __str__(self) -> str:
        digits = {"s": ".2f", "MB": ".0f"}.get(self.unit, "g")
        return f"{self.value:{digits}} {self.unit}".rstrip()


@dataclass(slots=True)
class Report:
    """What came of one fault. `wrong` is what should not have been, in words; then `log` is that of the workers."""

    accounting: Accounting
    figures: dict[str, Figure] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    log: str = ""

    def problems(self, *, slack: float = 0.0) -> list[str]:
        """Everything that breaks a promise; `slack` seconds are forgiven where a time was measured."""
        late = [
            f"{name} is {figure}, at most {figure.limit:g} {figure.unit} was promised"
            for name, figure in self.figures.items()
            if figure.limit is not None and figure.value > figure.limit + (slack if figure.unit == "s" else 0)
        ]
        return [*self.accounting.problems, *self.wrong, *late]

    def __str__(self) -> str:
        figures = "".join(f"\n  {name}: {figure}" for name, figure in self.figures.items())
        wrong = "".join(f"\n  WRONG: {text}" for text in self.problems())
        return f"{self.accounting}{figures}{wrong}"
