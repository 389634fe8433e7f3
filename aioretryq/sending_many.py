"""Many calls of one task: `delay_many` and `send_many`. Of a million calls some hundred are in memory at a time."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aioretryq.calling import CallOptions, compose
from aioretryq.context import current_run
from aioretryq.errors import ConfigError, NotOpenError, PartlySent, PublishError, UnavailableError
from aioretryq.exchanging import packed
from aioretryq.linking import with_signatures
from aioretryq.plain_calls import Calls
from aioretryq.publishing import Terms
from aioretryq.results.many import ManyResults
from aioretryq.sending import send

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aioretryq.app import TaskQueue
    from aioretryq.context import Request
    from aioretryq.message import Outgoing, TaskMessage
    from aioretryq.publishing import Sending
    from aioretryq.results.result import AsyncResult
    from aioretryq.task import Task

CHUNK = 250
"""Calls that are encoded without a pause for others: 2 ms."""

CHUNK_BYTES = 2**20

AHEAD = 2
"""Chunks that wait for the broker while the next one is encoded."""

Call = Sequence[Any] | Mapping[str, Any]
Arguments = tuple[Sequence[Any], Mapping[str, Any]]


@dataclass(slots=True)
class _Chunk:
    """Calls that travel together. `composed` where each had to be made by itself, or somebody is told of them."""

    terms: Terms
    ignored: bool = False
    ids: list[str] = field(default_factory=list)
    messages: list[Outgoing] = field(default_factory=list)
    composed: list[TaskMessage] = field(default_factory=list)
    sending: Sending | None = None


async def send_many(
    queue: TaskQueue,
    name: str,
    calls: Iterable[Call],
    kwargs: Mapping[str, Any] | None,
    *,
    task: Task[Any, Any] | None,
    options: Mapping[str, Any],
) -> Sequence[AsyncResult[Any]]:
    """What `Task.delay_many` and `TaskQueue.send_many` share."""
    call = CallOptions.of(with_signatures(options, name), name)
    if call.task_id is not None:
        raise ConfigError(f"Many calls of {name} cannot share one task_id; leave it out.")
    arguments = _checked(calls, kwargs or {}, name, task)
    if queue.conf.task_always_eager:
        return [await send(queue, name, *each, task=task, options=options) for each in arguments]
    return await _Stream(queue, name, task, call).send(arguments)


def _checked(
    calls: Iterable[Call], kwargs: Mapping[str, Any], name: str, task: Task[Any, Any] | None
) -> Iterator[Arguments]:
    """The arguments of each call. Of what can be read twice, all are looked at before the first is sent."""
    check = _no_check if task is None else task.check_arguments
    if isinstance(calls, str | bytes | Mapping):
        raise TypeError(f"Calls of {name} are a list, or any other iterable, of their arguments; not {calls!r:.100}.")
    if isinstance(calls, Sequence):
        for each in calls:
            check(*_arguments(each, kwargs, name))

    def read() -> Iterator[Arguments]:
        for each in calls:
            arguments = _arguments(each, kwargs, name)
            check(*arguments)
            yield arguments

    return read()


def _no_check(args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
    """What is sent by its name only: nobody here knows what it takes."""


def _arguments(call: Call, kwargs: Mapping[str, Any], name: str) -> Arguments:
    if isinstance(call, tuple | list):
        return call, kwargs
    if isinstance(call, Mapping):
        return (), {**kwargs, **call}
    raise TypeError(
        f"A call of {name} is a tuple of its arguments, or a dictionary of keyword arguments; not {call!r:.100}."
    )


class _Stream:
    """Chunks on their way. While the broker has some, the next one is made."""

    def __init__(self, queue: TaskQueue, name: str, task: Task[Any, Any] | None, options: CallOptions) -> None:
        self._queue = queue
        self._name = name
        self._task = task
        self._options = options
        self._connections = queue.connections
        self._run = current_run.get()
        self._results: ManyResults[Any] = ManyResults(queue)
        self._failed: dict[int, BaseException] = {}
        self._read = self._tried = self._settled = 0
        self._broken: Exception | None = None  # the next call cannot be read, or not be sent

    async def send(self, calls: Iterator[Arguments]) -> ManyResults[Any]:
        window: deque[_Chunk] = deque()
        try:
            await self._send_chunks(calls, window)
        except Exception as error:  # a call that cannot be sent, or an error of the iterable's own
            if not self._tried:
                raise
            self._failed[self._read] = error
            await self._settle(window, 0)
            raise self._partly_sent() from error
        finally:  # where it was cancelled
            for chunk in window:
                if chunk.sending is not None:
                    chunk.sending.entry.answer.cancel()  # dropped, unless it is under way
        if self._failed:
            raise self._partly_sent() from self._failed[min(self._failed)]
        return self._results

    async def _send_chunks(self, calls: Iterator[Arguments], window: deque[_Chunk]) -> None:
        publisher = self._connections.publisher
        while not self._failed and (chunk := self._packed(calls)).ids:
            what = f"{len(chunk.ids)} calls of {self._name} [{chunk.ids[0]}, ...]"
            chunk.sending = publisher.begin(chunk.messages, what, chunk.terms)
            window.append(chunk)
            self._tried += len(chunk.ids)
            if self._broken is not None:
                raise self._broken
            await asyncio.sleep(0)  # the sender's turn: what is handed in travels while the next chunk is made
            await self._settle(window, AHEAD)
        await self._settle(window, 0)

    def _partly_sent(self) -> PartlySent:
        first = min(self._failed)
        return PartlySent(
            f"Of the calls of {self._name}, {len(self._results):,} have been sent; number {first:,} was not: "
            f"{self._failed[first]}",
            results=self._results,
            failed=self._failed,
            tried=self._tried,
        )

    def _packed(self, calls: Iterator[Arguments]) -> _Chunk:
        # Looked up for each chunk: settings may change, and time goes on.
        conf, caller = self._queue.conf, None if self._run is None else self._run.request
        each = conf.task_send_sent_event or (caller is not None and conf.task_inherit_parent_priority)
        alike = None if each else Calls.of(self._name, self._task, conf, self._options)
        chunk, room = _Chunk(Terms.of(self._options, conf)), CHUNK_BYTES
        try:
            for arguments in calls:
                if alike is not None:
                    task_id, message = alike.pack(*arguments, caller)
                else:
                    task_id, message = self._compose(arguments, chunk, caller)
                chunk.ids.append(task_id)
                chunk.messages.append(message)
                self._read += 1
                room -= len(message.body)
                if len(chunk.ids) == CHUNK or room <= 0:
                    break
        except Exception as error:
            if not chunk.ids or not self._tried:
                raise
            self._broken = error  # once those before it have been sent, for an iterator cannot be read again
        chunk.ignored = alike.ignored if alike is not None else any(each.ignore_result for each in chunk.composed)
        return chunk

    def _compose(self, arguments: Arguments, chunk: _Chunk, caller: Request | None) -> tuple[str, Outgoing]:
        conf, now = self._queue.conf, time.time()
        message = compose(
            self._name, arguments, self._options, task=self._task, settings=conf, caller=caller, now=now
        )
        chunk.composed.append(message)
        return message.id, packed(message, conf)

    async def _settle(self, window: deque[_Chunk], left: int) -> None:
        while len(window) > left:
            chunk = window[0]
            assert chunk.sending is not None
            try:
                await self._connections.publisher.sent(chunk.sending)
            except PublishError as error:
                await self._settle_each(chunk, error)
            else:
                self._note(chunk)
            self._settled += len(chunk.ids)
            window.popleft()

    async def _settle_each(self, chunk: _Chunk, error: PublishError) -> None:
        """A parcel was not sent. One that was refused may have been so for one message in it."""
        if isinstance(error.__cause__, UnavailableError | TimeoutError | NotOpenError):
            self._failed.update((self._settled + number, error) for number in range(len(chunk.ids)))
            return
        for number, (task_id, message) in enumerate(zip(chunk.ids, chunk.messages, strict=True)):
            one = _Chunk(chunk.terms, chunk.ignored, [task_id], [message], chunk.composed[number : number + 1])
            try:
                await self._connections.publisher.publish(message, f"Task {self._name}[{task_id}]", chunk.terms)
            except PublishError as refusal:
                self._failed[self._settled + number] = refusal
            else:
                self._note(one)

    def _note(self, sent: _Chunk) -> None:
        self._results.add(sent.ids, ignored=sent.ignored)
        if self._queue.conf.task_send_sent_event:
            for message in sent.composed:
                self._connections.events.sent(message)
        if self._run is not None and self._run.task.trail:
            self._run.request.children += [((task_id, None), None) for task_id in sent.ids]
