"""The contenders: one module each, all with the same small interface."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager

OURS = "aioretryq"


class Client(Protocol):
    """An open connection of the process that sends tasks and waits for results."""

    async def enqueue(self, task: str, number: int) -> Any:
        """Send `no_op` or `io` with that argument; returns what `result` takes."""

    async def result(self, handle: Any, timeout: float) -> Any:
        """Wait as the contender's documentation says, with its defaults; raises after `timeout` seconds."""


@dataclass(frozen=True)
class Contender:
    """What a contender's module exports as CONTENDER."""

    client: Callable[[], AbstractAsyncContextManager[Client]]
    worker_command: Callable[[str], Sequence[str]]
    """The command that starts one worker process, for a run of the given task."""
    local_worker: Callable[[], AbstractAsyncContextManager[object]] | None = None
    """A worker in this process, for a broker that reaches no other."""


@dataclass(frozen=True)
class Entry:
    """What is known of a contender before anything of it is imported."""

    module: str
    packages: tuple[str, ...]


ENTRIES = {
    OURS: Entry("ours", ("aioretryq", "redis")),
    "taskiq": Entry("with_taskiq", ("taskiq", "taskiq-redis")),
    "saq": Entry("with_saq", ("saq",)),
    "streaq": Entry("with_streaq", ("streaq", "coredis")),
    "celery": Entry("with_celery", ("celery", "kombu")),
    "arq": Entry("with_arq", ("arq",)),
}


def load(name: str) -> Contender:
    """Import the contender; ImportError where it, or a part of it, is not installed."""
    found: Contender = importlib.import_module(f"benchmarks.contenders.{ENTRIES[name].module}").CONTENDER
    return found


def installed(name: str) -> str:
    """Its packages and their versions; raises PackageNotFoundError if one is missing."""
    return " ".join(f"{package} {version(package)}" for package in ENTRIES[name].packages)


def missing(name: str) -> str | None:
    """The package that keeps it from running here, if there is one."""
    try:
        installed(name)
    except PackageNotFoundError as error:
        return str(error.name)
    return None
