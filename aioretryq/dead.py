"""The dead letters of a queue: look at them, send them again, keep them elsewhere, delete them."""

from __future__ import annotations

import asyncio
import base64
import functools
import time
from typing import TYPE_CHECKING, Any, TypeVar, Unpack
from uuid import uuid4

import anyio

from aioretryq.backends.disabled import DisabledBackend
from aioretryq.dead_messages import LAST, DeadMessage, Filters, Selection, first_attempt, read_entry
from aioretryq.errors import BrokerUnavailable, ConfigError, ProtocolError, UnknownDeadLetter
from aioretryq.message import DeadEntry, Outgoing
from aioretryq.protocol import envelope
from aioretryq.protocol.deadletter import DeadLetter, entry_id
from aioretryq.protocol.saferepr import saferepr
from aioretryq.protocol.task import decode_task
from aioretryq.retry import PUBLISH_POLICY, retrying

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence

    from aioretryq.app import TaskQueue

T = TypeVar("T")

FIRST_PAGE, LARGEST_PAGE, PAGE_BYTES = 16, 256, 2**20
"""Pages grow while they are small in bytes and shrink when they are not: entries may be many, or huge."""

SHOWN_CANDIDATES = 5
LONGEST_REPR = 10_000


class _Pace:
    """At most `rate` turns a second, evenly spaced: what was missed is not caught up with."""

    def __init__(
        self, rate: float | None, clock: Callable[[], float], sleep: Callable[[float], Awaitable[None]]
    ) -> None:
        if rate is not None and not (isinstance(rate, int | float) and 0 < rate < float("inf")):
            raise ConfigError(f"rate is messages a second, more than 0, not {rate!r}.")
        self._interval = None if rate is None else 1 / rate
        self._clock, self._sleep = clock, sleep
        self._next = 0.0

    async def turn(self) -> None:
        if self._interval is None:
            return
        now = self._clock()
        if now < self._next:
            await self._sleep(self._next - now)
        self._next = max(self._next, now) + self._interval


