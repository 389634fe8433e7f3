"""Sends what was planned: chords are opened first, then messages go in batches, the next one made while one travels.

A workflow of one batch is sent in one step. A larger one is accounted for: its chords say that they are being sent,
so that a worker fails them if their sender dies; and when it fails here, `PartlySent` says what was sent.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aioretryq.backends.disabled import DisabledBackend
from aioretryq.context import current_run
from aioretryq.errors import (
    AioretryqError,
    BackendError,
    ChordError,
    ConfigError,
    NotOpenError,
    PartlySent,
    PublishError,
    UnavailableError,
)
from aioretryq.exchanging import outgoing, packed
from aioretryq.ids import Ids, new_id
from aioretryq.message import ChordClaim, ChordPart
from aioretryq.protocol.task import too_large
from aioretryq.protocol.template import Template
from aioretryq.publishing import Terms
from aioretryq.results.many import ManyResults
from aioretryq.workflows.check import NO_COUNTING
from aioretryq.workflows.openings import opened
from aioretryq.workflows.plan import Like

if TYPE_CHECKING:
    from collections.abc import Coroutine, Iterable, Iterator, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.config import Settings
    from aioretryq.message import Outgoing, TaskMessage
    from aioretryq.publishing import Sending
    from aioretryq.workflows.plan import Batch, Opening, Plan

PARCEL = 2**20
"""Bytes that travel in one step."""

AHEAD = 2
"""Parcels that wait for the broker while the next one is made."""

SLICE = 0.005
"""Seconds for which the event loop may stand still while messages are made."""

LAST_WORDS = 5.0
"""Seconds for what is still to be said of a chord by a sender that was cancelled."""

SENDING = 60.0
"""Seconds after which the sender of a header counts as dead, unless it has spoken again; more, where one sending may
take longer."""


async def send(queue: TaskQueue, plan: Plan) -> None:
    """Send it all. Something was sent if this raises PartlySent, and perhaps with a PublishError that says so."""
    if (plan.openings or (plan.bulk and plan.bulk.opening)) and isinstance(queue.results.backend, DisabledBackend):
        raise ConfigError(NO_COUNTING)
    plan.take()
    await _Dispatch(queue, plan).send()
    run = current_run.get()
    if run is not None and run.task.trail:
        run.request.children += plan.children
        if plan.bulk is not None and plan.bulk_is_child:
            run.request.children.append(plan.bulk.handle.as_tuple())


@dataclass(slots=True)
class _Parcel:
    messages: list[Outgoing]
    items: list[TaskMessage | Like]
    sending: Sending | None = None


class _Dispatch:
    def __init__(self, queue: TaskQueue, plan: Plan) -> None:
        self._queue = queue
        self._plan = plan
        self._terms = Terms.of(plan.call, queue.conf)
        self._packing = _Packing(queue.conf, heavy=plan.heavy)
        self._window: deque[_Parcel] = deque()
        self._sent = Ids()
        self._tried = 0
        self._token = new_id()
        self._open: dict[str, Opening] = {}
        """Chords whose headers are not entirely sent."""
        self._speaking = asyncio.Lock()
        self._failed: Exception | None = None
        """Why nothing more is to be sent."""

    async def send(self) -> None:
        steps = self._plan.steps()
        batch = await self._next(steps)
        if batch is None:
            return
        parcels = await self._packing.parcels(batch.messages)
        if batch.last and len(parcels) == 1:
            await self._send_at_once(batch.openings, parcels[0])
            return
        await self._check_rest()
        try:
            await self._send_all(batch, parcels, steps)
        except Exception as error:
            await self._give_up()
            if not self._tried:
                raise
            raise self._partly_sent(error) from error
        except asyncio.CancelledError:
            self._drop()
            await _in_any_case(self._abandon())
            raise

    async def _next(self, steps: Iterator[Batch | None]) -> Batch | None:
        for batch in steps:
            if batch is not None:
                return batch
            await self._packing.turns.give()
        return None

    async def _check_rest(self) -> None:
        """Of a list all is known before the first of it is sent."""
        bulk = self._plan.bulk
        for suspect in (bulk and bulk.suspects) or ():
            if suspect is None:
                await self._packing.turns.give()
            else:
                await self._packing.parcels(suspect.messages)

    async def _send_at_once(self, openings: Sequence[Opening], parcel: _Parcel) -> None:
        try:
            await self._begin(openings, None)
            self._hand_in(parcel, at_once=True)
            await self._settle(0)
        except PublishError as error:
            if not error.maybe_sent:
                await self._withdraw(openings)
            raise
        except asyncio.CancelledError:
            if openings and (parcel.sending is None or not parcel.sending.may_have_arrived):
                await _in_any_case(self._withdraw(openings))
            raise

    async def _send_all(self, batch: Batch | None, parcels: list[_Parcel], steps: Iterator[Batch | None]) -> None:
        speaker = asyncio.create_task(self._speak())
        try:
            while batch is not None:
                await self._begin(batch.openings, self._patience)
                await self._seal(batch.seals)
                for parcel in parcels:
                    self._check_open()
                    self._hand_in(parcel)
                    await asyncio.sleep(0)  # the sender's turn: this one travels while the next is made
                    await self._settle(AHEAD)
                if batch.sent:
                    await self._settle(0)
                    await self._ended(batch.sent)
                batch = await self._next(steps)
                parcels = [] if batch is None else await self._packing.parcels(batch.messages)
            await self._settle(0)
        finally:
            speaker.cancel()

    def _drop(self) -> None:
        """What is not under way."""
        for parcel in self._window:
            if parcel.sending is not None:
                parcel.sending.entry.answer.cancel()

    # -- chords

    @property
    def _patience(self) -> float:
        return max(SENDING, 2 * self._terms.limit)

    async def _begin(self, openings: Sequence[Opening], sending: float | None) -> None:
        results = self._queue.results
        for opening in openings:
            if opening.structure is not None:
                await results.save_group(opening.group_id, opening.structure)
        if openings:
            chords = [opened(each, self._queue.conf, sending, self._token) for each in openings]
            await results.ensure(lambda: results.backend.open_chords(chords))
        if sending is not None:
            self._open.update((each.group_id, each) for each in openings)

    async def _speak(self) -> None:
        """Say that we are still there, however long it takes to make what is to be sent."""
        while True:
            await asyncio.sleep(self._patience / 4)
            try:
                async with self._speaking:
                    await self._amend(list(self._open.values()), self._patience)
            except AioretryqError as error:
                self._failed = error
                return

    def _check_open(self) -> None:
        if self._failed is not None:
            raise self._failed

    async def _seal(self, seals: Sequence[Opening]) -> None:
        """Say what is known by now."""
        for seal in seals:
            if seal.structure is not None:
                await self._queue.results.save_group(seal.group_id, seal.structure)
        async with self._speaking:
            await self._amend(seals, self._patience)
            self._open.update((seal.group_id, seal) for seal in seals)

    async def _ended(self, openings: Sequence[Opening]) -> None:
        async with self._speaking:
            for opening in openings:
                self._open.pop(opening.group_id, None)
            await self._amend(openings, None)

    async def _amend(self, openings: Sequence[Opening], sending: float | None) -> None:
        """ChordError where one has failed that could not be complete: nobody knew how many parts it has."""
        results = self._queue.results
        chords = [opened(each, self._queue.conf, sending, self._token) for each in openings]
        if not chords:
            return
        answers = await results.ensure(lambda: results.backend.amend_chords(chords))
        for chord, is_open in zip(chords, answers, strict=True):
            known = self._open.get(chord.group_id)
            if not is_open and known is not None and known.size is None:
                raise ChordError(
                    f"Chord {chord.group_id} has failed already: nothing was heard of its sender, this process, for "
                    f"{self._patience:g} s."
                )

    async def _withdraw(self, openings: Sequence[Opening]) -> None:
        """Of a workflow that was not sent at all: nobody is to be told that it has failed, but its sender."""
        backend, conf = self._queue.results.backend, self._queue.conf
        try:
            await self._amend(openings, 0.0)
            for each in openings:
                part = ChordPart(each.group_id, each.group_id, None, b"", new_id(), conf.lease, why="unsent")
                if (await backend.count_parts([part]))[0]:
                    await backend.close_chords([ChordClaim(each.group_id, part.token, failed=True)])
        except (BackendError, UnavailableError, NotOpenError):
            pass  # then a worker says so, and it is in nobody's way

    async def _give_up(self) -> None:
        """What is under way is waited for, to know what becomes of it."""
        while self._window:
            with suppress(AioretryqError):
                await self._settle(0)
        await self._abandon()

    async def _abandon(self) -> None:
        """Nobody sends the rest of these headers: a worker is to fail them now."""
        try:
            async with self._speaking:
                await self._amend(list(self._open.values()), 0.0)
        except (BackendError, UnavailableError, NotOpenError, ChordError):
            pass  # then they are failed when nothing has been heard of us for long enough, or have been

    def _partly_sent(self, error: Exception) -> PartlySent:
        sent = len(self._sent)
        return PartlySent(
            f"Of a workflow {sent:,} messages have been sent, and the rest was not: {error} "
            "Those will run; what waits for all of them will fail.",
            results=ManyResults(self._queue, self._sent),
            failed={sent: error},
            tried=self._tried,
        )

    # -- messages

    def _hand_in(self, parcel: _Parcel, *, at_once: bool = False) -> None:
        first = parcel.items[0]
        name = first.pattern.task if isinstance(first, Like) else first.task
        what = f"Task {name}[{first.id}]"
        if len(parcel.items) > 1:
            what += f", with {len(parcel.items) - 1} more of a workflow,"
        parcel.sending = self._queue.connections.publisher.begin(parcel.messages, what, self._terms, at_once=at_once)
        self._window.append(parcel)
        self._tried += len(parcel.items)

    async def _settle(self, left: int) -> None:
        connections = self._queue.connections
        while len(self._window) > left:
            parcel = self._window[0]
            assert parcel.sending is not None
            try:
                await connections.publisher.sent(parcel.sending)
            except AioretryqError:
                self._window.popleft()  # asked again, it would be tried again
                raise
            self._sent.extend(item.id for item in parcel.items)
            if self._queue.conf.task_send_sent_event:
                for item in parcel.items:
                    connections.events.sent(item.message() if isinstance(item, Like) else item)
            self._window.popleft()


_unfinished: set[asyncio.Task[None]] = set()


async def _in_any_case(work: Coroutine[Any, Any, None]) -> None:
    """Not given up with whoever waits for it, but soon."""

    async def soon() -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS):
                await work

    task = asyncio.create_task(soon())
    _unfinished.add(task)
    task.add_done_callback(_unfinished.discard)
    await asyncio.shield(task)


class _Turns:
    """Lets others run now and then, in a loop that would not."""

    def __init__(self) -> None:
        self._since = time.perf_counter()

    async def give(self) -> None:
        if time.perf_counter() - self._since > SLICE:
            await asyncio.sleep(0)
            self._since = time.perf_counter()


class _Packing:
    """Makes messages ready to be sent: those that are like another with what that one has in common encoded once."""

    def __init__(self, settings: Settings, *, heavy: bool) -> None:
        self._settings = settings
        self._heavy = heavy
        self._limit = settings.max_payload_bytes
        self._template: Template | None = None
        self._pattern: TaskMessage | None = None
        self.turns = _Turns()

    async def parcels(self, items: Iterable[TaskMessage | Like]) -> list[_Parcel]:
        """All of a batch. EncodeError, and PayloadTooLarge."""
        made: list[_Parcel] = []
        room = 0
        for item in items:
            message = await self._packed(item)
            room -= len(message.body)
            if not made or room < 0:
                made.append(_Parcel([], []))
                room = PARCEL - len(message.body)
            made[-1].messages.append(message)
            made[-1].items.append(item)
            await self.turns.give()
        return made

    async def _packed(self, item: TaskMessage | Like) -> Outgoing:
        if isinstance(item, Like):
            return self._like(item)
        if self._heavy:
            return await asyncio.to_thread(packed, item, self._settings)
        return packed(item, self._settings)

    def _like(self, item: Like) -> Outgoing:
        pattern = item.pattern
        if self._template is None or self._pattern is not pattern:
            self._template, self._pattern = Template(pattern, new_id(), max_size=self._limit), pattern
        tag = new_id()
        body = self._template.encode(
            item.id,
            (item.args, item.kwargs),
            tag=tag,
            root_id=item.root_id,
            parent_id=pattern.parent_id,
            group_index=item.group_index,
        )
        if len(body) > self._limit:
            raise too_large(f"{pattern.task}[{item.id}]", "its message has", len(body), self._limit)
        return outgoing(pattern, body, tag, fresh=True)
