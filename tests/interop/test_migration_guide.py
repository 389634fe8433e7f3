"""docs/migrating-from-celery.md, done: its files and commands, with a real Redis and workers of both kinds."""

from __future__ import annotations

import asyncio
import importlib
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import redis
from celery.bin.celery import celery as celery_command

from aioretryq import TaskQueue
from aioretryq.cli import main as our_command
from aioretryq.cli.celery_settings import MADE_BY, as_markdown
from programs import Program, environment, running

if TYPE_CHECKING:
    from redis_server import RedisServer

PAGE = Path(__file__).parent.parent.parent / "docs" / "migrating-from-celery.md"
TEXT = PAGE.read_text()
FILES = re.findall(r"^```python\n# (\S+\.py)( \(added\))?\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
BLOCKS = re.findall(r"^```python\n(.*?)^```$", TEXT, flags=re.DOTALL | re.MULTILINE)
COMMANDS = [line.removeprefix("$ ") for line in TEXT.splitlines() if line.startswith("$ ")]


class Project:
    """The files of the page in a folder, and its commands."""

    def __init__(self, folder: Path, address: str) -> None:
        self.folder = folder
        for name, _, text in FILES:
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            (path.parent / "__init__.py").touch()
            with path.open("a") as file:
                file.write(text.replace("localhost:6379", address))

    @contextmanager
    def run(self, command: str, ready: str) -> Iterator[Program]:
        program, *arguments = shlex.split(command)
        with running(sys.executable, "-m", program, *arguments, cwd=self.folder) as started:
            started.wait_for(ready, timeout=60)
            yield started

    def python(self, file: str) -> str:
        module = file.removesuffix(".py").replace("/", ".")
        done = subprocess.run(
            [sys.executable, "-W", "error", "-m", module],
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()


@pytest.fixture(scope="module")
def project(redis_server: RedisServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with redis.Redis.from_url(redis_server.url) as client:
        client.flushall()
    made = Project(tmp_path_factory.mktemp("guide"), f"127.0.0.1:{redis_server.port}")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(made.folder)
        yield made
    for name in [name for name in sys.modules if name.partition(".")[0] == "shop"]:
        del sys.modules[name]


def command(start: str) -> str:
    (found,) = [line for line in COMMANDS if line.startswith(start)]
    return found


@pytest.fixture(scope="class")
def celery_worker(project: Project) -> Iterator[Program]:
    with project.run(command("celery -A shop.celery_app worker"), " ready.") as program:
        yield program


@pytest.fixture(scope="class")
def our_worker(project: Project) -> Iterator[Program]:
    with project.run(command("aioretryq worker shop.tasks:queue"), "is ready") as program:
        yield program


class TestTheSteps:
    async def test_a_service_awaits_what_celery_does(self, project: Project, celery_worker: Program) -> None:
        api: Any = importlib.import_module("shop.api")
        async with (
            api.queue,
            httpx.AsyncClient(transport=httpx.ASGITransport(api.api), base_url="http://shop") as client,
        ):
            prices = await asyncio.gather(*[client.get(f"/price/{article}") for article in (3, 4)])
        assert [price.json() for price in prices] == [{"cents": 300}, {"cents": 400}]

    async def test_without_importing_the_application(self, project: Project, celery_worker: Program) -> None:
        queue: TaskQueue = importlib.import_module("shop.without_import").queue
        async with queue:
            assert await (await queue.send_task("shop.price", [2])).get(timeout=20) == 200

    def test_a_moved_task_is_called_as_before(
        self, project: Project, celery_worker: Program, our_worker: Program
    ) -> None:
        assert project.python("shop/caller.py") == "aioretryq has written to ada@example.org"

    def test_a_chain_of_celery_goes_through_both(
        self, project: Project, celery_worker: Program, our_worker: Program
    ) -> None:
        assert project.python("shop/composed.py") == "aioretryq has written to 300"

    async def test_its_callers_may_move_too(self, project: Project, our_worker: Program) -> None:
        tasks: Any = importlib.import_module("shop.tasks")
        async with tasks.queue:
            assert await (await tasks.mail.delay("bob")).get(timeout=20) == "aioretryq has written to bob"


def test_a_configuration_written_out(project: Project) -> None:
    assert project.python("shop/configured.py") == ""


def test_the_application_runs_unchanged_on_our_worker(project: Project) -> None:
    """No Celery worker is left: what answers is ours."""
    with project.run(command("aioretryq worker --celery"), "is ready"):
        assert project.python("shop/unchanged.py") == "700"


def test_the_way_back(project: Project) -> None:
    """The workers of the steps have stopped: one Celery worker serves both queues, and runs what it always could."""
    back = next(line for line in re.findall(r"`(celery [^`]+)`", TEXT.replace("\n", " ")) if "-Q" in line)
    with project.run(f"{back} -P solo -l INFO", " ready."):
        assert project.python("shop/caller.py") == "Celery has written to ada@example.org"


def test_every_block_of_python_is_one_of_these_files() -> None:
    assert len(BLOCKS) == len(FILES)


@pytest.mark.parametrize("line", sorted({*COMMANDS, *re.findall(r"`((?:aioretryq|celery) [^`]*)`", TEXT)}))
def test_every_command_of_the_page_exists(line: str) -> None:
    program, *arguments = shlex.split(line.partition(" ...")[0])
    found: Any = celery_command if program == "celery" else our_command
    while hasattr(found, "commands") and arguments:  # groups, down to the command that takes the options
        while arguments and arguments[0].startswith("-"):  # celery -A app
            del arguments[:2]
        name = arguments.pop(0)
        assert name in found.commands, f"{line}: there is no {name!r}"
        found = found.commands[name]
    parameters = {flag for option in found.params for flag in option.opts}
    assert {part for part in arguments if part.startswith("-")} <= parameters, line


def test_the_tables_are_those_of_the_code() -> None:
    assert TEXT.partition(MADE_BY)[2].strip() == as_markdown().removeprefix(MADE_BY).strip(), (
        "put the output of `aioretryq settings --celery --markdown` at the end of docs/migrating-from-celery.md"
    )
