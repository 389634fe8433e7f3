"""Arguments of commands, as anybody may have sent them: what fits, or WrongArgument with a reason."""

from __future__ import annotations

import math
import re
from typing import Any

LONGEST_NAME = 255

_RESERVED = re.compile(r"(unacked|unacked_index|unacked_mutex)\Z|_kombu\.binding|aioretryq\.|celery-task(set)?-meta-")


class WrongArgument(ValueError):
    """What it says is meant for the sender: it is the whole reply."""


def whole(name: str, value: Any, *, least: int = 1, most: int = 100_000) -> int:
    if type(value) is not int:
        raise WrongArgument(f"{name} is a whole number, not {value!r:.100}")
    if not least <= value <= most:
        raise WrongArgument(f"{name} is from {least} to {most}, not {value}")
    return value


def seconds(name: str, value: Any) -> float | None:
    """None for no limit; so is 0, as with Celery."""
    if value is None:
        return None
    if type(value) not in (int, float):
        raise WrongArgument(f"{name} is a number of seconds, not {value!r:.100}")
    if not (math.isfinite(value) and value >= 0):
        raise WrongArgument(f"{name} is a number of seconds, not {value}")
    return float(value) or None


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise WrongArgument(f"{name} is a text, not {value!r:.100}")
    if not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise WrongArgument(f"{name} is a text of 1 to {LONGEST_NAME} printable characters, not {value!r:.100}")
    return value


def texts(name: str, value: Any) -> list[str]:
    """One text or several."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise WrongArgument(f"{name} is a list of texts, not {value!r:.100}")
    return list(found)


def queue_name(name: str, value: Any) -> str:
    """A text that is not the name of something else that is kept beside the queues."""
    found = text(name, value)
    if _RESERVED.match(found):
        raise WrongArgument(f"{found!r:.100} is no name for a queue: brokers and result backends use it themselves")
    return found
