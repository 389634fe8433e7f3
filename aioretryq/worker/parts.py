"""Parts of chords: what a task returns to the chord it is a part of, and how those end that will never run. Pure."""

from __future__ import annotations

import logging
from hashlib import sha1
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.errors import ProtocolError
from aioretryq.message import ChordPart, Signature
from aioretryq.protocol import jsontypes
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument
from aioretryq.protocol.task import format_moment
from aioretryq.worker.adopted import Adopted
from aioretryq.workflows import rescue
from aioretryq.workflows.openings import life_of_chords, opened
from aioretryq.workflows.places import IDS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from aioretryq.app import TaskQueue
    from aioretryq.message import ChordOpening, StoredResult
    from aioretryq.protocol.signature import Node
    from aioretryq.worker.settlement import Attempted
    from aioretryq.workflows.plan import Opening

logger = logging.getLogger("aioretryq.worker")

_NAMESPACE = IDS.bytes

OF_LEASE = 1 / 8
"""The right to send a chord's body ends while the message is still leased, of which at least a quarter is left when
results are stored. After a crash a Celery worker may be the next to get the message, and it waits for nobody: finding
the right taken, it would drop the message, and the body with it."""


class Ending(Struct, frozen=True):
    """How a task ended that did not succeed."""

    state: str
    exc: BaseException
    traceback: str | None = None


class Return(Struct, frozen=True):
    """A part of a chord's header, and the body it is for."""

    part: ChordPart
    body: Signature


def stamps_of(names: Iterable[str] | None, values: Mapping[str, Any]) -> dict[str, Any]:
    """Of a task's stamps what its result tells: the names, and each value under its name."""
    listed = list(names or ())
    return {"stamped_headers": listed, **{name: values[name] for name in listed if name in values}} if listed else {}


def _call_of(call: Node) -> dict[str, Any]:
    stamps = stamps_of(call.options.get("stamped_headers"), call.options)
    return {"name": call.task, "args": list(call.args), "kwargs": call.kwargs, "extra": stamps}


def _nothing(call: Node) -> dict[str, Any]:
    return {}


class Parts:
    """Makes them by the settings of a queue."""

    def __init__(self, queue: TaskQueue) -> None:
        self._queue = queue
        self._adopted = Adopted()

    @property
    def hold(self) -> float:
        """Seconds for which whoever has counted the last part has the right to send the body."""
        conf = self._queue.conf
        return min(max(5.0, 2 * (conf.result_chord_join_timeout or 5.0)), conf.lease * OF_LEASE)

    @property
    def life(self) -> float | None:
        """Seconds until a chord is forgotten."""
        return life_of_chords(self._queue.conf)

    def opening(self, opening: Opening) -> ChordOpening:
        return opened(opening, self._queue.conf)

    def own(self, attempted: Attempted, state: str, result: Any) -> list[Return]:
        """What the task itself returns, if it is a part."""
        message = attempted.message
        if message.task == rescue.TASK:
            return self._rescuing(attempted)
        if not message.chord or not message.group:
            return []
        who = (message.group, message.id, message.group_index)
        return [self._return(attempted, message.chord, who, [1, message.id, state, result])]

    def failed(self, attempted: Attempted, calls: Iterable[Node], ending: Ending) -> list[Return]:
        """What those of the calls return that are parts and will never run."""
        made = []
        for call in calls:
            chord, group_id, task_id = (call.options.get(name) for name in ("chord", "group_id", "task_id"))
            if chord and group_id and task_id:
                who = (group_id, task_id, call.options.get("group_index"))
                content = [1, task_id, ending.state, exception_to_data(ending.exc)]
                made.append(self._return(attempted, chord, who, content))
        return made

    def _rescuing(self, attempted: Attempted) -> list[Return]:
        """What a message that speaks for an overdue chord asks for, however it ended: nobody else would."""
        message = attempted.message
        try:
            speaking = rescue.Rescue.read(message.kwargs)
        except ProtocolError as error:
            logger.error("A chord cannot be rescued: %s", error)
            return []
        part = ChordPart(
            group_id=speaking.group_id,
            task_id=message.id,
            index=None,
            content=speaking.reason.encode(),
            token=_token(f"{speaking.group_id}/{message.id}"),
            hold=self.hold,
            ttl=self.life,
            returns=not attempted.acked,
            why=speaking.why,
        )
        return [Return(part, speaking.body)]

    def note_counted(self, returns: Iterable[Return]) -> None:
        """From now on parts need not bring the bodies of these chords."""
        for found in returns:
            if found.part.body is not None:
                self._adopted.add(found.part.group_id)

    def records(self, calls: Iterable[Node], ending: Ending, now: float) -> list[StoredResult]:
        """The results of calls that will never be made."""
        data, done = exception_to_data(ending.exc), format_moment(now)
        extended = _call_of if self._queue.conf.result_extended else _nothing
        made = []
        for call in calls:
            if call.options.get("ignore_result") is not True:
                document = ResultDocument(
                    task_id=call.options["task_id"],
                    status=ending.state,
                    result=data,
                    traceback=ending.traceback,
                    children=[],
                    date_done=done,
                    group_id=call.options.get("group_id"),
                    parent_id=call.options.get("parent_id"),
                    **extended(call),
                )
                made.append(replace(self._queue.results.record(document), never_ran=True))
        return made

    def _return(
        self, attempted: Attempted, chord: Signature, who: tuple[str, str, int | None], content: list[Any]
    ) -> Return:
        group_id, task_id, index = who
        part = ChordPart(
            group_id=group_id,
            task_id=task_id,
            index=index,
            content=jsontypes.dumps(content),
            token=_token(f"{group_id}/{task_id}/{index}"),
            hold=self.hold,
            ttl=self.life,
            returns=not attempted.acked,
            body=None if group_id in self._adopted else jsontypes.dumps(chord),
        )
        return Return(part, chord)


def _token(name: str) -> str:
    """`uuid5(IDS, name).hex`, at a third of its price."""
    found = sha1(_NAMESPACE + name.encode(), usedforsecurity=False).hexdigest()
    return f"{found[:12]}5{found[13:16]}{'89ab'[int(found[16], 16) & 3]}{found[17:32]}"
