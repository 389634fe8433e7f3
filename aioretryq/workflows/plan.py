"""What is to be sent for a workflow, in the order in which it has to be: in batches, made when it is their turn."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.calling import CallOptions
from aioretryq.errors import ConfigError
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
    suspects: Iterator[Member | None] | None = None
    """Of a list, what there is to be said against members that are not planned yet, for who sends more than a batch:
    raises what is wrong with one, gives those that may be impossible to encode, and None for each that is not."""

    def pieces(self, size: int) -> Iterator[_Piece | None]:
        """None after each member that fills no piece. At least one piece, unless there is nothing at all."""
        piece = _Piece()
        for member in self.members:
            piece.messages += member.messages
            piece.openings += member.openings
            piece.parts += member.parts
            if len(piece.messages) >= size:
                yield piece
                piece = _Piece()
            else:
                yield None
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
    `batches` gives, which can be read once. It is sent once: its ids are those of its tasks."""

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
    heavy: bool = False
    """Whether its messages are large, of very many steps: to be encoded where nobody waits."""
    _read: bool = field(default=False, init=False)
    _taken: bool = field(default=False, init=False)

    def take(self) -> None:
        """By who sends it: ConfigError for the second one, also if the first one has failed."""
        if self._taken:
            raise ConfigError(
                "This plan was sent before, or sending it has failed: its ids are taken. Compile the workflow again."
            )
        self._taken = True

    def batches(self, size: int = BATCH) -> Iterator[Batch]:
        """In the order in which they are to be sent. Raises what the iterator of a group's members raises, and what
        composing a message raises: what was not yet given is not to be sent then. ConfigError where there is a `bulk`
        that was read before."""
        return (step for step in self.steps(size) if step is not None)

    def steps(self, size: int = BATCH) -> Iterator[Batch | None]:
        """As `batches`, with None in between: for who wants to do something else now and then."""
        if self.bulk is None:
            return self._of_all(size)
        if self._read:
            raise ConfigError("The batches of this plan were read before: compile the workflow again.")
        self._read = True
        return self._of_bulk(self.bulk, size)

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

    def _of_bulk(self, bulk: Bulk, size: int) -> Iterator[Batch | None]:
        waiting: _Piece | None = None  # what is known of a chord at its end is written down before the end
        opening = bulk.opening
        parts = 0
        for piece in bulk.pieces(size):
            if piece is None or waiting is None:
                waiting = piece or waiting
                yield None
                continue
            parts += waiting.parts
            begin = waiting.openings if opening is None else [opening, *waiting.openings]
            yield Batch(tuple(waiting.messages), tuple(begin), (), tuple(waiting.openings))
            waiting, opening = piece, None
        if waiting is not None:
            yield self._last(bulk, waiting, parts + waiting.parts, is_only=opening is bulk.opening)

    def _last(self, bulk: Bulk, piece: _Piece, parts: int, *, is_only: bool) -> Batch:
        messages, begin = tuple(piece.messages), tuple(piece.openings)
        if bulk.opening is None or not parts:  # of an empty header only the body is there
            return Batch(messages, begin, (), begin, last=True)
        known = _sealed(bulk.opening, bulk.handle, parts)
        if is_only:
            return Batch(messages, (known, *begin), (), (*begin, known), last=True)
        return Batch(messages, begin, (known,), (*begin, known), last=True)


def _sealed(opening: Opening, header: Handle, parts: int) -> Opening:
    members = header.members
    nested = isinstance(members, ManyHandles) and members.nested
    return replace(opening, size=parts, structure=header.as_tuple() if nested else None)
