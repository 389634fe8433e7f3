"""The bodies of chords that are complete: what is sent for them, or why they have failed."""

from __future__ import annotations

import logging
import time
from functools import partial
from typing import TYPE_CHECKING, Any

import anyio.to_thread
from msgspec import Struct
from msgspec.structs import replace

from aioretryq import states
from aioretryq.errors import AioretryqError, ChordError, NotOpenError, TaskRevokedError
from aioretryq.message import ChordClaim
from aioretryq.protocol import jsontypes
from aioretryq.protocol.exceptions import exception_from_data
from aioretryq.protocol.saferepr import inline, saferepr
from aioretryq.protocol.signature import GROUP, Node, read_signature
from aioretryq.protocol.task import identify
from aioretryq.worker.followups import NOTHING, Following, is_large
from aioretryq.workflows import rescue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aioretryq.app import TaskQueue
    from aioretryq.worker.followups import Followups
    from aioretryq.worker.parts import Return
    from aioretryq.worker.settlement import Attempted
    from aioretryq.worker.settler import Settler

logger = logging.getLogger("aioretryq.worker")

MANY = 1000
"""Parts of a header whose results a thread has to read, and to put into the body's message: 100,000 take a second."""

BELIEVED = 120.0
"""Seconds after a chord was complete in which it counts as lost, if nothing is known of it any more. After that
somebody else may have sent the body, and it may be forgotten that it is done."""


class Body(Struct, frozen=True):
    """`found` is what is to be sent, and all that goes with it; `claim` the right to do so, None where there is
    nothing to have it of. `since`: when the chord was known to be complete."""

    complete: Return
    found: Following
    claim: ChordClaim | None
    since: float

    @property
    def group_id(self) -> str:
        return self.complete.part.group_id

    @property
    def failed(self) -> bool:
        return self.claim is None or self.claim.failed


class _Failed(Exception):
    """A part of a header, with what it has failed of."""

    def __init__(self, error: ChordError, cause: BaseException) -> None:
        super().__init__(error)
        self.error = error
        self.cause = cause


