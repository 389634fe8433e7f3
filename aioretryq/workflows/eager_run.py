"""Workflows that run in place: compiled as one that is sent, each task run here, what follows of it as by a worker.

So values, failures and who is told of them are those of workers. What differs is time: one task after the other, a
step and all that follows of it before its neighbour; no waits, no expiry, no limits of queues.
"""

from __future__ import annotations

import traceback
from collections import deque
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field
from msgspec.structs import replace

from aioretryq import states
from aioretryq.context import Request
from aioretryq.eager import result_of, run_through
from aioretryq.errors import AioretryqError, ChordError, NotRegistered
from aioretryq.outcome import Failed, Ignored, Rejected, Replaced, Succeeded
from aioretryq.protocol.signature import (
    CHAIN,
    CHORD,
    GROUP,
    Node,
    group_of,
    read_signature,
    read_signatures,
)
from aioretryq.results.eager import EagerResult
from aioretryq.results.group import GroupResult
from aioretryq.workflows import errbacks
from aioretryq.workflows.compile import compile, whole
from aioretryq.workflows.compiler import Compiler
from aioretryq.workflows.places import replacement, rest_of_chain
from aioretryq.workflows.plan import Like, Opening
from aioretryq.workflows.sender import sender_of
from aioretryq.workflows.shapes import errbacks_of, failing

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.eager import Sleep
    from aioretryq.message import Signature, TaskMessage
    from aioretryq.outcome import Outcome
    from aioretryq.workflows.plan import Plan
    from aioretryq.workflows.promises import Handle

Result = EagerResult[Any] | GroupResult[Any]


class Part(Struct, frozen=True):
    """What a task of a chord's header returned."""

    task_id: str
    index: int
    value: Any = None
    exc: BaseException | None = None


class Chord(Struct):
    """One whose header runs; `structure` is the header's result where parts are groups."""

    size: int
    structure: list[Any] | None
    parts: dict[str, Part] = field(default_factory=dict)
    added: list[str | None] = field(default_factory=list)
    """Ids of parts that other parts have added; each comes after that one."""

    def in_order(self) -> list[Part]:
        return sorted(self.parts.values(), key=lambda each: (each.index, each.task_id in self.added))


class Ending(Struct, frozen=True):
    exc: BaseException
    traceback: str | None = None


