"""Workflows as Celery's canvas writes them down, not yet sent: what any client could put into a message."""

from __future__ import annotations

import json
from typing import Any

from celery import Celery, Signature

app = Celery("composing", set_as_current=False)


def s(name: str, *args: Any, **options: Any) -> Signature:
    return app.signature(f"w.{name}", args=args, options=options)


def si(name: str, *args: Any, **options: Any) -> Signature:
    return app.signature(f"w.{name}", args=args, options=options, immutable=True)


def written(signature: Signature) -> dict[str, Any]:
    """As it is after a journey."""
    found: dict[str, Any] = json.loads(json.dumps(signature))
    return found
