"""Parts that a header gets while it is worked on (Celery: `Task.add_to_chord`)."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid5

from aioretryq.context import current_run
from aioretryq.message import ChordAddition
from aioretryq.workflows.eager_run import current as running_here
from aioretryq.workflows.openings import life_of_chords
from aioretryq.workflows.places import IDS, Place, as_one, in_place

if TYPE_CHECKING:
    from aioretryq.context import Request
    from aioretryq.protocol.signature import Node


async def add_to_chord(node: Node) -> Node:
    """The call or workflow as one more part of the chord that the running task is a part of: to be sent as it is.

    From now on the chord waits for it. Its id is made of the task's and of how many were added before, so a worker
    that runs the task again after a crash adds the same parts. Raises ValueError outside of a chord's header.
    """
    run = current_run.get()
    if run is None or not run.request.chord or not run.request.group:
        raise ValueError("The running task is no part of a chord: there is nothing to add to.")
    request, number = run.request, run.additions
    run.additions += 1
    place = Place(_id(request, number), request.group, request.group_index, request.chord)
    part = in_place(as_one(node), place).with_options(root_id=request.root_id)
    within = running_here() if request.is_eager else None
    if within is not None and within.expect(place.group_id or "", place.task_id):
        return part
    results = run.app.results
    added = [ChordAddition(run.request.group, place.task_id, life_of_chords(run.app.conf))]
    await results.ensure(lambda: results.backend.add_parts(added))
    return part


def _id(request: Request, number: int) -> str:
    """An attempt more adds others, as in Celery."""
    return str(uuid5(IDS, f"{request.id}/{request.replaced_task_nesting}/{request.retries}/added {number}"))
