"""Coroutines under Celery's decorator: Celery's own worker cannot run them, aioretryq does, on its event loop."""

from __future__ import annotations

import asyncio
from typing import Any

from celery import current_task, shared_task
from celery.exceptions import SoftTimeLimitExceeded

from examples.celery_project.orders import PaymentDown
from examples.celery_project.store import note


@shared_task(bind=True)
async def fetch(self: Any, name: str, pause: float = 0.0) -> dict[str, Any]:
    await asyncio.sleep(pause)
    return {"name": name, "id": self.request.id == current_task.request.id, "hostname": bool(self.request.hostname)}


@shared_task(bind=True, max_retries=2)
async def upload(self: Any, failures: int) -> int:
    """Asks for its retries itself."""
    await asyncio.sleep(0)
    if self.request.retries < failures:
        raise self.retry(exc=PaymentDown("upload"), countdown=0)
    return int(self.request.retries)


@shared_task(bind=True, autoretry_for=(PaymentDown,), retry_kwargs={"max_retries": 2, "countdown": 0})
async def resize(self: Any, failures: int) -> int:
    await asyncio.sleep(0)
    if self.request.retries < failures:
        raise PaymentDown("resize")
    return int(self.request.retries)


@shared_task(bind=True)
async def wait(self: Any, seconds: float) -> str:
    note(self.request.id, "wait begins")
    try:
        await asyncio.sleep(seconds)
    except SoftTimeLimitExceeded:
        return "soft limit"
    except asyncio.CancelledError as reason:
        note(self.request.id, f"cancelled {' '.join(map(str, reason.args))}")
        raise
    return "done"


@shared_task
async def leave() -> None:
    raise SystemExit(3)
