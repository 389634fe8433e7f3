"""`aioretryq settings`: the table of settings."""

from __future__ import annotations

import textwrap

import click

from aioretryq.cli import celery_settings
from aioretryq.config import ENV_PREFIX, table


@click.command()
@click.option("--markdown", is_flag=True, help="As the page docs/settings.md, or the tables about Celery.")
@click.option("--celery", is_flag=True, help="Every setting of Celery instead, and what becomes of it here.")
def settings(markdown: bool, celery: bool) -> None:
    """List all settings with type, default and meaning."""
    if celery:
        click.echo(celery_settings.as_markdown() if markdown else celery_settings.as_text())
    else:
        click.echo(as_markdown() if markdown else as_text())


def as_text() -> str:
    blocks = [
        f"{name} ({kind}, default {default!r})\n{textwrap.indent(textwrap.fill(doc, 90), '    ')}"
        for name, kind, default, doc in table()
    ]
    return "\n".join(blocks)


def as_markdown() -> str:
    rows = [
        f"| `{name}` | `{kind.replace('|', chr(92) + '|')}` | `{default!r}` | {doc} |"
        for name, kind, default, doc in table()
        if name != "worker_threads"
    ]
    threads = next(doc for name, _, _, doc in table() if name == "worker_threads")
    return "\n".join(
        [
            "# Settings",
            "",
            "Made by `aioretryq settings --markdown`. Set them as keywords of `TaskQueue`, as attributes of",
            f"`queue.conf`, with `queue.config_from_object(...)`, or as `{ENV_PREFIX}<SETTING>` in the environment.",
            "",
            "| setting | type | default | meaning |",
            "| --- | --- | --- | --- |",
            *rows,
            f"| `worker_threads` | `int` | number of CPUs + 4, at most 32 | {threads} |",
            "",
        ]
    )
