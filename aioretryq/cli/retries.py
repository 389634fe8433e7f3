"""`aioretryq inspect-retries app:queue TASK`."""

from __future__ import annotations

import click

from aioretryq.cli.loading import load_queue
from aioretryq.errors import NotRegistered


@click.command("inspect-retries")
@click.argument("app", metavar="APP:QUEUE")
@click.argument("task", metavar="TASK")
@click.option("--attempts", type=click.IntRange(1), help="Rows to show.  [default: max_retries, or 10]")
def inspect_retries(app: str, task: str, attempts: int | None) -> None:
    """Print the schedule of a task's retries: shortest, longest and expected wait before each."""
    try:
        found = load_queue(app).find_task(task)
    except NotRegistered as error:
        raise click.UsageError(str(error)) from error
    policy = found.retry_policy
    click.echo(f"{found.name}")
    click.echo(f"  retries on   {', '.join(cls.__qualname__ for cls in found.autoretry_for) or 'task.retry() only'}")
    click.echo(f"  max_retries  {'for ever' if policy.max_retries is None else policy.max_retries}")
    click.echo(f"{'retry':>7} {'min s':>10} {'max s':>10} {'expected s':>11} {'all so far s':>13}")
    total = 0.0
    for row in policy.preview(attempts):
        total += row.expected
        click.echo(f"{row.attempt:>7} {row.minimum:>10.2f} {row.maximum:>10.2f} {row.expected:>11.2f} {total:>13.2f}")
