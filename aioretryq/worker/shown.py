"""Settings as they may be shown to whoever asks a worker: without its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from aioretryq.config import Settings
from aioretryq.protocol.control import jsonable

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue

MASK = "********"
_SECRET = re.compile(r"api|token|key(?!prefix)|secret|pass|signature|credential", re.IGNORECASE)
_PASSWORD = re.compile(r"(://[^/@\s]*:)[^/@\s]*@")


def settings(queue: TaskQueue, *, with_defaults: bool) -> dict[str, Any]:
    """Those that differ from the defaults, or all."""
    defaults = Settings().as_dict()
    found = {**queue.conf.as_dict(), "broker_url": queue.broker_url, "result_backend": queue.backend_url}
    return {
        name: masked(name, value)
        for name, value in found.items()
        if with_defaults or name not in defaults or value != defaults[name]
    }


def masked(name: str, value: Any) -> Any:
    """The value of a setting as JSON can hold it; secrets and the passwords of URLs are hidden."""
    if value is not None and not isinstance(value, bool | int | float) and _SECRET.search(name):
        return MASK
    if isinstance(value, str):
        return _PASSWORD.sub(rf"\g<1>{MASK}@", value)
    if isinstance(value, Mapping):
        return {str(key): masked(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked("", each) for each in value]
    return jsonable(value)
