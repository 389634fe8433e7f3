"""The values that travel: a call of a task, and what a broker moves."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from aioretryq import states

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Signature = dict[str, Any]
"""A task call as Celery's canvas embeds it: task, args, kwargs, options, subtask_type, immutable."""


class TaskMessage(Struct, frozen=True, kw_only=True):
    """One call of a task, as Celery's task protocol 2 describes it (celery/app/amqp.py, as_task_v2).

    `eta` and `expires` keep their wire form (ISO 8601 text; without a zone they mean UTC), because a retry
    has to pass them on unchanged. `headers` holds everything we do not know: user headers, and headers of
    newer senders; they survive a retry.
    """

    id: str
    task: str
    args: list[Any] = field(default_factory=list)
    kwargs: dict[str, Any] = field(default_factory=dict)
    retries: int = 0
    eta: str | None = None
    expires: str | None = None
    root_id: str | None = None
    parent_id: str | None = None
    group: str | None = None
    group_index: int | None = None
    time_limit: float | None = None
    soft_time_limit: float | None = None
    ignore_result: bool | None = None
    shadow: str | None = None
    argsrepr: str | None = None
    kwargsrepr: str | None = None
    origin: str | None = None
    replaced_task_nesting: int = 0
    stamped_headers: list[str] | None = None
    stamps: dict[str, Any] = field(default_factory=dict)
    callbacks: list[Signature] | None = None
    errbacks: list[Signature] | None = None
    chain: list[Signature] | None = None
    chord: Signature | None = None
    headers: dict[str, Any] = field(default_factory=dict)
    # What travels beside the headers (message properties)
    reply_to: str | None = None
    correlation_id: str | None = None
    priority: int = 0
    delivery_mode: int = 2
    exchange: str = ""
    routing_key: str = "celery"
    exchange_type: str = "direct"
    """Known to the sender only; it does not travel."""
    expiration: str | None = None
    content_type: str = "application/json"
    compression: str | None = None
    security: Any = None
    """A `protocol.security.Security`: who signs it, where `content_type` is that of signed messages."""


class Outgoing(Struct, frozen=True):
    """A payload on its way to a queue.

    `tag` is unique to this publish: a broker that sees it twice within a minute (a reply was lost and the
    sender tried again) delivers it once. With `due` (unix seconds) the message is parked in the broker until
    then. `priority` is 0..9; 0 is served first, as on Celery's Redis transport. `offered`, with `due`: others
    get the first chance; where workers of another kind share the queue, the claim that finds the message due
    puts it there without taking it. `deliveries` and `interruptions` are what is counted of it so far.

    `fresh`: nothing is counted of it, and nobody but the broker object that is given it ever sends that tag; so it
    suffices that this one tells a repetition.
    """

    queue: str
    body: bytes
    tag: str
    priority: int = 0
    due: float | None = None
    offered: bool = False
    deliveries: int = 0
    interruptions: int = 0
    fresh: bool = False


class Delivery(Struct, frozen=True):
    """A claimed message. `tag` is the receipt: whoever no longer holds it cannot finish the message.

    `redelivered` is true when an earlier holder did not finish it. `deliveries` is how often it was taken, this
    time included; being handed back (`Broker.requeue`) takes back the delivery and counts as an interruption.
    """

    queue: str
    body: bytes
    tag: str
    priority: int = 0
    redelivered: bool = False
    deliveries: int = 1
    interruptions: int = 0


class DeadEntry(Struct, frozen=True):
    """An opaque entry of the dead letters. Ids sort by age as texts (`protocol.deadletter.entry_id`)."""

    id: str
    content: bytes


class Finish(Struct, frozen=True):
    """Acknowledge `delivery` and, in the same atomic step, send what follows from it.

    `dead` is an entry for the dead letters; the original is then kept there instead of being dropped. `result` is
    stored in that step too; only for a broker that has joined the result backend (`Broker.joins`). So are `parts`
    counted, unless one of them would be the last one of its chord, or the backend does not know the `body` that it
    brings: then nothing at all is done, and the answer is None. Parts with a `why` are not among them: only the
    backend itself takes those. `closes` are the chords whose bodies, or failures, are sent with it: closed in that
    step too, if all are still the claims' own; else nothing at all is done, and the answer is None.

    Without a delivery (it was acknowledged before) it is carried out all the same.
    """

    delivery: Delivery | None
    send: tuple[Outgoing, ...] = ()
    dead: DeadEntry | None = None
    result: StoredResult | None = None
    parts: tuple[ChordPart, ...] = ()
    closes: tuple[ChordClaim, ...] = ()


class Claim(Struct, frozen=True):
    """What a broker hands a worker: messages it may run, and the revocations (see below) since its last claim."""

    deliveries: list[Delivery]
    revoked: list[str] = field(default_factory=list)


class Broadcast(Struct, frozen=True):
    """A message for everybody who listens to an exchange now; nobody keeps it. `body` is the whole envelope."""

    exchange: str
    routing_key: str
    body: bytes


