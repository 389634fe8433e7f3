"""The command line: parse, call, print."""

from __future__ import annotations

import importlib
from collections import UserDict
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMANDS = {
    "control": ("control:control", "Tell running workers, of aioretryq and of Celery, what to do."),
    "dead": ("dead:dead", "Look at the dead letters, send them again, delete them."),
    "events": ("events:events", "Watch workers and tasks: a live table, or every event as a line."),
    "inspect": ("control:inspect", "Ask running workers, of aioretryq and of Celery."),
    "inspect-retries": ("retries:inspect_retries", "Print the schedule of a task's retries."),
    "settings": ("settings:settings", "List all settings with type, default and meaning."),
    "status": ("control:status", "List the workers that answer."),
    "unpark": ("unpark:unpark", "Hand messages that wait for their time to Celery workers."),
    "worker": ("worker:worker", "Run the tasks of APP:QUEUE, such as `myapp.tasks:queue`."),
    "workflow": ("workflow:workflow", "Show a workflow with the states of its steps."),
}
"""By name: where the command is, and what it does. Only the one that is asked for is imported."""


class OnDemand(UserDict[str, click.Command]):
    """Commands by name, imported when they are asked for."""

    def __getitem__(self, name: str) -> click.Command:
        if name not in self.data:
            module, _, attribute = COMMANDS[name][0].partition(":")
            self.data[name] = getattr(importlib.import_module(f"aioretryq.cli.{module}"), attribute)
        return self.data[name]

    def __contains__(self, name: object) -> bool:
        return name in COMMANDS or name in self.data

    def __iter__(self) -> Iterator[str]:
        return iter({**COMMANDS, **self.data})


class Commands(click.Group):
    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, COMMANDS[name][1]) for name in self.list_commands(ctx)])


@click.group(cls=Commands, commands=OnDemand(), context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aioretryq")
def main() -> None:
    """An awaitable Celery: run workers and look at tasks."""
