"""The commands of remote control, as whoever calls them has to know them; Celery's names and arguments."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["inspect", "control"]
Read = Callable[[str], Any]


def truth(text: str) -> bool:
    """A yes or no, as words of a command line."""
    known = {"true": True, "yes": True, "on": True, "1": True, "false": False, "no": False, "off": False, "0": False}
    if text.lower() not in known:
        raise ValueError(f"{text!r} is neither yes nor no")
    return known[text.lower()]


def number(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


def optional_text(text: str) -> str | None:
    return None if text.lower() == "none" else text


@dataclass(frozen=True, slots=True)
class Command:
    """`args` are the arguments in the order of a command line, each with what reads its word; `variadic` takes the
    rest of the words. `options` can only be given as `name=value`."""

    name: str
    kind: Kind
    help: str
    args: tuple[tuple[str, Read], ...] = ()
    variadic: str | None = None
    options: tuple[tuple[str, Read], ...] = ()
    signature: str = ""
    alias: str | None = None
    visible: bool = True


_TERMINATE: tuple[tuple[str, Read], ...] = (("terminate", truth), ("signal", str))

COMMANDS = (
    # -- inspect
    Command("ping", "inspect", "Is it there?"),
    Command("active", "inspect", "Tasks that run now.", (("safe", truth),), signature="[safe]", alias="dump_active"),
    Command("reserved", "inspect", "Tasks that were taken and have not begun.", alias="dump_reserved"),
    Command("scheduled", "inspect", "Tasks that this worker has left until their time.", alias="dump_schedule"),
    Command("revoked", "inspect", "Ids of tasks that are not to run.", alias="dump_revoked"),
    Command(
        "registered",
        "inspect",
        "Names of tasks, with options of yours.",
        variadic="taskinfoitems",
        options=(("builtins", truth),),
        signature="[option...]",
        alias="dump_tasks",
    ),
    Command("active_queues", "inspect", "Queues it takes messages from."),
    Command("stats", "inspect", "Counters, pool, broker, resources."),
    Command(
        "conf", "inspect", "Settings.", (("with_defaults", truth),), signature="[with_defaults]", alias="dump_conf"
    ),
    Command("query_task", "inspect", "What is known of these tasks.", variadic="ids", signature="ID..."),
    Command("report", "inspect", "Versions and settings, for bug reports."),
    Command("clock", "inspect", "The logical clock."),
    Command("memsample", "inspect", "Memory in use now; remembered for memdump."),
    Command("memdump", "inspect", "The samples so far.", (("samples", int),), signature="[n]"),
    Command("objgraph", "inspect", "A graph of objects (Celery's workers only).", (("type", str), ("num", int))),
    Command("hello", "inspect", "Exchange revoked ids.", (("from_node", str),), visible=False),
    # -- control
    Command("revoke", "control", "These tasks are not to run.", (), "task_id", _TERMINATE, "ID... [terminate=yes]"),
    Command("terminate", "control", "Stop tasks that run.", (("signal", str),), "task_id", (), "SIGNAL ID..."),
    Command(
        "revoke_by_stamped_headers",
        "control",
        "Tasks with one of these stamps are not to run.",
        (),
        "headers",
        _TERMINATE,
        "NAME=VALUE...",
    ),
    Command(
        "rate_limit",
        "control",
        "How often a task may start.",
        (("task_name", str), ("rate_limit", optional_text)),
        signature="TASK 10/s|100/m|5/h|0",
    ),
    Command(
        "time_limit",
        "control",
        "Time limits of a task.",
        (("task_name", str), ("soft", number), ("hard", number)),
        signature="TASK SOFT [HARD]",
    ),
    Command(
        "add_consumer",
        "control",
        "Take messages from a queue, too.",
        (("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)),
        signature="QUEUE [EXCHANGE [TYPE [KEY]]]",
    ),
    Command("cancel_consumer", "control", "Take nothing more from a queue.", (("queue", str),), signature="QUEUE"),
    Command("enable_events", "control", "Send events of tasks."),
    Command("disable_events", "control", "Send no more events of tasks."),
    Command("heartbeat", "control", "Send a heartbeat event now."),
    Command("pool_grow", "control", "Run more tasks at once.", (("n", int),), signature="[N]"),
    Command("pool_shrink", "control", "Run fewer tasks at once.", (("n", int),), signature="[N]"),
    Command(
        "autoscale", "control", "Run so many tasks at once.", (("max", int), ("min", int)), signature="MAX [MIN]"
    ),
    Command("pool_restart", "control", "Restart the pool (Celery's workers only)."),
    Command("shutdown", "control", "Stop the worker gracefully."),
    Command("election", "control", "Of Celery's gossip.", (("id", str), ("topic", str)), visible=False),
)

BY_NAME = {command.name: command for command in COMMANDS}
"""Without the aliases."""


def arguments_of(command: Command, words: list[str]) -> dict[str, Any]:
    """Words of a command line as arguments. Raises ValueError where they do not fit."""
    readers = dict((*command.args, *command.options))
    arguments: dict[str, Any] = {}
    rest = []
    positions = iter(command.args)
    for word in words:
        name, equals, value = word.partition("=")
        if equals and name in readers:
            arguments[name] = readers[name](value)
        elif (position := next(positions, None)) is not None:
            arguments[position[0]] = position[1](word)
        elif command.variadic is not None:
            rest.append(word)
        else:
            raise ValueError(f"{command.name} takes {command.signature or 'no arguments'}, not {word!r}.")
    if rest and command.variadic is not None:
        arguments[command.variadic] = rest
    return arguments
