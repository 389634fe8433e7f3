"""From a workflow that was composed here to the plan of what is sent for it. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from aioretryq.calling import CallOptions
from aioretryq.protocol.members import KEPT, Members
from aioretryq.protocol.signature import CHAIN, CHORD, GROUP, Node, size, steps_of
from aioretryq.workflows.bulk import BulkCompiler
from aioretryq.workflows.check import Checker
from aioretryq.workflows.plan import NO_KWARGS
from aioretryq.workflows.shapes import is_empty_chain
from aioretryq.workflows.spread import spread

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aioretryq.workflows.batches import Plan
    from aioretryq.workflows.plan import Compose

FEW = 100
"""Members of a group that are planned at once: what more of them have in common is worth to be found."""

OF_SENDER = ("retry", "retry_policy", "timeout", "wait")


def _never(name: str) -> bool:
    return False


class Sender(Struct, frozen=True):
    """What a plan owes to whoever sends it: its way to compose a message, ids, its name, the time.

    `counts`: whether the result backend counts parts of chords. `uniform`: whether calls of the task of that name,
    with the same options, differ by nothing but ids and arguments.
    """

    compose: Compose
    new_id: Callable[[], str]
    reply_to: str
    now: float
    counts: bool = True
    errbacks_in_header: bool = False
    uniform: Callable[[str], bool] = _never


def compile(
    node: Node,
    args: Sequence[Any] = (),
    kwargs: Mapping[str, Any] = NO_KWARGS,
    options: Mapping[str, Any] = NO_KWARGS,
    *,
    sender: Sender,
) -> Plan:
    """What is to be sent when the workflow is called with `args` before its own, and `options` for all its steps.

    The members of a group or header that is sent at once, if they are very many or come from a generator, are read
    when their turn has come: see `Plan.batches`. All that can be known to be wrong is raised here: ConfigError (an
    option that cannot be, a chord without a backend that counts, one task_id for two calls), TypeError for what
    follows from a group.
    """
    if node.kind == GROUP and any(options.get(name) is not None for name in ("link", "link_error")):
        raise TypeError("Nothing can follow from a group: use a chord, or link to its members.")
    call = CallOptions(**{name: options[name] for name in OF_SENDER if name in options})
    options = {name: value for name, value in options.items() if name not in OF_SENDER}
    node, count = _streamed(node)
    node, rest = spread(node, options, sender.now)
    checker = Checker(counts=sender.counts)
    checker.check(node)
    compiler = BulkCompiler(
        sender.compose,
        sender.new_id,
        sender.reply_to,
        errbacks_in_header=sender.errbacks_in_header,
        count=count,
        uniform=sender.uniform,
        check=checker.check,
    )
    compiler.plan.call = call
    compiler.plan.result = compiler.apply(node, args, kwargs, rest)
    return compiler.plan


def _streamed(node: Node) -> tuple[Node, int | None]:
    """With `Members` where very many are sent at once, and how many parts of those return; lists everywhere else."""
    if node.kind == CHAIN:
        steps = list(steps_of(node))
        first = next((number for number, step in enumerate(steps) if not is_empty_chain(step)), 0)
        count = None
        for number, step in enumerate(steps):
            if number == first:
                steps[number], count = _streamed(step)
            else:
                steps[number] = _listed(step)
        return replace(node, steps=tuple(steps)), count
    if node.kind == GROUP:
        return _as_stream(node)
    if node.kind == CHORD and node.body is not None:
        made, count = _as_stream(node)
        return replace(made, body=_listed(node.body)), count
    return node, None


def _as_stream(node: Node) -> tuple[Node, int | None]:
    if isinstance(node.steps, Members) and len(node.steps.first(KEPT)) == KEPT:
        return replace(node, steps=node.steps.map(_listed)), None
    listed = _listed(node)
    members = steps_of(listed)
    if len(members) <= FEW:
        return listed, None
    return replace(listed, steps=Members(members)), sum(map(size, members))


def _listed(node: Node) -> Node:
    if node.body is None and not node.steps:
        return node
    body = None if node.body is None else _listed(node.body)
    return replace(node, steps=tuple(map(_listed, node.steps)), body=body)
