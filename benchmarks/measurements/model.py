"""What a measurement is: a coroutine that returns numbers, and the columns that show them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.contenders import Client, Contender

Report = Mapping[str, float]
"""Numbers by key. A number that makes no sense for a contender is left out."""


@dataclass(frozen=True)
class Setting:
    """One run of a measurement, in a process of its own."""

    contender: Contender
    client: Client
    tasks: int
    seconds: float
    """Until which it should have ended; a little later it is killed."""


@dataclass(frozen=True)
class Column:
    key: str
    heading: str
    decimals: int = 0
    ratio: bool = False
    """Whether to show it as a multiple of aioretryq's, too."""


@dataclass(frozen=True)
class Measurement:
    title: str
    """With `{tasks}` and `{concurrency}` to fill in."""
    measure: Callable[[Setting], Awaitable[Report]]
    columns: tuple[Column, ...]
    sizes: tuple[int, ...]
    """Numbers of tasks; each makes a table."""
    repeat: bool = True
