"""From a path on the command line to a Celery application, as `celery -A` finds it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from celery import Celery
from celery.app import base
from celery.app.task import Task
from celery.app.utils import find_app

from aioretryq.app import TaskQueue
from aioretryq.celery_bridge.models import with_coroutines
from aioretryq.errors import ConfigError


def find_celery(path: str) -> Any:
    """The application at `proj`, `proj.app` or `proj.app:name`; ConfigError that says what is there instead.

    What the application's own modules raise is raised.
    """
    _keep_acks_late_open()
    base.pydantic_wrapper = with_coroutines(base.pydantic_wrapper)
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    module = path.partition(":")[0]
    if not all(part.isidentifier() for part in module.split(".")):
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise ConfigError(f"{module!r} is not the name of a module. Did you mean {dotted}?")
    try:
        found = find_app(path)
    except (ModuleNotFoundError, AttributeError) as error:
        raise _said_better(error, path, module) from error
    if isinstance(found, Celery):
        return found
    if isinstance(found, TaskQueue):
        raise ConfigError(f"{path} is a TaskQueue, not a Celery application: leave --celery out.")
    raise ConfigError(f"{path} is a {type(found).__name__}, not a Celery application.{_hint(module)}")


def _said_better(error: ImportError | AttributeError, path: str, module: str) -> Exception:
    """What is wrong with the path; or the error itself, of a module that cannot be imported for its own reasons."""
    missing = error.name if isinstance(error, ImportError) else None
    if missing is not None and f"{module}.".startswith(f"{missing}."):
        return ConfigError(
            f"There is no module {missing!r} in {Path.cwd()} or on the Python path. "
            "Give the application as celery -A takes it, such as proj or proj.app:app."
        )
    if module in sys.modules and missing in (None, path):  # it was imported: what was looked for in it is not there
        where = f"{path} does not exist." if ":" in path else f"There is no Celery application in {path}."
        return ConfigError(f"{where}{_hint(module)}")
    return error


def _hint(module: str) -> str:
    found = vars(sys.modules[module]) if module in sys.modules else {}
    names = sorted(name for name, value in found.items() if isinstance(value, Celery))
    return f" It has: {', '.join(f'{module}:{name}' for name in names)}." if names else ""


def _keep_acks_late_open() -> None:
    """Let tasks whose author has not decided about `acks_late` keep None, instead of Celery's default.

    Afterwards nobody could tell `acks_late=False` on a task, or `task_acks_late = False`, which are meant, from the
    default, which is not.
    """
    left: Any = tuple(pair for pair in Task.from_config if pair[0] != "acks_late")
    Task.from_config = left
