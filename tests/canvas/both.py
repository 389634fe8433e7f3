"""The same expression, composed by Celery's canvas and by ours, and what both write."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import celery
from celery import canvas as theirs

import aioretryq
from aioretryq import TaskQueue
from queues import memory_url

app = celery.Celery("both", set_as_current=False)
queue = TaskQueue(memory_url())


class Celerys:
    """Celery's constructors. What its `set`, `link` and the like change is a copy, so that expressions are values."""

    chain, chord, group = staticmethod(theirs.chain), staticmethod(theirs.chord), staticmethod(theirs.group)

    def s(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return app.signature(f"w.{name}", args=args, kwargs=kwargs)

    def si(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return app.signature(f"w.{name}", args=args, kwargs=kwargs, immutable=True)

    def xmap(self, signature: Any, it: Any) -> Any:
        return theirs.xmap(signature, it, app=app)

    def xstarmap(self, signature: Any, it: Any) -> Any:
        return theirs.xstarmap(signature, it, app=app)

    def chunks(self, signature: Any, it: Any, n: int) -> Any:
        return theirs.chunks(signature, it, n, app=app)

    def changed(self, signature: Any, method: str, *args: Any, **options: Any) -> Any:
        """`set`, `link`, `link_error`, `stamp`, ... and the signature after that."""
        getattr(signature, method)(*args, **options)
        return signature


class Ours:
    chain, chord, group = staticmethod(aioretryq.chain), staticmethod(aioretryq.chord), staticmethod(aioretryq.group)
    xmap, xstarmap = staticmethod(aioretryq.xmap), staticmethod(aioretryq.xstarmap)
    chunks = staticmethod(aioretryq.chunks)

    def s(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return aioretryq.signature(f"w.{name}", args, kwargs, app=queue)

    def si(self, name: str, *args: Any, **kwargs: Any) -> Any:
        return aioretryq.signature(f"w.{name}", args, kwargs, immutable=True, app=queue)

    def changed(self, signature: Any, method: str, *args: Any, **options: Any) -> Any:
        before = copy.deepcopy(signature.to_dict())
        found = getattr(signature, method)(*args, **options)
        assert signature.to_dict() == before, "a signature was changed"
        return found


Api = Celerys | Ours


def written(signature: Any) -> Any:
    """As it is after a journey; names of stamps in order, and only of those that there are."""
    found = signature.to_dict() if isinstance(signature, aioretryq.Signature) else signature
    return normal(json.loads(json.dumps(found)))


def normal(value: Any) -> Any:
    """Without what means nothing: a header that is a group without options is the list of its members."""
    if isinstance(value, list):
        return [normal(each) for each in value]
    if not isinstance(value, dict):
        return value
    found = {name: normal(each) for name, each in value.items()}
    if isinstance(names := found.get("stamped_headers"), list):
        found["stamped_headers"] = sorted({name for name in names if name in found})
    header = found.get("header")
    if isinstance(header, dict) and header.get("subtask_type") == "group" and not header["options"]:
        found["header"] = header["kwargs"]["tasks"]
    return found


def both(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """(Celery's, ours): dictionaries, or the types of what was raised."""
    found: list[Any] = []
    for api in (Celerys(), Ours()):
        try:
            found.append(written(make(api)))
        except (TypeError, AttributeError, IndexError) as error:
            found.append(type(error))
    return found[0], found[1]
