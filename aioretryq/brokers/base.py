"""The port to brokers: moves opaque payloads, at least once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from aioretryq.backends.base import ResultBackend
    from aioretryq.message import Binding, Broadcast, Claim, DeadEntry, Delivery, Finish, Outgoing


class BusListener(Protocol):
    """One open ear. Once its block is entered it hears everything that is published from then on."""

    async def receive(self) -> list[Broadcast]:
        """Wait for messages: at least one. May be cancelled at any moment; then nothing is lost.

        Raises `BrokerUnavailable` when the connection is lost; then this listener is done, and its owner opens a
        new one. What was published meanwhile is gone.
        """
        ...


class Bus(Protocol):
    """Broadcasts: events, remote control, tasks of fanout exchanges. At most once, to those who listen now.

    Belongs to an open broker and shares its connections where it can. Same deadlines and errors as `Broker`.
    """

    async def publish(self, messages: Sequence[Broadcast]) -> list[int]:
        """Send to all listeners of each exchange; how many there were, this process included.

        On Redis that is what PUBLISH answers: listeners of both kinds, Celery's and ours.
        """
        ...

    def listen(self, exchange: str, pattern: str = "#") -> AbstractAsyncContextManager[BusListener]:
        """Hear what is published to `exchange` with a routing key that matches: `#` any number of words
        (separated by dots), `*` one word, as in a topic exchange."""
        ...

    async def answer(self, message: Broadcast, *, ttl: float) -> int:
        """Put a message into the inboxes of this exchange and routing key; how many there were.

        An answer that nobody takes goes away after `ttl` seconds.
        """
        ...

    def inbox(self, exchange: str, routing_key: str, *, ttl: float) -> AbstractAsyncContextManager[BusListener]:
        """A place for answers, kept while the block lasts, and when its process dies for about `ttl` seconds.

        What arrives while nobody is in `receive` waits in it.
        """
        ...


@runtime_checkable
class Broker(Protocol):
    """Moves opaque payloads, at least once: what is claimed and neither finished nor extended comes back.

    Batches are the primitive; an empty batch does nothing. Every operation has a deadline of its own and
    raises only `BrokerUnavailable` (worth retrying) or `BrokerError`, with the driver's error as
    `__cause__`; opening may also raise `ConfigError`. Adapters never retry by themselves.

    Lost replies: an operation that raised BrokerUnavailable may have been carried out. Calling it again with the
    same arguments is safe and answers as if it had been carried out once; a `claim` that failed holds nothing
    back from the next one.

    Cancellation: `wait` may be cancelled at any moment. A cancelled `claim` may have claimed messages that
    come back only when their lease ends, so callers shield it; it is short. A cancelled `send` may or may
    not have sent.
    """

    display_url: str
    """Where this broker is, without the password."""

    def twin(self) -> Self:
        """Another broker of the same place, not open yet, for another event loop (in another thread).

        It may extend and recover what this one has claimed: receipts do not depend on who holds them.
        """
        ...

    async def __aenter__(self) -> Self:
        """Connect, and fail early: a wrong address, password or server version is an error here."""
        ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    async def send(self, messages: Sequence[Outgoing]) -> None:
        """Add messages to the tails of their queues, or park those that have a `due`.

        All or nothing where the broker can; sending the same `tag` again within a minute adds nothing.
        """
        ...

    async def claim(self, queues: Sequence[str], *, limit: int) -> Claim:
        """Take up to `limit` messages under a lease; never waits.

        Lower priority numbers first, then the order of `queues`, then oldest first. Parked messages that
        are due count as arriving now, at the tail. With `limit=0` only the revocations are read.
        """
        ...

    async def wait(self, queues: Sequence[str], *, timeout: float) -> None:
        """Return when a claim on `queues` may find something, or after `timeout` seconds.

        Takes nothing away. May return early for no reason; does not miss a message that arrives after the
        last claim that returned fewer than its limit.
        """
        ...

    async def finish(self, finishes: Sequence[Finish]) -> list[bool | None]:
        """Acknowledge, send the follow-ups and keep the dead letters: each finish atomically.

        False for a finish whose lease was lost: then nothing of it was done. None, and nothing done either, where
        only the backend can tell whether the finish's result may be stored, or whether a chord is complete with one
        of its parts: store and count them there, then finish without them.
        """
        ...

    def joins(self, backend: ResultBackend) -> bool:
        """Whether this broker and the backend keep what they keep in one place; asked once, of the queue's backend.

        Then finishes may bring their results, stored and announced there as the backend does, and their parts of
        chords.
        """
        ...

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """Hand messages back to the front of their queues, in the order given, marked as redelivered.

        Takes back their delivery and counts an interruption. Lost leases are skipped.
        """
        ...

    async def extend(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Start the leases anew. False for one that was lost."""
        ...

    async def recover(self, *, limit: int = 1000, worker: str = "", queues: Sequence[str] = ()) -> int:
        """Put messages whose lease has ended back to the front of their queues, marked as redelivered.

        Any worker may call it at any time, and those of a place should every fifth of a lease; returns how many
        were put back. When the last sweep, by anyone, is more than half a lease ago (or there was none), then
        nobody could renew either: the server was gone, the machine slept. Such a late sweep puts nothing back,
        and for one lease no other does: first those who still live renew theirs.

        `worker`, a name that nobody else has, and its `queues` are who sweeps: see `leave`.
        """
        ...

    async def leave(self, worker: str, queues: Sequence[str]) -> list[str]:
        """The worker stops, and sweeps no more: those of `queues` that no other worker serves, as far as is known.

        A worker serves the queues of its sweeps, until it leaves or has not swept for a lease. Queues that only
        workers of this kind can serve are left out: there `unpark` is for nobody.
        """
        ...

    async def revoke(self, notices: Sequence[str], *, ttl: float) -> None:
        """Hand every worker, in its next claim, these notices; and those that start within `ttl` seconds.

        The notices (`message.revocation`) are opaque here.
        """
        ...

    async def depth(self, queues: Sequence[str]) -> dict[str, int]:
        """How many messages each queue holds: waiting and parked, not those that are claimed."""
        ...

    async def purge(self, queue: str) -> int:
        """Delete what waits and what is parked in `queue`; returns how many."""
        ...

    # -- parked messages

    async def parked(self, queues: Sequence[str] | None = None) -> dict[str, int]:
        """How many messages each queue has parked; without `queues` of all queues that have some."""
        ...

    async def unpark(self, queue: str, *, limit: int = 1000) -> int:
        """Make up to `limit` parked messages ordinary ones, at the tail of the queue, those due first first.

        For consumers that do not know of parking, and wait for an eta by themselves. The marks of having waited
        are taken off, so that workers of this kind park them again; what is counted of a message stays. Each
        message is moved in one step. Returns how many were; of a repeated call what is new.
        """
        ...

    # -- exchanges

    def bus(self) -> Bus:
        """Broadcasts at this broker's place; to be used while the broker is open, on its event loop."""
        ...

    async def bind(self, bindings: Sequence[Binding]) -> None:
        """Add bindings; those that are there stay. One that expires is to be bound again before it does."""
        ...

    async def unbind(self, bindings: Sequence[Binding]) -> None:
        """Remove bindings; unknown ones are fine."""
        ...

    async def bindings(self, exchange: str) -> list[Binding]:
        """What is bound to a direct or topic exchange, by anybody; which of them get a message is decided by
        `routing.targets`."""
        ...

    # -- dead letters

    async def bury(self, entries: Sequence[DeadEntry]) -> None:
        """Keep entries that belong to no claimed message; an id that is there already stays as it is."""
        ...

    async def dead(self, *, after: str = "", limit: int = 100) -> list[DeadEntry]:
        """A page of entries, oldest first: those whose id is greater than `after`."""
        ...

    async def dead_entry(self, entry_id: str) -> bytes | None:
        """The content of an entry; None if there is none of that id (any more)."""
        ...

    async def dead_count(self) -> int: ...

    async def exhume(self, taken: Sequence[tuple[str, Outgoing | None]]) -> list[bool]:
        """Delete entries, each with the sending of its message (None: no message) in one atomic step.

        False for an id that is not there (any more): then nothing was sent.
        """
        ...

    async def trim_dead(self, *, keep: int, before: str) -> int:
        """Delete the entries with ids less than `before`, and the oldest beyond `keep`; returns how many."""
        ...
