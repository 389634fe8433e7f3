"""What is kept of a workflow that was sent, so that it can be shown, and stopped, by the id of its result: names and
ids of its steps, no arguments. Pure.

Who sends a workflow, with the setting `result_save_workflows`:

    record = record_of(handle, names_of(plan.messages))
    if record is not None:
        await queue.results.save_group(record_key(handle.id), record)

Who reads one: `read_record(await queue.results.restore_group(record_key(task_id)))`.
A big group is kept as its id and size; `names[group_id]` is the name of its members' task, where that is known.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.errors import ProtocolError
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aioretryq.message import TaskMessage
    from aioretryq.workflows.promises import Handle

SHOWN = 100
"""Members of a group that are kept one by one; of larger ones their number."""

DEEPEST = 50
"""Groups in groups; what is deeper is no longer told apart."""


class Step(Struct, frozen=True):
    """A task, or a group: with `members`, each a list of steps, or, if it is a big one, with their `count` only.

    `task` is the name of the task, of a group's `count` members that of each; None where it is not known.
    """

    id: str
    task: str | None = None
    members: list[list[Step]] | None = None
    count: int | None = None


def record_key(result_id: str) -> str:
    """Under which the record of that result's workflow is kept, as a group is."""
    return f"workflow-{result_id}"


def record_of(handle: Handle, names: Mapping[str, str]) -> dict[str, Any] | None:
    """What is to be kept of a workflow with this result, the first step first; None of a single call."""
    if handle.parent is None and handle.members is None:
        return None
    return {"workflow": 1, "steps": _steps(handle, names, DEEPEST)}


def names_of(messages: Iterable[TaskMessage]) -> dict[str, str]:
    """Names of tasks by id: of these messages, and of what follows them."""
    names: dict[str, str] = {}
    seen: set[int] = set()  # all parts of a header bring the same body
    for message in messages:
        names[message.id] = message.task
        waiting: list[Any] = [*(message.chain or ()), message.chord]
        while waiting:
            found = waiting.pop()
            if isinstance(found, dict) and id(found) not in seen:
                seen.add(id(found))
                waiting += _parts(found)
                _name(found, names)
    return names


def read_record(data: Any) -> list[Step] | None:
    """The steps of a workflow, the first one first; None for nothing (it was forgotten, or there never was one).

    Raises ProtocolError for what `record_of` has not made.
    """
    if data is None:
        return None
    if not isinstance(data, dict) or data.get("workflow") != 1:
        raise ProtocolError(f"Not the record of a workflow: {saferepr(data, 200)}.")
    return _read_steps(data.get("steps"), DEEPEST)


def _steps(handle: Handle, names: Mapping[str, str], depth: int) -> list[dict[str, Any]]:
    found = []
    node: Handle | None = handle
    while node is not None:
        found.append(_step(node, names, depth))
        node = node.parent
    return found[::-1]


def _step(node: Handle, names: Mapping[str, str], depth: int) -> dict[str, Any]:
    step: dict[str, Any] = {"id": node.id}
    if node.id in names:
        step["task"] = names[node.id]
    members = node.members
    if members is None:
        return step
    if len(members) > SHOWN or not depth:
        return step | {"count": len(members)}
    return step | {"members": [_steps(member, names, depth - 1) for member in members]}


def _parts(signature: dict[str, Any]) -> list[Any]:
    """The signatures in one."""
    found: list[Any] = []
    kwargs, options = signature.get("kwargs"), signature.get("options")
    if isinstance(options, dict):
        found.append(options.get("chord"))
    if isinstance(kwargs, dict) and signature.get("subtask_type") in ("chain", "group", "chord"):
        found += [kwargs.get("body"), kwargs.get("header")]
        tasks = kwargs.get("tasks"), kwargs.get("header")
        found += [each for several in tasks if isinstance(several, list | tuple) for each in several]
    return found


def _name(signature: dict[str, Any], names: dict[str, str]) -> None:
    options, task = signature.get("options"), signature.get("task")
    task_id = options.get("task_id") if isinstance(options, dict) else None
    if isinstance(task_id, str) and isinstance(task, str) and signature.get("subtask_type") not in _OF_MANY:
        names[task_id] = task


_OF_MANY = ("chain", "group", "chord")


def _read_steps(data: Any, depth: int) -> list[Step]:
    if not isinstance(data, list | tuple) or depth < 0:
        raise ProtocolError(f"The steps of a workflow are a list, not {saferepr(data, 200)}.")
    return [_read_step(each, depth) for each in data]


def _read_step(data: Any, depth: int) -> Step:
    if not isinstance(data, dict) or not isinstance(data.get("id"), str):
        raise ProtocolError(f"A step of a workflow has an id; not so {saferepr(data, 200)}.")
    task, members, count = data.get("task"), data.get("members"), data.get("count")
    return Step(
        data["id"],
        task if isinstance(task, str) else None,
        None if members is None else [_read_steps(each, depth - 1) for each in _listed(members)],
        count if isinstance(count, int) else None,
    )


def _listed(members: Any) -> list[Any]:
    if not isinstance(members, list | tuple):
        raise ProtocolError(f"The members of a group are a list, not {saferepr(members, 200)}.")
    return list(members)
