"""Workflows compiled without a queue, as our own senders compile them."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any

from canvas.composing import written
from celery import Signature

from aioretryq.calling import compose, options_of_signature
from aioretryq.config import Settings
from aioretryq.protocol.signature import Node, read_signature
from aioretryq.workflows.compile import compile
from aioretryq.workflows.sender import Sender

if TYPE_CHECKING:
    from aioretryq.message import TaskMessage
    from aioretryq.workflows.plan import Plan

NOW = 1_000_000.0


def sender(settings: Settings | None = None, **more: Any) -> Sender:
    numbers, conf = itertools.count(1), settings or Settings()

    def made(name: str, args: Any, kwargs: Any, options: Any) -> TaskMessage:
        call = options_of_signature(options, name)
        return compose(name, (args, kwargs), call, task=None, settings=conf, caller=None, now=NOW)

    return Sender(made, lambda: f"id{next(numbers)}", "here", NOW, **more)


def node_of(signature: Signature | Node) -> Node:
    return signature if isinstance(signature, Node) else read_signature(written(signature))


def planned(signature: Signature | Node, args: Any = (), **options: Any) -> Plan:
    return compile(node_of(signature), args, {}, options, sender=sender())


def calls(plan: Plan) -> dict[str, Any]:
    """What each task of the workflow is called with, by name: messages, and signatures inside of them."""
    found: dict[str, Any] = {}
    for message in plan.messages:
        found[message.task] = message
        for step in [*(message.chain or ()), message.chord]:
            if step is not None:
                _collect(read_signature(step), found)
    return found


def _collect(node: Node, found: dict[str, Any]) -> None:
    if not node.steps and node.body is None:
        found[node.task] = node.options
    for step in [*node.steps, *([node.body] if node.body is not None else [])]:
        _collect(step, found)
