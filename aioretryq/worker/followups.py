"""What follows from how a task ended: callbacks, the next step of its chain, its part of a chord, errbacks. Pure.

Ids of what the sender gave none are made of the id of the task it follows from: should a worker die between storing
the result and acknowledging the message, the next one sends the same again.
"""

from __future__ import annotations

import itertools
import logging
import traceback
from typing import TYPE_CHECKING, Any
from uuid import uuid5

from msgspec import Struct, field
from msgspec.structs import replace

from aioretryq import states
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.context import Request
from aioretryq.errors import AioretryqError, ChordError, ConfigError, PayloadTooLarge
from aioretryq.exchanging import outgoing
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.saferepr import inline
from aioretryq.protocol.signature import CHAIN, GROUP, Node, group_of, read_signature, read_signatures
from aioretryq.protocol.task import encode_task
from aioretryq.protocol.usual import was_checked
from aioretryq.worker.parts import Ending, Parts
from aioretryq.workflows import rescue
from aioretryq.workflows.compiler import Compiler
from aioretryq.workflows.errbacks import Errback, Failure, sorted_out
from aioretryq.workflows.places import IDS, replacement, rest_of_chain
from aioretryq.workflows.sender import sender_of
from aioretryq.workflows.shapes import errbacks_of, failing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.message import ChordClaim, ChordOpening, Outgoing, Signature, StoredResult, TaskMessage
    from aioretryq.worker.parts import Return
    from aioretryq.worker.settlement import Attempted
    from aioretryq.workflows.plan import Plan

logger = logging.getLogger("aioretryq.worker")

AT_ONCE = 4
"""Times `max_payload_bytes`: what follows from one task may be so large altogether. It goes in one step."""


LARGE = 100_000
"""Bytes of a message: a few hundred signatures."""


class Following(Struct, frozen=True):
    """`openings` and `trees` are chords that begin and what their headers return, where that is nested; `records` are
    results of tasks that will never run; `claims` the chords whose bodies are among what is sent."""

    send: tuple[Outgoing, ...] = ()
    children: list[Any] = field(default_factory=list)
    trees: tuple[tuple[str, list[Any]], ...] = ()
    openings: tuple[ChordOpening, ...] = ()
    returns: tuple[Return, ...] = ()
    records: tuple[StoredResult, ...] = ()
    errbacks: tuple[Errback, ...] = ()
    claims: tuple[ChordClaim, ...] = ()

    @property
    def in_backend(self) -> bool:
        """Whether some of it is the result backend's."""
        return bool(self.openings or self.trees or self.returns or self.records or self.claims)


NOTHING = Following()


def is_part_of_workflow(message: TaskMessage) -> bool:
    return bool(
        message.callbacks or message.errbacks or message.chain or message.chord or message.task == rescue.TASK
    )


def is_large(attempted: Attempted) -> bool:
    """Whether a thread has to find out what follows: the event loop would stand still."""
    return len(attempted.delivery.body) > LARGE and is_part_of_workflow(attempted.message)


def is_unchecked(message: TaskMessage) -> bool:
    """Whether something follows from it that nobody has read yet."""
    if message.callbacks or message.errbacks or message.chain:
        return True
    return not was_checked(message.chord) if message.chord else False


def check_workflow(message: TaskMessage) -> None:
    """ProtocolError if what follows from it cannot be read: better before the task runs than after it."""
    for name in ("callbacks", "errbacks", "chain"):
        if signatures := getattr(message, name):
            read_signatures(signatures, name)
    if message.chord and not was_checked(message.chord):
        read_signature(message.chord)