class Binding(Struct, frozen=True):
    """`queue` gets what is sent to `exchange` with `routing_key`; in a topic exchange the key may hold `*` and `#`.

    `expires` (seconds) belongs to a queue that goes away when nobody uses it for so long.
    """

    exchange: str
    kind: str  # direct or topic; a fanout exchange binds nothing, see `Bus`
    routing_key: str
    queue: str
    expires: float | None = None


class StoredResult(Struct, frozen=True):
    """A result document on its way to a backend. `ttl` in seconds; None keeps it for ever.

    `never_ran`: it is that of a call that will never be made. Of one that was revoked that is said already.
    """

    task_id: str
    state: str
    document: bytes
    ttl: float | None = None
    never_ran: bool = False

    def yields_to(self, stored: str | None) -> bool:
        """Whether it is not stored over that state."""
        return states.stays(stored, self.state) or (self.never_ran and stored == states.REVOKED)


# -- chords: a body that is sent when all parts of its header have returned


class ChordOpening(Struct, frozen=True):
    """A chord whose header is about to be sent: `size` parts return to it. Forgotten after `ttl` seconds.

    None as its size: nobody has counted them yet, so it cannot be complete. `body` is its signature (JSON), for
    whoever has to speak for it if nobody else can. `sending`: the header is sent piece by piece, and the sender
    speaks again within so many seconds (`ResultBackend.amend_chords`), or it has died; None when all is sent, or all
    at once. `token`: who opens it, the same however often the same sender or message does; '' is always another one.
    """

    group_id: str
    size: int | None
    ttl: float | None = None
    body: bytes = b""
    sending: float | None = None
    token: str = ""


class ChordAddition(Struct, frozen=True):
    """One more part of a header that is being worked on (Celery's `add_to_chord`): counts once by task id.

    `ttl`: where nothing else is known of the chord yet, it is forgotten after so many seconds.
    """

    group_id: str
    task_id: str
    ttl: float | None = None


class OverdueChord(Struct, frozen=True):
    """A chord that nobody may be working on any more; `body` as it was opened with.

    `why`: "complete" (all parts are there, and nobody who comes back has the right to send the body), "unsent"
    (whoever was sending its header died) or "expired" (it is about to be forgotten, whatever is there of it). `told`:
    how often it was told, this time included. `returned` of `size` parts are there (None: nobody knows how many there
    are), `age` seconds after it was opened, or was first heard of. "broken", told once: nobody can look after it, for
    the `problem` that its storage has.
    """

    group_id: str
    body: bytes
    why: str
    told: int = 1
    returned: int = 0
    size: int | None = None
    age: float = 0.0
    problem: str = ""


class ChordPart(Struct, frozen=True):
    """The result of one part of a header; counted once by task and `index`, however often it returns.

    `token` names who sends the body if this part is the last one: the same for every delivery of a message. `hold` is
    for how many seconds that is nobody else's right. `returns`: whether the message would come back if its worker
    died now. `body`: the chord's, where the backend may not know it (others opened the chord).

    `why`, of an `OverdueChord`: this is no part, nothing is counted, only the right to send the body is asked for.
    "complete" has it if all parts are there, "unsent" if they are not, and the sender has not spoken again; "expired"
    if no part has been counted since it was told. For those two the chord has failed, and no part completes it any
    more.
    """

    group_id: str
    task_id: str
    index: int | None
    content: bytes
    token: str
    hold: float
    ttl: float | None = None
    returns: bool = True
    body: bytes | None = None
    why: str | None = None


class ChordClaim(Struct, frozen=True):
    """The right to send a body; `failed` when a failure was told instead."""

    group_id: str
    token: str
    failed: bool = False


# -- revocations, as they travel in `Broker.revoke`: opaque texts to brokers


class Notice(Struct, frozen=True):
    """What is not to run (any more): a task, all tasks of a group, or all with one of these stamps; `terminate` stops
    what runs."""

    task_id: str | None = None
    group: str | None = None
    stamps: Mapping[str, list[str]] = field(default_factory=dict)
    terminate: bool = False


def revocation(task_id: str, *, terminate: bool) -> str:
    return f"{'terminate' if terminate else 'drop'}:{task_id}"


def revocation_of_group(group_id: str, *, terminate: bool) -> str:
    return f"{'terminate' if terminate else 'drop'}-group:{group_id}"


def revocation_of_stamps(stamps: Mapping[str, Sequence[str]], *, terminate: bool) -> str:
    return f"{'terminate' if terminate else 'drop'}-stamps:{json.dumps(stamps)}"


def parse_revocation(notice: str) -> Notice:
    """What one of the above has made; of anything else a notice that means nothing."""
    kind, _, rest = notice.partition(":")
    terminate = kind.startswith("terminate")
    if kind.endswith("-group"):
        return Notice(group=rest, terminate=terminate)
    if not kind.endswith("-stamps"):
        return Notice(rest, terminate=terminate)
    try:
        found = json.loads(rest)
        named = found.items() if isinstance(found, dict) else ()
        stamps = {name: [str(value) for value in values] for name, values in named if isinstance(values, list)}
    except (ValueError, RecursionError):
        return Notice()
    return Notice(stamps=stamps, terminate=terminate and bool(stamps))
