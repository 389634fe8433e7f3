"""Groups and headers of very many members: planned one after the other, when it is their turn to be sent. Pure."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from aioretryq.errors import EncodeError
from aioretryq.protocol import jsontypes
from aioretryq.protocol.content import AUTH
from aioretryq.protocol.members import Members
from aioretryq.protocol.signature import TASK, as_dict, merged_arguments, read_signature, size
from aioretryq.workflows.compiler import Compiler, Given, Place, in_group, written
from aioretryq.workflows.plan import Bulk, Like, Member, Opening
from aioretryq.workflows.promises import Handle, ManyHandles
from aioretryq.workflows.shapes import unrolled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aioretryq.message import TaskMessage
    from aioretryq.protocol.signature import Node
    from aioretryq.workflows.sender import Sender


class BulkCompiler(Compiler):
    """Makes a `bulk` of the group whose steps are `Members`; there is at most one, and it is sent at once.

    `check` raises what is wrong with a member.
    """

    def __init__(self, sender: Sender, *, check: Callable[[Node], object] | None = None) -> None:
        super().__init__(sender)
        self._check = check
        self._many = ManyHandles()
        self._read = 0

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
        opening = None if awaited is None else Opening(gid, None, None, written(awaited))
        suspects = self._suspects(node, called, awaited) if node.steps.listed else None
        self.plan.bulk = Bulk(self._members(node, called, awaited), made, opening, suspects)
        self.plan.bulk_is_child = given.child
        return made

    def _members(self, node: Node, called: Given, awaited: Any) -> Iterator[Member]:
        pattern: _Pattern | None = None
        for index, member in enumerate(unrolled(node.steps)):
            self._read = index + 1
            if self._check is not None:
                self._check(member)
            frozen, handle = self._freeze(member, in_group(called, index))
            self._many.append(handle)
            if pattern is not None and pattern.fits(member):
                arguments = merged_arguments(frozen, called.args, called.kwargs)
                yield Member((Like(pattern.message, handle.id, arguments.args, arguments.kwargs, index),), (), 1)
                continue
            made = self._made(frozen, called, awaited)
            pattern = None
            if frozen.kind == TASK and self._sender.uniform(frozen.task):
                (message,) = made.messages
                if not isinstance(message, Like) and message.content_type != AUTH:
                    pattern = _Pattern(member.task, _alike(member), message)
            yield made
        if not self._read and awaited is not None:
            self.apply(read_signature(awaited), ([],), child=False)
            yield self._taken(0)

    def _made(self, frozen: Node, called: Given, awaited: Any) -> Member:
        self._member(frozen, called, awaited)
        return self._taken(size(frozen))

    def _taken(self, parts: int) -> Member:
        """What was just planned."""
        made = Member(tuple(self.plan.messages), tuple(self.plan.openings), parts)
        self.plan.messages.clear()
        self.plan.openings.clear()
        return made

    def _suspects(self, node: Node, called: Given, awaited: Any) -> Iterator[Member | None]:
        """See `Bulk.suspects`. What is looked at here is not when it is planned."""
        check, self._check = self._check, None
        for member in islice(unrolled(node.steps), self._read, None):
            if check is not None:
                check(member)
            if self._is_plain(member):
                yield None
            else:
                frozen, _ = self._freeze(member, in_group(called, 0))
                yield self._made(frozen, called, awaited)

    def _is_plain(self, member: Node) -> bool:
        """Whether every serializer can encode it, and it is not too large by itself."""
        simple = member.kind == TASK and not member.options
        try:
            encoded = jsontypes.dumps([member.args, member.kwargs] if simple else as_dict(member))
        except EncodeError:
            return False
        return len(encoded) < self._sender.limit // 2


class _Pattern(Struct, frozen=True):
    """A call that was composed, and what others have to have in common with it."""

    task: str
    options: dict[str, Any]
    message: TaskMessage

    def fits(self, member: Node) -> bool:
        return member.kind == TASK and member.task == self.task and _alike(member) == self.options


def _alike(member: Node) -> dict[str, Any]:
    return {name: value for name, value in member.options.items() if name != "task_id"}
