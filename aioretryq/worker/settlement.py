"""What follows from an outcome: pure. The settler carries it out, in an order that is safe to crash in.

outcome         result stored              message
Succeeded       SUCCESS                    acknowledged
Failed          FAILURE                    acknowledged; to the dead letters if its task wants that
RetryAsked      RETRY                      acknowledged and parked anew, in one atomic step
Ignored         -                          acknowledged
Replaced        -                          acknowledged; what replaces it is sent in the same step
Rejected        FAILURE, unless requeued   to the dead letters, or to the tail of its queue
GivenUp         FAILURE                    to the dead letters
Revoked         REVOKED                    acknowledged
Interrupted     -                          back to the front of its queue
Traced          - (stored already)         as its outcome says, without the follow-ups

What else follows of a success, or of an end that is none and final, is in `followups.py`.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, assert_never

from msgspec import Struct
from msgspec.structs import replace

from aioretryq import states
from aioretryq.errors import AioretryqError, NotOpenError, TaskRevokedError
from aioretryq.message import Outgoing, StoredResult
from aioretryq.outcome import (
    Failed,
    GivenUp,
    Ignored,
    Interrupted,
    Outcome,
    Rejected,
    Replaced,
    RetryAsked,
    Revoked,
    Settled,
    Succeeded,
    Traced,
)
from aioretryq.protocol.exceptions import exception_to_data
from aioretryq.protocol.result import ResultDocument, exception_of
from aioretryq.protocol.task import encode_task, format_moment, saferepr
from aioretryq.worker.burial import BURIED, REJECTED, burial, why_failed, with_error
from aioretryq.worker.followups import NOTHING, Following, Followups
from aioretryq.worker.parts import Ending, stamps_of

if TYPE_CHECKING:
    from aioretryq.context import Request
    from aioretryq.message import DeadEntry, Delivery, TaskMessage
    from aioretryq.worker.run_options import RunOptions

REJECT_DELAY = 1.0
"""Seconds until a message that was rejected with requeue is offered again: a task that always rejects must
not spin."""

Record = Callable[[ResultDocument], StoredResult]
NewTag = Callable[[], str]  # called only where there is a follow-up: making one costs microseconds


class Attempted(Struct, frozen=True, kw_only=True):
    """One attempt, as the settlement has to know it."""

    message: TaskMessage
    delivery: Delivery
    request: Request
    worker: str
    options: RunOptions
    acked: bool = False  # early acknowledgement
    extended: bool = False
    ignore_result: bool = False

    @property
    def limits(self) -> tuple[float | None, float | None]:
        """Soft and hard, in seconds."""
        soft, hard, options = self.request.soft_time_limit, self.request.time_limit, self.options
        return options.soft_time_limit if soft is None else soft, options.time_limit if hard is None else hard

    @property
    def bury_failures(self) -> bool:
        return self.options.buries_failures(self.delivery.queue)


class Settlement(Struct, frozen=True):
    """`outcome` is what was settled: a value that cannot be serialised has become a failure."""

    outcome: Settled
    record: StoredResult | None = None
    send: tuple[Outgoing, ...] = ()
    dead: DeadEntry | None = None
    requeue: bool = False
    following: Following = NOTHING  # its messages are in `send`
    traced: bool = False  # by another library, which has said and stored what came of it


def settle(
    outcome: Outcome, attempted: Attempted, *, now: float, tag: NewTag, record: Record, followups: Followups
) -> Settlement:
    """`tag` makes the name of a follow-up message; `record` encodes a document for the backend."""
    if isinstance(outcome, Traced):
        return _traced(outcome.outcome, attempted, now, tag)
    try:
        settled = _settle(outcome, attempted, now, tag, record, followups)
    except NotOpenError:
        raise  # not the task's failure: the worker is being torn down
    except (AioretryqError, TypeError, ValueError, AttributeError) as error:
        # The value of a success, what follows from it, the new arguments or options of a retry, or the list of tasks
        # that it has sent.
        childless = dataclasses.replace(attempted.request, children=[])
        attempted = replace(attempted, request=childless)
        settled = _settle(Failed(error), attempted, now, tag, record, followups)
    if isinstance(settled.outcome, Succeeded | Replaced):
        return settled
    return _with_failure(settled, attempted, now, followups)


def _settle(
    outcome: Settled, attempted: Attempted, now: float, tag: NewTag, record: Record, followups: Followups
) -> Settlement:
    if isinstance(outcome, Succeeded):  # nearly all
        following = followups.success(attempted, outcome.value, now)
        told = _with_children(attempted, following) if following.children else attempted
        kept = _stored(told, now, record, states.SUCCESS, outcome.value)
        return Settlement(outcome, kept, following.send, following=following)
    stored = functools.partial(_stored, attempted, now, record)
    match outcome:
        case Failed(exc, text):
            return _fail(outcome, attempted, now, tag, stored(states.FAILURE, exception_to_data(exc), text))
        case GivenUp(exc, reason):
            record_of_failure = stored(states.FAILURE, exception_to_data(exc))
            return Settlement(outcome, record_of_failure, dead=burial(reason, attempted, now, tag, exc))
        case RetryAsked(exc, _, text):
            again = retry_message(outcome, attempted, now, tag)
            return Settlement(outcome, stored(states.RETRY, exception_to_data(exc), text), (again,))
        case Ignored():
            return Settlement(outcome)
        case Replaced(node):
            following = followups.replaced(attempted, node, now)
            return Settlement(outcome, send=following.send, following=following)
        case Rejected(exc, requeue):
            return _reject(
                outcome, attempted, now, tag, None if requeue else stored(states.FAILURE, exception_to_data(exc))
            )
        case Revoked() | Interrupted():
            ending = _ending(outcome, attempted)
            if ending is None:
                return Settlement(outcome, requeue=True)
            return Settlement(outcome, stored(states.REVOKED, exception_to_data(ending.exc)))
        case _:
            assert_never(outcome)


def _ending(outcome: Settled, attempted: Attempted) -> Ending | None:
    """Of a task that has ended for good, and not well."""
    match outcome:
        case Failed(exc, text):
            return Ending(states.FAILURE, exc, text)
        case GivenUp(exc) | Rejected(exc, requeue=False):
            return Ending(states.FAILURE, exc)
        case Revoked(reason):
            return Ending(states.REVOKED, TaskRevokedError(reason))
        case Interrupted() if attempted.acked:
            # The broker has forgotten the message, and early ack rules out running it again.
            return Ending(states.REVOKED, TaskRevokedError("terminated"))
        case _:
            return None


def _with_failure(settled: Settlement, attempted: Attempted, now: float, followups: Followups) -> Settlement:
    ending = _ending(settled.outcome, attempted)
    if ending is None:
        return settled
    following = followups.failure(attempted, ending, now)
    return replace(settled, send=(*settled.send, *following.send), following=following)


def _with_children(attempted: Attempted, following: Following) -> Attempted:
    request = attempted.request
    return replace(attempted, request=dataclasses.replace(request, children=[*request.children, *following.children]))


def _traced(done: Settled, attempted: Attempted, now: float, tag: NewTag) -> Settlement:
    """Nothing is stored, and no follow-up sent; a message that is given up or asked for again still is."""
    match done:
        case Failed():
            settled = _fail(done, attempted, now, tag, None)
        case Rejected():
            settled = _reject(done, attempted, now, tag, None)
        case _:
            settled = Settlement(done)
    return replace(settled, traced=True)


def _stored(
    attempted: Attempted, now: float, record: Record, state: str, result: Any, traceback: str | None = None
) -> StoredResult | None:
    wanted = not attempted.ignore_result or (state == states.FAILURE and attempted.options.store_errors)
    return record(document(attempted, state, result, traceback, now)) if wanted else None


def _fail(outcome: Failed, attempted: Attempted, now: float, tag: NewTag, stored: StoredResult | None) -> Settlement:
    if not attempted.bury_failures:
        return Settlement(outcome, stored)
    dead = burial(why_failed(attempted), attempted, now, tag, outcome.exc, outcome.traceback)
    return Settlement(outcome, stored, dead=dead)


def _reject(
    outcome: Rejected, attempted: Attempted, now: float, tag: NewTag, stored: StoredResult | None
) -> Settlement:
    delivery = attempted.delivery
    if outcome.requeue:
        again = Outgoing(delivery.queue, delivery.body, tag(), delivery.priority, now + REJECT_DELAY)
        return Settlement(outcome, None, (again,))
    return Settlement(outcome, stored, dead=burial(REJECTED, attempted, now, tag, outcome.exc))


def settle_again(
    found: ResultDocument, attempted: Attempted, *, now: float, tag: NewTag, followups: Followups
) -> Settlement:
    """Of a redelivered message whose final result is stored already: its worker died before it acknowledged.

    What would have been sent or buried then is sent or buried now.
    """
    if found.status == states.SUCCESS:
        following = followups.success(attempted, found.result, now)
        return Settlement(Ignored(), send=following.send, following=following)
    exc = exception_of(found) or AioretryqError("its failure cannot be read")
    following = followups.failure(attempted, Ending(found.status, exc, found.traceback), now)
    settled = Settlement(Ignored(), send=following.send, following=following)
    if found.status != states.FAILURE:
        return settled
    reason = next((why for cls, why in BURIED.items() if isinstance(exc, cls)), None)
    if reason is None and attempted.bury_failures:
        reason = why_failed(attempted)
    dead = None if reason is None else burial(reason, attempted, now, tag, exc, found.traceback)
    return replace(settled, dead=dead)


def document(attempted: Attempted, state: str, result: Any, traceback: str | None, now: float) -> ResultDocument:
    """The result document of a state of this attempt (celery/backends/base.py, _get_result_meta)."""
    message, request = attempted.message, attempted.request
    extended: dict[str, Any] = {}
    if attempted.extended:
        extended = {
            "name": message.task,
            "args": message.args,
            "kwargs": message.kwargs,
            "worker": attempted.worker,
            "retries": message.retries,
            "queue": attempted.delivery.queue,
            "extra": stamps_of(message.stamped_headers, message.stamps),
        }
    return ResultDocument(
        task_id=message.id,
        status=state,
        result=result,
        traceback=traceback,
        children=request.children,
        date_done=format_moment(now) if state in states.FINAL else None,
        group_id=message.group,
        parent_id=message.parent_id,
        **extended,
    )


def retry_message(retry: RetryAsked, attempted: Attempted, now: float, tag: NewTag) -> Outgoing:
    """The same call once more: same id and root, one retry further, everything unknown kept."""
    message, delivery, options = attempted.message, attempted.delivery, retry.options
    args = message.args if retry.args is None else list(retry.args)
    kwargs = message.kwargs if retry.kwargs is None else retry.kwargs
    queue = options.get("queue") or delivery.queue
    priority = options.get("priority", message.priority)
    again = replace(
        message,
        args=args,
        kwargs=kwargs,
        argsrepr=message.argsrepr if retry.args is None else saferepr(tuple(args)),
        kwargsrepr=message.kwargsrepr if retry.kwargs is None else saferepr(kwargs),
        retries=message.retries + 1,
        eta=format_moment(retry.due),
        expires=_expires(options.get("expires"), message.expires, now),
        parent_id=message.id,
        time_limit=options.get("time_limit", message.time_limit),
        soft_time_limit=options.get("soft_time_limit", message.soft_time_limit),
        headers={**with_error(attempted, retry.exc, now), **options.get("headers", {})},
        exchange="",
        routing_key=queue,
        priority=priority,
    )
    name = tag()
    return Outgoing(queue, encode_task(again, tag=name), name, priority, retry.due)


def _expires(given: Any, before: str | None, now: float) -> str | None:
    if given is None:
        return before
    if isinstance(given, datetime):
        return given.isoformat()
    return format_moment(now + (given.total_seconds() if isinstance(given, timedelta) else given))
