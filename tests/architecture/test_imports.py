"""What a process has not loaded it has not waited for. Measured by name: time is a matter of the machine."""

from __future__ import annotations

import json
import subprocess
import sys

import aioretryq

SHOW = """
import json, sys
print(json.dumps(sorted(sys.modules)))
"""
IMPORT = "import aioretryq"
DEFINE = """
from aioretryq import RetryPolicy, TaskQueue
queue = TaskQueue({url!r}, task_default_queue="mine")
@queue.task(max_retries=2)
async def add(a: int, b: int) -> int:
    return a + b
"""
SEND = (
    DEFINE
    + """
import asyncio
async def main() -> None:
    async with queue:
        await add.delay(1, 2)
asyncio.run(main())
"""
)
HELP = "from aioretryq.cli import main; main(['--help'], standalone_mode=False)"
LIST = "from aioretryq.cli import main; main(['inspect', '--list'], standalone_mode=False)"

SUPERVISE = "import aioretryq.cli.worker; import aioretryq.worker.supervisor"

DRIVERS = {"redis", "hiredis", "sqlite3", "aioretryq.brokers.redis", "aioretryq.brokers.sqlite"}
OF_WORKERS = {"aioretryq.worker", "aioretryq.execution", "aioretryq.workflows", "aioretryq.celery_bridge", "uvloop"}
OF_FEW = {
    "aioretryq.celery_settings",
    "aioretryq.control",
    "aioretryq.dead",
    "aioretryq.events.state",
    "aioretryq.results.group",
    "celery",
    "cryptography",
    "difflib",
    "multiprocessing",
    "rich",
    "urllib.request",
    "yaml",
}
OF_OPEN_QUEUES = {
    "aioretryq.backends.store",
    "aioretryq.calling",
    "aioretryq.connections",
    "aioretryq.message",
    "aioretryq.results.result",
    "anyio._backends._asyncio",
    "email",
    "importlib.metadata",
    "orjson",
    "pathlib",
    "uuid",
}


def loaded(program: str) -> set[str]:
    """Modules that the program has imported, and an interpreter that does nothing has not."""
    ran, idle = (
        subprocess.run([sys.executable, "-c", text + SHOW], capture_output=True, text=True, check=True).stdout
        for text in (program, "")
    )
    return set(json.loads(ran.splitlines()[-1])) - set(json.loads(idle))


def test_the_import_loads_no_more_than_what_tasks_are_defined_with() -> None:
    found = loaded(IMPORT)
    assert "aioretryq.task" in found
    assert not found & (DRIVERS | OF_WORKERS | OF_FEW | OF_OPEN_QUEUES | {"click"})


def test_neither_does_defining_tasks() -> None:
    found = loaded(DEFINE.format(url="redis://localhost"))
    assert not found & (DRIVERS | OF_WORKERS | OF_FEW | OF_OPEN_QUEUES | {"click"})


def test_help_loads_no_verb() -> None:
    found = loaded(HELP)
    assert "click" in found
    assert not found & (DRIVERS | OF_WORKERS | OF_FEW)
    assert {name for name in found if name.startswith("aioretryq.cli")} == {"aioretryq.cli"}


def test_a_verb_loads_no_other_verb_and_no_worker() -> None:
    found = loaded(LIST)
    assert "aioretryq.cli.control" in found
    assert not found & (DRIVERS | OF_WORKERS | {"aioretryq.cli.worker", "aioretryq.dead", "rich"})


def test_a_supervisor_loads_no_worker() -> None:
    found = loaded(SUPERVISE)
    assert "aioretryq.worker.supervisor" in found
    assert not found & (
        DRIVERS | OF_FEW | {"aioretryq.worker.worker", "aioretryq.execution", "aioretryq.message", "uvloop"}
    )


def test_who_sends_loads_the_broker_of_the_url_and_nothing_of_workers() -> None:
    found = loaded(SEND.format(url="memory://"))
    assert {"aioretryq.brokers.memory", "aioretryq.connections"} <= found
    assert not found & (DRIVERS | OF_WORKERS | OF_FEW | {"click", "email", "importlib.metadata"})


def test_later_names_are_those_that_a_type_checker_sees() -> None:
    for name, path in aioretryq.LATER.items():
        module = sys.modules[getattr(aioretryq, name).__module__]
        assert getattr(module, name) is getattr(aioretryq, name), path
    assert set(aioretryq.__all__) <= set(dir(aioretryq))
