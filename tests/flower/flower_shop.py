"""A shop in the middle of moving: `celery -A flower_shop worker` and `aioretryq worker flower_shop:queue` have the
same tasks, each on a queue of its own."""

from __future__ import annotations

import asyncio
import os
import time

from celery import Celery
from celery.exceptions import Reject as CeleryReject

from aioretryq import Reject, TaskQueue

URL = os.environ.get("FLOWER_REDIS", "redis://localhost")
WORK = 0.02
"""Seconds, so that there is a runtime to show."""

SHIPPING = 0.2
"""Seconds. Flower tells that it sent a task a moment after that; a retry it has heard of before, it would forget."""

app = Celery("shop", broker=URL, backend=URL)
app.conf.update(broker_connection_retry_on_startup=True, task_send_sent_event=True, timezone="UTC")


@app.task(name="shop.price")
def celery_price(article, pieces=1):
    time.sleep(WORK)
    return {"article": article, "cents": 250 * pieces}


@app.task(name="shop.pay")
def celery_pay(order):
    raise ValueError(f"order {order} is not covered")


@app.task(name="shop.ship", bind=True, max_retries=5)
def celery_ship(self, failures, pause):
    time.sleep(SHIPPING)
    if self.request.retries < failures:
        raise self.retry(countdown=pause, exc=OSError("the carrier does not answer"))
    return self.request.retries


@app.task(name="shop.refuse", acks_late=True)
def celery_refuse(order):
    raise CeleryReject(f"order {order} is a joke", requeue=False)


@app.task(name="shop.pack")
def celery_pack(seconds):
    time.sleep(seconds)


@app.task(name="shop.count")
def celery_count(seconds):
    time.sleep(seconds)


queue = TaskQueue(URL)


@queue.task(name="shop.price")
async def price(article, pieces=1):
    await asyncio.sleep(WORK)
    return {"article": article, "cents": 250 * pieces}


@queue.task(name="shop.pay")
async def pay(order):
    raise ValueError(f"order {order} is not covered")


@queue.task(name="shop.ship", bind=True, max_retries=5)
async def ship(self, failures, pause):
    await asyncio.sleep(SHIPPING)
    if self.request.retries < failures:
        raise self.retry(countdown=pause, exc=OSError("the carrier does not answer"))
    return self.request.retries


@queue.task(name="shop.refuse")
async def refuse(order):
    raise Reject(f"order {order} is a joke", requeue=False)


@queue.task(name="shop.pack")
async def pack(seconds):
    await asyncio.sleep(seconds)


@queue.task(name="shop.count")
async def count(seconds):
    await asyncio.sleep(seconds)
