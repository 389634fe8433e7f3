"""How messages lie in Redis: the names of the keys, and messages as the scripts take and leave them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aioretryq.brokers.redis_history import as_counted

if TYPE_CHECKING:
    from aioretryq.message import Outgoing

SEP = "\x06\x16"
BUCKETS = (0, 3, 6, 9)

OUR_TAG = "aioretryq:"
"""How the tags of our own entries of unacked begin."""


LARGE = 2**15
"""Bytes of a message from which on it is held under a key of its own; its entry of unacked then is one without
a message, until its lease is renewed the first time. claim.lua has the same number."""

ELSEWHERE = b"null"
"""What stands there."""

_LARGE_TAG = ":large:"


def bucket_of(priority: int) -> int:
    """kombu has four lists for ten priorities: the largest step that is not above the priority."""
    return min(max(priority, 0), 9) // 3 * 3


class Keys:
    """The names of all keys. `instance` names those that belong to one broker object; they expire."""

    def __init__(self, prefix: str, instance: str) -> None:
        self._prefix = prefix
        self.unacked = prefix + "unacked"
        self.index = prefix + "unacked_index"
        self.leases = prefix + "aioretryq.leases"
        self.held = [self.unacked, self.index, self.leases]
        self.sent = prefix + "aioretryq.sent"
        self.revocations = [prefix + "aioretryq.revocations", prefix + "aioretryq.revoked"]
        self.dead = [prefix + "aioretryq.dead", prefix + "aioretryq.dead.index"]
        self.binding_deadlines = prefix + "_kombu.binding_deadlines"
        self.expiring = prefix + "aioretryq.expiring"
        self.sweep = prefix + "aioretryq.sweep"
        self.workers = prefix + "aioretryq.workers"
        self.void = f"{prefix}aioretryq.void.{instance}"
        self.finished = f"{prefix}aioretryq.finished.{instance}"

    def large(self, tag: str) -> str:
        """Of a list whose only value is the message."""
        return f"{self.leases}.{tag}"

    def bucket(self, queue: str, bucket: int) -> str:
        return f"{self._prefix}{queue}{SEP}{bucket}" if bucket else self._prefix + queue

    def buckets(self, queue: str) -> list[str]:
        return [self.bucket(queue, bucket) for bucket in BUCKETS]

    def schedule(self, queue: str) -> str:
        return f"{self._prefix}aioretryq.schedule.{queue}"

    def bindings(self, exchange: str) -> list[str]:
        """kombu's sets of what is bound to an exchange; a queue has one of its own name."""
        return [f"{self._prefix}_kombu.binding{which}.{exchange}" for which in ("", "_permanent")]


@dataclass(slots=True)
class Targets:
    """Messages as the scripts take them: their keys are numbered, each with its kind, `l`ist or `z`set."""

    keys: Keys
    numbers: dict[str, int] = field(default_factory=dict)
    kinds: str = ""

    def encode(self, message: Outgoing) -> tuple[int, float | str, bytes]:
        bucket = bucket_of(message.priority)
        body = message.body if message.fresh else as_counted(message)
        if message.due is None:
            return self.number(self.keys.bucket(message.queue, bucket), "l"), "", body
        tag = message.tag.encode()
        # The tag keeps equal bodies apart, and its length tells where the body begins.
        member = b"%s%d:%d:%s%s" % (b"+" if message.offered else b"", bucket, len(tag), tag, body)
        return self.number(self.keys.schedule(message.queue), "z"), message.due, member

    def number(self, key: str, kind: str = "l") -> int:
        if key not in self.numbers:
            self.kinds += kind
        return self.numbers.setdefault(key, len(self.numbers) + 1)


def read_parked(member: bytes) -> tuple[int, bytes]:
    """(bucket, message) of a member of a schedule; ValueError for what is none of ours."""
    bucket, length, rest = member.removeprefix(b"+").split(b":", 2)
    if int(bucket) not in BUCKETS or not 0 <= int(length) <= len(rest):
        raise ValueError(member)
    return int(bucket), rest[int(length) :]


def is_key(text: str) -> bool:
    """Whether the server can be asked for it: a lone surrogate has no bytes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_large(tag: str) -> bool:
    return _LARGE_TAG in tag


def unacked_suffix(queue: str) -> str:
    """What follows the message in kombu's unacked: `[<message>,"<exchange>","<routing key>"]`."""
    return f',"",{json.dumps(queue)}]'


def read_unacked(tag: bytes, value: bytes | None) -> tuple[str, str, int, bytes]:
    """(tag, queue, bucket, message) of an entry of ours; ValueError for everything else."""
    if not value or not value.startswith(b"[") or not value.endswith(b"]"):
        raise ValueError(value)
    # The last one is ours, whatever the message holds: within the queue's name quotes are escaped.
    at = value.rindex(b',"",')
    try:
        queue = json.loads(value[at + 4 : -1])
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    prefix, _, bucket = tag.decode().rpartition(":")
    if not (isinstance(queue, str) and is_key(queue) and prefix.startswith(OUR_TAG) and int(bucket) in BUCKETS):
        raise ValueError(value)
    return tag.decode(), queue, int(bucket), value[1:at]


def tag_of(prefix: str, number: int, bucket: int, body: bytes) -> str:
    """As claim.lua makes it: tags sort by age."""
    return f"{prefix}{number:012}{_LARGE_TAG if len(body) >= LARGE else ':'}{bucket}"
