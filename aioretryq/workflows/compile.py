"""From a workflow that was composed here to the plan of what is sent for it. Pure."""

from __future__ import annotations

from itertools import islice
from operator import is_
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from aioretryq.calling import CallOptions
from aioretryq.errors import PayloadTooLarge
from aioretryq.protocol.members import KEPT, Members
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, TASK, Node, steps_of
from aioretryq.workflows.bulk import BulkCompiler
from aioretryq.workflows.check import Checker
from aioretryq.workflows.shapes import is_empty_chain
from aioretryq.workflows.spread import spread

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from aioretryq.workflows.plan import Plan
    from aioretryq.workflows.sender import Sender

FEW = 100
"""Members of a group that are planned at once: what more of them have in common is worth to be found."""

HEAVY = 500
"""Calls; to plan more takes longer than an event loop can stand still."""

LEAST = 64
"""Bytes of a call that is inside of another one's message, at the very least."""

OF_SENDER = ("retry", "retry_policy", "timeout", "wait")
_LINKS = ("link", "link_error")
NO_KWARGS: Mapping[str, Any] = {}


def compile(
    node: Node,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = NO_KWARGS,
    options: Mapping[str, Any] = NO_KWARGS,
    *,
    sender: Sender,
) -> Plan:
    """What is to be sent when the workflow is called with `args` before its own, and `options` for all its steps.

    The members of a group or header that is sent at once, if they are more than a few or come from a generator, are
    read when their turn has come: see `Plan.batches`. All else that can be known to be wrong is raised here:
    ConfigError (an option that cannot be, a chord without a backend that counts, one task_id for two calls),
    PayloadTooLarge for more steps than a message holds, TypeError for what follows from a group.
    """
    refused = _LINKS if node.kind == GROUP else ("link",) if _ends_in_group(node) else ()
    if any(options.get(name) is not None for name in refused):
        raise TypeError("Nothing can follow from a group: use a chord, or link to its members.")
    call = CallOptions(**{name: options[name] for name in OF_SENDER if name in options})
    options = {name: value for name, value in options.items() if name not in OF_SENDER}
    node = streamed(node)
    heavy = is_heavy(node)
    _check_size(node, sender.limit)
    node, rest = spread(node, options, sender.now)
    checker = Checker(counts=sender.counts)
    checker.check(node)
    compiler = BulkCompiler(sender, check=checker.check)
    compiler.plan.call, compiler.plan.heavy = call, heavy
    compiler.plan.result = compiler.apply(node, args, kwargs, rest)
    return compiler.plan


def _ends_in_group(node: Node) -> bool:
    if node.kind == CHAIN:
        last = next((step for step in reversed(steps_of(node)) if not is_empty_chain(step)), None)
        return last is not None and _ends_in_group(last)
    return node.kind == GROUP or (node.body is not None and _ends_in_group(node.body))


def streamed(node: Node) -> Node:
    """With `Members` where very many are sent at once; lists everywhere else."""
    if node.kind == CHAIN:
        steps = list(steps_of(node))
        first = next((number for number, step in enumerate(steps) if not is_empty_chain(step)), 0)
        made = tuple(streamed(step) if number == first else whole(step) for number, step in enumerate(steps))
        return replace(node, steps=made)
    if node.kind == GROUP:
        return _as_stream(node)
    if node.kind == CHORD and node.body is not None:
        return replace(_as_stream(node), body=whole(node.body))
    return node


def _as_stream(node: Node) -> Node:
    steps = node.steps
    if isinstance(steps, Members) and not steps.listed and len(steps.first(KEPT)) < KEPT:
        steps = tuple(steps)
    if isinstance(steps, tuple) and len(steps) > FEW:
        steps = Members(steps)
    if isinstance(steps, Members):
        return replace(node, steps=steps.map(whole))
    return whole(replace(node, steps=steps))


def whole(node: Node) -> Node:
    """With all members at once, also those of a generator."""
    if node.body is None and not node.steps:
        return node
    steps = steps_of(node)
    made = tuple(map(whole, steps))
    body = None if node.body is None else whole(node.body)
    if node.steps is steps and body is node.body and all(map(is_, made, steps)):
        return node
    return replace(node, steps=made, body=body)


def is_heavy(node: Node) -> bool:
    """Whether it takes long to plan what is not planned piece by piece; of a workflow that is `streamed`."""
    return any(islice(_calls(node), HEAVY, None))


def _check_size(node: Node, limit: int) -> None:
    """What comes later travels inside of what is sent first."""
    most = limit // LEAST
    if node.kind == CHAIN and any(islice(_calls(node), most, None)):
        raise PayloadTooLarge(
            f"The workflow was not sent: what comes after its first step, more than {most:,} calls, travels in one "
            f"message, and max_payload_bytes is {limit:,}. Let a task send it, or replace itself by it."
        )


def _calls(node: Node) -> Iterator[bool]:
    if node.kind == TASK:
        yield True
    elif not isinstance(node.steps, Members):
        for step in node.steps:
            yield from _calls(step)
    if node.body is not None:
        yield from _calls(node.body)
