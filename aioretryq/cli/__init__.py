"""The command line: parse, call, print."""

from __future__ import annotations

import click

from aioretryq.cli.dead import dead
from aioretryq.cli.retries import inspect_retries
from aioretryq.cli.settings import settings
from aioretryq.cli.worker import worker


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="aioretryq")
def main() -> None:
    """An awaitable Celery: run workers and look at tasks."""


main.add_command(worker)
main.add_command(dead)
main.add_command(inspect_retries)
main.add_command(settings)
