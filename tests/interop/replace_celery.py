"""Celery's half of the replace tests."""

from __future__ import annotations

from celery import canvas
from links_celery import app
from replace_parts import instead


@app.task(name="l.instead", bind=True)
def takes_the_place(self, value, way):
    return self.replace(instead(way, value, sign, canvas))


def sign(name, *args):
    return app.signature(f"l.{name}", args=args)
