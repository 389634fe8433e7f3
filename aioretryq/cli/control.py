"""`aioretryq inspect|control|status`: ask running workers, of both kinds, and tell them what to do."""

from __future__ import annotations

import asyncio
import json
import re
import textwrap
from typing import TYPE_CHECKING, Any, TypeVar

import click

from aioretryq.cli.loading import load_queue, queue_at
from aioretryq.errors import AioretryqError, ConfigError, ProtocolError, UnavailableError, did_you_mean
from aioretryq.protocol.commands import BY_NAME, Command, Kind, arguments_of
from aioretryq.protocol.control import jsonable
from aioretryq.protocol.nodes import MATCHERS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aioretryq.app import TaskQueue
    from aioretryq.control import Replies, Target

NOBODY = 69
"""Exit code when nobody has answered, as Celery's, or the broker cannot be reached."""

FAILED = 1
"""Exit code when somebody has answered with an error, or has not answered and others have."""

IN_MEMORY = (
    "Workers of memory:// hear only their own process, with queue.control. Name another broker with --url, "
    "AIORETRYQ_URL or APP:QUEUE."
)

APP = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*")
F = TypeVar("F", bound="Callable[..., Any]")


def _names(_ctx: click.Context, _param: click.Parameter, text: str | None) -> list[str] | None:
    if text is None:
        return None
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("no node is named: give NODE,..., or leave it out for all of them.")
    return names


def targeting(command: F) -> F:
    """The options that choose the workers and how to wait for them."""
    for option in (
        click.option("--json", "-j", "as_json", is_flag=True, help="One JSON object: node -> reply."),
        click.option("--timeout", "-t", type=click.FloatRange(0), default=1.0, show_default=True, help="Seconds."),
        click.option("--matcher", type=click.Choice(MATCHERS), default="glob", show_default=True, help="For it."),
        click.option("--pattern", "-p", help="Only nodes with such a name: 'web-*'."),
        click.option("--destination", "-d", metavar="NODE,...", callback=_names, help="Only these nodes."),
        click.option("--url", help="Broker URL, instead of the application's.  [default: AIORETRYQ_URL]"),
        click.option("--app", "-A", metavar="APP:QUEUE", help="The application; may also be the first or last word."),
    ):
        command = option(command)
    return command


def _list(kind: Kind, app: str | None) -> None:
    own = [] if app is None else [custom.described for custom in load_queue(app).commands.found.values()]
    commands = {found.name: found for found in (*BY_NAME.values(), *own) if found.kind == kind and found.visible}
    for _, command in sorted(commands.items()):
        click.echo(f"  {command.name} {command.signature}".ljust(44) + f" {command.help}")


WORDS = click.argument("words", metavar="[APP:QUEUE] COMMAND [ARGUMENT]...", nargs=-1)
OWN = click.option("--own", is_flag=True, help="COMMAND is one of the workers' own, which is not known here.")
LIST = click.option("--list", "listing", is_flag=True, help="Print the commands, the application's too, and end.")


@click.command("inspect")
@WORDS
@OWN
@targeting
@LIST
def inspect(words: tuple[str, ...], **options: Any) -> None:
    """Ask running workers, of aioretryq and of Celery.

    Ends as soon as all have answered. Exit code 69 when nobody has, 1 when one has not or has answered with an error.
    """
    _run("inspect", words, **options)


@click.command("control")
@WORDS
@OWN
@targeting
@LIST
def control(words: tuple[str, ...], **options: Any) -> None:
    """Tell running workers, of aioretryq and of Celery, what to do.

    An ARGUMENT is a word in the order of the signature (see --list), or name=value. Ends as soon as all have
    answered. Exit code 69 when nobody has, 1 when one has not or has answered with an error.
    """
    _run("control", words, **options)


@click.command("status")
@click.argument("words", metavar="[APP:QUEUE]", nargs=-1)
@targeting
def status(words: tuple[str, ...], *, app: str | None, url: str | None, as_json: bool, **target: Any) -> None:
    """List the workers that answer. Exit code 69 when none does, 1 when one does not."""
    app, rest = _application(app, words, url)
    if rest:
        raise click.UsageError(f"{rest[0]!r} is not an application; give it as package.module:attribute.")
    replies = _ask(queue_at(app, url, in_memory=IN_MEMORY, results=False), "ping", {}, _target(target))
    _tell("ping", replies, as_json=as_json, brief=True)


def _run(kind: Kind, words: Sequence[str], *, app: str | None, url: str | None, **options: Any) -> None:
    app, rest = _application(app, words, url)
    if options["listing"]:
        _list(kind, app)
        return
    if not rest:
        raise click.UsageError(f"Give a COMMAND; `aioretryq {kind} --list` prints them.")
    queue = queue_at(app, url, in_memory=IN_MEMORY, results=kind == "control")  # who revokes stores results
    command = _command(kind, rest[0], queue, own=options["own"])
    try:
        arguments = _any_arguments(rest[1:]) if command is None else arguments_of(command, list(rest[1:]))
    except ValueError as error:
        raise click.UsageError(str(error)) from error
    replies = _ask(queue, rest[0], arguments, _target(options))
    _tell(rest[0], replies, as_json=options["as_json"])


