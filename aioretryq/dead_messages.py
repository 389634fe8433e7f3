"""Dead letters as values: what an entry says, which entries are meant, what is sent when one goes again. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any, Self, TypedDict

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.errors import ConfigError, EncodeError, ProtocolError
from aioretryq.protocol import envelope
from aioretryq.protocol.deadletter import DeadLetter, decode_dead_letter, entry_id, entry_time
from aioretryq.protocol.moments import parse_moment
from aioretryq.protocol.task import decode_task, encode_task

if TYPE_CHECKING:
    from collections.abc import Collection

    from aioretryq.message import DeadEntry

ERRORS_HEADER = "aioretryq_errors"
"""The header in which a task carries the errors of its earlier attempts."""

UNREADABLE = "unreadable entry"
"""Reason shown for an entry that is none of ours, or of a newer version."""

LAST = "~"
"""Sorts after everything that an id contains."""

_TEXTS = ("reason", "queue", "worker")
_TEXTS_OR_NONE = ("task", "task_id", "error", "traceback")
_INTEGERS = ("priority", "attempts", "deliveries", "interruptions")


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadMessage(DeadLetter):
    """One entry of the dead letters, as `DeadLetters` hands it out.

    `age` in seconds. An entry that is not `readable` has the reason "unreadable entry", why in `error`, and all of
    its bytes as `payload`.
    """

    id: str
    age: float
    readable: bool = True


class Filters(TypedDict, total=False):
    """Which entries are meant; all that are given must fit, None counts as not given.

    `queue` and `task` are names or globs, `reason` is how the reason begins, ages are seconds or timedeltas. `up_to`
    is the id of the newest entry that is meant, such as that of the last one of a listing.
    """

    queue: str | None
    task: str | None
    reason: str | None
    older_than: float | timedelta | None
    newer_than: float | timedelta | None
    up_to: str | None


class Selection(Struct, frozen=True):
    """`Filters` at a moment: ages have become a range of ids (after, until]; None is open."""

    queue: str | None = None
    task: str | None = None
    reason: str | None = None
    after: str = ""
    until: str | None = None

    @classmethod
    def of(cls, filters: Filters, now: float) -> Self:
        given: dict[str, Any] = {name: value for name, value in filters.items() if value is not None}
        if unknown := sorted(given.keys() - Filters.__annotations__.keys()):
            names = ", ".join(Filters.__annotations__)
            raise ConfigError(f"Dead letters are not filtered by {unknown[0]!r}, but by {names}.")
        older, newer, until = given.pop("older_than", None), given.pop("newer_than", None), given.pop("up_to", None)
        for name, wanted in given.items():
            if not isinstance(wanted, str):
                raise ConfigError(f"{name} of dead letters is a text, not {wanted!r}.")
        after = "" if newer is None else entry_id(now - seconds(newer, "newer_than"), LAST)
        if older is not None:
            limit = entry_id(now - seconds(older, "older_than"), "")
            until = limit if until is None else min(until, limit)
        return cls(**given, after=after, until=until)

    def fits(self, found: DeadMessage) -> bool:
        return (
            (self.queue is None or fnmatchcase(found.queue, self.queue))
            and (self.task is None or fnmatchcase(found.task or "", self.task))
            and (self.reason is None or found.reason.startswith(self.reason))
        )


def seconds(value: float | timedelta, name: str) -> float:
    found = value.total_seconds() if isinstance(value, timedelta) else value
    if not isinstance(found, int | float) or isinstance(found, bool) or not 0 <= found < float("inf"):
        raise ConfigError(f"{name} is an age in seconds or a timedelta, not {value!r}.")
    return found


def read_entry(entry: DeadEntry, now: float) -> DeadMessage:
    """What an entry says; nothing is raised for one that says nothing."""
    try:
        buried = entry_time(entry.id)
    except ProtocolError:
        buried = 0.0
    age = max(0.0, now - buried)
    try:
        letter = decode_dead_letter(entry.content)
        _check(letter)
    except (ProtocolError, RecursionError) as error:
        return DeadMessage(
            reason=UNREADABLE,
            queue="",
            payload=entry.content,
            time=buried,
            worker="",
            error=str(error),
            id=entry.id,
            age=age,
            readable=False,
        )
    fields = {name: getattr(letter, name) for name in DeadLetter.__slots__}
    return DeadMessage(**fields, id=entry.id, age=age)


def _check(letter: DeadLetter) -> None:
    """JSON may hold anything, and one entry must not stop the reading of the others."""
    wrong = [name for name in _TEXTS if not isinstance(getattr(letter, name), str)]
    wrong += [name for name in _TEXTS_OR_NONE if not isinstance(getattr(letter, name), str | None)]
    wrong += [name for name in _INTEGERS if type(getattr(letter, name)) is not int]
    if type(letter.time) not in (int, float) or not math.isfinite(letter.time):
        wrong.append("time")
    if not isinstance(letter.errors, list) or not all(isinstance(each, dict) for each in letter.errors):
        wrong.append("errors")
    if wrong:
        raise ProtocolError(f"Not an entry of the dead letters: {', '.join(wrong)} of another type.")


# -- sending again


def first_attempt(
    payload: bytes, *, tag: str, now: float, queue: str | None, accept_content: Collection[str] = ("json",)
) -> tuple[bytes, str | None]:
    """(message, task id) of a task as if it was sent now, to `queue` if given; or the bytes as they are, and None.

    Only headers are touched: arguments keep their bytes, so nothing has to be able to read them.
    """
    try:
        found = envelope.decode(envelope.unmark(payload))
        headers, properties = found.headers, found.properties
        if not isinstance(headers.get("task"), str) or not isinstance(headers.get("id"), str):
            return _first_attempt_of_old(payload, tag=tag, now=now, queue=queue, accept_content=accept_content)
        kept = {name: value for name, value in headers.items() if name != ERRORS_HEADER}
        kept.update(retries=0, eta=None, expires=_unexpired(headers.get("expires"), now))
        properties["delivery_tag"] = tag
        if queue is not None:
            delivery = properties.get("delivery_info")
            given = delivery if isinstance(delivery, dict) else {}
            properties["delivery_info"] = {**given, "exchange": "", "routing_key": queue}
        return envelope.encode(replace(found, headers=kept)), headers["id"]
    except (ProtocolError, EncodeError):
        return payload, None


def _first_attempt_of_old(
    payload: bytes, *, tag: str, now: float, queue: str | None, accept_content: Collection[str]
) -> tuple[bytes, str]:
    """Protocol 1 has what matters in its body; it goes on as protocol 2."""
    message = decode_task(payload, accept_content=accept_content)
    headers = {name: value for name, value in message.headers.items() if name != ERRORS_HEADER}
    expires = _unexpired(message.expires, now)
    fresh = replace(message, retries=0, eta=None, expires=expires, headers=headers)
    if queue is not None:
        fresh = replace(fresh, exchange="", routing_key=queue)
    return encode_task(fresh, tag=tag), message.id


def _unexpired(expires: Any, now: float) -> Any:
    try:
        return None if isinstance(expires, str) and parse_moment(expires) <= now else expires
    except ProtocolError:
        return expires  # a worker will say what is wrong with it
