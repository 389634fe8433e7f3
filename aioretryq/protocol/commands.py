"""The commands of remote control, as whoever calls them has to know them; Celery's names and arguments."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Literal

from msgspec import Struct

from aioretryq.errors import ConfigError, did_you_mean
from aioretryq.rates import check_rate

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


def whole(text: str) -> int:
    return int(text)


def rate(text: str) -> str | None:
    return None if text.lower() == "none" else text


def word(text: str) -> str:
    """What is not looked at: workers of Celery take names and numbers of signals."""
    return text


class Command(Struct, frozen=True):
    """`args` are the arguments in the order of a command line, each with what reads its word; `variadic` takes the
    rest of the words, those with a `=` only where `pairs` says so. `options` can only be given as `name=value`.
    Without those that are `required` no worker could do anything but complain."""

    name: str
    kind: Kind
    help: str
    args: tuple[tuple[str, Read], ...] = ()
    variadic: str | None = None
    options: tuple[tuple[str, Read], ...] = ()
    signature: str = ""
    alias: str | None = None
    visible: bool = True
    required: tuple[str, ...] = ()
    pairs: bool = False


_TERMINATE: tuple[tuple[str, Read], ...] = (("terminate", truth), ("signal", word))

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
    Command(
        "query_task", "inspect", "What is known of these tasks.", variadic="ids", signature="ID...", required=("ids",)
    ),
    Command("report", "inspect", "Versions and settings, for bug reports."),
    Command("clock", "inspect", "The logical clock."),
    Command("memsample", "inspect", "Memory in use now; remembered for memdump."),
    Command("memdump", "inspect", "The samples so far.", (("samples", whole),), signature="[n]"),
    Command(
        "objgraph",
        "inspect",
        "A graph of objects (Celery's workers only).",
        (("type", str), ("num", whole), ("max_depth", whole)),
        signature="[TYPE [N [DEPTH]]]",
    ),
    Command(
        "hello",
        "inspect",
        "Exchange revoked ids, as workers do.",
        (("from_node", str),),
        "revoked",
        signature="NODE [ID]...",
        visible=False,
        required=("from_node",),
    ),
    # -- control
    Command(
        "revoke",
        "control",
        "These tasks are not to run.",
        variadic="task_id",
        options=_TERMINATE,
        signature="ID... [terminate=yes]",
        required=("task_id",),
    ),
    Command(
        "terminate",
        "control",
        "Stop tasks that run.",
        (("signal", word),),
        "task_id",
        signature="SIGNAL ID...",
        required=("signal", "task_id"),
    ),
    Command(
        "revoke_by_stamped_headers",
        "control",
        "Tasks with one of these stamps are not to run.",
        variadic="headers",
        options=_TERMINATE,
        signature="NAME=VALUE...",
        required=("headers",),
        pairs=True,
    ),
    Command(
        "rate_limit",
        "control",
        "How often a task may start.",
        (("task_name", str), ("rate_limit", rate)),
        signature="TASK 10/s|100/m|5/h|0",
        required=("task_name", "rate_limit"),
    ),
    Command(
        "time_limit",
        "control",
        "Time limits of a task.",
        (("task_name", str), ("soft", number), ("hard", number)),
        signature="TASK SOFT [HARD]",
        required=("task_name",),
    ),
    Command(
        "add_consumer",
        "control",
        "Take messages from a queue, too.",
        (("queue", str), ("exchange", str), ("exchange_type", str), ("routing_key", str)),
        signature="QUEUE [EXCHANGE [TYPE [KEY]]]",
        required=("queue",),
    ),
    Command(
        "cancel_consumer",
        "control",
        "Take nothing more from a queue.",
        (("queue", str),),
        signature="QUEUE",
        required=("queue",),
    ),
    Command("enable_events", "control", "Send events of tasks."),
    Command("disable_events", "control", "Send no more events of tasks."),
    Command("heartbeat", "control", "Send a heartbeat event now."),
    Command("pool_grow", "control", "Run more tasks at once.", (("n", whole),), signature="[N]"),
    Command("pool_shrink", "control", "Run fewer tasks at once.", (("n", whole),), signature="[N]"),
    Command(
        "autoscale",
        "control",
        "Run so many tasks at once.",
        (("max", whole), ("min", whole)),
        signature="MAX [MIN]",
        required=("max",),
    ),
    Command("pool_restart", "control", "Restart the pool (Celery's workers only)."),
    Command("shutdown", "control", "Stop the worker gracefully."),
    Command(
        "election",
        "control",
        "Of Celery's gossip.",
        (("id", str), ("topic", str), ("action", word)),
        signature="ID TOPIC [ACTION]",
        visible=False,
        required=("id", "topic"),
    ),
)

BY_NAME = {command.name: command for command in COMMANDS}
"""Without the aliases."""


def arguments_of(command: Command, words: list[str]) -> dict[str, Any]:
    """Words of a command line as arguments. Raises ValueError where they do not fit."""
    readers = dict((*command.args, *command.options))
    arguments: dict[str, Any] = {}
    rest = []
    for given in words:
        name, equals, value = given.partition("=")
        position = next((each for each, _ in command.args if each not in arguments), None)
        if equals and name in readers:
            arguments[name] = _read(command, name, readers[name], value)
        elif equals and name.isidentifier() and not command.pairs:
            raise ValueError(f"{_takes(command)}; it has no argument {name!r}.{did_you_mean(name, readers)}")
        elif position is not None:
            arguments[position] = _read(command, position, readers[position], given)
        elif command.variadic is not None:
            rest.append(given)
        else:
            raise ValueError(f"{_takes(command)}, not {given!r}.")
    if rest and command.variadic is not None:
        arguments[command.variadic] = rest
    _check_complete(command, arguments, ValueError)
    return arguments


def check_arguments(command: Command, arguments: Mapping[str, Any]) -> None:
    """TypeError or ConfigError for what every worker would answer with an error, as far as its form shows it."""
    _check_complete(command, arguments, TypeError)
    for name, read in (*command.args, *command.options):
        value = arguments.get(name)
        if read is rate:
            check_rate(value, f"{command.name}: {name}")
        fits, kind = _VALUES.get(read, (None, ""))
        if fits is None or fits(value) or (value is None and name not in command.required):
            continue
        if value == "":
            raise ConfigError(f"{command.name}: {name} is empty.")
        raise TypeError(f"{command.name}: {name} is {kind}, not {value!r:.100}.")


def _check_complete(command: Command, arguments: Mapping[str, Any], error: type[Exception]) -> None:
    if missing := [name for name in command.required if name not in arguments]:
        raise error(f"{_takes(command)}; {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing.")


def _read(command: Command, name: str, read: Read, text: str) -> Any:
    try:
        return read(text)
    except ValueError as error:
        kind = _VALUES[read][1] if read in _VALUES else ""
        raise ValueError(f"{command.name}: {name} is {kind}, not {text!r}." if kind else f"{name}: {error}") from None


def _takes(command: Command) -> str:
    return f"{command.name} takes {command.signature or 'no arguments'}"


def _is_seconds(value: Any) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and value >= 0


_VALUES: dict[Read, tuple[Callable[[Any], bool], str]] = {
    str: (lambda value: isinstance(value, str) and value != "", "a text"),
    whole: (lambda value: type(value) is int and value >= 0, "a whole number"),
    number: (_is_seconds, "a number of seconds"),
    truth: (lambda value: isinstance(value, bool), "yes or no"),
}
"""By what reads them: which values fit, and what to call those."""
