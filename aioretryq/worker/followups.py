"""What follows from how a task ended: callbacks, the next step of its chain, its part of a chord, errbacks. Pure.

Ids of what the sender gave none are made of the id of the task it follows from: should a worker die between storing
the result and acknowledging the message, the next one sends the same again.
"""

from __future__ import annotations

import itertools
import logging
import traceback
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid5

from msgspec import Struct, field

from aioretryq import states
from aioretryq.backends.disabled import DisabledBackend
from aioretryq.calling import REPLY_TO, compose, options_of_signature
from aioretryq.context import Request
from aioretryq.errors import AioretryqError, ChordError, ConfigError, NotRegistered, PayloadTooLarge
from aioretryq.exchanging import outgoing
from aioretryq.message import ChordOpening, ChordPart
from aioretryq.protocol import jsontypes
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument
from aioretryq.protocol.saferepr import inline
from aioretryq.protocol.signature import GROUP, Node, group_of, read_signature, read_signatures
from aioretryq.protocol.task import encode_task, format_moment
from aioretryq.workflows.errbacks import Errback, Failure, sorted_out
from aioretryq.workflows.plan import Compiler
from aioretryq.workflows.shapes import errbacks_of, failing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.message import ChordClaim, Outgoing, Signature, StoredResult, TaskMessage
    from aioretryq.task import Task
    from aioretryq.worker.settlement import Attempted
    from aioretryq.workflows.plan import Plan

logger = logging.getLogger("aioretryq.worker")

IDS = UUID("0f6c2a5e-6a44-4c1d-9b0c-5d3f6a7e8b91")
"""The namespace of ids that are made here."""

AT_ONCE = 4
"""Times `max_payload_bytes`: what follows from one task may be so large altogether. It goes in one step."""


OF_LEASE = 1 / 8
"""The right to send a chord's body ends while the message is still leased, of which at least a quarter is left when
results are stored. After a crash a Celery worker may be the next to get the message, and it waits for nobody: finding
the right taken, it would drop the message, and the body with it."""


LARGE = 100_000
"""Bytes of a message: a few hundred signatures."""


class Ending(Struct, frozen=True):
    """How a task ended that did not succeed."""

    state: str
    exc: BaseException
    traceback: str | None = None


class Return(Struct, frozen=True):
    """A part of a chord's header, and the body it is for."""

    part: ChordPart
    body: Signature


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
    return bool(message.callbacks or message.errbacks or message.chain or message.chord)


def is_large(attempted: Attempted) -> bool:
    """Whether a thread has to find out what follows: the event loop would stand still."""
    return len(attempted.delivery.body) > LARGE and is_part_of_workflow(attempted.message)


def check_workflow(message: TaskMessage) -> None:
    """ProtocolError if what follows from it cannot be read: better before the task runs than after it."""
    for name in ("callbacks", "errbacks", "chain"):
        read_signatures(getattr(message, name), name)
    if message.chord:
        read_signature(message.chord)


