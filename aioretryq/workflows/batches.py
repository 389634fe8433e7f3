"""What is to be sent for a workflow, in the order in which it has to be: in batches, made when it is their turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.calling import CallOptions
from aioretryq.protocol.saferepr import saferepr
from aioretryq.workflows.promises import Handle, ManyHandles

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aioretryq.message import TaskMessage

BATCH = 1000
"""Messages, about: what one member of a group becomes stays together."""


class Opening(Struct, frozen=True):
    """A chord to open before its header is sent; `structure` is the header's result, where parts are groups.

    None as its size: the members are not counted yet. `body` is its signature, as the parts carry it, in JSON.
    """

    group_id: str
    size: int | None
    structure: list[Any] | None = None
    body: bytes = b""


class Like(Struct, frozen=True):
    """A call of the task of `pattern` that differs from it in nothing but this."""

    pattern: TaskMessage
    id: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    group_index: int | None

    @property
    def root_id(self) -> str | None:
        """None: it is its own."""
        return None if self.pattern.root_id == self.pattern.id else self.pattern.root_id

    def message(self) -> TaskMessage:
        return replace(
            self.pattern,
            id=self.id,
            correlation_id=self.id,
            root_id=self.root_id or self.id,
            args=list(self.args),
            kwargs=self.kwargs,
            argsrepr=saferepr(self.args),
            kwargsrepr=saferepr(self.kwargs),
            group_index=self.group_index,
        )


class Batch(Struct, frozen=True):
    """Open these chords and write down the `seals` (chords opened before, of which more is known now), send the
    messages; then all messages of the headers of `sent` are on their way."""

    messages: tuple[TaskMessage | Like, ...]
    openings: tuple[Opening, ...] = ()
    seals: tuple[Opening, ...] = ()
    sent: tuple[Opening, ...] = ()
    last: bool = False


class Member(Struct, frozen=True):
    """What is sent for one member of a group, and how many parts of it return."""

    messages: tuple[TaskMessage | Like, ...]
    openings: tuple[Opening, ...]
    parts: int


@dataclass(eq=False, slots=True)
class Bulk:
    """The members of one group, planned when they are sent: so that very many need no memory. `opening` if they are
    the header of a chord."""

    members: Iterator[Member]
    handle: Handle
    opening: Opening | None = None
    task: str | None = None
    """The name of the first one's task, once it was made."""

    def pieces(self, size: int) -> Iterator[_Piece]:
        piece = _Piece()
        for member in self.members:
            if self.task is None and len(member.messages) == 1:
                only = member.messages[0]
                self.task = only.pattern.task if isinstance(only, Like) else only.task
            piece.messages += member.messages
            piece.openings += member.openings
            piece.parts += member.parts
            if len(piece.messages) >= size:
                yield piece
                piece = _Piece()
        if piece.messages:
            yield piece


@dataclass(slots=True)
class _Piece:
    messages: list[TaskMessage | Like] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    parts: int = 0


@dataclass(slots=True)
class Plan:
    """What a workflow becomes. `messages` and `openings` are all of it, unless there is a `bulk`: then it is what
    `batches` gives, which can be read once."""

    messages: list[TaskMessage] = field(default_factory=list)
    openings: list[Opening] = field(default_factory=list)
    children: list[list[Any]] = field(default_factory=list)
    """What the sender's own result lists as its children."""
    result: Handle | None = None
    """Of the last thing in it; None if there is nothing in it."""
    bulk: Bulk | None = None
    bulk_is_child: bool = False
    call: CallOptions = field(default_factory=CallOptions)
    """How the sender is to send it: retry, retry_policy, timeout, wait."""

    def batches(self, size: int = BATCH) -> Iterator[Batch]:
        """In the order in which they are to be sent. Raises what the iterator of a group's members raises, and what
        composing a message raises: what was not yet given is not to be sent then."""
        return self._of_all(size) if self.bulk is None else self._of_bulk(self.bulk, size)

    def _of_all(self, size: int) -> Iterator[Batch]:
        openings = tuple(self.openings)
        for start in range(0, len(self.messages), size):
            last = start + size >= len(self.messages)
            yield Batch(
                tuple(self.messages[start : start + size]),
                () if start else openings,
                sent=openings if last else (),
                last=last,
            )

    def _of_bulk(self, bulk: Bulk, size: int) -> Iterator[Batch]:
        pieces = bulk.pieces(size)
        piece, first, parts = next(pieces, None), True, 0
        while piece is not None:
            following = next(pieces, None)  # what is known of a chord at its end is written down before the end
            last = following is None
            parts += piece.parts
            begin: list[Opening] = list(piece.openings)
            seals: tuple[Opening, ...] = ()
            sent = tuple(piece.openings)
            if bulk.opening is not None:
                known = _sealed(bulk.opening, bulk.handle, parts) if last else bulk.opening
                if first:
                    begin.insert(0, known)
                elif known != bulk.opening:
                    seals = (known,)
                sent = (*sent, known) if last else sent
            yield Batch(tuple(piece.messages), tuple(begin), seals, sent, last)
            piece, first = following, False


def _sealed(opening: Opening, header: Handle, parts: int) -> Opening:
    members = header.members
    nested = isinstance(members, ManyHandles) and members.nested
    return replace(opening, size=parts, structure=header.as_tuple() if nested else None)
