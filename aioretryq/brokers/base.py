"""The port to brokers: moves opaque payloads, at least once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from aioretryq.message import Claim, Delivery, Finish, Outgoing


@runtime_checkable
class Broker(Protocol):
    """Moves opaque payloads, at least once: what is claimed and neither finished nor extended comes back.

    Batches are the primitive; an empty batch does nothing. Every operation has a deadline of its own and
    raises only `BrokerUnavailable` (worth retrying) or `BrokerError`, with the driver's error as
    `__cause__`; opening may also raise `ConfigError`. Adapters never retry by themselves.

    Cancellation: `wait` may be cancelled at any moment. A cancelled `claim` may have claimed messages that
    come back only when their lease ends, so callers shield it; it is short. A cancelled `send` may or may
    not have sent.
    """

    display_url: str
    """Where this broker is, without the password."""

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

    async def finish(self, finishes: Sequence[Finish]) -> list[bool]:
        """Acknowledge, send the follow-ups and keep the dead letters: each finish atomically.

        False for a finish whose lease was lost: then nothing of it was done.
        """
        ...

    async def requeue(self, deliveries: Sequence[Delivery]) -> None:
        """Hand messages back to the front of their queues, in the order given, marked as redelivered.

        Lost leases are skipped.
        """
        ...

    async def extend(self, deliveries: Sequence[Delivery]) -> list[bool]:
        """Start the leases anew. False for one that was lost."""
        ...

    async def recover(self, *, limit: int = 1000) -> int:
        """Put messages whose lease has ended back to the front of their queues, marked as redelivered.

        Any worker may call it at any time; returns how many were put back.
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

    async def dead(self, *, limit: int = 1000) -> list[bytes]:
        """Entries of the dead letters, oldest first."""
        ...