class Followups:
    """Decides by the tasks and settings of a queue."""

    def __init__(self, queue: TaskQueue, tag: Callable[[], str]) -> None:
        self._queue = queue
        self._tag = tag

    def success(self, attempted: Attempted, value: Any, now: float) -> Following:
        """Raises AioretryqError where it cannot be sent: then the task has failed."""
        message = attempted.message
        if not is_part_of_workflow(message):
            return NOTHING
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
        returns = self._own_return(attempted, states.SUCCESS, value)
        return self._sent(compiler.plan, returns)

    def failure(self, attempted: Attempted, ending: Ending, now: float) -> Following:
        """Never raises: what cannot be read or sent is left out, with a line in the log."""
        message = attempted.message
        if not is_part_of_workflow(message):
            return NOTHING
        calls = [call for node in self._readable(message.chain) for call in failing(node)]
        data = exception_to_data(ending.exc)
        returns = [*self._own_return(attempted, ending.state, data), *self._returns(attempted, calls, ending)]
        called: list[Errback] = []
        plan = None
        if ending.state == states.FAILURE and message.errbacks:
            compiler = self._compiler(attempted.request, "failed", now)
            called = self._errbacks(compiler, message.errbacks, attempted.request, ending)
            plan = compiler.plan
        records = self._records(calls, ending, now)
        return self._sent(plan, returns, records=records, errbacks=called)

    # -- bodies of chords

    def body(self, attempted: Attempted, body: Signature, results: Sequence[Any], now: float) -> Following:
        """Of a chord all parts of which succeeded. Raises AioretryqError where it cannot be sent."""
        node = read_signature(body)
        compiler = self._compiler(attempted.request, f"body of {_gid(node)}", now)
        options: dict[str, Any] = {}
        if self._queue.conf.task_inherit_parent_priority and node.options.get("priority") is None:
            options["priority"] = attempted.message.priority
        compiler.apply(node, (list(results),), options=options)
        return self._sent(compiler.plan)

    def body_failure(
        self, attempted: Attempted, body: Signature, error: ChordError, cause: BaseException, now: float
    ) -> Following:
        """Of a chord with a part that failed, with `cause`: all that waits for its body is told."""
        nodes = self._readable([body])
        if not nodes:
            return NOTHING
        node = nodes[0]
        # As in Celery: each member of a group has failed of what the part has failed of.
        exc = cause if node.kind == GROUP else error
        ending = Ending(states.FAILURE, exc, "".join(traceback.format_exception(exc)))
        later = [call for step in self._readable(node.options.get("chain")) for call in failing(step)]
        calls = [*failing(node), *later]
        compiler = self._compiler(attempted.request, f"failed body of {_gid(node)}", now)
        called = []
        for call, errbacks in errbacks_of(node):
            called += self._errbacks(compiler, errbacks, _request_of(call, attempted.request), ending)
        returns = self._returns(attempted, calls, ending)
        return self._sent(compiler.plan, returns, records=self._records(calls, ending, now), errbacks=called)

    # -- parts

    def _own_return(self, attempted: Attempted, state: str, result: Any) -> list[Return]:
        message = attempted.message
        if not message.chord or not message.group:
            return []
        who = (message.group, message.id, message.group_index)
        return [self._return(attempted, message.chord, who, [1, message.id, state, result])]

    def _returns(self, attempted: Attempted, calls: Iterable[Node], ending: Ending) -> list[Return]:
        """Of parts that will never run."""
        made = []
        for call in calls:
            chord, group_id, task_id = (call.options.get(name) for name in ("chord", "group_id", "task_id"))
            if chord and group_id and task_id:
                who = (group_id, task_id, call.options.get("group_index"))
                content = [1, task_id, ending.state, exception_to_data(ending.exc)]
                made.append(self._return(attempted, chord, who, content))
        return made

    def _return(
        self, attempted: Attempted, chord: Signature, who: tuple[str, str, int | None], content: list[Any]
    ) -> Return:
        conf = self._queue.conf
        group_id, task_id, index = who
        part = ChordPart(
            group_id=group_id,
            task_id=task_id,
            index=index,
            content=jsontypes.dumps(content),
            token=uuid5(IDS, f"{group_id}/{task_id}/{index}").hex,
            hold=min(max(5.0, 2 * (conf.result_chord_join_timeout or 5.0)), conf.lease * OF_LEASE),
            ttl=self._chord_life,
            returns=not attempted.acked,
        )
        return Return(part, chord)

    @property
    def _chord_life(self) -> float | None:
        conf = self._queue.conf
        return (conf.result_expires if conf.result_chord_expires is None else conf.result_chord_expires) or None

    # -- pieces

    def _records(self, calls: Iterable[Node], ending: Ending, now: float) -> list[StoredResult]:
        data, done = exception_to_data(ending.exc), format_moment(now)
        return [
            self._queue.results.record(
                ResultDocument(
                    task_id=call.options["task_id"],
                    status=ending.state,
                    result=data,
                    traceback=ending.traceback,
                    children=[],
                    date_done=done,
                    group_id=call.options.get("group_id"),
                    parent_id=call.options.get("parent_id"),
                )
            )
            for call in calls
            if call.options.get("ignore_result") is not True
        ]

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

    def _known(self, name: str) -> Task[Any, Any] | None:
        try:
            return self._queue.find_task(name)
        except NotRegistered:
            return None

    def _readable(self, signatures: Any) -> list[Node]:
        nodes = []
        for signature in signatures or ():
            try:
                nodes.append(read_signature(signature))
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

        def made(
            name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], options: Mapping[str, Any]
        ) -> TaskMessage:
            call = options_of_signature(options, name)
            task = self._known(name)
            conf = self._queue.conf
            return compose(name, (args, kwargs), call, task=task, settings=conf, caller=caller, now=now)

        return Compiler(made, new_id, REPLY_TO)

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
            openings=tuple(ChordOpening(each.group_id, each.size, self._chord_life) for each in plan.openings),
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
