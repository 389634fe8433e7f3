"""Settings as they may be shown to whoever asks a worker: without its secrets."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from aioretryq.config import Settings
from aioretryq.protocol.control import jsonable
from aioretryq.protocol.saferepr import saferepr

if TYPE_CHECKING:
    from aioretryq.app import TaskQueue

MASK = "********"
_SECRET = re.compile(r"api|token|key(?!prefix)|secret|pass|pwd|auth|dsn|signature|credential", re.IGNORECASE)
# Up to the last "@": whatever was not escaped may be in a password.
_PASSWORD = re.compile(r"(://[^/?@:\s]*:)\S*@")
_ASSIGNED = re.compile(r"([^\s?&;,=]+)=([^\s&;]*)")


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
    if value is not None and not isinstance(value, bool) and _SECRET.search(name):
        return MASK
    if isinstance(value, Mapping):
        return {_text(str(key)): masked(str(key), each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [masked("", each) for each in value]
    found = saferepr(value) if isinstance(value, bytes) else jsonable(value)
    return _text(found) if isinstance(found, str) else found


def _text(text: str) -> str:
    """Without the passwords of URLs, and what is said of them, or elsewhere, in the form `password=...`."""
    return _ASSIGNED.sub(_assigned, _PASSWORD.sub(rf"\g<1>{MASK}@", text))


def _assigned(found: re.Match[str]) -> str:
    name = found[1]
    return f"{name}={MASK}" if found[2] and _SECRET.search(unquote(name)) else found[0]
