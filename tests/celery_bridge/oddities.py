"""A Celery application with other backends, serializers, types and settings than the shop has."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

from celery import Celery
from kombu.serialization import register
from kombu.utils import json as kombu_json
from pydantic import BaseModel


@dataclass
class Money:
    cents: int


kombu_json.register_type(Money, "money", lambda money: money.cents, Money)


def write(value: Any) -> str:
    return kombu_json.dumps(value)[::-1]


def read(text: Any) -> Any:
    return kombu_json.loads((text if isinstance(text, str) else bytes(text).decode())[::-1])


register("backwards", write, read, content_type="application/x-backwards", content_encoding="utf-8")

app = Celery("oddities", broker=os.environ["SHOP_REDIS"], backend=f"file://{os.environ['ODD_RESULTS']}")
app.conf.update(
    accept_content=["json", "backwards"],
    broker_connection_retry_on_startup=True,
    broker_transport_options={"global_keyprefix": "odd."},
    task_acks_late=False,
    worker_concurrency=3,
)


@app.task(name="odd.double", acks_late=True)
def double(money: Money) -> Money:
    return Money(money.cents * 2)


class Classy(app.Task):
    """A task that is a class, registered by hand."""

    name = "odd.classy"

    def run(self, number: int) -> str:
        return f"{self.request.id} {number}"


app.register_task(Classy())


@app.task(name="odd.parent")
def parent(number: int) -> str:
    return double.apply_async((Money(number),), serializer="backwards").id


@app.task(name="odd.waits")
def waits() -> int:
    """Waiting for a result inside of a task is refused, as by Celery's own workers."""
    return double.delay(Money(1)).get(timeout=5)


class Parcel(BaseModel):
    town: str
    note: str | None = None


@app.task(name="odd.pack", pydantic=True, bind=True, pydantic_dump_kwargs={"exclude_none": True})
async def pack(self: Any, parcel: Parcel) -> Parcel:
    return parcel.model_copy(update={"town": parcel.town.upper()})


@app.task(name="odd.label", pydantic=True)
async def label(parcel: Parcel) -> Parcel | None:
    return parcel if parcel.town else None


if __name__ == "__main__":
    import sys

    def packed(task: Any, town: str) -> Any:
        return task.delay({"town": town}).get(timeout=20)

    names = {
        "double": lambda: double.delay(Money(4)).get(timeout=20).cents,
        "backwards": lambda: double.apply_async((Money(5),), serializer="backwards").get(timeout=20).cents,
        "classy": lambda: (sent := app.tasks["odd.classy"].delay(6)).get(timeout=20) == f"{sent.id} 6",
        "parent": lambda: app.AsyncResult(parent.delay(7).get(timeout=20)).get(timeout=20).cents,
        "pydantic": lambda: [packed(pack, "Ulm"), packed(label, "Ulm"), packed(label, "")],
        "waits": lambda: str(waits.delay().get(timeout=20, propagate=False)),
    }
    sys.stdout.write("\n".join(f"{name}: {ask()}" for name, ask in names.items()))