class DeadLetters:
    """The dead letters of a queue's broker: `queue.dead_letters`, inside of `async with queue:`.

    Everything goes page by page, oldest first, and ends with the newest entry that was there when it began: a
    message that comes back while others are sent again is left for the next time. `clock`, `ticks` and `sleep` are
    there for tests.
    """

    def __init__(
        self,
        app: TaskQueue,
        *,
        clock: Callable[[], float] = time.time,
        ticks: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = anyio.sleep,
    ) -> None:
        self._app = app
        self._clock = clock
        self._ticks = ticks
        self._sleep = sleep

    # -- looking

    async def list(self, **filters: Unpack[Filters]) -> AsyncIterator[DeadMessage]:
        """The entries that fit, oldest first."""
        async for page in self._pages(filters):
            for found in page:
                yield found

    async def get(self, entry: str) -> DeadMessage:
        """The entry of that id, or the only one whose id begins like that; else UnknownDeadLetter."""
        broker = self._app.broker
        if not isinstance(entry, str) or not entry:
            raise UnknownDeadLetter(f"The id of a dead letter, or its beginning, is a text; not {entry!r}.")
        content = await self._ask(lambda: broker.dead_entry(entry))
        if content is not None:
            return self._read(entry, content)
        page = await self._ask(lambda: broker.dead(after=entry, limit=SHOWN_CANDIDATES + 1))
        found = [each for each in page if each.id.startswith(entry)]
        if len(found) == 1:
            return read_entry(found[0], self._clock())
        if not found:
            async for message in self.list():  # the log speaks of tasks: theirs will do
                if message.task_id == entry:
                    return message
            raise UnknownDeadLetter(
                f"There is no dead letter whose id begins with {entry!r}, and none of a task with that id, "
                f"in {broker.display_url} (any more)."
            )
        shown = [each.id for each in found[:SHOWN_CANDIDATES]] + ["..."] * (len(found) > SHOWN_CANDIDATES)
        raise UnknownDeadLetter(f"{entry!r} is how several ids begin; give more of it: {', '.join(shown)}")

    async def count(self, **filters: Unpack[Filters]) -> int:
        """How many entries fit."""
        if all(value is None for value in filters.values()):
            return await self._ask(self._app.broker.dead_count)
        return sum([len(page) async for page in self._pages(filters)])

    async def export(self, **filters: Unpack[Filters]) -> AsyncIterator[dict[str, Any]]:
        """The entries that fit as values that JSON can hold; see `as_dict`."""
        async for found in self.list(**filters):
            yield self.as_dict(found)

    def as_dict(self, found: DeadMessage) -> dict[str, Any]:
        """All fields of an entry, `payload` in base64; `args` and `kwargs` for people, None where unknown."""
        args, kwargs = self._arguments(found.payload)
        fields = {name: getattr(found, name) for name in DeadLetter.__slots__ if name != "payload"}
        payload = base64.b64encode(found.payload).decode()
        return {"id": found.id, **fields, "args": args, "kwargs": kwargs, "payload": payload}

    def _arguments(self, payload: bytes) -> tuple[str | None, str | None]:
        try:
            message = decode_task(payload, accept_content=self._app.conf.accept_content)
            return saferepr(tuple(message.args), LONGEST_REPR), saferepr(message.kwargs, LONGEST_REPR)
        except ProtocolError:
            return self._announced(payload)

    def _announced(self, payload: bytes) -> tuple[str | None, str | None]:
        """What the sender says of arguments that cannot be read here: pickled ones, say."""
        try:
            headers = envelope.decode(payload).headers
        except ProtocolError:
            return None, None
        args, kwargs = headers.get("argsrepr"), headers.get("kwargsrepr")
        return args if isinstance(args, str) else None, kwargs if isinstance(kwargs, str) else None

    # -- doing something

    async def replay(
        self,
        ids: Iterable[str] | None = None,
        *,
        rate: float | None = None,
        to: str | None = None,
        progress: Callable[[int], None] | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Send the messages again, those of `ids` (their beginnings do) or all that fit; returns how many were sent.

        An entry is deleted and its message sent in one atomic step: stopping at any moment (cancellation, Ctrl-C, a
        crash), or doing the same twice at once, loses and doubles nothing. A task goes as a new first attempt with
        its old id: no retries used, no eta, no `expires` that has passed; its stored result is forgotten. Bytes that
        are no task go as they are. `rate` is messages a second, evenly spaced; `to` another queue; `progress` is
        called with how many were sent so far.

        Entries that cannot be read stay; one among `ids` raises ProtocolError, before anything is sent.
        """
        if to is not None and (not isinstance(to, str) or not to):
            raise ConfigError(f"to is the name of a queue, not {to!r}.")
        pace = _Pace(rate, self._ticks, self._sleep)
        sent = 0
        async for page in self._chosen(ids, filters, readable=True):
            found = [each for each in page if each.readable]
            for batch in [found] if rate is None else [[each] for each in found]:
                if rate is not None:
                    await pace.turn()
                    # The page was read a while ago: another operator may have sent this one, and its new result
                    # must not be forgotten.
                    batch = [each for each in batch if await self._is_there(each)]
                sending = asyncio.ensure_future(self._send(batch, to))
                try:
                    await asyncio.shield(sending)
                finally:
                    # Carried out also when this is cancelled: results would be forgotten, and nothing sent.
                    await asyncio.wait([sending])
                    sent += sending.result()
                    if progress is not None:
                        progress(sent)
        return sent

    async def purge(self, ids: Iterable[str] | None = None, **filters: Unpack[Filters]) -> int:
        """Delete the entries of `ids` (their beginnings do), or all that fit; returns how many were deleted."""
        deleted = 0
        async for page in self._chosen(ids, filters, readable=False):
            deleted += await self._exhume([(each.id, None) for each in page])
        return deleted

    async def _send(self, batch: Sequence[DeadMessage], to: str | None) -> int:
        now, accept = self._clock(), self._app.conf.accept_content
        taken: list[tuple[str, Outgoing | None]] = []
        forgotten = []
        for found in batch:
            tag = str(uuid4())
            body, task_id = first_attempt(found.payload, tag=tag, now=now, queue=to, accept_content=accept)
            taken.append((found.id, Outgoing(to or found.queue, body, tag, found.priority)))
            if task_id is not None:
                forgotten.append(task_id)
        # Before the message is there: a final result is never overwritten, and the first worker may be quick.
        results = self._app.results
        if forgotten and not isinstance(results.backend, DisabledBackend):
            await results.forget(forgotten)
        return await self._exhume(taken)

    async def _is_there(self, found: DeadMessage) -> bool:
        return await self._ask(functools.partial(self._app.broker.dead_entry, found.id)) is not None

    async def _exhume(self, taken: Sequence[tuple[str, Outgoing | None]]) -> int:
        return sum(await self._ask(lambda: self._app.broker.exhume(taken))) if taken else 0

    # -- reading

    async def _chosen(
        self, ids: Iterable[str] | None, filters: Filters, *, readable: bool
    ) -> AsyncIterator[Sequence[DeadMessage]]:
        if ids is None:
            async for page in self._pages(filters):
                yield page
            return
        if any(value is not None for value in filters.values()):
            raise ConfigError("Give ids or filters, not both.")
        names: dict[str, None] = {}
        for given in [ids] if isinstance(ids, str) else ids:  # all of them first: a wrong one changes nothing
            found = await self.get(given)
            if readable and not found.readable:
                raise ProtocolError(f"{found.id} cannot be sent again: {found.error} Export it, or purge it.")
            names[found.id] = None
        for name in names:
            content = await self._ask(functools.partial(self._app.broker.dead_entry, name))
            if content is not None:
                yield [self._read(name, content)]

    async def _pages(self, filters: Filters) -> AsyncIterator[Sequence[DeadMessage]]:
        chosen = Selection.of(filters, self._clock())
        until = await self._newest() if chosen.until is None else chosen.until
        after, limit = chosen.after, FIRST_PAGE
        while after < until:
            entries = await self._page(after, limit)
            now = self._clock()
            page = [read_entry(entry, now) for entry in entries if entry.id <= until]
            if fitting := [found for found in page if chosen.fits(found)]:
                yield fitting
            if not page:
                return
            after = entries[-1].id
            small = sum(len(entry.content) for entry in entries) < PAGE_BYTES
            limit = min(limit * 2, LARGEST_PAGE) if small else max(limit // 4, 1)

    async def _newest(self) -> str:
        """An id that none of the entries so far is greater than; clocks of other machines may be ahead of ours."""
        newest = entry_id(self._clock(), LAST)
        while ahead := await self._page(newest, LARGEST_PAGE):
            newest = ahead[-1].id
            if len(ahead) < LARGEST_PAGE:
                break
        return newest

    async def _page(self, after: str, limit: int) -> Sequence[DeadEntry]:
        return await self._ask(lambda: self._app.broker.dead(after=after, limit=limit))

    def _read(self, name: str, content: bytes) -> DeadMessage:
        return read_entry(DeadEntry(name, content), self._clock())

    async def _ask(self, operation: Callable[[], Awaitable[T]]) -> T:
        """Try again over a short outage: a lost reply asked for again counts once (`Broker`)."""
        async for attempt in retrying(PUBLISH_POLICY, on=(BrokerUnavailable,), sleep=self._sleep):
            with attempt:
                return await operation()
        raise AssertionError("a retry loop ends by returning or raising")
