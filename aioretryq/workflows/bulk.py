"""Groups and headers of very many members: planned one after the other, when it is their turn to be sent. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.protocol.content import AUTH
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import TASK, merged_arguments, size
from aioretryq.workflows.batches import Bulk, Like, Member, Opening
from aioretryq.workflows.plan import Compiler, Given, Handle, Place, in_group, written
from aioretryq.workflows.promises import ManyHandles
from aioretryq.workflows.shapes import unrolled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aioretryq.message import TaskMessage
    from aioretryq.protocol.signature import Node
    from aioretryq.workflows.plan import Compose


class BulkCompiler(Compiler):
    """Makes a `bulk` of the group whose steps are `Members`; there is at most one, and it is sent at once.

    `count` of its parts, if it is known. `uniform` says whether calls of a task with the same options differ by
    nothing but ids and arguments. `check` raises what is wrong with a member.
    """

    def __init__(
        self,
        compose: Compose,
        new_id: Callable[[], str],
        reply_to: str,
        *,
        errbacks_in_header: bool = False,
        count: int | None = None,
        uniform: Callable[[str], bool] = lambda name: False,
        check: Callable[[Node], object] | None = None,
    ) -> None:
        super().__init__(compose, new_id, reply_to, errbacks_in_header=errbacks_in_header)
        self._count = count
        self._uniform = uniform
        self._check = check
        self._many = ManyHandles()

    def _freeze_group(self, node: Node, place: Place) -> tuple[Node, Handle]:
        if not isinstance(node.steps, Members):
            return super()._freeze_group(node, place)
        gid = node.task_id or self._new_id()
        return node.with_options(task_id=gid), Handle(gid, members=self._many)

    def _open(self, gid: str, header: Node, returned: Handle, body: dict[str, Any]) -> None:
        if not isinstance(header.steps, Members):
            super()._open(gid, header, returned, body)

    def _group(self, node: Node, given: Given) -> Handle:
        if not isinstance(node.steps, Members):
            return super()._group(node, given)
        called, awaited = self._called(node, given)
        gid = called.options["group_id"]
        made = Handle(gid, members=self._many)
        opening = None if awaited is None else Opening(gid, self._count, None, written(awaited))
        self.plan.bulk = Bulk(self._members(node, called, awaited), made, opening)
        self.plan.bulk_is_child = given.child
        return made

    def _members(self, node: Node, called: Given, awaited: Any) -> Iterator[Member]:
        pattern: _Pattern | None = None
        for index, member in enumerate(unrolled(node.steps)):
            if self._check is not None:
                self._check(member)
            frozen, handle = self._freeze(member, in_group(called, index))
            self._many.append(handle)
            if pattern is not None and pattern.fits(member):
                arguments = merged_arguments(frozen, called.args, called.kwargs)
                yield Member((Like(pattern.message, handle.id, arguments.args, arguments.kwargs, index),), (), 1)
                continue
            self._member(frozen, called, awaited)
            messages, openings = tuple(self.plan.messages), tuple(self.plan.openings)
            self.plan.messages.clear()
            self.plan.openings.clear()
            pattern = None
            if frozen.kind == TASK and self._uniform(frozen.task) and messages[0].content_type != AUTH:
                pattern = _Pattern(member.task, _alike(member), messages[0])
            yield Member(messages, openings, size(frozen))


class _Pattern(Struct, frozen=True):
    """A call that was composed, and what others have to have in common with it."""

    task: str
    options: dict[str, Any]
    message: TaskMessage

    def fits(self, member: Node) -> bool:
        return member.kind == TASK and member.task == self.task and _alike(member) == self.options


def _alike(member: Node) -> dict[str, Any]:
    return {name: value for name, value in member.options.items() if name != "task_id"}
