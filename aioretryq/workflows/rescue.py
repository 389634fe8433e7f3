"""What speaks for a chord that nobody works on any more: a task that does nothing, for all follows from its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from uuid import uuid5

from msgspec import Struct

from aioretryq.errors import ProtocolError
from aioretryq.protocol import jsontypes
from aioretryq.workflows.places import IDS

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aioretryq.message import OverdueChord, Signature

TASK = "aioretryq.rescue_chord"

QUEUE = "aioretryq.rescue"
"""Where those messages go: every worker of ours looks into it, and none of Celery's, which would discard them."""

COMPLETE = "complete"
"""Why a body is to be sent, of the reasons of an `OverdueChord`. For all others it has failed."""

EXPIRED = "expired"


class Rescue(Struct, frozen=True):
    """`reason` is what the body has failed of, if it has."""

    group_id: str
    why: str
    reason: str
    body: Signature

    @classmethod
    def of(cls, found: OverdueChord) -> Rescue:
        """ProtocolError if its body cannot be read."""
        body = jsontypes.loads(found.body)
        if not isinstance(body, dict):
            raise ProtocolError("The body of a chord is no signature.")
        return cls(found.group_id, found.why, reason_of(found), body)

    @classmethod
    def read(cls, kwargs: Mapping[str, Any]) -> Rescue:
        """From the arguments of the task."""
        match kwargs:
            case {"group_id": str(group_id), "why": str(why), "reason": str(reason), "body": dict(body)}:
                return cls(group_id, why, reason, body)
        raise ProtocolError(f"{TASK} takes group_id, why, reason and body, as a worker writes them.")

    @property
    def root_id(self) -> str | None:
        options = self.body.get("options")
        found = options.get("root_id") if isinstance(options, dict) else None
        return found if isinstance(found, str) else None

    @property
    def arguments(self) -> dict[str, Any]:
        return {"group_id": self.group_id, "why": self.why, "reason": self.reason, "body": self.body}


def reason_of(found: OverdueChord) -> str:
    match found.why:
        case "unsent":
            return "its sender died before all parts were sent"
        case "expired":
            size = "an unknown number" if found.size is None else found.size
            return f"it was forgotten after {found.age:.0f} s: {found.returned} of {size} parts had returned"
    return ""


def name_of(found: OverdueChord) -> str:
    """The id of the message: another one each time, for the right of an earlier one is not that of the next."""
    return str(uuid5(IDS, f"{found.group_id}/rescue {found.why}/{found.told}"))
