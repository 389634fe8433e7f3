"""Trees are built by these: Celery's functions, and ours."""

from __future__ import annotations

import json
from typing import Any

import celery
from canvas.composing import app as celery_app

from aioretryq import canvas


class ByCelery:
    def __init__(self, app: Any = celery_app) -> None:
        self._app = app

    def signature(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], immutable: bool) -> Any:
        return self._app.signature(name, args=args, kwargs=kwargs, immutable=immutable)

    def link(self, signature: Any, callback: Any) -> Any:
        signature.link(callback)
        return signature

    def link_error(self, signature: Any, errback: Any) -> Any:
        signature.link_error(errback)
        return signature

    chain = staticmethod(celery.chain)
    group = staticmethod(celery.group)
    chord = staticmethod(celery.chord)


class ByUs:
    def __init__(self, queue: Any = None) -> None:
        self._queue = queue

    def signature(self, name: str, args: tuple[Any, ...], kwargs: dict[str, Any], immutable: bool) -> Any:
        return canvas.signature(name, args, kwargs, immutable=immutable, app=self._queue)

    def link(self, signature: Any, callback: Any) -> Any:
        return signature.link(callback)

    def link_error(self, signature: Any, errback: Any) -> Any:
        return signature.link_error(errback)

    chain = staticmethod(canvas.chain)
    group = staticmethod(canvas.group)
    chord = staticmethod(canvas.chord)


def written(composed: Any) -> dict[str, Any]:
    """As it is after a journey."""
    found: dict[str, Any] = json.loads(json.dumps(composed, default=lambda each: each.to_dict()))
    return found