# -- what is meant


def _application(app: str | None, words: Sequence[str], url: str | None) -> tuple[str | None, Sequence[str]]:
    """The application, from the option or among the words, and the other words."""
    if app is not None and words and APP.fullmatch(words[0]):
        raise click.UsageError(f"The application is given twice: --app {app} and {words[0]}. Leave one out.")
    if app is not None or not words:
        return app, words
    if APP.fullmatch(words[0]):
        return words[0], words[1:]
    if url is None and APP.fullmatch(words[-1]):
        return words[-1], words[:-1]
    return None, words


def _command(kind: Kind, name: str, queue: TaskQueue, *, own: bool) -> Command | None:
    """What is known of a command; None for one of the workers' own."""
    custom = queue.commands.found.get(name)
    found = custom.described if custom is not None else BY_NAME.get(name)
    if found is None and own:
        return None
    if found is None:
        known = [command.name for command in BY_NAME.values() if command.kind == kind]
        raise click.UsageError(
            f"There is no command {name!r}.{did_you_mean(name, known)} `aioretryq {kind} --list` prints them all; "
            "name APP:QUEUE for those of an application, or use --own."
        )
    if found.kind != kind:
        raise click.UsageError(f"{name} is used with `aioretryq {found.kind}`.")
    return found


def _any_arguments(words: Sequence[str]) -> dict[str, Any]:
    arguments = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise ValueError(f"An argument of an --own command is name=value, not {word!r}.")
        try:
            arguments[name] = json.loads(value)
        except ValueError:
            arguments[name] = value
    return arguments


def _target(options: Mapping[str, Any]) -> Target:
    return {
        "destination": options["destination"],
        "pattern": options["pattern"],
        "matcher": options["matcher"],
        "timeout": options["timeout"],
    }


def _ask(queue: TaskQueue, method: str, arguments: dict[str, Any], target: Target) -> Replies:
    async def ask() -> Replies:
        async with queue:
            return await queue.control.call(method, arguments, **target)

    try:
        return asyncio.run(ask())
    except (TypeError, ConfigError, ProtocolError) as error:  # an argument, a pattern or a URL that does not fit
        raise click.UsageError(str(error)) from error
    except UnavailableError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(NOBODY) from error
    except AioretryqError as error:
        raise click.ClickException(str(error)) from error


# -- what was said


def _verdict(reply: Any) -> tuple[str, str]:
    """OK or ERROR, and the rest as text."""
    if isinstance(reply, dict) and "error" in reply:
        return "ERROR", str(reply["error"])
    if isinstance(reply, dict) and set(reply) == {"ok"}:
        return "OK", str(reply["ok"])
    if reply is None:
        return "OK", ""
    if isinstance(reply, list):
        return "OK", "\n".join(f"* {each if isinstance(each, str) else _json(each)}" for each in reply) or "- empty -"
    return "OK", reply if isinstance(reply, str) else _json(reply)


def _json(value: Any) -> str:
    return json.dumps(jsonable(value), indent=4, default=str)


def _tell(method: str, replies: Replies, *, as_json: bool, brief: bool = False) -> None:
    """Print what was said, and what was not; end with the exit code of it."""
    strangers = _strangers(method, replies)
    known = {node: reply for node, reply in sorted(replies.items()) if node not in strangers}
    if as_json:
        click.echo(json.dumps(jsonable(replies), default=str))
    else:
        for node, reply in known.items():
            verdict, text = _verdict(reply)
            click.echo(f"->  {node}: {verdict}" + ("" if brief else f"\n{textwrap.indent(text, ' ' * 8)}"))
        if replies:
            click.echo(f"\n{len(replies)} {'node' if len(replies) == 1 else 'nodes'} online.")
    for node in strangers:
        click.echo(click.style(f"{node} does not know {method}.", dim=True), err=True)
    code = _code_of_silence(method, replies)
    if not code and any(_verdict(reply)[0] == "ERROR" for reply in known.values()):
        code = FAILED
    raise SystemExit(code)


def _strangers(method: str, replies: Replies) -> list[str]:
    """Nodes that do not have an application's command; none if nobody has it."""
    unknown = {"error": repr(KeyError(method))}
    found = [] if method in BY_NAME else sorted(node for node, reply in replies.items() if reply == unknown)
    return found if len(found) < len(replies) else []


def _code_of_silence(method: str, replies: Replies) -> int:
    """Say who has not answered, and which exit code that is."""
    if not replies and not replies.kept:
        named = f" Asked were {', '.join(replies.missing)}." if replies.missing else ""
        click.echo(f"No node has answered in time.{named}", err=True)
        return NOBODY
    if not replies:
        click.echo("No node has answered. It is written down for workers that start later, within a day.", err=True)
    if replies.missing:
        click.echo(f"No answer from {', '.join(replies.missing)}.", err=True)
    elif replies.silent:
        click.echo(f"{replies.silent} of {replies.heard} that heard it did not answer.", err=True)
    # Celery's workers do not answer a shutdown; whoever names one still wants to know.
    expected = method == "shutdown" and not replies.missing
    return FAILED if replies.silent and not expected else 0
