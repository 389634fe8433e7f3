"""The banner names the functions whose time limits have no effect."""

from __future__ import annotations

import celery
import pytest

from aioretryq import TaskQueue, Worker
from aioretryq.celery_bridge.queue import CeleryQueue
from aioretryq.registration import SHARED


def nothing() -> None: ...


def limited(worker: Worker) -> list[str]:
    found = [text.partition(": ")[2] for text in worker.warnings() if "have no effect on plain functions" in text]
    others = SHARED.keys()  # of other tests, in the same process
    return [
        name for names in found for name in names.split(", ") if not name.startswith("celery.") and name not in others
    ]


@pytest.fixture
def queue() -> TaskQueue:
    queue = TaskQueue("memory://")
    queue.task(name="plain")(nothing)
    queue.task(name="hard", time_limit=3)(nothing)
    queue.task(name="soft", soft_time_limit=3)(nothing)

    @queue.task(name="coroutine", time_limit=3, soft_time_limit=2)
    async def coroutine() -> None: ...

    return queue


async def test_of_tasks(queue: TaskQueue) -> None:
    async with queue:
        assert limited(Worker(queue)) == ["hard", "soft"]


@pytest.mark.parametrize("setting", ["task_time_limit", "task_soft_time_limit"])
async def test_of_the_whole_application(queue: TaskQueue, setting: str) -> None:
    queue.conf.update({setting: 60})
    async with queue:
        assert limited(Worker(queue)) == ["hard", "plain", "soft"]


@pytest.mark.parametrize("setting", ["task_time_limit", "task_soft_time_limit"])
@pytest.mark.parametrize("value", [None, 60])
def test_of_celery_applications(setting: str, value: float | None) -> None:
    with celery.Celery("limits", broker="memory://", set_as_current=False) as app:
        app.conf.update({setting: value})
        app.task(name="plain", shared=False)(nothing)
        app.task(name="own", shared=False, **{setting.removeprefix("task_"): 5})(nothing)

        @app.task(name="coroutine", shared=False)
        async def coroutine() -> None: ...

        queue = CeleryQueue(app, hostname="w@host", sender=None, broker_url="redis://localhost")
        # Applications of other tests in this process may share tasks of theirs.
        named = [name for name in limited(Worker(queue)) if name in ("coroutine", "own", "plain")]
        assert named == (["own", "plain"] if value else ["own"])
