"""The port to result backends: keeps result documents by task id, and says when one changes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol, Self, runtime_checkable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType

    from aioretryq.message import ChordAddition, ChordClaim, ChordOpening, ChordPart, OverdueChord, StoredResult


class ResultListener(Protocol):
    """One open ear for changes of results. `subscribe` and `receive` may be called concurrently."""

    async def subscribe(self, task_ids: Sequence[str]) -> bool | None:
        """Returns once every change stored from now on will be seen by `receive`.

        False: at that moment nothing was stored for any of them, and nobody has to fetch.
        """
        ...

    async def unsubscribe(self, task_ids: Sequence[str]) -> None: ...

    async def receive(self) -> list[tuple[str, bytes]]:
        """Wait for changes: at least one `(task id, document)`.

        Raises `BackendUnavailable` when the connection is lost; then this listener is done, and its owner
        opens a new one and fetches everything awaited. Has to keep being called for `subscribe` to return.
        """
        ...


@runtime_checkable
class PromptListener(ResultListener, Protocol):
    """One that need not be waited for: a turn of the event loop is saved for whoever waits."""

    def hear_now(self, hear: Callable[[list[tuple[str, bytes]]], None]) -> None:
        """From now on changes go there as they come. `receive` only tells when the connection is lost."""
        ...


@runtime_checkable
class ResultBackend(Protocol):
    """Keeps result documents (opaque bytes).

    Batches are the primitive; an empty batch does nothing. Every operation has a deadline of its own and
    raises only `BackendUnavailable` (worth retrying) or `BackendError`, with the driver's error as
    `__cause__`. Adapters never retry by themselves.
    """

    display_url: str
    """Where this backend is, without the password."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, tb: TracebackType | None
    ) -> None: ...

    async def store(self, results: Sequence[StoredResult]) -> list[bool]:
        """Store and announce. False, and nothing is stored, where a final state is stored already.

        SUCCESS and FAILURE do replace REVOKED (`states.stays`), but not those of what never ran.
        """
        ...

    async def fetch(self, task_ids: Sequence[str]) -> list[bytes | None]:
        """The documents in the order asked for; None where there is none (any more)."""
        ...

    async def forget(self, task_ids: Sequence[str]) -> None:
        """Delete; unknown ids are fine."""
        ...

    async def save_group(self, group_id: str, document: bytes, ttl: float | None) -> None:
        """Keep the document of a group for `ttl` seconds, None for ever, in place of an earlier one.

        Groups have ids of their own: one may be that of a task.
        """
        ...

    async def restore_group(self, group_id: str) -> bytes | None:
        """The document of a group; None where there is none (any more)."""
        ...

    async def delete_group(self, group_id: str) -> None:
        """Unknown ids are fine."""
        ...

    # -- chords: parts of a header are counted, and whoever counts the last one sends the body

    async def open_chords(self, openings: Sequence[ChordOpening]) -> None:
        """Say how many parts return; a chord of that id that was closed, or has failed, is a new one then.

        Of one that is open what was counted stays. Nothing happens to one that was closed, or has failed, if it was
        opened with the same `token`, for as long as that is remembered.
        """
        ...

    async def amend_chords(self, openings: Sequence[ChordOpening]) -> list[bool]:
        """What their sender knows by now: the size, and whether it still sends. False, and nothing happens, where a
        chord is closed or forgotten, or somebody tells that it has failed. Nobody gets the right to send the body by
        it: where all parts are there already, the chord is overdue.
        """
        ...

    async def add_parts(self, additions: Sequence[ChordAddition]) -> None:
        """So many parts more return to chords that are not closed. To be called before the parts are sent, and by a
        part that has not returned itself."""
        ...

    async def overdue_chords(self, patience: float, limit: int) -> list[OverdueChord]:
        """Chords that somebody has to look after, at most `limit`, and not many megabytes; none is told again within
        `patience` seconds. There are no more when it answers with none.

        Those that nobody knows the body of are none of them (others opened it, and no part has told). Some time may
        pass until it is noticed, the more the older a chord is, five minutes at most. A chord is "expired" when less
        than a tenth of its life is left (at least three times the patience, half of it or an hour at most). Its life
        begins anew with every part that is counted, and is what that part says, or what a look soon after that finds.
        Until what is told has been told again, no chord is forgotten.
        """
        ...

    async def count_parts(self, parts: Sequence[ChordPart]) -> list[bool]:
        """Remember these parts, each once. True: all of its chord are there, and the body is to be sent with `token`.

        That right ends after `hold` seconds, and the part that has it, counted again, has it again. Nobody else gets
        it then while the message of whoever got it first `returns`: it will be back. A chord that is closed, or not
        open (its size unknown), gives no right.
        """
        ...

    async def chord_parts(self, group_id: str, limit: int | None = None) -> list[bytes]:
        """Contents of the parts that were counted, by index, those without one last.

        BackendError, and they are not read to the end, if there are more than `limit` bytes.
        """
        ...

    async def hold_chords(self, claims: Sequence[ChordClaim], hold: float) -> list[bool | None]:
        """Have the right for `hold` seconds from now. False where it has passed to somebody else, or the chord is
        done; None where nothing is known of the chord any more: it has expired, or was lost."""
        ...

    async def close_chords(self, claims: Sequence[ChordClaim]) -> None:
        """The body was sent, or its failure told: forget the parts, but not at once that it is done.

        Nothing happens to a chord that is somebody else's.
        """
        ...

    async def cleanup(self) -> int:
        """Delete what has expired, where the server does not do so itself; returns how many."""
        ...

    def listen(self) -> AbstractAsyncContextManager[ResultListener]: ...