class Bodies:
    def __init__(
        self, queue: TaskQueue, settler: Settler, followups: Followups, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._queue = queue
        self._settler = settler
        self._followups = followups
        self._clock = clock

    async def make(self, complete: Return, attempted: Attempted) -> Body:
        since, why = self._clock(), complete.part.why
        try:
            if why is not None and why != rescue.COMPLETE:
                if why == rescue.EXPIRED and await self._is_told(complete):
                    return Body(complete, NOTHING, _claim(complete, failed=True), since)
                error = ChordError(complete.part.content.decode())
                raise _Failed(error, error)
            found = await self._found(complete, attempted)
        except _Failed as failed:
            revoked = isinstance(failed.cause, TaskRevokedError) and await self._is_revoked(complete)
            return self._failure(complete, attempted, failed.error, failed.cause, revoked=revoked)
        except NotOpenError:
            raise  # the worker is being torn down, and the part comes back
        except AioretryqError as wrong:
            return self.unsendable(complete, attempted, wrong)
        if why is not None:
            found = await self._not_sent_yet(complete, found)
        return Body(complete, found, _claim(complete), since)

    def unsendable(self, complete: Return, attempted: Attempted, wrong: BaseException) -> Body:
        """Its failure, for a server or its own form does not let it be sent."""
        return self._failure(complete, attempted, ChordError(f"Callback error: {saferepr(wrong)}"), wrong)

    def after_refusal(self, body: Body, answer: bool | None, attempted: Attempted) -> Body | None:
        """What is left of it where the right to send it is not ours: somebody else's, or there is nothing to have a
        right of any more."""
        group_id = body.group_id
        if answer is None and self._clock() - body.since < BELIEVED:
            error = ChordError("The result backend has lost what its parts returned, before the body was sent")
            return replace(self._failure(body.complete, attempted, error, error), claim=None)
        logger.warning("The body of chord %s is sent by another worker", inline(group_id))
        return None

    def _failure(
        self,
        complete: Return,
        attempted: Attempted,
        error: ChordError,
        cause: BaseException,
        *,
        revoked: bool = False,
    ) -> Body:
        if revoked:
            logger.info("Chord %s is revoked", inline(complete.part.group_id))
        else:
            logger.error("Chord %s has failed: %s", inline(complete.part.group_id), error)
        now = self._clock()
        found = self._followups.body_failure(attempted, complete.body, error, cause, now, revoked=revoked)
        return Body(complete, found, _claim(complete, failed=True), now)

    async def _found(self, complete: Return, attempted: Attempted) -> Following:
        results, now = await self._results(complete.part.group_id), self._clock()
        if not is_large(attempted) and len(results) <= MANY:
            return self._followups.body(attempted, complete.body, results, now)
        send = partial(self._followups.body, attempted, complete.body, results, now)
        return await anyio.to_thread.run_sync(send)

    async def _is_revoked(self, complete: Return) -> bool:
        """Whether the body is, too: somebody has cancelled the workflow, and nobody has to be alarmed."""
        ids = list(_ids(read_signature(complete.body)))
        documents = await self._settler.persist(lambda: self._queue.results.get_many(ids))
        return any(document.status == states.REVOKED for document in documents)

    async def _is_told(self, complete: Return) -> bool:
        """Whether there are results of the body already; not counting what an earlier run of this message told."""
        ids = list(_ids(read_signature(complete.body)))
        documents = await self._settler.persist(lambda: self._queue.results.backend.fetch(ids))
        return any(document is not None and complete.part.content not in document for document in documents)

    async def _not_sent_yet(self, complete: Return, found: Following) -> Following:
        """Where whoever died may have sent the body already, or some members of the group that it is: what is known
        of has been sent."""
        node = read_signature(complete.body)
        calls = [list(_ids(step)) for step in (node.steps if node.kind == GROUP else (node,))]
        ids = [task_id for step in calls for task_id in step]
        documents = await self._settler.persist(lambda: self._queue.results.backend.fetch(ids))
        known = {task_id for task_id, document in zip(ids, documents, strict=True) if document is not None}
        if not known:
            return found
        logger.warning("The body of chord %s was sent already, by a worker that died", inline(complete.part.group_id))
        sent = {task_id for step in calls if known.intersection(step) for task_id in step}
        left = tuple(m for m in found.send if (identity := identify(m.body)) is None or identity[0] not in sent)
        return replace(found, send=left) if node.kind == GROUP and left else NOTHING

    async def _results(self, group_id: str) -> list[Any]:
        """What the parts of a header returned, nested as the header is."""
        backend, limit = self._queue.results.backend, 2 * self._queue.conf.max_payload_bytes
        contents = await self._settler.persist(lambda: backend.chord_parts(group_id, limit))
        tree = await self._settler.persist(lambda: self._queue.results.restore_group(group_id))
        if len(contents) <= MANY:
            return _values(contents, tree)
        return await anyio.to_thread.run_sync(_values, contents, tree)


def _claim(complete: Return, *, failed: bool = False) -> ChordClaim:
    return ChordClaim(complete.part.group_id, complete.part.token, failed)


def _ids(node: Node) -> Iterable[str]:
    """Of all calls in it."""
    if node.task_id:
        yield node.task_id
    for step in node.steps:
        yield from _ids(step)
    if node.body is not None:
        yield from _ids(node.body)


def _values(contents: list[bytes], tree: Any) -> list[Any]:
    """What these parts returned, in the form of the tree if there is one."""
    parts = [_read(content) for content in contents]
    values = []
    for task_id, state, result in parts:
        if state in states.PROPAGATED:
            cause = exception_from_data(result)
            raise _Failed(ChordError(f"Dependency {task_id} raised {saferepr(cause)}"), cause)
        values.append(result)
    if tree is None:
        return values
    known = {task_id: value for (task_id, _, _), value in zip(parts, values, strict=True)}
    return [_value(member, known) for member in _members(tree) or ()]


def _value(member: Any, known: dict[str, Any]) -> Any:
    """Of a result in a tree: the task's, or a list of those in it."""
    inner = _members(member)
    if inner is not None:
        return [_value(each, known) for each in inner]
    task_id = _id(member)
    if task_id not in known:
        raise ChordError(f"Nothing is known of {task_id}")
    return known[task_id]


def _read(content: bytes) -> tuple[str, str, Any]:
    """(task id, state, result) of a part that was counted, by a worker of any kind."""
    found = jsontypes.loads(content)
    match found:
        case [_, str(task_id), str(state), result]:
            return task_id, state, result
    raise ChordError("A part of the header cannot be read")


def _members(tree: Any) -> list[Any] | None:
    """Of a group's result as it is stored; None for that of a task."""
    match tree:
        case [_, None]:
            return None
        case [_, [*members]]:
            return members
    raise ChordError("The tree of the header's results cannot be read")


def _id(member: Any) -> str:
    match member:
        case [[str(task_id), _], _] | [str(task_id), _]:
            return task_id
    raise ChordError("The tree of the header's results cannot be read")
