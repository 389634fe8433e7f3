"""Arguments of commands, as anybody may have sent them: what fits, or TypeError or ValueError with a reason."""

from __future__ import annotations

import math
from typing import Any

LONGEST_NAME = 255


def whole(name: str, value: Any, *, least: int = 1, most: int = 100_000) -> int:
    if type(value) is not int:
        raise TypeError(f"{name} is a whole number, not {value!r:.100}")
    if not least <= value <= most:
        raise ValueError(f"{name} is from {least} to {most}, not {value}")
    return value


def seconds(name: str, value: Any) -> float | None:
    """None for no limit; so is 0, as with Celery."""
    if value is None:
        return None
    if type(value) not in (int, float):
        raise TypeError(f"{name} is a number of seconds, not {value!r:.100}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name} is a number of seconds, not {value}")
    return float(value) or None


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} is a text, not {value!r:.100}")
    if not 0 < len(value) <= LONGEST_NAME or not value.isprintable():
        raise ValueError(f"{name} is a text of 1 to {LONGEST_NAME} printable characters, not {value!r:.100}")
    return value


def texts(name: str, value: Any) -> list[str]:
    """One text or several."""
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list | tuple) or not all(isinstance(each, str) for each in found):
        raise TypeError(f"{name} is a list of texts, not {value!r:.100}")
    return list(found)
