"""What is kept of a workflow that was sent, so that it can be shown, waited for, and stopped by the id of its result:
names and ids of its steps, no arguments. Pure.

Who sends a workflow, with the setting `result_save_workflows`:

    record = record_of(handle)
    if record is not None:
        await queue.results.save_group(record_key(handle.id), record)

Who reads one: `read_record(await queue.results.restore_group(record_key(task_id)))`.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.errors import ProtocolError
from aioretryq.ids import Ids
from aioretryq.protocol.saferepr import saferepr
from aioretryq.workflows.promises import ManyHandles

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aioretryq.workflows.promises import Handle

SHOWN = 100
"""Members of a group that are kept one by one, each with its name. Of more calls of one task its name is kept, and 16
bytes for each."""

MANY = 10_000
"""Members of which that is kept also where they differ: their names, and what is before each of them, are not."""

DEEPEST = 70
"""Groups in groups; nobody can send more. What is deeper is no longer told apart."""


class Step(Struct, frozen=True):
    """A task, or a group: with `members`, each a list of steps, or, if it is a large one, with the `ids` of what
    comes last in each member.

    `task` is the name of the task, or of the task that all `ids` are calls of; None where it is not known.
    """

    id: str
    task: str | None = None
    members: list[list[Step]] | None = None
    ids: Ids | None = None


def record_key(result_id: str) -> str:
    """Under which the record of that result's workflow is kept, as a group is."""
    return f"workflow-{result_id}"


def record_of(handle: Handle) -> dict[str, Any] | None:
    """What is to be kept of a workflow with this result, the first step first; None of a single call."""
    if handle.parent is None and handle.members is None:
        return None
    return {"workflow": 1, "steps": _steps(handle, DEEPEST)}


def read_record(data: Any) -> list[Step] | None:
    """The steps of a workflow, the first one first; None for nothing (it was forgotten, or there never was one).

    Raises ProtocolError for what `record_of` has not made.
    """
    if data is None:
        return None
    if not isinstance(data, dict) or data.get("workflow") != 1:
        raise ProtocolError(f"Not the record of a workflow: {saferepr(data, 200)}.")
    return _read_steps(data.get("steps"), DEEPEST + 1)


def _steps(handle: Handle, depth: int) -> list[dict[str, Any]]:
    found = []
    node: Handle | None = handle
    while node is not None:
        found.append(_step(node, depth))
        node = node.parent
    return found[::-1]


def _step(node: Handle, depth: int) -> dict[str, Any]:
    step: dict[str, Any] = {"id": node.id}
    members = node.members
    if members is None:
        return step if node.task is None else step | {"task": node.task}
    if not depth:
        return step | _packed(list(_leaves(members)))
    if _is_packed(members):
        return step | _packed(members)
    return step | {"members": [_steps(member, depth - 1) for member in members]}


def _is_packed(members: Sequence[Handle]) -> bool:
    if len(members) <= SHOWN:
        return False
    if isinstance(members, ManyHandles) and members.alike:
        return True
    if len(members) > MANY:
        return all(each.members is None for each in members)
    first = members[0].task
    return all(each.members is None and each.parent is None and each.task == first for each in members)


def _packed(members: Sequence[Handle]) -> dict[str, Any]:
    alike = isinstance(members, ManyHandles) and members.alike
    ids = members.ids if isinstance(members, ManyHandles) else Ids(each.id for each in members)
    numbers = ids.packed
    packed: dict[str, Any] = {"ids": list(ids) if numbers is None else base64.b64encode(numbers).decode()}
    tasks = {each.task for each in (members[:1] if alike else members)}
    if len(tasks) == 1 and None not in tasks:
        packed["task"] = tasks.pop()
    return packed


def _leaves(members: Sequence[Handle]) -> Iterator[Handle]:
    waiting = list(reversed(members))
    while waiting:
        member = waiting.pop()
        if member.members is None:
            yield member
        else:
            waiting += reversed(member.members)


def _read_steps(data: Any, depth: int) -> list[Step]:
    if not isinstance(data, list | tuple) or depth < 0:
        raise ProtocolError(f"The steps of a workflow are a list, not {saferepr(data, 200)}.")
    return [_read_step(each, depth) for each in data]


def _read_step(data: Any, depth: int) -> Step:
    if not isinstance(data, dict) or not isinstance(data.get("id"), str):
        raise ProtocolError(f"A step of a workflow has an id; not so {saferepr(data, 200)}.")
    task, members, ids = data.get("task"), data.get("members"), data.get("ids")
    return Step(
        data["id"],
        task if isinstance(task, str) else None,
        None if members is None else [_read_steps(each, depth - 1) for each in _listed(members)],
        None if ids is None else _read_ids(ids),
    )


def _read_ids(data: Any) -> Ids:
    if isinstance(data, list | tuple) and all(isinstance(each, str) for each in data):
        return Ids(data)
    try:
        return Ids.unpacked(base64.b64decode(data, validate=True))
    except (TypeError, ValueError, binascii.Error) as error:
        raise ProtocolError(f"The ids of a group are a list, not {saferepr(data, 200)}.") from error


def _listed(members: Any) -> list[Any]:
    if not isinstance(members, list | tuple):
        raise ProtocolError(f"The members of a group are a list, not {saferepr(members, 200)}.")
    return list(members)