class Followups:
    """Decides by the tasks and settings of a queue."""

    def __init__(self, queue: TaskQueue, tag: Callable[[], str]) -> None:
        self._queue = queue
        self._tag = tag
        self._parts = Parts(queue)

    def success(self, attempted: Attempted, value: Any, now: float) -> Following:
        """Raises AioretryqError where it cannot be sent: then the task has failed."""
        message = attempted.message
        if not is_part_of_workflow(message):
            return NOTHING
        returns = self._parts.own(attempted, states.SUCCESS, value)
        if not message.callbacks and not message.chain:  # there may be very many parts
            return Following(returns=tuple(returns)) if returns else NOTHING
        compiler = self._compiler(attempted.request, "done", now)
        options = self._inherited(attempted)
        callbacks = read_signatures(message.callbacks, "callbacks")
        single = [node for node in callbacks if node.kind != GROUP]
        if len(callbacks) > 1 and single:
            callbacks = [*(node for node in callbacks if node.kind == GROUP), group_of(single)]
        for node in callbacks:
            compiler.apply(node, (value,), options=options)
        if message.chain:
            *later, following = message.chain
            compiler.apply(read_signature(following), (value,), options={**options, "chain": later})
        return self._sent(compiler.plan, returns)

    def failure(self, attempted: Attempted, ending: Ending, now: float) -> Following:
        """Never raises: what cannot be read or sent is left out, with a line in the log."""
        message = attempted.message
        if not is_part_of_workflow(message):
            return NOTHING
        calls = [call for node in self._readable(message.chain) for call in failing(node)]
        data = exception_to_data(ending.exc)
        returns = [*self._parts.own(attempted, ending.state, data), *self._parts.failed(attempted, calls, ending)]
        called: list[Errback] = []
        plan = None
        if ending.state == states.FAILURE and message.errbacks:
            compiler = self._compiler(attempted.request, "failed", now)
            called = self._errbacks(compiler, message.errbacks, attempted.request, ending)
            plan = compiler.plan
        records = self._parts.records(calls, ending, now)
        return self._sent(plan, returns, records=records, errbacks=called)

    def replaced(self, attempted: Attempted, node: Node, now: float) -> Following:
        """`node` in its place. Raises AioretryqError where it cannot be sent."""
        message = attempted.message
        # A replacement has the id of what it replaces, and may be replaced itself.
        compiler = self._compiler(attempted.request, f"replaced {message.replaced_task_nesting}", now)
        made = replacement(node, message, in_header=self._queue.conf.task_allow_error_cb_on_chord_header)
        options = {"root_id": attempted.request.root_id or message.id, "chain": rest_of_chain(message) or None}
        compiler.apply(made, options=options)
        return self._sent(compiler.plan)

    def note_counted(self, returns: Iterable[Return]) -> None:
        self._parts.note_counted(returns)

    # -- bodies of chords

    def body(self, attempted: Attempted, body: Signature, results: Sequence[Any], now: float) -> Following:
        """Of a chord all parts of which succeeded. Raises AioretryqError where it cannot be sent."""
        node = read_signature(body)
        compiler = self._compiler(attempted.request, f"body of {_gid(node)}", now)
        options: dict[str, Any] = {}
        first = node.steps[0] if node.kind == CHAIN and isinstance(node.steps, tuple) and node.steps else node
        own = node.options.get("priority", first.options.get("priority"))
        if self._queue.conf.task_inherit_parent_priority and own is None:
            options["priority"] = attempted.message.priority
        compiler.apply(node, (list(results),), options=options)
        return self._sent(compiler.plan)

    def body_failure(
        self,
        attempted: Attempted,
        body: Signature,
        error: ChordError,
        cause: BaseException,
        now: float,
        *,
        revoked: bool,
    ) -> Following:
        """Of a chord with a part that failed, with `cause`: all that waits for its body is told. `revoked`: the body
        was, too, and ends as any call that is."""
        nodes = self._readable([body])
        if not nodes:
            return NOTHING
        node = nodes[0]
        # As in Celery: each member of a group has failed of what the part has failed of.
        exc = cause if revoked or node.kind == GROUP else error
        shown = "".join(traceback.format_exception(exc))
        ending = Ending(states.REVOKED, exc) if revoked else Ending(states.FAILURE, exc, shown)
        later = [call for step in self._readable(node.options.get("chain")) for call in failing(step)]
        calls = [*failing(node), *later]
        compiler = self._compiler(attempted.request, f"failed body of {_gid(node)}", now)
        called = []
        for call, errbacks in () if revoked else errbacks_of(node):
            called += self._errbacks(compiler, errbacks, _request_of(call, attempted.request), ending)
        returns = self._parts.failed(attempted, calls, ending)
        return self._sent(compiler.plan, returns, records=self._parts.records(calls, ending, now), errbacks=called)

    # -- pieces

    def _errbacks(
        self, compiler: Compiler, errbacks: Sequence[Signature], request: Request, ending: Ending
    ) -> list[Errback]:
        """Those to be called here; all others are sent, as tasks that get the id of what failed."""
        failure = Failure(request, ending.exc, ending.traceback)
        called, sent = sorted_out(self._queue, self._readable(errbacks), failure)
        if sent:
            options = {"parent_id": request.id, "root_id": request.root_id or request.id}
            try:
                compiler.apply(group_of(sent), (request.id,), options=options, child=False)
            except AioretryqError as error:
                whose = f"{inline(request.task)}[{inline(request.id)}]"
                logger.error("The errbacks of task %s cannot be sent: %s", whose, error)
        return called

    def _readable(self, signatures: Any) -> list[Node]:
        nodes = []
        for signature in signatures or ():
            try:
                nodes.append(read_signature(signature, lenient=True))
            except AioretryqError as error:
                logger.warning("A part of a workflow that has failed cannot be told so: %s", error)
        return nodes

    def _inherited(self, attempted: Attempted) -> dict[str, Any]:
        request = attempted.request
        options: dict[str, Any] = {"root_id": request.root_id or request.id, "parent_id": request.id}
        if self._queue.conf.task_inherit_parent_priority:
            options["priority"] = attempted.message.priority
        return options

    def _compiler(self, caller: Request, purpose: str, now: float) -> Compiler:
        """Of what is sent on behalf of `caller`; ids are a matter of it and the purpose."""
        numbers = itertools.count()

        def new_id() -> str:
            return str(uuid5(IDS, f"{caller.id}/{purpose}/{next(numbers)}"))

        sender = sender_of(self._queue, caller, ids=new_id, now=now)

        def made(
            name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
        ) -> TaskMessage:
            try:
                return sender.compose(name, args, kwargs, options)
            except AioretryqError:
                raise
            except (TypeError, ValueError, AttributeError) as wrong:  # whoever wrote it can have written anything
                raise ConfigError(f"{name} cannot be called as its signature says: {wrong!r}") from wrong

        return Compiler(replace(sender, compose=made))

    def _sent(
        self,
        plan: Plan | None,
        returns: Sequence[Return] = (),
        *,
        records: Sequence[StoredResult] = (),
        errbacks: Sequence[Errback] = (),
    ) -> Following:
        if plan is None:
            return Following(returns=tuple(returns), records=tuple(records), errbacks=tuple(errbacks))
        if plan.openings and isinstance(self._queue.results.backend, DisabledBackend):
            raise ConfigError("A chord follows, and needs a result backend to count its parts: set result_backend.")
        return Following(
            send=tuple(self._outgoing(plan.messages)),
            children=plan.children,
            trees=tuple((each.group_id, each.structure) for each in plan.openings if each.structure is not None),
            openings=tuple(self._parts.opening(each) for each in plan.openings),
            returns=tuple(returns),
            records=tuple(records),
            errbacks=tuple(errbacks),
        )

    def _outgoing(self, messages: Iterable[TaskMessage]) -> Iterable[Outgoing]:
        limit, total = self._queue.conf.max_payload_bytes, 0
        for message in messages:
            tag = self._tag()
            payload = encode_task(message, tag=tag, max_size=limit)
            total += len(payload)
            if len(payload) > limit or total > AT_ONCE * limit:
                raise PayloadTooLarge(
                    f"What follows from a task is too large: {message.task}[{message.id}] has {len(payload):,} bytes "
                    f"(with all before it {total:,}); max_payload_bytes is {limit:,}."
                )
            yield outgoing(message, payload, tag)


def _gid(body: Node) -> str:
    return body.options.get("group_id") or body.task_id or ""


def _request_of(call: Node, part: Request) -> Request:
    """What an errback may know of a body that was never called."""
    return Request(
        id=call.task_id,
        task=call.task,
        args=list(call.args),
        kwargs=call.kwargs,
        root_id=call.options.get("root_id") or part.root_id,
        parent_id=part.id,
        group=call.options.get("group_id"),
        errbacks=call.options.get("link_error"),
    )
