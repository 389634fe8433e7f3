"""The two clients of the matrix behind one face: compose, send, wait, with each library's own means."""

from __future__ import annotations

import asyncio
from typing import Any

import celery
from celery import chain, chord, group

from aioretryq import TaskQueue
from aioretryq.workflows.promises import Handle
from aioretryq.workflows.sending import send_signature

PATIENCE = 30.0


class CeleryClient:
    """`celery` itself; it blocks, so every call is made in a thread."""

    name = "Celery client"

    def __init__(self, app: celery.Celery, queue: str) -> None:
        self.app = app
        self.queue = queue

    def s(self, name: str, *args: Any, **options: Any) -> Any:
        return self.app.signature(name, args=args, options={"queue": self.queue, **options}, app=self.app)

    async def send(self, name: str, *args: Any, **options: Any) -> str:
        result = await asyncio.to_thread(self.s(name, *args).apply_async, **options)
        found: str = result.id
        return found

    async def value(self, task_id: str) -> Any:
        """What the task returned; raises what it raised."""
        return await asyncio.to_thread(self.app.AsyncResult(task_id).get, timeout=PATIENCE)

    async def state(self, task_id: str) -> str:
        return str(await asyncio.to_thread(lambda: self.app.AsyncResult(task_id).state))

    async def revoke(self, task_id: str, *, terminate: bool = False) -> None:
        await asyncio.to_thread(self.app.control.revoke, task_id, terminate=terminate)

    async def chain(self, *steps: Any) -> str:
        return str((await asyncio.to_thread(chain(*steps, app=self.app).apply_async)).id)

    async def group(self, *members: Any) -> list[str]:
        sent = await asyncio.to_thread(group(*members, app=self.app).apply_async)
        return [result.id for result in sent.results]

    async def chord(self, members: list[Any], body: Any) -> str:
        return str((await asyncio.to_thread(chord(members, app=self.app), body)).id)


class OurClient:
    """`aioretryq`; compositions are written out by hand, as Celery's dictionaries."""

    name = "our client"

    def __init__(self, app: TaskQueue, queue: str) -> None:
        self.app = app
        self.queue = queue

    def s(self, name: str, *args: Any, **options: Any) -> Any:
        return {
            "task": name,
            "args": list(args),
            "kwargs": {},
            "options": {"queue": self.queue, **options},
            "subtask_type": None,
            "immutable": False,
        }

    async def send(self, name: str, *args: Any, **options: Any) -> str:
        return (await self.app.send_task(name, args, queue=self.queue, **options)).id

    async def value(self, task_id: str) -> Any:
        return await self.app.AsyncResult(task_id).get(timeout=PATIENCE)

    async def state(self, task_id: str) -> str:
        return await self.app.AsyncResult(task_id).status()

    async def revoke(self, task_id: str, *, terminate: bool = False) -> None:
        await self.app.revoke(task_id, terminate=terminate)

    async def chain(self, *steps: Any) -> str:
        return (await self._apply("chain", {"tasks": list(steps)})).id

    async def group(self, *members: Any) -> list[str]:
        sent = await self._apply("group", {"tasks": list(members)})
        assert sent.members is not None
        return [member.id for member in sent.members]

    async def chord(self, members: list[Any], body: Any) -> str:
        header = self._composed("group", {"tasks": members})
        return (await self._apply("chord", {"header": header, "body": body, "kwargs": {}})).id

    def _composed(self, kind: str, parts: dict[str, Any]) -> dict[str, Any]:
        return {**self.s(f"celery.{kind}"), "kwargs": parts, "options": {}, "subtask_type": kind}

    async def _apply(self, kind: str, parts: dict[str, Any]) -> Handle:
        sent = await send_signature(self.app, self._composed(kind, parts))
        assert sent is not None
        return sent
