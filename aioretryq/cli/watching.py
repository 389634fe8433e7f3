"""How commands that watch something end: interrupted, with nobody reading any more, or with an error."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from aioretryq.errors import AioretryqError, ConfigError, UnavailableError

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def watching(unreachable: int) -> Iterator[None]:
    """Around the work of such a command; `unreachable` is its exit code where a server is gone."""
    try:
        yield
    except KeyboardInterrupt:
        pass
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it at its end
    except ConfigError as error:
        raise click.UsageError(str(error)) from error
    except UnavailableError as error:
        click.echo(f"Error: {error}", err=True)
        raise SystemExit(unreachable) from error
    except AioretryqError as error:
        raise click.ClickException(str(error)) from error
