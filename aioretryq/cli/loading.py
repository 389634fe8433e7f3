"""From `package.module:attribute` on the command line to a TaskQueue."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from aioretryq.app import TaskQueue
from aioretryq.errors import AioretryqError
from aioretryq.lazy import Lazy

if TYPE_CHECKING:
    from types import ModuleType

    from aioretryq.celery_bridge.application import CeleryApplication
    from aioretryq.drivers import sqlite
else:
    sqlite = Lazy("aioretryq.drivers.sqlite")


def load_queue(path: str) -> TaskQueue:
    """The TaskQueue at `module:attribute` (attribute `queue` if left out), or a usage error that says why not."""
    module_name, _, attribute = path.partition(":")
    attribute = attribute or "queue"
    if not all(part.isidentifier() for part in module_name.split(".")):
        dotted = module_name.removesuffix(".py").strip("./").replace("/", ".")
        raise click.UsageError(f"{module_name!r} is not the name of a module. Did you mean {dotted}:{attribute}?")
    # A program started from its project's folder expects to import what lies there, as `python -m` does.
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is not None and (module_name == error.name or module_name.startswith(f"{error.name}.")):
            raise click.UsageError(
                f"There is no module {module_name!r} in {here} or on the Python path. "
                "Give the application as package.module:attribute."
            ) from error
        raise _broken(module_name) from error
    except AioretryqError as error:
        raise click.UsageError(f"{module_name} is not configured right: {error}") from error
    except Exception as error:
        raise _broken(module_name) from error
    found = getattr(module, attribute, None)
    if isinstance(found, TaskQueue):
        return found
    if (celerys := _celery_application(module, attribute)) is not None:
        raise click.UsageError(
            f"{module_name}:{celerys} is a Celery application, not a TaskQueue. "
            f"For a worker of it use --celery {module_name}:{celerys}"
        )
    queues = sorted(name for name, value in vars(module).items() if isinstance(value, TaskQueue))
    hint = f" It has: {', '.join(f'{module_name}:{name}' for name in queues)}." if queues else ""
    what = "does not exist" if found is None else f"is a {type(found).__name__}, not a TaskQueue"
    raise click.UsageError(f"{module_name}:{attribute} {what}.{hint}")


def _celery_application(module: ModuleType, attribute: str) -> str | None:
    """The name of the Celery application that is meant: the one asked for, or one in a module without a queue."""
    found = vars(module)
    if any(isinstance(value, TaskQueue) for value in found.values()):
        return attribute if _is_celery(found.get(attribute)) else None
    names = [attribute] if attribute in found else sorted(found)
    return next((name for name in names if _is_celery(found[name])), None)


def _is_celery(value: object) -> bool:
    """Without importing Celery: who has none of its applications may not have it installed."""
    return any(f"{base.__module__}.{base.__qualname__}" == "celery.app.base.Celery" for base in type(value).__mro__)


def load_celery(path: str, **options: Any) -> CeleryApplication:
    """The Celery application at `path`, initialised as its own worker would; or a usage error that says why not.

    Celery is imported here, and nowhere else.
    """
    try:
        loading = importlib.import_module("aioretryq.celery_bridge.loading")
        bridge = importlib.import_module("aioretryq.celery_bridge.application")
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("aioretryq"):
            raise
        raise click.UsageError(
            f"--celery needs Celery, and {error.name} is not installed here: pip install 'celery[redis]'."
        ) from error
    try:
        started: CeleryApplication = bridge.start(loading.find_celery(path), **options)
    except AioretryqError as error:
        raise click.UsageError(str(error)) from error
    except Exception as error:
        raise _broken(path) from error
    return started


def _broken(module_name: str) -> click.ClickException:
    return click.ClickException(f"{module_name} raised an error while it was imported:\n\n{traceback.format_exc()}")


def queue_at(
    app: str | None, url: str | None, *, in_memory: str, results: bool = True, existing: bool = True
) -> TaskQueue:
    """A queue to look at what goes on at a broker: the one at `url`, else that of the application or environment.

    `in_memory` is what to say where that is memory://, which nobody outside of its process can look into. Without
    `results` the result backend is left alone; `existing` refuses an SQLite file that would have to be created.
    """
    try:
        queue = TaskQueue() if app is None else load_queue(app)
        if url is not None:
            queue.conf.broker_url = url
        if not results:
            queue.conf.result_backend = "disabled"  # another server, maybe
        scheme = queue.broker_url.partition("://")[0].lower()
        if scheme == "memory":
            raise click.UsageError(in_memory)
        if existing and scheme == "sqlite" and not Path(path := sqlite.path_of(queue.broker_url)).exists():
            raise click.UsageError(
                f"There is no file {path!r}. Name the broker with --url, AIORETRYQ_URL or APP:QUEUE."
            )
    except AioretryqError as error:
        raise click.UsageError(str(error)) from error
    return queue