class EagerRun:
    """One workflow. `retries`: how often the call has been tried before, if it is only one."""

    def __init__(self, queue: TaskQueue, sleep: Sleep, throw: bool, retries: int = 0) -> None:
        self._queue = queue
        self._sleep = sleep
        self._throw = throw
        self._retries = retries
        self._waiting: deque[TaskMessage] = deque()
        self._chords: dict[str, Chord] = {}
        self._closed: set[str] = set()
        self._results: dict[str, EagerResult[Any]] = {}
        self._children: dict[str, list[Any]] = {}

    async def run(
        self,
        node: Node,
        call: tuple[Sequence[Any], Mapping[str, Any], Mapping[str, Any]],
        caller: Request | None,
    ) -> Result | None:
        plan = compile(node, *call, sender=sender_of(self._queue, caller))
        for batch in plan.batches():
            self._open((*batch.openings, *batch.seals))
            self._waiting += (each.message() if isinstance(each, Like) else each for each in batch.messages)
        if self._retries:
            self._waiting = deque(replace(each, retries=self._retries) for each in self._waiting)
        handle = plan.result
        await self.finish()
        return None if handle is None else self.result(handle)

    async def finish(self) -> None:
        """Run all that waits, and what follows of it."""
        token = _current.set(self)
        try:
            while self._waiting:
                self.next(await self._one(self._waiting.popleft()))
        finally:
            _current.reset(token)
        for task_id, trees in self._children.items():
            self._results[task_id].sent = [self._from_tuple(tree) for tree in trees]

    def expect(self, group_id: str, task_id: str) -> bool:
        """One part more of a chord that runs now; False if it is none of those here."""
        chord = self._chords.get(group_id)
        if chord is not None:
            chord.added.append(task_id)
        return chord is not None

    async def at_once(self, node: Node, caller: Request) -> Result | None:
        """Run it and what follows of it, in the middle of a task."""
        compiler = self._compiler(caller)
        handle = compiler.apply(whole(node))
        later, self._waiting = self._waiting, deque(self._take(compiler.plan))
        try:
            await self.finish()
        finally:
            self._waiting = later
        return None if handle is None else self.result(handle)

    def has_part(self, node: Node) -> bool:
        """Whether it was added to a chord that runs now."""
        while node.kind in (CHAIN, CHORD):
            last = node.body if node.kind == CHORD else (*node.steps, None)[-2]
            if last is None:
                return False
            node = last
        return any(node.task_id in chord.added for chord in self._chords.values())

    # -- one task

    async def _one(self, message: TaskMessage) -> list[TaskMessage]:
        """Run it; what follows."""
        request = Request.of(message)
        request.is_eager = True
        return await self.follow(message, request, await self._outcome(request))

    async def follow(self, message: TaskMessage, request: Request, outcome: Outcome) -> list[TaskMessage]:
        """Keep what came of it; what is to run next."""
        new: list[TaskMessage] = []
        try:
            if isinstance(outcome, Replaced):
                return self._replaced(message, request, outcome.node)
            if isinstance(outcome, Succeeded):
                new = self._success(message, request, outcome.value)
        except AioretryqError as error:  # what follows cannot be sent: then the task has failed
            outcome = Failed(error)
        self._keep(message.id, result_of(request, outcome))
        match outcome:
            case Succeeded(value):
                return [*new, *await self._part(_place(message), Part(message.id, _index(message), value), request)]
            case Failed(exc, text):
                return await self._failure(message, request, Ending(exc, text))
            case Rejected(exc):
                return await self._failure(message, request, Ending(exc))
        return new

    async def _outcome(self, request: Request) -> Outcome:
        try:
            task = self._queue.find_task(request.task or "")
        except NotRegistered as error:
            return Failed(error, str(error))
        return await run_through(task, request, sleep=self._sleep)

    # -- what follows

    def _replaced(self, message: TaskMessage, request: Request, node: Node) -> list[TaskMessage]:
        """The last of it has the id of the task, and whatever follows."""
        in_header = self._queue.conf.task_allow_error_cb_on_chord_header
        compiler = self._compiler(request)
        made = whole(replacement(node, message, in_header=in_header))
        options: dict[str, Any] = {
            "root_id": request.root_id or request.id,
            "parent_id": request.id,
            "chain": rest_of_chain(message) or None,
        }
        compiler.apply(made, options=options)
        return self._take(compiler.plan)

    def _success(self, message: TaskMessage, request: Request, value: Any) -> list[TaskMessage]:
        if not message.callbacks and not message.chain:
            return []
        compiler = self._compiler(request)
        options: dict[str, Any] = {"root_id": request.root_id or request.id, "parent_id": request.id}
        callbacks = read_signatures(message.callbacks, "callbacks")
        for node in callbacks:
            compiler.apply(node, (value,), options=options)
        if message.chain:
            *later, following = message.chain
            compiler.apply(read_signature(following), (value,), options={**options, "chain": later})
        self._children[message.id] = compiler.plan.children
        return self._take(compiler.plan)

    async def _failure(self, message: TaskMessage, request: Request, ending: Ending) -> list[TaskMessage]:
        if self._throw:
            raise ending.exc
        calls = [call for step in message.chain or () for call in failing(read_signature(step, lenient=True))]
        new = await self._told(message.errbacks or (), request, ending)
        part = Part(message.id, _index(message), exc=ending.exc)
        return [*new, *await self._part(_place(message), part, request), *await self._never(calls, request, ending)]

    async def _never(self, calls: Iterable[Node], request: Request, ending: Ending) -> list[TaskMessage]:
        """Of tasks that will never run: their results, and their parts of chords."""
        new: list[TaskMessage] = []
        for call in calls:
            options = call.options
            task_id = options["task_id"]
            of = Request(id=task_id, task=call.task, args=list(call.args), kwargs=call.kwargs, is_eager=True)
            self._keep(task_id, result_of(of, Failed(ending.exc, ending.traceback)))
            part = Part(task_id, options.get("group_index") or 0, exc=ending.exc)
            new += await self._part((options.get("group_id"), options.get("chord")), part, request)
        return new

    async def _told(self, signatures: Iterable[Signature], request: Request, ending: Ending) -> list[TaskMessage]:
        """Errbacks: those that take the failure are called, the others are tasks that get the id."""
        failure = errbacks.Failure(request, ending.exc, ending.traceback)
        called, sent = errbacks.sorted_out(self._queue, [read_signature(each) for each in signatures], failure)
        for errback in called:
            await errbacks.call(self._queue, errback)
        if not sent:
            return []
        compiler = self._compiler(request)
        options = {"parent_id": request.id, "root_id": request.root_id or request.id}
        compiler.apply(group_of(sent), (request.id,), options=options, child=False)
        return self._take(compiler.plan)

    # -- chords

    async def _part(
        self, place: tuple[str | None, Signature | None], part: Part, request: Request
    ) -> list[TaskMessage]:
        """Counts it; with the last one the body follows, or its failure."""
        gid, body = place
        chord = self._chords.get(gid or "")
        if body is None or chord is None:
            return []
        chord.parts.setdefault(part.task_id, part)
        if len(chord.parts) < chord.size + len(chord.added):
            return []
        del self._chords[gid or ""]
        self._closed.add(gid or "")
        failed = next((each for each in chord.in_order() if each.exc is not None), None)
        if failed is None or failed.exc is None:
            try:
                compiler = self._compiler(request)
                compiler.apply(read_signature(body), (_values(chord),))
                return self._take(compiler.plan)
            except AioretryqError as wrong:
                return await self._body_failure(body, ChordError(f"Callback error: {wrong!r}"), wrong, request)
        error = ChordError(f"Dependency {failed.task_id} raised {failed.exc!r}")
        return await self._body_failure(body, error, failed.exc, request)

    async def _body_failure(
        self, body: Signature, error: ChordError, cause: BaseException, request: Request
    ) -> list[TaskMessage]:
        node = read_signature(body)
        exc = cause if node.kind == GROUP else error  # as in Celery
        if self._throw:
            raise exc
        ending = Ending(exc, "".join(traceback.format_exception(exc)))
        steps = node.options.get("chain") or ()
        later = [call for step in steps for call in failing(read_signature(step, lenient=True))]
        new: list[TaskMessage] = []
        for call, signatures in errbacks_of(node):
            of = Request(id=call.task_id, task=call.task, args=list(call.args), kwargs=call.kwargs, is_eager=True)
            new += await self._told(signatures, of, ending)
        return [*new, *await self._never([*failing(node), *later], request, ending)]

    # -- pieces

    def _take(self, plan: Plan) -> list[TaskMessage]:
        self._open(plan.openings)
        return plan.messages

    def _open(self, openings: Iterable[Opening]) -> None:
        for opening in openings:
            if opening.group_id in self._closed:  # what comes after a group that is a body runs once for each member
                continue
            self._chords[opening.group_id] = Chord(opening.size or 0, opening.structure)

    def next(self, messages: list[TaskMessage]) -> None:
        self._waiting.extendleft(reversed(messages))

    def _compiler(self, caller: Request | None) -> Compiler:
        return Compiler(sender_of(self._queue, caller))

    # -- results

    def _keep(self, task_id: str, result: EagerResult[Any]) -> None:
        """A final one stays."""
        found = self._results.get(task_id)
        if found is None or found._at_hand()[0] not in states.FINAL:
            self._results[task_id] = result

    def result(self, handle: Handle) -> Result:
        line = [handle]
        while (before := line[-1].parent) is not None:
            line.append(before)
        found: Result | None = None
        for each in reversed(line):
            parent, found = found, self._ended(each.id, each.members)
            found.parent = parent
        assert found is not None
        return found

    def _ended(self, result_id: str, members: Sequence[Handle] | None) -> Result:
        if members is not None:
            return GroupResult(result_id, [self.result(member) for member in members], self._queue)
        if result_id not in self._results:  # it never ran: a task before it has asked to be ignored
            of = Request(id=result_id, is_eager=True)
            self._results[result_id] = result_of(of, Ignored())
        return self._results[result_id]

    def _from_tuple(self, tree: Any) -> Result:
        (result_id, _), members = tree
        if members is None:
            return self._ended(result_id, None)
        return GroupResult(result_id, [self._from_tuple(each) for each in members], self._queue)


_current: ContextVar[EagerRun | None] = ContextVar("aioretryq_eager", default=None)


def current() -> EagerRun | None:
    """The workflow that runs here, if one does."""
    return _current.get()


def _values(chord: Chord) -> list[Any]:
    if chord.structure is None:
        return [part.value for part in chord.in_order()]
    known = {task_id: part.value for task_id, part in chord.parts.items()}

    def value(tree: Any) -> Any:
        (task_id, _), members = tree
        return known[task_id] if members is None else [value(each) for each in members]

    return [value(each) for each in chord.structure[1]]


def _place(message: TaskMessage) -> tuple[str | None, Signature | None]:
    return message.group, message.chord


def _index(message: TaskMessage) -> int:
    return message.group_index or 0
